"""The interval of a mean that was chosen because it, or a score of the same models, was the highest of several."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from loralab.stats.crossed import as_table, errors_of_means, mean_interval, mean_squares
from loralab.stats.intervals import Floats, Interval, score_interval

_DRAWS = 40_000
"""Simulated errors of the chosen mean: an end of the interval is exact to 2 % of the error's standard deviation."""


def chosen_interval(
    groups: Sequence[npt.ArrayLike],
    chosen: int,
    chosen_by: Sequence[Sequence[float]] | None = None,
    *,
    choices: int | None = None,
    level: float = 0.95,
) -> Interval:
    """Return the mean of groups[chosen] with its interval, adjusted for having been chosen as the highest.

    groups: tables (seeds, rows) of configurations on the same rows, such as correct predictions. chosen_by: the scores (seeds,) on
    other rows, such as validation rows, by whose mean it was chosen, higher is better; None: it was chosen by these means.
    choices: the number of configurations to choose from, if it is larger than that of `groups`.

    The highest of several is probably too high, by as much as the choice follows the error of its mean. That error has three parts.
    Rows that all configurations share don't decide which is the highest. Rows on which configurations differ, and seeds, do if it
    was chosen by these means; if by scores on other rows, only the seeds do, whose effect is seen in both. The error is simulated
    with a choice of the highest of `choices` normal variables, which have the correlation with it that the data shows, as in an
    order statistic's concomitant (David and Nagaraja 2003, section 6.8). Raises as `mean_interval` does.
    """
    tables = [as_table(group) for group in groups]
    errors, best = errors_of_means(tables), tables[chosen]
    error = errors[chosen]
    if (choices or len(tables)) < 2 or error.variance == 0:
        return mean_interval(best, level=level)
    single = [_single_predictions(table) for table in tables]
    of_seeds = [max(own.of_seeds - part, 0.0) for own, part in zip(errors, single, strict=True)]
    fixed = error.of_rows + min(single[chosen], error.of_seeds)
    if chosen_by is None:
        differing = [min(part, fixed) for part in _variance_of_differing_rows(tables)]
        spread = float(np.var([table.mean() for table in tables], ddof=1)) if len(tables) > 1 else 0.0
        correlation = _ratio(math.sqrt(float(np.mean(of_seeds)) + float(np.mean(differing))), math.sqrt(spread), default=1.0)
        fixed, decisive = fixed - differing[chosen], differing[chosen]
    else:
        correlation, decisive = _correlation_with_seeds(tables, chosen_by, float(np.mean(of_seeds))), 0.0
    draws = _simulate(of_seeds[chosen], error.df, decisive, fixed, correlation, choices or len(tables))
    high = min(float(np.quantile(draws, (1 - level) / 2)), 0.0)  # the estimate stays inside
    low = max(float(np.quantile(draws, level + (draws < high).mean())), 0.0)
    mean, scale = float(best.mean()), math.sqrt(error.variance)
    n = min(mean * (1 - mean) / error.variance, best.size)
    return Interval(score_interval(mean, n, low / scale).low, mean, score_interval(mean, n, -high / scale).high)


def _simulate(of_seeds: float, df: float, of_rows: float, fixed: float, correlation: float, choices: int) -> Floats:
    """Return draws of the error of the chosen mean: a part that the choice follows, and a fixed one that it does not."""
    from scipy.special import ndtri

    random = np.random.default_rng(0)
    highest = ndtri(random.random(_DRAWS) ** (1 / choices))  # of `choices` standard normal variables
    first, second = random.standard_normal((2, _DRAWS))
    followed = correlation * highest + math.sqrt(1 - correlation**2) * first
    scale = np.sqrt(of_seeds * df / random.chisquare(df, _DRAWS) + of_rows)
    draws: Floats = scale * followed + math.sqrt(max(fixed, 0.0)) * second
    return draws


def _single_predictions(table: Floats) -> float:
    """Return the variance of the mean by predictions that neither seed nor row explains: other rows do not repeat it."""
    return mean_squares(table).rest / table.size if len(table) > 1 else 0.0


def _variance_of_differing_rows(tables: Sequence[Floats]) -> list[float]:
    """Return the variance of each mean by the rows on which configurations differ. The rows of all tables are the same."""
    by_row = np.stack([table.mean(axis=0) for table in tables])
    own = by_row - by_row.mean(axis=0)
    count = len(tables) / max(len(tables) - 1, 1)
    return [float(variance) * count / by_row.shape[1] for variance in own.var(axis=1)]


def _correlation_with_seeds(tables: Sequence[Floats], chosen_by: Sequence[Sequence[float]], of_seeds: float) -> float:
    """Return the correlation of a configuration's mean score on other rows with the error that its seeds make, between 0 and 1."""
    products, df = 0.0, 0
    for table, scores in zip(tables, chosen_by, strict=True):
        means, others = table.mean(axis=1), np.asarray(scores, dtype=np.float64)
        products += float(((means - means.mean()) * (others - others.mean())).sum()) / len(means)
        df += len(means) - 1
    spread = float(np.var([np.mean(scores) for scores in chosen_by], ddof=1)) if len(chosen_by) > 1 else 0.0
    return _ratio(products / df, math.sqrt(of_seeds * spread), default=0.0) if df else 0.0


def _ratio(part: float, whole: float, *, default: float) -> float:
    return min(max(part / whole, 0.0), 1.0) if whole > 0 else default
