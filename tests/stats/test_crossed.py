"""Intervals and tests over seeds and rows: against formulas worked out by hand and statsmodels; rates by `make calibrate`."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats as scipy_stats
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from loralab.stats import Difference, difference, mean_interval, moderate, resampled_means, wilson
from loralab.stats.crossed import Error, _prior_df

Floats = npt.NDArray[np.float64]


def tables(seeds: tuple[int, int] = (1, 5), rows: int = 40) -> st.SearchStrategy[npt.NDArray[np.bool_]]:
    return st.integers(*seeds).flatmap(lambda n: arrays(bool, (n, rows)))


def mean_squares(table: Floats) -> tuple[float, float, float]:
    """Of seeds, rows and the rest, a cell at a time."""
    seeds, rows = table.shape
    mean = table.mean()
    of_seeds = sum(rows * (line.mean() - mean) ** 2 for line in table) / (seeds - 1)
    of_rows = sum(seeds * (column.mean() - mean) ** 2 for column in table.T) / (rows - 1)
    rest = sum((table[i, j] - table[i].mean() - table[:, j].mean() + mean) ** 2 for i in range(seeds) for j in range(rows)) / (
        (seeds - 1) * (rows - 1)
    )
    return of_seeds, of_rows, rest


def behrens_fisher(distance: float, of_seeds: float, df: float, of_rows: float) -> float:
    """The probability that a t and a normal variable add up to more than the distance, by integration over t."""

    def density(t: float) -> float:
        above, below = (scipy_stats.norm.sf((distance + sign * math.sqrt(of_seeds) * t) / math.sqrt(of_rows)) for sign in (-1, 1))
        return float(scipy_stats.t.pdf(t, df) * (above + below))

    return float(quad(density, -math.inf, math.inf, limit=500)[0])


def with_two_rows(table: Floats) -> Floats:
    by_row = table.mean(axis=0)
    step = math.sqrt((by_row[by_row != 0] ** 2).mean())
    return np.column_stack([table, np.full(len(table), step), np.full(len(table), -step)])


def test_paired_differences_have_errors_of_seeds_and_rows() -> None:
    random = np.random.default_rng(0)
    difficulty = random.random(60)
    a, b = random.random((4, 60)) < 0.5 + difficulty, random.random((4, 60)) < 0.3 + difficulty
    result, table = difference(a, b, paired=True), with_two_rows(a.astype(float) - b)
    of_seeds, of_rows, rest = (square / table.size for square in mean_squares(table))
    assert of_rows > rest
    assert result.value == pytest.approx(a.mean() - b.mean())
    assert (result.rows, result.seeds, result.paired, result.new_seeds) == (60, (4, 4), True, True)
    assert (result.error.of_seeds, result.error.of_rows) == (pytest.approx(of_seeds), pytest.approx(of_rows - rest))
    assert result.error.df == pytest.approx(3)
    error, df = math.sqrt(of_seeds + of_rows - rest), (of_seeds + of_rows - rest) ** 2 / (of_seeds**2 / 3)
    assert result.p() == pytest.approx(2 * scipy_stats.t.sf(table.mean() / error, df))
    margin = scipy_stats.t.ppf(0.975, df) * error
    assert result.interval() == pytest.approx((table.mean() - margin, a.mean() - b.mean(), table.mean() + margin))
    narrow = scipy_stats.t.ppf(0.9, df) * error
    assert result.interval(level=0.8) == pytest.approx((table.mean() - narrow, a.mean() - b.mean(), table.mean() + narrow))
    several = behrens_fisher(table.mean(), of_seeds, 3, of_rows - rest)
    assert result.p(4) == pytest.approx(1 - (1 - several) ** 4, rel=1e-6)
    low, value, high = result.interval(4)
    assert behrens_fisher((high - low) / 2, of_seeds, 3, of_rows - rest) == pytest.approx(1 - 0.95**0.25, rel=1e-5)
    assert ((low + high) / 2, value) == (pytest.approx(table.mean()), pytest.approx(a.mean() - b.mean()))


def test_unpaired_differences_have_errors_of_both_sides_seeds_and_of_rows() -> None:
    random = np.random.default_rng(7)
    difficulty = random.random(60)
    a, b = random.random((4, 60)) < 0.5 + difficulty, random.random((3, 60)) < 0.3 + difficulty
    result, by_row = difference(a, b, paired=False), a.mean(axis=0) - b.mean(axis=0)
    step = math.sqrt((by_row[by_row != 0] ** 2).mean())
    first, second = np.column_stack([a, np.full(4, step), np.full(4, -step)]), np.column_stack([b, np.zeros((3, 2))])
    seeds_a, _, rest_a = (square / first.size for square in mean_squares(first))
    seeds_b, _, rest_b = (square / second.size for square in mean_squares(second))
    of_rows = (first.mean(axis=0) - second.mean(axis=0)).var(ddof=1) / 62 - rest_a - rest_b
    assert of_rows > 0
    assert (result.seeds, result.paired, result.new_seeds) == ((4, 3), False, True)
    assert (result.error.of_seeds, result.error.of_rows) == (pytest.approx(seeds_a + seeds_b), pytest.approx(of_rows))
    assert result.error.df == pytest.approx((seeds_a + seeds_b) ** 2 / (seeds_a**2 / 3 + seeds_b**2 / 2))


@pytest.mark.parametrize("df", [2.0, 3.7, 9.0])
@pytest.mark.parametrize("of_rows", [1e-6, 0.5, 30.0])
def test_an_error_lies_between_students_and_normal(df: float, of_rows: float) -> None:
    error = Error(1.0, df, of_rows)
    for distance in (0.5, 3.0, 8.0):
        assert error.exceeds(distance) == pytest.approx(behrens_fisher(distance, 1.0, df, of_rows), rel=1e-4, abs=1e-12)
    for level in (0.9, 0.95, 0.9999):
        assert error.exceeds(error.margin(level)) == pytest.approx(1 - level, rel=1e-6)
    assert Error(1.0, df, 1e-12).margin(0.95) == pytest.approx(scipy_stats.t.ppf(0.975, df), rel=1e-6)
    assert Error(0.0, df, 4.0).margin(0.95) == pytest.approx(2 * scipy_stats.norm.ppf(0.975), rel=1e-9)


@pytest.mark.slow  # statsmodels takes seconds to import
def test_themean_squares_are_those_of_statsmodels() -> None:
    import pandas
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    table = (np.random.default_rng(1).random((3, 30)) < np.linspace(0.1, 1.1, 30)).astype(float)
    frame = pandas.DataFrame([(value, str(i), str(j)) for (i, j), value in np.ndenumerate(table)], columns=["y", "seed", "row"])
    anova = anova_lm(ols("y ~ C(seed) + C(row)", frame).fit())
    of_seeds, of_rows, rest = anova["mean_sq"]
    assert [of_seeds, of_rows, rest] == pytest.approx(mean_squares(table))
    error = Error(of_seeds / table.size, 2.0, max(of_rows - rest, 0) / table.size)
    mean, variance = float(table.mean()), error.of_seeds + error.of_rows
    n, z = mean * (1 - mean) / variance, error.margin(0.95) / math.sqrt(variance)
    center = (mean + z * z / (2 * n)) / (1 + z * z / n)
    margin = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    assert mean_interval(table) == pytest.approx((center - margin, mean, center + margin))


def test_two_models_have_the_interval_of_bonett_and_price() -> None:
    """Psychological Methods 2012: with f12 and f21 discordant rows of n, p12 = (f12 + 1) / (n + 2), and so for p21."""
    only_a, only_b, n = 9, 3, 100
    a = np.r_[np.ones(only_a), np.zeros(only_b), np.ones(n - only_a - only_b)]
    b = np.r_[np.zeros(only_a), np.ones(only_b), np.ones(n - only_a - only_b)]
    p12, p21 = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    error = math.sqrt((p12 + p21 - (p12 - p21) ** 2) / (n + 2))
    low, value, high = difference(a, b, paired=False).interval()
    assert value == pytest.approx(0.06)
    assert (low, high) == pytest.approx((p12 - p21 - 1.96 * error, p12 - p21 + 1.96 * error), abs=0.0005)


def test_two_models_that_agree_on_all_rows_have_an_interval() -> None:
    """The two added rows are the only ones that differ: p12 = p21 = 1 / (n + 2)."""
    low, value, high = difference(np.arange(98) < 70, np.arange(98) < 70, paired=False).interval()
    assert value == 0
    assert (low, high) == pytest.approx((-1.96 * math.sqrt(2 / 99) / 10, 1.96 * math.sqrt(2 / 99) / 10), rel=1e-4)


def test_one_model_has_wilsons_interval() -> None:
    for correct in (0, 3, 36, 40):
        assert mean_interval(np.arange(40) < correct) == pytest.approx(wilson(correct, 40), abs=1e-9)


def test_one_model_has_wilsons_interval_of_another_level() -> None:
    assert mean_interval(np.arange(40) < 36, level=0.8) == pytest.approx(wilson(36, 40, level=0.8), abs=1e-9)


def test_models_that_do_not_depend_on_the_seed_are_one_model() -> None:
    random = np.random.default_rng(2)
    a, b = random.random(400) < 0.9, random.random(400) < 0.7
    five = difference(np.tile(a, (5, 1)), np.tile(b, (5, 1)), paired=True)
    one = difference(a, b, paired=False)
    assert five.interval() == pytest.approx(one.interval(), abs=1e-6)
    assert (five.new_seeds, one.new_seeds) == (True, False)
    assert mean_interval(np.tile(a, (5, 1))) == pytest.approx(wilson(int(a.sum()), 400), abs=1e-4)


def test_more_seeds_do_not_make_rows_unnecessary() -> None:
    """Recipes that differ in their rows only: more seeds change nothing, more rows narrow the interval."""
    random = np.random.default_rng(3)

    def width(seeds: int, rows: int) -> float:
        a, b = random.random(rows) < 0.9, random.random(rows) < 0.9
        low, _, high = difference(np.tile(a, (seeds, 1)), np.tile(b, (seeds, 1)), paired=True).interval()
        return high - low

    assert width(20, 400) == pytest.approx(width(3, 400), rel=0.15)
    assert width(3, 6400) == pytest.approx(width(3, 400) / 4, rel=0.15)


def test_seeds_with_equal_means_by_chance_leave_the_rows() -> None:
    """Each of three seeds is right on one row more and one row less, always others: no variance between seeds or rows is left."""
    a, b = np.zeros((3, 40), dtype=bool), np.zeros((3, 40), dtype=bool)
    for seed in range(3):
        a[seed, 2 * seed], b[seed, 2 * seed + 1] = True, True
    result = difference(a, b, paired=True)
    low, value, high = result.interval()
    assert (value, result.p()) == (0, 1)
    assert high - low > 0.01


def test_seeds_that_differ_widen_the_interval() -> None:
    rows = np.arange(1000)
    steady = np.stack([rows < 900, rows < 901, rows < 899])
    varied = np.stack([rows < 850, rows < 900, rows < 950])
    narrow, wide = mean_interval(steady), mean_interval(varied)
    assert narrow.estimate == wide.estimate == pytest.approx(0.9)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


@given(tables(), tables())
def test_intervals_have_a_width_and_agree_with_p(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> None:
    for paired in {False, len(a) == len(b)}:
        result, reverse = difference(a, b, paired=paired), difference(b, a, paired=paired)
        assert result.value == pytest.approx(-reverse.value, abs=1e-12)
        for comparisons in (1, 3, 66):
            low, _, high = result.interval(comparisons)
            assert high - low > 0.001
            assert 0 <= result.p(comparisons) <= 1
            assert (result.p(comparisons) < 0.05) == (low > 0 or high < 0)
        assert result.p(3) >= result.p() - 1e-12
    low, mean, high = mean_interval(a)
    assert 0 <= low <= mean <= high <= 1
    assert high - low > 0.001


def test_unpaired_seeds_add_their_variances() -> None:
    """Rows of equal difficulty: the difference has the variance of both sides' seeds, as in Welch's test."""
    random = np.random.default_rng(4)
    levels_a, levels_b = random.normal(0.8, 0.05, 6), random.normal(0.7, 0.02, 4)
    a, b = (random.random((len(levels), 20_000)) < levels[:, None] for levels in (levels_a, levels_b))
    result = difference(a, b, paired=False)
    welch = scipy_stats.ttest_ind(a.mean(axis=1), b.mean(axis=1), equal_var=False)
    assert result.p() == pytest.approx(welch.pvalue, rel=0.1)
    assert result.error.df == pytest.approx(welch.df, rel=0.1)


def _with_variances(of_seeds: list[float]) -> list[Difference]:
    return [Difference(0.01, 400, (3, 3), True, True, 0.01, Error(variance, 2.0, 1e-4)) for variance in of_seeds]


def test_alike_variances_of_seeds_are_shared() -> None:
    shared = [test.error for test in moderate(_with_variances([1.0e-4, 1.1e-4, 0.9e-4, 1.0e-4]))]
    assert [error.df for error in shared] == pytest.approx([10.0] * 4), "own 2, and at most the 8 of all four"
    prior = 1e-4 * np.exp(-digamma(1) + digamma(4) - np.log(4))
    assert [error.of_seeds for error in shared] == pytest.approx([(8 * prior + 2e-4) / 10] * 4, rel=0.03)
    assert shared[0].margin(0.98) < 0.6 * Error(1.0e-4, 2.0, 1e-4).margin(0.98)


def test_the_prior_of_variances_is_found_again() -> None:
    """Smyth 2004: variances s0² d0 / chi²(d0), estimated with 2 degrees of freedom each."""
    random = np.random.default_rng(6)
    variances = 4e-4 * 6 / random.chisquare(6, 40_000) * random.chisquare(2, 40_000) / 2
    assert _prior_df(float(np.log(variances).var(ddof=1)), 2.0) == pytest.approx(6, rel=0.15)
    outlier = max(variances)
    errors = [test.error for test in moderate(_with_variances(variances.tolist()))]
    assert max(error.of_seeds for error in errors) == outlier
    small = errors[int(np.argmin(variances))]
    assert small.of_seeds == pytest.approx(6 * 4e-4 / 8, rel=0.1)
    assert small.df == pytest.approx(8, rel=0.15)


@pytest.mark.parametrize("of_seeds", [[1e-5, 1e-4, 2e-3], [2e-4, 3e-5], [1e-6, 1e-4, 1e-4, 5e-3, 2e-5]])
@pytest.mark.parametrize("df", [2.0, 5.0])
def test_variances_are_shrunk_as_smyth_says(of_seeds: list[float], df: float) -> None:
    """Statistical Applications in Genetics 2004, section 6.2."""
    logs = np.log(of_seeds) - digamma(df / 2) + math.log(df / 2)
    excess = logs.var(ddof=1) - polygamma(1, df / 2)
    inverse = brentq(lambda half: polygamma(1, half) - excess, 1e-3, 1e6) if excess > 0 else math.inf
    prior_df = min(2 * inverse, df * len(of_seeds))
    prior = math.exp(logs.mean() + digamma(prior_df / 2) - math.log(prior_df / 2))
    tests = [Difference(0.01, 400, (3, 3), True, True, 0.01, Error(value, df, 1e-4)) for value in of_seeds]
    for before, after in zip(of_seeds, [test.error for test in moderate(tests)], strict=True):
        if before > prior * scipy_stats.f.ppf(0.75, df, prior_df):
            assert (after.of_seeds, after.df) == (before, df)
        else:
            expected = (prior_df * prior + df * before) / (prior_df + df)
            assert (after.of_seeds, after.df) == pytest.approx((expected, prior_df + df), rel=1e-6)


def test_the_prior_of_variances_has_bounds() -> None:
    """Its degrees of freedom explain the spread of the logarithms that their own degrees of freedom do not."""
    own = polygamma(1, 1.5)
    for prior_df in (0.011, 0.5, 1.01, 30.0, 9.0e5):
        assert _prior_df(own + polygamma(1, prior_df / 2), 3.0) == pytest.approx(prior_df, rel=1e-4)
    assert [_prior_df(spread, 3.0) for spread in (0.0, own, own + 1e-6)] == [1e6] * 3
    assert _prior_df(1e9, 3.0) == 0.01


def test_unlike_or_few_variances_stay() -> None:
    for of_seeds in ([1e-4], [1e-4, 0.0]):
        tests = _with_variances(of_seeds)
        assert moderate(tests) == tests
    assert moderate([]) == []
    unlike = moderate(_with_variances([1e-8, 1e-4, 1e-6, 1e-2]))
    assert unlike[3].error.of_seeds == 1e-2
    assert unlike[0].error.df < 3.5


def test_resampled_means_have_the_variance_of_rows_and_seeds() -> None:
    random = np.random.default_rng(5)
    levels = random.normal(0.8, 0.03, (12, 1))
    correct = random.random((12, 500)) < levels
    draws = resampled_means([correct, correct[:1]], 4000, seed=1)
    assert draws.mean(axis=0) == pytest.approx([correct.mean(), correct[0].mean()], abs=0.002)
    low, _, high = mean_interval(correct)
    assert np.quantile(draws[:, 0], [0.025, 0.975]) == pytest.approx([low, high], abs=0.005)
    assert draws[:, 1].std() == pytest.approx(correct[0].std() / math.sqrt(500), rel=0.05)
    assert (resampled_means([correct], 10, seed=1) == resampled_means([correct], 10, seed=1)).all()


def test_one_row_is_enough() -> None:
    table = np.array([[1.0], [0.0], [1.0]])
    z = scipy_stats.norm.isf(0.025)
    center, margin = (2 / 3 + z * z / 2) / (1 + z * z), z / (1 + z * z) * math.sqrt(2 / 9 + z * z / 4)
    assert mean_interval(table) == pytest.approx((center - margin, 2 / 3, center + margin)), "Wilson's, of one row"
    draws = resampled_means([table], 20_000, seed=0)
    assert draws.mean() == pytest.approx(2 / 3, abs=0.02)
    result = difference(table, np.zeros((3, 1)), paired=True)
    assert (result.value, result.rows) == (pytest.approx(2 / 3), 1)
    assert result.interval().low < 0 < result.interval().high


def test_resampled_means_deviate_by_students_t_of_the_seeds() -> None:
    """A hundred rows alike: the deviation of the mean is all between seeds, whose variances are 0.02 and 0.01."""
    two, three = np.repeat([[0.4], [0.6]], 100, axis=1), np.repeat([[0.4], [0.6], [0.5]], 100, axis=1)
    draws = resampled_means([two, three], 40_000) - 0.5
    assert np.quantile(np.abs(draws[:, 0]), 0.9) == pytest.approx(0.1 * scipy_stats.t.ppf(0.95, 1), rel=0.03)
    error = math.sqrt(0.01 / 3)
    assert np.quantile(np.abs(draws[:, 1]), 0.9) == pytest.approx(error * scipy_stats.t.ppf(0.95, 2), rel=0.03)
    assert (resampled_means([two], 9) == resampled_means([two], 9, seed=0)).all()
    assert (resampled_means([two], 9) != resampled_means([two], 9, seed=1)).all()


def test_invalid_tables_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(2, 5\) and \(2, 6\) cannot be compared$"):
        difference(np.ones((2, 5)), np.ones((2, 6)), paired=False)
    with pytest.raises(ValueError, match="in pairs"):
        difference(np.ones((2, 5)), np.ones((3, 5)), paired=True)
    with pytest.raises(ValueError, match="different rows"):
        resampled_means([np.ones((2, 5)), np.ones((2, 6))], 3)
    for wrong in ([], [[]], [[[1.0]]], [math.nan]):
        with pytest.raises(ValueError, match="finite values"):
            mean_interval(wrong)
