"""The state of a training run between two steps, in one file: what `--resume` needs to go on bit for bit."""

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
from safetensors.torch import save_file
from torch import Tensor, nn

from loralab.errors import LoralabError

_STATE = "state"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and the plain values that go with them."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write the file whole or not at all: beside its place, flushed, then renamed."""
        beside = path.with_name(f".{path.name}.new")
        try:
            save_file(dict(self.tensors), beside, metadata={_STATE: json.dumps(self.values)})
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(beside, path)
        except SafetensorError as error:  # a full disk, by the name that the Rust library gives it
            raise OSError(str(error)) from error
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)

    @property
    def step(self) -> int:
        """The step it was taken after."""
        return int(self.values["step"])

    @classmethod
    def load_if_any(cls, path: Path) -> Checkpoint | None:
        """Read a checkpoint where there is one."""
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


def pack(optimizer: torch.optim.Optimizer, trained: Sequence[nn.Parameter], best: Sequence[Tensor] | None) -> dict[str, Tensor]:
    """Name every tensor of the state: weights, AdamW's moments and step counts, the best weights so far."""
    tensors = {f"weight.{i}": parameter.detach() for i, parameter in enumerate(trained)}
    for i, parameter in enumerate(trained):
        tensors |= {f"{name}.{i}": value for name, value in optimizer.state[parameter].items()}
    tensors |= {f"best.{i}": tensor for i, tensor in enumerate(best or ())}
    return {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}


def unpack(tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, trained: Sequence[nn.Parameter]) -> list[Tensor] | None:
    """Put a state back into the weights and the optimiser; return the best weights, None where there were none."""
    names = {name.rpartition(".")[0] for name in tensors}
    with torch.no_grad():
        for i, parameter in enumerate(trained):
            parameter.copy_(tensors[f"weight.{i}"])
            moments = {name: tensors[f"{name}.{i}"] for name in names - {"weight", "best"}}
            # AdamW keeps its step counts on the parameter's device when fused, as it keeps the moments.
            optimizer.state[parameter] = {name: tensor.to(parameter.device) for name, tensor in moments.items()}
    if "best" not in names:
        return None
    return [tensors[f"best.{i}"].to(parameter.device) for i, parameter in enumerate(trained)]
