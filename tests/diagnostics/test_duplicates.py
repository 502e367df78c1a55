"""Copies of training rows: an exhaustive comparison is the reference."""

from __future__ import annotations

import random

import pytest
from tiny import topics

from loralab.config import DataConfig
from loralab.data.sources import load_source
from loralab.diagnostics.duplicates import _prefix_index, find_duplicates, shingles

LINE = "the mayor of the harbour town said on monday that the old bridge would be closed for repairs until late spring"


def exhaustive(train: list[str], test: list[str], at_least: float) -> list[tuple[int, int, float]]:
    found = []
    for i, text in enumerate(test):
        own = shingles(text)
        shares = [len(own & shingles(other)) / len(own) for other in train] if own else []
        if shares and max(shares) >= at_least:
            found.append((i, shares.index(max(shares)), max(shares)))
    return found


def found(train: list[str], test: list[str], at_least: float = 0.5) -> list[tuple[int, int, float]]:
    return [(pair.test, pair.train, pair.share) for pair in find_duplicates(train, test, at_least)]


def test_shingles_are_five_words_in_a_row_and_short_texts_whole() -> None:
    assert shingles("A b, c; d e F!") == {("a", "b", "c", "d", "e"), ("b", "c", "d", "e", "f")}
    assert shingles("Oil  up") == {("oil", "up")}
    assert shingles(" ... ") == frozenset()


def test_near_copies_and_unrelated_texts() -> None:
    stranger = "a striker who had not scored since august put two past the champions in the last nine minutes on saturday night"
    assert found([stranger, LINE], [LINE.upper() + "!"]) == [(0, 1, 1.0)]
    [(_, row, share)] = found([stranger, LINE], [LINE.replace("monday", "tuesday")])
    assert (row, share) == (1, pytest.approx(12 / 17))  # five of seventeen runs hold the changed word
    assert found([LINE], [stranger]) == []
    assert found([LINE + " " + stranger], [LINE]) == [(0, 0, 1.0)]  # a part of a longer text was wholly seen
    assert found([LINE], [LINE + " " + stranger]) == []


def test_short_and_empty_texts() -> None:
    train = ["Oil up", "", "Oil up again in Asian trade", "oil up"]
    assert found(train, ["oil up", "oil", "", "?"]) == [(0, 0, 1.0)]
    assert found([], ["oil"]) == found(["oil"], []) == []


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("at_least", [0.2, 0.5, 0.8, 1.0])
def test_the_index_finds_what_comparing_every_pair_finds(seed: int, at_least: float) -> None:
    """Texts made of few pieces, so that shingles are shared everywhere, one of them by all, and shares of all sizes occur."""
    source = random.Random(seed)
    pieces = [" ".join(source.choices(list("abcdefgh"), k=source.randint(2, 9))) for _ in range(12)]

    def text() -> str:
        return " ".join(["every text begins just like this one", *source.choices(pieces, k=source.randint(0, 4))])

    train, test = [text() for _ in range(60)], [text() for _ in range(40)]
    expected = exhaustive(train, test, at_least)
    assert expected
    assert found(train, test, at_least) == expected


def test_the_sample_has_no_copies_and_a_planted_one_is_found() -> None:
    source = load_source(DataConfig())
    assert source.test is not None
    test = [*source.test.texts]
    assert found([*source.train.texts], test) == []
    test[17] = "Update: " + source.train.texts[30]
    [(row, copied, share)] = found([*source.train.texts], test)
    assert (row, copied) == (17, 30)
    assert share > 0.9


def test_phrases_in_every_text_are_not_indexed() -> None:
    """Else 120,000 rows with one agency's closing line would be compared with all test rows that have it."""
    begin = "full quote can be found at the usual place "
    sets = [shingles(begin + text) for text, _ in topics(50)]
    common = frozenset.intersection(*sets)
    assert len(common) == 5
    index = _prefix_index(sets, 0.5)
    assert not common & set(index)
    assert {i for rows in index.values() for i in rows} == set(range(len(sets)))
