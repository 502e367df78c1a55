"""More training rows out of those there are: Easy Data Augmentation (Wei and Zou 2019) and back-translation (Sennrich et al. 2016).

A row is changed after cleaning, so that no step of it is broken by a change; it keeps its source's label and row number.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache

import numpy as np

from loralab.data.clean import clean_text
from loralab.data.splits import stratified
from loralab.data.types import Examples, Ints
from loralab.errors import LoralabError, nearest

Words = list[str]
Synonyms = Callable[[str], Sequence[str]]
Rewrite = Callable[[Sequence[str], str], Sequence[str]]
"""(texts, key) → each text anew, or its own words where a technique finds nothing to change. `key` names the random stream."""

TECHNIQUES = ("synonym", "insertion", "deletion", "swap", "back_translation")
TRIES = 3
"""Draws of one technique on one row, before the next technique has its turn."""
# EDA's own list, which is NLTK's of 2009: these words carry grammar, not meaning.
_STOP_WORDS = (
    "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it its itself "
    "they them their theirs themselves what which who whom this that these those am is are was were be been being have has had "
    "having do does did doing a an the and but if or because as until while of at by for with about against between into through "
    "during before after above below to from up down in out on off over under again further then once here there when where why "
    "how all any both each few more most other some such no nor not only own same so than too very s t can will just don should "
    "now"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
_WORD = re.compile(r"(\W*)([^\W\d_]+(?:[-'’][^\W\d_]+)*)(\W*)", re.DOTALL)
"""Punctuation, letters (two parts and more joined by a hyphen or an apostrophe), punctuation."""


def check_techniques(names: Sequence[str]) -> None:
    """Raise LoralabError for a technique that does not exist or is named twice."""
    for i, name in enumerate(names):
        if name not in TECHNIQUES:
            raise LoralabError(
                f"data.augment: {name!r} is not a technique{nearest(name, TECHNIQUES)}; valid: {', '.join(TECHNIQUES)}"
            )
        if name in names[:i]:
            raise LoralabError(f"data.augment names {name!r} twice")


def needs_synonyms(names: Collection[str]) -> bool:
    """Whether one of the techniques looks words up."""
    return "synonym" in names or "insertion" in names


def word_rewrites(names: Collection[str], strength: float, synonyms: Synonyms | None) -> dict[str, Rewrite]:
    """Return the techniques that change words, those of `names`. `strength`: EDA's alpha, the share of words changed.

    Words are what stands between spaces; line breaks and tabs become spaces.
    """

    @cache
    def look_up(word: str) -> list[str]:
        """Without names for a word without a capital: `prices` would find the singer Mary Leontyne Price."""
        return [other for other in synonyms(word) if word[0].isupper() or not other[0].isupper()] if synonyms else []

    changes: dict[str, Callable[[Words, random.Random], Words]] = {
        "synonym": lambda words, source: _replace(words, _share(words, strength), look_up, source),
        "insertion": lambda words, source: _insert(words, _share(words, strength), look_up, source),
        "deletion": lambda words, source: _delete(words, strength, source),
        "swap": lambda words, source: _swap(words, _share(words, strength), source),
    }
    return {name: _on_texts(change) for name, change in changes.items() if name in names}


def augment(
    train: Examples, rewrites: Mapping[str, Rewrite], *, ratio: float, seed: int, clean: Sequence[str] = ()
) -> tuple[Examples, Counter[str]]:
    """Make round(`ratio` · n) new rows out of n; return them, by their source's place, and how many each technique made.

    Classes keep their proportions; no row is used twice before all others of its class were used once; the techniques take
    turns, in parts that differ by one a class at most, whatever the order they are named in. A larger ratio holds the rows of a
    smaller one. No new row has the words of its source or of another row made of it: where a technique can do nothing the next
    one has its turn, then another row of the class; what is still missing then is not made.
    """
    texts = [clean_text(text, clean) for text in train.texts]
    labels = train.require_labels()
    known = [{" ".join(text.split()), ""} for text in texts]
    names = sorted(rewrites)
    asked = round(ratio * len(train))
    found: list[tuple[int, str]] = []
    made: Counter[str] = Counter()
    for turn, begin in enumerate(range(0, asked, len(train))):
        drawing = np.random.default_rng((seed, turn))
        queues = {c: _shuffled(labels, c, drawing) for c in range(len(train.classes))}
        wanted = Counter(labels[stratified(labels, min(len(train), asked - begin), drawing)].tolist())
        while chosen := [next(queues[c], None) for c, count in wanted.items() for _ in range(count)]:
            pending = {place: number + turn for place, number in filter(None, chosen)}
            if not pending:
                break
            for place, text, name in _rewrite(pending, texts, known, names, rewrites, f"{seed}/{turn}"):
                found.append((place, text))
                made[name] += 1
                wanted[int(labels[place])] -= 1
    found.sort(key=lambda new: new[0])
    sources = np.array([place for place, _ in found], dtype=np.int64)
    return Examples([text for _, text in found], labels[sources], train.rows[sources], train.classes), made


def show_techniques(text: str, rewrites: Mapping[str, Rewrite], seed: int) -> list[tuple[str, str]]:
    """Return (technique, the text anew) for each, beginning with ("before", text)."""
    return [("before", text), *((name, rewrite([text], f"{seed}/0/{name}/0")[0]) for name, rewrite in rewrites.items())]


def remark(made: Mapping[str, int], asked: int) -> str:
    """Say how many rows were made and by what, and whether some could not be."""
    total = sum(made.values())
    by = ", ".join(f"{made[name]:,} {name}" for name in TECHNIQUES if made.get(name))
    short = f"; {asked - total:,} more were asked for, and no technique could make another" if asked > total else ""
    return f"{total:,} rows made of the training rows were added to them{f': {by}' if by else ''}{short}"


def _shuffled(labels: Ints, label: int, drawing: np.random.Generator) -> Iterator[tuple[int, int]]:
    """The places of a class in random order, each with a number that picks its technique."""
    places = drawing.permutation(np.flatnonzero(labels == label)).tolist()
    return iter([(place, label + i) for i, place in enumerate(places)])


def _rewrite(
    pending: dict[int, int],
    texts: Sequence[str],
    known: Sequence[set[str]],
    names: Sequence[str],
    rewrites: Mapping[str, Rewrite],
    key: str,
) -> Iterator[tuple[int, str, str]]:
    """Rewrite each place once by the technique of its number, or else the next; yield (place, text, technique) of what is new."""
    for shift in range(len(names)):
        for at, name in enumerate(names):
            for attempt in range(TRIES):
                places = [place for place, number in pending.items() if (number + shift) % len(names) == at]
                if not places:
                    break
                new = rewrites[name]([texts[place] for place in places], f"{key}/{name}/{attempt}")
                for place, text in zip(places, new, strict=True):
                    words = " ".join(text.split())
                    if words not in known[place]:
                        known[place].add(words)
                        del pending[place]
                        yield place, text, name


def _on_texts(change: Callable[[Words, random.Random], Words]) -> Rewrite:
    """Each text has a stream of its own: what becomes of it does not depend on the rows beside it."""

    def rewrite(texts: Sequence[str], key: str) -> list[str]:
        seeds = (f"{key}/{text}".encode("utf-8", "surrogatepass") for text in texts)  # JSON can carry half a character
        sources = (random.Random(seed) for seed in seeds)  # noqa: S311 - no secret hangs on it
        return [" ".join(change(text.split(), source)) for text, source in zip(texts, sources, strict=True)]

    return rewrite


def _share(words: Words, strength: float) -> int:
    """EDA's n = alpha · l, and at least one."""
    return max(1, int(strength * len(words)))


