"""How each kind of experiment is read: which score decides, what is compared with what, which figures show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loralab.report.experiments import views
from loralab.report.experiments.comparisons import (
    NullComparison,
    compare,
    compare_rows,
    to_best,
    to_centre,
    to_first,
    to_smaller,
    to_value,
)
from loralab.report.experiments.reading import Reading
from loralab.report.experiments.tables import LabTables, Score, read_lab
from loralab.report.figures.ink import ReportFigure
from loralab.storage.experiment_folder import Factor

View = Callable[[Reading], list[ReportFigure]]
NOTHING = (None, "none", "", 0)


@dataclass(frozen=True)
class ReportProfile:
    """judged: the rows whose accuracy decides; settings are chosen on validation rows, effects are measured on test rows.

    against: which points are compared; by_rows: also row by row, where predictions lie; views: its figures, in order.
    """

    judged: Literal["test", "validation"]
    against: NullComparison
    views: tuple[View, ...]
    by_rows: bool = False


def read(folder: Path) -> Reading:
    """Read an experiment as its kind wants it; of an unknown kind as any. Raises LoralabError where there is none."""
    return reading_of(read_lab(folder))


def reading_of(tables: LabTables) -> Reading:
    """Score and compare the points. Without validation rows the test rows decide."""
    how = HOW.get(tables.question.kind, ANY)
    score = Score("validation" if how.judged == "validation" and tables.validated else "test")
    pairs = how.against(tables, score)
    return Reading(tables, score, tuple(compare(pairs, score)), tuple(compare_rows(pairs)) if how.by_rows else ())


def draw(reading: Reading) -> list[ReportFigure]:
    """Draw every figure that the experiment has rows for."""
    how = HOW.get(reading.tables.question.kind, ANY)
    return [drawing for view in (*how.views, views.differences) for drawing in view(reading)]


def _is_all(name: str, value: Factor) -> bool:
    return value == "all"


def _is_none(name: str, value: Factor) -> bool:
    return value in NOTHING


def _is_random(name: str, value: Factor) -> bool:
    return value == "random"


ANY = ReportProfile("test", to_first, (views.by_number, views.categories))
HOW: Mapping[str, ReportProfile] = {
    "seeds": ReportProfile("test", to_first, (views.categories, views.paired_seeds, views.time_and_score), by_rows=True),
    "grid": ReportProfile("validation", to_best, (views.heat_and_surface, views.by_number, views.by_step)),
    "ablation": ReportProfile("validation", to_centre, (views.categories, views.by_step_and_axis)),
    "layers": ReportProfile("test", to_value(_is_all), (views.size_and_time, views.by_step), by_rows=True),
    "augmentation": ReportProfile("test", to_value(_is_none), (views.by_number, views.categories)),
    "active": ReportProfile("test", to_value(_is_random), (views.by_number,)),
    "zero-shot": ReportProfile("test", to_first, (views.categories,), by_rows=True),
    "few-shot": ReportProfile("test", to_smaller, (views.by_number,)),
    "scaling": ReportProfile("test", to_smaller, (views.power_law, views.by_number)),
    "compare": ReportProfile("test", to_first, (views.size_and_time, views.paired_seeds, views.time_and_score), by_rows=True),
    "search": ReportProfile("validation", to_best, (views.search, views.time_and_score)),
}
