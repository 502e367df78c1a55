"""The encoder's layers through kernels in C, forward and backward written out: texts lie end to end, without padding.

What `Layer.forward` computes, up to rounding in bf16 and with the same dropout masks, on a processor, where the encoder is frozen
and only adapters are trained. Biases, adapters, GELU and residuals are parts of the products. For the way back a layer keeps Q, K
and V, GELU's derivative, what its norms found, and the inputs of the maps that have adapters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loralab.model import kernels
from loralab.model.packed_linear import PackedWeight

if TYPE_CHECKING:
    from loralab.model.encoder import EncoderClassifier, Layer
    from loralab.model.lora import Adapter, Projection

TILE = 64
"""Columns that the kernels compute at once: widths are multiples of it."""


def fits(network: EncoderClassifier, hidden: Tensor, mask: Tensor) -> bool:
    """True where `encode` may stand in for the network's layers on these texts."""
    at_hand = hidden.dtype == torch.bfloat16 and hidden.device.type == "cpu" and not torch.compiler.is_compiling()
    return at_hand and suits(network) and bool(mask.any(dim=1).all())


def suits(network: EncoderClassifier) -> bool:
    """True where the network is one that the kernels compute: frozen in bf16, with GELU and widths that are multiples of tiles."""
    dims = network.dims
    shaped = dims.width % TILE == 0 and dims.ffn_width % TILE == 0 and dims.width // dims.heads % 16 == 0
    if network.compute_dtype != torch.bfloat16 or not shaped or dims.activation != "gelu" or kernels.find() is None:
        return False  # they are looked for last: to find them may be to compile them
    layers = [network.layer(index) for index in range(dims.layers)]
    maps = [p for layer in layers for projection in layer.projections() for p in (projection.weight, projection.bias)]
    norms = [p for layer in layers for norm in (layer.attention_norm, layer.ffn_norm) for p in (norm.weight, norm.bias)]
    adapted = [p for layer in layers for adapter in _adapters(layer) for p in (adapter.a, adapter.b)]
    return (
        not network.gradient_checkpointing
        and all(p.dtype == torch.float32 and p.is_contiguous() for p in (*norms, *adapted))
        and all(p.dtype == torch.bfloat16 and not p.is_inference() for p in maps)
        and not (torch.is_grad_enabled() and any(p.requires_grad for p in (*maps, *norms)))
    )


def encode(layers: list[Layer], hidden: Tensor, mask: Tensor, first_only: bool) -> Tensor:
    """Run layers on hidden (batch, time, width) of texts whose tokens mask (batch, time) marks; return the same, zero elsewhere.

    first_only: what leaves the last layer is each text's first token alone, (batch, 1, width).
    """
    run = _Pass(layers, mask, first_only, to_hidden=torch.is_grad_enabled() and hidden.requires_grad)
    parameters = [p for layer in layers for adapter in _adapters(layer) for p in (adapter.a, adapter.b)]
    encoded: Tensor = _Encode.apply(run, hidden, *parameters)  # type: ignore[no-untyped-call]
    return encoded


