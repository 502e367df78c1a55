"""Several processes take the steps of one: the sharing of rows, then real processes."""

from __future__ import annotations

import multiprocessing
import os
import socket
import warnings
from pathlib import Path
from typing import Any

import distributed_scenarios as scenarios
import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from workbench import same

from loralab.data.batches import partition_by_length
from loralab.errors import LoralabError
from loralab.training.distributed import ALONE, Distributed, report_error

PROCESSES = 3

# Sharing rows


@given(st.lists(st.integers(1, 512), max_size=40), st.integers(1, 5))
def test_parts_are_disjoint_complete_and_equal_in_tokens(lengths: list[int], count: int) -> None:
    everything = np.array([0, *lengths], dtype=np.int64)
    positions = np.arange(1, len(everything))  # positions of some rows, not numbers from 0
    parts = partition_by_length(positions, everything, count)
    assert sorted(np.concatenate(parts).tolist()) == positions.tolist()
    assert len(parts) == count
    counts, tokens = [len(part) for part in parts], [int(everything[part].sum()) for part in parts]
    assert max(counts) - min(counts) <= 1
    assert max(tokens) - min(tokens) <= max(lengths, default=0)


def test_parts_are_filled_back_and_forth_from_the_longest() -> None:
    lengths = np.array([10, 60, 30, 50, 20, 40, 5])
    assert [part.tolist() for part in partition_by_length(np.arange(7), lengths, 3)] == [[1, 0, 6], [3, 4], [5, 2]]


def test_a_single_process_has_all_rows() -> None:
    positions, lengths = np.array([2, 0, 1]), np.array([5, 9, 7])
    assert ALONE.share(positions, lengths) is positions
    assert Distributed(rank=1, size=2).share(positions, lengths).tolist() == [2, 0]
    assert ALONE.gather("x") == ["x"]
    assert ALONE.all_reduce(1.5, []) == 1.5


def set_cores(monkeypatch: pytest.MonkeyPatch, physical: int, usable: int) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 2 * physical if logical else physical)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(usable)), raising=False)


def test_cores_are_divided_among_a_hosts_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    set_cores(monkeypatch, 8, 16)
    assert ALONE.threads is None
    assert Distributed(rank=5, size=8, local_rank=1, local_size=4).threads == 2
    assert Distributed(rank=0, size=64, local_rank=0, local_size=64).threads == 1
    assert Distributed(rank=1, size=2, local_rank=0, local_size=1).threads is None  # one process per host: all its cores


def test_cores_that_the_process_may_not_use_are_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    set_cores(monkeypatch, 64, 4)
    assert Distributed(rank=0, size=2, local_rank=0, local_size=2).threads == 2


def test_without_cpu_affinity_all_cores_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    set_cores(monkeypatch, 8, 16)
    monkeypatch.delattr(os, "sched_getaffinity")
    assert Distributed(rank=0, size=2, local_rank=0, local_size=2).threads == 4


# Joining, and reporting errors


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


@pytest.mark.parametrize("missing", ["RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"])
def test_incomplete_variables_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.delenv(missing)
    with pytest.raises(LoralabError, match=f"WORLD_SIZE=2 and no {missing}: start several processes with torchrun"):
        Distributed.join()


def test_variables_that_are_no_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORLD_SIZE", "two"), ("RANK", "1"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(LoralabError, match=r"WORLD_SIZE=two.*must be numbers"):
        Distributed.join()


