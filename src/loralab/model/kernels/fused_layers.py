"""Encoder layers computed by kernels in C, forward and backward, on texts that are concatenated without padding.

The result is that of `EncoderLayer.forward` up to bf16 rounding, with the same dropout masks. The kernels run on a CPU, for frozen
encoders with or without trained adapters. Biases, adapters, GELU and residuals are parts of the products. For the backward pass a
layer keeps Q, K and V, GELU's derivative, the norms' statistics, and the inputs of the maps that have adapters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loralab.model import kernels
from loralab.model.architectures import Dimensions
from loralab.model.layers import EncoderLayer
from loralab.model.lora import Adapter, Projection
from loralab.model.packed_linear import PackedWeight

TILE = 64
"""Columns that the kernels compute at once. Widths are multiples of it."""


def supports(dims: Dimensions, layers: Sequence[EncoderLayer]) -> bool:
    """Whether the kernels compute these layers: frozen in bf16, with GELU and widths that are multiples of the tile."""
    tiled = dims.width % TILE == 0 and dims.ffn_width % TILE == 0 and dims.width // dims.heads % 16 == 0
    if not tiled or dims.activation != "gelu" or kernels.load_kernels() is None:
        return False  # the kernels are loaded last, since that may compile them
    maps = [p for layer in layers for projection in layer.projections() for p in (projection.weight, projection.bias)]
    norms = [p for layer in layers for norm in (layer.attention_norm, layer.ffn_norm) for p in (norm.weight, norm.bias)]
    adapted = [p for layer in layers for adapter in _adapters(layer) for p in (adapter.a, adapter.b)]
    return (
        all(p.dtype == torch.float32 and p.is_contiguous() for p in (*norms, *adapted))
        and all(p.dtype == torch.bfloat16 and not p.is_inference() for p in maps)
        and not (torch.is_grad_enabled() and any(p.requires_grad for p in (*maps, *norms)))
    )


def run_layers(layers: Sequence[EncoderLayer], hidden: Tensor, mask: Tensor, first_only: bool) -> Tensor:
    """Run layers on hidden (batch, time, width), with mask (batch, time) True on real tokens; return the same, zero on padding.

    first_only: the last layer returns the first token of each text only, (batch, 1, width).
    """
    run = _FusedRun(layers, mask, first_only, to_hidden=torch.is_grad_enabled() and hidden.requires_grad)
    parameters = [p for layer in layers for adapter in _adapters(layer) for p in (adapter.a, adapter.b)]
    encoded: Tensor = _FusedLayers.apply(run, hidden, *parameters)  # type: ignore[no-untyped-call]
    return encoded


def _adapters(layer: EncoderLayer) -> Iterator[Adapter]:
    for projection in layer.projections():
        if not projection.merged:
            yield from (projection.adapter(role) for role in projection.roles if role in projection.adapters)


class _FusedLayers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: _FusedRun, hidden: Tensor, *parameters: Tensor) -> Tensor:
        ctx.run = run
        return run.forward(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden = ctx.run.backward(gradients[0])
        return None, hidden, *ctx.run.gradients()


@dataclass(frozen=True)
class _Tokens:
    """The input rows of a linear map. padded: rows of the dropout mask, with padding; places: each token's row in it, int32."""

    padded: int
    places: Tensor


@dataclass(frozen=True)
class _SavedLayer:
    """What the backward pass of a layer needs: the kernels' structure, and the tensors that it points to."""

    struct: kernels.LayerStruct
    tensors: list[Tensor | None]


