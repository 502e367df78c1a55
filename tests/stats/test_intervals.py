"""Intervals against SciPy's own, published examples and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from loralab.stats import bonferroni_bound, difference_of_proportions, paired_bootstrap, summary, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (1, 3), (81, 263), (7204, 7600)])
def test_wilson_equals_scipys(successes: int, n: int) -> None:
    found = wilson(successes, n)
    expected = scipy_stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert found == pytest.approx((expected.low, successes / n, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [((56, 70), (48, 80), (0.0524, 0.2, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.6, 0.8090)), ((10, 10), (0, 10), (0.6075, 1, 1))],
)
def test_differences_equal_newcombes_published_ones(
    first: tuple[int, int], second: tuple[int, int], expected: tuple[float, float, float]
) -> None:
    """Newcombe 1998, table II, method 10."""
    assert difference_of_proportions(first, second) == pytest.approx(expected, abs=5e-5)


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


def test_a_summary_equals_scipys() -> None:
    values = np.array([0.9012, 0.9031, 0.8790, 0.9050, 0.9001, 0.8988, 0.9100, 0.9020])
    found = summary(values, resamples=20_000)
    t = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    bca = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.n == 8
    assert (found.mean, found.sd) == pytest.approx((values.mean(), np.std(values, ddof=1)))
    assert found.t == pytest.approx((t.low, values.mean(), t.high), abs=1e-12)
    assert found.bca == pytest.approx((bca.low, values.mean(), bca.high), abs=2e-4)
    percentile = paired_bootstrap(values, np.zeros(8), resamples=20_000)
    assert found.bca is not None
    assert found.bca.low < percentile.low - 5e-4  # the one low value skews them: BCa's reaches further down
    wider, narrower = summary(values, level=0.99).t, summary(values, level=0.9).t
    assert wider
    assert narrower
    assert wider.low < t.low < narrower.low


def test_summaries_of_few_or_equal_values() -> None:
    assert summary([0.9]) == (one := summary(np.array([0.9])))
    assert (one.n, one.mean, one.sd, one.t, one.bca) == (1, 0.9, None, None, None)
    two = summary([0.9, 0.8])
    assert two.t == pytest.approx((0.85 - 12.7062 * 0.05, 0.85, 0.85 + 12.7062 * 0.05), abs=1e-5)
    assert two.bca == pytest.approx((0.8, 0.85, 0.9))
    for values in ([0.0] * 4, [0.1] * 7, [0.3, 0.1 + 0.2, 0.3]):
        same = summary(values)
        assert (same.sd, same.t, same.bca) == (0, (same.mean,) * 3, (same.mean,) * 3)
        assert same.mean == pytest.approx(values[0])
    for wrong in ([], [[0.9]], [0.9, float("nan")]):
        with pytest.raises(ValueError, match="finite values"):
            summary(wrong)


@pytest.mark.slow
def test_coverage_of_t_and_bca() -> None:
    """The shares in the docstring of `summary`: a BCa interval of five values must not be sold as one of 95 %."""
    random = np.random.default_rng(0)
    shares = {}
    for n in (5, 15, 40):
        found = [summary(random.normal(size=n), resamples=500, seed=trial) for trial in range(1000)]
        held = [[f.t.low <= 0 <= f.t.high, f.bca.low <= 0 <= f.bca.high] for f in found if f.t and f.bca]
        shares[n] = np.mean(held, axis=0)
    assert all(t == pytest.approx(0.95, abs=0.02) for t, _ in shares.values())
    assert [bca for _, bca in shares.values()] == pytest.approx([0.82, 0.91, 0.94], abs=0.025)


def test_the_largest_of_many_draws_seldom_goes_bonferroni_bound() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 200))
    assert np.mean(np.abs(draws).max(axis=1) > bonferroni_bound(200)) == pytest.approx(0.05, abs=0.015)
    assert bonferroni_bound(1) == pytest.approx(1.959964, abs=1e-6)


def test_invalid_samples_are_refused() -> None:
    for a, b in (([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])):
        with pytest.raises(ValueError, match="paired rows"):
            paired_bootstrap(a, b)
    for successes, n in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="not a proportion"):
            wilson(successes, n)
