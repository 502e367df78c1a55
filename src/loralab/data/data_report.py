"""What `loralab check` reports of a file: how it is read, its contents, decisions and problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from loralab.data.columns import Columns
from loralab.data.types import Notice, TablePlace

PartName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class TextLengths:
    """The length of each text in tokens of the encoder `base`, special tokens included; in words if it cannot be loaded.

    limit: tokens of a text that the model reads; None for words.
    """

    counts: tuple[int, ...]
    unit: Literal["tokens", "words"] = "words"
    base: str = ""
    limit: int | None = None

    def summary(self) -> dict[str, Any]:
        """Return the unit, the median, the 95th percentile and the maximum."""
        counts = np.array(self.counts)
        quantiles = {"median": int(np.median(counts)), "p95": int(np.quantile(counts, 0.95)), "max": int(counts.max())}
        return {"unit": self.unit, "base": self.base, "limit": self.limit, **quantiles}


@dataclass(frozen=True)
class DuplicateTexts:
    """Rows of one text, up to case and white space, and their labels."""

    text: str
    rows: tuple[int, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class SuspiciousLabel:
    """A row whose label is probably not what was meant, and why."""

    row: int
    label: str
    text: str
    reason: str


@dataclass(frozen=True)
class DataReport:
    """The contents, decisions and problems of one file.

    reading: format, delimiter, encoding and header; detected: how each column was found. classes: rows by class name, empty for a
    file without labels; values: the spellings of each class. splits: rows by class of each part that training would use, of the
    training file. notices: decisions; findings: warnings and errors, errors first. lines: the line of each row in the file, where
    known. examples: the first texts of each class. duplicates, suspicious: the first of each.
    """

    part: PartName
    path: TablePlace
    rows: int
    reading: Mapping[str, Any]
    columns: Columns
    detected: Mapping[str, str]
    classes: Mapping[str, int]
    values: Mapping[str, Sequence[str]]
    lengths: TextLengths
    notices: tuple[Notice, ...] = ()
    findings: tuple[Notice, ...] = ()
    splits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    duplicates: tuple[DuplicateTexts, ...] = ()
    suspicious: tuple[SuspiciousLabel, ...] = ()
    lines: Sequence[int] | None = None

    @property
    def refused(self) -> bool:
        """Whether training refuses the data."""
        return any(finding.severity == "error" for finding in self.findings)

    def reading_settings(self) -> dict[str, Any]:
        """Return the settings that read the file as it was read, unless they are the usual: UTF-8, a header, its delimiter.

        `header` is left out where a file without one has names: the published AG News files, which the reader knows.
        """
        named = not all(name.startswith("column") for name in self.columns.text)
        default = "\t" if isinstance(self.path, Path) and {".tsv", ".tab"} & {*self.path.suffixes} else ","
        usual = {
            "delimiter": (default, None),
            "encoding": ("utf-8", "utf-8-sig", None),
            "header": (True, None, *([False] if named else [])),
        }
        unusual = {name: self.reading.get(name) for name in usual if self.reading.get(name) not in usual[name]}
        return {name: "tab" if value == "\t" else value for name, value in unusual.items()}

    def lines_of(self, rows: Sequence[int]) -> list[int]:
        """Return the lines of rows, as an editor counts them from 1; empty if they are not known."""
        return [] if self.lines is None else [self.lines[row] for row in rows]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data. Notices and findings have the lines of their rows, where known."""
        plain = {key: value for key, value in vars(self).items() if key not in ("lengths", "lines")}
        listed = {key: [asdict(item) for item in plain[key]] for key in ("duplicates", "suspicious")}
        noted = {
            key: [{**asdict(notice), "lines": self.lines_of(notice.rows)} for notice in plain[key]]
            for key in ("notices", "findings")
        }
        return {**plain, **noted, **listed, "columns": asdict(self.columns), "lengths": self.lengths.summary()}
