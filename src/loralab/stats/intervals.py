"""Confidence intervals of means, proportions and their differences."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
"""Bootstrap resamples: 50 lie beyond each end of a 95 % interval."""
_MAX_DRAWS = 1 << 22
"""Row numbers drawn at a time, which bounds the memory."""
Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate with its confidence interval."""

    low: float
    estimate: float
    high: float


def paired_bootstrap(
    a: npt.ArrayLike, b: npt.ArrayLike, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the mean of a - b over rows with its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    a, b: (n,), one value per row, such as 1 for a correct prediction. Rows are resampled as pairs, which removes the variance that
    both sides share. Raises ValueError for no rows or unequal lengths.
    """
    first, second = (np.asarray(side, dtype=np.float64) for side in (a, b))
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"expected paired rows, not shapes {first.shape} and {second.shape}")
    differences = first - second
    n, random = len(differences), np.random.default_rng(seed)
    batch = max(1, _MAX_DRAWS // n)
    sizes = [min(batch, resamples - done) for done in range(0, resamples, batch)]  # scipy.stats.bootstrap takes three times as long
    means = np.concatenate([differences[random.integers(0, n, (size, n))].mean(axis=1) for size in sizes])
    return percentile_interval(float(differences.mean()), means, level)


def percentile_interval(estimate: float, draws: Floats | list[float], level: float) -> Interval:
    """Return an estimate with the central `level` of its bootstrap draws."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), estimate, float(high))


def wilson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Return successes / n with its score interval (Wilson 1927), which is accurate near 0 and 1 and for few rows."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n} is not a proportion")
    return score_interval(successes / n, n, _normal_quantile(level))


def score_interval(proportion: float, n: float, z: float) -> Interval:
    """Return a proportion of n rows, not necessarily a whole number of them, with Wilson's interval for the critical value z."""
    centre = (proportion + z * z / (2 * n)) / (1 + z * z / n)
    margin = z / (1 + z * z / n) * math.sqrt(proportion * (1 - proportion) / n + z * z / (4 * n * n))
    return Interval(max(0.0, min(centre - margin, proportion)), proportion, min(1.0, max(centre + margin, proportion)))


def difference_of_proportions(first: tuple[int, int], second: tuple[int, int], *, level: float = 0.95) -> Interval:
    """Return the difference of two independent proportions (successes, n) with Newcombe's interval (1998, method 10)."""
    a, b = wilson(*first, level=level), wilson(*second, level=level)
    difference = a.estimate - b.estimate
    low = difference - math.hypot(a.estimate - a.low, b.high - b.estimate)
    high = difference + math.hypot(a.high - a.estimate, b.estimate - b.low)
    return Interval(low, difference, high)


def bonferroni_bound(comparisons: int, *, level: float = 0.95) -> float:
    """Return a bound on |z| that all of this many comparisons stay under with at least this probability (Bonferroni)."""
    return _normal_quantile(1 - (1 - level) / max(1, comparisons))


def t_quantile(df: float, level: float = 0.95) -> float:
    """Return the two-sided critical value of Student's t with df degrees of freedom."""
    from scipy.special import stdtrit

    quantile: Any = stdtrit(df, (1 + level) / 2)
    return float(quantile)


def _normal_quantile(level: float) -> float:
    from scipy.special import ndtri  # SciPy takes up to half a second to import

    quantile: Any = ndtri((1 + level) / 2)
    return float(quantile)
