"""Dropout: the right share, the right scale, and randomness that only its seed decides."""

from __future__ import annotations

import pytest
import torch

from loralab.model.dropout import POOL, Dropout


def training(p: float, seed: int = 1) -> Dropout:
    dropout = Dropout(p).train()
    dropout.seed(seed)
    return dropout


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_a_share_p_is_zero_and_the_rest_is_scaled(p: float) -> None:
    n = 400_000
    y = training(p)(torch.ones(400, n // 400))
    kept = y[y != 0]
    share = 1 - len(kept) / n
    assert abs(share - p) < 5 * (p * (1 - p) / n) ** 0.5  # five deviations of a binomial share
    assert torch.allclose(kept, torch.full_like(kept, 1 / (1 - p)))


def test_values_are_multiplied_not_replaced() -> None:
    x = torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    y = training(0.5)(x)
    assert torch.equal(y[y != 0], (2 * x)[y != 0])


def test_zeros_fall_in_every_row_and_column() -> None:
    zeros = training(0.5)(torch.ones(200, 300)) == 0
    assert 0.3 < zeros.float().mean(0).min() < zeros.float().mean(0).max() < 0.7
    assert 0.3 < zeros.float().mean(1).min() < zeros.float().mean(1).max() < 0.7


def test_one_seed_gives_one_sequence_of_masks_and_another_seed_another() -> None:
    x = torch.ones(64, 64)
    first, again, other = training(0.3, 5), training(0.3, 5), training(0.3, 6)
    masks = [first(x) for _ in range(3)]
    assert all(torch.equal(mask, again(x)) for mask in masks)
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[1], masks[2])
    assert not torch.equal(masks[0], other(x))
    first.seed(5)
    assert torch.equal(first(x), masks[0])


def test_the_ambient_stream_is_neither_read_nor_moved() -> None:
    x = torch.ones(64, 64)
    torch.manual_seed(1)
    one = training(0.3)(x)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(training(0.3)(x), one)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_identity_in_evaluation(p: float) -> None:
    x = torch.randn(8, 8)
    dropout = training(p).eval()
    assert torch.equal(dropout(x), x)


def test_identity_without_a_share() -> None:
    x = torch.randn(8, 8)
    assert torch.equal(training(0.0)(x), x)


def test_an_input_larger_than_the_pool() -> None:
    y = training(0.5)(torch.ones(2, POOL // 2 + 1))
    assert y.shape == (2, POOL // 2 + 1)
    assert abs(float((y == 0).float().mean()) - 0.5) < 0.01
    assert not torch.equal(y[0], y[1])


def test_bf16_stays_bf16_and_takes_the_same_mask() -> None:
    x = torch.ones(64, 64)
    y = training(0.5)(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert torch.equal(y.float(), training(0.5)(x))


def test_gradients_pass_where_values_pass() -> None:
    x = torch.ones(64, 64, requires_grad=True)
    y = training(0.25)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
