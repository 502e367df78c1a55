"""Problems of labels: alike, rare, hidden, several in one, or not those of the training rows."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import combinations
from shlex import quote

from loralab.data.columns import list_names
from loralab.data.labels import HIDDEN, ClassTable, classes_setting, natural_key
from loralab.data.types import MAX_LISTED, Notice, count_of
from loralab.errors import suggest

MIN_CLASS_ROWS = 10
"""Fewer rows of a class can hardly be learned and divided among the splits."""
MAX_CLASSES = 100
"""With more classes, and few rows of each, the column is probably not a label column; pairs of names are not compared."""
RARE = 0.1
"""A class with at most this share of another's rows may be a misspelling of it."""
_SEPARATORS = re.compile(r"\s*[,;|\n]\s*")
_NEGATIONS = ("un", "in", "im", "ir", "il", "non", "dis", "anti", "no", "not")
_FLAGS = frozenset(("0", "1", "0.0", "1.0", "true", "false"))


def label_findings(labels: Sequence[str | None], other_column: str = "") -> list[Notice]:
    """Report problems of the classes of a file. labels: the class of each row. other_column: a setting with a likelier column."""
    counts = Counter(label for label in labels if label is not None)
    if len(counts) > MAX_CLASSES and len(counts) > sum(counts.values()) / MIN_CLASS_ROWS:
        message = f"{len(counts):,} different labels in {count_of(sum(counts.values()), 'row')}"
        fix = f"if this is not the label column, write {other_column or 'data.label=COLUMN'}"
        return [Notice(message, (), fix, "warning")]
    rows = defaultdict[str, list[int]](list)
    for row, label in enumerate(labels):
        if label is not None:
            rows[label].append(row)
    return [*_alike(counts, rows), *_rare(counts, rows), *_hidden(counts, rows), *several_in_one(labels)]


def _alike(counts: Mapping[str, int], rows: Mapping[str, Sequence[int]]) -> Iterator[Notice]:
    """Report classes whose names differ by a letter or two, or only in marks and spaces."""
    ordered = sorted(counts, key=lambda name: (counts[name], name))
    pairs = combinations(ordered, 2) if len(counts) <= MAX_CLASSES else ()
    alike = [(one, other) for one, other in pairs if are_alike(one, other, rare=counts[one] <= RARE * counts[other])]
    for one, other in alike[:MAX_LISTED]:
        message = f"label {one!r} ({count_of(counts[one], 'row')}) looks like {other!r} ({counts[other]:,})"
        yield Notice(message, tuple(rows[one]), f"write {other!r} if it is the same class", "warning")
    if more := alike[MAX_LISTED:]:
        listed = ", ".join(f"{one!r} and {other!r}" for one, other in more[:MAX_LISTED])
        message = f"{count_of(len(more), 'more pair')} of labels look alike, such as {listed}"
        yield Notice(message, (), "write one name for each class", "warning")


def are_alike(first: str, second: str, rare: bool) -> bool:
    """Return whether two names are probably one, misspelt. rare: whether one has far fewer rows, so that more is allowed."""
    one, two = first.casefold(), second.casefold()
    if [*map(int, re.findall(r"\d+", one))] != [*map(int, re.findall(r"\d+", two))]:
        return False
    letters = [re.sub(r"[\W_]+", "", name) for name in (one, two)]
    if letters[0] == letters[1]:
        return any(map(str.isalpha, letters[0]))
    shorter, longer = sorted((one, two), key=len)
    if any(longer.startswith(prefix) and longer.removeprefix(prefix).strip(" -_") == shorter for prefix in _NEGATIONS):
        return False
    # Letters that only one has: an inserted letter counts 1, a wrong letter or two that changed places 2.
    most = (4 if len(shorter) >= 9 else 2 if len(shorter) >= 4 else 0) if rare else 2 if len(shorter) >= 6 else 0
    if len(longer) - len(shorter) > most and longer != f"{shorter}s":
        return False
    if longer == f"{shorter}s":
        return len(shorter) > 2
    same = sum(block.size for block in SequenceMatcher(None, one, two, autojunk=False).get_matching_blocks())
    return len(one) + len(two) - 2 * same <= most


