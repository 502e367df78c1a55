"""The encoder's layers through kernels.c, forward and backward written out: texts lie end to end, without padding.

What `Layer.forward` computes, up to rounding in bf16 and with the same dropout masks, on a processor, where the encoder is frozen
and only adapters are trained. Biases, adapters, GELU and residuals are parts of the products. For the way back a layer keeps Q, K
and V, GELU's derivative, what its norms found, and the inputs of the maps that have adapters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from ctypes import c_int
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loralab.model import products
from loralab.model.dropout import real_tokens
from loralab.model.kernels import Adapters, Kernels, address, kernels

if TYPE_CHECKING:
    from loralab.model.lora import Adapter, Projection
    from loralab.model.network import Layer, Network, Norm

TILE = 64
"""Columns that the kernels compute at once: widths are multiples of it."""


def fits(network: Network, hidden: Tensor, mask: Tensor) -> bool:
    """True where `encode` may stand in for the network's layers on these texts."""
    at_hand = hidden.dtype == torch.bfloat16 and hidden.device.type == "cpu" and not torch.compiler.is_compiling()
    return at_hand and suits(network) and bool(mask.any(dim=1).all())


def suits(network: Network) -> bool:
    """True where the network is one that the kernels compute: frozen in bf16, with GELU and widths that are multiples of tiles."""
    dims = network.dims
    if kernels() is None or network.compute_dtype != torch.bfloat16:
        return False
    layers = [network.layer(index) for index in range(dims.layers)]
    maps = [p for layer in layers for projection in layer.projections() for p in (projection.weight, projection.bias)]
    norms = [p for layer in layers for norm in (layer.attention_norm, layer.ffn_norm) for p in (norm.weight, norm.bias)]
    return (
        dims.activation == "gelu"
        and dims.width % TILE == 0
        and dims.ffn_width % TILE == 0
        and dims.width // dims.heads % 16 == 0
        and not network.gradient_checkpointing
        and all(p.dtype == torch.float32 for p in norms)
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
    """Tokens that pass a map: of which rectangle (batch, time), for which dropout draws, and each one's row in its mask, int32."""

    batch: int
    time: int
    places: Tensor


@dataclass(frozen=True)
class _Adapted:
    """The adapters of a map in a pass.

    struct: as the kernels read them, on `tensors`; columns: those of the rank that each role has; keep: dropout's scale; x: the
    map's input; low: its low-rank product, which the kernel `linear` fills in.
    """

    struct: Adapters
    tensors: tuple[Tensor | None, ...]
    columns: dict[str, slice]
    keep: float
    x: Tensor
    low: Tensor


class _Pass:
    """A pass on its way through the layers. Tokens' states are (tokens, width), text after text; text i begins at starts[i]."""

    def __init__(self, layers: list[Layer], mask: Tensor, first_only: bool, *, to_hidden: bool) -> None:
        self.layers, self.first_only, self.to_hidden = layers, first_only, to_hidden
        call = kernels()
        assert call is not None
        self.call: Kernels = call
        self.batch, self.time = mask.shape
        self.starts = torch.zeros(self.batch + 1, dtype=torch.int32)
        self.starts[1:] = mask.sum(dim=1).cumsum(0)
        self.index = mask.flatten().nonzero()[:, 0]
        places = self.index // self.time * real_tokens(self.time) + self.index % self.time
        self.tokens = _Tokens(self.batch, self.time, places.int())
        self.firsts = _Tokens(self.batch, 1, torch.arange(self.batch, dtype=torch.int32))
        trained = (torch.is_grad_enabled() and any(a.a.requires_grad for a in _adapters(layer)) for layer in layers)
        self.lowest = 0 if to_hidden else next((i for i, yes in enumerate(trained) if yes), len(layers))
        self.kept: list[tuple[Any, ...]] = []
        self.found: dict[Adapter, tuple[Tensor, Tensor]] = {}

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: (batch, time, width) → the same, zero on padding, or (batch, 1, width)."""
        x = hidden.flatten(0, 1).index_select(0, self.index)
        for index, layer in enumerate(self.layers):
            first_only = self.first_only and layer is self.layers[-1]
            x = self._layer(layer, x, first_only, keep=index >= self.lowest)
        return x[:, None] if self.first_only else self._spread(x)

    def backward(self, gradient: Tensor) -> Tensor | None:
        """The gradient of `forward` to hidden, where that is wanted; those of the adapters are found on the way. Once: it uses up
        what was kept.
        """
        if len(self.kept) < len(self.layers) - self.lowest:
            raise RuntimeError("a pass through the kernels goes back once only")
        d = gradient.flatten(0, 1)
        d = d.contiguous() if self.first_only else d.index_select(0, self.index)
        for layer in reversed(self.layers[self.lowest :]):
            d = self._layer_backward(layer, d)
        return self._spread(d) if self.to_hidden else None

    def gradients(self) -> Iterator[Tensor | None]:
        """Of A and B of every adapter, from the bottom up."""
        for layer in self.layers:
            for adapter in _adapters(layer):
                yield from self.found.get(adapter, (None, None))

    def _layer(self, layer: Layer, x: Tensor, first_only: bool, keep: bool) -> Tensor:
        width, heads = x.shape[1], layer.heads
        tokens = self.firsts if first_only else self.tokens
        qkv, _, adapted_qkv = self._linear(layer.qkv, x, self.tokens)
        context, logsums = x.new_empty(len(tokens.places), width), torch.empty(len(tokens.places), heads)
        shape = (self.starts, self.batch, heads, width // heads, math.sqrt(heads / width), int(first_only))
        self.call("attention", qkv, *shape, context, logsums)
        residual = x.index_select(0, self.starts[:-1]) if first_only else x
        normal, _, adapted_output = self._linear(layer.output, context, tokens)
        attended, deviation = self._add_norm(layer.attention_norm, normal, residual)
        inner, slope, adapted_in = self._linear(layer.ffn_in, attended, tokens, gelu=True, keep=keep)
        normal_out, _, adapted_out = self._linear(layer.ffn_out, inner, tokens)
        leaving, deviation_out = self._add_norm(layer.ffn_norm, normal_out, attended)
        if keep:
            adapted = adapted_qkv, adapted_output, adapted_in, adapted_out
            self.kept.append((shape, qkv, logsums, normal, deviation, slope, normal_out, deviation_out, adapted))
        return leaving

    def _layer_backward(self, layer: Layer, d: Tensor) -> Tensor:
        """From the gradient to what left the layer, the gradient to what entered it; empty where nothing below it is trained."""
        shape, qkv, logsums, normal, deviation, slope, normal_out, deviation_out, adapted = self.kept.pop()
        adapted_qkv, adapted_output, adapted_in, adapted_out = adapted
        d_sum = self._add_norm_backward(layer.ffn_norm, d, normal_out, deviation_out)
        d_inner = self._linear_backward(layer.ffn_out, d_sum, adapted_out, slope=slope)
        d_attended = self._linear_backward(layer.ffn_in, d_inner, adapted_in, more=d_sum)
        d_sum = self._add_norm_backward(layer.attention_norm, d_attended, normal, deviation)
        d_context = self._linear_backward(layer.output, d_sum, adapted_output)
        d_qkv = torch.empty_like(qkv)
        self.call("attention_backward", qkv, *shape, logsums, d_context, d_qkv)
        wanted, first_only = self.to_hidden or bool(self.kept), bool(shape[-1])
        d_x = self._linear_backward(layer.qkv, d_qkv, adapted_qkv, more=None if first_only else d_sum, wanted=wanted)
        return d_x.index_add_(0, self.starts[:-1], d_sum) if first_only and wanted else d_x

    def _linear(
        self, projection: Projection, x: Tensor, tokens: _Tokens, *, gelu: bool = False, keep: bool = False
    ) -> tuple[Tensor, Tensor | None, _Adapted | None]:
        """Return `Projection.forward` of x, GELU's derivative where it is to be kept, and the adapters."""
        rows, inputs = x.shape
        weight, bias = projection.weight, projection.bias
        outputs = len(weight)
        slope = x.new_empty(rows, outputs) if gelu and keep else None
        adapted = self._adapted(projection, x, tokens) if projection.adapters and not projection.merged else None
        struct, low = (None, None) if adapted is None else (adapted.struct, adapted.low)
        if _own_products():
            panels, y = _panels.of(weight), x.new_empty(rows, outputs)
        else:
            panels, y = None, products.forward(x, weight, bias)
        if panels is not None or adapted is not None or gelu:
            self.call("linear", x, rows, inputs, panels, bias, struct, low, y, slope, outputs, int(gelu))
        return y, slope, adapted

    def _adapted(self, projection: Projection, x: Tensor, tokens: _Tokens) -> _Adapted:
        """A map's adapters as pairs, with the pass's dropout mask.

        Made in every pass, and not kept: the steps of a fused optimiser are not counted as new versions of a weight.
        """
        (outputs, inputs), blocks = projection.weight.shape, len(projection.roles)
        mask, keep, dropout = None, 1.0, projection.dropout
        if dropout is not None and dropout.p and dropout.training:
            mask, keep = dropout.mask(tokens.batch, tokens.time, inputs, x.dtype, x.device), 1 / (1 - dropout.p)
        columns, first = {}, [0]
        for role in projection.roles:
            rank = len(projection.adapter(role).a) if role in projection.adapters else 0
            columns[role] = slice(first[-1], first[-1] + rank)
            first.append(first[-1] + rank + rank % 2)
        rank = -(-first[-1] // 16) * 16
        a, b = torch.zeros(rank, inputs), torch.zeros(outputs, rank)
        with torch.no_grad():
            for role in projection.adapters:
                adapter = projection.adapter(role)
                torch.mul(adapter.a, keep, out=a[columns[role]])
                torch.mul(adapter.b, adapter.scale, out=b[projection.rows(role), columns[role]])
        thin, down = torch.empty(inputs // 2, rank, dtype=torch.int32), torch.empty(rank // 2, inputs, dtype=torch.int32)
        up, wide = torch.empty(rank // 2, outputs, dtype=torch.int32), torch.empty(outputs // 2, rank, dtype=torch.int32)
        self.call("adapter_pairs", a, b, rank, inputs, outputs, thin, up, wide, down)
        tensors = thin, up, wide, down, mask, tokens.places
        struct = Adapters(rank, blocks, (c_int * 4)(*first), *(None if t is None else address(t) for t in tensors))
        return _Adapted(struct, tensors, columns, keep, x, x.new_empty(len(x), rank))

    def _linear_backward(
        self,
        projection: Projection,
        d: Tensor,
        adapted: _Adapted | None,
        *,
        slope: Tensor | None = None,
        more: Tensor | None = None,
        wanted: bool = True,
    ) -> Tensor:
        """From the gradient d to a map's output return the one to its input: plus `more`, times the slope; empty if unwanted."""
        (rows, outputs), weight = d.shape, projection.weight
        inputs = weight.shape[1]
        struct = x = low = back = d_a = d_b = None
        if adapted is not None:
            struct, x, low, rank = adapted.struct, adapted.x, adapted.low, adapted.struct.rank
            back, d_a, d_b = torch.empty_like(low), torch.empty(rank, inputs), torch.empty(rank, projection.outputs)
        own = _own_products()
        d_x = products.backward(d, weight) if wanted and not own else d.new_empty(rows if wanted else 0, inputs)
        if own or adapted is not None or slope is not None or more is not None:
            given = (weight if own else None, struct, x, low, back, d_a, d_b, slope, more, d_x if wanted else None)
            self.call("linear_backward", d, rows, outputs, *given, inputs)
        if adapted is not None and d_a is not None and d_b is not None:
            for role in projection.adapters:
                adapter, columns = projection.adapter(role), adapted.columns[role]
                # Laid out as the weights are: a fused optimiser takes both for flat.
                self.found[adapter] = d_a[columns] * adapted.keep, d_b[columns].t().contiguous() * adapter.scale
        return d_x

    def _add_norm(self, norm: Norm, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Return norm(x + residual), and 1 / its deviations; x becomes what is normalised."""
        y, deviations = torch.empty_like(x), torch.empty(len(x))
        self.call("add_norm", x, residual, norm.weight, norm.bias, norm.eps, *x.shape, y, deviations)
        return y, deviations

    def _add_norm_backward(self, norm: Norm, d: Tensor, normal: Tensor, deviations: Tensor) -> Tensor:
        """The gradient to the sum, in the place of what was normalised."""
        self.call("add_norm_backward", d, normal, norm.weight, deviations, *normal.shape)
        return normal

    def _spread(self, x: Tensor) -> Tensor:
        """(tokens, width) → (batch, time, width), zero on padding."""
        spread = x.new_zeros(self.batch * self.time, x.shape[1]).index_copy_(0, self.index, x)
        return spread.view(self.batch, self.time, -1)


@lru_cache(maxsize=1)
def _own_products() -> bool:
    """True where the kernels' products are the fastest: AMX, which oneDNN uses, multiplies several times as fast."""
    return not torch.cpu._is_amx_tile_supported()


def _to_panels(weight: Tensor) -> Tensor:
    """(outputs, inputs) → (outputs / 64, inputs / 2, 64) pairs, int32."""
    outputs, inputs = weight.shape
    return weight.view(torch.int32).view(outputs // TILE, TILE, inputs // 2).transpose(1, 2).contiguous()


_panels = products.Derived(_to_panels)
