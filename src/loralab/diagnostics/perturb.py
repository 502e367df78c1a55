"""Text perturbations that should not change the class. Each is a pure function of the text and a seed.

After CheckList's invariance tests (Ribeiro et al. 2020) and the character noise of Belinkov and Bisk 2018.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

MISSPELT_SHARE = 0.2
"""Share of the words of four letters or more that are misspelt, at least one."""
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
"""The keys next to each key of a QWERTY keyboard."""


def perturb(text: str, kind: str, seed: int = 0) -> str:
    """Return the perturbed text (see `KINDS`). It depends only on the text, the kind and the seed."""
    key = f"{seed}/{kind}/{text}".encode("utf-8", "surrogatepass")  # JSON may hold unpaired surrogates
    return KINDS[kind](text, random.Random(key))  # noqa: S311 - not for security


def _misspell(text: str, rng: random.Random, change: Callable[[str, random.Random], str]) -> str:
    """Change a share of the longer words."""
    words = list(_WORD.finditer(text))
    chosen = rng.sample(words, max(1, round(MISSPELT_SHARE * len(words)))) if words else []
    for word in sorted(chosen, key=lambda match: -match.start()):
        text = text[: word.start()] + change(word[0], rng) + text[word.end() :]
    return text


def _typo(word: str, rng: random.Random) -> str:
    """Swap two neighbouring letters that differ, or hit a neighbouring key."""
    unequal = [i for i in range(len(word) - 1) if word[i] != word[i + 1]]
    known = [i for i, letter in enumerate(word) if letter.lower() in _NEIGHBOURS]
    if unequal and (not known or rng.random() < 0.5):
        i = rng.choice(unequal)
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if not known:
        return word
    i = rng.choice(known)
    hit = rng.choice(_NEIGHBOURS[word[i].lower()])
    return word[:i] + (hit.upper() if word[i].isupper() else hit) + word[i + 1 :]


def _drop(word: str, rng: random.Random) -> str:
    i = rng.randrange(1, len(word))  # people rarely drop the first letter
    return word[:i] + word[i + 1 :]


def _double(word: str, rng: random.Random) -> str:
    i = rng.randrange(len(word))
    return word[: i + 1] + word[i:]


def _markup(text: str, rng: random.Random) -> str:
    """Put a tag around a word, and entities, a line break and a URL between words."""
    words = text.split(" ")
    i = rng.randrange(len(words))
    words[i] = f"<b>{words[i]}</b>"
    for piece in ("&nbsp;", "&quot;", "<br />", f"http://www.example.com/{rng.randrange(10**6)}.html"):
        words.insert(rng.randrange(len(words) + 1), piece)
    return " ".join(words)


def _half(text: str, rng: random.Random) -> str:
    words = text.split()
    return " ".join(words[: (len(words) + 1) // 2])


KINDS: Mapping[str, Callable[[str, random.Random], str]] = {
    "typos": lambda text, rng: _misspell(text, rng, _typo),
    "dropped letters": lambda text, rng: _misspell(text, rng, _drop),
    "doubled letters": lambda text, rng: _misspell(text, rng, _double),
    "upper case": lambda text, rng: text.upper(),
    "lower case": lambda text, rng: text.lower(),
    "markup": _markup,
    "first half": _half,
}
