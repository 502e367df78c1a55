"""The fit against laws that are known, SciPy's optimiser, and simulated curves beyond their last point."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import least_squares

from loralab.errors import LoralabError
from loralab.stats import PowerLaw, diminishing, fit_power_law, hold_out_last, law_intervals

SIZES = np.array([100.0, 200, 400, 800, 1600])
LAW = PowerLaw(a=1.0, b=0.35, c=0.08)
Floats = npt.NDArray[np.float64]


def _curves(seeds: int, random: np.random.Generator, *, deviation: float = 0.1) -> tuple[Floats, Floats]:
    """Rows and errors of so many seeds at every size; the fewer the rows, the more the seeds differ."""
    truth = LAW.predict(SIZES)
    errors = truth + random.normal(size=(seeds, len(SIZES))) * (deviation * (truth - LAW.c) + deviation / 5 * truth)
    return np.tile(SIZES, seeds), np.clip(errors, 0, 1).ravel()


@given(st.floats(0.2, 20), st.floats(0.05, 2.5), st.floats(0, 0.3), st.sampled_from([3, 4, 7]))
def test_a_law_without_noise_is_found_again(a: float, b: float, c: float, points: int) -> None:
    rows = 50 * 2.0 ** np.arange(points)
    law = PowerLaw(a, b, c)
    found = fit_power_law(rows, law.predict(rows))
    assert found.predict(rows) == pytest.approx(law.predict(rows), rel=1e-4, abs=1e-7)
    assert found.predict(4 * rows[-1]) == pytest.approx(law.predict(4 * rows[-1]), rel=0.002, abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("weighted", [False, True])
def test_no_optimiser_finds_a_better_fit(seed: int, weighted: bool) -> None:
    random = np.random.default_rng(seed)
    rows, errors = _curves(2, random)
    weights = random.random(len(rows)) + 0.1 if weighted else None
    means = {size: errors[rows == size].mean() for size in SIZES}
    scale = np.sqrt(weights) if weights is not None else 1 / np.array([means[n] for n in rows])

    def residuals(p: Floats) -> Floats:
        return scale * (p[2] + p[0] * (rows / 100) ** -p[1] - errors)

    bounds = ([0, 0.01, 0], [np.inf, 3, 1])
    best = min(least_squares(residuals, [0.2, b, c], bounds=bounds, xtol=1e-14).cost for b in (0.1, 0.5, 1.5) for c in (0, 0.1))
    law = fit_power_law(rows, errors, weights)
    cost = np.sum(residuals(np.array([law.a * 100**-law.b, law.b, law.c])) ** 2) / 2
    assert cost <= best * (1 + 1e-6)


def test_the_bounds_hold() -> None:
    rising = np.array([0.1, 0.11, 0.12, 0.13, 0.14])
    flat = fit_power_law(SIZES, rising)
    assert flat.a == 0
    assert flat.c == pytest.approx(np.average(rising, weights=rising**-2))
    falling_ever_faster = fit_power_law(SIZES, [0.5, 0.45, 0.38, 0.25, 0.05])
    assert falling_ever_faster.c == 0
    assert falling_ever_faster.a > 0
    assert fit_power_law(SIZES, [0.2] * 5).predict(1e6) == pytest.approx(0.2)
    assert fit_power_law(SIZES, [0.0] * 5).predict(1e6) == 0
    assert 0 <= fit_power_law(SIZES, [0.2, 0.1, 0.05, 0.0, 0.0]).predict(1e6) < 0.01


def test_weights_count_as_repeats_do() -> None:
    errors = LAW.predict(SIZES) + np.array([0.01, -0.01, 0.01, -0.01, 0.02])
    twice = fit_power_law([*SIZES, 1600], [*errors, errors[-1]], np.ones(6))
    assert fit_power_law(SIZES, errors, [1, 1, 1, 1, 2]) == twice != fit_power_law(SIZES, errors, np.ones(5))


@pytest.mark.slow
def test_relative_residuals_predict_better_than_plain_ones() -> None:
    """The figures in the docstring: 6 laws at 3 sets of sizes with 1, 3 and 5 seeds, all runs scored on the same 3,800 rows."""
    laws = [(2.0, 0.5, 0.05), (1.0, 0.35, 0.08), (0.6, 0.2, 0.0), (3.0, 0.7, 0.1), (0.8, 0.3, 0.02), (8.0, 1.0, 0.06)]
    grids = [[100, 200, 400, 800, 1600], [50, 200, 1000, 5000], [10, 50, 100, 500, 1000, 5000, 10000]]
    random, off = np.random.default_rng(0), []
    for law, sizes, seeds in itertools.product([PowerLaw(*law) for law in laws], grids, (1, 3, 5)):
        truth, far = law.predict(sizes), 4 * sizes[-1]
        if truth[0] > 0.75:  # worse than chance
            continue
        spread, rows_alike = 0.15 * (truth - law.c) + 0.03 * truth, np.sqrt(truth * (1 - truth) / 3800)
        for _ in range(40):
            runs = truth + random.normal(size=(seeds, len(sizes))) * spread
            shared = (0.85 * random.normal() + 0.5 * random.normal(size=len(sizes))) * rows_alike
            errors = np.clip(runs.mean(axis=0) + shared, 0.001, 1)
            off.append([abs(fit_power_law(sizes, errors, w).predict(far) - law.predict(far)) for w in (None, np.ones(len(sizes)))])
    relative, plain = 100 * np.mean(off, axis=0)
    assert (relative, plain) == (pytest.approx(1.00, abs=0.08), pytest.approx(1.12, abs=0.08))
    assert relative < 0.95 * plain


def _draws(errors: Floats, random: np.random.Generator) -> Floats:
    """Means of each size, redrawn from their t distribution."""
    by_seed = errors.reshape(-1, len(SIZES))
    error = by_seed.std(axis=0, ddof=1) / math.sqrt(len(by_seed))
    return np.clip(by_seed.mean(axis=0) + error * random.standard_t(len(by_seed) - 1, (300, len(SIZES))), 0, 1)


@pytest.mark.parametrize("law", [LAW, PowerLaw(a=1.0, b=0.4, c=0.0)], ids=["floor", "no-floor"])
def test_intervals_hold_the_law(law: PowerLaw) -> None:
    random = np.random.default_rng(0)
    far = 4 * SIZES[-1]
    truth = [law.c, law.b, float(law.predict(far)), diminishing(law), 0.0]
    hits = []
    for _ in range(60):
        errors = np.tile(law.predict(SIZES), 5) * (1 + 0.03 * random.normal(size=5 * len(SIZES)))
        rows, draws = np.tile(SIZES, 5), _draws(errors, random)
        result, checked = law_intervals(rows, errors, draws, at=[far]), hold_out_last(rows, errors, draws)
        intervals = (result.c, result.b, *result.predictions, result.diminishing, checked.gap)
        hits.append([i.low <= true <= i.high for i, true in zip(intervals, truth, strict=True)])
    assert (np.mean(hits, axis=0) >= 0.88).all(), np.mean(hits, axis=0)
    fitted = fit_power_law(rows, errors)
    assert (result.c.estimate, result.predictions[0].estimate) == (fitted.c, float(fitted.predict(far)))
    assert result.diminishing.estimate == diminishing(fitted)


def test_intervals_are_quantiles_of_fits_to_the_draws() -> None:
    """Every draw is fitted with the weights of the measured curve."""
    random = np.random.default_rng(1)
    rows, errors = _curves(5, random, deviation=0.02)
    draws, means = _draws(errors, random)[:40], errors.reshape(-1, len(SIZES)).mean(axis=0)
    fits = [fit_power_law(SIZES, draw, means**-2) for draw in draws]
    result = law_intervals(rows, errors, draws, at=[3200, 6400], gain=0.02, level=0.8)
    assert result.c.low > 0
    values = {
        result.c: [fit.c for fit in fits],
        result.b: [fit.b for fit in fits],
        result.predictions[0]: [float(fit.predict(3200)) for fit in fits],
        result.predictions[1]: [float(fit.predict(6400)) for fit in fits],
        result.diminishing: [diminishing(fit, gain=0.02) for fit in fits],
    }
    for interval, drawn in values.items():
        assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(drawn, [0.1, 0.9])), rel=1e-9)
    assert result.diminishing.estimate == diminishing(fit_power_law(rows, errors), gain=0.02)
    usual = law_intervals(rows, errors, draws)
    assert usual == law_intervals(rows, errors, draws, at=(), gain=0.01, level=0.95)
    shorter = [fit_power_law(SIZES[:-1], draw[:-1], means[:-1] ** -2) for draw in draws]
    checked = hold_out_last(rows, errors, draws, level=0.8)
    predicted = np.array([float(fit.predict(1600)) for fit in shorter])
    assert checked.predicted_interval.estimate == checked.predicted
    assert checked.predicted_interval[::2] == pytest.approx(tuple(np.quantile(predicted, [0.1, 0.9])), rel=1e-9)
    assert checked.gap[::2] == pytest.approx(tuple(np.quantile(draws[:, -1] - predicted, [0.1, 0.9])), rel=1e-9)
    assert hold_out_last(rows, errors, draws) == hold_out_last(rows, errors, draws, level=0.95)


def test_where_the_floor_may_be_0_exponent_and_returns_span_the_fits_with_and_without_it() -> None:
    random = np.random.default_rng(2)
    law = PowerLaw(a=1.0, b=0.4, c=0.0)
    rows, errors = np.tile(SIZES, 5), np.tile(law.predict(SIZES), 5) * (1 + 0.03 * random.normal(size=5 * len(SIZES)))
    draws, means = _draws(errors, random)[:40], errors.reshape(-1, len(SIZES)).mean(axis=0)
    result = law_intervals(rows, errors, draws)
    assert result.c.low == 0
    free = [fit_power_law(SIZES, draw, means**-2) for draw in draws]

    def without_floor(draw: Floats) -> PowerLaw:
        residuals = lambda p: (p[0] * (SIZES / 100) ** -p[1] - draw) / means  # noqa: E731
        a, b = least_squares(residuals, [0.2, 0.4], xtol=1e-14).x
        return PowerLaw(a * 100**b, b, 0.0)

    plain = [without_floor(draw) for draw in draws]
    for interval, value in ((result.b, lambda fit: fit.b), (result.diminishing, diminishing)):
        ends = [np.quantile([value(fit) for fit in fits], [0.025, 0.975]) for fits in (free, plain)]
        assert interval.low == pytest.approx(min(low for low, _ in ends), rel=1e-4)
        assert interval.high == pytest.approx(max(high for _, high in ends), rel=1e-4)
        assert interval.estimate == value(fit_power_law(rows, errors))


def test_the_last_point_is_left_out() -> None:
    random = np.random.default_rng(0)
    rows, errors = _curves(5, random)
    result = hold_out_last(rows, errors, _draws(errors, random))
    before = rows < 1600
    assert result.law == fit_power_law(rows[before], errors[before])
    assert (result.rows, result.predicted) == (1600, float(result.law.predict(1600)))
    assert result.measured == pytest.approx(errors[~before].mean())
    assert result.gap.estimate == pytest.approx(result.measured - result.predicted)
    assert result.gap.high - result.gap.low > result.predicted_interval.high - result.predicted_interval.low
    broken = np.where(before, errors, errors + 0.15)  # what no power law of the first four sizes says
    assert hold_out_last(rows, broken, _draws(broken, random)).gap.low > 0


def test_doubling_gains_less_from_there_on() -> None:
    for gain in (0.001, 0.01, 0.05):
        rows = diminishing(LAW, gain=gain)
        assert LAW.predict(rows) - LAW.predict(2 * rows) == pytest.approx(gain)
        assert LAW.predict(1.1 * rows) - LAW.predict(2.2 * rows) < gain
    assert diminishing(PowerLaw(1.0, 1.0, 0.1)) == pytest.approx(50)  # 1 / n - 1 / 2n = 0.01
    assert diminishing(PowerLaw(0.0, 0.5, 0.1)) == 0
    assert diminishing(PowerLaw(10.0, 0.01, 0.0), gain=1e-6) == math.inf
    with pytest.raises(ValueError, match="above 0"):
        diminishing(LAW, gain=0)


def test_invalid_curves_are_refused() -> None:
    with pytest.raises(LoralabError, match=r"2 training set sizes.*add 1"):
        fit_power_law([100, 200, 200], [0.3, 0.2, 0.2])
    with pytest.raises(LoralabError, match=r"3 training set sizes.*at least 4"):
        hold_out_last([100, 200, 400], [0.3, 0.2, 0.1], np.ones((5, 3)))
    for rows, errors in (([0, 1, 2], [0.1] * 3), ([1, 2, 3], [0.1, -0.1, 0.1]), ([1, 2, 3], [0.1, math.nan, 0.1])):
        with pytest.raises(ValueError, match="a learning curve"):
            fit_power_law(rows, errors)
    with pytest.raises(ValueError, match="a learning curve"):
        fit_power_law([1, 2, 3], [0.3, 0.2, 0.1], [1, 0, 1])
    with pytest.raises(ValueError, match="per run"):
        fit_power_law([1, 2, 3], [0.3, 0.2])
