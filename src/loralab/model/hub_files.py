"""The files beside a model's weights for Transformers and peft: config.json, tokenizer_config.json, and the base's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loralab.config.paths import hub_id
from loralab.model.architectures import Dimensions, to_config
from loralab.model.checkpoints import BASE_CONFIG, read_json
from loralab.model.manifest import Manifest

ENCODER_CONFIG = "encoder_config.json"
"""Name of config.json beside weights whose head Transformers does not know: it would open them with a random head."""
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
TOKENIZER_INPUTS = ("input_ids", "attention_mask")
_SPECIAL_TOKENS = ("unk_token", "bos_token", "eos_token", "sep_token", "pad_token", "cls_token", "mask_token")
_DROPPED = ("_name_or_path", "transformers_version", "torch_dtype", "num_labels", "auto_map", "quantization_config")


def base_reference(manifest: Manifest) -> tuple[str, str | None]:
    """Return the base's name for others, and its revision if known: the hub id with a commit, or the folder on this disk."""
    name = hub_id(manifest.base)
    return (manifest.base_folder or manifest.base, None) if name is None else (name, manifest.base_revision)


def base_config(manifest: Manifest, folder: Path | None = None) -> dict[str, Any]:
    """Return the base's config.json, from its folder, a saved model's `folder`, or from the sizes."""
    candidates = [manifest.base_path / BASE_CONFIG] if manifest.base_path else []
    candidates += [folder / name for name in (BASE_CONFIG, ENCODER_CONFIG)] if folder else []
    for path in candidates:
        if path.is_file():
            return read_json(path)
    return to_config(manifest.dims) if isinstance(manifest.dims, Dimensions) else {}


def classifier_config(base: Mapping[str, Any], manifest: Manifest, architecture: str) -> dict[str, Any]:
    """Return config.json of a classifier with the manifest's classes and number of layers."""
    kept = {key: value for key, value in base.items() if key not in _DROPPED}
    layers = {key: manifest.dims.layers for key in ("n_layers", "num_hidden_layers") if key in base}
    return {
        **kept,
        **layers,
        "architectures": [architecture],
        "dtype": "float32",
        "id2label": {str(i): name for i, name in enumerate(manifest.classes)},
        "label2id": {name: i for i, name in enumerate(manifest.classes)},
        "problem_type": "single_label_classification",
    }


def write_tokenizer(folder: Path, manifest: Manifest, tokenizer_json: str) -> None:
    """Write tokenizer.json, and tokenizer_config.json with which Transformers reads texts as loralab does.

    It cuts texts where the run did and makes no token_type_ids. The special tokens have the roles that the base gives them.
    """
    (folder / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
    tokens = {entry["id"]: entry["content"] for entry in json.loads(tokenizer_json).get("added_tokens", [])}
    roles = _special_tokens(manifest.base_path) if manifest.base_path else {}
    special = {role: token for role, token in roles.items() if token in tokens.values()}
    if pad := tokens.get(manifest.dims.pad_id):
        special["pad_token"] = pad
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": min(manifest.max_length, manifest.dims.longest),
        "model_input_names": [*TOKENIZER_INPUTS],
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        **special,
    }
    write_json(folder / TOKENIZER_CONFIG, settings)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of a folder that is not in place yet."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _special_tokens(base: Path) -> dict[str, str]:
    """Return the base's special tokens by role."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", TOKENIZER_CONFIG):
        if (base / name).is_file():
            settings |= read_json(base / name)
    named = {role: settings[role] for role in _SPECIAL_TOKENS if settings.get(role)}
    return {role: str(token["content"] if isinstance(token, dict) else token) for role, token in named.items()}
