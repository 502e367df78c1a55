"""Low-rank adapters on the network's linear maps: attach, merge, unmerge.

Hu et al. 2021 (LoRA): y = Wx + s·BAx with A drawn, B zero, s = alpha / rank; Kalajdzievski 2023 (rsLoRA): s = alpha / √rank;
Hayou et al. 2024 (LoRA+): B learns faster than A, which is the optimiser's affair; Meng et al. 2024 (PiSSA): A and B begin as the
principal part of W, and what is left of W is frozen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from loralab.errors import LoralabError
from loralab.model import packed_linear
from loralab.model.architectures import parse_frozen, parse_layers, resolve_targets
from loralab.model.dropout import Dropout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loralab.model.encoder import EncoderClassifier


class Adapter(nn.Module):
    """The pair of one linear map. a: (rank, inputs); b: (outputs, rank), both fp32; `scale` multiplies their product."""

    def __init__(self, outputs: int, inputs: int, rank: int, scale: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        self.scale = scale
        self.principal: tuple[Tensor, Tensor] | None = None  # where PiSSA began: W is what was given less their product

    def delta(self) -> Tensor:
        """The update of the weight: (outputs, inputs) fp32."""
        return self.scale * (self.b @ self.a)

    def take_principal(self, weight: Tensor) -> None:
        """Begin as the `rank` largest singular directions of `weight` (outputs, inputs), and take them out of it."""
        left, values, right = torch.linalg.svd(weight.detach().float(), full_matrices=False)
        rank = len(self.a)
        root = (values[:rank] / self.scale).sqrt()
        with torch.no_grad():
            self.a.copy_(root[:, None] * right[:rank])
            self.b.copy_(left[:, :rank] * root)
            self.principal = self.a.clone(), self.b.clone()
            weight -= self.delta()

    def pair(self) -> tuple[Tensor, Tensor]:
        """A and B of the update to the pretrained weight. PiSSA's has twice the rank: what it is now less what it was at first."""
        if self.principal is None:
            return self.a, self.b
        a, b = (tensor.to(self.a.device) for tensor in self.principal)
        return torch.cat([self.a, a]), torch.cat([self.b, -b], dim=1)


