"""Attach LoRA adapters to encoder layers, list them, and merge them into the weights.

Variants: Kalajdzievski 2023 (rsLoRA): s = alpha / √rank; Hayou et al. 2024 (LoRA+): B has a higher learning rate than A, set in
the optimizer; Meng et al. 2024 (PiSSA): A and B start as the principal part of W, and the rest of W is frozen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from loralab.config import LoraConfig
from loralab.errors import LoralabError
from loralab.model.architectures import parse_layers, resolve_targets
from loralab.model.dropout import Dropout
from loralab.model.layers import EncoderLayer
from loralab.model.lora import Adapter, Projection


def attach_lora(layers: Sequence[EncoderLayer], lora: LoraConfig, generator: torch.Generator | None = None) -> None:
    """Add new adapters to the chosen roles of the chosen layers.

    A is drawn like peft's, from U(-1/√inputs, 1/√inputs), and B is zero; with variant pissa both are the principal part of the
    weight. Either way the logits do not change. Raises LoralabError for an unknown target or layer.
    """
    roles = resolve_targets(lora.targets)
    scale = lora.alpha / (math.sqrt(lora.rank) if lora.variant == "rslora" else lora.rank)
    for index in parse_layers(lora.layers, len(layers)):
        for projection in layers[index].projections():
            for role in projection.roles:
                if role in roles:
                    adapter = Adapter(projection.outputs, projection.weight.shape[1], lora.rank, scale)
                    if lora.variant == "pissa":
                        _check_rank(lora.rank, projection)
                        adapter.init_principal(projection.weight[projection.rows(role)])
                    else:
                        nn.init.kaiming_uniform_(adapter.a, a=math.sqrt(5), generator=generator)
                    projection.adapters[role] = adapter
            if projection.adapters:
                projection.dropout = Dropout(lora.dropout) if lora.dropout else None


def adapters(layers: Sequence[EncoderLayer]) -> Iterator[tuple[int, str, Adapter]]:
    """Yield (layer, role, adapter) of every adapter, from the lowest layer up."""
    for index, layer in enumerate(layers):
        for projection in layer.projections():
            for role in projection.roles:
                if role in projection.adapters:
                    yield index, role, projection.adapter(role)


@torch.no_grad()
def merge(layers: Sequence[EncoderLayer]) -> None:
    """Add every adapter's update to its weight. Merge in fp32: bf16 weights lose small updates."""
    for layer in layers:
        for projection in layer.projections():
            if not projection.merged:
                for role in projection.adapters:
                    projection.weight[projection.rows(role)] += projection.adapter(role).delta().to(projection.weight.dtype)
                projection.merged = True


def _check_rank(rank: int, projection: Projection) -> None:
    if rank > (most := min(projection.outputs, projection.weight.shape[1])):
        raise LoralabError(f"lora.rank={rank}: with variant pissa this encoder's {projection.roles[0]} has ranks up to {most}")
