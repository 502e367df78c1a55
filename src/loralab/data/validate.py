"""What is in a file and what is wrong with it, with row numbers and the fix. Reads everything, changes nothing."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loralab.data.sources import Columns, Raw, class_names, class_numbers, find_parts, label_key, read_raw

FEW = 10
"""Rows below which a class can hardly be learned and be in every split."""
MANY = 100
"""Different labels above which the column is hardly one of classes."""
LONG = 96
"""Words that about fill `data.max_length=128` tokens of news."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: what, in which rows (from 0), and what to do."""

    what: str
    rows: tuple[int, ...]
    fix: str


@dataclass(frozen=True)
class Report:
    """One file at a glance. classes: name → rows, empty where the file has no labels; words: (median, 95th percentile, longest)."""

    path: Path
    rows: int
    columns: Columns
    classes: dict[str, int]
    words: tuple[int, int, int]
    findings: tuple[Finding, ...]


def check_source(
    source: str, *, test: str | None = None, text: Sequence[str] | None = None, label: str | None = None
) -> list[Report]:
    """Look at a source, or at its training and test parts, each alone and both together.

    Raises LoralabError only when a file cannot be read or its columns cannot be told.
    """
    first, second = find_parts(source)
    second = Path(test) if test else second
    raw = _with_names(read_raw(first, text=text, label=label))
    reports = [_report(first, raw, _findings(raw))]
    if second is not None:
        other = _with_names(read_raw(second, text=text, label=label))
        reports.append(_report(second, other, [*_findings(other), *_across(raw, other)]))
    return reports


def _with_names(raw: Raw) -> Raw:
    """Replace label numbers by the class names that the file brings along."""
    keys = [label_key(value) for value in raw.values]
    numbers = class_numbers({key for key in keys if key is not None}, raw.names) if raw.names else {}
    return replace(raw, values=[raw.names[numbers[key]] if key in numbers else key for key in keys])


def _report(path: Path, raw: Raw, findings: list[Finding]) -> Report:
    words = np.array([len(text.split()) for text in raw.texts])
    counts = Counter(key for key in map(label_key, raw.values) if key is not None)
    classes = {name: counts[name] for name in raw.names or class_names(counts)}
    classes |= {name: count for name, count in counts.items() if name not in classes}
    return Report(
        path,
        len(raw.texts),
        raw.columns,
        classes,
        (int(np.median(words)), int(np.quantile(words, 0.95)), int(words.max())),
        tuple(findings),
    )


def _findings(raw: Raw) -> list[Finding]:
    """What is wrong within one file."""
    found = []
    keys = [label_key(value) for value in raw.values]
    if empty := [row for row, text in enumerate(raw.texts) if not text.strip()]:
        found.append(Finding("no text", tuple(empty), "fill in or remove; training keeps them as empty texts"))
    if missing := [row for row, key in enumerate(keys) if key is None]:
        found.append(Finding("no label", tuple(missing), "fill in or remove; training refuses them"))
    counts = Counter(key for key in keys if key is not None)
    if len(counts) == 1:
        found.append(Finding(f"one class only ({next(iter(counts))})", (), "a classifier needs two or more"))
    if len(counts) > MANY:
        found.append(
            Finding(f"{len(counts):,} different labels in {len(keys):,} rows", (), "is this the label column? Say it: --label NAME")
        )
    else:
        found += _odd_classes(keys, counts)
    found += _duplicates(raw.texts, keys)
    words = [len(text.split()) for text in raw.texts]
    if long := [row for row, count in enumerate(words) if count > LONG]:
        found.append(
            Finding(
                f"over {LONG} words, more than data.max_length=128 tokens keep",
                tuple(long),
                "data.max_length=256 reads further, at twice the time",
            )
        )
    return found


def _odd_classes(keys: Sequence[str | None], counts: Counter[str]) -> list[Finding]:
    """Classes that look like another's misspelling, and classes with too few rows."""
    found = []
    for name, count in counts.items():
        larger = {other.casefold(): other for other in counts if counts[other] > count}
        twin = difflib.get_close_matches(name.casefold(), larger, n=1, cutoff=0.85)
        rows = tuple(row for row, key in enumerate(keys) if key == name) if twin or count < FEW else ()
        if twin and not name.isdecimal():
            meant = larger[twin[0]]
            found.append(Finding(f"label {name!r} looks like {meant!r}", rows, f"write {meant!r} if it is the same class"))
        elif count < FEW:
            found.append(
                Finding(f"class {name!r} has {count} rows", rows, f"add rows (at least {FEW}), merge the class or leave it out")
            )
    return found


def _duplicates(texts: Sequence[str], keys: Sequence[str | None]) -> list[Finding]:
    """Texts that stand more than once, spaces and case aside: with one label, and with several."""
    places = defaultdict(list)
    for row, text in enumerate(texts):
        if text.strip():
            places[_plain(text)].append(row)
    same: list[int] = []
    different: list[int] = []
    for rows in places.values():
        if len(rows) > 1:
            labels = {keys[row] for row in rows} if keys else set()
            (different if len(labels) > 1 else same).extend(rows[1:] if len(labels) <= 1 else rows)
    found = []
    if different:
        found.append(Finding("one text with different labels", tuple(different), "decide on one label for each"))
    if same:
        found.append(Finding("repeats an earlier row", tuple(same), "remove: a repeat in two splits flatters the score"))
    return found


def _across(train: Raw, test: Raw) -> list[Finding]:
    """What is wrong between the training rows and the test rows."""
    found = []
    seen = {_plain(text) for text in train.texts if text.strip()}
    if shared := [row for row, text in enumerate(test.texts) if _plain(text) in seen]:
        found.append(Finding("also stands in the training rows", tuple(shared), "remove from one of them: the test score flatters"))
    known = {label_key(value) for value in train.values}
    keys = [label_key(value) for value in test.values]
    if train.names == test.names and (unknown := [row for row, key in enumerate(keys) if key is not None and key not in known]):
        found.append(
            Finding("label is not in the training rows", tuple(unknown), "add such rows to the training part, or correct the label")
        )
    return found


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
