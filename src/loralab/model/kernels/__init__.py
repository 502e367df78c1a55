"""C kernels on tensors, compiled with the machine's C compiler at first use and cached for later processes.

They are not available on a processor without AVX-512-BF16 or with AMX, without a C compiler, or with LORALAB_KERNELS=off; torch's
operators compute instead. A kernel runs on the calling thread and releases the GIL.
"""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
from ctypes import POINTER, c_float, c_int, c_long, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loralab.errors import RunFailed
from loralab.model.kernels.library import find_compiler, load_library

_P, _L, _I, _F = c_void_p, c_long, c_int, c_float


class AdapterStruct(ctypes.Structure):
    """`Adapter` in layer.c. The structures hold addresses only: the caller must keep the tensors alive."""

    _fields_ = (*((name, _P) for name in ("a", "b", "da", "db")), ("rank", _L), ("scale", _F))


class MapStruct(ctypes.Structure):
    """`Map` in layer.c."""

    _fields_ = (
        *((name, _P) for name in ("weight", "panels", "bias")),
        *((name, _L) for name in ("inputs", "outputs", "roles", "rank")),
        ("adapters", AdapterStruct * 3),
        ("keep", _F),
        *((name, _P) for name in ("mask", "places", "pairs", "low", "x")),
    )


class LayerStruct(ctypes.Structure):
    """`Layer` in layer.c."""

    _fields_ = (
        *((name, MapStruct) for name in ("qkv", "output", "ffn_in", "ffn_out")),
        *((name, _P) for name in ("weight", "bias", "weight_out", "bias_out")),
        *((name, _F) for name in ("eps", "eps_out")),
        *((name, _L) for name in ("heads", "texts", "tokens", "first_only")),
        *(
            (name, _P)
            for name in ("starts", "qkv_states", "logsums", "normal", "normal_out", "slope", "deviations", "deviations_out")
        ),
        *((name, _P) for name in ("context", "attended", "inner")),
    )


_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "layer": (POINTER(LayerStruct), _P, _P),
    "layer_backward": (POINTER(LayerStruct), _P, _P, _P),
    "linear": (_P, _L, _L, _P, _P, _P, _P, _P, _P, _L, _I),
    "add_norm": (_P, _P, _P, _P, _F, _L, _L, _P, _P),
    "add_norm_backward": (_P, _P, _P, _P, _L, _L),
    "attention": (_P, _P, _L, _L, _L, _F, _L, _P, _P),
    "attention_backward": (_P, _P, _L, _L, _L, _F, _L, _P, _P, _P),
}


class Kernels:
    """The functions of the C files. Tensors are contiguous, with the dtypes and shapes that the C files state."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self.functions = {name: getattr(library, name) for name in _ARGUMENTS}
        for name, function in self.functions.items():
            function.argtypes = _ARGUMENTS[name]
            function.restype = None if name.startswith("add_norm") else c_int  # not 0 when memory ran out

    def __call__(self, name: str, *arguments: Tensor | LayerStruct | float | None) -> None:
        """Call a function; None is a null pointer. Raises RunFailed when memory runs out."""
        if self.functions[name](*[a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]):
            raise RunFailed("out of memory: use a smaller train.max_tokens_per_microbatch or data.max_length")


def load_kernels() -> Kernels | None:
    """Return the kernels, compiled if necessary, or None if they are not available."""
    kernels = _load_or_reason()
    return kernels if isinstance(kernels, Kernels) else None


def missing_reason() -> str | None:
    """Return why there are no kernels, or None if there are."""
    reason = _load_or_reason()
    return reason if isinstance(reason, str) else None


@lru_cache(maxsize=1)
def _load_or_reason() -> Kernels | str:
    if os.environ.get("LORALAB_KERNELS") == "off":
        return "LORALAB_KERNELS=off"
    if not torch.cpu._is_avx512_bf16_supported():
        return "the processor has no AVX-512-BF16"
    if torch.cpu._is_amx_tile_supported():
        return "the processor has AMX, which makes torch's products faster"
    compiler = find_compiler() if os.name == "posix" else None
    if compiler is None:
        return "there is no C compiler: install gcc or clang for faster training"
    try:
        return load_library(compiler, Kernels)
    except (OSError, subprocess.SubprocessError) as error:
        reason = f"the kernels could not be compiled: {getattr(error, 'stderr', None) or error}"
        logging.getLogger(__name__).warning("%s; torch's slower operators are used instead", reason)
        return reason
