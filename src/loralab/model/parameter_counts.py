"""Parameter counts and the budget solver, as closed formulas without weights or torch.

Base, adapter and head are counted apart, because published counts often quote one of them as the total.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from loralab.config import LoraConfig
from loralab.errors import LoralabError
from loralab.model.architectures import ROLES, Dimensions, parse_frozen, parse_layers, resolve_targets


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters. `base`: the pretrained encoder, with BERT's pooler if the head uses it."""

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
    """Parameters of the encoder: embeddings, layers, and BERT's pooler with the default head."""
    pooler = _dense(dims) if head == "default" and dims.architecture.pooler_in_base else 0
    return _embeddings_size(dims) + dims.layers * _layer_size(dims) + pooler


def frozen_size(dims: Dimensions, freeze: str | None) -> int:
    """Parameters of the embeddings and layers that `model.freeze` names."""
    embeddings, layers = parse_frozen(freeze, dims.layers)
    return _embeddings_size(dims) * embeddings + _layer_size(dims) * len(layers)


def head_size(dims: Dimensions, classes: int, head: str) -> int:
    """Parameters of the head, without BERT's pooler, which belongs to the base."""
    default = head == "default" and not dims.architecture.pooler_in_base
    dense = _dense(dims) if default or head == "prompt" else 0
    norm = 2 * dims.width if head == "prompt" else 0
    return dense + norm + (dims.width + 1) * classes


def adapter_size(dims: Dimensions, rank: int, targets: Sequence[str], layers: str | None) -> int:
    """Parameters of all adapters: rank · (inputs + outputs) for each adapted map."""
    per_layer = sum(rank * sum(dims.shape_of(role)) for role in resolve_targets(targets))
    return per_layer * len(parse_layers(layers, dims.layers))


def count_from_shapes(
    dims: Dimensions, classes: int, *, head: str, tuning: str, lora: LoraConfig, freeze: str | None = None
) -> ParameterCounts:
    """Count the parameters of a configuration. `tuning`: lora, full (all but `freeze`) or head."""
    base, top = base_size(dims, head), head_size(dims, classes, head)
    adapter = adapter_size(dims, lora.rank, lora.targets, lora.layers) if tuning == "lora" else 0
    return ParameterCounts(base, adapter, top, base - frozen_size(dims, freeze) + top if tuning == "full" else adapter + top)


@dataclass(frozen=True)
class BudgetOption:
    """The largest rank within a budget for one choice of targets and layers."""

    targets: tuple[str, ...]
    layers: str | None
    rank: int
    trainable: int


def solve_budget(dims: Dimensions, classes: int, *, head: str, max_trainable: int, layers: str | None = None) -> list[BudgetOption]:
    """Find the largest rank for every choice of targets, over all layers, the top half and the top quarter, or over `layers`.

    Sorted by the share of the budget used, largest first. Raises LoralabError if the budget has no room for an adapter.
    """
    top = head_size(dims, classes, head)
    left = max_trainable - top
    choices = [("all",)] + [c for n in range(1, len(ROLES)) for c in combinations(ROLES, n) if n <= 2 or c == ROLES[:3]]
    spans = (
        [layers] if layers else [None, *(f"{dims.layers - n}-{dims.layers - 1}" for n in (dims.layers // 2, dims.layers // 4) if n)]
    )
    options = []
    for span in spans:
        for targets in choices:
            rank = left // adapter_size(dims, 1, targets, span)
            smallest_side = min(min(dims.shape_of(role)) for role in resolve_targets(targets))
            if rank >= 1:
                rank = min(rank, smallest_side)
                options.append(BudgetOption(targets, span, rank, top + adapter_size(dims, rank, targets, span)))
    if not options:
        smaller = f", or use model.head=linear ({head_size(dims, classes, 'linear'):,})" if head != "linear" else ""
        raise LoralabError(
            f"no adapter fits {max_trainable:,} trainable parameters: the head alone has {top:,}. "
            f"Raise the budget to {top + adapter_size(dims, 1, ('value',), layers):,} or more{smaller}"
        )
    return sorted(options, key=lambda option: -option.trainable)


def _embeddings_size(dims: Dimensions) -> int:
    size = (dims.vocabulary + dims.positions + dims.token_types + 2) * dims.embedding_width
    return size + ((dims.embedding_width + 1) * dims.width if dims.embedding_width != dims.width else 0)


def _layer_size(dims: Dimensions) -> int:
    return sum((inputs + 1) * outputs for outputs, inputs in map(dims.shape_of, ROLES)) + 4 * dims.width


def _dense(dims: Dimensions) -> int:
    return (dims.width + 1) * dims.width