@pytest.mark.parametrize(
    ("variables", "lines"),
    [
        ({}, 1),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}, 1),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, 0),
        ({"LOCAL_RANK": "1"}, 1),  # left by another program
        ({"RANK": "1", "WORLD_SIZE": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"}, 1),
    ],
)
def test_an_error_is_printed_once_on_each_host(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variables: dict[str, str], lines: int
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_ERROR_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("loralab.training.distributed._REPORT_SECONDS", 0.0)
    report_error("loralab: wrong")
    assert capsys.readouterr().err.splitlines() == ["loralab: wrong"] * lines


# Real processes: all scenarios of distributed_scenarios.py, in one set of processes and here


@pytest.fixture(scope="module")
def outcomes_by_rank(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The outcomes of each process."""
    out = tmp_path_factory.mktemp("outcomes")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    scenarios.plain(tiny, ALONE)  # forked processes inherit its imports; with a GPU's threads there is no fork
    start: Any = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    processes = []
    for rank in range(PROCESSES):
        values = {**shared, "RANK": rank, "LOCAL_RANK": rank, "CUDA_VISIBLE_DEVICES": ""}
        environment = {name: str(value) for name, value in values.items()}
        processes.append(start.Process(target=scenarios.run, args=(tiny, out, environment), daemon=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forking a process with threads
        for process in processes:
            process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    saved = [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]
    assert [process["distributed"] for process in saved] == [
        {"rank": rank, "size": PROCESSES, "local_rank": rank, "local_size": PROCESSES} for rank in range(PROCESSES)
    ]
    return [process["outcomes"] for process in saved]


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "microbatches_weights_smoothing",
        "row_weights",
        "one_example_in_the_last_step",
        "frozen_layers_below",
        "unused_parameter",
        "different_initial_weights",
        "early_stopping",
    ],
)
def test_they_take_the_steps_of_one_process(tiny: Path, outcomes_by_rank: list[dict[str, Any]], name: str) -> None:
    one = getattr(scenarios, name)(tiny, ALONE)
    main = outcomes_by_rank[0][name]
    assert len(one["losses"]) == len(main["losses"]) > 3
    assert main["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert main["norms"] == pytest.approx(one["norms"], rel=1e-4)
    assert len(one["scores"]) == len(main["scores"])
    for ours, theirs in zip(main["scores"], one["scores"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    for weight, tensor in one["weights"].items():
        torch.testing.assert_close(main["weights"][weight], tensor, rtol=0, atol=1e-4)
    for outcomes in outcomes_by_rank:
        assert same(outcomes[name]["weights"], main["weights"])  # bit for bit
        assert outcomes[name]["result"] == one["result"]
    for outcomes in outcomes_by_rank[1:]:
        assert outcomes[name]["losses"] == outcomes[name]["scores"] == []  # only the main process has listeners


def test_an_evaluation_has_the_memory_of_every_process(outcomes_by_rank: list[dict[str, Any]]) -> None:
    names = ["gpu_mb", "gpu_mb:1", "gpu_mb:2", "process_mb", "process_mb:1", "process_mb:2"]
    assert outcomes_by_rank[0]["plain"]["memory"] == [names]


def test_an_unused_parameter_does_not_decay(outcomes_by_rank: list[dict[str, Any]]) -> None:
    assert torch.equal(outcomes_by_rank[1]["unused_parameter"]["weights"]["idle"], torch.ones(2, 2))


def test_the_main_process_decides_early_stopping(outcomes_by_rank: list[dict[str, Any]]) -> None:
    for outcomes in outcomes_by_rank:
        assert outcomes["early_stopping"]["result"] == (4, 2, 32, True)


def test_each_process_has_its_own_dropout_also_after_a_resume(outcomes_by_rank: list[dict[str, Any]]) -> None:
    for outcomes in outcomes_by_rank:
        assert same(outcomes["dropout"]["resumed"], outcomes_by_rank[0]["dropout"]["whole"])
    masks = [outcomes["dropout"]["mask"] for outcomes in outcomes_by_rank]
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[1], masks[2])


def test_an_error_in_one_process_is_raised_in_all(outcomes_by_rank: list[dict[str, Any]]) -> None:
    other = "process 1 and the main process differ in base: b, not a; give every host the same command and the same files"
    for rank, outcomes in enumerate(outcomes_by_rank):
        errors = dict(outcomes["errors"])
        assert errors.pop("main_first") == rank
        diverged = errors.pop("diverged")
        assert diverged[0] == "RunFailed"
        assert diverged == outcomes_by_rank[0]["errors"]["diverged"]
        assert errors == {
            "run_on_main, main": ("RunFailed", "no such file"),
            "run_on_main, other": "fine",
            "run_everywhere, main": ("LoralabError", "no such file"),
            "run_everywhere, other": ("RunFailed", "process 1: no such file"),
            "run_everywhere, none": "fine",
            "same": None,
            "different": ("LoralabError", other),
        }
