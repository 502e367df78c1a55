"""The line of each row in files of every format that has lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from loralab.config import DataConfig
from loralab.data.row_lines import row_lines
from loralab.data.sources import read_raw
from loralab.data.types import MemoryTable


def lines_of(path: Path, rows: int | None = None, **settings: Any) -> list[int] | None:
    data = DataConfig(**{"text": "text", **settings})
    raw = read_raw(path, data)
    return row_lines(path, raw.facts or {}, data, len(raw.texts) if rows is None else rows)


@pytest.mark.parametrize(
    ("content", "settings", "lines"),
    [
        ("text,label\na,1\nb,2\n", {}, [2, 3]),
        ('text,label\n"a\n\nx",1\n\nb,2\n"c\nd",3', {}, [2, 6, 7]),
        ("text,label\r\na,1\r\n\r\nb,2\r\n", {}, [2, 4]),
        ("sep=;\ntext;label\na;1\n\nb;2\n", {}, [3, 5]),
        ("a x,1\nb x,2\n", {"header": False, "text": "column1"}, [1, 2]),
        ('text|label\n"a|1\nb|2\n', {"quotes": False, "delimiter": "|"}, [2, 3]),
        ("text\tlabel\na,b\t1\nb\t2\n", {"delimiter": "tab"}, [2, 3]),
    ],
)
def test_records_of_csv_begin_at_their_lines(tmp_path: Path, content: str, settings: dict[str, Any], lines: list[int]) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content.encode())
    assert lines_of(path, **settings) == lines
    assert lines_of(path, rows=len(lines) + 1, **settings) is None  # rows were left out: no line is certain


def test_other_encodings_and_compressed_files_have_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_bytes("text\tlabel\nhé,llo\t1\nb\t2\n".encode("utf-16"))
    assert lines_of(path) == [2, 3]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_lines_of_objects_are_counted_without_blank_ones(tmp_path: Path, name: str) -> None:
    rows = [json.dumps({"text": f"text {i}", "label": i % 2}) for i in range(3)]
    path = tmp_path / name
    path.write_text(f"\n{rows[0]}\n\n  {rows[1]}\n{rows[2]}\n", encoding="utf-8")
    assert lines_of(path) == [2, 4, 5]


def test_objects_over_several_lines_have_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"text": f"text {i}", "label": i % 2} for i in range(3)], indent=1), encoding="utf-8")
    assert lines_of(path) is None


def test_fasttext_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("__label__a one\n\n__label__b {two}\n", encoding="utf-8")
    assert lines_of(path) == [1, 3]


def test_rows_of_sheets_are_counted(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["text", "label"])
    for row in (["a", 1], [None, ""], ["b", 2]):
        book.active.append(row)
    other = book.create_sheet("more")
    for row in ([None, None], ["text", "label"], ["c", 1]):
        other.append(row)
    book.save(tmp_path / "rows.xlsx")
    assert lines_of(tmp_path / "rows.xlsx" / "Sheet") == [2, 4]
    assert lines_of(tmp_path / "rows.xlsx" / "more") == [3]
    del book["more"]
    book.save(tmp_path / "one.xlsx")
    assert lines_of(tmp_path / "one.xlsx") == [2, 4]


def test_tables_without_lines_have_none(tmp_path: Path) -> None:
    assert row_lines(MemoryTable("rows", pyarrow.table({"text": ["a"]})), {"format": "csv"}, DataConfig(), 1) is None
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "label": ["x"]}), path)
    assert lines_of(path) is None
