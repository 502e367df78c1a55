"""Data augmentation: Easy Data Augmentation (EDA, Wei and Zou 2019) and back-translation (Sennrich et al. 2016).

Texts are cleaned before they are changed. A new row keeps the label, the weight and the row number of its source.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np

from loralab.data.clean import clean_text
from loralab.data.hold_out import stratified
from loralab.data.types import Examples, Ints, count_of
from loralab.errors import LoralabError, suggest

Words = list[str]
Synonyms = Callable[[str], Sequence[str]]
Rewrite = Callable[[Sequence[str], str], Sequence[str]]
"""(texts, key) → rewritten texts, unchanged where the technique does not apply. The key seeds the random stream."""

TECHNIQUES = ("synonym", "insertion", "deletion", "swap", "back_translation")
TRIES = 3
"""Attempts with one technique per row before the next technique is used."""
# EDA's list, which is NLTK's of 2009: function words.
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
"""Punctuation, letters (also several groups joined by hyphens or apostrophes), punctuation."""
# English, also written without an apostrophe, then other languages.
_NEGATIONS = (
    "no not nor never none nobody nothing neither nowhere without cannot hardly barely scarcely rarely seldom nope "
    "dont doesnt didnt isnt arent wasnt werent wont wouldnt cant couldnt shouldnt hasnt havent hadnt aint "
    "nicht nichts kein keine keinen keiner keinem nie niemals ohne ne pas jamais rien sans aucun aucune nunca nada sin ni "
    "não nem sem non mai niente senza niet geen nooit zonder inte aldrig ikke nie nigdy не нет ни никогда без"
)
NEGATIONS = frozenset(_NEGATIONS.split())
_NEGATED = re.compile(r"(?:.*n['’]t|n['’].+|(?:not|no|non|never)-.*)", re.IGNORECASE | re.DOTALL)
_PLACEHOLDER = re.compile(
    r"""\W*(?:
        [@\#]\w | __\w+__ | :\w+:              # @user, #tag, __NAME__, :smile:
        | %\w+% | %\(\w+\)\w | %[\d.$+-]*[a-z]\b  # %NAME%, %(name)s, %s, %1$s, %.2f
        | \$\w | [\[<{][^\[<{]*[\]>}]           # $NAME, [NAME], <TAG>, {x}, ${x}
    | \w+:// | www\. | \w[^\s@]*@\w[^\s@]*\.\w
    | (?:\w[\w-]*\.)+(?:\w[\w-]*/|(?:com|org|net|edu|gov|info|io|[a-z]{2})\b(?!\.\w))
    )""",
    re.DOTALL | re.VERBOSE | re.IGNORECASE,
)
_BRACKETS = {"[": "]", "<": ">", "{": "}"}
MAX_PLACEHOLDER_WORDS = 5
"""Words in brackets that are one placeholder. A longer part is text."""


def check_techniques(names: Sequence[str]) -> None:
    """Raise LoralabError for an unknown technique and for one that occurs twice."""
    for i, name in enumerate(names):
        if name not in TECHNIQUES:
            raise LoralabError(
                f"data.augment: {name!r} is not a technique{suggest(name, TECHNIQUES)}; valid: {', '.join(TECHNIQUES)}"
            )
        if name in names[:i]:
            raise LoralabError(f"data.augment names {name!r} twice")


def needs_synonyms(names: Collection[str]) -> bool:
    """Whether a technique uses synonyms."""
    return "synonym" in names or "insertion" in names


def word_rewrites(names: Collection[str], strength: float, synonyms: Synonyms | None) -> dict[str, Rewrite]:
    """Return those of the named techniques that change words. `strength`: EDA's alpha, the share of words changed.

    Words are separated by white space, which becomes single spaces.
    """

    @cache
    def look_up(word: str) -> list[str]:
        """Without names for a word in lower case: a synonym of `price` is the singer Mary Leontyne Price."""
        return [other for other in synonyms(word) if word[0].isupper() or not other[0].isupper()] if synonyms else []

    changes: dict[str, Callable[[Words, random.Random], Words]] = {
        "synonym": lambda words, stream: _replace(words, _share(words, strength), look_up, stream),
        "insertion": lambda words, stream: _insert(words, _share(words, strength), look_up, stream),
        "deletion": lambda words, stream: _delete(words, strength, stream),
        "swap": lambda words, stream: _swap(words, _share(words, strength), stream),
    }
    return {name: _rewrite_texts(change) for name, change in changes.items() if name in names}


def augment(
    train: Examples, rewrites: Mapping[str, Rewrite], *, ratio: float, seed: int, clean: Sequence[str] = ()
) -> tuple[Examples, Counter[str]]:
    """Make round(`ratio` · n) new rows from n rows. Return them in the order of their sources, and their number by technique.

    Class proportions are kept. Every row of a class is used once before one is used twice. The techniques alternate: their
    numbers differ by at most one per class, whatever their order. A larger ratio includes the rows of a smaller one. A new row
    differs from its source and from the other new rows of that source. If no technique can change a row, another row of the
    class is used; if none is left, fewer rows are made.
    """
    texts = [clean_text(text, clean) for text in train.texts]
    labels = train.require_labels()
    known = [{" ".join(text.split()), ""} for text in texts]
    total = round(ratio * len(train))
    new: list[tuple[int, str]] = []
    made: Counter[str] = Counter()
    for cycle, done in enumerate(range(0, total, len(train))):
        stream = np.random.default_rng((seed, cycle))
        queues = {label: _shuffled(labels, label, stream) for label in range(len(train.classes))}
        missing = Counter(labels[stratified(labels, min(len(train), total - done), stream)].tolist())
        while chosen := [next(queues[label], None) for label, count in missing.items() for _ in range(count)]:
            pending = {position: number + cycle for position, number in filter(None, chosen)}
            if not pending:
                break
            for position, text, name in _rewrite_rows(pending, texts, known, rewrites, f"{seed}/{cycle}"):
                new.append((position, text))
                made[name] += 1
                missing[int(labels[position])] -= 1
    new.sort(key=lambda row: row[0])
    sources = np.array([position for position, _ in new], dtype=np.int64)
    weights = None if train.weights is None else train.weights[sources]
    return Examples([text for _, text in new], labels[sources], train.rows[sources], train.classes, weights=weights), made


def show_techniques(text: str, rewrites: Mapping[str, Rewrite], seed: int) -> list[tuple[str, str]]:
    """Return (technique, rewritten text) for each technique, starting with ("before", text)."""
    return [("before", text), *((name, rewrite([text], f"{seed}/0/{name}/0")[0]) for name, rewrite in rewrites.items())]


def augmentation_remark(
    made: Mapping[str, int], requested: int, texts: Iterable[str] = (), techniques: Collection[str] = TECHNIQUES
) -> str:
    """Report the number of new rows by technique, and how many could not be made and why.

    texts: those that rows were made from, after cleaning. techniques: those that were used.
    """
    total = sum(made.values())
    counts = ", ".join(f"{made[name]:,} {name}" for name in TECHNIQUES if made.get(name))
    missing = ""
    if requested > total:
        reasons = "; ".join(_unchanged_reasons(texts, techniques))
        missing = f"; {requested - total:,} more were requested, but no technique could make them: {reasons}"
    return f"{total:,} augmented rows added to the training rows{f': {counts}' if counts else ''}{missing}"


def _unchanged_reasons(texts: Iterable[str], techniques: Collection[str]) -> list[str]:
    """Return why techniques have no (further) result for some texts."""
    words = [text.split() for text in texts]
    empty = sum(not own for own in words)
    single = sum(len(own) == 1 for own in words)
    fixed = sum(len(own) > 1 and len(protected(own)) == len(own) for own in words)
    kinds = (
        (empty, "empty"),
        (single, "one word (words end at a space; Chinese, Japanese and Thai are written without)"),
        (fixed, "only words that are kept: negations, placeholders, addresses"),
    )
    of = f"of {len(words):,} texts"
    reasons = [f"{count_of(count, f'{of} is', f'{of} are')} {kind}" for count, kind in kinds if count]
    if set(techniques) <= {"synonym", "insertion"}:
        reasons.append("no other word has a synonym in WordNet, which is English")
    return reasons or ["the other texts have too few words that a technique may change"]


def _shuffled(labels: Ints, label: int, stream: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Yield the positions of a class in random order, each with a number that selects its technique."""
    positions = stream.permutation(np.flatnonzero(labels == label)).tolist()
    return iter([(position, label + i) for i, position in enumerate(positions)])


def _rewrite_rows(
    pending: dict[int, int], texts: Sequence[str], known: Sequence[set[str]], rewrites: Mapping[str, Rewrite], key: str
) -> Iterator[tuple[int, str, str]]:
    """Rewrite each pending position once, by the technique of its number or else the next. Yield (position, text, technique).

    Mutates `pending` and `known`.
    """
    names = sorted(rewrites)
    for shift in range(len(names)):
        for index, name in enumerate(names):
            for attempt in range(TRIES):
                positions = [position for position, number in pending.items() if (number + shift) % len(names) == index]
                if not positions:
                    break
                rewritten = rewrites[name]([texts[position] for position in positions], f"{key}/{name}/{attempt}")
                for position, text in zip(positions, rewritten, strict=True):
                    words = " ".join(text.split())
                    if words not in known[position]:
                        known[position].add(words)
                        del pending[position]
                        yield position, text, name


def _rewrite_texts(change: Callable[[Words, random.Random], Words]) -> Rewrite:
    """Rewrite each text with a stream of its own, so that the result does not depend on the other texts."""

    def rewrite(texts: Sequence[str], key: str) -> list[str]:
        seeds = (f"{key}/{text}".encode("utf-8", "surrogatepass") for text in texts)  # JSON can contain lone surrogates
        streams = (random.Random(seed) for seed in seeds)  # noqa: S311 - not for cryptography
        return [" ".join(change(text.split(), stream)) for text, stream in zip(texts, streams, strict=True)]

    return rewrite


def protected(words: Sequence[str]) -> set[int]:
    """Return the positions that no technique changes or moves: negations, addresses, and placeholders such as `[ORDER NO]`."""
    positions = set()
    for i, word in enumerate(words):
        core = word.strip(".,;:!?\"'()*").casefold()
        if core in NEGATIONS or _NEGATED.fullmatch(core) or _PLACEHOLDER.match(word):
            positions.add(i)
        positions.update(range(i, _placeholder_end(words, i)))
    return positions


def _placeholder_end(words: Sequence[str], start: int) -> int:
    """Return the position after a placeholder of several words that starts at a word; `start` if none does."""
    for opening, closing in _BRACKETS.items():
        before, bracket, rest = words[start].rpartition(opening)
        if not bracket or not rest or closing in rest or before[-1:].isalnum():
            continue
        for end in range(start + 1, min(start + MAX_PLACEHOLDER_WORDS, len(words))):
            if opening in words[end]:
                break
            if closing in words[end]:
                return end + 1
    return start


def _share(words: Words, strength: float) -> int:
    """Return EDA's n = alpha · l, at least 1."""
    return max(1, int(strength * len(words)))


def _replaceable(words: Words, synonyms: Synonyms) -> list[tuple[int, re.Match[str], Sequence[str]]]:
    """Return (position, word, synonyms) of every word of two letters or more that has synonyms and is not a stop word."""
    fixed = protected(words)
    matches = ((i, _WORD.fullmatch(word)) for i, word in enumerate(words) if i not in fixed)
    content = ((i, match) for i, match in matches if match and len(match[2]) > 1 and match[2].lower() not in STOP_WORDS)
    return [(i, match, others) for i, match in content if (others := synonyms(match[2]))]


def _replace(words: Words, count: int, synonyms: Synonyms, stream: random.Random) -> Words:
    """Synonym replacement: replace `count` words by a synonym in the same case, and keep their punctuation."""
    candidates = _replaceable(words, synonyms)
    for i, match, others in stream.sample(candidates, min(count, len(candidates))):
        words[i] = f"{match[1]}{_match_case(match[2], stream.choice(others))}{match[3]}"
    return words


def _insert(words: Words, count: int, synonyms: Synonyms, stream: random.Random) -> Words:
    """Random insertion: insert a synonym of a word of the text at a random position, `count` times."""
    candidates = _replaceable(words, synonyms)
    for _ in range(count if candidates else 0):
        words.insert(_gap(words, stream.randint(0, len(words))), stream.choice(stream.choice(candidates)[2]))
    return words


def _gap(words: Words, position: int) -> int:
    """Return a position for a new word, at or after the given one, that divides no placeholder of several words."""
    fixed = protected(words)
    while 0 < position < len(words) and position in fixed and position - 1 in fixed:
        position += 1
    return position


def _delete(words: Words, strength: float, stream: random.Random) -> Words:
    """Random deletion: delete each word with probability `strength`, but at least one and not all."""
    if len(words) < 2:
        return words
    fixed = protected(words)
    kept = [i for i in range(len(words)) if stream.random() >= strength or i in fixed]
    if len(kept) == len(words) and len(fixed) < len(words):
        kept.remove(stream.choice([i for i in kept if i not in fixed]))
    return [words[i] for i in kept or [stream.randrange(len(words))]]


def _swap(words: Words, count: int, stream: random.Random) -> Words:
    """Random swap: exchange two different words, `count` times."""
    fixed = protected(words)
    free = [i for i in range(len(words)) if i not in fixed]
    for _ in range(count if len({words[i] for i in free}) > 1 else 0):
        i = free[stream.randrange(len(free))]
        j = stream.choice([j for j in free if words[j] != words[i]])
        words[i], words[j] = words[j], words[i]
    return words


def _match_case(word: str, other: str) -> str:
    """Return `other` in upper case or capitalized if `word` is, else unchanged."""
    if word.isupper():
        return other.upper()
    return other[0].upper() + other[1:] if word[0].isupper() else other
