"""Figures of a data file: rows per class, and the lengths of its texts."""

from __future__ import annotations

from matplotlib.ticker import MaxNLocator

from loralab.data.data_report import DataReport
from loralab.data.types import count_of
from loralab.report.figures.plots import MAX_ROWS, Panel, strip_plot
from loralab.report.figures.style import VERMILLION, Caption, ReportFigure, figure_style, single_axes

BINS = 40
"""Most bars of the lengths."""


def draw_data_figures(report: DataReport) -> list[ReportFigure]:
    """Draw rows per class and the lengths of the texts."""
    with figure_style():
        drawings = [_draw_classes(report), _draw_lengths(report)]
    return [drawing for drawing in drawings if drawing is not None]


def _draw_classes(report: DataReport) -> ReportFigure | None:
    names = sorted(report.classes, key=lambda name: -report.classes[name])[:MAX_ROWS]
    panel = Panel("rows", [[float(report.classes[name])] for name in names], [None] * len(names), bars=True)
    which = f"{len(names)} classes" if len(names) == len(report.classes) else f"the {len(names)} largest of {len(report.classes)}"
    return strip_plot(Caption(f"{report.part}-classes", "Rows per class", which, "Largest first."), names, [panel])


def _draw_lengths(report: DataReport) -> ReportFigure:
    lengths = report.lengths
    figure, axes = single_axes()
    least, most = min(lengths.counts), max(lengths.counts)
    step = -(-(most - least + 1) // BINS)
    axes.hist(lengths.counts, bins=[edge - 0.5 for edge in range(least, most + step + 1, step)])
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    text = f"{lengths.unit.capitalize()} of each text."
    if lengths.limit is not None and most > lengths.limit:
        axes.axvline(lengths.limit, color=VERMILLION, linestyle="--", label=f"data.max_length={lengths.limit}")
        axes.legend()
        text = f"Tokens of each text, for {lengths.base}. What exceeds data.max_length={lengths.limit} is not read."
    axes.set_xlabel(f"{lengths.unit} per text")
    axes.set_ylabel("texts")
    caption = Caption(f"{report.part}-lengths", "Length of the texts", count_of(report.rows, "row"), text)
    return ReportFigure(caption, figure)
