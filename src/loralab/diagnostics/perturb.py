"""Small damages to a text that leave a person's answer as it was. Each is a pure function of the text and a seed.

In the spirit of CheckList's invariance tests (Ribeiro et al. 2020) and of the character noise of Belinkov and Bisk 2018.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

SHARE_OF_WORDS = 0.2
"""Words of four letters or more that are misspelt, and at least one where there is one."""
_WORD = re.compile(r"[^\W\d_]{4,}")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: "".join(
        _ROWS[y][x]
        for y, x in ((row, at - 1), (row, at + 1), (row + 1, at), (row - 1, at))
        if 0 <= y < 3 and 0 <= x < len(_ROWS[y])
    )
    for row, keys in enumerate(_ROWS)
    for at, key in enumerate(keys)
}
"""Keys beside, below and above each key of a QWERTY keyboard."""


def perturb(text: str, kind: str, seed: int = 0) -> str:
    """Return the text damaged in one way (see `KINDS`): the same for the same text and seed, wherever the text stands."""
    key = f"{seed}/{kind}/{text}".encode("utf-8", "surrogatepass")  # JSON can carry half a character
    return KINDS[kind](text, random.Random(key))  # noqa: S311 - no secret hangs on it


def perturb_all(texts: Sequence[str], kind: str, seed: int = 0) -> list[str]:
    """Return every text damaged in one way."""
    return [perturb(text, kind, seed) for text in texts]


def _misspell(text: str, source: random.Random, damage: Callable[[str, random.Random], str]) -> str:
    """Damage a share of the longer words."""
    words = list(_WORD.finditer(text))
    chosen = source.sample(words, max(1, round(SHARE_OF_WORDS * len(words)))) if words else []
    for word in sorted(chosen, key=lambda found: -found.start()):
        text = text[: word.start()] + damage(word[0], source) + text[word.end() :]
    return text


def _typo(word: str, source: random.Random) -> str:
    """Swap two unequal letters, or hit a key beside the right one."""
    unequal = [i for i in range(len(word) - 1) if word[i] != word[i + 1]]
    known = [i for i, letter in enumerate(word) if letter.lower() in _NEIGHBOURS]
    if unequal and (not known or source.random() < 0.5):
        i = source.choice(unequal)
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if not known:
        return word
    i = source.choice(known)
    hit = source.choice(_NEIGHBOURS[word[i].lower()])
    return word[:i] + (hit.upper() if word[i].isupper() else hit) + word[i + 1 :]


def _drop(word: str, source: random.Random) -> str:
    i = source.randrange(1, len(word))  # the first letter is the one people seldom lose
    return word[:i] + word[i + 1 :]


def _double(word: str, source: random.Random) -> str:
    i = source.randrange(len(word))
    return word[: i + 1] + word[i:]


def _markup(text: str, source: random.Random) -> str:
    """Put a tag around a word, an entity and an address between words."""
    words = text.split(" ")
    i = source.randrange(len(words))
    words[i] = f"<b>{words[i]}</b>"
    for piece in ("&nbsp;", "&quot;", "<br />", f"http://www.example.com/{source.randrange(10**6)}.html"):
        words.insert(source.randrange(len(words) + 1), piece)
    return " ".join(words)


def _half(text: str, source: random.Random) -> str:
    words = text.split()
    return " ".join(words[: (len(words) + 1) // 2])


KINDS: Mapping[str, Callable[[str, random.Random], str]] = {
    "typos": lambda text, source: _misspell(text, source, _typo),
    "dropped letters": lambda text, source: _misspell(text, source, _drop),
    "doubled letters": lambda text, source: _misspell(text, source, _double),
    "upper case": lambda text, source: text.upper(),
    "lower case": lambda text, source: text.lower(),
    "markup": _markup,
    "first half": _half,
}
