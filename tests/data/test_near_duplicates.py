"""Near duplicates: MinHash finds what an exhaustive comparison finds, in time linear in the rows."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from loralab.data.near_duplicates import MIN_JACCARD, find_near_duplicates, shingles, sign

WORDS = [f"word{i}" for i in range(300)]


def make_texts(count: int, seed: int) -> list[str]:
    source = random.Random(seed)
    return [" ".join(source.choices(WORDS, k=source.randint(3, 60))) for _ in range(count)]


def pairs(first: list[str], second: list[str]) -> list[tuple[int, int]]:
    return find_near_duplicates(sign(first), sign(second))


def jaccard(first: str, second: str) -> float:
    own, other = shingles(first), shingles(second)
    return len(own & other) / len(own | other)


LONG = "the courier left the parcel with a neighbour who opened it by mistake and sent it back a week later without a word"


@pytest.mark.parametrize(
    "copy",
    [
        LONG.upper() + "!!!",
        LONG.replace(" ", " \n "),
        LONG.replace("parcel", "box"),
        f"RT: {LONG} http",
        LONG.replace(" with a", ", with a").replace("week", "week,"),
        LONG.rsplit(" ", 2)[0],
    ],
)
def test_small_changes_are_found(copy: str) -> None:
    others = make_texts(50, 1)
    assert pairs([*others, LONG], [*make_texts(20, 2), copy]) == [(20, 50)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("leaks number 1", "leaks number 2"),
        ("topic aaa item 1", "topic aaa item 2"),
        ("win a free prize now 5", "win a free prize now 6"),
        ("", ""),
        ("!!!", "???"),
        (LONG, " ".join(sorted(LONG.split()))),
    ],
)
def test_other_texts_are_not(first: str, second: str) -> None:
    assert pairs([first], [second]) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Great product!", "great product"),
        ("这家店的服务态度非常好，我下次还会再来这里买东西的", "这家店的服务态度非常好,我下次还会再来这里买东西的!"),
        ("ข้าวผัดร้านนี้อร่อยมากและราคาไม่แพงเลย", "ข้าวผัดร้านนี้อร่อยมากและราคาไม่แพงเลยนะ"),
        ("Ça marche très bien", "ça marche, très bien."),
    ],
)
def test_short_texts_and_other_scripts(first: str, second: str) -> None:
    assert pairs([first], [second]) == [(0, 0)]


def test_all_pairs_are_found_and_none_is_wrong() -> None:
    source, first = random.Random(3), make_texts(400, 4)
    second = make_texts(100, 5)
    for text in first[:200]:
        own = text.split()
        for _ in range(source.randint(0, 4)):
            own[source.randrange(len(own))] = source.choice(WORDS)
        second.append(" ".join(own))
    found = pairs(first, second)
    expected = {j for j, text in enumerate(second) if any(jaccard(other, text) >= MIN_JACCARD for other in first)}
    assert all(jaccard(first[i], second[j]) >= MIN_JACCARD for j, i in found)
    assert {j for j, _ in found} <= expected
    assert len(found) >= 0.98 * len(expected) > 50


def test_signatures_depend_on_the_text_alone() -> None:
    texts = make_texts(30, 6)
    assert np.array_equal(sign(texts).signatures[::-1], sign(texts[::-1]).signatures)
    assert sign([]).signatures.shape == (0, sign(texts).signatures.shape[1])
    assert find_near_duplicates(sign([]), sign(texts)) == find_near_duplicates(sign(texts), sign([])) == []


@pytest.mark.timed
def test_texts_from_one_template_take_linear_time() -> None:
    """Every text is nearly equal to every other: 10^8 pairs."""
    first = [f"this is the very same long text for all of the rows with number {i}" for i in range(10_000)]
    start = time.perf_counter()
    assert len(pairs(first, [text + "x" for text in first])) == 10_000
    assert time.perf_counter() - start < 30  # 0.6 s alone; comparing all pairs takes minutes


def test_a_pair_at_the_limit_is_a_near_duplicate() -> None:
    words = [f"word{i}" for i in range(30)]
    first = " ".join(words[:19])  # 17 shingles
    second = " ".join([*words[:16], *words[20:23]])  # 14 of them, and 3 others: 14 of 20
    assert len(shingles(first) & shingles(second)) / len(shingles(first) | shingles(second)) == MIN_JACCARD
    assert find_near_duplicates(sign([first]), sign([second])) == [(0, 0)]


def test_empty_texts_and_parts_have_no_near_duplicates() -> None:
    texts = [" ".join(f"word{i}" for i in range(n)) for n in (25, 27)]
    assert find_near_duplicates(sign([]), sign(texts)) == find_near_duplicates(sign(texts), sign([])) == []
    assert find_near_duplicates(sign(["", "?"]), sign(["", "!"])) == []
    assert find_near_duplicates(sign(["", texts[1]]), sign(["unlike", "", texts[0]])) == [(2, 1)]
