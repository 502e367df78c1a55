"""Figures of an experiment's points: a row for each category, a line along a number, each beside what it is compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from loralab.report.figures.ink import BLUE, GOLD, GREEN, GREY, HEIGHT, INK, PURPLE, VERMILLION, WIDTH, ReportFigure, legend_below
from loralab.report.tables import shorten
from loralab.stats import Interval

COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, GOLD, GREY)
MARKERS, DASHES = ("o", "s", "^", "D", "v", "X"), ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
MOST_LINES, MOST_ROWS, LONGEST_LABEL = len(COLOURS), 30, 26
LEAST_BOX = 5
"""Values from which a box is drawn: its quartiles would be made up of fewer."""
LOG_FROM = 8
"""Numbers that span this factor are shown on a log scale."""


@dataclass(frozen=True)
class Caption:
    """What a drawing says of itself, but for its ink."""

    name: str
    title: str
    rows: str
    text: str

    def under(self, figure: Figure) -> ReportFigure:
        """The drawing."""
        return ReportFigure(self.name, self.title, self.rows, self.text, figure)


@dataclass(frozen=True)
class Panel:
    """A column of a category figure: for each category its values, one a seed, and where known the interval of their mean."""

    title: str
    values: Sequence[Sequence[float]]
    intervals: Sequence[Interval | None]
    bars: bool = False


@dataclass(frozen=True)
class Series:
    """A line along a number: x with mean, and where known low and high; `dots` are single runs (x, y)."""

    label: str
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dots: Sequence[tuple[float, float]] = field(default=())


def strips(caption: Caption, labels: Sequence[str], panels: Sequence[Panel]) -> ReportFigure | None:
    """A row for each category, a column for each panel: dots for seeds, a box from five on, a diamond with the mean's interval."""
    n = min(len(labels), MOST_ROWS)
    if not n or not panels:
        return None
    names = [shorten(label, LONGEST_LABEL) for label in labels[:n]]
    wide = max(WIDTH, 0.07 * max(map(len, names)) + 1.75 * len(panels) + 0.5)
    figure = Figure(figsize=(wide, 0.95 + max(0.34 * n, 0.9)), layout="constrained")
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel, colour in zip(columns, panels, COLOURS * len(panels), strict=False):
        for i, (values, interval) in enumerate(zip(panel.values[:n], panel.intervals[:n], strict=True)):
            _row(axes, i, [value for value in values if math.isfinite(value)], interval, colour, panel.bars)
        axes.set_title(panel.title, fontsize=8.5, loc="left")
        axes.set_ylim(n - 0.45, -0.55)
        axes.set_yticks(range(n), names, fontsize=8)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=7.5)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        if panel.bars:
            axes.set_xlim(left=0)
            _thousands(axes)
        else:
            axes.margins(x=0.08)
    return caption.under(figure)


def lines(
    caption: Caption,
    series: Sequence[Series],
    xlabel: str,
    ylabel: str,
    *,
    levels: Sequence[tuple[str, float]] = (),
    ticks: bool = True,
) -> ReportFigure | None:
    """Means along a number with the bands of their intervals; `levels` are heights to compare with, such as chance.

    ticks: the points themselves are the ticks, as the settings that were tried; False where they are steps.
    """
    series = [line for line in series[:MOST_LINES] if len(line.x)]
    if not series:
        return None
    figure = Figure(figsize=(WIDTH, HEIGHT + 0.16 * max(0, len(series) - 3)), layout="constrained")
    axes = figure.subplots()
    place = _placed(axes, sorted({x for line in series for x in line.x}), ticks)
    for number, line in enumerate(series):
        style: dict[str, Any] = {"color": COLOURS[number], "linestyle": DASHES[number], "marker": MARKERS[number]}
        x = [place(value) for value in line.x]
        if len(line.low):
            axes.fill_between(x, line.low, line.high, color=COLOURS[number], alpha=0.14, linewidth=0)
            if len(x) == 1:
                axes.vlines(x, line.low, line.high, color=COLOURS[number], linewidth=1.2)
        if line.dots:
            at, values = zip(*line.dots, strict=True)
            axes.plot(
                [place(v) for v in at], values, MARKERS[number], color=COLOURS[number], markersize=3, alpha=0.45, linestyle="none"
            )
        axes.plot(x, line.mean, label=shorten(line.label, 34), markersize=4.5 if len(x) <= 25 else 0, **style)
    for (label, height), dashes in zip(levels, (":", "-.", "--"), strict=False):
        axes.axhline(height, color=INK, linewidth=1.1, linestyle=dashes, label=shorten(label, 34))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.margins(x=0.04, y=0.08)
    if len(series) + len(levels) > 1:
        legend_below(axes)
    return caption.under(figure)


