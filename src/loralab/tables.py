"""Small tables as text, as HTML for notebooks, as CSV, and as data frames of pandas."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

from loralab.errors import import_optional

if TYPE_CHECKING:
    import pandas

Rows = Sequence[Sequence[Any]]


class TextFile(Protocol):
    """An object that text is written to."""

    def write(self, text: str, /) -> object: ...


def to_frame(columns: Sequence[str], rows: Rows) -> pandas.DataFrame:
    """Return a data frame. Raises LoralabError without pandas."""
    frame: pandas.DataFrame = import_optional("pandas", "notebook").DataFrame([*map(list, rows)], columns=[*columns])
    return frame


def text_table(columns: Sequence[str], rows: Rows) -> str:
    """Return a table as aligned lines, texts to the left, numbers to the right."""
    cells = [[*columns], *([format_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    texts = [any(isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    lines = (
        "  ".join(cell.ljust(width) if text else cell.rjust(width) for cell, width, text in zip(row, widths, texts, strict=True))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def html_table(columns: Sequence[str], rows: Rows, caption: str = "") -> str:
    """Return a table as HTML, everything escaped. caption: a line above it."""
    head = f"<thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in columns)}</tr></thead>" if any(columns) else ""
    body = "".join(f"<tr>{''.join(_html_cell(value) for value in row)}</tr>" for row in rows)
    above = f"<p>{escape(caption)}</p>" if caption else ""
    return f"<div>{above}<table>{head}<tbody>{body}</tbody></table></div>"


def format_cell(value: Any) -> str:
    """Return a cell as text: four digits of a fraction, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _html_cell(value: Any) -> str:
    align = "left" if isinstance(value, str) else "right"
    return f'<td style="text-align: {align}">{escape(format_cell(value))}</td>'


def clip(text: str, length: int) -> str:
    """Return a text on one line of at most `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


class _LineFeeds:
    """Passes rows on with their CR LF as LF."""

    def __init__(self, file: TextFile) -> None:
        self.file = file

    def write(self, row: str) -> None:
        self.file.write(row.removesuffix("\r\n") + "\n")


def csv_writer(file: TextFile, delimiter: str = ",") -> Any:
    """Return a csv.writer of lines that end in LF, and that quotes a lone carriage return.

    Python's own, with `lineterminator="\\n"`, writes it without quotes up to 3.12, and a reader takes it for the end of the row.
    """
    return csv.writer(_LineFeeds(file), delimiter=delimiter, lineterminator="\r\n")
