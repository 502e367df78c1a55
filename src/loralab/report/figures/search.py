"""Figures of a search: rows of search.json → history, importance, slices, parallel coordinates, Pareto front."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from loralab.report.figures.ink import BLUE, GREEN, GRID, HEIGHT, INK, VERMILLION, WIDTH, ReportFigure, legend_below, style
from loralab.report.tables import LABELS, shorten

Found = Mapping[str, Any]
SHADES = LinearSegmentedColormap.from_list("worse to better", [GRID, BLUE])
LONGEST_NAME = 22


def draw_search(found: Found) -> list[ReportFigure]:
    """Draw every figure that a search has rows for."""
    figures: tuple[Callable[[Found], ReportFigure | None], ...] = (history, importance, slices, parallel, pareto)
    with style():
        return [drawing for figure in figures if (drawing := figure(found)) is not None]


def history(found: Found) -> ReportFigure | None:
    """The first objective of every trial in the order they were asked for, and the best so far."""
    rows = complete(found)
    if not rows:
        return None
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    numbers, values = [row["number"] for row in rows], [row["values"][0] for row in rows]
    axes.plot(numbers, values, "o", color=BLUE, alpha=0.75, label="complete")
    pruned = [
        (row["number"], row["evaluations"][-1][1]) for row in found["trials"] if row["state"] == "pruned" and row["evaluations"]
    ]
    if pruned and len(found["objectives"]) == 1:
        axes.plot([x for x, _ in pruned], [y for _, y in pruned], "x", color=VERMILLION, label="pruned, where it stood")
    axes.step(
        [*numbers, found["trials"][-1]["number"]],
        [*(b := best_so_far(values, less(found))), b[-1]],
        color=GREEN,
        where="post",
        label="best so far",
    )
    axes.set(xlabel="trial", ylabel=label(found["objectives"][0]))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _finish(axes, 0)
    caption = (
        "Every trial by its score on the validation rows. A line that has long been level says that more trials would add little."
    )
    return ReportFigure("search_history", "History of the search", count(found), caption, figure)


def importance(found: Found) -> ReportFigure | None:
    """Each setting's share of the objective's variance."""
    shares = {name: each for name, each in found["importance"].items() if each and not any(map(math.isnan, each.values()))}
    if not shares:
        return None
    names = sorted(next(iter(shares.values())), key=lambda name: -next(iter(shares.values()))[name])
    height = 0.7 / len(shares)
    figure = Figure(figsize=(WIDTH, 1.1 + 0.34 * len(names)), layout="constrained")
    axes = figure.subplots()
    for i, (objective, each) in enumerate(shares.items()):
        y = np.arange(len(names)) + (i - (len(shares) - 1) / 2) * height
        colour = (BLUE, VERMILLION)[i]
        axes.barh(y, [each[name] for name in names], height * 0.92, color=colour, alpha=0.9, label=label(objective))
        for at, name in zip(y, names, strict=True):
            axes.annotate(f"{each[name]:.0%}", (each[name] + 0.015, at), va="center", fontsize=8)
    axes.set_yticks(range(len(names)), [shorten(name, LONGEST_NAME) for name in names], fontsize=8)
    axes.set(xlim=(0, 1.12), ylim=(len(names) - 0.45, -0.55), xlabel="share of the variance")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    legend_below(axes)
    caption = "By fANOVA over the complete trials: how much of their differences each setting explains. With few trials, a hint."
    return ReportFigure("search_importance", "What mattered", count(found), caption, figure)


def slices(found: Found) -> ReportFigure | None:
    """The first objective by each setting."""
    rows = complete(found)
    if not rows:
        return None
    axes_of = found["axes"]
    figure = Figure(figsize=(WIDTH, 0.3 + 1.75 * ((len(axes_of) + 1) // 2)), layout="constrained")
    panels = list(figure.subplots((len(axes_of) + 1) // 2, 2, sharey=True, squeeze=False).flat)
    values = [row["values"][0] for row in rows]
    top = max(range(len(rows)), key=lambda i: -values[i] if less(found) else values[i])
    for panel, axis in zip(panels, axes_of, strict=False):
        x, ticks = positions(axis, [row["points"][axis["name"]] for row in rows])
        panel.plot(x, values, "o", color=BLUE, alpha=0.7, markersize=3.5)
        panel.plot(x[top], values[top], "D", color=VERMILLION, markersize=5)
        panel.set_title(shorten(axis["name"], LONGEST_NAME), fontsize=8.5, loc="left")
        _scale(panel, axis, ticks)
        panel.tick_params(labelsize=7)
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.margins(x=0.12, y=0.1)
    for panel in panels[len(axes_of) :]:
        panel.set_visible(False)
    figure.supylabel(label(found["objectives"][0]), fontsize=8.5)
    caption = (
        "Every complete trial, by each setting in turn; the diamond is the best. A best value at an edge of its range: widen it."
    )
    return ReportFigure("search_slices", "By each setting", count(found), caption, figure)


def parallel(found: Found) -> ReportFigure | None:
    """Every complete trial as a line through its settings, darker where it is better."""
    rows, axes_of = complete(found), found["axes"]
    if len(rows) < 2:
        return None
    values = np.array([row["values"][0] for row in rows])
    order = np.argsort(-values if less(found) else values, kind="stable")
    goodness = np.empty(len(values))
    goodness[order] = np.linspace(0, 1, len(values)) ** 2  # by rank: one very bad trial would make all others look alike
    columns = [positions(axis, [row["points"][axis["name"]] for row in rows]) for axis in axes_of]
    figure = Figure(figsize=(max(WIDTH, 1.15 * (len(axes_of) + 1)), 3.4), layout="constrained")
    axes = figure.subplots()
    ground: dict[str, Any] = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6}
    heights = []
    for i, ((x, ticks), axis) in enumerate(zip(columns, axes_of, strict=True)):
        height, marks = _unit(x, ticks, axis)
        heights.append(height)
        for at, text in marks:
            axes.annotate(
                text, (i, at), xytext=(3, 0), textcoords="offset points", fontsize=6.5, va="center", zorder=4, bbox=ground
            )
    span = values.max() - values.min()
    heights.append((values - values.min()) / (span or 1.0))
    for at, value in ((0.0, values.min()), (1.0, values.max())) if span else ((0.0, values.min()),):
        axes.annotate(f"{value:.4g}", (len(axes_of), at), xytext=(3, 0), textcoords="offset points", fontsize=6.5, va="center")
    lines = np.array(heights).T
    for i in order:
        best = i == order[-1]
        axes.plot(lines[i], color=VERMILLION if best else SHADES(float(goodness[i])), linewidth=1.8 if best else 1.0)
    names = [*(axis["name"].rpartition(".")[2] for axis in axes_of), label(found["objectives"][0])]
    axes.set_xticks(
        range(len(names)), [shorten(name, 14) for name in names], fontsize=7, rotation=30, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(names) - 0.55)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(visible=True, axis="x", color=INK, linewidth=0.6)
    caption = "Each line is a trial: the darker the better, orange the best. Where dark lines meet, a setting decides."
    return ReportFigure("search_parallel", "All settings at once", count(found), caption, figure)


def pareto(found: Found) -> ReportFigure | None:
    """Two objectives against each other; those that no other trial beats in both."""
    rows = complete(found)
    if len(found["objectives"]) < 2 or not rows:
        return None
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    first, second = found["objectives"]
    axes.plot([row["values"][1] for row in rows], [row["values"][0] for row in rows], "o", color=BLUE, alpha=0.5, label="trial")
    front = sorted((row["values"][1], row["values"][0], row["number"]) for row in rows if row["number"] in found["best"])
    style_: dict[str, Any] = {"color": VERMILLION, "marker": "D", "linestyle": "--", "linewidth": 1.2, "drawstyle": "steps-post"}
    axes.plot([x for x, _, _ in front], [y for _, y, _ in front], label="Pareto front, with its trials' numbers", **style_)
    for x, y, number in front:
        axes.annotate(str(number), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set(xlabel=label(second), ylabel=label(first))
    if second == "trainable":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, at: f"{value / 1000:,.0f}k"))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    _finish(axes, 0.06)
    caption = (
        f"No trial beats one of the front in both {label(first)} and {label(second)}: which of them to take is a matter of taste."
    )
    return ReportFigure("search_pareto", "The best compromises", count(found), caption, figure)


def complete(found: Found) -> list[dict[str, Any]]:
    """The trials that have values."""
    return [row for row in found["trials"] if row["values"]]


def less(found: Found) -> bool:
    """True where the first objective is better when it is lower."""
    return bool(found["minimised"][0])


def best_so_far(values: Sequence[float], lower_is_better: bool) -> list[float]:
    """The running best."""
    found = np.minimum.accumulate(values) if lower_is_better else np.maximum.accumulate(values)
    return [float(each) for each in found]


def positions(axis: Mapping[str, Any], points: Sequence[str]) -> tuple[list[float], list[str]]:
    """Where points lie on an axis: numbers of a range as they are; choices by their order, with the choices as ticks."""
    if axis["choices"]:
        order = sorted(axis["choices"], key=_number) if all(_is_number(each) for each in axis["choices"]) else list(axis["choices"])
        return [float(order.index(point)) for point in points], order
    return [_number(point) for point in points], []


def label(objective: str) -> str:
    """An objective's name as people read it."""
    costs = {"trainable": "Trainable parameters", "seconds": "Seconds"}
    return {**LABELS, **costs}.get(objective, shorten(objective, LONGEST_NAME))


