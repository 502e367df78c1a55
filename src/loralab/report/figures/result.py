"""Figures of the result: what the trained classifier does on rows it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from loralab.report.figures.ink import BLUE, GRID, INK, RIGHT_FILL, VERMILLION, WIDTH, WRONG_FILL, ReportFigure, legend_below
from loralab.report.predictions import CalibrationBin, PredictionSummary
from loralab.report.tables import RunTables, shorten

MOST_CLASSES, LONGEST_NAME = 40, 22


def confusion(tables: RunTables) -> ReportFigure | None:
    """Test rows by true and predicted class."""
    found = tables.predictions
    if found is None:
        return None
    keep = _most_wrong(found)
    matrix = found.confusion[np.ix_(keep, keep)]
    share = matrix / np.maximum(found.confusion.sum(axis=1)[keep, None], 1)
    labels = [shorten(found.classes[i], LONGEST_NAME) for i in keep]
    n, longest = len(keep), max(len(label) for label in labels)
    room = 0.075 * longest + 0.5
    side = max(WIDTH - room, 0.3 * n)
    size = 9.0 if n <= 12 else 7.0
    figure = Figure(figsize=(side + room, min(side, 0.62 * n + 0.6) + room * 0.8), layout="constrained")
    axes = figure.subplots()
    for i, j in np.argwhere(matrix):
        right = i == j
        shade: dict[str, Any] = {
            "facecolor": RIGHT_FILL if right else WRONG_FILL,
            "alpha": 0.12 + 0.6 * float(share[i, j]) ** (1 if right else 0.5),
            "linewidth": 0,
        }
        axes.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, clip_on=False, **shade))
        axes.text(j, i, _count(int(matrix[i, j])), ha="center", va="center", fontsize=size, fontweight="bold" if right else None)
    level = n * longest * size * 0.62 < side * 72
    turned: dict[str, Any] = {"ha": "right", "va": "top" if n <= 12 else "center", "rotation_mode": "anchor"}
    turned = {} if level else {"rotation": 45 if n <= 12 else 90, **turned}
    axes.set_xticks(range(n), labels, fontsize=size, **turned)
    axes.set_yticks(range(n), labels, fontsize=size)
    axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), xlabel="predicted", ylabel="true")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    part = "" if n == len(found.classes) else f", the {n} of {len(found.classes):,} classes with the most mistakes"
    caption = "Counts of rows: blue is right, orange wrong. The shade grows with the share of the true class."
    return ReportFigure("confusion", "Confusion matrix", f"{found.rows:,} test rows{part}", caption, figure)


def f1_by_class(tables: RunTables) -> ReportFigure | None:
    """F1 of each class on the test rows, and on the validation rows."""
    rows = tables.per_class()
    if not rows or tables.result is None:
        return None
    shown = sorted(sorted(rows, key=lambda row: row["f1"])[:MOST_CLASSES], key=lambda row: tables.classes.index(row["class"]))
    figure = Figure(figsize=(WIDTH, 0.95 + max(0.24 * len(shown), 0.9)), layout="constrained")
    axes = figure.subplots()
    y = range(len(shown))
    axes.barh(y, [row["f1"] for row in shown], color=BLUE, height=0.62, label="test", alpha=0.9)
    validation = [tables.result.validation.get(f"f1:{row['class']}", np.nan) for row in shown]
    if not np.isnan(validation).all():
        axes.plot(validation, y, "D", color=VERMILLION, markersize=4, label="validation", linestyle="none")
    for i, row in enumerate(shown):
        axes.annotate(f"{row['f1']:.3f}", (1.02, i), va="center", fontsize=8, annotation_clip=False)
    axes.set_yticks(y, [f"{shorten(row['class'], LONGEST_NAME)} ({row['true']:,.0f})" for row in shown], fontsize=8)
    axes.set(xlim=(0, 1.14), ylim=(len(shown) - 0.45, -0.55), xlabel="F1")
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.spines["bottom"].set_bounds(0, 1)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    legend_below(axes)
    part = "" if len(shown) == len(rows) else f"; the {len(shown)} of {len(rows):,} classes with the lowest F1"
    caption = "Bars: test rows, their number in brackets. Diamonds: validation rows, on which the weights were chosen."
    return ReportFigure("f1_by_class", "F1 by class", f"{tables.test_rows:,} test rows{part}", caption, figure)


def radar(tables: RunTables) -> ReportFigure | None:
    """Several scores at once, each so that 1 is best."""
    if tables.result is None:
        return None
    test = spokes(tables.result.scores, tables.classes)
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    axes = figure.add_subplot(projection="polar")
    axes.set_theta_offset(np.pi / 2)  # type: ignore[attr-defined]
    axes.set_theta_direction(-1)  # type: ignore[attr-defined]
    angles = np.linspace(0, 2 * np.pi, len(test), endpoint=False)
    around = [*angles, angles[0]]
    sets = [("test", test, BLUE, "-", "o")]
    if tables.result.validation:
        sets.append(("validation", spokes(tables.result.validation, tables.classes), VERMILLION, "--", "s"))
    for label, values, colour, line, marker in sets:
        heights = [*values.values(), next(iter(values.values()))]
        axes.plot(around, heights, color=colour, linestyle=line, marker=marker, markersize=3.5, label=label)
        if label == "test":
            axes.fill(around, heights, color=colour, alpha=0.12)
    axes.set_xticks(angles, [f"{name}\n{value:.3f}" for name, value in test.items()], fontsize=8)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "0.5", "", "1"], fontsize=7)
    for text, angle in zip(axes.get_xticklabels(), angles, strict=True):
        side = round(float(np.sin(angle)), 3)
        text.set_horizontalalignment("center" if side == 0 else "left" if side > 0 else "right")
    axes.tick_params(axis="x", pad=3)
    axes.spines["polar"].set_color(GRID)
    figure.legend(loc="outside lower center", ncols=2)
    rows = f"{tables.test_rows:,} test rows" + (f", {tables.validation_rows:,} validation rows" if len(sets) > 1 else "")
    caption = "Every spoke runs from 0 to 1, and outward is better; the numbers are the test rows'."
    return ReportFigure("radar", "Scores at a glance", rows, caption, figure)


def spokes(scores: Mapping[str, float], classes: Sequence[str]) -> dict[str, float]:
    """Return the scores of the radar: 1 is the best of each, 0 the worst, or no better than chance."""
    mean = {kind: float(np.mean([scores[f"{kind}:{name}"] for name in classes])) for kind in ("precision", "recall")}
    found = {
        "accuracy": scores["accuracy"],
        "macro F1": scores["macro_f1"],
        "recall": mean["recall"],
        "precision": mean["precision"],
    }
    for label, name, best in (
        ("MCC", "mcc", None),
        ("kappa", "kappa", None),
        ("1 − ECE", "ece", 1.0),
        ("1 − Brier/2", "brier", 2.0),
    ):
        if name in scores:
            found[label] = max(0.0, scores[name]) if best is None else 1 - scores[name] / best
    return found


def reliability(tables: RunTables) -> ReportFigure | None:
    """Accuracy by confidence, before and after the temperature (Guo et al. 2017)."""
    found = tables.predictions
    if found is None or not found.rows:
        return None
    temperature = tables.result.temperature if tables.result else None
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", label="as sure as right")
    sets: list[tuple[str, Sequence[CalibrationBin], str, str, str]] = []
    if temperature and found.before:
        sets.append(("before", found.before, VERMILLION, "--", "s"))
    sets.append((f"after, temperature {temperature:.2f}" if temperature else "test", found.after, BLUE, "-", "o"))
    for label, bins, colour, line, marker in sets:
        x, y = [b.confidence for b in bins], [b.accuracy for b in bins]
        axes.plot(x, y, color=colour, linestyle=line, linewidth=1.3, label=label, marker=marker, markersize=3)
        areas = [10 + 90 * b.rows / max(each.rows for each in bins) for b in bins]
        axes.scatter(x, y, areas, color=colour, marker=marker, alpha=0.55, linewidths=0)
        edges = [bins[0].low, *(b.high for b in bins)] if len(bins) == _span(bins) else None
        if edges:
            below.stairs([b.rows for b in bins], edges, color=colour, linestyle=line, linewidth=1.3)
        else:
            for b in bins:
                below.stairs([b.rows], [b.low, b.high], color=colour, linestyle=line, linewidth=1.3)
    left = min(b.low for _, bins, *_ in sets for b in bins)
    axes.set(ylim=(-0.07, 1.07), xlim=(left, 1.01), ylabel="share right")
    below.set(xlabel="confidence", ylabel="rows")
    below.locator_params(axis="y", nbins=3)
    axes.legend(loc="best")
    caption = (
        "On the dotted line a classifier is as often right as it says; below it, it is too sure of itself. "
        "Larger marks stand for more rows; small ones jump about."
    )
    return ReportFigure("reliability", "Reliability", f"{found.rows:,} test rows", caption, figure)


def _most_wrong(found: PredictionSummary) -> list[int]:
    """The numbers of the classes to be shown, in order: all, or those with the most mistakes, made or suffered."""
    if len(found.classes) <= MOST_CLASSES:
        return list(range(len(found.classes)))
    wrong = found.confusion.sum(axis=0) + found.confusion.sum(axis=1) - 2 * found.confusion.diagonal()
    return sorted(np.argsort(-wrong, kind="stable")[:MOST_CLASSES].tolist())


def _span(bins: Sequence[CalibrationBin]) -> int:
    """Bins between the first and the last, empty ones too."""
    return round((bins[-1].high - bins[0].low) / (bins[0].high - bins[0].low))


def _count(value: int) -> str:
    """A count in at most four characters."""
    return str(value) if value < 10_000 else f"{value / 1000:.0f}k"
