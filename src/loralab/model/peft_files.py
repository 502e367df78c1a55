"""Adapters in peft's file format: ours open in peft, and peft's open in ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StrictInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated
from torch import Tensor

from loralab.errors import LoralabError
from loralab.model.architectures import Dimensions, parse_role_path, role_path
from loralab.model.checkpoints import HEAD_WEIGHTS, copy_tensors, head_tensors, load_tensors, read_json, save_tensors
from loralab.model.encoder import EncoderClassifier
from loralab.model.lora import adapters, attach_lora

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PEFT_PREFIX = "base_model.model."


def save_adapter(network: EncoderClassifier, folder: Path, *, base: str, settings: Mapping[str, Any]) -> None:
    """Write adapter and head in peft's format.

    A classifier that Transformers knows (cls pooling, the architecture's own head) is saved whole, as peft's SEQ_CLS; otherwise the
    adapter is saved for the bare encoder and the head beside it in head.safetensors. `settings`: rank, alpha, dropout, targets,
    layers, variant.
    """
    dims = network.dims
    whole = network.pooling == "cls" and network.head_kind == "default"
    prefix = _PEFT_PREFIX + (f"{dims.architecture.prefix}." if whole else "")
    tensors: dict[str, Tensor] = {}
    for index, role, adapter in adapters(network):
        path = prefix + role_path(dims, index, role)
        tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = adapter.pair()
    head = {name: tensor for name, tensor in head_tensors(network) if not name.startswith(f"{dims.architecture.prefix}.")}
    if whole:
        tensors |= {_PEFT_PREFIX + name: tensor for name, tensor in head.items()}
    else:
        save_tensors(head, folder / HEAD_WEIGHTS)
    save_tensors(tensors, folder / ADAPTER_WEIGHTS)
    config = _peft_config(dims, base, settings, whole)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_adapter(network: EncoderClassifier, folder: Path) -> None:
    """Attach the adapter of a peft folder, ours or peft's, and load its weights and its head.

    Raises LoralabError for a variant that is not plain LoRA or rsLoRA, and for any tensor that is missing or has no place here.
    """
    config = read_adapter_config(folder)
    pairs, head = _sort_adapter_tensors(network, folder)
    layers, roles = sorted({layer for layer, _ in pairs}), sorted({role for _, role in pairs})
    if not pairs or len(pairs) != len(layers) * len(roles):
        raise LoralabError(f"{folder}: its layers are not adapted alike; only the same targets in every adapted layer work")
    attach_lora(
        network,
        rank=config.r,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        targets=roles,
        layers=",".join(map(str, layers)),
        variant="rslora" if config.use_rslora else "lora",
    )
    for layer, role, adapter in adapters(network):
        places = [(f"{role} {layer} {part}", getattr(adapter, part)) for part in "ab"]
        copy_tensors(places, {f"{role} {layer} {part}": tensor for part, tensor in pairs[layer, role].items()}, str(folder))
    # BERT's pooler belongs to the base: it is there only when somebody trained it.
    pooler = network.dims.architecture.prefix + "."
    wanted = [(name, target) for name, target in head_tensors(network) if name in head or not name.startswith(pooler)]
    if strange := sorted(set(head) - {name for name, _ in wanted}):
        raise LoralabError(f"{folder}: tensor {strange[0]!r} has no place here: only adapters and the head may be trained")
    copy_tensors(wanted, head, str(folder))


def _sort_adapter_tensors(
    network: EncoderClassifier, folder: Path
) -> tuple[dict[tuple[int, str], dict[str, Tensor]], dict[str, Tensor]]:
    """Sort a peft folder's tensors into adapter pairs by (layer, role) and the rest, which is the head's."""
    tensors = load_tensors(folder / ADAPTER_WEIGHTS)
    if (folder / HEAD_WEIGHTS).is_file():
        tensors |= {_PEFT_PREFIX + name: tensor for name, tensor in load_tensors(folder / HEAD_WEIGHTS).items()}
    pairs: dict[tuple[int, str], dict[str, Tensor]] = {}
    head: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        path, found, part = name.removesuffix(".weight").rpartition(".lora_")
        place = parse_role_path(network.dims, path)
        if place and part in ("A", "B"):
            pairs.setdefault(place, {})[part.lower()] = tensor
        elif found:
            raise LoralabError(f"{folder}: adapter tensor {name!r} has no place in a {network.dims.model_type} encoder")
        else:
            head[name.removeprefix(_PEFT_PREFIX).replace(".modules_to_save.default.", ".")] = tensor
    return pairs, head


@validated(config=ConfigDict(extra="ignore"))
class AdapterConfig:
    """What decides an adapter's arithmetic in peft's adapter_config.json."""

    peft_type: str
    r: Annotated[StrictInt, Field(gt=0)]
    lora_alpha: Annotated[float, Field(allow_inf_nan=False)]
    base_model_name_or_path: str | None = None
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    use_rslora: bool = False
    bias: str = "none"


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
"""Initialisations that leave the base's weights alone; others, such as pissa, take the adapter's start out of them."""


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read adapter_config.json. Raises LoralabError for anything but plain LoRA or rsLoRA without biases or patterns."""
    content = read_json(folder / ADAPTER_CONFIG)
    if content.get("peft_type") != "LORA":
        raise LoralabError(f"{folder}: peft type {content.get('peft_type')!r} is not supported; supported: LORA")
    for key in _UNSUPPORTED:
        if content.get(key):
            raise LoralabError(f"{folder}: an adapter with {key}={content[key]!r} is not supported")
    if content.get("bias", "none") != "none":
        raise LoralabError(f"{folder}: an adapter with bias={content['bias']!r} is not supported; only 'none' is")
    if (start := content.get("init_lora_weights")) not in _KEEPS_BASE:
        raise LoralabError(f"{folder}: an adapter with init_lora_weights={start!r} changed its base and is not supported")
    try:
        return TypeAdapter(AdapterConfig).validate_python(content)
    except ValidationError as error:
        problem = error.errors()[0]
        raise LoralabError(f"{folder / ADAPTER_CONFIG}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def head_rows(dims: Dimensions, folder: Path) -> int:
    """Return how many classes the head in a peft folder has. Raises LoralabError when there is none."""
    suffix = f"{dims.architecture.head_out}.weight"
    for name, tensor in load_tensors(folder / ADAPTER_WEIGHTS).items():
        if name.endswith(suffix):
            return int(tensor.shape[0])
    raise LoralabError(f"{folder} holds an adapter without a classification head ({suffix}): it cannot classify")


def _peft_config(dims: Dimensions, base: str, settings: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    architecture = dims.architecture
    twice = 2 if settings["variant"] == "pissa" else 1  # a plain adapter of the pretrained weight, of twice the rank
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if whole else "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": twice * settings["rank"],
        "lora_alpha": twice * settings["alpha"],
        "lora_dropout": settings["dropout"],
        "use_rslora": settings["variant"] == "rslora",
        # Whole module paths, because a bare "output.dense" would also match "attention.output.dense".
        "target_modules": [role_path(dims, layer, role) for layer in settings["layers"] for role in settings["targets"]],
        "modules_to_save": list(architecture.saved_head) if whole else None,
        "bias": "none",
    }
