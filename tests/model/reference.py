"""References for the model tests: Transformers, peft, and Hugging Face's module names, written out a second time."""

from __future__ import annotations

import copy
import functools
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loralab.config import LoraConfig, ModelConfig
from loralab.model.build import build_model
from loralab.model.bundle import save_bundle
from loralab.model.checkpoints import resolve_base
from loralab.model.encoder import EncoderClassifier
from loralab.model.interface import ClassifierModel
from loralab.model.manifest import Manifest

BERT = {
    "query": "encoder.layer.{}.attention.self.query",
    "key": "encoder.layer.{}.attention.self.key",
    "value": "encoder.layer.{}.attention.self.value",
    "output": "encoder.layer.{}.attention.output.dense",
    "ffn_in": "encoder.layer.{}.intermediate.dense",
    "ffn_out": "encoder.layer.{}.output.dense",
}
DISTILBERT = {
    "query": "transformer.layer.{}.attention.q_lin",
    "key": "transformer.layer.{}.attention.k_lin",
    "value": "transformer.layer.{}.attention.v_lin",
    "output": "transformer.layer.{}.attention.out_lin",
    "ffn_in": "transformer.layer.{}.ffn.lin1",
    "ffn_out": "transformer.layer.{}.ffn.lin2",
}
PREFIX = {"bert": "bert", "roberta": "roberta", "xlm-roberta": "roberta", "electra": "electra", "distilbert": "distilbert"}
EVERY = ("query", "key", "value", "output", "ffn_in", "ffn_out")
CLASSES = ("World", "Sports", "Business", "Sci/Tech")


def module_name(kind: str, role: str, layer: int) -> str:
    return (DISTILBERT if kind == "distilbert" else BERT)[role].format(layer)


def padded_batch(folder: Path, seed: int = 0, lengths: Sequence[int] = (1, 3, 7, 12, 12)) -> tuple[Tensor, Tensor]:
    """Random tokens (batch, time) without special ones among them, padded on the right; mask (batch, time) bool."""
    dims = resolve_base(str(folder)).dims
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    tokens = torch.randint(5, dims.vocabulary, mask.shape, generator=generator)
    return tokens.masked_fill(~mask, dims.pad_id), mask


@functools.cache
def transformers_classifier(folder: Path, classes: int = 4) -> Any:
    """The unadapted reference, kept between tests: copy it before changing it."""
    from transformers import AutoModelForSequenceClassification

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes).eval()


@functools.cache
def transformers_encoder(folder: Path) -> Any:
    from transformers import AutoModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModel.from_pretrained(folder).eval()


def hidden_of(model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad():
        hidden: Tensor = model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
    return hidden


def logits_of(model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    """Logits of a model of Transformers, peft or ours."""
    with torch.no_grad():
        if isinstance(model, EncoderClassifier):
            ours: Tensor = model(tokens, mask)
            return ours
        theirs: Tensor = model(input_ids=tokens, attention_mask=mask.long()).logits
    return theirs


def ours(
    folder: Path,
    *,
    pooling: str = "cls",
    head: str = "default",
    tuning: str = "head",
    lora: LoraConfig | None = None,
    classes: int = 4,
    dropout: float = 0.0,
    freeze: str | None = None,
    seed: int = 0,
) -> EncoderClassifier:
    """Build our model on a checkpoint, in eval mode."""
    settings = ModelConfig(pooling=pooling, head=head, dropout=dropout, freeze=freeze)
    base, lora = resolve_base(str(folder)), lora or LoraConfig()
    return build_model(base, classes, settings, tuning=tuning, lora=lora, init_seed=seed, dropout_seed=seed + 1).eval()


def randomise(model: Any, seed: int = 7, std: float = 0.1) -> Any:
    """Add noise to all that would be trained, B included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.empty(parameter.shape).normal_(std=std, generator=generator)
    return model


def bundle(
    folder: Path, model: ClassifierModel, base: Path, *, tuning: str, lora: LoraConfig | None = None, **changes: Any
) -> Path:
    """Save a model folder."""
    checkpoint = resolve_base(str(base))
    settings: dict[str, Any] = {
        "base": checkpoint.name,
        "base_folder": str(checkpoint.folder.resolve()),
        "base_sha256": checkpoint.identity(),
        "dims": checkpoint.dims,
        "classes": CLASSES[: model.classes],
        "pooling": model.pooling,
        "head": model.head_kind,
        "tuning": tuning,
        "clean": ("whitespace",),
        "max_length": 128,
        "lora": lora or LoraConfig(),
    }
    folder.mkdir(parents=True)
    save_bundle(folder, model, Manifest(**{**settings, **changes}), (base / "tokenizer.json").read_text(encoding="utf-8"))
    return folder


def peft_classifier(
    folder: Path, kind: str, roles: Sequence[str], layers: Sequence[int], *, head: bool = True, seed: int = 3, **settings: Any
) -> Any:
    """Transformers' classifier with peft's adapters on the roles of the layers; A and B drawn at random, the head too if wanted."""
    from peft import LoraConfig, get_peft_model

    names = "|".join(re.escape(module_name(kind, role, layer)) for layer in layers for role in roles)
    model: Any = copy.deepcopy(transformers_classifier(folder))
    config = LoraConfig(task_type="SEQ_CLS" if head else None, target_modules=rf"(.*\.)?({names})", **settings)
    with torch.random.fork_rng():  # peft draws A from the ambient stream: without a seed it depended on which tests ran before
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    return randomise_peft(adapted, seed).eval()


def randomise_peft(model: Any, seed: int = 3) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.empty(parameter.shape).normal_(std=0.2, generator=generator)
    return model


def peft_adapters(model: Any, kind: str, layers: int = 3) -> Iterator[tuple[int, str, Any]]:
    """Yield (layer, role, peft's module) of every adapted linear map."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            for layer in range(layers):
                for role in EVERY:
                    if name.endswith(f"{PREFIX[kind]}.{module_name(kind, role, layer)}"):
                        yield layer, role, module


def copy_adapters(ours: EncoderClassifier, model: Any, kind: str) -> int:
    """Copy peft's A and B into our model; return how many pairs."""
    theirs = {(layer, role): module for layer, role, module in peft_adapters(model, kind)}
    mine = {(layer, role): adapter for layer, role, adapter in ours.adapters()}
    assert set(mine) == set(theirs)
    with torch.no_grad():
        for place, adapter in mine.items():
            adapter.a.copy_(theirs[place].lora_A["default"].weight)
            adapter.b.copy_(theirs[place].lora_B["default"].weight)
    return len(mine)


def largest_difference(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).detach().abs().max())
