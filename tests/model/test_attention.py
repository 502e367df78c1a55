"""Our attention, forward and backward, against PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from loralab.model.layers import _Attention

BATCH, TIME, HEADS, WIDTH = 3, 7, 2, 8
LENGTHS = (7, 4, 1)


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Queries, keys and values of three texts, and the mask of their padding."""
    qkv = torch.randn(BATCH, TIME, 3 * WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    padding = torch.arange(TIME) >= torch.tensor(LENGTHS)[:, None]
    return qkv.requires_grad_(), torch.zeros(padding.shape, dtype=dtype).masked_fill_(padding, -1e4)[:, None, None, :]


def plain(qkv: Tensor, mask: Tensor, rows: int | None) -> Tensor:
    query, key, value = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
    return F.scaled_dot_product_attention(query[:, :, :rows], key, value, attn_mask=mask).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("batch", [1, BATCH])
@pytest.mark.parametrize("rows", [None, 1, 3])
def test_values_and_gradients_equal_pytorchs(rows: int | None, batch: int) -> None:
    qkv, mask = inputs(torch.float32)
    kept = mask.clone()
    found, expected = (
        way(qkv[:batch], mask[:batch]) for way in (lambda *x: _Attention.apply(*x, HEADS, rows), lambda *x: plain(*x, rows))
    )
    assert found.shape == (batch, rows or TIME, WIDTH)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.autograd.grad((way * direction).sum(), qkv)[0] for way in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert torch.equal(mask, kept)


def test_bf16_is_as_accurate_as_pytorchs() -> None:
    qkv, mask = inputs(torch.bfloat16)
    truth, wide = inputs(torch.float32)
    found, expected = _Attention.apply(qkv, mask, HEADS, None), plain(truth, wide, None)
    assert found.dtype == torch.bfloat16
    assert float((found.detach() - expected.detach()).norm() / expected.detach().norm()) < 0.01
    ours, theirs = torch.autograd.grad(found.float().square().sum(), qkv)[0], torch.autograd.grad(expected.square().sum(), truth)[0]
    assert float((ours - theirs).norm() / theirs.norm()) < 0.02


def test_padding_gets_no_weight_and_no_gradient() -> None:
    qkv, mask = inputs(torch.float32)
    (gradient,) = torch.autograd.grad(_Attention.apply(qkv, mask, HEADS, 1).square().sum(), qkv)
    for row, length in enumerate(LENGTHS):
        assert not gradient[row, length:].any()
        assert gradient[row, :length].any()
