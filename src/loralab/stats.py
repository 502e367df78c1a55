"""Intervals and tests: how sure a measured number is. Pure functions of arrays and a seed."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

ROUNDS = 2000
"""Bootstrap resamples: the ends of a 95 % interval then stand on 50 draws each."""
_DRAWS_AT_ONCE = 1 << 22


class Interval(NamedTuple):
    """An estimate between the ends of its interval."""

    low: float
    estimate: float
    high: float


def paired_bootstrap(a: npt.ArrayLike, b: npt.ArrayLike, *, level: float = 0.95, rounds: int = ROUNDS, seed: int = 0) -> Interval:
    """Return the mean of a - b over rows, with its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    a, b: (n,), one value a row, such as 1 where a prediction is right. Rows are resampled as pairs, so that what both sides share
    falls out. Raises ValueError for no rows or unequal lengths.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"paired rows are needed, not shapes {first.shape} and {second.shape}")
    differences = first - second
    random = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // len(differences))
    means = np.concatenate(
        [
            differences[random.integers(0, len(differences), (min(at_once, rounds - done), len(differences)))].mean(axis=1)
            for done in range(0, rounds, at_once)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(differences.mean()), float(high))


def wilson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Return the share successes / n with its score interval (Wilson 1927), which also holds near 0 and 1 and for few rows."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n} is not a share")
    z, share = _normal_quantile(level), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(max(0.0, centre - reach), share, min(1.0, centre + reach))


def difference_of_shares(first: tuple[int, int], second: tuple[int, int], *, level: float = 0.95) -> Interval:
    """Return the difference of two shares (successes, n) of separate rows, with Newcombe's interval (1998, method 10)."""
    a, b = wilson(*first, level=level), wilson(*second, level=level)
    difference = a.estimate - b.estimate
    low = difference - math.hypot(a.estimate - a.low, b.high - b.estimate)
    high = difference + math.hypot(a.high - a.estimate, b.estimate - b.low)
    return Interval(low, difference, high)


def beyond_chance(comparisons: int, *, level: float = 0.95) -> float:
    """Return the |z| that the largest of so many comparisons stays under with this probability, at least (Bonferroni)."""
    return _normal_quantile(1 - (1 - level) / max(1, comparisons))


def _normal_quantile(level: float) -> float:
    from scipy.special import ndtri  # here, because it takes half a second to import

    quantile: Any = ndtri((1 + level) / 2)
    return float(quantile)
