"""The training process: memory in use, out-of-memory errors, global state."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator

import psutil
import torch

from loralab.errors import RunFailed
from loralab.training.distributed import Distributed


def peak_gpu_mb(device: torch.device) -> float | None:
    """Return the peak GPU memory of this process in MB of 10⁶ bytes, None on other devices."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None


def memory_in_use(device: torch.device, distributed: Distributed) -> dict[str, float | None]:
    """Return process_mb (resident memory) and gpu_mb (peak) of the main process, and `process_mb:RANK`, ... of the others."""
    usage = distributed.gather({"process_mb": psutil.Process().memory_info().rss / 1e6, "gpu_mb": peak_gpu_mb(device)})
    return {f"{name}:{rank}" if rank else name: value for rank, values in enumerate(usage) for name, value in values.items()}


@contextlib.contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Turn an out-of-memory error into RunFailed that names the settings to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if not on_gpu and not isinstance(error, MemoryError) and "can't allocate memory" not in str(error):
            raise
        details = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunFailed(
            f"out of {'GPU ' if on_gpu else ''}memory: {details}\n"
            "  Lower train.max_tokens_per_microbatch or data.max_length, or use train.gradient_checkpointing=true"
            + (" or model.quantize=8bit" if on_gpu else "")
        ) from error


@contextlib.contextmanager
def restored_globals() -> Iterator[None]:
    """Restore environment variables, warning filters and torch's CPU random state."""
    before = dict(os.environ)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})
