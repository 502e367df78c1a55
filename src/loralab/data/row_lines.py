"""The line of each row in its file, as an editor or a spreadsheet program counts them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from loralab.config import DataConfig
from loralab.data.archives import unpacked
from loralab.data.delimited import MAX_FIELD, detect_dialect
from loralab.data.readers import delimiter
from loralab.data.spreadsheets import filled_sheets, open_workbook
from loralab.data.text_files import open_text
from loralab.data.types import MemoryTable, TablePlace
from loralab.errors import LoralabError
from loralab.storage.files import csv_field_limit


def row_lines(path: TablePlace, facts: Mapping[str, Any], data: DataConfig, rows: int) -> list[int] | None:
    """Return the line, from 1, where each of `rows` rows begins; None for tables without lines, and if rows were left out.

    facts: how the file was read. Blank lines are no rows.
    """
    if isinstance(path, MemoryTable):
        return None
    lines: list[int] = []
    with suppress(LoralabError, csv.Error), unpacked(path) as (file, inner):
        kind = facts.get("format")
        if kind == "csv":
            lines = [*_record_lines(file, facts, data)]
        elif kind in ("json", "jsonl", "fasttext"):
            lines = [*_filled_lines(file, facts, start="" if kind == "fasttext" else "{")]
        elif kind == "xlsx":
            lines = [*_sheet_lines(file, inner)]
    lines = lines[bool(facts.get("header")) :]
    return lines if len(lines) == rows else None


def _record_lines(file: Path, facts: Mapping[str, Any], data: DataConfig) -> Iterator[int]:
    encoding, default = facts["encoding"], facts["delimiter"] or ","
    dialect, _ = detect_dialect(file, encoding, default=default, delimiter=delimiter(data.delimiter), quotes=data.quotes)
    last = dialect.skip_lines
    with open_text(file, encoding, dialect.newline) as text, csv_field_limit(MAX_FIELD):
        reader = dialect.records(text)
        for record in reader:
            first, last = last + 1, reader.line_num + dialect.skip_lines
            if record:
                yield first


def _filled_lines(file: Path, facts: Mapping[str, Any], start: str) -> Iterator[int]:
    """Yield the numbers of lines that are not blank, up to one that begins otherwise than a row."""
    with open_text(file, facts["encoding"]) as text:
        for number, line in enumerate(text, 1):
            if line.strip():
                if not line.lstrip().startswith(start):
                    return
                yield number


def _sheet_lines(file: Path, sheet: str) -> Iterator[int]:
    name = sheet or filled_sheets(file)[0]
    with open_workbook(file) as book:
        for number, row in enumerate(book[name].values, 1):
            if any(cell not in (None, "") for cell in row):
                yield number
