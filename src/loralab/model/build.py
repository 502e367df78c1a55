"""From plain settings to a network that is ready to train, its parameters counted from the live model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from loralab.errors import LoralabError
from loralab.model.architectures import Dimensions, HeadKind, Pooling, Sizes, family, is_native
from loralab.model.checkpoints import BaseCheckpoint, Words, choose_head, choose_pooling, load_pretrained
from loralab.model.dropout import Dropout
from loralab.model.encoder import EncoderClassifier, initialise_head
from loralab.model.hf.model import HFClassifier, build_generic, empty_generic
from loralab.model.lora import adapters, attach_lora, freeze_encoder, freeze_parts
from loralab.model.parameter_counts import Counts, count_from_shapes, solve_budget


@dataclass(frozen=True)
class Lora:
    """Settings of the adapters, as in `lora.*`."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: Sequence[str] = ("query", "value")
    layers: str | None = None
    variant: str = "lora"


def build_network(
    base: BaseCheckpoint,
    classes: int,
    *,
    pooling: Pooling | Literal["auto"],
    head: HeadKind | Literal["auto"],
    dropout: float,
    tuning: str,
    lora: Lora,
    init_seed: int,
    dropout_seed: int,
    freeze: str | None = None,
    quantize: str = "none",
    words: Words = (),
) -> EncoderClassifier | HFClassifier:
    """Load the encoder, draw the head, attach adapters or choose what else is trained: `tuning` is lora, full or head.

    The network is the native one where it can be (`backbone.is_native`), else Transformers' and peft's. `words`: what the classes
    are called, in tokens, for head=prompt, whose pooling is the mask's place.
    """
    if quantize != "none" and tuning == "full":
        raise LoralabError(f"model.quantize={quantize} keeps the encoder frozen: use tuning=lora or tuning=head")
    shape: dict[str, Any] = {
        "pooling": pooling,
        "head": head,
        "dropout": dropout,
        "tuning": tuning,
        "lora": lora,
        "init_seed": init_seed,
    }
    network: EncoderClassifier | HFClassifier
    if is_native(base.dims, tuning=tuning, variant=lora.variant, quantize=quantize):
        network = _build_native(base, classes, **shape, freeze=freeze, words=words)
    else:
        network = build_generic(base, classes, **shape, freeze=freeze, quantize=quantize)
    for module in network.modules():
        if isinstance(module, Dropout):
            module.seed = dropout_seed
    return network


def _build_native(
    base: BaseCheckpoint,
    classes: int,
    *,
    pooling: Pooling | Literal["auto"],
    head: HeadKind | Literal["auto"],
    dropout: float,
    tuning: str,
    lora: Lora,
    init_seed: int,
    freeze: str | None,
    words: Words,
) -> EncoderClassifier:
    generator = torch.Generator().manual_seed(init_seed)
    dims = family(base.dims, base.name)
    network = EncoderClassifier(
        dims, classes, pooling=choose_pooling(pooling, base.name), head=choose_head(head, base.name), dropout=dropout
    )
    initialise_head(network, generator)
    load_pretrained(network, base, words)
    if tuning == "lora":
        attach_lora(
            network,
            rank=lora.rank,
            alpha=lora.alpha,
            dropout=lora.dropout,
            targets=lora.targets,
            layers=lora.layers,
            variant=lora.variant,
            generator=generator,
        )
    elif tuning == "head":
        freeze_encoder(network)
    elif freeze:
        freeze_parts(network, freeze)
    return network


def live_counts(network: EncoderClassifier | HFClassifier) -> Counts:
    """Count the parameters of the network as it stands."""
    if isinstance(network, HFClassifier):
        return network.counts()
    adapter = sum(p.numel() for _, _, pair in adapters(network) for p in pair.parameters())
    head = sum(p.numel() for p in network.head.parameters())
    if network.pooler is not None:
        head -= sum(p.numel() for p in network.pooler.parameters())
    total = sum(p.numel() for p in network.parameters())
    return Counts(total - adapter - head, adapter, head, sum(p.numel() for p in network.parameters() if p.requires_grad))


def count_generic(
    name: str,
    dims: Dimensions | Sizes,
    classes: int,
    *,
    pooling: Pooling | Literal["auto"],
    head: HeadKind | Literal["auto"],
    tuning: str,
    lora: Lora,
    freeze: str | None = None,
) -> tuple[Counts, list[str]]:
    """Count without weights what the native formulas do not cover; return the names of the adapted maps too."""
    network = empty_generic(name, dims, classes, pooling=pooling, head=head, tuning=tuning, lora=lora, freeze=freeze)
    return network.counts(), network.maps


def check_counts(
    network: EncoderClassifier | HFClassifier, *, tuning: str, lora: Lora, max_trainable: int | None, freeze: str | None = None
) -> Counts:
    """Return the live counts. Raises LoralabError over the budget; a difference from the closed formula is a bug."""
    counts = live_counts(network)
    if isinstance(network, HFClassifier):
        if max_trainable is not None and counts.trainable > max_trainable:
            raise LoralabError(
                f"{_over(counts, max_trainable)}.\n  A lower lora.rank, fewer lora.targets or lora.layers need fewer"
            )
        return counts
    dims, head, classes = network.dims, network.head_kind, network.classes
    rank, targets, layers = lora.rank, lora.targets, lora.layers
    formula = count_from_shapes(dims, classes, head=head, tuning=tuning, rank=rank, targets=targets, layers=layers, freeze=freeze)
    assert counts == formula, f"live counts {counts} differ from the formula's {formula}"
    check_budget(counts, dims, classes, head=head, lora=lora, max_trainable=max_trainable)
    return counts


def check_budget(counts: Counts, dims: Dimensions, classes: int, *, head: str, lora: Lora, max_trainable: int | None) -> None:
    """Raise LoralabError, with what would fit, when more is trained than `max_trainable`."""
    if max_trainable is None or counts.trainable <= max_trainable:
        return
    fits = solve_budget(dims, classes, head=head, max_trainable=max_trainable, layers=lora.layers)
    same = [fit for fit in fits if set(fit.targets) == set(lora.targets)]
    offers = []
    for fit in (*same[:1], *fits[:1]):
        layers = f" lora.layers={fit.layers}" if fit.layers and fit.layers != lora.layers else ""
        tuning = "" if counts.adapter else "tuning=lora "
        offers.append(f"{tuning}lora.rank={fit.rank} lora.targets={','.join(fit.targets)}{layers} ({fit.trainable:,})")
    raise LoralabError(f"{_over(counts, max_trainable)}.\n  What fits: {'; or '.join(dict.fromkeys(offers))}")


def _over(counts: Counts, max_trainable: int) -> str:
    return (
        f"{counts.trainable:,} trainable parameters (adapter {counts.adapter:,} + head {counts.head:,}) are over "
        f"lora.max_trainable={max_trainable:,}"
    )
