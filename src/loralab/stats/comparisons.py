"""Does a differ from b? Tests over seeds (paired, unpaired) and over rows (McNemar), and what may honestly be said of them.

Scores are shares, higher is better; every difference is a - b; every test is two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from loralab.stats.intervals import ROUNDS, Floats, Interval, mean_and_sd, paired_bootstrap, t_quantile

FEWEST_SEEDS = 3
"""Below this no claim is made: the deviation of two runs says next to nothing."""
MOST_ENUMERATED = 20
"""Pairs whose sign flips are all tried: about a million sums. With more pairs they are drawn."""
_FLIPS = 9999


@dataclass(frozen=True)
class Paired:
    """Two settings over the same n seeds. What n or the deviation cannot give is None.

    interval: of the mean difference, 95 %, Student's t. effect: Cohen's d_z with Hedges' correction, in deviations of the
    differences. detectable: the smallest true difference that a paired t-test at 5 % finds in 80 % of such studies, in units
    of the score, if the deviation is the one measured.
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
        """Which test `p` is from."""
        return "sign flips" if self.t_p is None else "paired t"

    @property
    def p(self) -> float:
        """The p to report: the paired t-test's, or the sign flips' where the differences do not vary and t has no measure."""
        return self.permutation_p if self.t_p is None else self.t_p


