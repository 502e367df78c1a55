"""The score of mutation testing: its interval, its weights, and what it leaves out."""

from __future__ import annotations

from collections import Counter

import pytest
from scipy import stats as scipy_stats

from benchmarks.mutants import NO_TEST, PAGE, SURVIVED, TIMEOUT, Score, is_prose, overall, package_of, page

WHOLE = Score("stats", 100, Counter(killed=94, timeout=2, survived=3) + Counter({NO_TEST: 1}))
SAMPLE = Score("data", 900, Counter(killed=40, survived=10))


def test_only_a_sample_has_an_interval() -> None:
    assert (WHOLE.share, WHOLE.interval) == (0.96, (0.96, 0.96))
    expected = scipy_stats.binomtest(40, 50).proportion_ci(method="wilson")
    assert (SAMPLE.share, SAMPLE.interval) == (0.8, pytest.approx((expected.low, expected.high)))


def test_packages_weigh_their_mutants_not_those_tried() -> None:
    low, high = SAMPLE.interval
    assert overall([WHOLE, SAMPLE]) == pytest.approx((0.1 * 0.96 + 0.9 * 0.8, 0.096 + 0.9 * low, 0.096 + 0.9 * high))
    share, below, above = overall([SAMPLE, SAMPLE])
    assert (share, share - below, above - share) == pytest.approx((0.8, (0.8 - low) / 2**0.5, (high - 0.8) / 2**0.5))


def test_texts_for_people_are_left_out_and_names_are_not() -> None:
    for text in ("no such file", "; {} of it", "did you mean "):
        assert is_prose(text), text
    for name in ("utf-8", ", ", "max_length", "a b", " ", "text/csv", "%d %s", b"two words"):
        assert not is_prose(name), name


def test_the_package_of_a_file() -> None:
    assert package_of("src/loralab/metrics.py") == "metrics"
    assert package_of("src/loralab/data/readers.py") == "data"


def test_the_page_has_a_row_for_each_package_and_the_score_of_all() -> None:
    text = page([WHOLE, SAMPLE], "Measured so.")
    assert "| `stats` | 100 | 100 | 94 | 2 | 3 | 1 | 96.0 % |" in text
    assert "| `data` | 900 | 50 | 40 | 0 | 10 | 0 | 80.0 % (67.0 to 88.8) |" in text
    assert "\n**81.6 % (69.9 to 89.5)** of 1,000 mutants.\n" in text
    assert "\nMeasured so.\n" in text
    assert {SURVIVED, TIMEOUT} < {*text.replace("|", " ").split()}


def test_the_published_page_has_every_package() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"\n| `{package}` | " in text for package in ("metrics", "stats", "config", "data"))
