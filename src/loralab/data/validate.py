"""Validate a dataset: report its contents, and its problems with row numbers and fixes. Nothing is changed."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loralab.config import DataConfig
from loralab.config.paths import local_path
from loralab.data.clean import normalize_text
from loralab.data.columns import Columns
from loralab.data.folders import find_parts
from loralab.data.labels import ClassTable
from loralab.data.sources import RawExamples, contract, read_raw, training_classes
from loralab.data.split_remarks import split_remarks
from loralab.data.splits import load_splits
from loralab.data.types import Notice, Severity
from loralab.errors import LoralabError, suggest

MIN_CLASS_ROWS = 10
"""Fewer rows of a class can hardly be learned and divided among the splits."""
MAX_CLASSES = 100
"""With more distinct labels, the column is probably not a label column."""
MAX_EXAMPLES = 3
"""Texts of each class that a report shows."""
_DAMAGES = (
    (
        "escaped characters",
        re.compile(r"&(?:#\d+|[a-z]{2,8});|(?<![&\w])(?:#\d{2,5}|quot|lt|gt|amp|nbsp|apos);"),
        "data.clean=escapes,html restores them",
    ),
    (
        "text that was decoded twice",
        re.compile("â€[™œ\x9d“”]|Ã[\x80-\xbf©¨¤¶¼]|Â[\xa0-\xbf]"),
        "read the original file, in its own encoding",
    ),
)
"""What is damaged, its pattern, and what mends it."""
MAX_WORDS = 96
"""Words of news text that about fill `data.max_length=128` tokens."""


@dataclass(frozen=True)
class Finding:
    """One problem: what it is, the rows (from 0), how to fix it, and whether training refuses the data for it (error)."""

    what: str
    rows: tuple[int, ...]
    fix: str
    severity: Severity = "warning"


@dataclass(frozen=True)
class DataReport:
    """The contents and problems of one file.

    classes: rows by class name, empty for a file without labels; values: the spellings of each class in the file. words: (median,
    95th percentile, maximum) per text. reading: format, delimiter, encoding and header. notices: what was decided while reading.
    examples: the first texts of each class.
    """

    path: Path
    rows: int
    columns: Columns
    classes: dict[str, int]
    words: tuple[int, int, int]
    findings: tuple[Finding, ...]
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, without the length of each text."""
        return {key: value for key, value in asdict(self).items() if key != "lengths"}

    @property
    def refused(self) -> bool:
        """Whether training refuses the data."""
        return any(finding.severity == "error" for finding in self.findings)


def check_source(source: str, data: DataConfig | None = None, *, test: str | None = None) -> list[DataReport]:
    """Validate a source: its training file, and its validation and test files, alone and against the training file.

    The training file is divided as `loralab train` would divide it, so what training refuses is an error here. Raises LoralabError
    only if a file cannot be read or its columns cannot be detected.
    """
    data = data or DataConfig()
    parts = find_parts(source)
    train = read_raw(parts.train, data, need="wanted")
    labels, table, decided = _classes_of(train, data)
    decisions, refusal = _training_decisions(data, source, test) if train.columns.label else ([], [])
    notices = (*parts.notices, *train.notices, *decided, *decisions)
    findings = _file_findings(train, labels)
    if not any(finding.severity == "error" for finding in findings):  # else the reason is there already
        findings = [*refusal, *findings]
    reports = [_report(parts.train[0], train, labels, table, findings, notices)]
    run = contract(train, table)
    for files in (parts.validation, (local_path(test),) if test else parts.test):
        if files:
            raw = read_raw(files, data, run)
            own, own_table, own_notices = _classes_of(raw, data)
            findings = [*_file_findings(raw, own), *_shared_findings(train, raw), *_label_findings(own, table)]
            reports.append(_report(files[0], raw, own, own_table, findings, (*raw.notices, *own_notices)))
    return reports


def _classes_of(raw: RawExamples, data: DataConfig) -> tuple[list[str | None], ClassTable, list[Notice]]:
    """Return the labels of a file, names for numbers of a file that stores names, and its classes."""
    if raw.columns.label is None:
        return [], ClassTable((), ()), []
    return training_classes(raw, data.classes)


