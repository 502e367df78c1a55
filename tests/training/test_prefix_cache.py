"""Training with the feature cache equals training without it. Its files are reused, limited, and complete or absent."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from workbench import Recorder, make_model, rows, same, train, trained

from loralab.data.types import Encoded
from loralab.errors import LoralabError, RunFailed
from loralab.model.encoder import EncoderClassifier
from loralab.storage.files import file_lock
from loralab.training import prefix_cache
from loralab.training.prefix_cache import PrefixCache, plan
from loralab.training.scoring import logits_of


def planned(
    model: EncoderClassifier, folder: Path, *parts: Encoded, place: str = "disk", limit: float = 1e9, **changes: Any
) -> PrefixCache:
    settings = {"place": place, "limit": limit, "epochs": 1.0, "folder": folder, "identity": "tiny", **changes}
    return plan(model, parts, **settings)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize(("layers", "dropout"), [("top1", 0.0), ("1-2", 0.2)])
def test_losses_and_weights_are_those_of_training_without_it(
    tiny: Path, tmp_path: Path, place: str, layers: str, dropout: float
) -> None:
    plain, cached = (make_model(tiny, layers=layers, dropout=dropout) for _ in range(2))
    data, held_out = rows(tiny), rows(tiny, 5, seed=9)
    cache = planned(cached, tmp_path, data, held_out, place=place)
    recorders = Recorder(), Recorder()
    train(plain, data, held_out, listeners=[recorders[0]])
    train(cached, cache.add_hidden_states(cached, data), cache.add_hidden_states(cached, held_out), listeners=[recorders[1]])
    losses = [[event.loss for event in recorder.steps] for recorder in recorders]
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
    assert recorders[0].evaluations[-1].scores["loss"] == pytest.approx(recorders[1].evaluations[-1].scores["loss"], abs=1e-5)
    for name, weight in trained(plain).items():
        torch.testing.assert_close(weight, trained(cached)[name], atol=1e-4, rtol=1e-4)


def test_in_bf16_the_losses_are_the_same_within_rounding(tiny: Path, tmp_path: Path) -> None:
    recorders = []
    for place in ("off", "disk"):
        model, data = make_model(tiny, layers="2"), rows(tiny)
        model.freeze_to(torch.bfloat16)
        kept = planned(model, tmp_path, data, place=place).add_hidden_states(model, data)
        assert (kept.hidden is not None) == (place == "disk")
        recorder = Recorder()
        train(model, kept, listeners=[recorder])
        recorders.append([event.loss for event in recorder.steps])
    np.testing.assert_allclose(recorders[0], recorders[1], atol=2e-2)


def test_logits_from_cached_states_equal_those_from_tokens(tiny: Path, tmp_path: Path) -> None:
    for tuning, layers in (("lora", "2"), ("head", None)):
        model, data = make_model(tiny, tuning=tuning, layers=layers), rows(tiny)
        cache = planned(model, tmp_path, data)
        assert cache.start == (2 if tuning == "lora" else 3)
        np.testing.assert_allclose(logits_of(model, cache.add_hidden_states(model, data)), logits_of(model, data), atol=1e-5)


def test_full_tuning_above_frozen_layers_uses_it_too(tiny: Path, tmp_path: Path) -> None:
    model = make_model(tiny, tuning="full", freeze="embeddings,0-1")
    assert planned(model, tmp_path, rows(tiny)).start == 2
    assert planned(make_model(tiny, tuning="full", freeze="0-1"), tmp_path, rows(tiny)).place == "off"  # the embeddings train


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"place": "off"}, "train.feature_cache=off"),
        ({"epochs": 0.0, "place": "auto"}, "nothing is trained"),
        ({"limit": 1000.0, "place": "auto"}, "0.00 GB of hidden states are more than train.feature_cache_gb=1e-06"),
    ],
)
def test_it_is_off_with_a_reason(tiny: Path, tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    cache = planned(make_model(tiny, layers="2"), tmp_path, rows(tiny), **changes)
    assert cache.place == "off"
    assert reason in cache.reason
    data = rows(tiny)
    assert cache.add_hidden_states(make_model(tiny), data) is data
    assert files(tmp_path) == []


def test_it_is_off_where_nothing_below_is_frozen(tiny: Path, tmp_path: Path) -> None:
    for model in (make_model(tiny), make_model(tiny, layers="0,2"), make_model(tiny, tuning="full")):
        cache = planned(model, tmp_path, rows(tiny))
        assert (cache.place, cache.reason) == ("off", "the first layer is trained, so no hidden states stay the same")


def test_a_requested_place_that_is_too_small_is_refused(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = make_model(tiny, layers="2"), rows(tiny)
    with pytest.raises(
        LoralabError, match=r"train\.feature_cache=memory: .* more than train\.feature_cache_gb=1e-06; use train\.feature_cache=off"
    ):
        planned(model, tmp_path, data, place="memory", limit=1000)
    monkeypatch.setattr(prefix_cache, "_free", lambda folder: 1000)
    with pytest.raises(LoralabError, match=r"train\.feature_cache=disk: .* more than the free space of"):
        planned(model, tmp_path, data)
    assert planned(model, tmp_path, data, place="auto").place == "off"
    assert planned(model, tmp_path, data, place="memory").place == "memory"


def test_a_later_run_reuses_the_files_and_computes_nothing(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = make_model(tiny, layers="2"), rows(tiny)
    progress: list[Any] = []
    first = planned(model, tmp_path, data).add_hidden_states(model, data, [progress.append])
    assert [progress[-1].done, progress[-1].tokens] == [len(data.tokens)] * 2
    assert len(files(tmp_path)) == 1
    again = make_model(tiny, layers="2", seed=5, rank=2)  # another seed and adapter: the frozen layers are the same
    monkeypatch.setattr(EncoderClassifier, "encode", None)
    cache = planned(again, tmp_path, data)
    assert cache.reusable == cache.size > 0
    kept = cache.add_hidden_states(again, data)
    assert kept.hidden is not None
    np.testing.assert_array_equal(kept.hidden, first.hidden)


def test_every_part_of_the_key_matters(tiny: Path, tmp_path: Path) -> None:
    data = rows(tiny)
    planned(make_model(tiny, layers="2"), tmp_path, data).add_hidden_states(make_model(tiny, layers="2"), data)
    half = make_model(tiny, layers="2")
    half.freeze_to(torch.bfloat16)
    shorter = Encoded(data.tokens[:-1], np.append(data.starts[:-1], data.starts[-1] - 1), data.labels, data.pad_id)
    others = [
        planned(make_model(tiny, layers="1-2"), tmp_path, data),
        planned(make_model(tiny, layers="2"), tmp_path, data, identity="another base"),
        planned(half, tmp_path, data),
        planned(make_model(tiny, layers="2"), tmp_path, shorter),
    ]
    assert planned(make_model(tiny, layers="2"), tmp_path, data).reusable > 0
    assert [cache.reusable for cache in others] == [0, 0, 0, 0]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"half"])
def test_a_damaged_file_is_replaced(tiny: Path, tmp_path: Path, damage: bytes) -> None:
    model, data = make_model(tiny, layers="2"), rows(tiny)
    first = planned(model, tmp_path, data).add_hidden_states(model, data).hidden
    assert first is not None
    whole = np.array(first)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage == b"half" else damage)
    again = planned(model, tmp_path, data).add_hidden_states(model, data).hidden
    assert again is not None
    np.testing.assert_array_equal(again, whole)


def test_a_flipped_bit_is_noticed_and_the_states_are_computed_again(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_cache, "_BLOCK", 1000)
    model, own = make_model(tiny, layers="2"), rows(tiny)
    first = planned(model, tmp_path, own).add_hidden_states(model, own)
    assert first.hidden is not None
    states = first.hidden.copy()
    (path,) = tmp_path.glob("*.npy")
    whole = path.read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        caplog.clear()
        again = planned(model, tmp_path, own).add_hidden_states(model, own)
        assert "is damaged: its hidden states are computed again" in caplog.text, position
        assert np.array_equal(again.hidden, states)
        assert path.read_bytes() == whole
    for cut in (whole[:-1], whole + b"x", b""):
        path.write_bytes(cut)
        assert np.array_equal(planned(model, tmp_path, own).add_hidden_states(model, own).hidden, states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_threads_does_not_change_the_states(tiny: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    model, few, many = make_model(tiny, layers="2"), rows(tiny, 2), rows(tiny, 200)
    model.freeze_to(dtype)
    for data in (few, many):
        states = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            hidden = planned(model, tmp_path, data, place="memory").add_hidden_states(model, data).hidden
            assert hidden is not None
            states.append(hidden)
            assert torch.get_num_threads() == threads
        np.testing.assert_array_equal(states[0], states[1])
        np.testing.assert_array_equal(states[0], states[2])


def test_the_least_recently_used_files_make_room(tiny: Path, tmp_path: Path) -> None:
    model = make_model(tiny, layers="2")
    parts = [rows(tiny, 10, seed) for seed in range(3)]
    size = planned(model, tmp_path, parts[0]).size
    for age, part in zip((100, 300, 200), parts, strict=True):  # the second was used longest ago
        before = set(tmp_path.iterdir())
        planned(model, tmp_path, part).add_hidden_states(model, part)
        (path,) = set(tmp_path.iterdir()) - before
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    (tmp_path / "notes.txt").write_text("of the user")
    new = rows(tiny, 10, seed=7)
    planned(model, tmp_path, new, limit=3.5 * size).add_hidden_states(model, new)
    reusable = [planned(model, tmp_path, part).reusable > 0 for part in (*parts, new)]
    assert reusable == [True, False, True, True]
    assert "notes.txt" in files(tmp_path)


def test_a_file_that_a_killed_process_left_is_deleted(tiny: Path, tmp_path: Path) -> None:
    model, data = make_model(tiny, layers="2"), rows(tiny)
    (tmp_path / ".0123abcd.hidden.npy.x1y2.new").write_bytes(bytes(10_000))
    assert planned(model, tmp_path, data).place == "disk"
    assert files(tmp_path) == []


def test_a_file_that_another_process_is_filling_stays_and_counts(tiny: Path, tmp_path: Path) -> None:
    model, old, new = make_model(tiny, layers="2"), rows(tiny), rows(tiny, seed=7)
    size = planned(model, tmp_path, old).size
    planned(model, tmp_path, old).add_hidden_states(model, old)
    unfinished = tmp_path / ".0123abcd.hidden.npy.x1y2.new"
    unfinished.write_bytes(bytes(size))
    with file_lock(prefix_cache._lock_path(unfinished)):
        planned(model, tmp_path, new, limit=2.5 * size).add_hidden_states(model, new)
        assert unfinished.exists()
    assert planned(model, tmp_path, old).reusable == 0  # two of the three files fit, and it is the oldest
    assert not unfinished.exists()


def test_an_interrupted_fill_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    model, data = make_model(tiny, layers="2"), rows(tiny)

    def stop(event: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        planned(model, tmp_path, data).add_hidden_states(model, data, [stop])
    assert files(tmp_path) == []


def test_a_disk_that_fills_up_fails_the_run_with_advice(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    model, data = make_model(tiny, layers="2"), rows(tiny)
    with pytest.raises(RunFailed, match=r"No space left on device; use train\.feature_cache=off"):
        planned(model, tmp_path, data).add_hidden_states(model, data)
    assert files(tmp_path) == []


def test_filling_leaves_the_model_unchanged(tiny: Path, tmp_path: Path) -> None:
    model, data = make_model(tiny, layers="2", dropout=0.3), rows(tiny)
    model.train()
    before = trained(model)
    planned(model, tmp_path, data).add_hidden_states(model, data)
    assert model.training
    assert same(before, trained(model))


def test_states_in_use_can_be_deleted(tiny: Path, tmp_path: Path) -> None:
    model, data, new = make_model(tiny, layers="2"), rows(tiny), rows(tiny, seed=7)
    used = planned(model, tmp_path, data).add_hidden_states(model, data).hidden
    assert used is not None
    before = np.array(used)
    planned(model, tmp_path, new, limit=1.1 * used.nbytes).add_hidden_states(model, new)
    assert planned(model, tmp_path, data).reusable == 0
    np.testing.assert_array_equal(used, before)


def slowly(checkpoint: Path, folder: Path, started: Path) -> None:
    """Fill the cache slowly in another process, which creates the file `started`."""

    def wait(event: object) -> None:
        started.touch()
        time.sleep(1.0)

    torch.set_num_threads(1)
    model = make_model(checkpoint, layers="2")
    planned(model, folder, rows(checkpoint)).add_hidden_states(model, rows(checkpoint), [wait])


@pytest.fixture
def another(tiny: Path, tmp_path: Path) -> Iterator[Callable[[], BaseProcess]]:
    """Start a process that computes the states of `rows(tiny)` in tmp_path / "cache"."""
    started: list[BaseProcess] = []

    def start() -> BaseProcess:
        begun = tmp_path / "begun"
        process = multiprocessing.get_context("spawn").Process(target=slowly, args=(tiny, tmp_path / "cache", begun))
        process.start()
        started.append(process)
        while not begun.exists():
            assert process.is_alive()
            time.sleep(0.01)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()
        process.close()


@pytest.mark.slow
def test_two_processes_compute_a_file_once(tiny: Path, tmp_path: Path, another: Callable[[], BaseProcess]) -> None:
    model, data = make_model(tiny, layers="2"), rows(tiny)
    process = another()
    assert process.is_alive()
    recorders: list[object] = []
    states = planned(model, tmp_path / "cache", data).add_hidden_states(model, data, [recorders.append]).hidden
    assert recorders == []  # it waited and computed nothing
    process.join()
    assert process.exitcode == 0
    assert len(files(tmp_path / "cache")) == 1
    np.testing.assert_array_equal(states, planned(model, tmp_path / "alone", data).add_hidden_states(model, data).hidden)


@pytest.mark.slow
def test_a_waiting_process_computes_the_file_of_a_killed_one(
    tiny: Path, tmp_path: Path, another: Callable[[], BaseProcess]
) -> None:
    model, data = make_model(tiny, layers="2"), rows(tiny)
    process = another()
    process.kill()
    states = planned(model, tmp_path / "cache", data).add_hidden_states(model, data).hidden
    process.join()
    assert process.exitcode == -9
    assert len(files(tmp_path / "cache")) == 1
    np.testing.assert_array_equal(states, planned(model, tmp_path / "alone", data).add_hidden_states(model, data).hidden)


def test_it_works_without_file_locks(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    model, data = make_model(tiny, layers="2"), rows(tiny)
    planned(model, tmp_path, data).add_hidden_states(model, data)
    assert len([name for name in files(tmp_path) if name.endswith(".npy")]) == 1
    assert planned(model, tmp_path, data).reusable > 0
