"""Models trained with several seeds and tested on the same rows: intervals and tests for new rows and new seeds.

Seeds and rows are two crossed random effects, as readers and cases are in studies of diagnostic tests, and the variance of a mean
over both is estimated from mean squares (Hillis 2007, Statistics in Medicine 26:596).
An interval over seeds alone takes the test rows as given and is too narrow; one over rows alone takes the models as given.
Values are arrays (seeds, rows), one number for each model and row: 1 where a prediction is correct, else 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from loralab.stats.intervals import Floats, Interval, score_interval, t_quantile

FEWEST_SEEDS = 3
"""Fewer seeds hardly determine a variance: intervals and tests are then for new rows and these models only."""
_MOST_DF = 1e10
"""Student's t with more degrees of freedom is the normal distribution."""
_FEWEST_PRIOR_DF, _MOST_PRIOR_DF = 0.01, 1e6
_OUTLIER = 0.75
"""A variance above this quantile of its distribution under the prior is not shrunk."""


@dataclass(frozen=True)
class Error:
    """The distribution of an error of two parts, of which the seeds' is known from few of them and the rows' from hundreds.

    of_seeds, of_rows: their variances, the first with df degrees of freedom; 0 where intervals do not hold for new seeds.
    """

    of_seeds: float
    df: float
    of_rows: float

    @property
    def variance(self) -> float:
        """The variance of the error."""
        return self.of_seeds + self.of_rows

    @property
    def seeds_margin(self) -> float:
        """The 95 % margin that the seeds alone would have."""
        return t_quantile(self.df) * math.sqrt(self.of_seeds) if self.of_seeds else 0.0

    @property
    def rows_margin(self) -> float:
        """The 95 % margin that the rows alone would have."""
        return t_quantile(_MOST_DF) * math.sqrt(self.of_rows)

    def exceeds(self, distance: float) -> float:
        """Return the chance of an error beyond `distance` in either direction: a Student's t plus a normal variable.

        This is the fiducial distribution of Behrens and Fisher. It is exact if one part dominates and else claims too little.
        """
        from scipy.special import ndtr

        if self.of_seeds == 0:
            return 2 * float(ndtr(-distance / math.sqrt(self.of_rows)))
        shares, weights = _chi_squared_shares(self.df)
        variances = self.of_seeds / shares + self.of_rows
        return min(1.0, 2 * float(ndtr(-distance / np.sqrt(variances)) @ weights))

    def margin(self, level: float) -> float:
        """Return the distance that the error does not exceed with this probability."""
        from scipy.optimize import brentq
        from scipy.special import ndtri

        low = float(ndtri((1 + level) / 2)) * math.sqrt(self.of_rows)
        if self.of_seeds == 0:
            return low
        both = (1 + level) / 2  # each part exceeds its own bound half as often, so their sum exceeds both less often
        high = t_quantile(self.df, both) * math.sqrt(self.of_seeds) + float(ndtri((1 + both) / 2)) * math.sqrt(self.of_rows)
        return float(brentq(lambda distance: self.exceeds(distance) - (1 - level), low, high, xtol=1e-9))

    @property
    def hillis_df(self) -> float:
        """The degrees of freedom of one t for both parts (Hillis 2007)."""
        return min(self.variance**2 / (self.of_seeds**2 / self.df), _MOST_DF) if self.of_seeds else _MOST_DF


@cache
def _chi_squared_shares(df: float) -> tuple[Floats, Floats]:
    """Return nodes and weights for means over chi squared / df, dense where it is close to 0."""
    from scipy.stats import chi2

    low, high = np.log(chi2.ppf(1e-14, df)), np.log(chi2.isf(1e-14, df))
    nodes, weights = np.polynomial.legendre.leggauss(200)
    logs = (high - low) / 2 * nodes + (high + low) / 2
    weights = weights * (high - low) / 2 * np.exp(chi2.logpdf(np.exp(logs), df) + logs)
    return np.exp(logs) / df, weights / weights.sum()


@dataclass(frozen=True)
class Difference:
    """The difference a - b of two configurations' means over seeds and rows.

    value: as measured. seeds: models of a and of b. paired: whether a and b were compared seed by seed. new_seeds: whether interval
    and p hold for new seeds too, not only for new rows. center, error: of the interval.
    """

    value: float
    rows: int
    seeds: tuple[int, int]
    paired: bool
    new_seeds: bool
    center: float
    error: Error

    def interval(self, comparisons: int = 1, *, level: float = 0.95) -> Interval:
        """Return the interval that holds the true difference. Those of `comparisons` differences all hold together (Šidák 1967).

        One comparison has Hillis's t. Several reach further into its tails, where with 3 seeds it claims too much (any difference
        among 12 equal configurations in 23 % of simulated experiments); they have the distribution of Behrens and Fisher.
        """
        if comparisons == 1:
            margin = t_quantile(self.error.hillis_df, level) * math.sqrt(self.error.variance)
        else:
            margin = self.error.margin(level ** (1 / comparisons))
        return Interval(self.center - margin, self.value, self.center + margin)

    def p(self, comparisons: int = 1) -> float:
        """Return the two-sided p-value, adjusted for this many comparisons (Šidák 1967). It agrees with `interval`."""
        from scipy.special import stdtr

        if comparisons == 1:
            return 2 * float(stdtr(self.error.hillis_df, -abs(self.center) / math.sqrt(self.error.variance)))
        single = self.error.exceeds(abs(self.center))
        return -math.expm1(comparisons * math.log1p(-single)) if single < 1 else 1.0