def _training_decisions(data: DataConfig, source: str, test: str | None) -> tuple[list[Notice], list[Finding]]:
    """Return what training would decide while splitting, and why it would refuse."""
    try:
        splits, _ = load_splits(data.model_copy(update={"source": source, "test": test or data.test}))
    except LoralabError as error:
        return [], [Finding(f"loralab train refuses this: {error}", (), "see the settings in this message", "error")]
    return [Notice(remark, severity="warning") for remark in split_remarks(splits) if "no text" not in remark], []


def _report(
    path: Path,
    raw: RawExamples,
    labels: Sequence[str | None],
    table: ClassTable,
    findings: Sequence[Finding],
    notices: Sequence[Notice],
) -> DataReport:
    words = np.array([len(text.split()) for text in raw.texts])
    index = {label: table.match(label) for label in {*labels} if label is not None}
    named = [None if label is None or (i := index[label]) is None else table.names[i] for label in labels]
    counts = Counter(named)
    examples: dict[str, list[str]] = {name: [] for name in table.names}
    for name, text in zip(named, raw.texts, strict=bool(named)) if named else ():
        if name is not None and len(examples[name]) < MAX_EXAMPLES:
            examples[name].append(text)
    quantiles = int(np.median(words)), int(np.quantile(words, 0.95)), int(words.max())
    return DataReport(
        path,
        len(raw.texts),
        raw.columns,
        {name: counts[name] for name in table.names},
        quantiles,
        tuple(findings),
        table.as_dict(),
        raw.facts or {},
        tuple(notices),
        examples,
        tuple(words.tolist()),
    )


def _label_findings(labels: Sequence[str | None], table: ClassTable) -> list[Finding]:
    """Return labels that are no class of the training rows, by label."""
    unknown = {label for label in {*labels} if label is not None and table.names and table.match(label) is None}
    return [
        Finding(
            f"label {label!r} is not in the training rows{suggest(label, table.names)}",
            tuple(row for row, own in enumerate(labels) if own == label),
            "add training rows with it, or correct it",
            "error",
        )
        for label in sorted(unknown)
    ]


def _file_findings(raw: RawExamples, keys: Sequence[str | None]) -> list[Finding]:
    """Return the problems within one file. keys: its labels."""
    findings = []
    if empty := [row for row, text in enumerate(raw.texts) if not text.strip()]:
        findings.append(Finding("no text", tuple(empty), "fill in or remove; training keeps them as empty texts"))
    if missing := [row for row, key in enumerate(keys) if key is None]:
        findings.append(
            Finding("no label", tuple(missing), "fill in or remove; training leaves them out, or refuses them with --strict")
        )
    counts = Counter(key for key in keys if key is not None)
    if len(counts) == 1:
        findings.append(Finding(f"only one class ({next(iter(counts))})", (), "a classifier needs at least two", "error"))
    if len(counts) > MAX_CLASSES:
        problem = f"{len(counts):,} different labels in {len(keys):,} rows"
        findings.append(Finding(problem, (), "if this is not the label column, name it: --label NAME"))
    else:
        findings += _class_findings(keys, counts)
    findings += _duplicate_findings(raw.texts, keys)
    for what, pattern, fix in _DAMAGES:
        if damaged := [row for row, text in enumerate(raw.texts) if pattern.search(text)]:
            findings.append(Finding(f"{what}, such as {_excerpt(raw.texts[damaged[0]], pattern)!r}", tuple(damaged), fix))
    if long := [row for row, text in enumerate(raw.texts) if len(text.split()) > MAX_WORDS]:
        problem = f"over {MAX_WORDS} words, more than data.max_length=128 tokens keep"
        findings.append(Finding(problem, tuple(long), "data.max_length=256 keeps more of the text and takes twice the time"))
    return findings


def _excerpt(text: str, pattern: re.Pattern[str]) -> str:
    match = pattern.search(text)
    return text[max(0, match.start() - 12) : match.end() + 12] if match else text[:24]


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
            findings.append(Finding(f"class {name!r} has {count} row{'s' * (count != 1)}", rows, fix))
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
    """Return rows of a held-out file whose text is also a training text."""
    findings = []
    seen = {normalize_text(text) for text in train.texts if text.strip()}
    if shared := [row for row, text in enumerate(test.texts) if normalize_text(text) in seen]:
        fix = "remove from one of the files: the test score is inflated"
        findings.append(Finding("text is also in the training rows", tuple(shared), fix))
    return findings
