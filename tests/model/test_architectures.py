"""Sizes are read from config.json; unsupported and incomplete ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reference import logits_of, ours, padded_batch
from tiny import MODEL_TYPES, make_checkpoint

from loralab.errors import LoralabError
from loralab.model.architectures import Sizes
from loralab.model.checkpoints import resolve_base


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A checkpoint to change."""
    return make_checkpoint(tmp_path / "base", "bert", layers=2)


def change_config(base: Path, **changes: Any) -> None:
    path = base / "config.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_dimensions_are_read_from_the_config(checkpoints: dict[str, Path], kind: str) -> None:
    dims = resolve_base(str(checkpoints[kind])).dims
    roberta = "roberta" in kind
    assert (dims.model_type, dims.layers, dims.width, dims.heads, dims.ffn_width) == (kind, 3, 32, 4, 64)
    assert dims.embedding_width == (16 if kind == "electra" else 32)
    assert dims.pad_id == (1 if roberta else 0)
    assert dims.token_types == (0 if kind == "distilbert" else 1 if roberta else 2)
    assert dims.longest == 160


def test_an_unsupported_architecture_names_the_supported(base: Path) -> None:
    change_config(base, model_type="deberta-v2")
    assert resolve_base(str(base)).dims == Sizes("deberta-v2", 2, 32, 160, 0)  # Transformers knows the rest
    change_config(base, hidden_size=None)
    with pytest.raises(LoralabError) as caught:
        resolve_base(str(base))
    assert [kind for kind in ("deberta-v2", "hidden_size", *MODEL_TYPES) if kind not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_act": "swish"}, "swish"),
        ({"hidden_size": "wide"}, "hidden_size|config"),
        ({"num_attention_heads": 5}, "heads|config"),
        ({"num_hidden_layers": 3}, r"layer\.2"),
    ],
)
def test_odd_parts_of_a_config_are_refused(base: Path, change: dict[str, Any], words: str) -> None:
    change_config(base, **change)
    with pytest.raises(LoralabError, match=words):
        logits_of(ours(base), *padded_batch(base))
