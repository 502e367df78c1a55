"""Which rows to label next: probabilities and features of unlabelled rows → positions. Pure functions of arrays and a stream.

Settles 2009 surveys them (Active Learning Literature Survey, Wisconsin TR 1648, section 3.1); each cites where it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scored:
    """What a classifier says of n unlabelled rows. probabilities: (n, classes); features: (n, width), what its last map reads."""

    probabilities: Floats
    features: Floats


def least_confidence(probabilities: Floats) -> Floats:
    """One less the highest probability: (n, classes) → (n,). Lewis and Gale 1994."""
    found: Floats = 1 - probabilities.max(axis=1)
    return found


def margin(probabilities: Floats) -> Floats:
    """One less the gap between the two highest probabilities: (n, classes) → (n,). Scheffer et al. 2001."""
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    found: Floats = 1 - (first - second)
    return found


def entropy(probabilities: Floats) -> Floats:
    """Shannon's entropy in nats, 0 log 0 being 0: (n, classes) → (n,). Settles 2009, section 3.1."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    found: Floats = -(probabilities * logs).sum(axis=1)
    return found


def badge(scored: Scored, size: int, random: np.random.Generator) -> Ints:
    """Pick rows that are uncertain and unlike each other: k-means++ over gradient embeddings (Ash et al. 2020, algorithm 1).

    A row's embedding is the gradient of its loss in the last linear map, were the predicted class right: (p - onehot) ⊗ features.
    The first pick has the longest; each other is drawn in proportion to its squared distance from the nearest pick so far
    (Arthur and Vassilvitskii 2007). The outer products are never formed: a pick costs n x (classes + width).
    """
    errors = scored.probabilities.astype(np.float64)
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    features = scored.features.astype(np.float64)
    lengths = (errors**2).sum(axis=1) * (features**2).sum(axis=1)
    picked = [int(lengths.argmax())]
    nearest = np.full(len(lengths), np.inf)
    while len(picked) < size:
        last = picked[-1]
        products = (errors @ errors[last]) * (features @ features[last])
        nearest = np.minimum(nearest, np.maximum(lengths + lengths[last] - 2 * products, 0))
        nearest[picked] = 0  # rounding leaves a little, and no row is picked twice
        total = nearest.sum()
        if total > 0:
            picked.append(int(random.choice(len(nearest), p=nearest / total)))
        else:  # all that is left equals a pick
            picked.append(int(random.choice(np.setdiff1d(np.arange(len(nearest)), picked))))
    return np.asarray(picked, dtype=np.int64)


def _most(uncertainty: Callable[[Floats], Floats]) -> Callable[[Scored, int, np.random.Generator], Ints]:
    """The rows with the highest uncertainty; among equals the first."""

    def pick(scored: Scored, size: int, random: np.random.Generator) -> Ints:
        positions: Ints = np.argsort(-uncertainty(scored.probabilities), kind="stable")[:size]
        return positions

    return pick


RANDOM = "random"
"""The strategy to beat: it asks no classifier."""
STRATEGIES: Mapping[str, Callable[[Scored, int, np.random.Generator], Ints]] = {
    "least-confidence": _most(least_confidence),
    "margin": _most(margin),
    "entropy": _most(entropy),
    "badge": badge,
}
"""Name → (scored rows, how many, stream) → positions, none twice. `random` needs none of it."""
