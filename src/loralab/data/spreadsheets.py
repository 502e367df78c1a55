"""Excel workbooks → rows."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from loralab.data import limits
from loralab.data.columns import list_names
from loralab.data.formats import open_archive
from loralab.data.types import Notice, count_of
from loralab.errors import LoralabError, import_optional


@contextmanager
def open_workbook(path: Path, formulas: bool = False) -> Iterator[Any]:
    """Open a workbook with openpyxl, row by row. formulas: whether cells hold their formulas, not the saved values.

    Raises LoralabError without openpyxl and for a damaged workbook.
    """
    openpyxl = import_optional("openpyxl", "excel")
    with path.open("rb") as file:  # openpyxl refuses paths of other suffixes
        try:
            if sum(member.file_size for member in zipfile.ZipFile(file).infolist()) > limits.MAX_WORKBOOK:
                raise LoralabError(f"{path} unpacks to more than {limits.MAX_WORKBOOK >> 30} GiB: save its table as CSV")
            with closing(openpyxl.load_workbook(file, read_only=True, data_only=not formulas)) as book:
                for sheet in book.worksheets:
                    sheet.reset_dimensions()  # some writers state a size that hides cells
                yield book
        except LoralabError:
            raise
        except Exception as error:  # openpyxl makes calls of the tags of its XML, and has no error of its own
            detail = f"{type(error).__name__}: {error}"
            raise LoralabError(f"{path} cannot be read as an Excel workbook ({detail:.200}): save its table as CSV") from error


def sheet_rows(sheet: Any, path: Path) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a sheet. Raises LoralabError for one that goes beyond Excel's own limits."""
    for number, row in enumerate(sheet.values):
        if number >= limits.MAX_SHEET_ROWS or len(row) > limits.MAX_SHEET_COLUMNS:
            raise LoralabError(
                f"{path}, sheet {sheet.title!r}: more than {limits.MAX_SHEET_ROWS:,} rows or {limits.MAX_SHEET_COLUMNS:,} columns, "
                "which is beyond Excel's limits: save its table as CSV"
            )
        yield row


def filled_sheets(path: Path) -> list[str]:
    """Return the names of the sheets with a row, in order."""
    with open_workbook(path) as book:
        return [sheet.title for sheet in book.worksheets if any(_is_filled(row) for row in sheet_rows(sheet, path))]


def read_sheet(path: Path, where: Path, wanted: str, notices: list[Notice]) -> list[list[Any]]:
    """Return the rows of a sheet, cells as numbers, texts, dates or None, without empty rows and empty columns at the end.

    where: the path for messages. wanted: the name of the sheet; empty if only one has rows. Raises LoralabError for several sheets
    with rows, and for formulas without a saved value.
    """
    filled = filled_sheets(path)
    if wanted not in filled and (wanted or len(filled) != 1):
        missing = f"no sheet {wanted!r} with rows but " if wanted else ""
        book = where.parent if wanted else where
        advice = f": name one, such as {quote(f'{book}/{filled[0]}')}" if filled else ""
        raise LoralabError(f"{where} has {missing}{len(filled)} sheets with rows ({list_names(filled) or 'none'}){advice}")
    name = wanted or filled[0]
    with open_workbook(path) as book:
        rows = [[*row] for row in sheet_rows(book[name], path)]
        others = [sheet.title for sheet in book.worksheets if sheet.title != name]
    if others and not wanted:
        notices.append(Notice(f"sheet {name!r} is read; without rows: {list_names(others)}"))
    _check_formulas(path, where, name, rows)
    if _holds(path, rb"<mergeCell\s"):
        message = "the workbook has merged cells: only the first cell of each has the value, the others are empty"
        notices.append(Notice(message, severity="warning"))
    return _trimmed(_with_returns(rows, notices), notices)


def _is_filled(row: Sequence[Any]) -> bool:
    return any(cell is not None and cell != "" for cell in row)


def _with_returns(rows: list[list[Any]], notices: list[Notice]) -> list[list[Any]]:
    """Return rows with carriage returns for `_x000D_`, as which Excel saves them."""
    count = 0
    for row in rows:
        for i, cell in enumerate(row):
            if isinstance(cell, str) and "_x000D_" in cell:
                row[i] = cell.replace("_x000D_", "\r")
                count += 1
    if count:
        notices.append(Notice(f"_x000D_ is read as a carriage return in {count_of(count, 'cell')}"))
    return rows


def _trimmed(rows: list[list[Any]], notices: list[Notice]) -> list[list[Any]]:
    """Return rows of one width, without empty ones, which are noted unless they are at the end."""
    filled = [i for i, row in enumerate(rows) if _is_filled(row)]
    width = max((i + 1 for row in rows for i, cell in enumerate(row) if cell is not None and cell != ""), default=0)
    if empty := sorted({*range(filled[0], filled[-1])} - {*filled}) if filled else []:
        lines = ", ".join(str(i + 1) for i in empty[:8]) + (", ..." if len(empty) > 8 else "")
        notices.append(Notice(f"{count_of(len(empty), 'empty row')} skipped: line {lines}", severity="warning"))
    return [[*rows[i][:width], *[None] * (width - len(rows[i]))] for i in filled]


def _check_formulas(path: Path, where: Path, sheet: str, rows: list[list[Any]]) -> None:
    """Raise LoralabError if a cell without a value holds a formula: a program that does not calculate has written it."""
    if not _holds(path, rb"<f[\s>/]"):
        return
    with open_workbook(path, formulas=True) as book:
        for line, (row, written) in enumerate(zip(rows, sheet_rows(book[sheet], path), strict=True), 1):
            for column, (cell, formula) in enumerate(zip(row, written, strict=False), 1):
                if cell is None and isinstance(formula, str) and formula.startswith("="):
                    raise LoralabError(
                        f"{where}, line {line}, column {column}: the formula {formula[:40]} has no saved value: open the file in a "
                        f"spreadsheet program and save it"
                    )


def _holds(path: Path, tag: bytes) -> bool:
    """Whether the XML of a sheet holds a tag."""
    with open_archive(path) as archive:
        for name in archive.namelist():
            if name.startswith("xl/worksheets/") and name.endswith(".xml"):
                with archive.open(name) as file:
                    rest = b""
                    while block := file.read(1 << 20):
                        if re.search(tag, rest + block):
                            return True
                        rest = block[-16:]
    return False
