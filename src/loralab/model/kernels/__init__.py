"""Kernels in C on tensors: compiled by the machine's own C compiler when it is first wanted, and kept for later processes.

There are none where the processor lacks AVX-512-BF16 or has more (AMX), where there is no compiler, or with LORALAB_KERNELS=off:
torch's operators compute instead. A kernel runs on the thread that calls it, and lets Python's others run meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from ctypes import POINTER, c_float, c_int, c_long, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loralab.errors import RunFailed
from loralab.storage.cache import cache_folder

SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
FLAGS = ["-O3", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16", "-mfma", "-fPIC", "-shared"]
COMPILE_SECONDS = 120

_P, _L, _I, _F = c_void_p, c_long, c_int, c_float


class Adapter(ctypes.Structure):
    """These structures are layer.c's of the same names, which describes them. They keep no tensor alive."""

    _fields_ = (*((name, _P) for name in ("a", "b", "da", "db")), ("rank", _L), ("scale", _F))


class Map(ctypes.Structure):
    _fields_ = (
        *((name, _P) for name in ("weight", "panels", "bias")),
        *((name, _L) for name in ("inputs", "outputs", "roles", "rank")),
        ("adapters", Adapter * 3),
        ("keep", _F),
        *((name, _P) for name in ("mask", "places", "pairs", "low", "x")),
    )


class Layer(ctypes.Structure):
    _fields_ = (
        *((name, Map) for name in ("qkv", "output", "ffn_in", "ffn_out")),
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
    "layer": (POINTER(Layer), _P, _P),
    "layer_backward": (POINTER(Layer), _P, _P, _P),
    "linear": (_P, _L, _L, _P, _P, _P, _P, _P, _P, _L, _I),
    "add_norm": (_P, _P, _P, _P, _F, _L, _L, _P, _P),
    "add_norm_backward": (_P, _P, _P, _P, _L, _L),
    "attention": (_P, _P, _L, _L, _L, _F, _L, _P, _P),
    "attention_backward": (_P, _P, _L, _L, _L, _F, _L, _P, _P, _P),
}


class Kernels:
    """The functions of layer.c, and for tests what it calls. Tensors are contiguous, of the types and shapes given there."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self.functions = {name: getattr(library, name) for name in _ARGUMENTS}
        for name, function in self.functions.items():
            function.argtypes = _ARGUMENTS[name]
            function.restype = None if name.startswith("add_norm") else c_int  # which is not 0 where there was no memory

    def __call__(self, name: str, *arguments: Tensor | Layer | float | None) -> None:
        """Call a function, with None for a null pointer. Raises RunFailed where it found no memory."""
        if self.functions[name](*[a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]):
            raise RunFailed("there is no memory left: use a smaller train.max_tokens_per_microbatch or data.max_length")


def find() -> Kernels | None:
    """The kernels, or None where there are none."""
    found = _find()
    return found if isinstance(found, Kernels) else None


def absence() -> str | None:
    """Why there are no kernels; None where there are."""
    found = _find()
    return found if isinstance(found, str) else None


@lru_cache(maxsize=1)
def _find() -> Kernels | str:
    if os.environ.get("LORALAB_KERNELS") == "off":
        return "LORALAB_KERNELS=off"
    if not torch.cpu._is_avx512_bf16_supported():
        return "the processor has no AVX-512-BF16"
    if torch.cpu._is_amx_tile_supported():
        return "the processor has AMX, with which torch's products are faster"
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if compiler is None or os.name != "posix":
        return "there is no C compiler: install gcc or clang, and training is faster"
    made_of = b"".join(source.read_bytes() for source in SOURCES) + " ".join([compiler, *FLAGS]).encode()
    name = hashlib.sha256(made_of).hexdigest()[:16] + ".so"
    try:
        return _load(compiler, name)
    except (OSError, subprocess.SubprocessError) as error:
        reason = f"the kernels could not be compiled: {getattr(error, 'stderr', None) or error}"
        logging.getLogger(__name__).warning("%s; torch's operators compute instead, more slowly", reason)
        return reason


def _load(compiler: str, name: str) -> Kernels:
    """Load the library that was kept, or make it; where it cannot be kept, for this process alone."""
    folder = cache_folder() / "kernels"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _is_ours(folder):
        if not (folder / name).is_file():
            _compile(compiler, folder / name)
        return Kernels(folder / name)
    with tempfile.TemporaryDirectory() as own:  # once loaded a library needs no file
        _compile(compiler, Path(own) / name)
        return Kernels(Path(own) / name)


def _is_ours(folder: Path) -> bool:
    """True where we may write, and nobody else can have put a library there for us to load."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return False
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def _compile(compiler: str, path: Path) -> None:
    """Make a library, which appears whole or not at all."""
    handle, made = tempfile.mkstemp(dir=path.parent, suffix=".new")
    os.close(handle)
    try:
        command = [compiler, *FLAGS, *(str(source) for source in SOURCES if source.suffix == ".c"), "-o", made, "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS)  # noqa: S603
        os.replace(made, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(made)
