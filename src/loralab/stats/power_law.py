"""Learning curves: error(rows) = c + a * rows^-b, fitted, bootstrapped and validated on the largest size.

The form follows Figueroa et al. (2012) and Hestness et al. (2017). c is the irreducible error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loralab.errors import LoralabError
from loralab.stats.intervals import Floats, Interval, percentile_interval

FEWEST_SIZES = 3
"""The law has three parameters, so three sizes leave no degree of freedom; use four or more."""
MIN_EXPONENT, MAX_EXPONENT = 0.01, 3.0
REFINEMENTS = 5
"""Refinements of the grid of exponents: the relative error of b is then about 1e-5."""


@dataclass(frozen=True)
class PowerLaw:
    """error(rows) = c + a * rows^-b, as fractions; a is 0 if the errors do not fall."""

    a: float
    b: float
    c: float

    def predict(self, rows: npt.ArrayLike) -> Floats:
        """Return the error at each number of rows, in the same shape."""
        return np.asarray(self.c + self.a * np.asarray(rows, dtype=np.float64) ** -self.b, dtype=np.float64)


@dataclass(frozen=True)
class LawIntervals:
    """The irreducible error c, the exponent b, the predictions and the size from which returns diminish, with their intervals."""

    c: Interval
    b: Interval
    predictions: tuple[Interval, ...]
    diminishing: Interval


@dataclass(frozen=True)
class HoldOut:
    """The law fitted without the largest size, and its prediction there.

    gap: measured - predicted; its interval includes the noise of both terms.
    """

    rows: float
    law: PowerLaw
    measured: float
    predicted: float
    predicted_interval: Interval
    gap: Interval


def fit_power_law(rows: npt.ArrayLike, errors: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> PowerLaw:
    """Fit the law to errors (runs,) measured at rows (runs,) by least squares with a, c >= 0 and b between 0.01 and 3.

    weights: (runs,), such as 1 / variance. The default weights residuals by the inverse of the squared mean error of their size: on
    simulated curves the prediction at four times the rows is off by 1.00 points on average, with equal weights by 1.12. Raises
    LoralabError for fewer than three sizes and ValueError for invalid arrays.
    """
    curve = _curve(rows, errors, weights)
    return _solve(curve.sizes, curve.means[None], curve.weights)[0]


def law_intervals(
    rows: npt.ArrayLike,
    errors: npt.ArrayLike,
    draws: npt.ArrayLike,
    *,
    at: Sequence[float] = (),
    gain: float = 0.01,
    level: float = 0.95,
) -> LawIntervals:
    """Fit the law to each draw of the mean errors, and return the intervals of its parameters and predictions.

    rows, errors: (runs,). draws: (resamples, sizes), such as 1 - `resampled_means`; sizes ascend. at: rows to predict the error at.
    gain: as in `diminishing`. Nothing in the intervals allows for another form than the law's: see `hold_out_last`. A law whose
    irreducible error may be 0 is also fitted with 0, because the least-squares fit then has too large an exponent: the intervals
    of exponent and `diminishing` span both fits. Raises as `fit_power_law` does.
    """
    curve, drawn = _curve(rows, errors, None), np.asarray(draws, dtype=np.float64)
    law = _solve(curve.sizes, curve.means[None], curve.weights)[0]
    laws = _solve(curve.sizes, drawn, curve.weights)
    predictions = np.array([resampled.predict(at) for resampled in laws])
    c = percentile_interval(law.c, [resampled.c for resampled in laws], level)
    fits = [laws, _solve(curve.sizes, drawn, curve.weights, floor=False)] if c.low == 0 else [laws]
    b = [percentile_interval(law.b, [resampled.b for resampled in fit], level) for fit in fits]
    until = diminishing(law, gain=gain)
    returns = [percentile_interval(until, [diminishing(resampled, gain=gain) for resampled in fit], level) for fit in fits]
    return LawIntervals(
        c,
        _span(b),
        tuple(percentile_interval(float(law.predict(n)), predictions[:, i], level) for i, n in enumerate(at)),
        _span(returns),
    )


def diminishing(law: PowerLaw, *, gain: float = 0.01) -> float:
    """Return the rows above which doubling reduces the error by less than `gain` (a fraction); inf above about 1e304.

    The gain a * rows^-b * (1 - 2^-b) falls with the rows, so this point is unique. Raises ValueError for a gain of 0 or less.
    """
    if gain <= 0:
        raise ValueError(f"the gain must be above 0, not {gain}")
    if law.a <= 0:
        return 0.0
    exponent = math.log(law.a * -math.expm1(-law.b * math.log(2)) / gain) / law.b
    return math.exp(exponent) if exponent < 700 else math.inf


def hold_out_last(rows: npt.ArrayLike, errors: npt.ArrayLike, draws: npt.ArrayLike, *, level: float = 0.95) -> HoldOut:
    """Fit the law without the largest size and compare its prediction there with the measured error.

    Arguments as in `law_intervals`. Raises LoralabError for fewer than four sizes, because the fit needs three.
    """
    curve, drawn = _curve(rows, errors, None, fewest=FEWEST_SIZES + 1), np.asarray(draws, dtype=np.float64)
    sizes, last = curve.sizes[:-1], float(curve.sizes[-1])
    law = _solve(sizes, curve.means[None, :-1], curve.weights[:-1])[0]
    measured, predicted = float(curve.means[-1]), float(law.predict(last))
    predictions = np.array([resampled.predict(last) for resampled in _solve(sizes, drawn[:, :-1], curve.weights[:-1])])
    gap = percentile_interval(measured - predicted, drawn[:, -1] - predictions, level)
    return HoldOut(last, law, measured, predicted, percentile_interval(predicted, predictions, level), gap)


@dataclass(frozen=True)
class _Curve:
    """Runs grouped by size: sizes (k,) ascending, mean errors (k,), weights (k,)."""

    sizes: Floats
    means: Floats
    weights: Floats


def _curve(rows: npt.ArrayLike, errors: npt.ArrayLike, weights: npt.ArrayLike | None, *, fewest: int = FEWEST_SIZES) -> _Curve:
    x, y = np.asarray(rows, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    w = np.ones(x.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if not x.shape == y.shape == w.shape or x.ndim != 1:
        raise ValueError(f"expected one row count, error and weight per run, not shapes {x.shape}, {y.shape} and {w.shape}")
    if not np.isfinite([x, y, w]).all() or (x <= 0).any() or (y < 0).any() or (w <= 0).any():
        raise ValueError("a learning curve needs finite rows above 0, errors of at least 0 and weights above 0")
    sizes = np.unique(x)
    if len(sizes) < fewest:
        raise LoralabError(
            f"{len(sizes)} training set sizes: the power law needs at least {fewest} here; add {fewest - len(sizes)}"
        )
    total = np.array([w[x == size].sum() for size in sizes])
    means = np.array([y[x == size] @ w[x == size] for size in sizes]) / total
    if weights is None and means.any():
        total = total / np.maximum(means, 0.01 * means.max()) ** 2  # an error of 0 must not dominate
    return _Curve(sizes, means, total)


def _span(intervals: Sequence[Interval]) -> Interval:
    return Interval(min(i.low for i in intervals), intervals[0].estimate, max(i.high for i in intervals))


def _solve(sizes: Floats, means: Floats, weights: Floats, *, floor: bool = True) -> list[PowerLaw]:
    """Fit one law to each row of means (draws, k) at sizes (k,); floor=False fixes the irreducible error at 0.

    Given b the law is linear: a and c are solved at each b of a grid, which is then refined around the best b (variable projection,
    Golub and Pereyra 1973). This needs no starting values and has no local minima.
    """
    exponents = np.broadcast_to(np.geomspace(MIN_EXPONENT, MAX_EXPONENT, 64), (len(means), 64))
    draws, y, scaled, w = np.arange(len(means)), means[:, None, :], sizes / sizes[0], weights / weights.sum()
    for _ in range(REFINEMENTS):
        x = scaled ** -exponents[:, :, None]
        dx = x - (x @ w)[..., None]
        a = (dx * y) @ w / (dx**2 @ w)
        c = y @ w - a * (x @ w)
        a = np.where((c < 0) | (not floor), (x * y) @ w / (x**2 @ w), np.maximum(a, 0))  # c = 0 instead of below
        c = np.where(a > 0, np.maximum(c, 0) * floor, y @ w)
        best = ((y - c[..., None] - a[..., None] * x) ** 2 @ w).argmin(axis=1)
        solution = a[draws, best], exponents[draws, best], c[draws, best]
        low, high = exponents[draws, np.maximum(best - 1, 0)], exponents[draws, np.minimum(best + 1, exponents.shape[1] - 1)]
        exponents = np.geomspace(low, high, 17, axis=1)
    return [PowerLaw(float(a * sizes[0] ** b), float(b), float(c)) for a, b, c in zip(*solution, strict=True)]
