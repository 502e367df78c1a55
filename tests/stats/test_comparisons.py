"""Tests over seeds and rows against SciPy, statsmodels, published examples and simulations under the null."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from loralab.stats import Interval, Paired, Unpaired, holm, mcnemar, paired, unpaired, verdict

A = np.array([0.9012, 0.9031, 0.8990, 0.9050, 0.9001, 0.9044, 0.8975])
B = np.array([0.8990, 0.8961, 0.9011, 0.8995, 0.8941, 0.9031, 0.8966])
scores = st.lists(st.tuples(*[st.integers(0, 500).map(lambda right: right / 500)] * 2), min_size=1, max_size=9)


def test_paired_tests_equal_scipys() -> None:
    found, t = paired(A, B), scipy_stats.ttest_rel(A, B)
    assert found.t_p == found.p == pytest.approx(t.pvalue, rel=1e-9)
    assert found.interval == pytest.approx((t.confidence_interval().low, (A - B).mean(), t.confidence_interval().high), abs=1e-12)
    assert found.wilcoxon_p == pytest.approx(scipy_stats.wilcoxon(A, B, method="exact").pvalue, abs=1e-12)
    flips = scipy_stats.permutation_test((A, B), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf)
    assert found.permutation_p == pytest.approx(flips.pvalue, abs=1e-12)
    assert (found.n, found.test) == (7, "paired t")
    assert found.difference == pytest.approx((A - B).mean())


@pytest.mark.slow  # statsmodels takes seconds to import, and as long to adjust a few p-values
def test_statsmodels_agrees() -> None:
    from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.power import TTestPower

    random = np.random.default_rng(0)
    for n in (2, 3, 5, 10, 30):
        a, b = random.normal(0.9, 0.01, (2, n))
        deviations = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
        assert paired(a, b).detectable == pytest.approx(deviations * np.std(a - b, ddof=1), rel=2e-6)
    p = np.r_[random.random(20), random.random(20) / 100, [0, 1, 0.5, 0.5, 1]]
    assert holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]), abs=1e-12)
    assert holm([0.04]) == [0.04]
    assert holm([]) == []
    for only_a, only_b in ((1, 7), (0, 3), (40, 61)):
        sides = np.r_[np.ones(only_a), np.zeros(only_b)]
        exact = statsmodels_mcnemar([[13, only_a], [only_b, 0]], exact=True).pvalue
        expected = exact - scipy_stats.binom.pmf(only_a, only_a + only_b, 0.5)
        assert mcnemar(sides, 1 - sides, resamples=1).p == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_detectable_difference_has_80_percent_power(n: int) -> None:
    a, b = np.random.default_rng(n).normal(0.9, 0.01, (2, n))
    detectable = paired(a, b).detectable
    assert detectable is not None
    shift, beyond = detectable / scipy_stats.sem(a - b), scipy_stats.t.ppf(0.975, n - 1)
    assert scipy_stats.nct.sf(beyond, n - 1, shift) == pytest.approx(0.8, abs=1e-6)


def test_the_effect_is_unbiased_unlike_cohens() -> None:
    sample = np.random.default_rng(0).normal(1, 1, (20_000, 5))
    cohen = sample.mean(axis=1) / sample.std(axis=1, ddof=1)
    hedges = paired(sample[0], np.zeros(5)).effect
    assert hedges is not None
    assert cohen.mean() == pytest.approx(1.253, abs=0.02)
    assert (cohen * hedges / cohen[0]).mean() == pytest.approx(1, abs=0.02)


def test_zeros_and_ties_have_exact_ranks() -> None:
    """Every flip by hand: differences -2, -2, -2, 3, 3 and 0 hundredths have ranks 2, 2, 2, 4.5, 4.5 and none."""
    a = np.array([0.51, 0.61, 0.69, 0.92, 0.83, 0.7])
    b = np.array([0.53, 0.63, 0.71, 0.89, 0.80, 0.7])
    flips = np.array(list(itertools.product((-1, 1), repeat=5)))
    assert paired(a, b).wilcoxon_p == np.mean(np.abs(flips @ [2, 2, 2, 4.5, 4.5]) >= 3) == 0.625
    assert paired(a, b).permutation_p == 1  # the differences themselves add up to 0


def test_many_pairs_are_sampled_with_a_seed() -> None:
    a, b = np.random.default_rng(5).normal(0, 1, (2, 25))
    found = paired(a, b, seed=1)
    assert found.permutation_p == pytest.approx(found.t_p, abs=0.02)
    assert found.wilcoxon_p == pytest.approx(scipy_stats.wilcoxon(a, b, method="exact").pvalue, abs=0.02)
    assert paired(a, b, seed=1) == found != paired(a, b, seed=2)
    assert paired(a + 9, b).permutation_p == 1e-4  # never 0: (1 + 0) / (1 + 9999)


@given(scores)
def test_paired_is_symmetric(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    one, other = paired(a, b), paired(b, a)
    assert one.difference == -other.difference
    assert (one.p, one.wilcoxon_p, one.permutation_p) == (other.p, other.wilcoxon_p, other.permutation_p)
    assert one.detectable == other.detectable
    for p in (one.p, one.wilcoxon_p, one.permutation_p):
        assert 0 <= p <= 1
    assert min(one.wilcoxon_p, one.permutation_p) >= 2 / 2**one.n
    assert not any(isinstance(value, float) and not math.isfinite(value) for value in vars(one).values())


def test_differences_that_do_not_vary() -> None:
    same = paired(A, A - 0.01)
    assert (same.t_p, same.effect, same.detectable) == (None, None, None)
    assert (same.test, same.p) == ("sign flips", 2 / 2**7)  # not t's 0: seven equal signs are seven equal signs
    assert same.interval == pytest.approx((0.01,) * 3)
    none = paired(A, A)
    assert none == Paired(7, 0, Interval(0, 0, 0), None, 1, 1, 0, None)
    assert paired([0.9], [0.8]).p == 1
    assert paired([0.9], [0.8]).interval is None
    two = paired(A[:2], B[:2])
    assert two.p == pytest.approx(scipy_stats.ttest_rel(A[:2], B[:2]).pvalue)
    assert two.effect is None


def test_independent_seeds_use_welchs_test() -> None:
    found, welch = unpaired(A, B[:4] + 0.001), scipy_stats.ttest_ind(A, B[:4] + 0.001, equal_var=False)
    expected = welch.confidence_interval()
    assert found.p == pytest.approx(welch.pvalue, rel=1e-9)
    assert found.interval == pytest.approx((expected.low, A.mean() - B[:4].mean() - 0.001, expected.high), abs=1e-11)
    assert (found.n_a, found.n_b, found.n) == (7, 4, 4)
    assert unpaired([0.9] * 5, [0.9] * 3).p == 1
    assert unpaired([0.9] * 3, [0.8] * 3).p == 0.1  # 2 of the 20 divisions into two threes
    assert unpaired([0.9] * 3, [0.8, 0.8 + 1e-16, 0.8]).test == "permutation"
    alone = unpaired([0.9], A)
    assert (alone.p, alone.interval, alone.detectable) == (1, None, None)
    assert unpaired([0.9] * 3, A).p == pytest.approx(scipy_stats.ttest_1samp(A, 0.9).pvalue)


def test_mcnemars_mid_p_equals_the_published_one() -> None:
    """Fagerland, Lydersen and Laake 2013, table 1: 1 against 7 of 21 rows; exact p 0.070, mid-p 0.039."""
    a, b = np.array([1] * 1 + [0] * 7 + [1] * 13), np.array([0] * 1 + [1] * 7 + [1] * 13)
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b, round(found.p, 3)) == (1, 7, 0.039)
    assert found.interval.estimate == pytest.approx(-6 / 21)
    assert found.p == pytest.approx(2 * 9 / 256 - 8 / 256)
    assert mcnemar(b, a).p == found.p


def test_mcnemar_extremes() -> None:
    assert mcnemar([True, False], [True, False]).p == 1
    assert mcnemar([1, 0, 1], [0, 1, 1]).p == 1
    assert mcnemar([1] * 5, [0] * 5).p == 0.5**5
    large = mcnemar(np.arange(9000) < 8000, np.arange(9000) < 7800, resamples=100)
    assert 0 <= large.p < 1e-50
    many = mcnemar(np.r_[np.ones(520), np.zeros(460)], np.r_[np.zeros(520), np.ones(460)], resamples=10)
    assert many.p == pytest.approx(scipy_stats.chi2.sf(60**2 / 980, 1), rel=0.02)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_never_lowers_p(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(before <= after <= 1 for before, after in zip(p, adjusted, strict=True))
    assert all(adjusted[i] <= adjusted[j] for i, j in itertools.permutations(range(len(p)), 2) if p[i] < p[j])


def test_holm_by_hand_and_invalid_p_values() -> None:
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    for wrong in ([1.2], [-0.1], [float("nan")]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            holm(wrong)


def _seeds(n: int) -> Callable[[np.random.Generator], list[float]]:
    def draw(random: np.random.Generator) -> list[float]:
        shared = random.normal(0.9, 0.02, n)
        found = paired(shared + random.normal(0, 0.004, n), shared + random.normal(0, 0.004, n))
        return [found.p, found.wilcoxon_p, found.permutation_p]

    return draw


def _rows(random: np.random.Generator) -> list[float]:
    differ, side = random.random(400) < 0.1, random.random(400) < 0.5
    return [mcnemar(differ & side, differ & ~side, resamples=1).p]


def _apart(random: np.random.Generator) -> list[float]:
    return [unpaired(random.normal(0.9, 0.004, 5), random.normal(0.9, 0.008, 8)).p]


@pytest.mark.slow  # 4,000 permutation tests
@pytest.mark.parametrize(
    ("draw", "tests"), [(_seeds(8), 3), (_seeds(11), 3), (_rows, 1), (_apart, 1)], ids=["8", "11", "rows", "welch"]
)
def test_type_one_error_is_five_percent(draw: Callable[[np.random.Generator], list[float]], tests: int) -> None:
    """Type-I error over 1,000 null pairs."""
    random = np.random.default_rng(0)
    errors = np.mean(np.array([draw(random) for _ in range(1000)]) < 0.05, axis=0)
    assert len(errors) == tests
    assert ((errors >= 0.03) & (errors <= 0.07)).all(), errors


def test_five_seeds_are_too_few_for_ranks_and_flips() -> None:
    found = paired(A[:5], A[:5] - [0.01, 0.02, 0.03, 0.04, 0.05])
    assert found.wilcoxon_p == found.permutation_p == 2 / 32
    assert found.p < 0.05


SURE = Paired(5, 0.0062, Interval(0.0021, 0.0062, 0.0103), 0.0055, 0.0625, 0.0625, 1.9, 0.0056)
UNSURE = Paired(9, 2e-5, Interval(-1e-3, 2e-5, 1e-3), 0.9, 0.9, 0.9, 0.1, 0.002)
WELCH = Unpaired(5, 4, -0.01, Interval(-0.02, -0.01, -0.001), 0.0496, 0.01)
SAME = paired(A[:4], A[:4] - 0.01)
WORDS = [
    (SURE, 0.011, "better by 0.62 points (0.21 to 1.03; paired t over 5 seeds, p = 0.011 after Holm)"),
    (SURE, None, "better by 0.62 points (0.21 to 1.03; paired t over 5 seeds, p = 0.005)"),
    (paired(A - 0.01, A - (A - B) / 99), None, "worse by 1.00 points (0.99 to 1.00; paired t over 7 seeds, p < 0.001)"),
    (WELCH, None, "worse by 1.00 points (0.10 to 2.00; Welch's t over 5 and 4 seeds, p = 0.04960)"),
    (paired(A, A), None, "no difference: equal in all 7 seeds"),
    (SAME, None, "no significant difference: +1.00 points (the same for every seed; sign flips over 4 seeds, p = 0.125)"),
    (paired(A, A - 0.01), None, "better by 1.00 points (the same for every seed; sign flips over 7 seeds, p = 0.016)"),
    (paired(A[:2], B[:2]), None, "2 seeds: too few for a claim; the difference is +0.46 points"),
    (paired(A[:1], B[:1]), None, "1 seed: too few for a claim; the difference is +0.22 points"),
    (unpaired(A[:2], B), None, "2 and 7 seeds: too few for a claim; the difference is +0.36 points"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "corrected", "words"), WORDS)
def test_verdicts(found: Paired | Unpaired, corrected: float | None, words: str) -> None:
    assert verdict(found, adjusted_p=corrected) == words


def test_a_verdict_names_the_detectable_difference() -> None:
    expected = "(-0.10 to +0.10; paired t over 9 seeds, p = 0.900); differences under 0.20 points would often be missed"
    assert verdict(UNSURE) == f"no significant difference: +0.002 points {expected}"
    taken_back = verdict(SURE, adjusted_p=0.2)
    assert taken_back.startswith(
        "no significant difference: +0.62 points (+0.21 to +1.03; paired t over 5 seeds, p = 0.200 after Holm)"
    )
    assert verdict(SURE, level=0.001).startswith("no significant difference")


def test_invalid_pairs_are_refused() -> None:
    for a, b in (([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])):
        with pytest.raises(ValueError, match="paired"):
            paired(a, b)
        with pytest.raises(ValueError, match="paired"):
            mcnemar(a, b)
    with pytest.raises(ValueError, match="not finite"):
        paired([1.0, float("nan")], [1.0, 2.0])
    with pytest.raises(ValueError, match="finite scores"):
        unpaired([], [1.0])
