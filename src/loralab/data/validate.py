"""Validate a dataset: report its contents, and its problems with row numbers and fixes. Nothing is changed."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loralab.config import DataConfig
from loralab.config.paths import local_path
from loralab.data.clean import normalize_text
from loralab.data.columns import Columns
from loralab.data.folders import find_parts
from loralab.data.labels import label_text as label_key
from loralab.data.labels import natural_key
from loralab.data.sources import RawExamples, read_raw, training_classes

MIN_CLASS_ROWS = 10
"""Fewer rows of a class can hardly be learned and divided among the splits."""
MAX_CLASSES = 100
"""With more distinct labels, the column is probably not a label column."""
MAX_WORDS = 96
"""Words of news text that about fill `data.max_length=128` tokens."""


@dataclass(frozen=True)
class Finding:
    """One problem: what it is, the rows (from 0), and how to fix it."""

    what: str
    rows: tuple[int, ...]
    fix: str


@dataclass(frozen=True)
class DataReport:
    """The contents and problems of one file.

    classes: rows by class name, empty for a file without labels. words: (median, 95th percentile, maximum) per text.
    """

    path: Path
    rows: int
    columns: Columns
    classes: dict[str, int]
    words: tuple[int, int, int]
    findings: tuple[Finding, ...]


def check_source(source: str, data: DataConfig | None = None, *, test: str | None = None) -> list[DataReport]:
    """Validate a source: its training file, and its test file both alone and against the training file.

    Raises LoralabError only if a file cannot be read or its columns cannot be detected.
    """
    data = data or DataConfig()
    parts = find_parts(source)
    train_path = parts.train
    test_path = (local_path(test),) if test else parts.test or None
    train_rows = _name_labels(read_raw(train_path, data, need="wanted"))
    reports = [_report(train_path[0], train_rows, _file_findings(train_rows))]
    if test_path is not None:
        test_rows = _name_labels(read_raw(test_path, data))
        findings = [*_file_findings(test_rows), *_shared_findings(train_rows, test_rows)]
        reports.append(_report(test_path[0], test_rows, findings))
    return reports


def _name_labels(raw: RawExamples) -> RawExamples:
    """Replace label numbers by the class names that the file contains."""
    if raw.columns.label is None:
        return raw
    labels, _, _ = training_classes(raw)
    return replace(raw, labels=[*labels])


def _report(path: Path, raw: RawExamples, findings: list[Finding]) -> DataReport:
    words = np.array([len(text.split()) for text in raw.texts])
    counts = Counter(key for key in map(label_key, raw.labels) if key is not None)
    classes = {name: counts[name] for name in raw.class_names or sorted(counts, key=natural_key)}
    classes |= {name: count for name, count in counts.items() if name not in classes}
    quantiles = int(np.median(words)), int(np.quantile(words, 0.95)), int(words.max())
    return DataReport(path, len(raw.texts), raw.columns, classes, quantiles, tuple(findings))


def _file_findings(raw: RawExamples) -> list[Finding]:
    """Return the problems within one file."""
    findings = []
    keys = [label_key(value) for value in raw.labels]
    if empty := [row for row, text in enumerate(raw.texts) if not text.strip()]:
        findings.append(Finding("no text", tuple(empty), "fill in or remove; training keeps them as empty texts"))
    if missing := [row for row, key in enumerate(keys) if key is None]:
        findings.append(Finding("no label", tuple(missing), "fill in or remove; training refuses them"))
    counts = Counter(key for key in keys if key is not None)
    if len(counts) == 1:
        findings.append(Finding(f"only one class ({next(iter(counts))})", (), "a classifier needs at least two"))
    if len(counts) > MAX_CLASSES:
        problem = f"{len(counts):,} different labels in {len(keys):,} rows"
        findings.append(Finding(problem, (), "if this is not the label column, name it: --label NAME"))
    else:
        findings += _class_findings(keys, counts)
    findings += _duplicate_findings(raw.texts, keys)
    if long := [row for row, text in enumerate(raw.texts) if len(text.split()) > MAX_WORDS]:
        problem = f"over {MAX_WORDS} words, more than data.max_length=128 tokens keep"
        findings.append(Finding(problem, tuple(long), "data.max_length=256 keeps more of the text and takes twice the time"))
    return findings


def _class_findings(keys: Sequence[str | None], counts: Counter[str]) -> list[Finding]:
    """Return labels that may be misspelled, and classes with too few rows."""
    findings = []
    for name, count in counts.items():
        larger = {other.casefold(): other for other in counts if counts[other] > count}
        similar = difflib.get_close_matches(name.casefold(), larger, n=1, cutoff=0.85)
        rows = tuple(row for row, key in enumerate(keys) if key == name) if similar or count < MIN_CLASS_ROWS else ()
        if similar and not name.isdecimal():
            other = larger[similar[0]]
            findings.append(Finding(f"label {name!r} looks like {other!r}", rows, f"write {other!r} if it is the same class"))
        elif count < MIN_CLASS_ROWS:
            fix = f"add rows (at least {MIN_CLASS_ROWS}), merge the class with another or remove it"
            findings.append(Finding(f"class {name!r} has {count} rows", rows, fix))
    return findings


def _duplicate_findings(texts: Sequence[str], keys: Sequence[str | None]) -> list[Finding]:
    """Return texts that occur more than once, ignoring case and white space: with one label, and with several."""
    rows_by_text = defaultdict(list)
    for row, text in enumerate(texts):
        if text.strip():
            rows_by_text[normalize_text(text)].append(row)
    repeats: list[int] = []
    conflicts: list[int] = []
    for rows in rows_by_text.values():
        if len({keys[row] for row in rows} if keys else ()) > 1:
            conflicts += rows
        else:
            repeats += rows[1:]
    findings = []
    if conflicts:
        findings.append(Finding("same text with different labels", tuple(conflicts), "decide on one label for each text"))
    if repeats:
        findings.append(Finding("repeats an earlier row", tuple(repeats), "remove: a text in two splits inflates the score"))
    return findings


def _shared_findings(train: RawExamples, test: RawExamples) -> list[Finding]:
    """Return test rows whose text is also a training text, or whose label no training row has."""
    findings = []
    seen = {normalize_text(text) for text in train.texts if text.strip()}
    if shared := [row for row, text in enumerate(test.texts) if normalize_text(text) in seen]:
        fix = "remove from one of the files: the test score is inflated"
        findings.append(Finding("text is also in the training rows", tuple(shared), fix))
    known = {label_key(value) for value in train.labels}
    keys = [label_key(value) for value in test.labels]
    same_names = train.class_names == test.class_names
    if same_names and (unknown := [row for row, key in enumerate(keys) if key is not None and key not in known]):
        findings.append(Finding("label is not in the training rows", tuple(unknown), "add training rows with it, or correct it"))
    return findings
