"""Write reports from plain files: of a run, of an experiment, of a folder that holds some."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from loralab.errors import visible
from loralab.report import text_files
from loralab.report.experiments.analysis import ExperimentAnalysis
from loralab.report.experiments.dashboard import dashboard_tables, draw_dashboard, read_dashboard
from loralab.report.experiments.profiles import analyze_experiment, draw_experiment_figures
from loralab.report.experiments.result_tables import ReportTable, experiment_tables, trial_table, write_csv
from loralab.report.figures.run_figures import draw_run_figures
from loralab.report.figures.style import ReportFigure, save_png
from loralab.report.html import render_dashboard, render_experiment, render_run
from loralab.report.model_card import model_card
from loralab.report.run_data import read_run
from loralab.storage import experiment_folder, run_folder
from loralab.storage.files import atomic_folder, atomic_write, write_errors, write_json

FIGURE_KEY, MAX_LISTED = "key.txt", 8
_log = logging.getLogger(__name__)


def write_report(path: Path) -> Path:
    """Write the report of a run, an experiment or a folder of some; return its page. Raises LoralabError for anything else."""
    if experiment_folder.is_experiment(path):
        return write_experiment_report(path, analyze_experiment(path))
    if (path / run_folder.CONFIG).is_file():
        return write_run_report(path)
    return write_dashboard(path)


def write_run_report(folder: Path) -> Path:
    """Write a run's report, complete or not, and return its page.

    Files: training_log.txt, model_description.txt and .json, metrics.csv, figures/*.png, README.md, report.html. Each is replaced
    atomically. Raises LoralabError for a folder that is not a run and for damaged files.
    """
    run = read_run(folder)
    drawings = draw_run_figures(run)
    description = text_files.model_description(run)
    if missing := run_folder.missing_model_files(folder):
        _log.warning(
            "%s lacks %s: the report is complete, and the model cannot be loaded", folder / run_folder.MODEL, ", ".join(missing)
        )
    model_files = frozenset(path.name for path in (folder / run_folder.MODEL).glob("*"))
    _write_text(folder / run_folder.TRAINING_LOG, text_files.training_log(run))
    _write_text(folder / run_folder.DESCRIPTION_TEXT, text_files.format_description(description))
    write_json(folder / run_folder.DESCRIPTION, description)
    with write_errors(folder), atomic_write(folder / run_folder.METRICS) as file:
        text_files.write_metrics(run, file)
    _write_figures(folder / run_folder.FIGURES, drawings)
    _write_text(folder / run_folder.CARD, model_card(run, model_files))
    _write_text(folder / run_folder.REPORT, render_run(run, drawings))
    return folder / run_folder.REPORT


def write_experiment_report(folder: Path, analysis: ExperimentAnalysis) -> Path:
    """Write trials.csv, tables/, figures/ and report.html of an experiment, each atomically; return the page."""
    tables = experiment_tables(analysis)
    drawings = draw_experiment_figures(analysis)
    if not (folder / experiment_folder.SEARCH_RESULTS).is_file():  # a search writes its own, with the trials that never ran
        _write_table(folder / experiment_folder.TABLE, trial_table(analysis.data))
    with atomic_folder(folder / experiment_folder.TABLES) as new:
        for table in tables:
            _write_table(new / f"{table.name}.csv", table)
    _write_figures(folder / experiment_folder.FIGURES, drawings)
    _write_text(folder / experiment_folder.REPORT, render_experiment(analysis, tables, drawings))
    return folder / experiment_folder.REPORT


def write_dashboard(folder: Path) -> Path:
    """Write report.html of all experiments and runs in a folder, with links to their own pages; return it.

    Those that cannot be read are listed with the reason, and logged.
    """
    rows = read_dashboard(folder)
    for row in rows:
        if row.problem:
            _log.warning("%s", visible(f"{row.name} {row.problem}"))
    written = [row.name for row in rows if (folder / row.name / run_folder.REPORT).is_file()]
    links = {name: f"{quote(name)}/{run_folder.REPORT}" for name in written}
    page = folder / experiment_folder.REPORT
    _write_text(page, render_dashboard(folder.resolve().name, dashboard_tables(rows), links, draw_dashboard(rows)))
    return page


def _write_text(path: Path, text: str) -> None:
    """Write a text atomically. An unpaired surrogate, which JSON may hold, becomes a question mark."""
    with write_errors(path), atomic_write(path) as file:
        file.write(text.encode("utf-8", "replace").decode("utf-8"))


def _write_table(path: Path, table: ReportTable) -> None:
    with write_errors(path), atomic_write(path) as file:
        write_csv(table, file)


def _write_figures(folder: Path, drawings: Sequence[ReportFigure]) -> None:
    """Write the PNG files, and the key of the words that no installed font has."""
    numbers: dict[str, int] = {}
    with write_errors(folder), atomic_folder(folder) as new:
        for drawing in drawings:
            save_png(drawing, new / f"{drawing.name}.png", numbers)
        if numbers:
            key = "".join(f"#{number}\t{words}\n" for words, number in numbers.items())
            (new / FIGURE_KEY).write_text(key, encoding="utf-8")


def figure_remark(page: Path) -> str:
    """Return what the figures beside a page number instead of writing it; empty if they have every character."""
    key = page.parent / run_folder.FIGURES / FIGURE_KEY
    if not key.is_file():
        return ""
    words = [line.partition("\t")[2] for line in key.read_text(encoding="utf-8").splitlines()]
    listed = ", ".join(words[:MAX_LISTED]) + (" and others" if len(words) > MAX_LISTED else "")
    return (
        f"no installed font has the characters of {listed}: the PNG figures write #1 and so on, with the key in {key}; "
        f"{page.name} has the words; after installing a font, such as Noto Sans CJK, run loralab report {page.parent}"
    )
