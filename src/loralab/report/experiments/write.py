"""The report of an experiment, or of whatever a path holds: plain files → tables, figures and a page beside them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from loralab.report.experiments import rows
from loralab.report.experiments.dashboard import draw_lines, line_tables, read_lines
from loralab.report.experiments.kinds import draw, read
from loralab.report.experiments.page import render, render_dashboard
from loralab.report.experiments.reading import Reading
from loralab.report.experiments.rows import ReportTable
from loralab.report.experiments.words import efficiency, law_table
from loralab.report.figures.ink import save_png, style
from loralab.report.write import write_report, write_text
from loralab.storage import experiment_folder, run_folder


def report_on(path: Path) -> Path:
    """Write the report of a run, of an experiment, or of a folder that holds some, and return its page.

    Raises LoralabError where there is none of these, or its files are damaged.
    """
    if experiment_folder.is_experiment(path):
        return write_lab(path, read(path))
    if (path / run_folder.CONFIG).is_file():
        return write_report(path)
    return write_dashboard(path)


def write_lab(folder: Path, reading: Reading) -> Path:
    """Write trials.csv, tables/, figures/ and report.html of an experiment, each whole or not at all; return the page."""
    tables = tables_of(reading)
    with style():
        drawings = draw(reading)
    if not (folder / experiment_folder.FOUND).is_file():  # a search has written its own, which knows of trials that never ran
        _write_table(folder / experiment_folder.TABLE, rows.trial_table(reading.tables))
    with run_folder.atomic_folder(folder / experiment_folder.TABLES) as place:
        for table in tables:
            _write_table(place / f"{table.name}.csv", table)
    with run_folder.atomic_folder(folder / experiment_folder.FIGURES) as place:
        for drawing in drawings:
            save_png(drawing, place / f"{drawing.name}.png")
    write_text(folder / experiment_folder.REPORT, render(reading, tables, drawings))
    return folder / experiment_folder.REPORT


def write_dashboard(folder: Path) -> Path:
    """Write report.html over all experiments and runs of a folder, with links to their own; return it."""
    lines = read_lines(folder)
    with style():
        drawings = draw_lines(lines)
    links = {
        line.name: f"{quote(line.name)}/{run_folder.REPORT}" for line in lines if (folder / line.name / run_folder.REPORT).is_file()
    }
    page = folder / experiment_folder.REPORT
    write_text(page, render_dashboard(folder.resolve().name, line_tables(lines), links, drawings))
    return page


def tables_of(reading: Reading) -> list[ReportTable]:
    """Every table of an experiment that has rows."""
    tables, score = reading.tables, reading.score
    found = [rows.point_table(tables, score), rows.comparison_table(reading.comparisons, score)]
    found.append(rows.row_test_table(reading.row_tests))
    if tables.question.kind in ("few-shot", "scaling", "active") and (table := efficiency(reading)):
        found.append(table)
    if tables.question.kind == "scaling" and reading.law:
        found.append(law_table(reading.law))
    return [table for table in (*found, rows.trial_overview(tables)) if table.rows]


def _write_table(path: Path, table: ReportTable) -> None:
    with run_folder.says_disk(path), run_folder.atomic(path) as file:
        rows.write_csv(table, file)
