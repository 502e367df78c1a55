"""Drift: divergences against SciPy's, log-odds by hand, no false alarms."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon
from tiny import topics

from loralab.data.types import Examples
from loralab.diagnostics import drift
from loralab.diagnostics.drift_sections import drift_sections, rate_excess
from loralab.diagnostics.sections import NO, YES, ScoredExamples


@pytest.mark.parametrize("seed", range(5))
def test_the_divergence_is_scipys(seed: int) -> None:
    a, b = np.random.default_rng(seed).integers(0, 9, (2, 40))
    assert drift.jensen_shannon(a, b) == pytest.approx(jensenshannon(a, b, base=2) ** 2)


def test_the_divergence_runs_from_nothing_to_one_bit() -> None:
    a, b, none = np.array([3, 1, 0]), np.array([0, 0, 5]), np.zeros(3, dtype=np.int64)
    assert (drift.jensen_shannon(a, a), drift.jensen_shannon(a, 7 * a), drift.jensen_shannon(a, b)) == (0, 0, 1)
    assert (drift.jensen_shannon(a, none), drift.jensen_shannon(none, none)) == (1, 0)


def test_two_halves_of_one_source_do_not_differ() -> None:
    """Under one source p is uniform: of 60 comparisons 3 fall under 0.05, and the value lies about its middle."""
    texts = [text for text, _ in topics(60)]
    found = []
    for seed in range(60):
        order = np.random.default_rng(seed).permutation(len(texts))
        first, second = [texts[i] for i in order[:150]], [texts[i] for i in order[150:]]
        found.append(drift.compare_vocabulary(first, second, divisions=40, seed=seed).divergence)
    assert sum(each.p < 0.05 for each in found) <= 8
    assert 15 < sum(each.value > each.median for each in found) < 45


def test_another_source_differs() -> None:
    rows = topics(60)
    sport, business = ([text for text, name in rows if name == wanted] for wanted in ("Sports", "Business"))
    found = drift.compare_vocabulary(sport, business)
    assert found.divergence.value > 3 * found.divergence.upper
    assert found.divergence.p == pytest.approx(1 / 101)
    counted = Counter(word for text in business for word in drift.count_words(text).elements())
    known = {word for text in sport for word in drift.count_words(text)}
    expected = sum(n for word, n in counted.items() if word not in known) / counted.total()
    assert found.unseen.value == pytest.approx(expected)
    assert found.unseen.value > 0.5 > found.unseen.upper


def test_a_word_seen_once_is_seen() -> None:
    found = drift.compare_vocabulary(["one two"], ["one two three", "One, four!"])
    assert found.unseen.value == pytest.approx(2 / 5)


def test_only_the_excess_over_the_null_counts() -> None:
    assert rate_excess(drift.NullComparison(0.30, 0.29, 0.295, 0.001)) == "negligible"
    assert rate_excess(drift.NullComparison(0.30, 0.25, 0.26, 0.001)) == "moderate"
    assert rate_excess(drift.NullComparison(0.30, 0.10, 0.31, 0.060)) == "not significant"


def test_log_odds_by_hand() -> None:
    """Two words, a: 30 and 10 of 100, b: 70 and 90; the prior of 10 words is 2 of a and 8 of b."""
    first, second = {"a": 30, "b": 70}, {"a": 10, "b": 90}
    delta = np.log((10 + 2) / (90 + 8)) - np.log((30 + 2) / (70 + 8))
    z = delta / np.sqrt(1 / (10 + 2) + 1 / (30 + 2))
    found = {word.word: word for word in drift.rank_words(first, second, prior=10)}
    assert found["a"] == drift.WordShift("a", 300, 100, pytest.approx(z))
    other = -delta / np.sqrt(1 / (90 + 8) + 1 / (70 + 8))
    assert found["b"].z == pytest.approx(other)
    assert [word.word for word in drift.rank_words(first, second)] == ["b", "a"]


def test_a_rare_word_ranks_below_a_frequent_one() -> None:
    second = {"the": 5000, "merger": 60, "zyx": 2}
    assert drift.rank_words({"the": 5000, "merger": 10}, second)[0].word == "merger"
    assert drift.rank_words({}, second) == drift.rank_words({"a": 3}, {"a": 4}) == []


def test_lengths_and_classes_are_scipys() -> None:
    random = np.random.default_rng(0)
    a, b = random.poisson(30, 300), random.poisson(33, 200)
    assert drift.kolmogorov_smirnov(a, b).effect == pytest.approx(stats.ks_2samp(a, b).statistic)
    labels = np.repeat([0, 1, 3], [50, 30, 20]), np.repeat([0, 1, 3], [20, 60, 40])
    found = drift.compare_classes(*labels, 4)  # class 2 has no rows on either side
    expected = stats.chi2_contingency([[50, 30, 20], [20, 60, 40]], correction=False)
    assert (found.effect, found.p) == pytest.approx((stats.contingency.association([[50, 30, 20], [20, 60, 40]]), expected.pvalue))
    assert drift.compare_classes(np.zeros(5, int), np.zeros(9, int), 4) == drift.TestResult(0.0, 1.0)


def scored(rows: list[tuple[str, str]], names: tuple[str, ...], labelled: bool = True) -> ScoredExamples:
    labels = np.array([names.index(name) for _, name in rows])
    logits = 3 * np.eye(len(names), dtype=np.float32)[labels]
    examples = Examples([text for text, _ in rows], labels if labelled else None, np.arange(len(rows)), names)
    return ScoredExamples(examples, logits)


def test_one_source_has_no_drift_and_another_has_its_differences_named() -> None:
    names = ("World", "Sports", "Business", "Sci/Tech")
    rows = topics(100)
    train, own = scored(rows[:250], names), scored(rows[250:], names)
    (measures, _), reason = drift_sections(train.examples, own, None)
    assert reason.supported == NO
    assert [row[0].split(":")[0] for row in measures.rows] == ["word frequencies", "unseen words", "length", "class shares"]
    other = scored([(f"{text} {text} quite different zeal", name) for text, name in rows[250:] if name != "World"], names)
    (measures, words), reason = drift_sections(train.examples, other, own)
    assert reason.supported == YES
    readings = {str(row[0]).split(":")[0]: row[-1] for row in measures.rows}
    assert readings["length"] == readings["word frequencies"] == "large"
    assert "World, 2" in str(measures.rows[3][2])
    assert {row[0] for row in words.rows[:3]} == {"quite", "different", "zeal"}
    assert readings["confidence"] == "not significant"
    (measures, _), reason = drift_sections(train.examples, scored(rows[250:], names, labelled=False), own)
    assert "class shares: V (Cramér)" not in [row[0] for row in measures.rows]
