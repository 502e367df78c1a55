"""The native encoder of the BERT family: embeddings → layers[a:b] → pooling → head, able to start at any layer.

Frozen weights may live in bf16 (`Network.freeze_to`); whatever is trained stays in fp32 and is cast where it is used. Layer
norms are kept in fp32 (on a CPU mixed types are as fast), and softmax, head and loss run in fp32. Query, key and value
are one product. Logits equal Transformers' (tests/model/test_equality.py).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loralab.model.architectures import Dimensions, HeadKind, Pooling
from loralab.model.dropout import Dropout, recomputed
from loralab.model.kernels import encoder
from loralab.model.lora import Projection
from loralab.model.packed_linear import activate


class Norm(nn.Module):
    """Layer norm with fp32 weights over hidden states of any float type."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if hidden.is_cuda:  # CUDA's kernel wants one type; it computes in fp32 all the same
            weight, bias = weight.to(hidden.dtype), bias.to(hidden.dtype)
        return F.layer_norm(hidden, (hidden.shape[-1],), weight, bias, self.eps)


class Embeddings(nn.Module):
    """Token, position and segment embeddings, normed; ELECTRA's narrower ones are projected to the width."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.word = nn.Embedding(dims.vocabulary, dims.embedding_width)
        self.position = nn.Embedding(dims.positions, dims.embedding_width)
        self.segment = nn.Embedding(dims.token_types, dims.embedding_width) if dims.token_types else None
        self.norm = Norm(dims.embedding_width, dims.norm_eps)
        self.project = nn.Linear(dims.embedding_width, dims.width) if dims.embedding_width != dims.width else None
        self.first_position = dims.first_position

    def forward(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """tokens: (batch, time) int → (batch, time, width) in `dtype`."""
        end = self.first_position + tokens.shape[1]
        embedded = self.word(tokens) + self.position.weight[self.first_position : end]
        if self.segment is not None:
            embedded = embedded + self.segment.weight[0]
        hidden: Tensor = self.norm(embedded).to(dtype)
        if self.project is not None:
            hidden = F.linear(hidden, self.project.weight.to(dtype), self.project.bias.to(dtype))
        return hidden


class _Attention(torch.autograd.Function):
    """softmax(Q Kᵀ / √d + mask) V for every head (Vaswani et al. 2017), eager, with the softmax in fp32.

    qkv: (batch, time, 3 · width) → (batch, rows, width), for the first `rows` queries or all; mask: (batch, 1, 1, time). At news
    length the CPU's flash kernel takes 3 times as long forward, 7 times backward. Written out, where autograd could do it, because
    so each head is laid out once, scale and mask go into the product, and the gradients are written where they belong.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, mask: Tensor, heads: int, rows: int | None) -> Tensor:
        batch, time, _ = qkv.shape
        parts = qkv.view(batch, time, 3, heads, -1).permute(2, 0, 3, 1, 4).reshape(3, batch * heads, time, -1)
        query, key, value = parts[0, :, :rows], parts[1], parts[2]
        scale, rows = 1.0 / math.sqrt(query.shape[-1]), query.shape[1]
        scores = mask.expand(batch, heads, rows, time).clone(memory_format=torch.contiguous_format)
        scores = scores.view(batch * heads, rows, time).baddbmm_(query, key.transpose(1, 2), alpha=scale)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(qkv.dtype)
        ctx.save_for_backward(parts, weights)
        ctx.scale = scale
        return torch.bmm(weights, value).view(batch, heads, rows, -1).transpose(1, 2).flatten(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        parts, weights = ctx.saved_tensors
        batch, rows, width = gradients[0].shape
        heads = parts.shape[1] // batch
        query, key, value = parts[0, :, :rows], parts[1], parts[2]
        gradient = gradients[0].view(batch, rows, heads, -1).transpose(1, 2).reshape(batch * heads, rows, -1)
        found = torch.empty_like(parts) if rows == parts.shape[2] else torch.zeros_like(parts)
        scores = torch.ops.aten._softmax_backward_data(torch.bmm(gradient, value.transpose(1, 2)), weights, -1, weights.dtype)
        scores *= ctx.scale
        torch.bmm(scores, key, out=found[0, :, :rows])
        torch.bmm(scores.transpose(1, 2), query, out=found[1])
        torch.bmm(weights.transpose(1, 2), gradient, out=found[2])
        together = found.view(3, batch, heads, found.shape[2], -1).permute(1, 3, 0, 2, 4)
        return together.reshape(batch, -1, 3 * width), None, None, None


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """mask: (batch, time) bool → what is added to attention's scores, (batch, 1, 1, time): 0 on real tokens, else very negative."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -1e4)[:, None, None, :]


class Layer(nn.Module):
    """One post-norm encoder layer."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.heads = dims.heads
        self.activation = dims.activation
        self.qkv = Projection(dims.width, dims.width, ("query", "key", "value"))
        self.output = Projection(dims.width, dims.width, ("output",))
        self.attention_norm = Norm(dims.width, dims.norm_eps)
        self.ffn_in = Projection(dims.width, dims.ffn_width, ("ffn_in",))
        self.ffn_out = Projection(dims.ffn_width, dims.width, ("ffn_out",))
        self.ffn_norm = Norm(dims.width, dims.norm_eps)

    def projections(self) -> tuple[Projection, ...]:
        return self.qkv, self.output, self.ffn_in, self.ffn_out

    def forward(self, hidden: Tensor, mask: Tensor, rows: int | None = None) -> Tensor:
        """hidden: (batch, time, width) → the same, or its first `rows` tokens; mask: (batch, 1, 1, time), 0 or very negative.

        Every token is attended to; what follows attention is computed for the rows that leave.
        """
        context = self.attend(self.qkv(hidden), mask, rows)
        attended: Tensor = self.attention_norm(self.output(context) + hidden[:, :rows])
        transformed: Tensor = self.ffn_norm(self.ffn_out(self.ffn_in(attended, self.activation)) + attended)
        return transformed

    def attend(self, qkv: Tensor, mask: Tensor, rows: int | None) -> Tensor:
        """qkv: (batch, time, 3 · width) → what the first `rows` tokens, or all, gather of all: (batch, rows, width)."""
        if qkv.is_cuda and not qkv.requires_grad:
            query, key, value = qkv.view(*qkv.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            context = F.scaled_dot_product_attention(query[:, :, :rows], key, value, attn_mask=mask.to(qkv.dtype))
            return context.transpose(1, 2).flatten(2)
        attended: Tensor = _Attention.apply(qkv, mask, self.heads, rows)  # type: ignore[no-untyped-call]
        return attended


class Head(nn.Module):
    """Pooled text → logits in fp32: one linear map, perhaps after a dense layer and, as in a masked-language head, a norm."""

    def __init__(self, width: int, classes: int, activation: str | None, dropout: float, norm_eps: float | None = None) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width) if activation else None
        self.activation = activation
        self.norm = Norm(width, norm_eps) if norm_eps else None
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(width, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """pooled: (batch, width) fp32 → logits (batch, classes) fp32."""
        if self.dense is not None:
            pooled = activate(self.dense(self.dropout(pooled)), str(self.activation))
        if self.norm is not None:
            pooled = self.norm(pooled)
        logits: Tensor = self.out(self.dropout(pooled))
        return logits


class EncoderClassifier(nn.Module):
    """An encoder with a classification head.

    `pooling` is `cls` (the first token), `mean` (over real tokens) or a place among the tokens; `head` is `own` (the
    architecture's), `linear`, or `prompt`: the masked-language head with a row for each class in the place of one for each token.
    """

    @property
    def texts_at_least(self) -> int:
        """How many texts are worth a pass and a thread of their own: torch's products want many rows, the kernels' few.

        See training.side_by_side: threads may share this network.
        """
        return 2 if encoder.suits(self) else 8

    def __init__(
        self, dims: Dimensions, classes: int, *, pooling: Pooling = "cls", head: HeadKind = "default", dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.dims = dims
        self.pooling = pooling
        self.head_kind = head
        self.embeddings = Embeddings(dims)
        self.layers = nn.ModuleList(Layer(dims) for _ in range(dims.layers))
        norm_eps = dims.norm_eps if head == "prompt" else None
        self.head = Head(dims.width, classes, dims.head_activation(head), dropout, norm_eps)
        self.compute_dtype = torch.float32
        self.gradient_checkpointing = False

    def layer(self, index: int) -> Layer:
        layer = self.layers[index]
        assert isinstance(layer, Layer)
        return layer

    @property
    def classes(self) -> int:
        return self.head.out.out_features

    def forward(self, inputs: Tensor, mask: Tensor, start: int | None = None) -> Tensor:
        """mask: (batch, time) bool, True on real tokens → logits (batch, classes) fp32.

        inputs: tokens (batch, time) int, or with `start` hidden states (batch, time, width) that have passed the layers below it.
        """
        hidden = self.embeddings(inputs, self.compute_dtype) if start is None else inputs
        return self.classify(self.encode(hidden, mask, start or 0, pooled_only=True), mask)

    def encode(self, hidden: Tensor, mask: Tensor, start: int = 0, stop: int | None = None, *, pooled_only: bool = False) -> Tensor:
        """Run layers[start:stop] on hidden states (batch, time, width) that have passed the layers below `start`.

        `pooled_only`: leave out what pooling does not read. With cls pooling the last layer then gives (batch, 1, width), which
        saves three quarters of it, both ways; the result is the same.
        """
        stop = self.dims.layers if stop is None else stop
        first_only = pooled_only and self.pooling == "cls" and stop == self.dims.layers > start
        if stop > start and encoder.fits(self, hidden, mask):
            return encoder.encode([self.layer(index) for index in range(start, stop)], hidden, mask, first_only)
        bias = attention_bias(mask, hidden.dtype)
        for index in range(start, stop):
            layer = self.layer(index)
            recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
            rows = 1 if first_only and index == stop - 1 else None
            hidden = recomputed(layer, hidden, bias, rows) if recompute else layer(hidden, bias, rows)
        return hidden

    @property
    def pooler(self) -> nn.Linear | None:
        """BERT's dense pooler, where the head reads it: it belongs to the base, and is frozen and counted with it."""
        return self.head.dense if self.head_kind == "default" and self.dims.architecture.pooler_in_base else None

    def first_trained(self) -> int | None:
        """The lowest layer that trains; the number of layers where only the head does; None where the embeddings train."""
        if any(p.requires_grad for p in self.embeddings.parameters()):
            return None
        layers = (i for i, layer in enumerate(self.layers) if any(p.requires_grad for p in layer.parameters()))
        return next(layers, self.dims.layers)

    def classify(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """hidden: (batch, time, width) → logits (batch, classes) fp32."""
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        elif self.pooling != "mean":
            place = mask.sum(dim=1) * (self.pooling < 0) + self.pooling
            pooled = hidden[torch.arange(hidden.shape[0], device=hidden.device), place]
        else:
            weight = mask.to(hidden.dtype) / mask.sum(dim=1, keepdim=True)
            pooled = torch.bmm(weight[:, None].to(hidden.dtype), hidden)[:, 0]
        logits: Tensor = self.head(pooled.float())
        return logits

    def freeze_to(self, dtype: torch.dtype) -> None:
        """Compute in `dtype`: frozen projections are stored in it; trained ones, norms, embeddings and head stay fp32."""
        self.compute_dtype = dtype
        for layer in self.layers:
            assert isinstance(layer, Layer)
            for projection in layer.projections():
                for parameter in (projection.weight, projection.bias):
                    if not parameter.requires_grad:
                        parameter.data = parameter.data.to(dtype)


def initialise_head(network: EncoderClassifier, generator: torch.Generator) -> None:
    """Draw the head as the family does: weights from N(0, 0.02), biases zero. BERT's pretrained pooler is loaded over it."""
    for module in (network.head.dense, network.head.out):
        if module is not None:
            nn.init.normal_(module.weight, std=0.02, generator=generator)
            nn.init.zeros_(module.bias)
