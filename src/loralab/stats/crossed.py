"""Models trained with several seeds and tested on the same rows: intervals and tests for new rows and new seeds.

Seeds and rows are two crossed random effects, as readers and cases are in studies of diagnostic tests. The variance of a mean
over both is estimated from mean squares and its degrees of freedom follow Hillis (2007, Statistics in Medicine 26:596). An
interval over seeds alone takes the test rows as given and is too narrow; one over rows alone takes the models as given.
Values are arrays (seeds, rows), one number for each model and row: 1 where a prediction is correct, else 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from loralab.stats.intervals import Floats, Interval, score_interval, t_quantile

FEWEST_SEEDS = 3
"""Fewer seeds hardly determine a variance: intervals and tests are then for new rows and these models only."""
_MOST_DF = 1e10
"""Student's t with more degrees of freedom is the normal distribution."""


@dataclass(frozen=True)
class Difference:
    """The difference a - b of two configurations' means over seeds and rows.

    value: as measured. seeds: models of a and of b. paired: whether a and b were compared seed by seed. new_seeds: whether interval
    and p hold for new seeds too, not only for new rows. center, error, df: of the t statistic behind both.
    """

    value: float
    rows: int
    seeds: tuple[int, int]
    paired: bool
    new_seeds: bool
    center: float
    error: float
    df: float

    def interval(self, comparisons: int = 1, *, level: float = 0.95) -> Interval:
        """Return the interval that holds the true difference. Those of `comparisons` differences all hold together (Šidák 1967)."""
        margin = t_quantile(self.df, level ** (1 / comparisons)) * self.error
        return Interval(self.center - margin, self.value, self.center + margin)

    def p(self, comparisons: int = 1) -> float:
        """Return the two-sided p-value, adjusted for this many comparisons (Šidák 1967). It agrees with `interval`."""
        from scipy.special import stdtr

        single = 2 * float(stdtr(self.df, -abs(self.center) / self.error))
        return -math.expm1(comparisons * math.log1p(-single)) if single < 1 else 1.0


def difference(a: npt.ArrayLike, b: npt.ArrayLike, *, paired: bool) -> Difference:
    """Compare two configurations on the same rows. a: (seeds, rows), b: (other seeds, rows); paired: row i of both is one seed.

    Two rows are added, one on which only a is better and one on which only b is (Bonett and Price 2012), by the root mean square
    of the rows' differences. With one model on each side this is their interval, which few discordant rows do not make too narrow.
    Raises ValueError for arrays without values, with different rows, or paired with different numbers of seeds.
    """
    first, second = _values(a), _values(b)
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
        rows_only = first.mean(axis=0) - second.mean(axis=0)
        variance, df = float(rows_only.var(ddof=1) / len(rows_only)), _MOST_DF
    elif paired:
        variance, df = _variance([first - second], first - second)
    else:
        variance, df = _variance([first, second], first.mean(axis=0) - second.mean(axis=0))
    center = float(first.mean() - second.mean())
    seeds = (len(first), len(second))
    return Difference(float(by_row.mean()), len(by_row), seeds, paired, new_seeds, center, math.sqrt(variance), df)


def mean_interval(values: npt.ArrayLike, comparisons: int = 1, *, level: float = 0.95) -> Interval:
    """Return the mean of values (seeds, rows) between 0 and 1, such as an accuracy, with its interval.

    From `FEWEST_SEEDS` seeds it holds for new rows and new seeds, else for new rows and these models. It is Wilson's with the
    number of rows that have the same variance (Korn and Graubard 1998), so it lies within 0 and 1 and never has width 0; for
    one model it is Wilson's. comparisons: the number of means whose intervals shall hold together (Šidák 1967).
    """
    array = _values(values)
    seeds, rows = array.shape
    mean = float(array.mean())
    if seeds >= FEWEST_SEEDS:
        variance, df = _variance([array], array)
    else:
        variance, df = float(array.mean(axis=0).var() / rows), _MOST_DF
    n = min(mean * (1 - mean) / variance, seeds * rows) if variance > 0 else rows
    return score_interval(mean, n, t_quantile(df, level ** (1 / comparisons)))


def resampled_means(groups: list[npt.ArrayLike], resamples: int, *, seed: int = 0) -> Floats:
    """Return draws (resamples, groups) of the means of several configurations (seeds, rows) on the same rows.

    Rows are resampled together for all groups. Seeds are few, so the deviation of each mean is drawn from Student's t with the
    variance between seeds beyond that of rows; groups with one seed have none.
    """
    arrays = [_values(group) for group in groups]
    if len({array.shape[1] for array in arrays}) != 1:
        raise ValueError("the groups have different rows")
    random, rows = np.random.default_rng(seed), arrays[0].shape[1]
    by_row = np.stack([array.mean(axis=0) for array in arrays])
    counts = random.multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    draws: Floats = counts @ by_row.T / rows
    for column, array in enumerate(arrays):
        if len(array) > 1:
            squares = _mean_squares(array)
            error = math.sqrt(max(squares.seeds - squares.rest, 0) / array.size)
            draws[:, column] += error * random.standard_t(len(array) - 1, resamples)
    return draws


class _MeanSquares(NamedTuple):
    """Mean squares of a table (seeds, rows) without replication."""

    seeds: float
    rows: float
    rest: float


def _mean_squares(table: Floats) -> _MeanSquares:
    seeds, rows = table.shape
    by_seed, by_row, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    of_seeds = rows * float(((by_seed - mean) ** 2).sum()) / (seeds - 1)
    of_rows = seeds * float(((by_row - mean) ** 2).sum()) / (rows - 1)
    rest = float(((table - by_seed[:, None] - by_row + mean) ** 2).sum()) / ((seeds - 1) * (rows - 1))
    return _MeanSquares(of_seeds, of_rows, rest)


def _variance(sides: list[Floats], by_row: Floats) -> tuple[float, float]:
    """Return the variance of the mean of `by_row`, and its degrees of freedom.

    sides: the independent tables (seeds, rows) whose means are added or subtracted; by_row: that sum for each row, or the table.
    """
    squares = [_mean_squares(side) for side in sides]
    between_seeds = [square.seeds / side.size for square, side in zip(squares, sides, strict=True)]
    rest = sum(square.rest / side.size for square, side in zip(squares, sides, strict=True))
    per_row = by_row.mean(axis=0) if by_row.ndim == 2 else by_row
    between_rows = float(per_row.var(ddof=1)) / len(per_row)
    variance = sum(between_seeds) + max(between_rows - rest, 0)
    if variance == 0:  # equal means of all seeds, by chance: the rows decide
        return between_rows, _MOST_DF
    spread = sum(value**2 / (len(side) - 1) for value, side in zip(between_seeds, sides, strict=True))
    return variance, min(variance**2 / spread, _MOST_DF) if spread else _MOST_DF


def _values(values: npt.ArrayLike) -> Floats:
    array = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if array.ndim != 2 or 0 in array.shape or not np.isfinite(array).all():
        raise ValueError(f"expected finite values (seeds, rows), not shape {array.shape}")
    return array
