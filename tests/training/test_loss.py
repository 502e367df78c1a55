"""The loss against its formula in float64, against torch's losses, and in micro-batches."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from loralab.errors import LoralabError
from loralab.training.loss import Loss, resolve_class_weights

CLASSES = ("World", "Sports", "Business", "Sci/Tech")
WEIGHTS = (1.3, 0.7, 2.5, 0.2)
COMBINATIONS = list(itertools.product((None, WEIGHTS), (0.0, 0.15), (0.0, 2.0)))


def batch(n: int = 32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(random.normal(scale=3.0, size=(n, len(CLASSES))).astype(np.float32))
    return logits, torch.from_numpy(random.integers(0, len(CLASSES), n))


def make(weights: tuple[float, ...] | None, smoothing: float, gamma: float) -> Loss:
    return Loss(None if weights is None else torch.tensor(weights), smoothing, gamma)


def by_hand(
    logits: torch.Tensor, labels: torch.Tensor, weights: tuple[float, ...] | None, smoothing: float, gamma: float
) -> tuple[float, float]:
    """Return the summed loss and the normalizer, text by text and class by class, in float64."""
    total = normalizer = 0.0
    for row, label in zip(logits.double().numpy(), labels.tolist(), strict=True):
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        weight = 1.0 if weights is None else weights[label]
        for c in range(len(row)):
            target = smoothing / len(row)
            if c == label:
                target += (1 - smoothing) * weight * (1 - p[c]) ** gamma
            total -= target * math.log(p[c])
        normalizer += (1 - smoothing) * weight + smoothing
    return total, normalizer


@pytest.mark.parametrize(("weights", "smoothing", "gamma"), COMBINATIONS)
def test_every_combination_equals_the_formula(weights: tuple[float, ...] | None, smoothing: float, gamma: float) -> None:
    logits, labels = batch()
    loss = make(weights, smoothing, gamma)
    total, normalizer = by_hand(logits, labels, weights, smoothing, gamma)
    assert float(loss(logits, labels)) == pytest.approx(total, rel=1e-6)
    assert float(loss.normalizer(labels)) == pytest.approx(normalizer, rel=1e-6)


@pytest.mark.parametrize(("weights", "smoothing", "gamma"), COMBINATIONS)
def test_gradient_equals_finite_differences_of_the_formula(
    weights: tuple[float, ...] | None, smoothing: float, gamma: float
) -> None:
    logits, labels = batch(3)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(make(weights, smoothing, gamma)(logits, labels), logits)
    step = 1e-5
    for i, c in itertools.product(range(3), range(len(CLASSES))):
        up, down = logits.detach().double().clone(), logits.detach().double().clone()
        up[i, c] += step
        down[i, c] -= step
        slope = (by_hand(up, labels, weights, smoothing, gamma)[0] - by_hand(down, labels, weights, smoothing, gamma)[0]) / (
            2 * step
        )
        assert float(gradient[i, c]) == pytest.approx(slope, abs=2e-5)


def test_the_eight_combinations_all_differ() -> None:
    logits, labels = batch()
    values = [
        float(loss(logits, labels) / loss.normalizer(labels))
        for loss in (make(w, smoothing, gamma) for w, smoothing, gamma in COMBINATIONS)
    ]
    assert len({round(value, 5) for value in values}) == 8


def test_plain_loss_is_torchs_mean_cross_entropy() -> None:
    logits, labels = batch()
    loss = Loss()
    assert float(loss(logits, labels) / loss.normalizer(labels)) == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-6)


def test_weighted_loss_is_torchs() -> None:
    logits, labels = batch()
    loss = make(WEIGHTS, 0.0, 0.0)
    expected = F.cross_entropy(logits, labels, weight=torch.tensor(WEIGHTS))
    assert float(loss(logits, labels) / loss.normalizer(labels)) == pytest.approx(float(expected), rel=1e-6)


def test_smoothed_loss_is_torchs() -> None:
    logits, labels = batch()
    loss = make(None, 0.15, 0.0)
    expected = F.cross_entropy(logits, labels, label_smoothing=0.15)
    assert float(loss(logits, labels) / loss.normalizer(labels)) == pytest.approx(float(expected), rel=1e-6)


def test_weights_of_one_change_nothing() -> None:
    logits, labels = batch()
    plain, ones = make(None, 0.15, 2.0), make((1.0,) * 4, 0.15, 2.0)
    assert torch.equal(plain(logits, labels), ones(logits, labels))
    assert float(plain.normalizer(labels)) == float(ones.normalizer(labels))


def test_smoothing_is_not_scaled_by_the_class_weight() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, -1.0, 0.5]]), torch.tensor([0])
    spread = 0.2 * float(-F.log_softmax(logits, dim=-1).mean())
    losses = [float(make((weight, 1.0, 1.0, 1.0), 0.2, 0.0)(logits, labels)) - spread for weight in (1.0, 3.0)]
    assert losses[1] == pytest.approx(3 * losses[0], rel=1e-5)
    assert float(make((3.0, 1.0, 1.0, 1.0), 0.2, 0.0).normalizer(labels)) == pytest.approx(0.8 * 3 + 0.2)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_loss_and_gradient_are_finite_at_extreme_logits(scale: float, gamma: float) -> None:
    logits = (scale * torch.tensor([[1.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0]])).requires_grad_()
    loss = make(WEIGHTS, 0.1, gamma)(logits, torch.tensor([0, 0]))  # one as right as can be, one as wrong
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all(), gradient


def test_half_precision_logits_are_summed_in_fp32() -> None:
    logits, labels = batch()
    assert Loss()(logits.bfloat16(), labels).dtype == torch.float32


@pytest.mark.parametrize("cuts", [(8, 8, 8, 8), (1, 30, 1), (32,)])
@pytest.mark.parametrize(("weights", "smoothing", "gamma"), COMBINATIONS)
def test_accumulated_micro_batches_equal_the_whole_batch(
    weights: tuple[float, ...] | None, smoothing: float, gamma: float, cuts: tuple[int, ...]
) -> None:
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(32, 16, generator=random)
    labels = torch.randint(0, 4, (32,), generator=random)
    layer = torch.nn.Linear(16, 4)
    loss = make(weights, smoothing, gamma)

    whole = loss(layer(inputs), labels) / loss.normalizer(labels)
    whole.backward()
    expected = [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]
    layer.zero_grad()
    normalizer, total = loss.normalizer(labels), 0.0
    for part in torch.arange(32).split(list(cuts)):
        share = loss(layer(inputs[part]), labels[part]) / normalizer
        share.backward()
        total += float(share.detach())

    assert total == pytest.approx(float(whole.detach()), abs=1e-6)
    for parameter, gradient in zip(layer.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-6)


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.random.default_rng(0).choice(4, size=500, p=[0.6, 0.2, 0.15, 0.05]).astype(np.int64)
    weights = resolve_class_weights("balanced", CLASSES, labels)
    assert weights is not None
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)


def test_balanced_weights_are_finite_for_a_class_without_rows() -> None:
    weights = resolve_class_weights("balanced", CLASSES, np.array([0, 0, 1, 2]))
    assert weights is not None
    assert torch.isfinite(weights).all()


def test_weights_by_name_follow_the_classes_and_default_to_one() -> None:
    weights = resolve_class_weights({"Sci/Tech": 0.2, "World": 1.5}, CLASSES, np.zeros(1, dtype=np.int64))
    assert weights is not None
    assert weights.tolist() == pytest.approx([1.5, 1.0, 1.0, 0.2])


def test_weights_as_a_list_are_taken_in_order() -> None:
    weights = resolve_class_weights(WEIGHTS, CLASSES, np.zeros(1, dtype=np.int64))
    assert weights is not None
    assert weights.tolist() == pytest.approx(WEIGHTS)
    assert resolve_class_weights(None, CLASSES, np.zeros(1, dtype=np.int64)) is None


def test_a_misspelt_class_is_refused_with_a_suggestion() -> None:
    with pytest.raises(LoralabError, match=r"'Sport' is not a class; did you mean 'Sports'\?.*World, Sports, Business, Sci/Tech"):
        resolve_class_weights({"Sport": 2.0}, CLASSES, np.zeros(1, dtype=np.int64))


@pytest.mark.parametrize("spec", [(1.0, 1.0, 1.0), (1.0,) * 5, (), (1.0, 1.0, 0.0, 1.0), (1.0, 1.0, -2.0, 1.0)])
def test_a_wrong_number_of_weights_or_one_not_above_zero_is_refused(spec: tuple[float, ...]) -> None:
    with pytest.raises(LoralabError, match="give 4 weights above 0, for World, Sports, Business, Sci/Tech"):
        resolve_class_weights(spec, CLASSES, np.zeros(1, dtype=np.int64))


@pytest.mark.parametrize("odd", [math.nan, math.inf])
@pytest.mark.parametrize("position", [0, 2])
def test_weights_that_are_not_finite_are_refused(odd: float, position: int) -> None:
    spec = [1.0] * 4
    spec[position] = odd
    with pytest.raises(LoralabError, match="weights above 0"):
        resolve_class_weights(spec, CLASSES, np.zeros(1, dtype=np.int64))


# --- row weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weights", "smoothing", "gamma"), COMBINATIONS)
def test_a_row_of_weight_two_is_the_row_twice(weights: tuple[float, ...] | None, smoothing: float, gamma: float) -> None:
    logits, labels = batch()
    counts = np.ones(len(labels))
    counts[[3, 8, 20]] = 2, 3, 0
    copies = torch.from_numpy(np.repeat(np.arange(len(labels)), counts.astype(int)))
    row_weights = counts / counts.mean()
    loss = make(weights, smoothing, gamma)
    weighted = loss.with_row_weights(labels.numpy(), row_weights)
    one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    (weighted(one, labels, torch.from_numpy(row_weights).float()) / weighted.normalizer(labels)).backward()
    (loss(other[copies], labels[copies]) / loss.normalizer(labels[copies])).backward()
    assert one.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(one.grad, other.grad)
    assert not one.grad[20].any()


@pytest.mark.parametrize(("weights", "smoothing"), [(None, 0.0), (WEIGHTS, 0.15)])
@pytest.mark.parametrize("size", [1, 8])
def test_batches_estimate_the_weighted_mean_without_bias(weights: tuple[float, ...] | None, smoothing: float, size: int) -> None:
    logits, labels = batch()
    row_weights = np.random.default_rng(1).exponential(size=len(labels))
    row_weights /= row_weights.mean()
    factors = torch.from_numpy(row_weights).float()
    loss = make(weights, smoothing, 0.0).with_row_weights(labels.numpy(), row_weights)
    whole = loss(logits, labels, factors) / loss.normalizer(labels)
    parts = torch.arange(len(labels)).split(size)
    means = [loss(logits[part], labels[part], factors[part]) / loss.normalizer(labels[part]) for part in parts]
    torch.testing.assert_close(torch.stack(means).mean(), whole)


def test_balanced_weights_count_rows_by_weight_like_scikit_learn() -> None:
    random = np.random.default_rng(0)
    labels, row_weights = random.choice(4, size=200, p=[0.6, 0.2, 0.15, 0.05]).astype(np.int64), random.exponential(size=200)
    weights = resolve_class_weights("balanced", CLASSES, labels, row_weights)
    assert weights is not None
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels, sample_weight=row_weights)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    row_weights[labels == 3] = 0
    weights = resolve_class_weights("balanced", CLASSES, labels, row_weights)
    assert weights is not None
    assert torch.isfinite(weights).all()
