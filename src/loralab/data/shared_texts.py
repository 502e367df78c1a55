"""Texts that two parts of a run share, exactly or nearly, found once per process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from loralab.data.clean import normalize_text
from loralab.data.near_duplicates import SignedTexts, find_near_duplicates, sign

MAX_CACHED = 32
"""Results in memory, each of two parts: those of about ten splits."""
_cache: dict[tuple[bytes, bytes], SharedTexts] = {}


class SharedTexts(NamedTuple):
    """The number of texts that two parts share but for case and white space, and pairs of others that are near duplicates.

    near: positions (in the second part, in the first).
    """

    exact: int
    near: tuple[tuple[int, int], ...]


def find_shared_texts(parts: Mapping[str, Sequence[str]], pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], SharedTexts]:
    """Return what the texts of two parts share, for the pairs whose parts both exist.

    The trials of an experiment mostly have the same splits. The key is the content, so changed texts are compared again.
    """
    pairs = [pair for pair in pairs if {*pair} <= {*parts}]
    digests = {name: _digest(parts[name]) for name in {*chain(*pairs)}}
    signed: dict[str, SignedTexts] = {}
    shared = {}
    for first, second in pairs:
        key = digests[first], digests[second]
        result = _cache.pop(key, None)
        if result is None:
            for name in (first, second):
                signed[name] = signed.get(name) or sign(parts[name])
            result = _compare(signed[first], signed[second])
        shared[first, second] = _cache[key] = result
    while len(_cache) > MAX_CACHED:
        del _cache[next(iter(_cache))]  # the least recently used entry
    return shared


def _compare(first: SignedTexts, second: SignedTexts) -> SharedTexts:
    known = set(map(normalize_text, first.texts))
    exact = {i for i, text in enumerate(second.texts) if text.strip() and normalize_text(text) in known}
    return SharedTexts(len(exact), tuple(pair for pair in find_near_duplicates(first, second) if pair[0] not in exact))


def _digest(texts: Sequence[str]) -> bytes:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\xff")  # a byte that no text has
    return digest.digest()
