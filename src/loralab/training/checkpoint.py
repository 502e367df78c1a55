"""The state of training between two steps, in one file. `--resume` continues from it, bit for bit on a CPU."""

from __future__ import annotations

import hashlib
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
from loralab.safe_files import check_file
from loralab.storage.temporaries import temporary

FORMAT = 2
"""The format of checkpoints. 1: without a checksum."""
_STATE, _VERSION, _DIGEST = "state", "format_version", "sha256"


@dataclass(frozen=True)
class Checkpoint:
    """tensors: by name; values: everything else, as JSON values."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Replace the file atomically: write a temporary file, with a checksum of everything in it, flush it, rename it."""
        state = json.dumps(self.values)
        metadata = {_STATE: state, _VERSION: str(FORMAT), _DIGEST: _digest(self.tensors, state)}
        with temporary(path, folder=True) as folder:  # safetensors makes temporary files of its own beside the file
            new = folder / path.name
            write_safetensors(self.tensors, new, metadata)
            with new.open("r+b") as file:  # Windows flushes only files that are open for writing
                os.fsync(file.fileno())
            os.replace(new, path)

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
        """Read a checkpoint. Raises LoralabError when it is damaged or of a later format."""
        try:
            with safe_open(check_file(path), framework="pt") as file:
                metadata = file.metadata() or {}
                if (version := int(metadata.get(_VERSION, 1))) > FORMAT:
                    raise LoralabError(
                        f"the checkpoint {path} was written by a newer loralab (format {version}; this one reads up to {FORMAT}): "
                        "upgrade loralab"
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            checked = {_VERSION, _DIGEST} & metadata.keys()  # a file without both was written before checksums
            if checked and (version != FORMAT or metadata.get(_DIGEST) != _digest(tensors, metadata[_STATE])):
                raise ValueError("its SHA-256 differs from the one written with it")
            return cls(tensors, json.loads(metadata[_STATE]))
        except (OSError, SafetensorError, ValueError, KeyError, RecursionError) as error:
            raise LoralabError(
                f"the checkpoint {path} is damaged ({error}), so the steps of this run are lost: start again with --overwrite"
            ) from error


def _digest(tensors: Mapping[str, Tensor], state: str) -> str:
    """SHA-256 over the state and every tensor's name, dtype, shape and bytes, in order of name."""
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        content: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        digest.update(content)
    return digest.hexdigest()


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
