"""McNemar's test against published numbers, SciPy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from loralab.stats import mcnemar, paired_bootstrap


def test_the_mid_p_equals_the_published_one() -> None:
    """Fagerland, Lydersen and Laake 2013, table 1: 1 against 7 of 21 rows; exact p 0.070, mid-p 0.039."""
    a, b = np.array([1] * 1 + [0] * 7 + [1] * 13), np.array([0] * 1 + [1] * 7 + [1] * 13)
    result = mcnemar(a, b)
    assert (result.only_a, result.only_b, round(result.p, 3)) == (1, 7, 0.039)
    assert result.interval.estimate == pytest.approx(-6 / 21)
    assert result.p == pytest.approx(2 * 9 / 256 - 8 / 256)
    assert mcnemar(b, a).p == result.p


def test_the_interval_is_that_of_the_paired_bootstrap() -> None:
    a, b = np.random.default_rng(0).random((2, 977)) < 0.7
    assert mcnemar(a, b).interval == paired_bootstrap(a, b, resamples=2000, seed=0) != paired_bootstrap(a, b, seed=1)
    assert mcnemar(a, b, resamples=50, seed=7).interval == paired_bootstrap(a, b, resamples=50, seed=7)


@pytest.mark.parametrize("number", [0, 1, 2, 7, 30, 501])
def test_as_many_rows_on_both_sides_are_no_difference(number: int) -> None:
    sides = np.r_[np.ones(number), np.zeros(number), np.ones(3)]
    assert mcnemar(sides, np.r_[1 - sides[: 2 * number], np.ones(3)], resamples=1).p == pytest.approx(1.0, abs=1e-12)
    assert mcnemar(sides, np.r_[1 - sides[: 2 * number], np.ones(3)], resamples=1).p <= 1.0


def test_extremes() -> None:
    assert mcnemar([True, False], [True, False]).p == 1
    assert mcnemar([1, 0, 1], [0, 1, 1]).p == 1
    assert mcnemar([1] * 5, [0] * 5).p == 0.5**5
    large = mcnemar(np.arange(9000) < 8000, np.arange(9000) < 7800, resamples=100)
    assert 0 <= large.p < 1e-50
    many = mcnemar(np.r_[np.ones(520), np.zeros(460)], np.r_[np.zeros(520), np.ones(460)], resamples=10)
    assert many.p == pytest.approx(scipy_stats.chi2.sf(60**2 / 980, 1), rel=0.02)
    for a, b in (([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])):
        with pytest.raises(ValueError, match="paired"):
            mcnemar(a, b)


@pytest.mark.slow  # statsmodels takes seconds to import
def test_statsmodels_agrees() -> None:
    from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

    for only_a, only_b in ((1, 7), (0, 3), (40, 61)):
        sides = np.r_[np.ones(only_a), np.zeros(only_b)]
        exact = statsmodels_mcnemar([[13, only_a], [only_b, 0]], exact=True).pvalue
        expected = exact - scipy_stats.binom.pmf(only_a, only_a + only_b, 0.5)
        assert mcnemar(sides, 1 - sides, resamples=1).p == pytest.approx(expected)


@pytest.mark.slow
def test_type_one_error_is_five_percent() -> None:
    random = np.random.default_rng(0)
    rejected = 0
    for _ in range(1000):
        differ, side = random.random(400) < 0.1, random.random(400) < 0.5
        rejected += mcnemar(differ & side, differ & ~side, resamples=1).p < 0.05
    assert 30 <= rejected <= 70
