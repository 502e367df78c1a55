"""Active learning strategies: probabilities and features of unlabelled rows → positions to label. Pure functions.

Survey: Settles 2009, Active Learning Literature Survey, Wisconsin TR 1648, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PoolScores:
    """A classifier's outputs for n unlabelled rows. probabilities: (n, classes). features: (n, width), input of the last layer."""

    probabilities: Floats
    features: Floats


def least_confidence(probabilities: Floats) -> Floats:
    """Return 1 - the highest probability: (n, classes) → (n,). Lewis and Gale 1994."""
    uncertainty: Floats = 1 - probabilities.max(axis=1)
    return uncertainty


def margin(probabilities: Floats) -> Floats:
    """Return 1 - the gap between the two highest probabilities: (n, classes) → (n,). Scheffer et al. 2001."""
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    uncertainty: Floats = 1 - (first - second)
    return uncertainty


def entropy(probabilities: Floats) -> Floats:
    """Return Shannon's entropy in nats: (n, classes) → (n,). Settles 2009, section 3.1."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    uncertainty: Floats = -(probabilities * logs).sum(axis=1)
    return uncertainty


def badge(scores: PoolScores, size: int, random: np.random.Generator) -> Ints:
    """Pick uncertain and diverse rows: k-means++ over gradient embeddings (Ash et al. 2020, algorithm 1).

    A row's embedding is the gradient of its loss in the last layer for the predicted class: (p - onehot) ⊗ features. The first pick
    is the longest embedding; each further one is sampled in proportion to its squared distance from the nearest pick (Arthur and
    Vassilvitskii 2007). The outer products are never formed, so a pick costs n x (classes + width).
    """
    errors = scores.probabilities.astype(np.float64)
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    features = scores.features.astype(np.float64)
    lengths = (errors**2).sum(axis=1) * (features**2).sum(axis=1)
    picked = [int(lengths.argmax())]
    nearest = np.full(len(lengths), np.inf)
    while len(picked) < size:
        last = picked[-1]
        products = (errors @ errors[last]) * (features @ features[last])
        nearest = np.minimum(nearest, np.maximum(lengths + lengths[last] - 2 * products, 0))
        nearest[picked] = 0  # despite rounding: no row is picked twice
        total = nearest.sum()
        if total > 0:
            picked.append(int(random.choice(len(nearest), p=nearest / total)))
        else:  # the remaining rows equal a pick
            picked.append(int(random.choice(np.setdiff1d(np.arange(len(nearest)), picked))))
    return np.asarray(picked, dtype=np.int64)


def most_uncertain(uncertainty: Callable[[Floats], Floats], scores: PoolScores, size: int, random: np.random.Generator) -> Ints:
    """Pick the rows with the highest uncertainty, the first of equal ones."""
    positions: Ints = np.argsort(-uncertainty(scores.probabilities), kind="stable")[:size]
    return positions


RANDOM = "random"
"""The baseline, which needs no classifier."""
STRATEGIES: Mapping[str, Callable[[PoolScores, int, np.random.Generator], Ints]] = {
    "least-confidence": partial(most_uncertain, least_confidence),
    "margin": partial(most_uncertain, margin),
    "entropy": partial(most_uncertain, entropy),
    "badge": badge,
}
"""Name → function of (scores, number of rows, generator) that returns different positions."""
