"""Parameter counts and the budget, by closed formulas: no weights, no torch.

Base, adapter and head are always told apart: published counts often quote one of the three as the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from loralab.errors import LoralabError
from loralab.model.architectures import ROLES, Dimensions, parse_frozen, parse_layers, resolve_targets


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters. `base` is the pretrained encoder (BERT's pooler included where it is used)."""

    base: int
    adapter: int
    head: int
    trainable: int

    @property
    def total(self) -> int:
        return self.base + self.adapter + self.head

    @property
    def share(self) -> float:
        """Trainable parameters as a fraction of all."""
        return self.trainable / self.total


def base_size(dims: Dimensions, head: str) -> int:
    """Parameters of the encoder: embeddings, layers, and BERT's pooler where the head is the architecture's own."""
    pooler = _dense(dims) if head == "default" and dims.architecture.pooler_in_base else 0
    return _embeddings_size(dims) + dims.layers * _layer_size(dims) + pooler


def frozen_size(dims: Dimensions, freeze: str | None) -> int:
    """Parameters of the embeddings and layers that `model.freeze` names."""
    embeddings, layers = parse_frozen(freeze, dims.layers)
    return _embeddings_size(dims) * embeddings + _layer_size(dims) * len(layers)


def head_size(dims: Dimensions, classes: int, head: str) -> int:
    """Parameters of the head, without BERT's pooler, which belongs to the base."""
    own = head == "default" and not dims.architecture.pooler_in_base
    dense = _dense(dims) if own or head == "prompt" else 0
    norm = 2 * dims.width if head == "prompt" else 0
    return dense + norm + (dims.width + 1) * classes


def adapter_size(dims: Dimensions, rank: int, targets: Sequence[str], layers: str | None) -> int:
    """Parameters of all adapters: rank · (inputs + outputs) for each adapted map."""
    per_layer = sum(rank * sum(dims.shape_of(role)) for role in resolve_targets(targets))
    return per_layer * len(parse_layers(layers, dims.layers))


def count_from_shapes(
    dims: Dimensions,
    classes: int,
    *,
    head: str,
    tuning: str,
    rank: int,
    targets: Sequence[str],
    layers: str | None,
    freeze: str | None = None,
) -> Counts:
    """Count what a configuration trains: `tuning` is lora, full (all but `freeze`) or head."""
    base, top = base_size(dims, head), head_size(dims, classes, head)
    adapter = adapter_size(dims, rank, targets, layers) if tuning == "lora" else 0
    return Counts(base, adapter, top, base - frozen_size(dims, freeze) + top if tuning == "full" else adapter + top)


@dataclass(frozen=True)
class BudgetOption:
    """The largest rank of one choice of targets and layers that stays within a budget."""

    targets: tuple[str, ...]
    layers: str | None
    rank: int
    trainable: int


def solve_budget(dims: Dimensions, classes: int, *, head: str, max_trainable: int, layers: str | None = None) -> list[BudgetOption]:
    """Solve the budget: the largest rank for every choice of targets, over all layers and the top half and quarter.

    Sorted by how much of the budget is used, most first. With `layers` given, only those. Raises LoralabError when the head
    alone is over the budget.
    """
    top = head_size(dims, classes, head)
    room = max_trainable - top
    choices = [("all",)] + [c for n in range(1, len(ROLES)) for c in combinations(ROLES, n) if n <= 2 or c == ROLES[:3]]
    spans = (
        [layers] if layers else [None, *(f"{dims.layers - n}-{dims.layers - 1}" for n in (dims.layers // 2, dims.layers // 4) if n)]
    )
    fits = []
    for span in spans:
        for targets in choices:
            rank = room // adapter_size(dims, 1, targets, span)
            smallest_side = min(min(dims.shape_of(role)) for role in resolve_targets(targets))
            if rank >= 1:
                rank = min(rank, smallest_side)
                fits.append(BudgetOption(targets, span, rank, top + adapter_size(dims, rank, targets, span)))
    if not fits:
        smaller = f", or use model.head=linear ({head_size(dims, classes, 'linear'):,})" if head != "linear" else ""
        raise LoralabError(
            f"no adapter fits {max_trainable:,} trainable parameters: the head alone has {top:,}. "
            f"Raise the budget to {top + adapter_size(dims, 1, ('value',), layers):,} or more{smaller}"
        )
    return sorted(fits, key=lambda fit: -fit.trainable)


def _embeddings_size(dims: Dimensions) -> int:
    size = (dims.vocabulary + dims.positions + dims.token_types + 2) * dims.embedding_width
    return size + ((dims.embedding_width + 1) * dims.width if dims.embedding_width != dims.width else 0)


def _layer_size(dims: Dimensions) -> int:
    return sum((inputs + 1) * outputs for outputs, inputs in map(dims.shape_of, ROLES)) + 4 * dims.width


def _dense(dims: Dimensions) -> int:
    return (dims.width + 1) * dims.width