def count(found: Found) -> str:
    """How many trials are behind a figure."""
    states = [row["state"] for row in found["trials"]]
    told = {"complete": "complete", "pruned": "pruned", "failed": "failed", "rejected": "over budget"}
    return ", ".join(f"{states.count(state):,} {name}" for state, name in told.items() if state in states) + " trials"


def _unit(x: Sequence[float], ticks: Sequence[str], axis: Mapping[str, Any]) -> tuple[Any, list[tuple[float, str]]]:
    """Positions stretched over 0 to 1, and what to write where."""
    values = np.log10(x) if axis["log"] else np.asarray(x, dtype=float)
    if ticks:
        return values / max(len(ticks) - 1, 1), [(i / max(len(ticks) - 1, 1), shorten(text, 12)) for i, text in enumerate(ticks)]
    span = float(values.max() - values.min())
    ends = [(0.0, min(x)), (1.0, max(x))] if span else [(0.0, min(x))]
    return (values - values.min()) / (span or 1.0), [(at, f"{value:.3g}") for at, value in ends]


def _scale(panel: Axes, axis: Mapping[str, Any], ticks: Sequence[str]) -> None:
    if ticks:
        turned: dict[str, Any] = {} if sum(map(len, ticks)) < 22 else {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
        panel.set_xticks(range(len(ticks)), [shorten(text, 14) for text in ticks], **turned)
    elif axis["log"]:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(numticks=4))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, at: f"{value:g}"))
        panel.minorticks_off()
    else:
        panel.xaxis.set_major_locator(MaxNLocator(4))


def _finish(axes: Axes, margin: float) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.margins(x=0.04 + margin, y=0.08 + margin)
    legend_below(axes)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?\d*\.?\d+(e[-+]?\d+)?r?", text, re.IGNORECASE) is not None


def _number(text: str) -> float:
    return float(text.rstrip("r"))
