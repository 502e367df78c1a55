"""Out-of-memory errors name what to lower; a library call restores global state."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pyarrow
import pytest
import torch
from workbench import make_model, rows, train

from loralab import load_config
from loralab.errors import RunFailed
from loralab.pipeline import run_training
from loralab.training import trainer
from loralab.training.callbacks import Event, StepEnd
from loralab.training.process import explain_out_of_memory, peak_process_mb, process_mb, reset_peak_memory

CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
SETTINGS = "train.max_tokens_per_microbatch or data.max_length, or use train.gradient_checkpointing=true"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out of GPU memory: CUDA out of memory"),
        (RuntimeError(CPU), "out of memory: .*you tried to allocate 9 bytes"),
        (MemoryError(), "out of memory: MemoryError"),
        (RuntimeError("can't allocate read lock"), "out of memory: can't allocate read lock"),  # Python's own
        (pyarrow.ArrowException("Unknown error: Failed to launch worker thread"), "out of memory: Unknown error: Failed to launch"),
    ],
)
def test_out_of_memory_names_the_settings_to_lower(error: Exception, message: str) -> None:
    with pytest.raises(RunFailed, match=message) as caught, explain_out_of_memory():
        raise error
    assert SETTINGS in str(caught.value)
    assert ("model.quantize=8bit" in str(caught.value)) == isinstance(error, torch.cuda.OutOfMemoryError)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux, which can reset the peak")
def test_the_peak_counts_from_its_reset() -> None:
    def peak_above_now() -> float:
        return (peak_process_mb() or 0) - process_mb()

    block = torch.ones(50_000_000)  # 200 MB
    del block
    assert peak_above_now() > 150
    reset_peak_memory()
    assert peak_above_now() < 50
    block = torch.ones(25_000_000)
    del block
    assert 75 < peak_above_now() < 150


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory():
        raise RuntimeError("shapes do not match")


def test_a_fallback_for_lack_of_memory_ends_the_run_and_one_for_lack_of_support_does_not() -> None:
    failed = "mkldnn_matmul failed, switching to baddbmm:could not create a primitive"  # as torch warns
    with pytest.raises(RunFailed, match="out of memory: mkldnn_matmul failed"), explain_out_of_memory():
        warnings.warn(f"{failed} (Triggered internally at LinearAlgebra.cpp:1772.)", stacklevel=1)
    with pytest.warns(UserWarning, match="descriptor"), explain_out_of_memory():
        warnings.warn(f"{failed} descriptor for a matmul primitive", stacklevel=1)


def test_torch_raises_what_is_expected_when_memory_is_exhausted() -> None:
    with pytest.raises(RunFailed, match="out of memory"), explain_out_of_memory():
        torch.empty(1 << 60, dtype=torch.uint8)


def test_a_run_without_memory_fails_in_plain_words(
    tiny: Path, topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*arguments: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(trainer, "run_batch", exhausted)
    with pytest.raises(RunFailed, match=r"Lower train\.max_tokens_per_microbatch"):
        run_training(load_config(topics_csv, [f"model.base={tiny}"]), folder=tmp_path)


def test_a_run_restores_threads_environment_filters_and_umask(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    def meddle(event: Event) -> None:
        os.environ["LORALAB_TEST_ADDED"] = "1"
        os.environ["LORALAB_TEST_CHANGED"] = "1"
        os.environ.pop("LORALAB_TEST_REMOVED", None)
        warnings.simplefilter("ignore")
        if isinstance(event, StepEnd) and event.step == 2:
            raise ZeroDivisionError

    def state() -> tuple[object, ...]:
        mask = os.umask(0o022)
        os.umask(mask)
        return torch.get_num_threads(), dict(os.environ), list(warnings.filters), mask, torch.get_rng_state().tolist()

    os.environ |= {"LORALAB_TEST_CHANGED": "0", "LORALAB_TEST_REMOVED": "0"}
    try:
        before = state()
        config = load_config(topics_csv, [f"model.base={tiny}", "train.threads=2", "train.max_steps=1"])
        run_training(config, name="whole", folder=tmp_path, listeners=[meddle])
        assert state() == before
        with pytest.raises(ZeroDivisionError):
            run_training(config.override("train.max_steps=3"), name="cut", folder=tmp_path, listeners=[meddle])
        assert state() == before
    finally:
        for name in ("ADDED", "CHANGED", "REMOVED"):
            os.environ.pop(f"LORALAB_TEST_{name}", None)


def test_gpu_memory_is_none_on_a_cpu(tiny: Path) -> None:
    events: list[Event] = []
    train(make_model(tiny), rows(tiny), listeners=[events.append], max_steps=2)
    assert [event.gpu_mb for event in events if isinstance(event, StepEnd)] == [None, None]
