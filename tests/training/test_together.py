"""Several processes take the steps that one would: shares and sums by themselves, then real processes at work together."""

from __future__ import annotations

import multiprocessing
import socket
import warnings
from pathlib import Path
from typing import Any

import many
import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from workbench import same

from loralab.data.batches import partition_by_length
from loralab.errors import LoralabError
from loralab.training.distributed import ALONE, Distributed, tell

PROCESSES = 3

# Who takes what


@given(st.lists(st.integers(1, 512), max_size=40), st.integers(1, 5))
def test_each_text_is_dealt_once_and_tokens_evenly(lengths: list[int], hands: int) -> None:
    everything = np.array([0, *lengths], dtype=np.int64)
    positions = np.arange(1, len(everything))  # a part of the rows: they are positions, not numbers from 0
    parts = partition_by_length(positions, everything, hands)
    assert sorted(np.concatenate(parts).tolist()) == positions.tolist()
    assert len(parts) == hands
    counts, tokens = [len(part) for part in parts], [int(everything[part].sum()) for part in parts]
    assert max(counts) - min(counts) <= 1
    assert max(tokens) - min(tokens) <= max(lengths, default=0)


def test_dealing_goes_back_and_forth_from_the_longest() -> None:
    lengths = np.array([10, 60, 30, 50, 20, 40, 5])
    assert [part.tolist() for part in partition_by_length(np.arange(7), lengths, 3)] == [[1, 0, 6], [3, 4], [5, 2]]


def test_a_process_alone_shares_with_nobody() -> None:
    positions, lengths = np.array([2, 0, 1]), np.array([5, 9, 7])
    assert ALONE.share(positions, lengths) is positions
    assert Distributed(rank=1, size=2).share(positions, lengths).tolist() == [2, 0]
    assert ALONE.gather("x") == ["x"]
    assert ALONE.all_reduce(1.5, []) == 1.5


def test_cores_are_divided_among_a_hosts_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 16 if logical else 8)
    assert ALONE.threads is None
    assert Distributed(rank=5, size=8, local_rank=1, local_size=4).threads == 2
    assert Distributed(rank=0, size=64, local_rank=0, local_size=64).threads == 1
    assert Distributed(rank=1, size=2, local_rank=0, local_size=1).threads is None  # one process a host: all its cores


# Joining and speaking


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Distributed.join() is ALONE
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Distributed.join() is ALONE


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "1"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(LoralabError, match="4 processes need a GPU each and there are 2: --nproc-per-node 2"):
        Distributed.join()


@pytest.mark.parametrize(("local_rank", "lines"), [(None, 1), ("0", 1), ("1", 0)])
def test_an_error_is_told_once_on_each_host(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], local_rank: str | None, lines: int
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr("loralab.training.distributed._SECONDS_TO_SPEAK", 0.0)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    tell("loralab: wrong")
    assert capsys.readouterr().err.splitlines() == ["loralab: wrong"] * lines


# Processes at work together: all scenarios of many.py, in one set of processes and here


@pytest.fixture(scope="module")
def together(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of several processes found."""
    out = tmp_path_factory.mktemp("together")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    many.plain(tiny, ALONE)  # forked processes begin with all that is imported by now; beside a GPU's threads none can be forked
    start = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    processes = []
    for rank in range(PROCESSES):
        values = {**shared, "RANK": rank, "LOCAL_RANK": rank, "CUDA_VISIBLE_DEVICES": ""}
        environment = {name: str(value) for name, value in values.items()}
        processes.append(start.Process(target=many.run, args=(tiny, out, environment), daemon=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside other threads, from Python 3.12 on
        for process in processes:
            process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    found = [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]
    assert [each["world"] for each in found] == [
        {"rank": rank, "size": PROCESSES, "local_rank": rank, "local_size": PROCESSES} for rank in range(PROCESSES)
    ]
    return [each["found"] for each in found]


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "passes_weights_smoothing",
        "one_example_in_the_last_step",
        "nothing_trains_below",
        "a_parameter_that_nothing_uses",
        "other_weights_to_begin_with",
        "early_stopping",
    ],
)
def test_they_take_the_steps_of_one_process(tiny: Path, together: list[dict[str, Any]], name: str) -> None:
    one = getattr(many, name)(tiny, ALONE)
    first = together[0][name]
    assert len(one["losses"]) == len(first["losses"]) > 3
    assert first["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert first["norms"] == pytest.approx(one["norms"], rel=1e-4)
    assert len(one["scores"]) == len(first["scores"])
    for ours, theirs in zip(first["scores"], one["scores"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    for weight, tensor in one["weights"].items():
        torch.testing.assert_close(first["weights"][weight], tensor, rtol=0, atol=1e-4)
    for found in together:
        assert same(found[name]["weights"], first["weights"])  # bit for bit
        assert found[name]["result"] == one["result"]
    for found in together[1:]:
        assert found[name]["losses"] == found[name]["scores"] == []  # the first alone is listened to


def test_what_nothing_uses_is_left_as_it_was(together: list[dict[str, Any]]) -> None:
    assert torch.equal(together[1]["a_parameter_that_nothing_uses"]["weights"]["idle"], torch.ones(2, 2))


def test_early_stopping_is_decided_by_the_first(together: list[dict[str, Any]]) -> None:
    for found in together:
        assert found["early_stopping"]["result"] == (4, 2, 32, True)


def test_dropout_is_drawn_by_each_and_survives_a_resume(together: list[dict[str, Any]]) -> None:
    for found in together:
        assert same(found["dropout"]["resumed"], together[0]["dropout"]["whole"])
    masks = [found["dropout"]["mask"] for found in together]
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[1], masks[2])


def test_an_error_in_one_is_every_ones(together: list[dict[str, Any]]) -> None:
    other = "process 1 has other base than the first: b, not a; give every host the same command and the same files"
    for rank, found in enumerate(together):
        said = dict(found["errors"])
        assert said.pop("in turn") == rank
        diverged = said.pop("diverged")
        assert diverged[0] == "RunFailed"
        assert diverged == together[0]["errors"]["diverged"]
        assert said == {
            "once, first": ("RunFailed", "no such file"),
            "once, other": "fine",
            "each, first": ("LoralabError", "no such file"),
            "each, other": ("RunFailed", "process 1: no such file"),
            "each, none": "fine",
            "same": None,
            "not the same": ("LoralabError", other),
        }
