"""Texts of two parts that nearly equal each other, by MinHash over word shingles: linear in the number of texts."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loralab.data.types import CHUNK, Ints

MIN_JACCARD = 0.7
"""Share of common shingles from which two texts count as near duplicates. Lee et al. 2022 deduplicate corpora by this measure."""
SHINGLE_WORDS = 3
BANDS, BAND_ROWS = 16, 3
"""A pair with Jaccard similarity s becomes a candidate with probability 1 - (1 - s^3)^16: 0.999 at 0.7, 0.12 at 0.2."""
MIN_AGREEMENT = 0.45
"""Share of equal hashes, of 48, below which a candidate is not compared: a similarity of 0.7 is 3.8 deviations above it."""
Hashes = npt.NDArray[np.uint64]
Shingles = frozenset[tuple[str, ...]]

# Scripts without spaces between words: there each letter counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_EMPTY = np.iinfo(np.uint32).max


@dataclass(frozen=True)
class SignedTexts:
    """Texts with their MinHash signatures, uint32[n, BANDS * BAND_ROWS]. Texts without a word have the largest value throughout."""

    texts: Sequence[str]
    signatures: npt.NDArray[np.uint32]

    def band(self, number: int) -> Hashes:
        """Return one key per text: texts with equal keys are candidates."""
        columns = self.signatures[:, number * BAND_ROWS : (number + 1) * BAND_ROWS].astype(np.uint64)
        keys = columns[:, 0]
        for column in columns.T[1:]:
            keys = _mix(keys ^ (column << np.uint64(32)))
        return keys

    def without_words(self) -> npt.NDArray[np.bool_]:
        """Return which texts have no words, so that nothing can be said of them."""
        return np.asarray((self.signatures == _EMPTY).all(axis=1))


def words(text: str) -> list[str]:
    """Return the words in lower case, without punctuation. In Chinese, Japanese, Thai and the like each letter is one."""
    return _WORD.findall(text.casefold())


def shingles(text: str, size: int = SHINGLE_WORDS) -> Shingles:
    """Return every `size` consecutive words (Broder 1997); a shorter text is one shingle."""
    own = words(text)
    last = max(1, len(own) - size + 1)
    return frozenset(tuple(own[i : i + size]) for i in range(last)) if own else frozenset()


def sign(texts: Sequence[str]) -> SignedTexts:
    """Compute the MinHash signatures of texts (Broder 1997)."""
    hashes = _WordHashes()
    parts = [_signatures(texts[start : start + CHUNK], hashes) for start in range(0, len(texts), CHUNK)]
    return SignedTexts(texts, np.concatenate(parts) if parts else np.empty((0, BANDS * BAND_ROWS), dtype=np.uint32))


def find_near_duplicates(first: SignedTexts, second: SignedTexts) -> list[tuple[int, int]]:
    """Return positions (in `second`, in `first`) of texts with Jaccard similarity of at least MIN_JACCARD.

    Each text of `second` occurs at most once. Candidates come from locality-sensitive hashing (Indyk and Motwani 1998), one per
    band, and are compared exactly: what is returned is right, and a pair near the limit may be missing.
    """
    nearest: dict[int, tuple[float, int]] = {}
    for j, i in _candidates(first, second):
        own, other = shingles(second.texts[j]), shingles(first.texts[i])
        similarity = len(own & other) / len(own | other)
        if similarity >= MIN_JACCARD and similarity > nearest.get(j, (0.0, 0))[0]:
            nearest[j] = similarity, i
    return [(j, i) for j, (_, i) in sorted(nearest.items())]


def _candidates(first: SignedTexts, second: SignedTexts) -> Iterator[tuple[int, int]]:
    """Yield (position in `second`, position in `first`) of texts with equal bands: in each band the earliest of `first`."""
    pairs: list[Ints] = []
    rest = np.flatnonzero(~second.without_words())
    for number in range(BANDS if len(first.texts) else 0):
        keys, wanted = first.band(number), second.band(number)[rest]
        order = np.argsort(keys, kind="stable")
        places = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
        equal = keys[order][places] == wanted
        pairs.append(np.stack([rest[equal], order[places][equal]], axis=1))
    unique = np.unique(np.concatenate(pairs), axis=0) if pairs else np.empty((0, 2), dtype=np.int64)
    for start in range(0, len(unique), CHUNK):
        chunk = unique[start : start + CHUNK]
        agreement = (second.signatures[chunk[:, 0]] == first.signatures[chunk[:, 1]]).mean(axis=1)
        yield from ((int(j), int(i)) for j, i in chunk[agreement >= MIN_AGREEMENT])


class _WordHashes(dict[str, int]):
    """Hashes of words, each computed once. They depend on the word alone, so signatures do not depend on other texts."""

    def __missing__(self, word: str) -> int:
        value = self[word] = zlib.crc32(word.encode("utf-8", "surrogatepass")) + 1
        return value


def _signatures(texts: Sequence[str], hashes: _WordHashes) -> npt.NDArray[np.uint32]:
    flat, lengths = list[int](), []
    for text in texts:
        own = [hashes[word] for word in words(text)]
        if 0 < len(own) < SHINGLE_WORDS:
            own += [0] * (SHINGLE_WORDS - len(own))
        flat += own
        lengths.append(len(own))
    signatures = np.full((len(texts), BANDS * BAND_ROWS), _EMPTY, dtype=np.uint32)
    if not flat:
        return signatures
    counts = np.array(lengths)
    filled = counts > 0
    starts = np.cumsum(counts) - counts
    values, starts_filled = _shingle_hashes(np.array(flat, dtype=np.uint64), starts[filled], counts[filled])
    for number, multiplier in enumerate(_multipliers()):
        signatures[filled, number] = np.minimum.reduceat((values * multiplier) >> np.uint64(32), starts_filled)
    return signatures


def _shingle_hashes(flat: Hashes, starts: Ints, counts: Ints) -> tuple[Hashes, Ints]:
    """Return the hashes of all shingles, one text after the other, and where each text begins."""
    values = np.zeros(len(flat) - SHINGLE_WORDS + 1, dtype=np.uint64)
    for shift in range(SHINGLE_WORDS):
        values = _mix(values + flat[shift : shift + len(values)])
    inside = np.ones(len(flat), dtype=np.bool_)  # shingles that end in the next text are left out
    for shift in range(1, SHINGLE_WORDS):
        inside[starts + counts - shift] = False
    shingle_counts = counts - SHINGLE_WORDS + 1
    return values[inside[: len(values)]], np.cumsum(shingle_counts) - shingle_counts


def _mix(values: Hashes) -> Hashes:
    """Spread the bits of 64-bit numbers (the finalizer of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _multipliers() -> Hashes:
    """Return one odd multiplier per hash function (multiply-shift, Dietzfelbinger et al. 1997), always the same."""
    return np.random.default_rng(0).integers(2**63, size=BANDS * BAND_ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
