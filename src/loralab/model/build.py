"""Build a model from settings: load the encoder, add the head, attach adapters, and count what is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loralab.config import LoraConfig, ModelConfig
from loralab.errors import LoralabError
from loralab.model.architectures import EMBEDDINGS, Dimensions, Sizes, canonical_name, family, is_native
from loralab.model.checkpoints import BaseCheckpoint, check_minilm, choose_head, choose_pooling
from loralab.model.dropout import Dropout
from loralab.model.encoder import HEAD_OUT, EncoderClassifier
from loralab.model.hf.model import HFClassifier
from loralab.model.hf.pretrained import build_hf_model, empty_hf_model
from loralab.model.parameter_counts import ParameterCounts, base_size, count_from_shapes, solve_budget
from loralab.model.tensor_files import check_parameters, copy_tensors, load_tensors

TrainableModel = EncoderClassifier | HFClassifier


@dataclass(frozen=True)
class PromptHead:
    """Settings of head=prompt. mask_position: the mask's place, as in `Pooling`; words: the tokens of each word of each class."""

    mask_position: int
    words: Sequence[Sequence[Sequence[int]]]


def build_model(  # noqa: PLR0913 - initialization and dropout have independent seeds
    base: BaseCheckpoint,
    classes: int,
    model: ModelConfig,
    *,
    tuning: str,
    lora: LoraConfig,
    init_seed: int,
    dropout_seed: int,
    prompt: PromptHead | None = None,
) -> TrainableModel:
    """Load the encoder, draw the head, and choose what is trained. tuning: lora, full or head.

    Returns the native classifier if it supports the settings (`architectures.is_native`), else one of Transformers and peft.
    Raises LoralabError for settings that do not go together and for an unusable checkpoint.
    """
    if model.quantize != "none" and tuning == "full":
        raise LoralabError(f"model.quantize={model.quantize} keeps the encoder frozen: use tuning=lora or tuning=head")
    classifier: TrainableModel
    if is_native(base.dims, tuning=tuning, variant=lora.variant, quantize=model.quantize):
        classifier = _build_native(base, classes, model, tuning=tuning, lora=lora, init_seed=init_seed, prompt=prompt)
    else:
        classifier = build_hf_model(base, classes, model, tuning=tuning, lora=lora, init_seed=init_seed)
    for module in classifier.modules():
        if isinstance(module, Dropout):
            module.seed = dropout_seed
    return classifier


def _build_native(
    base: BaseCheckpoint,
    classes: int,
    model: ModelConfig,
    *,
    tuning: str,
    lora: LoraConfig,
    init_seed: int,
    prompt: PromptHead | None,
) -> EncoderClassifier:
    generator = torch.Generator().manual_seed(init_seed)
    pooling = prompt.mask_position if prompt else choose_pooling(model.pooling, base.name)
    head = choose_head(model.head, base.name)
    dims = family(base.dims, base.name)
    check_parameters(base_size(dims, "linear"), base.shards(), base.name)
    classifier = EncoderClassifier(dims, classes, pooling=pooling, head=head, dropout=model.dropout)
    classifier.head.init_weights(generator)
    load_pretrained(classifier, base, prompt)
    if tuning == "lora":
        classifier.attach_lora(lora, generator)
    elif tuning == "head":
        classifier.freeze_encoder()
    elif model.freeze:
        classifier.freeze_parts(model.freeze)
    return classifier


def load_pretrained(model: EncoderClassifier, base: BaseCheckpoint, prompt: PromptHead | None = None) -> None:
    """Copy a checkpoint's tensors into the model, and those of its classification head if names and shapes match.

    With head=prompt the masked-language head is copied, and each class's output row is made of its words' rows (`_load_masked`).
    Raises LoralabError that names the first missing or misshapen tensor, and for a checkpoint without the head that is needed.
    """
    check_minilm(base)
    dims = model.dims
    tensors = {canonical_name(dims, name): tensor for shard in base.shards() for name, tensor in load_tensors(shard).items()}
    copy_tensors(model.encoder_tensors(), tensors, base.name)
    if model.head_kind == "prompt":
        _load_masked(model, tensors, prompt, base.name)
        return
    head: dict[str, Tensor] = {canonical_name(dims, name): tensor for name, tensor in model.head_tensors()}
    required = {name for name in head if name.startswith("pooler.")}
    fitting = {name: t for name, t in head.items() if name in required or (name in tensors and tensors[name].shape == t.shape)}
    if required - set(tensors):
        raise LoralabError(f"{base.name}: the checkpoint has no pooler for BERT's default head: use model.head=linear")
    copy_tensors(fitting.items(), tensors, base.name)