def forest(caption: Caption, rows: Sequence[tuple[str, Interval | None, float, bool]], what: str) -> ReportFigure | None:
    """Differences with their intervals, one row each: (label, interval, difference, whether it may be claimed)."""
    rows = rows[:MOST_ROWS]
    if not rows:
        return None
    figure = Figure(figsize=(WIDTH, 1.0 + max(0.27 * len(rows), 0.8)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=0.9)
    for i, (_, interval, difference, clear) in enumerate(rows):
        colour = GREY if not clear else BLUE if difference > 0 else VERMILLION
        if interval:
            axes.hlines(i, 100 * interval.low, 100 * interval.high, color=colour, linewidth=2)
        axes.plot(
            [100 * difference], [i], "D" if clear else "o", color=colour, markersize=5, markerfacecolor=colour if clear else "none"
        )
    axes.set_yticks(range(len(rows)), [shorten(label, LONGEST_LABEL) for label, *_ in rows], fontsize=8)
    axes.set(ylim=(len(rows) - 0.45, -0.55), xlabel=what)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return caption.under(figure)


def slopes(caption: Caption, labels: Sequence[str], seeds: Sequence[Sequence[float]], ylabel: str) -> ReportFigure | None:
    """One line a seed across categories: parallel lines are a difference that every seed sees. seeds: (seeds, categories)."""
    if len(labels) < 2 or len(labels) > 8 or not seeds:
        return None
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    for values in seeds:
        axes.plot(range(len(labels)), values, color=GREY, marker="o", markersize=3.5, linewidth=1.0, alpha=0.8)
    axes.plot(range(len(labels)), np.mean(seeds, axis=0), color=BLUE, marker="D", linewidth=2.2, label="mean")
    axes.set_xticks(range(len(labels)), [shorten(label, max(8, 56 // len(labels))) for label in labels], fontsize=8)
    axes.set(ylabel=ylabel, xlim=(-0.3, len(labels) - 0.7))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(visible=False, axis="x")
    return caption.under(figure)


def scatter(
    caption: Caption, groups: Sequence[tuple[str, Sequence[float], Sequence[float]]], xlabel: str, ylabel: str
) -> ReportFigure | None:
    """One dot a run: (label, x, y) for each group of at most six."""
    groups = [group for group in groups[:MOST_LINES] if len(group[1])]
    if not groups:
        return None
    figure = Figure(figsize=(WIDTH, HEIGHT + 0.16 * max(0, len(groups) - 3)), layout="constrained")
    axes = figure.subplots()
    for number, (label, x, y) in enumerate(groups):
        style: dict[str, Any] = {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": "none", "alpha": 0.85}
        axes.plot(x, y, label=shorten(label, 34), **style)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    _thousands(axes)
    axes.margins(x=0.08, y=0.1)
    if len(groups) > 1:
        legend_below(axes)
    return caption.under(figure)


def _row(axes: Axes, i: int, values: Sequence[float], interval: Interval | None, colour: str, bars: bool) -> None:
    if not values:
        return
    mean = float(np.mean(values))
    if bars:
        axes.barh(i, mean, color=colour, height=0.55, alpha=0.75)
        axes.plot(values, [i] * len(values), ".", color=INK, markersize=3, alpha=0.7)
        return
    if len(values) >= LEAST_BOX:
        line = {"color": colour, "linewidth": 1.0}
        axes.boxplot(
            [values], positions=[i], orientation="horizontal", widths=0.6, showfliers=False, manage_ticks=False,
            boxprops=line, whiskerprops=line, capprops=line, medianprops={"color": colour, "linewidth": 1.6},
        )  # fmt: skip
    spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else [0.0]
    axes.plot(values, i + np.asarray(spread), "o", color=colour, markersize=3.2, alpha=0.5, linestyle="none")
    if interval and interval.low < interval.high:
        axes.hlines(i, interval.low, interval.high, color=INK, linewidth=1.6)
    axes.plot([mean], [i], "D", color=INK, markersize=4.5)


def _placed(axes: Axes, points: Sequence[float], ticks: bool) -> Any:
    """Scale the x axis for these points, with ticks at them, and return where a point lies.

    Numbers that span a factor of `LOG_FROM` are on a log scale; with a 0 among them, evenly apart.
    """
    above = [point for point in points if point > 0]
    spans = len(above) > 1 and above[-1] / above[0] >= LOG_FROM
    if not ticks:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return float
    if spans and len(above) < len(points):
        places = {point: float(i) for i, point in enumerate(points)}
        axes.set_xticks(list(places.values()), [f"{point:g}" for point in points], fontsize=8)
        return places.__getitem__
    if spans:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    ends = (math.log(points[0]), math.log(points[-1])) if spans else (points[0], points[-1])
    shown: list[float] = []
    last = -math.inf
    for point in points:
        at = ((math.log(point) if spans else point) - ends[0]) / ((ends[1] - ends[0]) or 1)
        if at - last >= 0.022 * (len(_plain(point)) + 1):
            shown.append(point)
            last = at
    axes.set_xticks(shown, [_plain(point) for point in shown], fontsize=8)
    return float


def _plain(point: float) -> str:
    return f"{point:,.0f}" if point >= 1000 else f"{point:g}"


def _thousands(axes: Axes) -> None:
    """Large numbers on the x axis as 1.2M or 300k."""
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
