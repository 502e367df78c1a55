"""Perturbations: what each changes and keeps, and that the seed fixes it."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from loralab.diagnostics.perturb import _NEIGHBOURS, KINDS, perturb

TEXT = "Oil prices slipped below 50 dollars on Monday, as traders weighed stocks against 1,200 new wells."


def edits(a: str, b: str) -> int:
    """Edit distance, with swaps of neighbours as one edit (optimal string alignment)."""
    rows = [[max(i, j) if 0 in (i, j) else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and (a[i - 1], a[i - 2]) == (b[j - 2], b[j - 1]):
                rows[i][j] = min(rows[i][j], rows[i - 2][j - 2] + 1)
    return rows[-1][-1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_perturbation_depends_on_text_and_seed_only(kind: str) -> None:
    alone = perturb(TEXT, kind, 3)
    assert [perturb(text, kind, 3) for text in ("another text", TEXT, TEXT)][1:] == [alone, alone]
    random.seed(0)
    assert perturb(TEXT, kind, 3) == alone
    drawn = kind in ("typos", "dropped letters", "doubled letters", "markup")
    assert (len({perturb(TEXT, kind, seed) for seed in range(5)}) > 1) == drawn


@pytest.mark.parametrize("kind", ["typos", "dropped letters", "doubled letters"])
@pytest.mark.parametrize("seed", range(20))
def test_a_fifth_of_the_longer_words_gets_one_error_each(kind: str, seed: int) -> None:
    found = perturb(TEXT, kind, seed)
    before, after = TEXT.split(" "), found.split(" ")
    assert len(before) == len(after)
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert len(changed) == 2  # of ten words with four letters or more
    for a, b in changed:
        assert edits(a, b) == 1
        assert sum(letter.isalpha() for letter in a) >= 4
        assert len(b) - len(a) == {"typos": 0, "dropped letters": -1, "doubled letters": 1}[kind]
        assert kind != "dropped letters" or a[0] == b[0]
    if kind == "doubled letters":
        assert all(not Counter(a) - Counter(b) for a, b in changed)


@pytest.mark.parametrize("text", ["", "   ", "oil up", "12 + 7 = 19", "aaaa", "日本の天気", "oil \ud83d up"])
@pytest.mark.parametrize("kind", KINDS)
def test_texts_without_words_stay_unchanged(text: str, kind: str) -> None:
    found = perturb(text, kind)
    if kind == "typos" and text not in ("aaaa", "日本の天気"):
        assert found == text


def test_a_typo_never_swaps_equal_letters() -> None:
    assert all(perturb("bookkeepers", "typos", seed) != "bookkeepers" for seed in range(60))


def test_typos_hit_neighbouring_keys() -> None:
    assert (_NEIGHBOURS["a"], _NEIGHBOURS["p"]) == ("szq", "o")
    assert all(key in _NEIGHBOURS[neighbour] for key, near in _NEIGHBOURS.items() for neighbour in near)


def test_case_markup_and_first_half() -> None:
    assert perturb("Ab c", "upper case") == "AB C"
    assert perturb("Ab C", "lower case") == "ab c"
    assert perturb("one two three four five", "first half") == "one two three"
    found = perturb(TEXT, "markup")
    assert all(piece in found for piece in ("<b>", "</b>", "&nbsp;", "&quot;", "<br />", "http://www.example.com/"))
    left = [word for word in found.replace("<b>", "").replace("</b>", "").split(" ") if word in TEXT.split(" ")]
    assert left == TEXT.split(" ")