def _load_masked(model: EncoderClassifier, tensors: Mapping[str, Tensor], prompt: PromptHead | None, origin: str) -> None:
    """Load the masked-language head. A class's output row is the mean over its words, a word's row the mean over its tokens."""
    names = model.dims.architecture.masked
    decoder = names.get("decoder", "")
    rows = tensors.get(f"{decoder}.weight", tensors[f"{EMBEDDINGS['word']}.weight"])  # tied weights are often saved once
    biases = tensors.get(f"{decoder}.bias", tensors.get(names.get("bias", "")))
    if biases is None:
        raise LoralabError(
            f"{origin}: the checkpoint has no masked-language head, which model.head=prompt needs (roberta-base has one).\n"
            "  Or use model.head=linear train.head_init=descriptions, which starts from the similarity of texts and class names"
        )
    copy_tensors(((name, t) for name, t in model.head_tensors() if not name.startswith(HEAD_OUT)), tensors, origin)
    with torch.no_grad():
        for table, out in ((rows, model.head.out.weight), (biases, model.head.out.bias)):
            for label, words in enumerate(prompt.words if prompt else ()):
                out[label] = torch.stack([table[list(tokens)].float().mean(dim=0) for tokens in words]).mean(dim=0)


def count_hf_model(
    name: str, dims: Dimensions | Sizes, classes: int, model: ModelConfig, *, tuning: str, lora: LoraConfig
) -> tuple[ParameterCounts, list[str]]:
    """Count the parameters of an `HFClassifier` without weights. Returns the names of the adapted maps, too."""
    classifier = empty_hf_model(name, dims, classes, model, tuning=tuning, lora=lora)
    return classifier.parameter_counts(), classifier.adapted_maps


def check_counts(model: TrainableModel, *, tuning: str, lora: LoraConfig, freeze: str | None = None) -> ParameterCounts:
    """Count the model's parameters. Raises LoralabError above `lora.max_trainable`; a difference to the formula is a bug."""
    counts = model.parameter_counts()
    if isinstance(model, HFClassifier):
        if lora.max_trainable is not None and counts.trainable > lora.max_trainable:
            raise LoralabError(
                f"{_over_budget(counts, lora.max_trainable)}.\n  Use a lower lora.rank, fewer lora.targets or fewer lora.layers"
            )
        return counts
    formula = count_from_shapes(model.dims, model.classes, head=model.head_kind, tuning=tuning, lora=lora, freeze=freeze)
    assert counts == formula, f"the model's parameters {counts} differ from the formula's {formula}"
    check_budget(counts, model.dims, model.classes, head=model.head_kind, lora=lora)
    return counts


def check_budget(counts: ParameterCounts, dims: Dimensions, classes: int, *, head: str, lora: LoraConfig) -> None:
    """Raise LoralabError with configurations that fit if more parameters are trained than `lora.max_trainable`."""
    if lora.max_trainable is None or counts.trainable <= lora.max_trainable:
        return
    options = solve_budget(dims, classes, head=head, max_trainable=lora.max_trainable, layers=lora.layers)
    same_targets = [option for option in options if set(option.targets) == set(lora.targets)]
    offers = []
    for option in (*same_targets[:1], *options[:1]):
        layers = f" lora.layers={option.layers}" if option.layers and option.layers != lora.layers else ""
        tuning = "" if counts.adapter else "tuning=lora "
        offers.append(f"{tuning}lora.rank={option.rank} lora.targets={','.join(option.targets)}{layers} ({option.trainable:,})")
    raise LoralabError(f"{_over_budget(counts, lora.max_trainable)}.\n  What fits: {'; or '.join(dict.fromkeys(offers))}")


def _over_budget(counts: ParameterCounts, max_trainable: int) -> str:
    return (
        f"{counts.trainable:,} trainable parameters (adapter {counts.adapter:,} + head {counts.head:,}) are over "
        f"lora.max_trainable={max_trainable:,}"
    )
