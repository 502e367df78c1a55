"""Terminal output of `loralab check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loralab.cli.display import MAX_LISTED, console, escape_end, make_table, show_facts
from loralab.data.types import count_of, list_rows

if TYPE_CHECKING:
    from loralab.data.data_report import DataReport
    from loralab.data.types import Notice

MAX_CLASS_LINES = 20
_COLORS = {"error": "red", "warning": "yellow", "note": "yellow"}


def show_data_report(reports: Sequence[DataReport]) -> None:
    """Print how each file is read, its classes, what training decides, and its problems."""
    for report in reports:
        show_facts(_contents(report))
        _show_classes(report)
        for notice in report.notices:
            _show(notice, report)
        for finding in report.findings:
            _show(finding, report)
        if not report.findings:
            console.print("[green]no problems[/]")
        console.print()
    if any(finding.rows for report in reports for finding in report.findings):
        console.print("rows count from 0, without the header; lines count from 1", soft_wrap=True)
    if refused := [report for report in reports if report.refused]:
        errors = sum(finding.severity == "error" for report in refused for finding in report.findings)
        console.print(f"[red]loralab train refuses this data: {count_of(errors, 'error')}[/]", soft_wrap=True)


def describe_reading(report: DataReport) -> str:
    """Return how a file is read in words: `csv, delimiter ';', encoding cp1252, a header`."""
    facts = report.reading
    words = [str(facts.get("format") or "file")]
    if delimiter := facts.get("delimiter"):
        words.append(f"delimiter {'tab' if delimiter == chr(9) else repr(delimiter)}")
    if encoding := facts.get("encoding"):
        words.append(f"encoding {encoding}")
    if (header := facts.get("header")) is not None:
        words.append("a header" if header else "no header")
    return ", ".join(words)


def describe_columns(report: DataReport) -> str:
    """Return the columns and how they were found: `text: title + body (by name), label: stars (by content)`."""
    columns = report.columns
    names = {"text": " + ".join(columns.text), "label": columns.label, "id": columns.id}
    listed = [f"{kind}: {name} ({report.detected[kind]})" for kind, name in names.items() if name is not None]
    return ", ".join(listed) + ("" if columns.label is not None else ", label: none")


def describe_lengths(report: DataReport) -> str:
    """Return the number of rows and the length of their texts."""
    facts = report.lengths.summary()
    unit = f"{facts['unit']} of {facts['base']}" if facts["base"] else facts["unit"]
    return f"{unit} per text: median {facts['median']:,}, 95 % up to {facts['p95']:,}, longest {facts['max']:,}"


def _contents(report: DataReport) -> dict[str, str]:
    contents = {
        "file": f"{report.path} ({report.part})",
        "read": describe_reading(report),
        "columns": describe_columns(report),
        "rows": f"{report.rows:,}; {describe_lengths(report)}",
    }
    if report.splits:
        counts = {part: sum(rows.values()) for part, rows in report.splits.items()}
        contents["splits"] = ", ".join(f"{rows:,} {part}" for part, rows in counts.items())
    return contents


def _show_classes(report: DataReport) -> None:
    """Print rows per class, in each split too, with the values that the file writes otherwise than the class's name."""
    if not report.classes:
        console.print("[bold]classes    [/] no labels")
        return
    console.print(f"[bold]classes    [/] {len(report.classes)}")
    table = make_table(["", "class"], ["rows", *report.splits])
    spelt = any([*values] not in ([], [name]) for name, values in report.values.items())
    if spelt:
        table.add_column("values in the file")
    for name, rows in [*report.classes.items()][:MAX_CLASS_LINES]:
        counts = [f"{rows:,}", *(f"{own.get(name, 0):,}" for own in report.splits.values())]
        values = [escape_end(", ".join(map(repr, [*report.values[name]][:MAX_LISTED])))] if spelt else []
        table.add_row(" " * 10, escape_end(name), *counts, *values)
    console.print(table)
    if (more := len(report.classes) - MAX_CLASS_LINES) > 0:
        console.print(f"{'':12}and {count_of(more, 'more class', 'more classes')}: --json lists all")


def _show(notice: Notice, report: DataReport) -> None:
    """Print a notice or a finding: severity, message, rows, lines where known, and what fixes it."""
    where = ""
    if notice.rows:
        lines = report.lines_of(notice.rows)
        where = f": {list_rows(notice.rows)}" + (f" ({list_rows(lines).replace('row', 'line', 1)})" if lines else "")
    color = _COLORS[notice.severity]
    console.print(f"[{color}]{notice.severity:<11}[/] {escape_end(notice.message + where)}", soft_wrap=True)
    if notice.fix:
        prefix = "" if notice.severity == "note" else "fix: "
        console.print(f"{'':12}{prefix}{escape_end(notice.fix)}", soft_wrap=True)
