"""Shared texts of two parts, and what is remembered of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from loralab.data import shared_texts
from loralab.data.near_duplicates import SignedTexts, sign
from loralab.data.shared_texts import SharedTexts, find_shared_texts

LONG = "the courier left the parcel with a neighbour who opened it by mistake and sent it back a week later without a word"
PARTS = {"a": ["one text", "", LONG], "b": ["ONE  text", "", f"{LONG} more", "other"], "c": ["unlike the rest"]}
PAIRS = (("a", "b"), ("a", "c"), ("b", "c"), ("a", "missing"))
EXPECTED = {("a", "b"): SharedTexts(1, ((2, 2),)), ("a", "c"): SharedTexts(0, ()), ("b", "c"): SharedTexts(0, ())}


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The texts that are signed, beginning with nothing in the cache."""
    calls: list[Sequence[str]] = []

    def counted(texts: Sequence[str]) -> SignedTexts:
        calls.append(texts)
        return sign(texts)

    monkeypatch.setattr(shared_texts, "sign", counted)
    monkeypatch.setattr(shared_texts, "_cache", {})
    return calls


def test_texts_are_signed_once_and_again_when_they_change(signed: list[Sequence[str]]) -> None:
    assert find_shared_texts(PARTS, PAIRS) == EXPECTED
    assert signed == [PARTS["a"], PARTS["b"], PARTS["c"]]
    assert find_shared_texts({name: [*texts] for name, texts in PARTS.items()}, PAIRS) == EXPECTED
    assert len(signed) == 3
    assert find_shared_texts({**PARTS, "c": ["OTHER"]}, PAIRS)["b", "c"] == SharedTexts(1, ())
    assert signed[3:] == [PARTS["a"], ["OTHER"], PARTS["b"]]


def test_texts_that_are_divided_otherwise_are_others(signed: list[Sequence[str]]) -> None:
    assert find_shared_texts({"a": ["x", "y"], "b": ["xy"]}, PAIRS) == {("a", "b"): SharedTexts(0, ())}
    assert find_shared_texts({"a": ["xy"], "b": ["xy"]}, PAIRS) == {("a", "b"): SharedTexts(1, ())}
    assert find_shared_texts({"a": ["\ud800"], "b": ["\ud800"]}, PAIRS) == {("a", "b"): SharedTexts(1, ())}


def test_the_results_used_least_recently_are_dropped(signed: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_texts, "MAX_CACHED", 2)
    for text in ("x", "y", "x", "z"):
        find_shared_texts({"a": [text], "b": ["b"]}, PAIRS)
    assert [texts for texts in signed if texts != ["b"]] == [["x"], ["y"], ["z"]]
    find_shared_texts({"a": ["x"], "b": ["b"]}, PAIRS)
    assert [texts for texts in signed if texts != ["b"]] == [["x"], ["y"], ["z"]]
    find_shared_texts({"a": ["y"], "b": ["b"]}, PAIRS)
    assert [texts for texts in signed if texts != ["b"]][3:] == [["y"]]
