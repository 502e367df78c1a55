"""Workbooks: cells of any type, several sheets, formulas, merged cells, and what programs leave behind."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from loralab import errors
from loralab.config import DataConfig
from loralab.data.readers import CHUNK, open_table
from loralab.data.sources import RawExamples, load_source, read_raw
from loralab.data.spreadsheets import _trimmed, _with_returns
from loralab.data.types import Notice
from loralab.errors import LoralabError

ROWS = [["text", "label"], *([f"number {i}", "neg" if i % 2 else "pos"] for i in range(6))]
TEXTS = [row[0] for row in ROWS[1:]]


def workbook(path: Path, merge: str = "", **sheets: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
        if merge:
            sheet.merge_cells(merge)
    book.save(path)
    return path


def read(path: Path, **settings: Any) -> RawExamples:
    return read_raw(path, DataConfig(**settings), need="required")


def refused(path: Path) -> str:
    with pytest.raises(LoralabError) as error:
        read(path)
    return str(error.value)


def notices_of(raw: RawExamples) -> str:
    return " / ".join(map(str, raw.notices))


def test_cells_keep_their_types(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 5, 1)
    rows = [["text", "label"], ["a", 1], ["b", 2.5], ["c", True], [4, None], [day, "x"], [None, "#N/A"]]
    (chunk,) = open_table(workbook(tmp_path / "a.xlsx", S=rows)).chunks
    assert chunk.columns == {"text": ["a", "b", "c", 4, day, None], "label": [1, 2.5, True, None, "x", "#N/A"]}


@pytest.mark.parametrize(
    ("rows", "notice"),
    [
        ([[None, None], *ROWS, [None, None]], ""),
        ([*ROWS[:3], [None, None], *ROWS[3:]], "1 empty row skipped: line 4"),
        ([ROWS[0], [], ["", ""], *ROWS[1:]], "2 empty rows skipped: line 2, 3"),
        ([[*row, None, ""] for row in ROWS], ""),
        ([[None, *ROWS[0]], *([i, *row] for i, row in enumerate(ROWS[1:]))], ""),
        (ROWS[1:], "the first line is a row, not a header"),
    ],
    ids=["around", "between", "several", "columns", "index", "headerless"],
)
def test_empty_rows_and_columns_are_skipped(tmp_path: Path, rows: list[list[Any]], notice: str) -> None:
    raw = read(workbook(tmp_path / "a.xlsx", S=rows))
    assert (raw.texts, raw.labels) == (TEXTS, [row[1] for row in ROWS[1:]])
    assert notice in notices_of(raw)


def test_one_sheet_with_rows_is_read(tmp_path: Path) -> None:
    raw = read(workbook(tmp_path / "a.xlsx", Notes=[], Data=ROWS))
    assert raw.texts == TEXTS
    assert "sheet 'Data' is read; without rows: Notes" in notices_of(raw)


def test_several_sheets_are_refused_with_paths_that_work(tmp_path: Path) -> None:
    path = workbook(tmp_path / "my book.xlsx", **{"Week 1": ROWS, "Week 2": [*ROWS, ["more", "pos"]]})
    assert f"2 sheets with rows ('Week 1', 'Week 2'): name one, such as '{path}/Week 1'" in refused(path)
    assert read(path / "Week 1").texts == TEXTS
    assert read(path / "Week 2").texts == [*TEXTS, "more"]
    assert "no sheet 'Week 3'" in refused(path / "Week 3")
    source = DataConfig(source=str(path / "Week 2"))
    assert len(load_source(source).train) == 7


def test_sheets_called_by_parts_are_the_parts(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", Train=ROWS, Valid=ROWS[:4], Test=ROWS[:3], Legend=[["colours"]])
    source = load_source(DataConfig(source=str(path)))
    assert [len(part or ()) for part in (source.train, source.validation, source.test)] == [6, 3, 2]
    assert "not used: Legend" in " ".join(map(str, source.notices["train"]))


def test_formulas_need_saved_values(tmp_path: Path) -> None:
    assert "line 2, column 2: the formula =1+1 has no saved value" in refused(
        workbook(tmp_path / "a.xlsx", S=[["text", "label"], ["a", "=1+1"], ["b", "x"]])
    )


def test_merged_cells_are_said(tmp_path: Path) -> None:
    raw = read(workbook(tmp_path / "a.xlsx", merge="B2:B3", S=ROWS))
    assert raw.labels[:3] == ["pos", None, "pos"]
    assert "merged cells" in notices_of(raw)


def test_carriage_returns_of_excel_are_no_text(tmp_path: Path) -> None:
    raw = read(workbook(tmp_path / "a.xlsx", S=[["text", "label"], ["one_x000D_\ntwo", "x"], ["b", "y"]]))
    assert raw.texts == ["one\r\ntwo", "b"]
    assert "carriage return in 1 cell" in notices_of(raw)


def test_long_sheets_have_every_row_once(tmp_path: Path) -> None:
    rows = [["text", "label"], *([f"t{i}", i % 3] for i in range(CHUNK + 5))]
    assert read(workbook(tmp_path / "a.xlsx", S=rows)).texts == [f"t{i}" for i in range(CHUNK + 5)]


@pytest.mark.parametrize("name", ["a.xlsx", "a.xlsm", "A.XLSX", "a.csv", "a.dat", "a", "[1] ä b.xlsx"])
def test_workbooks_are_recognised_under_any_name(tmp_path: Path, name: str) -> None:
    workbook(tmp_path / "saved.xlsx", S=ROWS).rename(tmp_path / name)
    assert read(tmp_path / name).texts == TEXTS


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.xlsx", b"text,label\na,b\n", "cannot be read as an Excel workbook"),
        ("a.xls", b"\xd0\xcf\x11\xe0" + bytes(600), "save it as .xlsx or .csv"),
        ("a.xlsx", b"PK\x03\x04" + bytes(100), "cannot be read as an Excel workbook"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert expected in refused(tmp_path / name)


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "a.xlsx", S=ROWS)

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    assert "pip install 'loralab[excel]'" in refused(path)


def test_empty_rows_are_noted_by_their_lines(tmp_path: Path) -> None:
    for count, lines in ((1, "line 3"), (8, "line 3, 4, 5, 6, 7, 8, 9, 10"), (9, "line 3, 4, 5, 6, 7, 8, 9, 10, ...")):
        rows = [["text", "label"], ["a", "x"], *([None, ""] for _ in range(count)), ["b", "y"], [None, None]]
        raw = read(workbook(tmp_path / "rows.xlsx", sheet=rows))
        (notice,) = [notice for notice in raw.notices if "empty row" in notice.message]
        assert notice.message.endswith(f"skipped: {lines}")
        assert (notice.severity, raw.texts) == ("warning", ["a", "b"])


def test_formulas_without_a_value_are_named_by_path_line_and_column(tmp_path: Path) -> None:
    rows = [["text", "label"], ["a", "x"], ["b", '=IF(A1="a","x","y")']]
    path = workbook(tmp_path / "rows.xlsx", sheet=rows, other=[["text", "label"], ["a", "x"]])
    assert refused(path / "sheet").startswith(f"{path / 'sheet'}, line 3, column 2: the formula =IF(A1=")
    assert read(path / "other").texts == ["a"]
    only = workbook(tmp_path / "only.xlsx", sheet=[["text", "label"], ["=A1", "x"]])
    assert refused(only).startswith(f"{only}, line 2, column 1: the formula =A1 ")


def test_rows_have_one_width(tmp_path: Path) -> None:
    notices: list[Notice] = []
    rows = [["a", None, "", None], ["b"], ["", "c"], [None, 0]]
    assert _trimmed(rows, notices) == [["a", None], ["b", None], ["", "c"], [None, 0]]
    assert _trimmed([[None], [""]], notices) == []
    assert notices == []
    assert _with_returns([["a_x000D_b", 1, "_x000D_"], ["c"]], notices) == [["a\rb", 1, "\r"], ["c"]]
    assert [notice.message.split()[-2:] for notice in notices] == [["2", "cells"]]


def test_sheets_are_named_where_several_have_rows(tmp_path: Path) -> None:
    path = workbook(tmp_path / "rows.xlsx", first=ROWS, second=ROWS, empty=[])
    assert refused(path).count("2 sheets with rows (first, second)") + refused(path).count("several tables (first, second)") == 1
    assert "no sheet 'third' with rows but 2 sheets" in refused(path / "third")
    assert f"such as {path}/first" in refused(path / "third")
    assert "no sheet 'empty' with rows but 2 sheets" in refused(path / "empty")
    raw = read(workbook(tmp_path / "one.xlsx", first=ROWS, second=[]))
    assert "sheet 'first' is read; without rows: second" in notices_of(raw)
    assert "is read" not in notices_of(read(tmp_path / "one.xlsx" / "first"))
    assert "0 sheets with rows (none)" in refused(workbook(tmp_path / "none.xlsx", first=[], second=[]))
