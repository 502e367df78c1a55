"""Suspected label errors are cleanlab's, and a planted error is found."""

from __future__ import annotations

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint
from cleanlab.filter import find_label_issues

from loralab.diagnostics.labels import find_label_errors


def guesses(n: int, classes: int, noise: float, seed: int, sharpness: float = 3.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(probabilities, labels, planted): a good classifier's probabilities, and labels of which a share was changed."""
    random = np.random.default_rng(seed)
    true = random.integers(0, classes, n)
    logits = random.normal(size=(n, classes))
    logits[np.arange(n), true] += sharpness
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    planted = random.random(n) < noise
    labels = np.where(planted, (true + random.integers(1, classes, n)) % classes, true)
    return probabilities, labels, planted


@pytest.mark.parametrize(
    ("n", "classes", "noise", "sharpness"),
    [(400, 4, 0.0, 3.0), (400, 4, 0.1, 3.0), (1000, 10, 0.2, 2.0), (300, 2, 0.3, 1.0), (200, 5, 0.5, 0.0), (30, 3, 0.1, 2.0)],
)
@pytest.mark.parametrize("seed", range(5))
def test_suspects_are_cleanlabs(n: int, classes: int, noise: float, sharpness: float, seed: int) -> None:
    probabilities, labels, _ = guesses(n, classes, noise, seed, sharpness)
    found = find_label_errors(probabilities, labels)
    expected = find_label_issues(
        labels, probabilities, filter_by="confident_learning", return_indices_ranked_by="normalized_margin", n_jobs=1
    )
    assert found.positions.tolist() == expected.tolist()
    np.testing.assert_array_equal(found.joint - np.diag(np.diag(found.joint)), _off_diagonal(labels, probabilities))
    assert found.joint.sum() == compute_confident_joint(labels, probabilities, calibrate=False).sum()


def _off_diagonal(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    joint = compute_confident_joint(labels, probabilities, calibrate=False)
    return joint - np.diag(np.diag(joint))


def test_suspects_are_cleanlabs_with_an_unlabelled_and_a_rare_class() -> None:
    probabilities, labels, _ = guesses(500, 5, 0.1, 0)
    labels[labels == 2] = 0
    labels[labels == 4] = 1
    labels[:3] = 4
    found = find_label_errors(probabilities, labels)
    expected = find_label_issues(
        labels, probabilities, filter_by="confident_learning", return_indices_ranked_by="normalized_margin", n_jobs=1
    )
    assert len(expected) > 10
    assert found.positions.tolist() == expected.tolist()
    assert 2 not in found.suggested


@pytest.mark.parametrize("n", range(1, 30))
def test_a_probability_at_its_rounded_threshold_reaches_it(n: int) -> None:
    found = find_label_errors(np.tile([0.7, 0.2, 0.1], (n, 1)), np.zeros(n, dtype=np.int64))
    assert found.joint.tolist() == [[n, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_planted_errors_rank_first() -> None:
    probabilities, labels, planted = guesses(2000, 4, 0.05, 1, sharpness=5.0)
    found = find_label_errors(probabilities, labels)
    assert planted[found.positions].mean() > 0.85  # precision
    assert planted[found.positions].sum() / planted.sum() > 0.65  # recall
    assert planted[found.positions[:50]].all()
    assert (np.diff(found.margins) >= 0).all()


def test_four_rows_by_hand() -> None:
    """Thresholds: mean p(0) of rows 0, 1, 3 = 0.6 and mean p(1) of row 2 = 0.9. Row 1 reaches neither, row 3 the second."""
    probabilities = np.array([[0.98, 0.02], [0.55, 0.45], [0.10, 0.90], [0.05, 0.95]])
    probabilities[1] = [0.5, 0.5]
    found = find_label_errors(probabilities, np.array([0, 0, 1, 0]))
    assert found.positions.tolist() == [3]
    assert found.suggested.tolist() == [1]
    assert found.margins == pytest.approx([-0.9])
    assert found.joint.tolist() == [[1, 1], [0, 1]]
