"""Tiny random checkpoints and generated data for tests: `from tiny import make_checkpoint, topics, write_csv`."""

from __future__ import annotations

import csv
import json
import random
import string
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")
FOREIGN_TYPES = ("deberta-v2", "modernbert", "albert")
"""Architectures that run through Transformers."""
CLASSES = ("World", "Sports", "Business", "Sci/Tech")
WIDTH, HEADS, FFN, POSITIONS = 32, 4, 64, 160

_WORDS = {
    "World": "border treaty embassy minister election",
    "Sports": "goal striker league coach penalty stadium",
    "Business": "profit shares bank merger dividend revenue",
    "Sci/Tech": "software chip telescope robot satellite browser",
}
_FILLERS = "the a of on in after with new old small large said that this week today near again also while"
_SPECIAL = {"roberta": ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"], "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]}


def make_checkpoint(
    folder: Path,
    model_type: str = "bert",
    *,
    classes: int = 4,
    seed: int = 0,
    layers: int = 3,
    sentence_encoder: bool = False,
    masked: bool = False,
    **settings: Any,
) -> Path:
    """Write config.json, model.safetensors and tokenizer.json: width 32, 4 heads, ffn 64, tensors of standard deviation 0.2.

    ELECTRA's embeddings are 16 wide. `sentence_encoder` writes modules.json and the bare encoder, without prefix or head; `masked`
    writes the masked-language head instead of the classifier. `settings` go into config.json.
    """
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

    specials = _SPECIAL["roberta" if "roberta" in model_type else "bert"]
    vocabulary = _vocabulary(specials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sizes = _sizes(model_type, layers, len(vocabulary), specials)
        config = AutoConfig.for_model(model_type, **{**sizes, **settings}, num_labels=classes)
        model: Any = (AutoModelForMaskedLM if masked else AutoModelForSequenceClassification).from_config(config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                drawn = torch.empty(parameter.shape).normal_(std=0.2, generator=generator)
                parameter.copy_(drawn + 1 if name.lower().endswith("norm.weight") else drawn)
        folder.mkdir(parents=True, exist_ok=True)
        (model.base_model if sentence_encoder else model).save_pretrained(folder)
    _tokenizer(vocabulary).save(str(folder / "tokenizer.json"))
    if sentence_encoder:
        kinds = ("", "sentence_transformers.models.Transformer"), ("1_Pooling", "sentence_transformers.models.Pooling")
        modules = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(kinds)]
        (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    return folder


def write_csv(path: Path, rows: list[tuple[str, str]], header: Sequence[str] = ("text", "label")) -> Path:
    """Write rows with a header, or without one if it is empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        if header:
            table.writerow(header)
        table.writerows(rows)
    return path


def topics(n_per_class: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return shuffled (text, class) rows with distinct texts of class words and fillers, which are trivial to learn."""
    source = random.Random(seed)
    rows: dict[str, str] = {}
    for name in CLASSES:
        end = len(rows) + n_per_class
        while len(rows) < end:
            words = source.choices(_WORDS[name].split(), k=source.randint(5, 9)) + source.choices(
                _FILLERS.split(), k=source.randint(1, 3)
            )
            source.shuffle(words)
            rows.setdefault(" ".join(words).capitalize() + ".", name)
    shuffled = list(rows.items())
    source.shuffle(shuffled)
    return shuffled


def _sizes(model_type: str, layers: int, vocabulary: int, specials: list[str]) -> dict[str, Any]:
    ids: dict[str, Any] = {
        "vocab_size": vocabulary,
        "pad_token_id": specials.index("[PAD]"),
        "bos_token_id": specials.index("[CLS]"),
        "eos_token_id": specials.index("[SEP]"),
    }
    if model_type == "distilbert":
        shape = {"n_layers": layers, "dim": WIDTH, "n_heads": HEADS, "hidden_dim": FFN, "max_position_embeddings": POSITIONS}
        return {**ids, **shape}
    roberta = "roberta" in model_type
    sizes: dict[str, Any] = {
        "num_hidden_layers": layers,
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "intermediate_size": FFN,
        "max_position_embeddings": POSITIONS + (2 if roberta else 0),
        "type_vocab_size": 1 if roberta else 2,
        "layer_norm_eps": 1e-5 if roberta else 1e-12,
    }
    if model_type in ("electra", "albert"):
        sizes["embedding_size"] = WIDTH // 2
    if model_type == "deberta-v2":  # as in version 3: relative positions, shared among the layers
        sizes |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16, "norm_rel_ebd": "layer_norm"}
        sizes |= {"share_att_key": True, "position_biased_input": False, "type_vocab_size": 0, "max_relative_positions": -1}
    if model_type == "deberta":
        sizes |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 16}
        sizes |= {"position_biased_input": False, "type_vocab_size": 0}
    if model_type == "modernbert":
        sizes |= {"cls_token_id": ids["bos_token_id"], "sep_token_id": ids["eos_token_id"], "local_attention": 8}
    return {**ids, **sizes}


def _vocabulary(specials: list[str]) -> list[str]:
    letters = [c for c in string.printable if not c.isspace() and not c.isupper()]
    words = sorted({word for group in _WORDS.values() for word in group.split()} | set(_FILLERS.split()))
    return list(dict.fromkeys([*specials, *letters, *(f"##{c}" for c in letters), *words]))


def _tokenizer(vocabulary: list[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens([token for token in vocabulary if token.startswith("[") and len(token) > 1])
    return tokenizer
