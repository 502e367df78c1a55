"""Plots of an experiment's configurations: rows for categories, lines along a number, and differences from a baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from loralab.report.figures import style
from loralab.report.figures.style import BLUE, COLORS, GREY, HEIGHT, INK, WIDTH, Caption, ReportFigure, StyledFigure, single_axes
from loralab.report.formatting import shorten
from loralab.stats import Interval

MAX_LINES, MAX_ROWS, MAX_LABEL = len(COLORS), 30, 26
MIN_BOX_VALUES = 5
"""Fewer values have no meaningful quartiles."""
LOG_SCALE_FACTOR = 8
"""Numbers that span this factor get a log scale."""


@dataclass(frozen=True)
class Panel:
    """A column of a strip plot: per category its values, one per seed, and the interval of their mean where known."""

    title: str
    values: Sequence[Sequence[float]]
    intervals: Sequence[Interval | None]
    bars: bool = False


@dataclass(frozen=True)
class Series:
    """A line along a number: x with mean, and low and high where known; `dots` are single runs (x, y)."""

    label: str
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dots: Sequence[tuple[float, float]] = ()


Levels = Sequence[tuple[str, float]]
"""Horizontal lines such as chance: (label, height)."""


def strip_plot(caption: Caption, labels: Sequence[str], panels: Sequence[Panel]) -> ReportFigure | None:
    """Draw a row per category and a column per panel: a box (five values or more), the mean with its interval, and the values."""
    n = min(len(labels), MAX_ROWS)
    if not n or not panels:
        return None
    names = [shorten(label, MAX_LABEL) for label in labels[:n]]
    boxes = any(len(values) >= MIN_BOX_VALUES for panel in panels if not panel.bars for values in panel.values[:n])
    width = max(WIDTH, 0.07 * max(map(len, names)) + 1.75 * len(panels) + 0.5)
    figure = StyledFigure(figsize=(width, 0.95 + max((0.52 if boxes else 0.36) * n, 0.6)), layout="constrained")
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel, color in zip(columns, panels, COLORS * len(panels), strict=False):
        for i, (values, interval) in enumerate(zip(panel.values[:n], panel.intervals[:n], strict=True)):
            finite = [value for value in values if math.isfinite(value)]
            if finite and panel.bars:
                axes.barh(i, float(np.mean(finite)), color=color, height=0.55, alpha=0.75)
                if len(finite) > 1:
                    axes.plot(finite, [i] * len(finite), ".", color=INK, markersize=3, alpha=0.7)
            elif finite:
                _draw_strip(axes, i, finite, interval, color)
        axes.set_title(panel.title, fontsize=8.5, loc="left")
        style.label_rows(axes, names)
        axes.tick_params(axis="x", labelsize=7.5)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        if panel.bars:
            axes.set_xlim(left=0)
            axes.xaxis.set_major_formatter(_short_number)
        else:
            axes.margins(x=0.08)
    return ReportFigure(caption, figure)


def line_plot(
    caption: Caption, series: Sequence[Series], xlabel: str, ylabel: str, *, levels: Levels = (), x_is_setting: bool = True
) -> ReportFigure | None:
    """Draw means along a number with their intervals as bands. x_is_setting: a tick at each x that was tried; False for steps."""
    series = [line for line in series[:MAX_LINES] if len(line.x)]
    if not series:
        return None
    figure, axes = single_axes(HEIGHT + 0.16 * max(0, len(series) - 3))
    to_x = _scale_x(axes, sorted({x for line in series for x in line.x}), x_is_setting)
    for color, dash, marker, line in zip(COLORS, style.DASHES, style.MARKERS, series, strict=False):
        look: dict[str, Any] = {"color": color, "linestyle": dash, "marker": marker}
        x = [to_x(value) for value in line.x]
        if len(line.low):
            axes.fill_between(x, line.low, line.high, color=color, alpha=0.14, linewidth=0)
            if len(x) == 1:
                axes.vlines(x, line.low, line.high, color=color, linewidth=1.2)
        if line.dots:
            dot_x, dot_y = zip(*line.dots, strict=True)
            axes.plot([to_x(v) for v in dot_x], dot_y, marker, color=color, markersize=3, alpha=0.45, linestyle="none")
        axes.plot(x, line.mean, label=shorten(line.label, 34), markersize=4.5 if len(x) <= 25 else 0, **look)
    for (label, height), dashes in zip(levels, (":", "-.", "--"), strict=False):
        axes.axhline(height, color=INK, linewidth=1.1, linestyle=dashes, label=shorten(label, 34))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.margins(x=0.04, y=0.08)
    if len(series) + len(levels) > 1:
        style.legend_below(axes)
    return ReportFigure(caption, figure)


def forest_plot(caption: Caption, rows: Sequence[tuple[str, Interval | None, float, bool]], xlabel: str) -> ReportFigure | None:
    """Draw differences with their intervals, one row each: (label, interval, difference, significant)."""
    rows = rows[:MAX_ROWS]
    if not rows:
        return None
    figure, axes = single_axes(1.0 + max(0.27 * len(rows), 0.8))
    axes.axvline(0, color=INK, linewidth=0.9)
    for i, (_, interval, difference, significant) in enumerate(rows):
        color = GREY if not significant else BLUE if difference > 0 else style.VERMILLION
        if interval:
            axes.hlines(i, 100 * interval.low, 100 * interval.high, color=color, linewidth=2)
        marker, fill = ("D", color) if significant else ("o", "none")
        axes.plot([100 * difference], [i], marker, color=color, markersize=5, markerfacecolor=fill)
    style.label_rows(axes, [shorten(label, MAX_LABEL) for label, *_ in rows])
    axes.set_xlabel(xlabel)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return ReportFigure(caption, figure)


def slope_plot(caption: Caption, labels: Sequence[str], seeds: Sequence[Sequence[float]], ylabel: str) -> ReportFigure | None:
    """Draw one line per seed across two to eight categories. seeds: (seeds, categories)."""
    if len(labels) < 2 or len(labels) > 8 or not seeds:
        return None
    figure, axes = single_axes()
    for values in seeds:
        axes.plot(range(len(labels)), values, color=GREY, marker="o", markersize=3.5, linewidth=1.0, alpha=0.8)
    axes.plot(range(len(labels)), np.mean(seeds, axis=0), color=BLUE, marker="D", linewidth=2.2, label="mean")
    axes.set_xticks(range(len(labels)), [shorten(label, max(8, 56 // len(labels))) for label in labels], fontsize=8)
    axes.set(ylabel=ylabel, xlim=(-0.3, len(labels) - 0.7))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(visible=False, axis="x")
    return ReportFigure(caption, figure)


def scatter_plot(
    caption: Caption, groups: Sequence[tuple[str, Sequence[float], Sequence[float]]], xlabel: str, ylabel: str
) -> ReportFigure | None:
    """Draw one mark per run: (label, x, y) for each of at most six groups."""
    groups = [group for group in groups[:MAX_LINES] if len(group[1])]
    if not groups:
        return None
    figure, axes = single_axes(HEIGHT + 0.16 * max(0, len(groups) - 3))
    for color, marker, (label, x, y) in zip(COLORS, style.MARKERS, groups, strict=False):
        axes.plot(x, y, label=shorten(label, 34), color=color, marker=marker, linestyle="none", alpha=0.85)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(_short_number)
    axes.margins(x=0.08, y=0.1)
    if len(groups) > 1:
        style.legend_below(axes)
    return ReportFigure(caption, figure)


def _draw_strip(axes: Axes, row: int, values: Sequence[float], interval: Interval | None, color: str) -> None:
    center = float(row)
    if len(values) >= MIN_BOX_VALUES:
        line = {"color": color, "linewidth": 1.0}
        axes.boxplot(
            [values], positions=[row - 0.24], orientation="horizontal", widths=0.26, showfliers=False, manage_ticks=False,
            boxprops=line, whiskerprops=line, capprops=line, medianprops={"color": color, "linewidth": 1.8},
        )  # fmt: skip
        center += 0.06
    elif len(values) > 1:
        center -= 0.12
    if interval and interval.low < interval.high:
        axes.hlines(center, interval.low, interval.high, color=INK, linewidth=1.6)
    axes.plot([float(np.mean(values))], [center], "D", color=INK, markersize=4.5)
    if len(values) > 1:
        axes.plot(values, [center + 0.24] * len(values), "o", color=color, markersize=3.4, alpha=0.55, linestyle="none")


def _scale_x(axes: Axes, points: Sequence[float], x_is_setting: bool) -> Callable[[float], float]:
    """Choose the x scale (linear, log, or even spacing where a log scale would need a 0); return where a value lies on it."""
    positive = [point for point in points if point > 0]
    spans = len(positive) > 1 and positive[-1] / positive[0] >= LOG_SCALE_FACTOR
    if not x_is_setting:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return float
    if spans and len(positive) < len(points):
        axes.set_xticks(range(len(points)), [f"{point:g}" for point in points], fontsize=8)
        return {point: float(i) for i, point in enumerate(points)}.__getitem__
    if spans:
        axes.set_xscale("log")
        axes.minorticks_off()
    places = [math.log(point) if spans else point for point in points]
    ticks: dict[float, str] = {}
    last = -math.inf
    for point, place in zip(points, places, strict=True):
        position = (place - places[0]) / ((places[-1] - places[0]) or 1)
        label = f"{point:,.0f}" if point >= 1000 else f"{point:g}"
        if position - last >= 0.022 * (len(label) + 1):
            ticks[point], last = label, position
    axes.set_xticks(list(ticks), list(ticks.values()), fontsize=8)
    return float


def _short_number(value: float, position: float) -> str:
    """Format a tick's large value as 1.2M or 300k."""
    size, letter = (1e6, "M") if abs(value) >= 1e6 else (1e3, "k") if abs(value) >= 1e3 else (1, "")
    return f"{value / size:g}{letter}"
