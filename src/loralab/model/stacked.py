"""Several networks of one encoder in one pass: what is frozen runs over the tokens of all, what is trained over each one's own.

Runs that differ in their seed share everything but adapters and heads. A pass holds one rectangle of texts for each; every frozen
product, norm and activation is computed once over all their tokens, which lie end to end. Each run's dropout masks, low-rank
products, attention and head are what they are when it is alone, so a run neither sees the others nor differs from itself alone by
more than rounding (after ASPEN, Ye et al. 2023, which trains many adapters over one base).

On a processor a run's texts keep their own width. On a GPU all are padded to one rectangle, because there a pass of few texts takes
as long as its number of operations: attention and low-rank products are then one batched operation for all runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loralab.errors import LoralabError
from loralab.model import products
from loralab.model.dropout import Turn
from loralab.model.lora import Adapter, Projection
from loralab.model.network import Layer, Network, attention_bias


@dataclass(frozen=True)
class Texts:
    """One run's part of a pass: inputs and mask as `Network.forward` takes them, and where its dropout masks come from."""

    network: Network
    inputs: Tensor
    mask: Tensor
    turn: Turn


def share_encoder(first: nn.Module, other: nn.Module) -> None:
    """Give `other` the frozen parameters of `first` for its own. Raises LoralabError where they cannot share a pass."""
    for network in (first, other):
        if not isinstance(network, Network) or network.gradient_checkpointing:
            what = "its activations are computed twice" if isinstance(network, Network) else "it runs through Transformers"
            raise LoralabError(f"this network cannot train together with others ({what}): run the trials one by one")
        if any(p.requires_grad and ".adapters." not in name for name, p in _encoder(network).items()):
            raise LoralabError("networks train together where the encoder is frozen: use tuning=lora or tuning=head")
    assert isinstance(first, Network)
    assert isinstance(other, Network)
    mine, theirs = _encoder(first), _encoder(other)
    shape = [
        (n.dims, n.pooling, n.compute_dtype, [(s, p.shape) for s, p in _encoder(n).items()], _scales(n)) for n in (first, other)
    ]
    frozen = [name for name in mine if name in theirs and not mine[name].requires_grad]
    pairs = [(mine[name], theirs[name]) for name in frozen]
    if shape[0] != shape[1] or not all(
        ours is its or ours.data_ptr() == its.data_ptr() or torch.equal(ours, its) for ours, its in pairs
    ):
        raise LoralabError(
            "networks train together where encoder, pooling, precision, adapters' places, rank and alpha are the same"
        )
    for name in frozen:
        owner, _, leaf = name.rpartition(".")
        setattr(other.get_submodule(owner), leaf, mine[name])


def logits_together(runs: Sequence[Texts], start: int | None = None, *, rectangle: bool) -> list[Tensor]:
    """Return each run's logits (batch, classes) fp32. Their networks must share their encoder (`share_encoder`).

    start: the inputs are hidden states that have passed the layers below it; rectangle: pad all runs' texts to one shape.
    """
    return _Pass(runs, rectangle).logits(start)