class _FusedRun:
    """One micro-batch in the layers. States are (tokens, width), one text after another; text i starts at starts[i]."""

    def __init__(self, layers: Sequence[EncoderLayer], mask: Tensor, first_only: bool, *, to_hidden: bool) -> None:
        self.layers, self.first_only, self.to_hidden = layers, first_only, to_hidden
        call = kernels.load_kernels()
        assert call is not None
        self.call = call
        self.batch, self.time = mask.shape
        self.starts = torch.zeros(self.batch + 1, dtype=torch.int32)
        self.starts[1:] = mask.sum(dim=1).cumsum(0)
        self.index = mask.flatten().nonzero()[:, 0]
        self.tokens = _Tokens(self.batch * self.time, self.index.int())
        self.first_tokens = _Tokens(self.batch, torch.arange(self.batch, dtype=torch.int32))
        trained = (torch.is_grad_enabled() and any(a.a.requires_grad for a in _adapters(layer)) for layer in layers)
        self.lowest = 0 if to_hidden else next((i for i, trains in enumerate(trained) if trains), len(layers))
        self.saved: list[_SavedLayer] = []
        self.adapter_gradients: dict[Adapter, tuple[Tensor, Tensor]] = {}

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: (batch, time, width) → the same, zero on padding, or (batch, 1, width)."""
        x = hidden.flatten(0, 1).index_select(0, self.index)
        for index, layer in enumerate(self.layers):
            x = self._forward_layer(layer, x, self.first_only and layer is self.layers[-1], save=index >= self.lowest)
        return x[:, None] if self.first_only else self._pad(x)

    def backward(self, gradient: Tensor) -> Tensor | None:
        """Compute the gradients of the adapters, and return that of `hidden` if needed. Consumes what `forward` saved."""
        if len(self.saved) < len(self.layers) - self.lowest:
            raise RuntimeError("the kernels compute gradients of a forward pass only once")
        d = gradient.flatten(0, 1)
        d = d.contiguous() if self.first_only else d.index_select(0, self.index)
        tokens, width = len(self.index), d.shape[1]
        workspace = d.new_empty(tokens, 5 * width + len(self.layers[0].ffn_in.weight))
        for layer in reversed(self.layers[self.lowest :]):
            saved = self.saved.pop()
            self._allocate_gradients(layer, saved.struct)
            d_input = d.new_empty(tokens, width) if self.to_hidden or self.saved else None
            self.call("layer_backward", saved.struct, d, d_input, workspace)
            d = d if d_input is None else d_input
        return self._pad(d) if self.to_hidden else None

    def gradients(self) -> Iterator[Tensor | None]:
        """The gradients of A and B of every adapter, from the lowest layer up."""
        for layer in self.layers:
            for adapter in _adapters(layer):
                yield from self.adapter_gradients.get(adapter, (None, None))

    def _forward_layer(self, layer: EncoderLayer, x: Tensor, first_only: bool, save: bool) -> Tensor:
        """x: (tokens, width) → the layer's output. `save`: keep what the backward pass needs."""
        output_tokens = self.first_tokens if first_only else self.tokens
        (tokens, width), rows, ffn = x.shape, len(output_tokens.places), len(layer.ffn_in.weight)
        context, attended, inner, y = (x.new_empty(rows, columns) for columns in (width, width, ffn, width))
        qkv, logsums = x.new_empty(tokens, 3 * width), torch.empty(rows, layer.heads)
        normal, normal_out, slope = torch.empty_like(y), torch.empty_like(y), torch.empty_like(inner) if save else None
        kept = [qkv, logsums, normal, normal_out, slope, torch.empty(rows), torch.empty(rows)]
        norms = (layer.attention_norm, layer.ffn_norm)
        struct = kernels.LayerStruct(
            self._map(layer.qkv, x, self.tokens, kept),
            self._map(layer.output, context, output_tokens, kept),
            self._map(layer.ffn_in, attended, output_tokens, kept),
            self._map(layer.ffn_out, inner, output_tokens, kept),
            *(p.data_ptr() for norm in norms for p in (norm.weight, norm.bias)),
            *(norm.eps for norm in norms),
            *(layer.heads, self.batch, tokens, first_only),
            *(None if buffer is None else buffer.data_ptr() for buffer in (self.starts, *kept[:7], context, attended, inner)),
        )
        self.call("layer", struct, x, y)
        if save:
            self.saved.append(_SavedLayer(struct, kept))
        return y

    def _map(self, projection: Projection, x: Tensor, tokens: _Tokens, kept: list[Tensor | None]) -> kernels.MapStruct:
        """Describe a linear map to the kernels. The tensors that the backward pass of its adapters needs are appended to `kept`."""
        (outputs, inputs), roles = projection.weight.shape, projection.roles
        fixed = (projection.weight.data_ptr(), _panels.of(projection.weight).data_ptr(), projection.bias.data_ptr())
        if not projection.adapters or projection.merged:
            return kernels.MapStruct(*fixed, inputs, outputs, len(roles))
        adapters = [projection.adapter(role) if role in projection.adapters else None for role in roles]
        ranks = [0 if adapter is None else len(adapter.a) for adapter in adapters]
        total_rank = -(-sum(rank + rank % 2 for rank in ranks) // 16) * 16
        mask, keep, dropout = None, 1.0, projection.dropout
        if dropout is not None and dropout.p and dropout.training:
            mask, keep = dropout.mask(tokens.padded * inputs, x.dtype, x.device), 1 / (1 - dropout.p)
        pairs, low = torch.empty((inputs + outputs) * total_rank, dtype=torch.int32), x.new_empty(len(x), total_rank)
        kept += [pairs, low, mask, x]
        structs = [
            kernels.AdapterStruct()
            if adapter is None
            else kernels.AdapterStruct(adapter.a.data_ptr(), adapter.b.data_ptr(), None, None, rank, adapter.scale)
            for adapter, rank in zip(adapters, ranks, strict=True)
        ]
        buffers = [None if tensor is None else tensor.data_ptr() for tensor in (mask, tokens.places, pairs, low, x)]
        return kernels.MapStruct(*fixed, inputs, outputs, len(roles), total_rank, tuple(structs), keep, *buffers)

    def _allocate_gradients(self, layer: EncoderLayer, struct: kernels.LayerStruct) -> None:
        """Allocate the gradients of a layer's trained adapters, and point the structure to them."""
        maps = (struct.qkv, struct.output, struct.ffn_in, struct.ffn_out)
        for projection, map_struct in zip(layer.projections(), maps, strict=True):
            for role, adapter_struct in zip(projection.roles, map_struct.adapters, strict=False):
                if adapter_struct.rank and projection.adapter(role).a.requires_grad:
                    adapter = projection.adapter(role)
                    da, db = self.adapter_gradients[adapter] = torch.empty_like(adapter.a), torch.empty_like(adapter.b)
                    adapter_struct.da, adapter_struct.db = da.data_ptr(), db.data_ptr()

    def _pad(self, x: Tensor) -> Tensor:
        """(tokens, width) → (batch, time, width), zero on padding."""
        padded = x.new_zeros(self.batch * self.time, x.shape[1]).index_copy_(0, self.index, x)
        return padded.view(self.batch, self.time, -1)


def _to_panels(weight: Tensor) -> Tensor:
    """(outputs, inputs) → (outputs / 64, inputs / 2, 64) pairs, int32."""
    outputs, inputs = weight.shape
    return weight.view(torch.int32).view(outputs // TILE, TILE, inputs // 2).transpose(1, 2).contiguous()


_panels = PackedWeight(_to_panels)
