"""The training process: memory in use, out-of-memory errors, global state."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from loralab.errors import LoralabError, RunFailed, is_out_of_memory
from loralab.training.distributed import Distributed


def peak_gpu_mb(device: torch.device) -> float | None:
    """Return the peak GPU memory of this process in MB of 10⁶ bytes, None on other devices."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None


def memory_in_use(device: torch.device, distributed: Distributed) -> dict[str, float | None]:
    """Return process_mb (resident memory) and gpu_mb (peak) of the main process, and `process_mb:RANK`, ... of the others."""
    usage = distributed.gather({"process_mb": process_mb(), "gpu_mb": peak_gpu_mb(device)})
    return {f"{name}:{rank}" if rank else name: value for rank, values in enumerate(usage) for name, value in values.items()}


def process_mb() -> float:
    """Return the resident memory of this process in MB of 10⁶ bytes."""
    return float(psutil.Process().memory_info().rss / 1e6)


def reset_peak_memory() -> None:
    """Let `peak_process_mb` and `peak_gpu_mb` count from now. The process's peak can be reset on Linux only."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        torch.cuda.reset_peak_memory_stats(number)


def peak_process_mb(seen: float = 0.0) -> float | None:
    """Return the peak resident memory of this process in MB of 10⁶ bytes, None where the system does not tell.

    seen: memory in use since the peak was reset. The kernel's peak lags behind, and may be below it.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return max(int(line.split()[1]) * 1024 / 1e6, process_mb(), seen)
    if peak := getattr(psutil.Process().memory_info(), "peak_wset", None):  # Windows
        return float(peak / 1e6)
    with contextlib.suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS: in bytes
    return None


def state_mb(optimizer: torch.optim.Optimizer) -> float:
    """Return the size of an optimizer's state in MB of 10⁶ bytes."""
    values = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor)) / 1e6


FALLBACK = r"mkldnn_\w+ failed, switching to .*could not create a primitive(?! desc)"
"""torch's warning that oneDNN had no memory for its fast code, so that another function, with other last bits, took over."""


@contextlib.contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Turn an out-of-memory error into RunFailed that names the settings to lower.

    A fallback to other code for lack of memory is one too: the run would not be reproducible.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=FALLBACK)
            yield
    except LoralabError:
        raise
    except Exception as error:  # of many types: torch's, Arrow's, of an import
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if not on_gpu and not is_out_of_memory(error):
            raise
        details = str(error).splitlines()[0].partition(" (Triggered")[0] if str(error) else type(error).__name__
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
