"""Adapters in peft's file format: peft opens loralab's adapters, and loralab opens peft's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StrictInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated
from torch import Tensor

from loralab.config import LoraConfig
from loralab.errors import LoralabError
from loralab.model.architectures import Dimensions, parse_layers, parse_role_path, resolve_targets, role_path
from loralab.model.checkpoints import read_json
from loralab.model.lora import Adapter
from loralab.model.tensor_files import HEAD_WEIGHTS, load_tensors, save_tensors

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class PeftAdapter:
    """A peft folder's contents for the native encoder.

    pairs: {"a": A, "b": B} by (layer, role); head: the other tensors, by their names in the model.
    """

    lora: LoraConfig
    pairs: Mapping[tuple[int, str], Mapping[str, Tensor]]
    head: Mapping[str, Tensor]


def save_adapter(
    folder: Path,
    dims: Dimensions,
    adapters: Iterable[tuple[int, str, Adapter]],
    head: Mapping[str, Tensor],
    *,
    base: tuple[str, str | None],
    lora: LoraConfig,
    classifier: bool,
) -> None:
    """Write adapters and head in peft's format.

    base: its name for others, and its revision. classifier: Transformers knows the model as a sequence classifier, so that one file
    (peft's SEQ_CLS) holds adapters and head. Otherwise the adapters are saved for the bare encoder, and the head in
    head.safetensors.
    """
    prefix = PEFT_PREFIX + (f"{dims.architecture.prefix}." if classifier else "")
    tensors: dict[str, Tensor] = {}
    for index, role, adapter in adapters:
        path = prefix + role_path(dims, index, role)
        tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = adapter.matrices()
    head = {name: tensor for name, tensor in head.items() if not name.startswith(f"{dims.architecture.prefix}.")}
    if classifier:
        tensors |= {PEFT_PREFIX + name: tensor for name, tensor in head.items()}
    else:
        save_tensors(head, folder / HEAD_WEIGHTS)
    save_tensors(tensors, folder / ADAPTER_WEIGHTS)
    config = _peft_config(dims, base, lora, classifier)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_adapter(folder: Path, dims: Dimensions) -> PeftAdapter:
    """Read a folder of `save_adapter` or of peft.

    Raises LoralabError for a variant other than LoRA and rsLoRA, and for a tensor that does not belong to an encoder of `dims`.
    """
    config = read_adapter_config(folder)
    tensors = load_tensors(folder / ADAPTER_WEIGHTS)
    if (folder / HEAD_WEIGHTS).is_file():
        tensors |= {PEFT_PREFIX + name: tensor for name, tensor in load_tensors(folder / HEAD_WEIGHTS).items()}
    pairs: dict[tuple[int, str], dict[str, Tensor]] = {}
    head: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        path, separator, part = name.removesuffix(".weight").rpartition(".lora_")
        place = parse_role_path(dims, path)
        if place and part in ("A", "B"):
            pairs.setdefault(place, {})[part.lower()] = tensor
        elif separator:
            raise LoralabError(f"{folder}: adapter tensor {name!r} has no place in a {dims.model_type} encoder")
        else:
            head[name.removeprefix(PEFT_PREFIX).replace(".modules_to_save.default.", ".")] = tensor
    for (layer, role), pair in pairs.items():
        outputs, inputs = dims.shape_of(role)
        for part, shape in (("a", (config.r, inputs)), ("b", (outputs, config.r))):
            if part in pair and tuple(pair[part].shape) != shape:  # before memory for the rank is requested
                raise LoralabError(f"{folder}: tensor '{role} {layer} {part}' has shape {tuple(pair[part].shape)}, needed {shape}")
    layers, roles = sorted({layer for layer, _ in pairs}), sorted({role for _, role in pairs})
    if not pairs or len(pairs) != len(layers) * len(roles):
        raise LoralabError(f"{folder}: every adapted layer must have the same targets")
    return PeftAdapter(config.to_lora(roles, ",".join(map(str, layers))), pairs, head)


@validated(config=ConfigDict(extra="ignore"))
class AdapterConfig:
    """The fields of peft's adapter_config.json that determine what an adapter computes."""

    peft_type: str
    r: Annotated[StrictInt, Field(gt=0)]
    lora_alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    base_model_name_or_path: str | None = None
    revision: str | None = None
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    use_rslora: bool = False
    bias: str = "none"

    def to_lora(self, targets: Iterable[str], layers: str | None) -> LoraConfig:
        """The same settings as loralab's."""
        return LoraConfig(
            rank=self.r,
            alpha=self.lora_alpha,
            dropout=self.lora_dropout,
            targets=tuple(targets),
            layers=layers,
            variant="rslora" if self.use_rslora else "lora",
        )


_UNSUPPORTED = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "lora_bias",
    "fan_in_fan_out",
    "trainable_token_indices",
)
_KEEPS_BASE = (True, False, None, "gaussian", "eva")
"""Initializations that leave the base weights alone. Others, such as pissa, subtract the initial adapter from them."""


