"""Test texts that are copies or near-copies of training texts, by an inverted index of word shingles."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loralab.data.near_duplicates import Shingles, words
from loralab.data.near_duplicates import shingles as word_shingles

SHINGLE_WORDS = 5


@dataclass(frozen=True)
class DuplicatePair:
    """A test text and the training text that contains most of it: their positions, and the share of shingles contained."""

    test: int
    train: int
    share: float


def shingles(text: str) -> Shingles:
    """Return every five consecutive words, case-folded and without punctuation (Broder 1997); a shorter text is one shingle."""
    return word_shingles(text, SHINGLE_WORDS)


def find_duplicates(train: Sequence[str], test: Sequence[str], min_share: float = 0.5) -> list[DuplicatePair]:
    """Return the best pair of each test text of which a training text contains at least `min_share` of the shingles.

    Exact, without sampling. The share is containment in the test text (Broder 1997): a test text that is part of a longer training
    text has share 1. In the order of the test rows; of equal shares the first training row.
    """
    test_shingles = [shingles(text) for text in test]
    index = _prefix_index(test_shingles, min_share)
    best: dict[int, tuple[float, int]] = {}
    for row, train_shingles in _distinct_shingles(train):
        for i in {candidate for shingle in train_shingles for candidate in index.get(shingle, ())}:
            share = len(test_shingles[i] & train_shingles) / len(test_shingles[i])
            if share >= min_share and share > best.get(i, (0.0, 0))[0]:
                best[i] = share, row
    return [DuplicatePair(i, row, share) for i, (share, row) in sorted(best.items())]


def _prefix_index(sets: Sequence[Shingles], min_share: float) -> dict[tuple[str, ...], list[int]]:
    """Return shingle → test rows, with only the rarest shingles of each row (prefix filtering, Chaudhuri et al. 2006).

    There are as many as a text with `min_share` of the shingles cannot lack altogether. So a phrase that every text has costs
    nothing.
    """
    frequency = Counter(shingle for row_shingles in sets for shingle in row_shingles)
    index = defaultdict(list)
    for i, row_shingles in enumerate(sets):
        needed = max(1, math.ceil(min_share * len(row_shingles) - 1e-9))
        for shingle in sorted(row_shingles, key=lambda s: (frequency[s], s))[: len(row_shingles) - needed + 1]:
            index[shingle].append(i)
    return dict(index)


def _distinct_shingles(texts: Sequence[str]) -> Iterator[tuple[int, Shingles]]:
    """Yield (row, shingles) of each text that differs from all before it."""
    seen = set()
    for row, text in enumerate(texts):
        key = hash(" ".join(words(text)))
        if key not in seen:
            seen.add(key)
            yield row, shingles(text)
