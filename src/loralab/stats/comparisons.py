"""Compare two configurations over seeds (paired, unpaired) or two models over rows (McNemar), and state what the test supports.

Scores are fractions, higher is better. Every difference is a - b. Every test is two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from loralab.stats.intervals import RESAMPLES, Floats, Interval, mean_and_sd, paired_bootstrap, t_quantile

FEWEST_SEEDS = 3
"""No claim is made below this: two runs hardly determine a standard deviation."""
_FLIPS = 9999
"""SciPy's default: all sign flips are tested up to 13 pairs, a random sample of this size above."""


@dataclass(frozen=True)
class Paired:
    """Two configurations over the same n seeds. None: undefined for this n or without variation.

    interval: 95 % Student's t interval of the mean difference. effect: Cohen's d_z with Hedges' correction, in standard deviations
    of the differences. detectable: the smallest true difference that a paired t-test at 5 % detects with 80 % power, in units of
    the score, given the measured standard deviation.
    """

    n: int
    difference: float
    interval: Interval | None
    t_p: float | None
    wilcoxon_p: float
    permutation_p: float
    effect: float | None
    detectable: float | None

    @property
    def test(self) -> str:
        """The test that `p` comes from."""
        return "sign flips" if self.t_p is None else "paired t"

    @property
    def p(self) -> float:
        """The p-value to report: the paired t-test's, or the sign-flip test's if all differences are equal and t is undefined."""
        return self.permutation_p if self.t_p is None else self.t_p