def difference(a: npt.ArrayLike, b: npt.ArrayLike, *, paired: bool) -> Difference:
    """Compare two configurations on the same rows. a: (seeds, rows), b: (other seeds, rows); paired: row i of both is one seed.

    Two rows are added, one on which only a is better and one on which only b is (Bonett and Price 2012), by the root mean square
    of the rows' differences. With one model on each side this is their interval, which few discordant rows do not make too narrow.
    Raises ValueError for arrays without values, with different rows, or paired with different numbers of seeds.
    """
    first, second = as_table(a), as_table(b)
    if first.shape[1] != second.shape[1] or (paired and len(first) != len(second)):
        raise ValueError(f"arrays of shapes {first.shape} and {second.shape} cannot be compared{' in pairs' if paired else ''}")
    by_row = first.mean(axis=0) - second.mean(axis=0)
    differing = by_row[by_row != 0]
    step = math.sqrt((differing**2).mean()) if len(differing) else 1.0
    first = np.pad(first, ((0, 0), (0, 2)))
    first[:, -2:] = step, -step
    second = np.pad(second, ((0, 0), (0, 2)))
    new_seeds = min(len(first), len(second)) >= FEWEST_SEEDS
    if not new_seeds:
        error = _error_of_rows(first.mean(axis=0) - second.mean(axis=0))
    elif paired:
        error = error_of_mean([first - second], first.mean(axis=0) - second.mean(axis=0))
    else:
        error = error_of_mean([first, second], first.mean(axis=0) - second.mean(axis=0))
    center = float(first.mean() - second.mean())
    return Difference(float(by_row.mean()), len(by_row), (len(first), len(second)), paired, new_seeds, center, error)


def moderate(differences: Sequence[Difference]) -> list[Difference]:
    """Return differences of one experiment with the variance between seeds known better, from all of them (Smyth 2004).

    Three seeds leave a variance 2 degrees of freedom, which makes the intervals of several comparisons useless. If the variances
    are alike they are shrunk towards each other and gain degrees of freedom, at most those of all comparisons; the more they differ
    the less. One that stands out upwards stays as it is. Nothing changes for fewer than two, or different numbers of seeds.
    """
    errors = moderate_errors([test.error for test in differences])
    return [replace(test, error=error) for test, error in zip(differences, errors, strict=True)]


def moderate_errors(errors: Sequence[Error]) -> list[Error]:
    """Return errors with the variances of the seeds shrunk towards each other, as `moderate` says."""
    from scipy.special import digamma
    from scipy.stats import f as f_distribution

    if len(errors) < 2 or any(error.of_seeds == 0 or error.df != errors[0].df for error in errors):
        return [*errors]
    df = errors[0].df
    variances = np.array([error.of_seeds for error in errors])
    logs = np.log(variances) - digamma(df / 2) + math.log(df / 2)
    prior_df = min(_prior_df(float(logs.var(ddof=1)), df), df * len(errors))
    prior = math.exp(float(logs.mean()) + float(digamma(prior_df / 2)) - math.log(prior_df / 2))
    outlier = prior * float(f_distribution.ppf(_OUTLIER, df, prior_df))
    more = prior_df + df

    def shrink(error: Error) -> Error:
        of_seeds = (prior_df * prior + df * error.of_seeds) / more
        return error if error.of_seeds > outlier else replace(error, of_seeds=of_seeds, df=more)

    return [shrink(error) for error in errors]


def _prior_df(spread: float, df: float) -> float:
    """Return the degrees of freedom of the prior of variances whose logarithms have this variance (Smyth 2004, section 6.2)."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    def excess(prior_df: float) -> float:
        return spread - float(polygamma(1, df / 2) + polygamma(1, prior_df / 2))

    if excess(_MOST_PRIOR_DF) <= 0:
        return _MOST_PRIOR_DF
    return float(brentq(excess, _FEWEST_PRIOR_DF, _MOST_PRIOR_DF)) if excess(_FEWEST_PRIOR_DF) < 0 else _FEWEST_PRIOR_DF


def mean_interval(values: npt.ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the mean of values (seeds, rows) between 0 and 1, such as an accuracy, with its interval.

    From `FEWEST_SEEDS` seeds and 2 rows on it holds for new rows and new seeds, else for new rows and these models. It is Wilson's
    with the number of rows that have the same variance (Korn and Graubard 1998), so it lies within 0 and 1 and never has width 0;
    for one model it is Wilson's.
    """
    array = as_table(values)
    mean, rows, error = float(array.mean()), array.shape[1], _error_of_table(array)
    if error.variance == 0:
        return score_interval(mean, rows, Error(0, 1, 1).margin(level))
    n = min(mean * (1 - mean) / error.variance, array.size)
    return score_interval(mean, n, error.margin(level) / math.sqrt(error.variance))


