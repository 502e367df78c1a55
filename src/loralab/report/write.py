"""The whole report: a run folder's plain files → its texts, table, figures, card and page."""

from __future__ import annotations

from pathlib import Path

from loralab.report import texts
from loralab.report.card import model_card
from loralab.report.figures.draw import draw
from loralab.report.figures.ink import save_png
from loralab.report.page import render
from loralab.report.tables import read_tables
from loralab.storage import run_folder


def write_report(folder: Path) -> Path:
    """Make a run's report, complete or not, and return the path of its page.

    Writes training_log.txt, model_description.txt and .json, metrics.csv, figures/*.png, README.md and report.html, each whole or
    not at all, in the place of earlier ones. Raises LoralabError when the folder is no run or its files are damaged.
    """
    tables = read_tables(folder)
    drawings = draw(tables)
    found = texts.description(tables)
    model = folder / run_folder.MODEL
    files = frozenset(path.name for path in model.iterdir()) if model.is_dir() else frozenset()
    write_text(folder / run_folder.TRAINING_LOG, texts.training_log(tables))
    write_text(folder / run_folder.DESCRIPTION_TEXT, texts.description_text(found))
    run_folder.write_json(folder / run_folder.DESCRIPTION, found)
    with run_folder.says_disk(folder), run_folder.atomic(folder / run_folder.METRICS) as file:
        texts.write_metrics(tables, file)
    with run_folder.atomic_folder(folder / run_folder.FIGURES) as figures:
        for drawing in drawings:
            save_png(drawing, figures / f"{drawing.name}.png")
    write_text(folder / run_folder.CARD, model_card(tables, files))
    write_text(folder / run_folder.REPORT, render(tables, drawings))
    return folder / run_folder.REPORT


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all; half a surrogate pair, which JSON may hold, becomes a question mark."""
    with run_folder.says_disk(path), run_folder.atomic(path) as file:
        file.write(text.encode("utf-8", "replace").decode("utf-8"))