class _Pass:
    """A pass under way. Hidden states are (tokens, width), run after run; run k's are a rectangle of (rows, time) = `laid[k]`."""

    def __init__(self, runs: Sequence[Texts], rectangle: bool) -> None:
        self.runs, self.first, self.rectangle = runs, runs[0].network, rectangle
        self.real = [(run.mask.shape[0], run.mask.shape[1]) for run in runs]
        most = max(rows for rows, _ in self.real), max(time for _, time in self.real)
        self.laid = [most] * len(runs) if rectangle else list(self.real)

    def logits(self, start: int | None) -> list[Tensor]:
        network, dims = self.first, self.first.dims
        inputs = self._blocks([_padded(run.inputs, *laid) for run, laid in zip(self.runs, self.laid, strict=True)])
        masks = self._blocks([_padded(run.mask, *laid) for run, laid in zip(self.runs, self.laid, strict=True)])
        dtype = network.compute_dtype
        blocks = inputs if start is not None else [network.embeddings(tokens, dtype) for tokens in inputs]
        hidden = torch.cat([block.flatten(0, 1) for block in blocks])
        biases = [attention_bias(mask, hidden.dtype) for mask in masks]
        for index in range(start or 0, dims.layers):
            only_first = network.pooling == "cls" and index == dims.layers - 1
            hidden = self._layer([run.network.layer(index) for run in self.runs], hidden, biases, 1 if only_first else None)
        found = []
        for run, part, laid, (rows, time) in zip(self.runs, torch.split(hidden, self._sizes()), self.laid, self.real, strict=True):
            with run.turn:
                found.append(run.network.classify(part.view(*laid, -1)[:rows, :time], run.mask))
        return found

    def _layer(self, layers: Sequence[Layer], hidden: Tensor, biases: Sequence[Tensor], rows: int | None) -> Tensor:
        """`Layer.forward` of every run."""
        first = layers[0]
        qkv = self._project([layer.qkv for layer in layers], hidden)
        context = [first.attend(part, bias, rows).flatten(0, 1) for part, bias in zip(self._rectangles(qkv), biases, strict=True)]
        if rows is not None:
            hidden = torch.cat([part[:, :rows].flatten(0, 1) for part in self._rectangles(hidden)])
            self.real, self.laid = ([(texts, rows) for texts, _ in shapes] for shapes in (self.real, self.laid))
        attended = first.attention_norm(self._project([layer.output for layer in layers], torch.cat(context)) + hidden)
        inner = products.activate(self._project([layer.ffn_in for layer in layers], attended), first.activation)
        transformed: Tensor = first.ffn_norm(self._project([layer.ffn_out for layer in layers], inner) + attended)
        return transformed

    def _project(self, projections: Sequence[Projection], x: Tensor) -> Tensor:
        """`Projection.forward` of every run: (tokens, inputs) → (tokens, outputs)."""
        first = projections[0]
        if not first.adapters:
            projected: Tensor = first(x)
            return projected
        dropped = self._drop(projections, x) if any(p.dropout is not None for p in projections) else None
        a, b = _pairs(projections, x.dtype)
        inputs = (x, dropped, first.weight.to(x.dtype), first.bias.to(x.dtype), a, b, self._sizes())
        y: Tensor = _LoraLinears.apply(*inputs)  # type: ignore[no-untyped-call]
        return y

    def _drop(self, projections: Sequence[Projection], x: Tensor) -> Tensor:
        """Each run's dropout on its real rectangle, so that its masks are those that it draws alone."""
        parts = []
        for run, projection, part, laid, (rows, time) in zip(
            self.runs, projections, torch.split(x, self._sizes()), self.laid, self.real, strict=True
        ):
            real = part.view(*laid, -1)[:rows, :time]
            with run.turn:
                parts.append(_padded(real if projection.dropout is None else projection.dropout(real), *laid).flatten(0, 1))
        return torch.cat(parts)

    def _sizes(self) -> list[int]:
        return [rows * time for rows, time in self.laid]

    def _blocks(self, rectangles: list[Tensor]) -> list[Tensor]:
        """One rectangle of all runs' texts, or one each."""
        return [torch.cat(rectangles)] if self.rectangle else rectangles

    def _rectangles(self, flat: Tensor) -> list[Tensor]:
        """(tokens, width) → the blocks (rows, time, width)."""
        if self.rectangle:
            return [flat.view(-1, self.laid[0][1], flat.shape[-1])]
        return [part.view(*laid, -1) for part, laid in zip(torch.split(flat, self._sizes()), self.laid, strict=True)]


def _padded(rectangle: Tensor, rows: int, time: int) -> Tensor:
    """(rows, time, ...) with zeros after it. In a mask a row of nothing but zeros is harmless: attention spreads evenly over it."""
    below, after = rows - rectangle.shape[0], time - rectangle.shape[1]
    if not below and not after:
        return rectangle
    return F.pad(rectangle, (*(0, 0) * (rectangle.ndim - 2), 0, after, 0, below))


