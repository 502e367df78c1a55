"""How sure a measured number is: intervals of means, shares and their differences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

ROUNDS = 2000
"""Bootstrap resamples: the ends of a 95 % interval then stand on 50 draws each."""
_DRAWS_AT_ONCE = 1 << 22
Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate between the ends of its interval."""

    low: float
    estimate: float
    high: float


@dataclass(frozen=True)
class Summary:
    """Values of n runs: mean, standard deviation (n - 1), and two 95 % intervals of the mean. One run alone has only a mean."""

    n: int
    mean: float
    sd: float | None
    t: Interval | None
    bca: Interval | None


def summary(values: npt.ArrayLike, *, level: float = 0.95, rounds: int = ROUNDS, seed: int = 0) -> Summary:
    """Return mean, deviation, Student's t interval and the BCa bootstrap interval of values (n,), one a seed.

    Quote t for a handful of seeds: no resample reaches beyond the values seen, so that of normal values BCa's 95 % intervals
    hold the mean in 82 % at n = 5 and 91 % at n = 15 (t: 94 % and 95 %). From about 30 values on the two agree.
    Raises ValueError for no values, or any that is not finite.
    """
    sample = _sample(values)
    n = len(sample)
    if n == 1:
        return Summary(1, float(sample[0]), None, None, None)
    mean, sd = mean_and_sd(sample)
    reach = t_quantile(n - 1, level) * sd / math.sqrt(n)
    low, high = _bca(sample, level, rounds, np.random.default_rng(seed)) if sd > 0 else (mean, mean)
    return Summary(n, mean, sd, Interval(mean - reach, mean, mean + reach), Interval(low, mean, high))


def _sample(values: npt.ArrayLike) -> Floats:
    """Values (n,) as floats; where they differ by rounding only, all are their mean."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) == 0 or not np.isfinite(sample).all():
        raise ValueError(f"finite values, one a run, are needed, not {values!r}")
    return np.full(len(sample), np.median(sample)) if np.ptp(sample) <= 1e-12 * np.abs(sample).max() else sample


def mean_and_sd(sample: Floats) -> tuple[float, float]:
    """Mean and deviation (n - 1) of at least two values; equal values have 0, which sums miss by rounding."""
    if np.ptp(sample) == 0:
        return float(sample[0]), 0.0
    return float(sample.mean()), float(sample.std(ddof=1))


def _bca(sample: Floats, level: float, rounds: int, random: np.random.Generator) -> tuple[float, float]:
    """Ends of the bias-corrected and accelerated interval of the mean (Efron 1987; Efron and Tibshirani 1993, chapter 14)."""
    from scipy.special import ndtr, ndtri

    mean, n = sample.mean(), len(sample)
    means = _resampled_means(sample, rounds, random)
    tied = np.abs(means - mean) <= 1e-12 * np.abs(sample).max()  # the sample in another order: equal but for rounding
    below = (np.sum((means < mean) & ~tied) + tied.sum() / 2) / rounds
    bias = ndtri(np.clip(below, 0.5 / rounds, 1 - 0.5 / rounds))
    apart = (sample - mean) / (n - 1)  # of the mean of all from the mean without one
    acceleration = np.sum(apart**3) / (6 * np.sum(apart**2) ** 1.5)
    z = bias + np.array([-1, 1]) * _normal_quantile(level)
    low, high = np.quantile(means, ndtr(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def _resampled_means(sample: Floats, rounds: int, random: np.random.Generator) -> Floats:
    """Means of so many resamples with replacement, (rounds,)."""
    n = len(sample)
    at_once = max(1, _DRAWS_AT_ONCE // n)
    parts = [min(at_once, rounds - done) for done in range(0, rounds, at_once)]
    return np.concatenate([sample[random.integers(0, n, (part, n))].mean(axis=1) for part in parts])


def paired_bootstrap(a: npt.ArrayLike, b: npt.ArrayLike, *, level: float = 0.95, rounds: int = ROUNDS, seed: int = 0) -> Interval:
    """Return the mean of a - b over rows, with its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    a, b: (n,), one value a row, such as 1 where a prediction is right. Rows are resampled as pairs, so that what both sides share
    falls out. Raises ValueError for no rows or unequal lengths.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"paired rows are needed, not shapes {first.shape} and {second.shape}")
    differences = first - second
    means = _resampled_means(differences, rounds, np.random.default_rng(seed))
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


def t_quantile(df: float, level: float = 0.95) -> float:
    """Return the |t| with so many degrees of freedom that chance stays under with this probability."""
    from scipy.special import stdtrit

    quantile: Any = stdtrit(df, (1 + level) / 2)
    return float(quantile)


def _normal_quantile(level: float) -> float:
    from scipy.special import ndtri  # here, because it takes half a second to import

    quantile: Any = ndtri((1 + level) / 2)
    return float(quantile)
