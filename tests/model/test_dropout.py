"""Dropout: the share and scale are right, and only the seed and the mask stream decide the masks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from loralab.model.dropout import POOL, Dropout, mask_stream


def training(p: float, seed: int = 1) -> Dropout:
    dropout = Dropout(p).train()
    dropout.seed = seed
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


def masks(dropout: Dropout, *key: int, calls: int = 3) -> list[torch.Tensor]:
    with mask_stream(*key):
        return [dropout(torch.ones(64, 64)) for _ in range(calls)]


def test_equal_keys_give_equal_masks_and_others_differ() -> None:
    dropout = training(0.3, 5)
    first = masks(dropout, 7, 0, 1)
    different = [
        *first,
        *masks(dropout, 7, 0, 2),
        *masks(dropout, 7, 1, 1),
        *masks(dropout, 8, 0, 1),
        *masks(dropout, 1, 0, 7),
        *masks(training(0.3, 6), 7, 0, 1),
    ]
    assert all(torch.equal(one, other) for one, other in zip(first, masks(training(0.3, 5), 7, 0, 1), strict=True))
    assert not any(torch.equal(one, other) for i, one in enumerate(different) for other in different[:i])


def test_threads_draw_from_their_own_streams() -> None:
    dropout, together = training(0.3), Barrier(2)

    def draw(part: int) -> list[torch.Tensor]:
        found = []
        with mask_stream(3, part):
            for _ in range(20):
                together.wait(10)
                found.append(dropout(torch.ones(64, 64)))
        return found

    with ThreadPoolExecutor(2) as pool:
        masks_by_thread = list(pool.map(draw, range(2)))
    for part, found in enumerate(masks_by_thread):
        assert all(torch.equal(one, other) for one, other in zip(found, masks(dropout, 3, part, calls=20), strict=True))


def test_an_inner_stream_leaves_the_outer_one_unchanged() -> None:
    dropout = training(0.3)
    with mask_stream(1):
        found = [dropout(torch.ones(64, 64))]
        masks(dropout, 2)
        found.append(dropout(torch.ones(64, 64)))
    assert all(torch.equal(one, other) for one, other in zip(found, masks(dropout, 1, calls=2), strict=True))


def test_positions_in_the_pool_are_uniform() -> None:
    """The first values of 4,000 masks of neighbouring streams: zero with probability p, and no runs (a sign of poor mixing)."""
    dropout = training(0.5)
    zeros = torch.stack([masks(dropout, step, part, calls=1)[0][0, :1] == 0 for step in range(2000) for part in range(2)])[:, 0]
    n = len(zeros)
    assert abs(float(zeros.float().mean()) - 0.5) < 5 * (0.25 / n) ** 0.5
    assert abs(float((zeros[1:] == zeros[:-1]).float().mean()) - 0.5) < 5 * (0.25 / n) ** 0.5


def test_the_global_generator_is_not_used() -> None:
    x = torch.ones(64, 64)
    torch.manual_seed(1)
    with mask_stream(1):
        one = training(0.3)(x)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    with mask_stream(1):
        assert torch.equal(training(0.3)(x), one)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_identity_in_evaluation(p: float) -> None:
    x = torch.randn(8, 8)
    dropout = training(p).eval()
    assert torch.equal(dropout(x), x)


def test_identity_with_p_zero() -> None:
    x = torch.randn(8, 8)
    assert torch.equal(training(0.0)(x), x)


def test_an_input_larger_than_the_pool() -> None:
    y = training(0.5)(torch.ones(2, POOL // 2 + 1))
    assert y.shape == (2, POOL // 2 + 1)
    assert abs(float((y == 0).float().mean()) - 0.5) < 0.01
    assert not torch.equal(y[0], y[1])


def test_bf16_stays_bf16_and_takes_the_same_mask() -> None:
    x = torch.ones(64, 64)
    with mask_stream(1):
        y = training(0.5)(x.bfloat16())
    assert y.dtype == torch.bfloat16
    with mask_stream(1):
        assert torch.equal(y.float(), training(0.5)(x))


def test_gradients_pass_where_values_pass() -> None:
    x = torch.ones(64, 64, requires_grad=True)
    y = training(0.25)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
