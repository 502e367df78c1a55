"""Strategies by hand; badge equals its definition with explicit outer products."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loralab.experiments.strategies import STRATEGIES, Floats, PoolScores, badge, entropy, least_confidence, margin

# The three measures disagree on these: row 0 has the lowest maximum, row 1 the smallest gap, row 2 the most spread.
ROWS = np.array([[0.43, 0.19, 0.19, 0.19], [0.5, 0.5, 0.0, 0.0], [0.45, 0.22, 0.18, 0.15], [1.0, 0.0, 0.0, 0.0]])
FEATURES = np.eye(4)


def test_uncertainty_by_hand() -> None:
    np.testing.assert_allclose(least_confidence(ROWS), [0.57, 0.5, 0.55, 0.0])
    np.testing.assert_allclose(margin(ROWS), [0.76, 1.0, 0.77, 0.0])
    by_hand = [-(0.43 * math.log(0.43) + 3 * 0.19 * math.log(0.19)), math.log(2)]
    np.testing.assert_allclose(entropy(ROWS)[[0, 1, 3]], [*by_hand, 0.0])


@pytest.mark.parametrize(("strategy", "picked"), [("least-confidence", [0, 2, 1]), ("margin", [1, 2, 0]), ("entropy", [0, 2, 1])])
def test_the_most_uncertain_rows_are_picked(strategy: str, picked: list[int]) -> None:
    found = STRATEGIES[strategy](PoolScores(ROWS, FEATURES), 3, np.random.default_rng(0))
    assert found.tolist() == picked


def test_two_classes_rank_alike_by_every_measure() -> None:
    probabilities = np.array([[p, 1 - p] for p in (0.9, 0.55, 0.2, 0.48, 0.7)])
    scored = PoolScores(probabilities, np.ones((5, 2)))
    found = [STRATEGIES[name](scored, 5, np.random.default_rng(0)).tolist() for name in ("least-confidence", "margin", "entropy")]
    assert found == [[3, 1, 4, 2, 0]] * 3


def random_rows(n: int, classes: int = 3, width: int = 5, seed: int = 0) -> tuple[Floats, Floats]:
    source = np.random.default_rng(seed)
    logits = source.normal(size=(n, classes)) * 2
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), source.normal(size=(n, width))


def test_badge_is_k_means_plus_plus_over_gradient_embeddings() -> None:
    probabilities, features = random_rows(40)
    errors = probabilities - np.eye(3)[probabilities.argmax(axis=1)]
    embeddings = (errors[:, :, None] * features[:, None, :]).reshape(40, -1)
    random = np.random.default_rng(5)
    picked = [int((embeddings**2).sum(axis=1).argmax())]
    while len(picked) < 12:
        squared = ((embeddings[:, None] - embeddings[picked]) ** 2).sum(axis=2).min(axis=1)
        picked.append(int(random.choice(40, p=squared / squared.sum())))
    assert badge(PoolScores(probabilities, features), 12, np.random.default_rng(5)).tolist() == picked


def test_badge_picks_diverse_rows() -> None:
    """Ten copies of the most uncertain row, and five different rows."""
    probabilities = np.array([[0.5, 0.5]] * 10 + [[0.4, 0.6]] * 5)
    features = np.concatenate([np.tile([1.0, 0, 0, 0, 0, 0], (10, 1)), np.eye(6)[1:]])
    scored = PoolScores(probabilities, features)
    picked = badge(scored, 6, np.random.default_rng(0))
    assert set(range(10, 15)) < set(picked.tolist())
    assert set(STRATEGIES["entropy"](scored, 6, np.random.default_rng(0)).tolist()) == set(range(6))


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_row_is_picked_twice(name: str) -> None:
    for seed in range(5):  # rounding leaves these rows a little distance from themselves
        probabilities, features = random_rows(1, width=384, seed=seed)
        scored = PoolScores(np.repeat(probabilities, 20, axis=0), np.repeat(features * 1e3, 20, axis=0))
        assert sorted(STRATEGIES[name](scored, 20, np.random.default_rng(1)).tolist()) == [*range(20)]


def test_badge_depends_on_its_generator() -> None:
    scored = PoolScores(*random_rows(60))
    first, again, other = (badge(scored, 10, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert first == again != other
