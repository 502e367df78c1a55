"""An experiment's tables, figures and words → report.html; a folder's lines → a dashboard. Looks and safety as of a run's page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from loralab.report.experiments.reading import Reading
from loralab.report.experiments.rows import ReportTable
from loralab.report.experiments.words import asked, found, headline
from loralab.report.figures.ink import ReportFigure
from loralab.report.page import column, column_class, inline_svg, template
from loralab.report.texts import format_value
from loralab.stats import Interval

MOST_ROWS = 300
"""Rows of a table on the page; its CSV file has them all."""


def render(reading: Reading, tables: Sequence[ReportTable], drawings: Sequence[ReportFigure]) -> str:
    """Return the experiment's page. Every name and text of the data is escaped."""
    what, sure = headline(reading)
    return template("experiments/page.html.jinja").render(
        t=reading.tables,
        reading=reading,
        asked=asked(reading.tables),
        what=what,
        sure=sure,
        found=found(reading),
        tables={table.name: for_page(table) for table in tables},
        figures=figures_of(drawings),
        failures=[trial for trial in reading.tables.trials if trial.failure],
        version=metadata.version("loralab"),
    )


def render_dashboard(name: str, tables: Sequence[ReportTable], links: Mapping[str, str], drawings: Sequence[ReportFigure]) -> str:
    """Return the page over a folder's experiments and runs. links: the name of one → where its own page lies, beside this one."""
    return template("experiments/dashboard.html.jinja").render(
        name=name,
        tables=[for_page(table) for table in tables],
        links=links,
        figures=figures_of(drawings),
        version=metadata.version("loralab"),
    )


def figures_of(drawings: Sequence[ReportFigure]) -> dict[str, tuple[ReportFigure, Any]]:
    """Drawings by name, each with its ink for the page."""
    return {drawing.name: (drawing, inline_svg(drawing)) for drawing in drawings}


def for_page(table: ReportTable) -> dict[str, Any]:
    """A table with its cells as text, and which columns hold numbers."""
    rows = table.rows[:MOST_ROWS]
    columns = list(zip(*rows, strict=True)) or [()] * len(table.columns)
    texts = [_keys(cells) if i < table.keys else _cells(cells) for i, cells in enumerate(columns)]
    part = f" The first {len(rows):,} of {len(table.rows):,} rows; tables/{table.name}.csv has them all."
    return {
        "title": table.title,
        "columns": table.columns,
        "rows": list(zip(*texts, strict=True)),
        "classes": [
            column_class(texts[i], i >= table.keys and not any(isinstance(cell, str) for cell in cells))
            for i, cells in enumerate(columns)
        ],
        "note": table.note + (part if len(rows) < len(table.rows) else ""),
    }


def _keys(cells: Sequence[object]) -> list[str]:
    return ["" if cell in ("", None) else format_value(cell) for cell in cells]


def _cells(cells: Sequence[object]) -> list[str]:
    """Numbers of one column have the same digits; an interval is `low to high`."""
    if any(isinstance(cell, Interval) for cell in cells):
        return [f"{_number(cell.low)} to {_number(cell.high)}" if isinstance(cell, Interval) else "" for cell in cells]
    known = [None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in cells]
    return [
        "<0.0001" if isinstance(cell, float) and 0 < cell < 0.00005 else text
        for cell, text in zip(known, column(known), strict=True)
    ]


def _number(value: float) -> str:
    return f"{value:.4f}".replace("-", "−")