def resampled_means(groups: list[npt.ArrayLike], resamples: int, *, seed: int = 0) -> Floats:
    """Return draws (resamples, groups) of the means of several configurations (seeds, rows) on the same rows.

    Rows are resampled together for all groups. Seeds are few, so the deviation of each mean is drawn from Student's t with the
    variance between seeds beyond that of rows, shrunk as by `errors_of_means`; groups with one seed have none.
    """
    arrays = [as_table(group) for group in groups]
    if len({array.shape[1] for array in arrays}) != 1:
        raise ValueError("the groups have different rows")
    random, rows = np.random.default_rng(seed), arrays[0].shape[1]
    by_row = np.stack([array.mean(axis=0) for array in arrays])
    counts = random.multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    draws: Floats = counts @ by_row.T / rows
    for column, (array, error) in enumerate(zip(arrays, errors_of_means(arrays, fewest_seeds=2), strict=True)):
        if error.of_seeds:
            variance = max(error.of_seeds - mean_squares(array).rest / array.size, 0.0)
            draws[:, column] += math.sqrt(variance) * random.standard_t(error.df, resamples)
    return draws


def errors_of_means(tables: Sequence[Floats], *, fewest_seeds: int = FEWEST_SEEDS) -> list[Error]:
    """Return the errors of the means of tables (seeds, rows) of values between 0 and 1.

    The error of a table with fewer seeds, or fewer than 2 rows, is that of the rows alone. The variances of the seeds are shrunk
    towards each other as by `moderate`, as multiples of mean * (1 - mean).
    """
    scales = [max(float(table.mean() * (1 - table.mean())), 1e-12) for table in tables]
    errors = [_error_of_table(table, fewest_seeds) for table in tables]
    relative = [replace(error, of_seeds=error.of_seeds / scale) for error, scale in zip(errors, scales, strict=True)]
    return [replace(e, of_seeds=e.of_seeds * scale) for e, scale in zip(moderate_errors(relative), scales, strict=True)]


def _error_of_table(table: Floats, fewest_seeds: int = FEWEST_SEEDS) -> Error:
    by_row = table.mean(axis=0)
    few = len(table) < fewest_seeds or table.shape[1] < 2
    return Error(0.0, 1.0, float(by_row.var()) / table.shape[1]) if few else error_of_mean([table], by_row)


class MeanSquares(NamedTuple):
    """Mean squares of a table (seeds, rows) without replication: between seeds, and of what neither seed nor row explains."""

    seeds: float
    rest: float


def mean_squares(table: Floats) -> MeanSquares:
    """Return the mean squares of a table (seeds, rows)."""
    seeds, rows = table.shape
    by_seed, by_row, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    of_seeds = rows * float(((by_seed - mean) ** 2).sum()) / (seeds - 1)
    df = (seeds - 1) * max(rows - 1, 1)  # of one row the rest is 0
    rest = float(((table - by_seed[:, None] - by_row + mean) ** 2).sum()) / df
    return MeanSquares(of_seeds, rest)


def _error_of_rows(by_row: Floats) -> Error:
    return Error(0.0, 1.0, float(by_row.var(ddof=1)) / len(by_row))


def error_of_mean(sides: list[Floats], by_row: Floats) -> Error:
    """Return the error of the mean of by_row (rows,): the mean over seeds of one side, or the difference of two.

    sides: the independent tables (seeds, rows) behind it. The degrees of freedom of two sides are Welch's.
    """
    parts = [(mean_squares(side), side) for side in sides]
    of_seeds = sum(squares.seeds / side.size for squares, side in parts)
    rest = sum(squares.rest / side.size for squares, side in parts)
    spread = sum((squares.seeds / side.size) ** 2 / (len(side) - 1) for squares, side in parts)
    rows = _error_of_rows(by_row)
    if spread == 0:  # the seeds have equal means: all variance is that of the rows
        return rows
    return Error(of_seeds, of_seeds**2 / spread, max(rows.of_rows - rest, 0.0))


def as_table(values: npt.ArrayLike) -> Floats:
    """Return values as a table (seeds, rows). Raises ValueError for other shapes, no values and values that are not finite."""
    array = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if array.ndim != 2 or 0 in array.shape or not np.isfinite(array).all():
        raise ValueError(f"expected finite values (seeds, rows), not shape {array.shape}")
    return array
