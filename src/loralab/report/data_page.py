"""The page of `loralab check --html`: how a source is read, its classes, lengths, problems and examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from loralab.data.data_report import DataReport
from loralab.data.types import count_of, list_rows
from loralab.report.experiments.result_tables import ReportTable
from loralab.report.figures.data_figures import draw_data_figures
from loralab.report.formatting import format_value, one_line
from loralab.report.html import DataSection, Problem, render_data_page
from loralab.storage.files import atomic_write, write_errors

MAX_CLASSES = 100
"""Classes that tables list."""


def write_data_page(page: Path, source: str, reports: Sequence[DataReport]) -> None:
    """Write the page atomically. Raises LoralabError if it cannot be written."""
    sections = [
        DataSection(_title(report), _facts(report), _problems(report), _tables(report), _notes(report), draw_data_figures(report))
        for report in reports
    ]
    with write_errors(page), atomic_write(page) as file:
        file.write(render_data_page(source, sections).encode("utf-8", "replace").decode())


def _title(report: DataReport) -> str:
    return f"{'training' if report.part == 'train' else report.part}: {report.path.name}"


def _facts(report: DataReport) -> list[tuple[str, str, str]]:
    """Return name, value and remark of what a reader looks for first."""
    lengths, severities = report.lengths.summary(), Counter(finding.severity for finding in report.findings)
    problems = ", ".join(count_of(severities[kind], kind) for kind in ("error", "warning") if severities[kind])
    splits = ", ".join(f"{sum(rows.values()):,} {part}" for part, rows in report.splits.items())
    return [
        ("rows", f"{report.rows:,}", splits),
        ("classes", f"{len(report.classes)}" if report.classes else "no labels", ""),
        (f"{lengths['unit']} per text", f"{lengths['median']:,}", f"median; longest {lengths['max']:,}"),
        ("problems", problems or "none", "training refuses this data" if report.refused else ""),
    ]


def _tables(report: DataReport) -> list[ReportTable]:
    """Return the tables of a file, those without rows left out."""
    tables = [_reading(report), _classes(report), _suspicious(report), _duplicates(report), _examples(report)]
    return [table for table in tables if table.rows]


def _problems(report: DataReport) -> list[Problem]:
    """Return the findings with their rows and lines."""
    problems = []
    for finding in report.findings:
        lines = report.lines_of(finding.rows)
        where = list_rows(finding.rows) if finding.rows else ""
        where += f" ({list_rows(lines).replace('row', 'line', 1)})" if lines else ""
        problems.append(Problem(finding.severity, finding.message, where, finding.fix))
    return problems


def _reading(report: DataReport) -> ReportTable:
    names = {"text": " + ".join(report.columns.text), "label": report.columns.label, "id": report.columns.id}
    rows = [(name, "tab" if value == "\t" else format_value(value)) for name, value in report.reading.items() if value is not None]
    rows += [(f"{kind} column", f"{name} ({report.detected[kind]})") for kind, name in names.items() if name is not None]
    rows += [("decision", str(notice)) for notice in report.notices]
    return ReportTable("reading", "How it is read", ("what", "value"), rows, 2)


def _classes(report: DataReport) -> ReportTable:
    parts = [*report.splits]
    rows = []
    for name, number in [*report.classes.items()][:MAX_CLASSES]:
        counts = [report.splits[part].get(name, 0) for part in parts]
        rows.append((name, number, *counts, f"{number / report.rows:.1%}", ", ".join(map(repr, report.values.get(name, ())))))
    return ReportTable("classes", "Classes", ("class", "rows", *parts, "share", "values in the file"), rows)


def _notes(report: DataReport) -> dict[str, str]:
    more = len(report.classes) - MAX_CLASSES
    return {"classes": f"And {count_of(more, 'more class', 'more classes')}: loralab check --json lists all."} if more > 0 else {}


def _suspicious(report: DataReport) -> ReportTable:
    rows = [(f"{label.row}", label.label, one_line(label.text), label.reason) for label in report.suspicious]
    return ReportTable("suspicious", "Suspicious labels", ("row", "label", "text", "why"), rows, 4)


def _duplicates(report: DataReport) -> ReportTable:
    rows = [(one_line(same.text), list_rows(same.rows), ", ".join(same.labels)) for same in report.duplicates]
    return ReportTable("duplicates", "Repeated texts", ("text", "where", "labels"), rows, 3)


def _examples(report: DataReport) -> ReportTable:
    rows = [(name, one_line(text)) for name, texts in report.examples.items() for text in texts]
    return ReportTable("examples", "Examples", ("class", "text"), rows[: 3 * MAX_CLASSES], 2)
