"""The whole report: a run folder's plain files → its texts, table, figures, card and page."""

from __future__ import annotations

from pathlib import Path

from loralab import runs
from loralab.report import texts
from loralab.report.card import model_card
from loralab.report.figures.draw import draw
from loralab.report.figures.ink import save_png
from loralab.report.page import render
from loralab.report.tables import read_tables


def write_report(folder: Path) -> Path:
    """Make a run's report, complete or not, and return the path of its page.

    Writes training_log.txt, model_description.txt and .json, metrics.csv, figures/*.png, README.md and report.html, each whole or
    not at all, in the place of earlier ones. Raises LoralabError when the folder is no run or its files are damaged.
    """
    tables = read_tables(folder)
    drawings = draw(tables)
    found = texts.description(tables)
    model = folder / runs.MODEL
    files = frozenset(path.name for path in model.iterdir()) if model.is_dir() else frozenset()
    write_text(folder / runs.TRAINING_LOG, texts.training_log(tables))
    write_text(folder / runs.DESCRIPTION_TEXT, texts.description_text(found))
    runs.write_json(folder / runs.DESCRIPTION, found)
    with runs.says_disk(folder), runs.atomic(folder / runs.METRICS) as file:
        texts.write_metrics(tables, file)
    with runs.atomic_folder(folder / runs.FIGURES) as figures:
        for drawing in drawings:
            save_png(drawing, figures / f"{drawing.name}.png")
    write_text(folder / runs.CARD, model_card(tables, files))
    write_text(folder / runs.REPORT, render(tables, drawings))
    return folder / runs.REPORT


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all; half a surrogate pair, which JSON may hold, becomes a question mark."""
    with runs.says_disk(path), runs.atomic(path) as file:
        file.write(text.encode("utf-8", "replace").decode("utf-8"))
