"""The device, the precision and the number of threads to compute with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from loralab.errors import LoralabError
from loralab.model.encoder import EncoderClassifier
from loralab.model.hf.model import HFClassifier

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TENSOR_CORES = 7
"""CUDA's major compute capability from which GPUs have tensor cores, which make fp16 fast."""


@dataclass(frozen=True)
class DeviceConfig:
    """How a model computes. device: cpu, cuda, cuda:N or mps; precision: fp32, bf16 or fp16; threads: of torch on the CPU;
    kernels: whether the C kernels compute the encoder.
    """

    device: str
    precision: str
    threads: int
    kernels: bool = False

    @property
    def slow(self) -> bool:
        """Whether the device emulates the precision."""
        if self.precision == "fp16":
            return self.device == "cpu"
        return self.precision == "bf16" and self.device != "mps" and not fast_in_bf16(torch.device(self.device))

    def remarks(self) -> list[str]:
        """Warn of a precision that is slow on this device."""
        if self.slow and self.precision == "fp16":
            return ["train.precision=fp16 is about twenty times as slow as bf16 or fp32 on a CPU: use train.precision=auto"]
        if self.slow:
            return [f"train.precision=bf16 is slow on this device ({self.device}), which emulates it: use train.precision=auto"]
        return []


def choose_device(setting: str = "auto") -> torch.device:
    """Read a device: auto (CUDA if available, else the CPU), cpu, cuda, cuda:N or mps.

    Raises LoralabError for a device that is unknown or not available.
    """
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    match = re.fullmatch(r"cpu|mps|cuda(?::(\d{1,3}))?", setting)
    if match is None:
        raise LoralabError(f"train.device={setting!r} is not a device; valid: auto, cpu, cuda, cuda:N, mps")
    if setting.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise LoralabError(f"train.device={setting}: torch finds no CUDA device; use train.device=auto or cpu")
        if match[1] is not None and int(match[1]) >= count:
            raise LoralabError(f"train.device={setting}: the last CUDA device is cuda:{count - 1}")
    if setting == "mps" and not torch.backends.mps.is_available():
        raise LoralabError("train.device=mps: this machine has no Apple GPU that torch can use; use train.device=auto or cpu")
    return torch.device(setting)


def fast_in_bf16(device: torch.device) -> bool:
    """Whether bf16 products are faster than fp32: native on a GPU, AVX-512-BF16 or AMX on a CPU (4 to 17 times, measured)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_precision(setting: str, device: torch.device) -> torch.dtype:
    """Read auto, fp32, bf16 or fp16. Every precision works on every device, but may be slow (`DeviceConfig.remarks`).

    auto: bf16 if it is fast, fp16 on a CUDA GPU with tensor cores but without bf16 (such as the T4), else fp32.
    """
    if setting == "auto":
        half = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= TENSOR_CORES
        setting = "bf16" if fast_in_bf16(device) else "fp16" if half else "fp32"
    if setting not in PRECISIONS:
        raise LoralabError(f"precision {setting!r} is unknown; valid: auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[setting]


def precision_name(dtype: torch.dtype) -> str:
    """Return fp32, bf16 or fp16."""
    return next(name for name, known in PRECISIONS.items() if known == dtype)


def recorded_precision(setting: str, device: torch.device) -> str:
    """Return the precision setting to load a saved model with: its run's, or auto if this device is slow in it."""
    return "auto" if DeviceConfig(str(device), setting, 0).slow else setting


@contextmanager
def thread_limit(threads: int | None) -> Iterator[None]:
    """Let torch use this many CPU threads, and restore its setting afterwards. None changes nothing."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def move_to_device(model: EncoderClassifier | HFClassifier, precision: str = "auto", device: str = "auto") -> DeviceConfig:
    """Move a model to a device, and its frozen weights to a precision. `thread_limit` sets the threads."""
    target = choose_device(device)
    dtype = choose_precision(precision, target)
    model.to(target)
    model.freeze_to(dtype)
    return DeviceConfig(str(target), precision_name(dtype), torch.get_num_threads(), target.type == "cpu" and model.uses_kernels)