@dataclass(frozen=True)
class Unpaired:
    """Two configurations over n_a and n_b independent runs: Welch's t. The other fields as in `Paired`."""

    n_a: int
    n_b: int
    difference: float
    interval: Interval | None
    p: float
    detectable: float | None
    test: str = "Welch's t"

    @property
    def n(self) -> int:
        """Runs of the smaller group."""
        return min(self.n_a, self.n_b)


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same rows: rows that only one of them classifies correctly, p, and the difference in accuracy."""

    only_a: int
    only_b: int
    p: float
    interval: Interval


def paired(a: npt.ArrayLike, b: npt.ArrayLike, *, level: float = 0.95, seed: int = 0) -> Paired:
    """Compare scores a and b (n,), one pair per seed: paired t, Wilcoxon's signed ranks, sign-flip permutation, effect size.

    Wilcoxon drops zero differences and gives ties their mean rank. Ranks and sign flips are permutation tests: exact up to 13
    pairs, ties included, with p at least 2 / 2^n, so 5 seeds cannot reach 0.05. Above 13 pairs `seed` samples 9,999 flips and
    p = (1 + as extreme) / (1 + sampled) (Phipson and Smyth 2010). For one pair p is 1.
    Raises ValueError for no pairs, unequal lengths or non-finite values.
    """
    from scipy.stats import rankdata, ttest_1samp

    differences = _differences(a, b)
    n = len(differences)
    random = np.random.default_rng(seed)
    flips = _sign_flip_p(differences, random)
    nonzero = differences[differences != 0]
    ranks = _sign_flip_p(np.sign(nonzero) * rankdata(np.abs(nonzero)), random)
    if n == 1:
        return Paired(1, float(differences[0]), None, None, ranks, flips, None, None)
    mean, sd = mean_and_sd(differences)
    if sd == 0:
        return Paired(n, mean, Interval(mean, mean, mean), None, ranks, flips, None if mean else 0.0, None)
    test = ttest_1samp(differences, 0)
    low, high = test.confidence_interval(level)
    effect = _hedges(n - 1) * mean / sd if n > 2 else None
    detectable = sd / math.sqrt(n) * _detectable(n - 1)
    return Paired(n, mean, Interval(float(low), mean, float(high)), float(test.pvalue), ranks, flips, effect, detectable)


def unpaired(a: npt.ArrayLike, b: npt.ArrayLike, *, level: float = 0.95) -> Unpaired:
    """Compare scores a (n,) and b (m,) of independent runs by Welch's t (1947), for unequal variances.

    Prefer `paired` for equal seeds. If neither side varies, p is that of the most extreme permutation, 2 / (n + m choose n).
    Raises ValueError for an empty side or non-finite values.
    """
    from scipy.stats import ttest_ind_from_stats

    first, second = (np.asarray(side, dtype=np.float64) for side in (a, b))
    for side in (first, second):
        if side.ndim != 1 or len(side) == 0 or not np.isfinite(side).all():
            raise ValueError(f"expected finite scores, one per run, not {side!r}")
    n, m = len(first), len(second)
    scale = max(np.abs(first).max(), np.abs(second).max())
    first, second = _round(first, scale), _round(second, scale)
    if min(n, m) == 1:
        return Unpaired(n, m, float(first.mean() - second.mean()), None, 1.0, None)
    (mean_a, sd_a), (mean_b, sd_b) = mean_and_sd(first), mean_and_sd(second)
    mean, variance_a, variance_b = mean_a - mean_b, sd_a**2 / n, sd_b**2 / m
    error = math.sqrt(variance_a + variance_b)
    if error == 0:
        p = min(1.0, 2 / math.comb(n + m, n)) if mean else 1.0
        return Unpaired(n, m, mean, Interval(mean, mean, mean), p, None, "permutation")
    df = error**4 / (variance_a**2 / (n - 1) + variance_b**2 / (m - 1))
    p = float(ttest_ind_from_stats(mean_a, sd_a, n, mean_b, sd_b, m, equal_var=False).pvalue)
    margin = t_quantile(df, level) * error
    return Unpaired(n, m, mean, Interval(mean - margin, mean, mean + margin), p, error * _detectable(df))


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> McNemar:
    """Compare two classifiers by the rows (n,) each classifies correctly: McNemar's mid-p test and the paired bootstrap over rows.

    The mid-p test is close to its nominal level for few and many discordant rows; the exact test is conservative and the
    chi-squared test needs many rows (Fagerland, Lydersen and Laake 2013). The result is about these two trained models; use
    `paired` for a claim over seeds. Raises ValueError for no rows or unequal lengths.
    """
    from scipy.special import bdtr

    interval = paired_bootstrap(correct_a, correct_b, resamples=resamples, seed=seed)
    first, second = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    only_a, only_b = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    fewer, discordant = min(only_a, only_b), only_a + only_b
    p = float(bdtr(fewer, discordant, 0.5) + (bdtr(fewer - 1, discordant, 0.5) if fewer else 0)) if only_a != only_b else 1.0
    return McNemar(only_a, only_b, p, interval)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm-adjusted p-values (1979) in the given order. Raises ValueError for values outside 0 to 1."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must be between 0 and 1, not {p_values!r}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))) if len(p) else p
    return [float(value) for value in adjusted]


def verdict(test: Paired | Unpaired, *, level: float = 0.05, adjusted_p: float | None = None) -> str:
    """State in one line what the test supports about a against b, in percentage points.

    adjusted_p: this comparison's p from `holm` if it is one of several. The interval is not adjusted.
    """
    seeds = _seeds(test)
    if test.n < FEWEST_SEEDS or test.interval is None:
        return f"{seeds}: too few for a claim; the difference is {_points(test.difference, '+')} points"
    low, difference, high = test.interval
    if low == difference == high == 0:
        return f"no difference: equal in all {seeds}"
    p = test.p if adjusted_p is None else adjusted_p
    evidence = f"{test.test} over {seeds}, {_p_text(p, level)}{'' if adjusted_p is None else ' after Holm'}"
    if p < level:
        ends = (low, high) if difference > 0 else (-high, -low)
        spread = f"{_points(ends[0])} to {_points(ends[1])}" if low < high else "the same for every seed"
        return f"{'better' if difference > 0 else 'worse'} by {_points(abs(difference))} points ({spread}; {evidence})"
    spread = f"{_points(low, '+')} to {_points(high, '+')}" if low < high else "the same for every seed"
    power = f"; differences under {_points(test.detectable)} points would often be missed" if test.detectable else ""
    return f"no significant difference: {_points(difference, '+')} points ({spread}; {evidence}){power}"


def _differences(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"expected paired scores, not shapes {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("scores are not finite")
    return _round(first - second, max(np.abs(first).max(), np.abs(second).max()))


def _round(values: Floats, scale: float) -> Floats:
    """Round to 12 digits of `scale`, so that 0.91 - 0.90 and 0.90 - 0.89 are equal and their ranks tied."""
    digits = 12 - math.ceil(math.log10(scale)) if scale > 0 else 12
    rounded = np.round(values, digits)
    return np.full(len(values), rounded[0]) if np.ptp(rounded) == 0 else rounded


def _sign_flip_p(values: Floats, random: np.random.Generator) -> float:
    """Return the fraction of sign flips whose |sum| is at least the observed one (Fisher 1935)."""
    from scipy.stats import permutation_test

    if len(values) < 2 or not values.any():
        return 1.0
    total = np.abs(values).sum()
    result = permutation_test(
        (values,),
        lambda sample, axis: 1 + np.abs(sample.sum(axis=axis)) / total,  # SciPy's tolerance for ties is relative: 2e-14 with the 1
        permutation_type="samples",
        vectorized=True,
        alternative="greater",
        n_resamples=_FLIPS,
        rng=random,
    )
    return float(result.pvalue)


def _hedges(df: int) -> float:
    """Return the factor that makes d_z unbiased: sqrt(n) d_z is noncentral t with n - 1 degrees of freedom (Hedges 1981, 6e)."""
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)


@cache
def _detectable(df: float, *, level: float = 0.05, power: float = 0.8) -> float:
    """Return the true difference, in standard errors, that a two-sided t-test detects with this power (Cohen 1988, chapter 2)."""
    from scipy.optimize import brentq
    from scipy.special import nctdtr

    critical = t_quantile(df, 1 - level)

    def missing_power(shift: float) -> float:
        return float(power - 1 + nctdtr(df, shift, critical))  # the far tail adds less than 0.0001; SciPy's may be nan

    return float(brentq(missing_power, critical, 2 * critical))


def _seeds(test: Paired | Unpaired) -> str:
    if isinstance(test, Unpaired):
        return f"{test.n_a} and {test.n_b} seeds"
    return f"{test.n} seed" if test.n == 1 else f"{test.n} seeds"


def _points(fraction: float, sign: str = "") -> str:
    """Format percentage points with two decimals, or one digit if those would be zero; sign="+" shows both signs."""
    points = 100 * fraction
    return f"{points:{sign}.{'1g' if 0 < abs(points) < 0.005 else '2f'}}"


def _p_text(p: float, level: float) -> str:
    """Format p as `p = 0.011` or `p < 0.001`, with more digits if three would equal the level."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.{5 if round(p, 3) == level != p else 3}f}"