@dataclass(frozen=True)
class Unpaired:
    """Two settings over n_a and n_b runs of different seeds: Welch's t. The rest as in `Paired`."""

    n_a: int
    n_b: int
    difference: float
    interval: Interval | None
    p: float
    detectable: float | None
    test: str = "Welch's t"

    @property
    def n(self) -> int:
        """The runs of the smaller side."""
        return min(self.n_a, self.n_b)


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same rows: how many only one of them gets right, p, and the difference of their accuracies."""

    only_a: int
    only_b: int
    p: float
    interval: Interval


def paired(a: npt.ArrayLike, b: npt.ArrayLike, *, level: float = 0.95, seed: int = 0) -> Paired:
    """Compare scores a and b (n,), one pair a seed: paired t, Wilcoxon's signed ranks, sign-flip permutation, effect size.

    Wilcoxon leaves out differences of 0 and gives ties their mean rank; its p is exact for up to 20 pairs, ties or not. Ranks
    and flips are coarse: p is at least 2 / 2^n, so with 5 seeds or fewer neither can reach 0.05. Over 20 pairs 9,999 flips are
    drawn from `seed`, p = (1 + as large) / (1 + drawn) (Phipson and Smyth 2010). One pair tests nothing: p is 1.
    Raises ValueError for no pairs, unequal lengths or values that are not finite.
    """
    differences = _differences(a, b)
    n = len(differences)
    random = np.random.default_rng(seed)
    flips = _sign_flip_p(differences, random)
    ranks = _sign_flip_p(np.sign(differences) * _mean_ranks(np.abs(differences)), random)
    if n == 1:
        return Paired(1, float(differences[0]), None, None, ranks, flips, None, None)
    mean, sd = mean_and_sd(differences)
    if sd == 0:
        return Paired(n, mean, Interval(mean, mean, mean), None, ranks, flips, None if mean else 0.0, None)
    error = sd / math.sqrt(n)
    effect = _hedges(n - 1) * mean / sd if n > 2 else None
    return Paired(
        n, mean, _t_interval(mean, error, n - 1, level), _t_p(mean / error, n - 1), ranks, flips, effect, error * _detectable(n - 1)
    )


def unpaired(a: npt.ArrayLike, b: npt.ArrayLike, *, level: float = 0.95) -> Unpaired:
    """Compare scores a (n,) and b (m,) of separate runs by Welch's t (1947), for unequal deviations.

    Prefer `paired` where the seeds are the same. Where neither side varies p is that of the most extreme division of the runs
    into two sides, 2 / (n + m over n). Raises ValueError for a side without values or with any that is not finite.
    """
    first, second = (np.asarray(side, dtype=np.float64) for side in (a, b))
    for side in (first, second):
        if side.ndim != 1 or len(side) == 0 or not np.isfinite(side).all():
            raise ValueError(f"finite scores, one a run, are needed, not {side!r}")
    n, m = len(first), len(second)
    scale = max(np.abs(first).max(), np.abs(second).max())
    first, second = _round(first, scale), _round(second, scale)
    if min(n, m) == 1:
        return Unpaired(n, m, float(first.mean() - second.mean()), None, 1.0, None)
    (of_a, sd_a), (of_b, sd_b) = mean_and_sd(first), mean_and_sd(second)
    mean, variance_a, variance_b = of_a - of_b, sd_a**2 / n, sd_b**2 / m
    error = math.sqrt(variance_a + variance_b)
    if error == 0:
        p = min(1.0, 2 / math.comb(n + m, n)) if mean else 1.0
        return Unpaired(n, m, mean, Interval(mean, mean, mean), p, None, "permutation")
    df = error**4 / (variance_a**2 / (n - 1) + variance_b**2 / (m - 1))
    return Unpaired(n, m, mean, _t_interval(mean, error, df, level), _t_p(mean / error, df), error * _detectable(df))


def mcnemar(right_a: npt.ArrayLike, right_b: npt.ArrayLike, *, rounds: int = ROUNDS, seed: int = 0) -> McNemar:
    """Compare two classifiers by which rows (n,) each gets right: McNemar's mid-p test and the paired bootstrap over rows.

    Mid-p at any number of rows: the exact test rejects too seldom, the chi-squared one needs many discordant rows, mid-p keeps
    close to its level for few and many (Fagerland, Lydersen and Laake 2013). It holds for these two trained models; whether
    the next seed's differ as well is for `paired` to say. Raises ValueError for no rows or unequal lengths.
    """
    from scipy.special import bdtr

    interval = paired_bootstrap(right_a, right_b, rounds=rounds, seed=seed)
    first, second = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    only_a, only_b = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    fewer, discordant = min(only_a, only_b), only_a + only_b
    p = float(bdtr(fewer, discordant, 0.5) + (bdtr(fewer - 1, discordant, 0.5) if fewer else 0)) if only_a != only_b else 1.0
    return McNemar(only_a, only_b, p, interval)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being several, in the order given: reject those still under the level (Holm 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values lie between 0 and 1, not {p_values!r}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))) if len(p) else p
    return [float(value) for value in adjusted]


def verdict(found: Paired | Unpaired, *, level: float = 0.05, corrected_p: float | None = None) -> str:
    """Say in one line what may be claimed of a against b. Scores are shares; points are hundredths.

    corrected_p: this comparison's p from `holm`, where it is one of several; the interval stays that of this one alone.
    """
    seeds = _seeds(found)
    if found.n < FEWEST_SEEDS or found.interval is None:
        return f"{seeds}: too few for a claim; the difference is {_points(found.difference, '+')} points"
    low, difference, high = found.interval
    if low == difference == high == 0:
        return f"no difference: equal in all {seeds}"
    p = found.p if corrected_p is None else corrected_p
    tested = f"{found.test} over {seeds}, {_p_text(p, level)}{'' if corrected_p is None else ' after Holm'}"
    if p < level:
        ends = (low, high) if difference > 0 else (-high, -low)
        spread = f"{_points(ends[0])} to {_points(ends[1])}" if low < high else "the same for every seed"
        return f"{'better' if difference > 0 else 'worse'} by {_points(abs(difference))} points ({spread}; {tested})"
    spread = f"{_points(low, '+')} to {_points(high, '+')}" if low < high else "the same for every seed"
    missed = f"; one under {_points(found.detectable)} points would often be missed" if found.detectable else ""
    return f"no clear difference: {_points(difference, '+')} points ({spread}; {tested}){missed}"


def _differences(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"paired scores are needed, not shapes {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("scores that are not finite cannot be compared")
    return _round(first - second, max(np.abs(first).max(), np.abs(second).max()))


def _round(values: Floats, scale: float) -> Floats:
    """Values to 12 digits of `scale`: 0.91 - 0.90 and 0.90 - 0.89 are equal, and their ranks tied."""
    digits = 12 - math.ceil(math.log10(scale)) if scale > 0 else 12
    rounded = np.round(values, digits)
    return np.full(len(values), rounded[0]) if np.ptp(rounded) == 0 else rounded


def _mean_ranks(sizes: Floats) -> Floats:
    """Ranks from 1 of the sizes above 0, ties at their mean rank; 0 for sizes of 0 (Wilcoxon 1945)."""
    ranks = np.zeros(len(sizes))
    _, place, counts = np.unique(sizes[sizes > 0], return_inverse=True, return_counts=True)
    ranks[sizes > 0] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _sign_flip_p(values: Floats, random: np.random.Generator) -> float:
    """Share of all ways to flip the signs whose |sum| is as large as the one seen (Fisher 1935)."""
    at_least = abs(values.sum()) - 1e-9 * np.abs(values).sum()  # sums of the same values in another order differ by rounding
    if len(values) > MOST_ENUMERATED:
        signs = random.integers(0, 2, (_FLIPS, len(values))) * 2 - 1
        return float((1 + np.sum(np.abs(signs @ values) >= at_least)) / (1 + _FLIPS))
    sums = values[:1]  # the first sign may stay: the other half are the same sums with the other sign
    for value in values[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return float(np.mean(np.abs(sums) >= at_least))


def _t_interval(mean: float, error: float, df: float, level: float) -> Interval:
    reach = t_quantile(df, level) * error
    return Interval(mean - reach, mean, mean + reach)


def _t_p(t: float, df: float) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(df, -abs(t)))


def _hedges(df: int) -> float:
    """What makes d_z unbiased: sqrt(n) d_z is noncentral t with n - 1 degrees of freedom (Hedges 1981, equation 6e)."""
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)


@cache
def _detectable(df: float, *, level: float = 0.05, power: float = 0.8) -> float:
    """The true difference, in standard errors, that a two-sided t-test finds with this probability (Cohen 1988, chapter 2)."""
    from scipy.optimize import brentq
    from scipy.special import nctdtr

    beyond = t_quantile(df, 1 - level)

    def missing(shift: float) -> float:
        found: float = 1 - nctdtr(df, shift, beyond)  # the far tail adds less than 0.0001 here, and SciPy's is not always a number
        return power - found

    return float(brentq(missing, beyond, 2 * beyond))


def _seeds(found: Paired | Unpaired) -> str:
    if isinstance(found, Unpaired):
        return f"{found.n_a} and {found.n_b} seeds"
    return f"{found.n} seed" if found.n == 1 else f"{found.n} seeds"


def _points(share: float, sign: str = "") -> str:
    """Hundredths with two decimals, or one digit where two would show nothing; `+` as sign shows both signs."""
    points = 100 * share
    return f"{points:{sign}.{'1g' if 0 < abs(points) < 0.005 else '2f'}}"


def _p_text(p: float, level: float) -> str:
    """`p = 0.011`, `p < 0.001`; with more digits where three would put p on the level."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.{5 if round(p, 3) == level != p else 3}f}"