def _adapters(layer: Layer) -> Iterator[Adapter]:
    for projection in layer.projections():
        if not projection.merged:
            yield from (projection.adapter(role) for role in projection.roles if role in projection.adapters)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: _Pass, hidden: Tensor, *parameters: Tensor) -> Tensor:
        ctx.run = run
        return run.forward(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden = ctx.run.backward(gradients[0])
        return None, hidden, *ctx.run.gradients()


@dataclass(frozen=True)
class _Tokens:
    """Tokens that enter a linear map. padded: rows of their dropout mask, padding included; places: each token's row in it, int32."""

    padded: int
    places: Tensor


@dataclass(frozen=True)
class _Kept:
    """A layer's step for the way back, as the kernels know it, and the tensors that it points to."""

    step: kernels.Layer
    tensors: list[Tensor | None]


class _Pass:
    """A pass on its way through the layers. Tokens' states are (tokens, width), text after text; text i begins at starts[i]."""

    def __init__(self, layers: list[Layer], mask: Tensor, first_only: bool, *, to_hidden: bool) -> None:
        self.layers, self.first_only, self.to_hidden = layers, first_only, to_hidden
        call = kernels.find()
        assert call is not None
        self.call = call
        self.batch, self.time = mask.shape
        self.starts = torch.zeros(self.batch + 1, dtype=torch.int32)
        self.starts[1:] = mask.sum(dim=1).cumsum(0)
        self.index = mask.flatten().nonzero()[:, 0]
        self.tokens = _Tokens(self.batch * self.time, self.index.int())
        self.firsts = _Tokens(self.batch, torch.arange(self.batch, dtype=torch.int32))
        trained = (torch.is_grad_enabled() and any(a.a.requires_grad for a in _adapters(layer)) for layer in layers)
        self.lowest = 0 if to_hidden else next((i for i, yes in enumerate(trained) if yes), len(layers))
        self.kept: list[_Kept] = []
        self.found: dict[Adapter, tuple[Tensor, Tensor]] = {}

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: (batch, time, width) → the same, zero on padding, or (batch, 1, width)."""
        x = hidden.flatten(0, 1).index_select(0, self.index)
        for index, layer in enumerate(self.layers):
            x = self._layer(layer, x, self.first_only and layer is self.layers[-1], keep=index >= self.lowest)
        return x[:, None] if self.first_only else self._spread(x)

    def backward(self, gradient: Tensor) -> Tensor | None:
        """The gradient of `forward` to hidden, where that is wanted; those of the adapters are found on the way. Once: it uses up
        what was kept.
        """
        if len(self.kept) < len(self.layers) - self.lowest:
            raise RuntimeError("a pass through the kernels goes back once only")
        d = gradient.flatten(0, 1)
        d = d.contiguous() if self.first_only else d.index_select(0, self.index)
        tokens, width = len(self.index), d.shape[1]
        room = d.new_empty(tokens, 5 * width + len(self.layers[0].ffn_in.weight))
        for layer in reversed(self.layers[self.lowest :]):
            kept = self.kept.pop()
            self._ask_for_gradients(layer, kept.step)
            entering = d.new_empty(tokens, width) if self.to_hidden or self.kept else None
            self.call("layer_backward", kept.step, d, entering, room)
            d = d if entering is None else entering
        return self._spread(d) if self.to_hidden else None

    def gradients(self) -> Iterator[Tensor | None]:
        """Of A and B of every adapter, from the bottom up."""
        for layer in self.layers:
            for adapter in _adapters(layer):
                yield from self.found.get(adapter, (None, None))

    def _layer(self, layer: Layer, x: Tensor, first_only: bool, keep: bool) -> Tensor:
        """Return what leaves a layer of x (tokens, width); `keep`: it will go back."""
        at = self.firsts if first_only else self.tokens
        (tokens, width), rows, ffn = x.shape, len(at.places), len(layer.ffn_in.weight)
        context, attended, inner, leaving = (x.new_empty(rows, columns) for columns in (width, width, ffn, width))
        qkv, logsums = x.new_empty(tokens, 3 * width), torch.empty(rows, layer.heads)
        normal, normal_out, slope = torch.empty_like(leaving), torch.empty_like(leaving), torch.empty_like(inner) if keep else None
        kept = [qkv, logsums, normal, normal_out, slope, torch.empty(rows), torch.empty(rows)]
        norms = (layer.attention_norm, layer.ffn_norm)
        step = kernels.Layer(
            self._map(layer.qkv, x, self.tokens, kept),
            self._map(layer.output, context, at, kept),
            self._map(layer.ffn_in, attended, at, kept),
            self._map(layer.ffn_out, inner, at, kept),
            *(p.data_ptr() for norm in norms for p in (norm.weight, norm.bias)),
            *(norm.eps for norm in norms),
            *(layer.heads, self.batch, tokens, first_only),
            *(None if room is None else room.data_ptr() for room in (self.starts, *kept[:7], context, attended, inner)),
        )
        self.call("layer", step, x, leaving)
        if keep:
            self.kept.append(_Kept(step, kept))
        return leaving

    def _map(self, projection: Projection, x: Tensor, tokens: _Tokens, kept: list[Tensor | None]) -> kernels.Map:
        """A linear map as this pass finds it; to what is kept is added what its adapters need on the way back."""
        (outputs, inputs), roles = projection.weight.shape, projection.roles
        fixed = (projection.weight.data_ptr(), _panels.of(projection.weight).data_ptr(), projection.bias.data_ptr())
        if not projection.adapters or projection.merged:
            return kernels.Map(*fixed, inputs, outputs, len(roles))
        adapters = [projection.adapter(role) if role in projection.adapters else None for role in roles]
        ranks = [0 if adapter is None else len(adapter.a) for adapter in adapters]
        rank = -(-sum(each + each % 2 for each in ranks) // 16) * 16
        mask, keep, dropout = None, 1.0, projection.dropout
        if dropout is not None and dropout.p and dropout.training:
            mask, keep = dropout.mask(tokens.padded * inputs, x.dtype, x.device), 1 / (1 - dropout.p)
        pairs, low = torch.empty((inputs + outputs) * rank, dtype=torch.int32), x.new_empty(len(x), rank)
        kept += [pairs, low, mask, x]
        structs = [
            kernels.Adapter()
            if adapter is None
            else kernels.Adapter(adapter.a.data_ptr(), adapter.b.data_ptr(), None, None, each, adapter.scale)
            for adapter, each in zip(adapters, ranks, strict=True)
        ]
        room = [None if each is None else each.data_ptr() for each in (mask, tokens.places, pairs, low, x)]
        return kernels.Map(*fixed, inputs, outputs, len(roles), rank, tuple(structs), keep, *room)

    def _ask_for_gradients(self, layer: Layer, step: kernels.Layer) -> None:
        """Make room for those of a layer's adapters."""
        for projection, its in zip(layer.projections(), (step.qkv, step.output, step.ffn_in, step.ffn_out), strict=True):
            for role, struct in zip(projection.roles, its.adapters, strict=False):
                if struct.rank and projection.adapter(role).a.requires_grad:
                    adapter = projection.adapter(role)
                    found = self.found[adapter] = torch.empty_like(adapter.a), torch.empty_like(adapter.b)
                    struct.da, struct.db = (gradient.data_ptr() for gradient in found)

    def _spread(self, x: Tensor) -> Tensor:
        """(tokens, width) → (batch, time, width), zero on padding."""
        spread = x.new_zeros(self.batch * self.time, x.shape[1]).index_copy_(0, self.index, x)
        return spread.view(self.batch, self.time, -1)


def _to_panels(weight: Tensor) -> Tensor:
    """(outputs, inputs) → (outputs / 64, inputs / 2, 64) pairs, int32."""
    outputs, inputs = weight.shape
    return weight.view(torch.int32).view(outputs // TILE, TILE, inputs // 2).transpose(1, 2).contiguous()


_panels = PackedWeight(_to_panels)
