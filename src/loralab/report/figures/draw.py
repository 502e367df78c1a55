"""Every figure of a run, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable

from loralab.report.figures import result, training
from loralab.report.figures.ink import ReportFigure, style
from loralab.report.tables import RunTables

_FIGURES: tuple[Callable[[RunTables], ReportFigure | None], ...] = (
    result.confusion,
    result.f1_by_class,
    result.radar,
    result.reliability,
    training.learning_curve,
    training.losses,
    training.accuracy_trend,
    training.all_metrics,
)


def draw(tables: RunTables) -> list[ReportFigure]:
    """Draw every figure that the run has rows for."""
    with style():
        return [drawing for figure in _FIGURES if (drawing := figure(tables)) is not None]
