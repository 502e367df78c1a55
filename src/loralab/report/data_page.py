"""The page of `loralab check --html`: how a source is read, its classes, lengths, problems and examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loralab.data.types import list_rows
from loralab.data.validate import DataReport
from loralab.report.experiments.result_tables import ReportTable
from loralab.report.figures.plots import Panel, strip_plot
from loralab.report.figures.style import Caption, ReportFigure, figure_style, single_axes
from loralab.report.html import render_data_page
from loralab.storage.files import atomic_write, write_errors

MAX_CLASSES = 30
"""Classes of a figure."""


def write_data_page(page: Path, source: str, reports: Sequence[DataReport]) -> None:
    """Write the page atomically. Raises LoralabError if it cannot be written."""
    files = [(report.path.name, _tables(report), _draw(report, number)) for number, report in enumerate(reports)]
    with write_errors(page), atomic_write(page) as file:
        file.write(render_data_page(source, files).encode("utf-8", "replace").decode())


def _tables(report: DataReport) -> list[ReportTable]:
    median, most, longest = report.words
    reading = {
        "rows": report.rows,
        **{name: repr(value) for name, value in report.reading.items() if value is not None},
        "columns": str(report.columns),
        "words per text": f"median {median}, 95 % up to {most}, longest {longest}",
        **{f"note {i}": str(notice) for i, notice in enumerate(report.notices, 1)},
    }
    findings = [
        (
            finding.severity,
            finding.what,
            len(finding.rows) or None,
            list_rows(finding.rows) if finding.rows else "the file",
            finding.fix,
        )
        for finding in sorted(report.findings, key=lambda finding: finding.severity != "error")
    ]
    classes = [
        (name, rows, rows / max(1, report.rows), ", ".join(report.values.get(name, ()))) for name, rows in report.classes.items()
    ]
    examples = [(name, text) for name, texts in report.examples.items() for text in texts]
    tables = [
        ReportTable("reading", "How it is read", ("what", "value"), list(reading.items())),
        ReportTable("problems", "Problems", ("severity", "problem", "rows", "where", "what to do"), findings, 2),
        ReportTable("classes", "Classes", ("class", "rows", "share", "values in the file"), classes),
        ReportTable("examples", "Examples", ("class", "text"), examples, 2),
    ]
    return [table for table in tables if table.rows]


def _draw(report: DataReport, number: int) -> list[ReportFigure]:
    """Draw rows per class and the lengths of the texts."""
    drawings: list[ReportFigure | None] = []
    with figure_style():
        names = sorted(report.classes, key=lambda name: -report.classes[name])[:MAX_CLASSES]
        if names:
            panel = Panel("rows", [[float(report.classes[name])] for name in names], [None] * len(names), bars=True)
            count = f"{report.rows:,} rows" if len(names) == len(report.classes) else f"the {MAX_CLASSES} largest classes"
            drawings.append(strip_plot(Caption(f"classes{number}", "Rows per class", count, ""), names, [panel]))
        figure, axes = single_axes()
        axes.hist(report.lengths, bins=min(40, max(1, len({*report.lengths}))))
        axes.set_xlabel("words per text")
        axes.set_ylabel("texts")
        drawings.append(ReportFigure(Caption(f"lengths{number}", "Length of the texts", f"{report.rows:,} rows", ""), figure))
    return [drawing for drawing in drawings if drawing is not None]
