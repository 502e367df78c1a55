"""Where and in which precision to compute."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from loralab.errors import LoralabError
from loralab.model.encoder import EncoderClassifier
from loralab.model.hf.model import HFClassifier
from loralab.model.kernels import encoder

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device() -> torch.device:
    """The first CUDA device, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_in_bf16(device: torch.device) -> bool:
    """True where bf16 products are faster than fp32: a GPU that has them, AVX-512-BF16 or AMX (4 to 17 times, measured)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_precision(setting: str, device: torch.device) -> torch.dtype:
    """Read auto, fp32, bf16 or fp16. What is asked for works everywhere, slowly where the processor has none of it."""
    if setting == "auto":
        setting = "bf16" if fast_in_bf16(device) else "fp32"
    if setting not in PRECISIONS:
        raise LoralabError(f"precision {setting!r} is not known; valid: auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[setting]


@dataclass(frozen=True)
class DeviceConfig:
    """Where a network computes: device (cpu, cuda), precision (fp32, bf16, fp16), processor threads, our own kernels or torch's."""

    device: str
    precision: str
    threads: int
    kernels: bool = False


def move_to_device(network: EncoderClassifier | HFClassifier, precision: str = "auto", threads: int | None = None) -> DeviceConfig:
    """Move a network to the device, its frozen weights to the precision, and use so many threads (None: one per core)."""
    if threads is not None:
        torch.set_num_threads(threads)
    where = choose_device()
    dtype = choose_precision(precision, where)
    network.to(where)
    network.freeze_to(dtype)
    name = next(name for name, kind in PRECISIONS.items() if kind == dtype)
    own = isinstance(network, EncoderClassifier) and where.type == "cpu" and encoder.suits(network)
    return DeviceConfig(str(where), name, torch.get_num_threads(), own)
