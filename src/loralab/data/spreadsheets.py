"""Excel workbooks → rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from loralab.errors import LoralabError, import_optional


def read_rows(path: Path) -> Iterator[list[Any]]:
    """Yield the rows of the only sheet with any, cells as numbers, texts, dates or None. Empty rows and columns are left out.

    Raises LoralabError without openpyxl, for a damaged workbook, and if several sheets have rows.
    """
    openpyxl = import_optional("openpyxl", "excel")
    file = path.open("rb")  # openpyxl refuses other suffixes of a path
    try:
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    except (BadZipFile, KeyError, ValueError, OSError) as error:
        file.close()
        raise LoralabError(f"{path} cannot be read as an Excel workbook: {error}") from error
    try:
        filled = [sheet for sheet in book.worksheets if any(any(cell is not None for cell in row) for row in sheet.values)]
        if len(filled) != 1:
            names = ", ".join(sheet.title for sheet in filled) or "none"
            raise LoralabError(
                f"{path} has {len(filled)} sheets with rows ({names}): save the one to read as a workbook of its own"
            )
        for row in filled[0].values:
            cells = list(row)
            if any(cell is not None for cell in cells):
                yield cells
    finally:
        book.close()
        file.close()
