"""The state of training between two steps, in one file. `--resume` continues from it, bit for bit on a CPU."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from loralab.errors import LoralabError
from loralab.model.tensor_files import write_safetensors

_STATE = "state"


@dataclass(frozen=True)
class Checkpoint:
    """tensors: by name; values: everything else, as JSON values."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Replace the file atomically: write a temporary file, flush it, rename it."""
        temporary = path.with_name(f".{path.name}.new")
        try:
            write_safetensors(self.tensors, temporary, {_STATE: json.dumps(self.values)})
            with temporary.open("r+b") as file:  # Windows flushes only files that are open for writing
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    @property
    def step(self) -> int:
        """The number of steps taken."""
        return int(self.values["step"])

    @classmethod
    def load_if_any(cls, path: Path) -> Checkpoint | None:
        """Read a checkpoint. Return None if the file does not exist."""
        return cls.load(path) if path.is_file() else None

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint. Raises LoralabError when it is damaged."""
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
                return cls(tensors, json.loads((file.metadata() or {})[_STATE]))
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise LoralabError(f"the checkpoint {path} is damaged ({error}): start again with --overwrite") from error


def pack_training_state(
    trained: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, best: Sequence[Tensor] | None
) -> dict[str, Tensor]:
    """Return copies, by name: `weight.N`, the best weights `best.N`, and the optimizer's state `optimizer.N.NAME`."""
    tensors = {f"weight.{i}": parameter.detach() for i, parameter in enumerate(trained)}
    tensors |= {f"best.{i}": tensor for i, tensor in enumerate(best or ())}
    for i, state in optimizer.state_dict()["state"].items():
        # bitsandbytes counts its steps in plain numbers
        tensors |= {f"optimizer.{i}.{name}": torch.as_tensor(value) for name, value in state.items() if value is not None}
    return {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}


def unpack_training_state(
    tensors: Mapping[str, Tensor], trained: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer
) -> list[Tensor] | None:
    """Restore weights and optimizer. Return the best weights, or None if there were none.

    Raises KeyError or RuntimeError if the state is of another model.
    """
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            count = tensor.dtype == torch.int64 and tensor.ndim == 0
            state.setdefault(int(index), {})[name] = tensor.item() if count else tensor.clone()
    with torch.no_grad():
        for i, parameter in enumerate(trained):
            parameter.copy_(tensors[f"weight.{i}"])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    if "best.0" not in tensors:
        return None
    return [tensors[f"best.{i}"].to(parameter.device) for i, parameter in enumerate(trained)]