def read_adapter_config(folder: Path, *, plain: bool = True) -> AdapterConfig:
    """Read adapter_config.json. Raises LoralabError for anything but LoRA on an unchanged base.

    plain: also for DoRA, biases and patterns, which the native encoder does not compute.
    """
    content = read_json(folder / ADAPTER_CONFIG)
    if content.get("peft_type") != "LORA":
        raise LoralabError(f"{folder}: peft type {content.get('peft_type')!r} is not supported; supported: LORA")
    for key in _UNSUPPORTED if plain else ():
        if content.get(key):
            raise LoralabError(f"{folder}: an adapter with {key}={content[key]!r} is not supported")
    if plain and content.get("bias", "none") != "none":
        raise LoralabError(f"{folder}: an adapter with bias={content['bias']!r} is not supported; only 'none' is")
    if (start := content.get("init_lora_weights")) not in _KEEPS_BASE:
        raise LoralabError(f"{folder}: an adapter with init_lora_weights={start!r} changed its base and is not supported")
    try:
        return TypeAdapter(AdapterConfig).validate_python(content)
    except ValidationError as error:
        problem = error.errors()[0]
        raise LoralabError(f"{folder / ADAPTER_CONFIG}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def count_classes(head: Mapping[str, Tensor], folder: Path, dims: Dimensions) -> int:
    """Return how many classes the head of a peft folder has. Raises LoralabError when there is none."""
    return classes_of(head, dims.architecture.head_out, folder)


def classes_of(head: Mapping[str, Tensor], last: str, folder: Path) -> int:
    """Return the outputs of the linear map `last`. Raises LoralabError when it is not among the tensors."""
    for name, tensor in head.items():
        if name.endswith(f"{last}.weight"):
            return int(tensor.shape[0])
    raise LoralabError(f"{folder} holds an adapter without a classification head ({last}.weight): it cannot classify")


def check_head_names(dims: Dimensions, head: Mapping[str, Tensor], folder: Path) -> None:
    """Raise LoralabError if anything but the head was trained beside the adapters."""
    architecture = dims.architecture
    known = {f"{module}.{part}" for module in (architecture.head_dense, architecture.head_out) for part in ("weight", "bias")}
    if unknown := sorted(set(head) - known):
        raise LoralabError(f"{folder}: tensor {unknown[0]!r} has no place here: only adapters and the head may be trained")


def _peft_config(dims: Dimensions, base: tuple[str, str | None], lora: LoraConfig, classifier: bool) -> dict[str, Any]:
    factor = 2 if lora.variant == "pissa" else 1  # written as a plain adapter of the pretrained weight, of twice the rank
    layers, roles = parse_layers(lora.layers, dims.layers), resolve_targets(lora.targets)
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if classifier else "FEATURE_EXTRACTION",
        "base_model_name_or_path": base[0],
        "revision": base[1],
        "inference_mode": True,
        "r": factor * lora.rank,
        "lora_alpha": factor * lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.variant == "rslora",
        # Whole module paths, because a bare "output.dense" would also match "attention.output.dense".
        "target_modules": [role_path(dims, layer, role) for layer in layers for role in roles],
        "modules_to_save": list(dims.architecture.saved_head) if classifier else None,
        "bias": "none",
    }
