"""Test texts that also stand in the training rows, wholly or nearly, by an inverted index of word shingles."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SHINGLE = 5
"""Words in a row that make a shingle."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class DuplicatePair:
    """A test text and the training text that holds most of it; positions, and the share of the test text's shingles found."""

    test: int
    train: int
    share: float


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Every five words in a row, case and punctuation aside; a shorter text whole; of no words, none (Broder 1997)."""
    words = _WORD.findall(text.casefold())
    last = max(1, len(words) - SHINGLE + 1)
    return frozenset(tuple(words[i : i + SHINGLE]) for i in range(last)) if words else frozenset()


def find_duplicates(train: Sequence[str], test: Sequence[str], at_least: float = 0.5) -> list[DuplicatePair]:
    """Return, for each test text of which one training text holds `at_least` this share of shingles, the best pair.

    Exact, no sampling: the share is containment in the test text (Broder 1997), so a test text that is part of a longer training
    text counts as wholly seen. In the order of the test rows; of equal shares the first training row.
    """
    sets = [shingles(text) for text in test]
    index = _index(sets, at_least)
    best: dict[int, tuple[float, int]] = {}
    for row, own in _different(train):
        for i in {candidate for shingle in own for candidate in index.get(shingle, ())}:
            share = len(sets[i] & own) / len(sets[i])
            if share >= at_least and share > best.get(i, (0.0, 0))[0]:
                best[i] = share, row
    return [DuplicatePair(i, row, share) for i, (share, row) in sorted(best.items())]


def _index(sets: Sequence[frozenset[tuple[str, ...]]], at_least: float) -> dict[tuple[str, ...], list[int]]:
    """Return shingle → test rows, of each row only its rarest shingles: as many as no text with `at_least` the share can all lack
    (prefix filtering, Chaudhuri et al. 2006). So phrases that stand in every text cost nothing.
    """
    common = Counter(shingle for own in sets for shingle in own)
    index = defaultdict(list)
    for i, own in enumerate(sets):
        needed = max(1, math.ceil(at_least * len(own) - 1e-9))
        for shingle in sorted(own, key=lambda s: (common[s], s))[: len(own) - needed + 1]:
            index[shingle].append(i)
    return dict(index)


def _different(texts: Sequence[str]) -> Iterator[tuple[int, frozenset[tuple[str, ...]]]]:
    """Yield the shingles of each text that differs from all before it, with its row."""
    seen = set()
    for row, text in enumerate(texts):
        plain = hash(" ".join(_WORD.findall(text.casefold())))
        if plain not in seen:
            seen.add(plain)
            yield row, shingles(text)