def _known_words(words: Words, synonyms: Synonyms) -> list[tuple[int, re.Match[str], Sequence[str]]]:
    """(place, word, its synonyms) of every word that is no stop word, has two letters or more and has synonyms."""
    matches = ((i, _WORD.fullmatch(word)) for i, word in enumerate(words))
    content = ((i, match) for i, match in matches if match and len(match[2]) > 1 and match[2].lower() not in STOP_WORDS)
    return [(i, match, others) for i, match in content if (others := synonyms(match[2]))]


def _replace(words: Words, count: int, synonyms: Synonyms, source: random.Random) -> Words:
    """Synonym replacement: `count` words give way to one of their synonyms, in their case, between their punctuation."""
    able = _known_words(words, synonyms)
    for i, match, others in source.sample(able, min(count, len(able))):
        words[i] = f"{match[1]}{_in_case_of(match[2], source.choice(others))}{match[3]}"
    return words


def _insert(words: Words, count: int, synonyms: Synonyms, source: random.Random) -> Words:
    """Random insertion: `count` times a synonym of one of the text's words is put anywhere."""
    able = _known_words(words, synonyms)
    for _ in range(count if able else 0):
        words.insert(source.randint(0, len(words)), source.choice(source.choice(able)[2]))
    return words


def _delete(words: Words, strength: float, source: random.Random) -> Words:
    """Random deletion: each word goes with probability `strength`, at least one goes and one stays."""
    if len(words) < 2:
        return words
    kept = [i for i in range(len(words)) if source.random() >= strength]
    if len(kept) == len(words):
        kept.remove(source.choice(kept))
    return [words[i] for i in kept or [source.randrange(len(words))]]


def _swap(words: Words, count: int, source: random.Random) -> Words:
    """Random swap: `count` times two unequal words change places."""
    for _ in range(count if len(set(words)) > 1 else 0):
        i = source.randrange(len(words))
        j = source.choice([j for j, word in enumerate(words) if word != words[i]])
        words[i], words[j] = words[j], words[i]
    return words


def _in_case_of(word: str, other: str) -> str:
    """`other` in capitals, or with a capital, where `word` has them; else as WordNet spells it."""
    if word.isupper():
        return other.upper()
    return other[0].upper() + other[1:] if word[0].isupper() else other