class Projection(nn.Module):
    """Linear maps of one input, computed as one product; each role is one map of `outputs` rows and may carry an adapter."""

    def __init__(self, inputs: int, outputs: int, roles: tuple[str, ...]) -> None:
        super().__init__()
        self.roles = roles
        self.outputs = outputs
        self.weight = nn.Parameter(torch.empty(len(roles) * outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(len(roles) * outputs))
        self.adapters = nn.ModuleDict()
        self.dropout: Dropout | None = None
        self.merged = False

    def rows(self, role: str) -> slice:
        """The rows of the weight that belong to `role`."""
        start = self.roles.index(role) * self.outputs
        return slice(start, start + self.outputs)

    def adapter(self, role: str) -> Adapter:
        adapter = self.adapters[role]
        assert isinstance(adapter, Adapter)
        return adapter

    def forward(self, x: Tensor, activation: str | None = None) -> Tensor:
        """x: (..., inputs) → (..., len(roles) · outputs), activated, in the type of x."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        if not self.adapters or self.merged:
            return packed_linear.packed_linear(x, weight, bias, activation)
        a, b = self._stacked(x.dtype)
        dropped = self.dropout(x) if self.dropout is not None and self.training else None
        flat = x.reshape(-1, x.shape[-1])
        inputs = (flat, None if dropped is None else dropped.view_as(flat), weight, bias, a, b)
        y: Tensor = _LoraLinear.apply(*inputs)  # type: ignore[no-untyped-call]
        y = y.view(*x.shape[:-1], y.shape[-1])
        return y if activation is None else packed_linear.activate(y, activation)

    def _stacked(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """All adapters as one pair: a (R, inputs), b (all outputs, R) block by block, the scale folded into b."""
        present = [self.adapter(role) for role in self.roles if role in self.adapters]
        if len(self.roles) == 1:
            return present[0].a.to(dtype), (present[0].b * present[0].scale).to(dtype)
        blocks = [
            self.adapter(role).b * self.adapter(role).scale
            if role in self.adapters
            else self.weight.new_empty(self.outputs, 0).float()
            for role in self.roles
        ]
        b: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
        return torch.cat([adapter.a for adapter in present]).to(dtype), b.to(dtype)


class _LoraLinear(torch.autograd.Function):
    """y = x Wᵀ + bias + (d Aᵀ) Bᵀ, with W frozen and d the dropped-out x (or x itself).

    Exact; saves only its inputs and the (tokens × R) product, and adds into the base product in place: 1.2 ms where peft's
    layer takes 2.2 to 3.0 (16 × 64 tokens, width 384).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: Tensor | None, weight: Tensor, bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
        source = x if dropped is None else dropped
        low = source @ a.T
        ctx.save_for_backward(source, low, weight, a, b)
        ctx.separate = dropped is not None
        return packed_linear.forward(x, weight, bias).addmm_(low, b.T)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        source, low, weight, a, b = ctx.saved_tensors
        gradient_low = gradient @ b
        gradient_x = gradient_dropped = None
        if ctx.needs_input_grad[0]:
            gradient_x = packed_linear.backward(gradient, weight)
            if not ctx.separate:
                gradient_x.addmm_(gradient_low, a)
        if ctx.separate and ctx.needs_input_grad[1]:
            gradient_dropped = gradient_low @ a
        return gradient_x, gradient_dropped, None, None, gradient_low.T @ source, gradient.T @ low


def attach_lora(
    network: EncoderClassifier,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    targets: Sequence[str] = ("query", "value"),
    layers: str | None = None,
    variant: str = "lora",
    generator: torch.Generator | None = None,
) -> None:
    """Freeze the encoder and put fresh adapters on the chosen roles of the chosen layers.

    A is drawn as peft draws it, from U(-1/√inputs, 1/√inputs), and B is zero, or both are the weight's principal part (variant
    pissa): either way the logits do not change. Raises LoralabError for an unknown target or layer.
    """
    roles = resolve_targets(targets)
    scale = alpha / (math.sqrt(rank) if variant == "rslora" else rank)
    freeze_encoder(network)
    for index in parse_layers(layers, network.dims.layers):
        for projection in network.layer(index).projections():
            for role in projection.roles:
                if role in roles:
                    adapter = Adapter(projection.outputs, projection.weight.shape[1], rank, scale)
                    if variant == "pissa":
                        _check_rank(rank, projection)
                        adapter.take_principal(projection.weight[projection.rows(role)])
                    else:
                        nn.init.kaiming_uniform_(adapter.a, a=math.sqrt(5), generator=generator)
                    projection.adapters[role] = adapter
            if projection.adapters:
                projection.dropout = Dropout(dropout) if dropout else None


def _check_rank(rank: int, projection: Projection) -> None:
    if rank > (most := min(projection.outputs, projection.weight.shape[1])):
        raise LoralabError(f"lora.rank={rank}: with variant pissa this encoder's {projection.roles[0]} has ranks up to {most}")


def freeze_parts(network: EncoderClassifier, spec: str) -> None:
    """Freeze the embeddings or layers named, as in `embeddings,0-2`. Raises LoralabError for a layer that is not there."""
    embeddings, layers = parse_frozen(spec, network.dims.layers)
    network.embeddings.requires_grad_(not embeddings)
    for index in layers:
        network.layer(index).requires_grad_(False)


def freeze_encoder(network: EncoderClassifier) -> None:
    """Leave only the head trainable; of BERT's head only the classifier, because its pooler belongs to the encoder."""
    network.requires_grad_(False)
    network.head.requires_grad_(True)
    if network.pooler is not None:
        network.pooler.requires_grad_(False)


def adapters(network: EncoderClassifier) -> Iterator[tuple[int, str, Adapter]]:
    """Yield (layer, role, adapter) of every adapter, from the bottom up."""
    for index in range(network.dims.layers):
        for projection in network.layer(index).projections():
            for role in projection.roles:
                if role in projection.adapters:
                    yield index, role, projection.adapter(role)


def merge(network: EncoderClassifier) -> None:
    """Add every adapter's update into its weight. In fp32: merge before `freeze_to(bf16)`."""
    _shift(network, +1.0, merged=True)


def unmerge(network: EncoderClassifier) -> None:
    """Take the updates out of the weights again."""
    _shift(network, -1.0, merged=False)


def _shift(network: EncoderClassifier, sign: float, merged: bool) -> None:
    with torch.no_grad():
        for index in range(network.dims.layers):
            for projection in network.layer(index).projections():
                if projection.merged == merged:
                    continue
                for role in projection.adapters:
                    projection.weight[projection.rows(role)] += sign * projection.adapter(role).delta().to(projection.weight.dtype)
                projection.merged = merged
