"""Reports on a file: summaries, settings that read it, and plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loralab.data.columns import Columns
from loralab.data.data_report import DataReport, DuplicateTexts, SuspiciousLabel, TextLengths
from loralab.data.types import Notice


def report(
    path: str = "rows.csv", text: tuple[str, ...] = ("text",), reading: dict[str, Any] | None = None, **more: Any
) -> DataReport:
    columns = Columns(text, "label")
    return DataReport("train", Path(path), 3, reading or {}, columns, {"text": "by name"}, {"a": 3}, {"a": ["a"]}, LENGTHS, **more)


LENGTHS = TextLengths((*range(1, 101), 500), "tokens", "minilm", 256)


def test_lengths_are_summarized() -> None:
    assert LENGTHS.summary() == {"unit": "tokens", "base": "minilm", "limit": 256, "median": 51, "p95": 96, "max": 500}
    assert TextLengths((4,)).summary() == {"unit": "words", "base": "", "limit": None, "median": 4, "p95": 4, "max": 4}


@pytest.mark.parametrize(
    ("path", "text", "reading", "settings"),
    [
        ("rows.csv", "text", {}, {}),
        ("rows.csv", "text", {"delimiter": ",", "encoding": "utf-8", "header": True}, {}),
        ("rows.csv", "text", {"delimiter": None, "encoding": "utf-8-sig", "header": False}, {}),
        ("rows.csv", "column1", {"delimiter": ";", "encoding": "cp1252", "header": False},
         {"delimiter": ";", "encoding": "cp1252", "header": False}),
        ("rows.csv", "text", {"delimiter": "\t"}, {"delimiter": "tab"}),
        ("rows.tsv", "text", {"delimiter": "\t"}, {}),
        ("rows.tab.gz", "text", {"delimiter": "\t"}, {}),
        ("rows.tsv", "text", {"delimiter": ","}, {"delimiter": ","}),
    ],
)  # fmt: skip
def test_unusual_ways_of_reading_are_settings(path: str, text: str, reading: dict[str, Any], settings: dict[str, Any]) -> None:
    assert report(path, (text,), reading).reading_settings() == settings


def test_a_named_text_column_is_enough() -> None:
    assert report(text=("column1", "body"), reading={"header": False}).reading_settings() == {}
    assert report(text=("column1", "column2"), reading={"header": False}).reading_settings() == {"header": False}


def test_errors_refuse_and_warnings_do_not() -> None:
    warning, error = Notice("w", severity="warning"), Notice("e", severity="error")
    assert [report(findings=own).refused for own in ((), (warning,), (warning, error))] == [False, False, True]


def test_plain_data_has_all_fields_and_the_lines_of_rows() -> None:
    full = report(
        notices=(Notice("n"),),
        findings=(Notice("f", (0, 2), "fix", "warning"),),
        duplicates=(DuplicateTexts("t", (0, 1), ("a",)),),
        suspicious=(SuspiciousLabel(1, "a", "t", "why"),),
        lines=[2, 3, 7],
    )
    assert full.lines_of([2, 0]) == [7, 2]
    assert report().lines_of([2, 0]) == []
    plain = full.as_dict()
    assert plain["notices"] == [{"message": "n", "rows": (), "fix": "", "severity": "note", "lines": []}]
    assert plain["findings"] == [{"message": "f", "rows": (0, 2), "fix": "fix", "severity": "warning", "lines": [2, 7]}]
    assert plain["duplicates"] == [{"text": "t", "rows": (0, 1), "labels": ("a",)}]
    assert plain["suspicious"] == [{"row": 1, "label": "a", "text": "t", "reason": "why"}]
    assert plain["columns"] == {"text": ("text",), "label": "label", "id": None}
    assert plain["lengths"] == LENGTHS.summary()
    assert {key: plain[key] for key in ("part", "path", "rows", "classes", "values", "splits")} == {
        "part": "train",
        "path": Path("rows.csv"),
        "rows": 3,
        "classes": {"a": 3},
        "values": {"a": ["a"]},
        "splits": {},
    }
    assert "lines" not in plain
