"""The parts of the native encoder: embeddings, attention, one layer, and the classification head.

Trained weights are fp32 and are cast where they are used; frozen weights may be stored in bf16. Layer norms stay in fp32 (on a
CPU mixed dtypes are as fast). Softmax, head and loss run in fp32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loralab.model.architectures import Dimensions
from loralab.model.dropout import Dropout
from loralab.model.lora import Projection
from loralab.model.packed_linear import activate


class Norm(nn.Module):
    """Layer norm with fp32 weights over hidden states of any float dtype."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if hidden.device.type != "cpu":  # GPU kernels need one dtype; they compute in fp32 nevertheless
            weight, bias = weight.to(hidden.dtype), bias.to(hidden.dtype)
        return F.layer_norm(hidden, (hidden.shape[-1],), weight, bias, self.eps)


class Embeddings(nn.Module):
    """Token, position and segment embeddings with a norm; ELECTRA's narrower ones are projected to the width."""

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
    """softmax(Q Kᵀ / √d + bias) V for every head (Vaswani et al. 2017), with the softmax in fp32.

    qkv: (batch, time, 3 · width) → (batch, rows, width), for the first `rows` queries or all; bias: (batch, 1, 1, time). At news
    length the CPU's flash kernel takes 3 times as long forward and 7 times as long backward. The backward pass is explicit to lay
    out each head once, to include scale and bias in the product, and to write the gradients in place.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, heads: int, rows: int | None) -> Tensor:
        batch, time, _ = qkv.shape
        by_head = qkv.view(batch, time, 3, heads, -1).permute(2, 0, 3, 1, 4).reshape(3, batch * heads, time, -1)
        query, key, value = by_head[0, :, :rows], by_head[1], by_head[2]
        scale, rows = 1.0 / math.sqrt(query.shape[-1]), query.shape[1]
        scores = bias.expand(batch, heads, rows, time).clone(memory_format=torch.contiguous_format)
        scores = scores.view(batch * heads, rows, time).baddbmm_(query, key.transpose(1, 2), alpha=scale)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(qkv.dtype)
        ctx.save_for_backward(by_head, weights)
        ctx.scale = scale
        return torch.bmm(weights, value).view(batch, heads, rows, -1).transpose(1, 2).flatten(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        by_head, weights = ctx.saved_tensors
        batch, rows, width = gradients[0].shape
        heads = by_head.shape[1] // batch
        query, key, value = by_head[0, :, :rows], by_head[1], by_head[2]
        gradient = gradients[0].view(batch, rows, heads, -1).transpose(1, 2).reshape(batch * heads, rows, -1)
        d_qkv = torch.empty_like(by_head) if rows == by_head.shape[2] else torch.zeros_like(by_head)
        d_scores = torch.ops.aten._softmax_backward_data(torch.bmm(gradient, value.transpose(1, 2)), weights, -1, weights.dtype)
        d_scores *= ctx.scale
        torch.bmm(d_scores, key, out=d_qkv[0, :, :rows])
        torch.bmm(d_scores.transpose(1, 2), query, out=d_qkv[1])
        torch.bmm(weights.transpose(1, 2), gradient, out=d_qkv[2])
        d_qkv = d_qkv.view(3, batch, heads, d_qkv.shape[2], -1).permute(1, 3, 0, 2, 4)
        return d_qkv.reshape(batch, -1, 3 * width), None, None, None


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """mask: (batch, time) bool → the term added to attention scores, (batch, 1, 1, time): 0 on real tokens, -10,000 on padding."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -1e4)[:, None, None, :]


class EncoderLayer(nn.Module):
    """One post-norm encoder layer. Query, key and value are one product."""

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

    def forward(self, hidden: Tensor, bias: Tensor, rows: int | None = None) -> Tensor:
        """hidden: (batch, time, width) → the same, or its first `rows` tokens; bias: see `attention_bias`.

        The output tokens attend to all tokens.
        """
        context = self.attend(self.qkv(hidden), bias, rows)
        attended: Tensor = self.attention_norm(self.output(context) + hidden[:, :rows])
        transformed: Tensor = self.ffn_norm(self.ffn_out(self.ffn_in(attended, self.activation)) + attended)
        return transformed

    def attend(self, qkv: Tensor, bias: Tensor, rows: int | None) -> Tensor:
        """qkv: (batch, time, 3 · width) → the context of the first `rows` tokens, or of all: (batch, rows, width)."""
        if qkv.is_cuda and not qkv.requires_grad:
            query, key, value = qkv.view(*qkv.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            context = F.scaled_dot_product_attention(query[:, :, :rows], key, value, attn_mask=bias.to(qkv.dtype))
            return context.transpose(1, 2).flatten(2)
        attended: Tensor = _Attention.apply(qkv, bias, self.heads, rows)  # type: ignore[no-untyped-call]
        return attended


class Head(nn.Module):
    """Pooled text → logits in fp32: one linear map, after an optional dense layer and, in a masked-language head, a norm."""

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

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw the weights from N(0, 0.02) and set the biases to zero, as BERT does."""
        for module in (self.dense, self.out):
            if module is not None:
                nn.init.normal_(module.weight, std=0.02, generator=generator)
                nn.init.zeros_(module.bias)


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Average hidden (batch, time, width) over the real tokens of mask (batch, time) → (batch, width)."""
    weight = mask.to(hidden.dtype) / mask.sum(dim=1, keepdim=True)
    return torch.bmm(weight[:, None].to(hidden.dtype), hidden)[:, 0]