def _rare(counts: Mapping[str, int], rows: Mapping[str, Sequence[int]]) -> Iterator[Notice]:
    few = sorted((name for name in counts if counts[name] < MIN_CLASS_ROWS), key=lambda name: counts[name])
    if not few:
        return
    fix = f"add rows (at least {MIN_CLASS_ROWS} of a class), merge classes, or remove them"
    if len(few) == 1:
        message = f"class {few[0]!r} has {count_of(counts[few[0]], 'row')}"
    else:
        listed = ", ".join(f"{name!r} {counts[name]}" for name in few[:MAX_LISTED])
        more = f" and {len(few) - MAX_LISTED} more" if len(few) > MAX_LISTED else ""
        message = f"{len(few)} of {len(counts)} classes have fewer than {MIN_CLASS_ROWS} rows: {listed}{more}"
    theirs = tuple(sorted(row for name in few for row in rows[name]))
    yield Notice(message, theirs if len(few) < len(counts) else (), fix, "warning")


def _hidden(counts: Mapping[str, int], rows: Mapping[str, Sequence[int]]) -> Iterator[Notice]:
    if HIDDEN in counts:
        message = f"{HIDDEN} is a class of {count_of(counts[HIDDEN], 'row')}; published files hide labels by it"
        yield Notice(message, tuple(rows[HIDDEN]), "if it means no label, empty these cells", "warning")


def several_in_one(labels: Sequence[str | None]) -> list[Notice]:
    """Report names with commas or the like: several labels in one if their parts are labels too, or recur."""
    names = {label for label in labels if label is not None}
    divided = {name: [part for part in _SEPARATORS.split(name) if part] for name in sorted(names) if _SEPARATORS.search(name)}
    parts = Counter(part for own in divided.values() for part in {*own})
    several = [name for name, own in divided.items() if len(own) > 1 and all(part in names or parts[part] > 1 for part in own)]
    if several:
        message = f"labels that look like several in one: {list_names(several)}"
        fix = "keep one label per text, or train on one column per label: loralab learns one label per text"
        return [Notice(message, tuple(row for row, label in enumerate(labels) if label in several), fix, "warning")]
    if divided:
        fix = f"in settings, write a list: {classes_setting(sorted(names, key=natural_key))}"
        marks = "line breaks" if any("\n" in name for name in divided) else "commas or the like"
        return [Notice(f"class names with {marks}: {list_names([*divided])}", (), fix)]
    return []


def unknown_findings(labels: Sequence[str | None], table: ClassTable) -> list[Notice]:
    """Report labels of another part that are no class of the training rows."""
    unknown = Counter(label for label in labels if label is not None and table.match(label) is None) if table.names else {}
    findings = []
    for label in [*unknown][:MAX_LISTED]:
        message = f"label {label!r} is not in the training rows{suggest(label, table.names)}"
        rows = tuple(row for row, own in enumerate(labels) if own == label)
        fix = f"add training rows with it, or correct it; classes: {list_names(table.names)}"
        findings.append(Notice(message, rows, fix, "error"))
    if more := [*unknown][MAX_LISTED:]:
        rows = tuple(row for row, own in enumerate(labels) if own in {*more})
        findings.append(Notice(f"{count_of(len(more), 'more label')} are not in the training rows", rows, "as above", "error"))
    return findings


def flag_findings(values: Mapping[str, Sequence[object]], label: str | None, used: Sequence[str]) -> list[Notice]:
    """Report several columns of 0 and 1, of which training learns one. values: the first rows by column; used: the text columns."""
    flags = [name for name, column in values.items() if name not in used and _is_flag(column)]
    if len(flags) < 2 or label not in flags:
        return []
    others = [name for name in flags if name != label]
    also = f"{list_names(others)} {'is' if len(others) == 1 else 'are'} 0 or 1 as well"
    message = f"column {label!r} is learned; {also}: may a text have several labels? loralab learns one column"
    return [Notice(message, (), f"train once per column, such as {quote(f'data.label={others[0]}')}", "warning")]


def _is_flag(column: Sequence[object]) -> bool:
    distinct = {str(value).strip().casefold() for value in column if value is not None} - {""}
    return len(distinct) == 2 and distinct <= _FLAGS
