"""Read and write safetensors files, and copy tensors by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from loralab.errors import LoralabError

HEAD_WEIGHTS = "head.safetensors"


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, in fp32. Raises OSError when the disk is full or read-only."""
    write_safetensors({name: t.detach().float().cpu().contiguous().clone() for name, t in tensors.items()}, path, {"format": "pt"})


def write_safetensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file. Raises OSError, with its number, when the disk is full or read-only."""
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:  # the Rust library's error, such as `... (os error 28)`
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(str(error)) from error
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises LoralabError when it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise LoralabError(f"cannot read {path}: {error}; the file is missing, truncated or not safetensors") from error


def tensor_names(path: Path) -> list[str]:
    """Return the names of a safetensors file's tensors. Raises LoralabError as `load_tensors`."""
    try:
        with safe_open(path, framework="pt") as file:
            return [*file.keys()]
    except (OSError, SafetensorError) as error:
        raise LoralabError(f"cannot read {path}: {error}; the file is missing, truncated or not safetensors") from error


def check_parameters(parameters: int, files: Iterable[Path], origin: str) -> None:
    """Raise LoralabError before a model is made that the files cannot fill: its settings could ask for terabytes of memory.

    parameters: number. Two for each byte are allowed, because a head may not be in the files.
    """
    files = [*files]
    try:
        size = sum(path.stat().st_size for path in files)
    except OSError as error:
        raise LoralabError(f"cannot read {error.filename}: {error.strerror}") from error
    if parameters > 2 * size:
        for path in files:  # a truncated file is the more likely cause
            tensor_names(path)
        raise LoralabError(
            f"{origin}: its settings ask for {parameters:,} parameters, but its weights have {size:,} bytes: it is damaged; "
            "restore it from a copy"
        )


@torch.no_grad()
def copy_tensors(targets: Iterable[tuple[str, Tensor]], tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy `tensors` into the target tensors by name. Raises LoralabError for one that is missing or has another shape."""
    for name, target in targets:
        tensor = tensors.get(name)
        if tensor is None:
            raise LoralabError(f"{origin}: there is no tensor {name!r}; is the file complete?")
        if tensor.shape != target.shape:
            raise LoralabError(f"{origin}: tensor {name!r} has shape {tuple(tensor.shape)}, needed {tuple(target.shape)}")
        target.copy_(tensor)