def _pairs(projections: Sequence[Projection], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`Projection._stacked` of K runs: a (K, R, inputs), b (K, all outputs, R), block by block, the scale folded into b."""
    first = projections[0]
    present = [[p.adapter(role) for p in projections] for role in first.roles if role in first.adapters]
    a = torch.cat([torch.stack([adapter.a for adapter in each]) for each in present], dim=1)
    blocks, done, rank = [], 0, len(present[0][0].a)
    for role in first.roles:
        if role in first.adapters:
            each = [p.adapter(role) for p in projections]
            b = torch.stack([adapter.b for adapter in each]) * each[0].scale
            blocks.append(F.pad(b, (done, a.shape[1] - done - rank)))
            done += rank
        else:
            blocks.append(a.new_zeros(len(projections), first.outputs, a.shape[1]))
    return a.to(dtype), torch.cat(blocks, dim=1).to(dtype)


class _LoraLinears(torch.autograd.Function):
    """`lora._LoraLinear` of K runs, whose tokens lie end to end: sizes[k] of them are run k's, with a[k] and b[k] their pair."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropped: Tensor | None, weight: Tensor, bias: Tensor, a: Tensor, b: Tensor, sizes: list[int]
    ) -> Tensor:
        source = x if dropped is None else dropped
        y = products.forward(x, weight, bias)
        low = x.new_empty(len(x), a.shape[1])
        for given, thin, wide, down, up in zip(*_each(sizes, source, low, y), *_matrices(sizes, a, b), strict=True):
            torch.matmul(given, down.mT, out=thin)
            _add(wide, thin, up.mT)
        ctx.save_for_backward(source, low, weight, a, b)
        ctx.separate, ctx.sizes = dropped is not None, sizes
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        source, low, weight, a, b = ctx.saved_tensors
        gradient, sizes = gradients[0].contiguous(), ctx.sizes
        gradient_low = torch.empty_like(low)
        gradient_a, gradient_b = torch.empty_like(a), torch.empty_like(b)
        gradient_x = products.backward(gradient, weight) if ctx.needs_input_grad[0] else None
        gradient_dropped = None
        if ctx.separate and ctx.needs_input_grad[1]:
            gradient_dropped = torch.zeros_like(source)
        into = gradient_dropped if ctx.separate else gradient_x
        tokens = _each(sizes, gradient, gradient_low, low, source, source if into is None else into)
        matrices = _matrices(sizes, a, b, gradient_a, gradient_b)
        for given, thin_back, thin, x, back, down, up, down_back, up_back in zip(*tokens, *matrices, strict=True):
            torch.matmul(given, up, out=thin_back)
            torch.matmul(thin_back.mT, x, out=down_back)
            torch.matmul(given.mT, thin, out=up_back)
            if into is not None:
                _add(back, thin_back, down)
        return gradient_x, gradient_dropped, None, None, gradient_a, gradient_b, None


def _each(sizes: list[int], *tensors: Tensor) -> list[Sequence[Tensor]]:
    """Views of (tokens, n) tensors: one of all runs (K, tokens of each, n) where they have as many, else one of each."""
    if len(set(sizes)) == 1:
        return [[tensor.view(len(sizes), sizes[0], -1)] for tensor in tensors]
    return [torch.split(tensor, sizes) for tensor in tensors]


def _matrices(sizes: list[int], *stacks: Tensor) -> list[Sequence[Tensor]]:
    """The matrices that go with `_each`: the stack (K, ...) itself, or its K."""
    return [[stack] if len(set(sizes)) == 1 else stack.unbind() for stack in stacks]


def _add(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Total += left @ right, of matrices or batches of them."""
    if total.ndim == 2:
        total.addmm_(left, right)
    else:
        total.baddbmm_(left, right)


def _encoder(network: Network) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in network.named_parameters() if not name.startswith("head.")}


def _scales(network: Network) -> list[float]:
    return [module.scale for module in network.modules() if isinstance(module, Adapter)]
