"""Intervals against SciPy's own, published examples and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from loralab.stats import bonferroni_bound, difference_of_proportions, paired_bootstrap, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (1, 3), (81, 263), (7204, 7600)])
def test_wilson_equals_scipys(successes: int, n: int) -> None:
    found = wilson(successes, n)
    expected = scipy_stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert found == pytest.approx((expected.low, successes / n, expected.high), abs=1e-12)
    narrow = scipy_stats.binomtest(successes, n).proportion_ci(0.8, method="wilson")
    assert wilson(successes, n, level=0.8) == pytest.approx((narrow.low, successes / n, narrow.high), abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [((56, 70), (48, 80), (0.0524, 0.2, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.6, 0.8090)), ((10, 10), (0, 10), (0.6075, 1, 1))],
)
def test_differences_equal_newcombes_published_ones(
    first: tuple[int, int], second: tuple[int, int], expected: tuple[float, float, float]
) -> None:
    """Newcombe 1998, table II, method 10."""
    assert difference_of_proportions(first, second) == pytest.approx(expected, abs=5e-5)


def test_a_difference_has_the_level_asked_for() -> None:
    """Newcombe's method 10 from SciPy's intervals of the two proportions."""
    a, b = (scipy_stats.binomtest(k, n).proportion_ci(0.8, method="wilson") for k, n in ((56, 70), (48, 80)))
    low, high = 0.2 - np.hypot(0.8 - a.low, b.high - 0.6), 0.2 + np.hypot(a.high - 0.8, 0.6 - b.low)
    assert difference_of_proportions((56, 70), (48, 80), level=0.8) == pytest.approx((low, 0.2, high))


def test_the_paired_bootstrap_equals_scipys() -> None:
    random = np.random.default_rng(0)
    a, b = random.random(400) < 0.8, random.random(400) < 0.7
    found = paired_bootstrap(a, b, resamples=4000)
    expected = scipy_stats.bootstrap(
        ((a.astype(float) - b),), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.estimate == pytest.approx(a.mean() - b.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.006)


def test_pairing_removes_shared_variance() -> None:
    random = np.random.default_rng(0)
    a = random.random(500) < 0.5
    b = a.copy()
    b[:5] = ~b[:5]
    found = paired_bootstrap(a, b)
    assert found.high - found.low < 0.03  # two separate samples of 500 would give 0.12
    assert paired_bootstrap(a, a) == (0, 0, 0)


def test_the_bootstrap_has_the_level_asked_for_and_repeats() -> None:
    """The mean of 400 normal values of variance 2 has a standard error of 0.0707."""
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 400))
    half = paired_bootstrap(a, b, level=0.5, resamples=20_000)
    assert (half.high - half.low) / 2 == pytest.approx(0.6745 * (a - b).std() / 20, rel=0.03)
    assert (half.low + half.high) / 2 == pytest.approx((a - b).mean(), abs=0.004)
    assert paired_bootstrap(a, b) == paired_bootstrap(a, b, level=0.95, resamples=2000, seed=0)


def test_few_resamples_of_few_rows() -> None:
    """Of two rows the means can be 0, 1/2 and 1, and each row is drawn as often."""
    assert paired_bootstrap([1, 0], [0, 0]) == (0, 0.5, 1) == paired_bootstrap([0, 1], [0, 0])
    low, _, high = paired_bootstrap([1.0, 0.2, 0.7], [0.0, 0.0, 0.0], resamples=1)
    assert low == high


def test_bootstrap_coverage_is_95_percent() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        a, b = random.normal(0.3, 1, 80), random.normal(0, 1, 80)
        found = paired_bootstrap(a, b, resamples=500, seed=trial)
        hits += found.low <= 0.3 <= found.high
    assert 0.90 <= hits / 300 <= 0.98


def test_large_inputs_are_resampled_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.random.default_rng(0).random((2, 100))
    whole = paired_bootstrap(a, b, resamples=100, seed=3)
    monkeypatch.setattr("loralab.stats.intervals._MAX_DRAWS", 1100)
    assert paired_bootstrap(a, b, resamples=100, seed=3) == whole
    assert paired_bootstrap(a, b, resamples=100, seed=4) != whole
    monkeypatch.setattr("loralab.stats.intervals._MAX_DRAWS", 50)  # fewer than rows: one resample at a time
    assert paired_bootstrap(a, b, resamples=100, seed=3) == whole


def test_the_largest_of_many_draws_seldom_goes_bonferroni_bound() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 200))
    assert np.mean(np.abs(draws).max(axis=1) > bonferroni_bound(200)) == pytest.approx(0.05, abs=0.015)
    assert bonferroni_bound(1) == bonferroni_bound(0) == pytest.approx(1.959964, abs=1e-6)
    assert bonferroni_bound(5, level=0.9) == pytest.approx(scipy_stats.norm.isf(0.01))


def test_invalid_samples_are_refused() -> None:
    for a, b in (([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])):
        with pytest.raises(ValueError, match="paired rows"):
            paired_bootstrap(a, b)
    for successes, n in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="not a proportion"):
            wilson(successes, n)
