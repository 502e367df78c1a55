"""Figures of a run: its test results, then its training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from loralab.report.figures import style
from loralab.report.figures.style import BLUE, HEIGHT, INK, VERMILLION, WIDTH, Caption, ReportFigure, StyledFigure, single_axes
from loralab.report.formatting import shorten
from loralab.report.predictions import PredictionSummary
from loralab.report.run_data import SCORE_LABELS, RunData, thin_steps

MAX_CLASSES, MAX_NAME, MAX_POINTS = 40, 22, 300
MAX_CURVES = 6
"""The most classes with a curve of their own."""


def draw_run_figures(run: RunData) -> list[ReportFigure]:
    """Draw every figure that the run has data for, in the order of the page."""
    test = (confusion_matrix, f1_by_class, reliability_diagram)
    training = (learning_curve, loss_curves, accuracy_curves, tracked_curves, class_f1_curves, score_curves)
    with style.figure_style():
        return [drawing for draw in (*test, *training) if (drawing := draw(run)) is not None]


def confusion_matrix(run: RunData) -> ReportFigure | None:
    """Test rows by true and predicted class."""
    summary = run.predictions
    if summary is None:
        return None
    keep = _most_confused_classes(summary)
    matrix = summary.confusion[np.ix_(keep, keep)]
    share = matrix / np.maximum(summary.confusion.sum(axis=1)[keep, None], 1)
    labels = [shorten(summary.classes[i], MAX_NAME) for i in keep]
    n, longest = len(keep), max(len(label) for label in labels)
    label_width = 0.075 * longest + 0.5
    side = max(WIDTH - label_width, 0.3 * n)
    size = 9.0 if n <= 12 else 7.0
    figure, axes = single_axes(min(side, 0.62 * n + 0.6) + label_width * 0.8, side + label_width)
    for i, j in np.argwhere(matrix):
        color, power, weight = (style.CORRECT_FILL, 1.0, "bold") if i == j else (style.WRONG_FILL, 0.5, None)
        shade: dict[str, Any] = {"facecolor": color, "alpha": 0.12 + 0.6 * float(share[i, j]) ** power, "linewidth": 0}
        axes.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, clip_on=False, **shade))
        count = str(matrix[i, j]) if matrix[i, j] < 10_000 else f"{matrix[i, j] / 1000:.0f}k"
        axes.text(j, i, count, ha="center", va="center", fontsize=size, fontweight=weight)
    horizontal = n * longest * size * 0.62 < side * 72
    rotation: dict[str, Any] = {"ha": "right", "va": "top" if n <= 12 else "center", "rotation_mode": "anchor"}
    rotation = {} if horizontal else {"rotation": 45 if n <= 12 else 90, **rotation}
    axes.set_xticks(range(n), labels, fontsize=size, **rotation)
    axes.set_yticks(range(n), labels, fontsize=size)
    axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), xlabel="predicted", ylabel="true")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    subset = "" if n == len(summary.classes) else f", the {n} of {len(summary.classes):,} classes with the most errors"
    text = "Number of rows: blue is correct, orange is wrong. Darker shades are a larger share of the true class."
    return ReportFigure(Caption("confusion", "Confusion matrix", f"{summary.rows:,} test rows{subset}", text), figure)


def f1_by_class(run: RunData) -> ReportFigure | None:
    """F1 of each class on the test rows and on the validation rows."""
    rows = run.per_class()
    if not rows or run.result is None:
        return None
    scored = sorted((row for row in rows if row["f1"] is not None), key=lambda row: row["f1"])
    shown = sorted(scored[:MAX_CLASSES], key=lambda row: run.classes.index(row["class"]))
    figure, axes = single_axes(0.95 + max(0.24 * len(shown), 0.9))
    y = range(len(shown))
    axes.barh(y, [row["f1"] for row in shown], color=BLUE, height=0.62, label="test", alpha=0.9)
    validation = [run.result.validation.get(f"f1:{row['class']}", np.nan) for row in shown]
    if not np.isnan(validation).all():
        axes.plot(validation, y, "D", color=VERMILLION, markersize=4, label="validation", linestyle="none")
    for i, row in enumerate(shown):
        axes.annotate(f"{row['f1']:.3f}", (1.045, i), va="center", fontsize=8, annotation_clip=False)
    style.label_rows(axes, [f"{shorten(row['class'], MAX_NAME)} ({row['true']:,.0f})" for row in shown])
    axes.set(xlim=(0, 1.17), xlabel="F1")
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.spines["bottom"].set_bounds(0, 1)
    style.legend_below(axes)
    subset = "" if len(shown) == len(scored) else f"; the {len(shown)} of {len(scored):,} classes with the lowest F1"
    subset += "" if len(scored) == len(rows) else f"; without the {len(rows) - len(scored):,} classes that have no test row"
    text = "Bars: test rows, with their number in brackets. Diamonds: validation rows, which chose the best weights."
    return ReportFigure(Caption("f1_by_class", "F1 by class", f"{run.test_rows:,} test rows{subset}", text), figure)


def reliability_diagram(run: RunData) -> ReportFigure | None:
    """Accuracy by confidence, with and without the temperature (Guo et al. 2017)."""
    summary = run.predictions
    if summary is None or not summary.rows:
        return None
    temperature = run.result.temperature if run.result else None
    figure = StyledFigure(figsize=(WIDTH, 3.9), layout="constrained")
    axes, histogram = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", label="perfect calibration")
    label = f"with temperature {temperature:.2f}" if temperature else "test"
    series = [(label, summary.calibrated, BLUE, "-", "o")]
    if temperature and summary.uncalibrated:
        series.insert(0, ("without temperature", summary.uncalibrated, VERMILLION, "--", "s"))
    for label, bins, color, line, marker in series:
        x, y = [b.confidence for b in bins], [b.accuracy for b in bins]
        axes.plot(x, y, color=color, linestyle=line, linewidth=1.3, label=label, marker=marker, markersize=3)
        most = max(b.rows for b in bins)
        axes.scatter(x, y, [10 + 90 * b.rows / most for b in bins], color=color, marker=marker, alpha=0.55, linewidths=0)
        without_gaps = len(bins) == round((bins[-1].high - bins[0].low) / (bins[0].high - bins[0].low))  # no empty bin between
        for group in [bins] if without_gaps else [[b] for b in bins]:
            edges = [group[0].low, *(b.high for b in group)]
            histogram.stairs([b.rows for b in group], edges, color=color, linestyle=line, linewidth=1.3)
    left = min(b.low for _, bins, *_ in series for b in bins)
    axes.set(ylim=(-0.07, 1.07), xlim=(left, 1.01), ylabel="accuracy")
    histogram.set(xlabel="confidence", ylabel="rows")
    histogram.locator_params(axis="y", nbins=3)
    axes.legend(loc="best")
    text = (
        "Each marker is a group of rows with similar confidence; small markers have few rows and are noisy. On the diagonal, "
        "confidence equals accuracy; below it the model is overconfident, above it underconfident."
    )
    return ReportFigure(Caption("reliability", "Reliability diagram", f"{summary.rows:,} test rows", text), figure)


def learning_curve(run: RunData) -> ReportFigure | None:
    """Training loss of every step, and its running mean."""
    steps = thin_steps(run.steps, MAX_POINTS)
    if not steps:
        return None
    figure, axes = single_axes()
    x, losses = [step.step for step in steps], [step.loss for step in steps]
    window = max(1, len(steps) // 12)
    sums = np.cumsum([0.0, *losses])
    smooth = [(sums[i + 1] - sums[max(0, i + 1 - window)]) / min(i + 1, window) for i in range(len(losses))]
    axes.plot(x, losses, color=BLUE, alpha=0.4, linewidth=1.0, label="step")
    axes.plot(x, smooth, color=BLUE, label="running mean")
    _finish_curves(axes, run, "training loss")
    per_point = run.steps[-1].step / len(steps)
    group = "" if per_point <= 1 else f", each point the mean of about {per_point:.0f}"
    smoothing = f" The bold line is the mean of the last {window * per_point:.0f} steps." if window * per_point > 1 else ""
    text = f"Loss on the rows of each training step{_penalties(run)}.{smoothing}"
    return ReportFigure(Caption("learning_curve", "Learning curve", f"{len(run.steps):,} steps{group}", text), figure)


def loss_curves(run: RunData) -> ReportFigure | None:
    """Training and validation loss at every evaluation."""
    rows = run.evaluations
    if not rows:
        return None
    figure, axes = single_axes()
    trained = [(row.step, row.train_loss) for row in rows if row.train_loss is not None]
    axes.plot([x for x, _ in trained], [y for _, y in trained], "o-", color=BLUE, label="training")
    label = "validation (monitored)" if run.monitor == "loss" else "validation"
    axes.plot([row.step for row in rows], [row.scores["loss"] for row in rows], "s--", color=VERMILLION, label=label)
    _finish_curves(axes, run, "loss")
    text = (
        f"Training: mean since the previous evaluation, with dropout{_penalties(run)}. Validation: cross entropy, without "
        "dropout. A validation loss that rises while the training loss falls suggests overfitting."
    )
    return ReportFigure(Caption("loss", "Training and validation loss", _evaluation_count(run), text), figure)


def accuracy_curves(run: RunData) -> ReportFigure | None:
    """Validation accuracy and macro F1 by step, and the test accuracy with its interval at the best step."""
    rows = run.evaluations
    if not rows:
        return None
    figure, axes = single_axes()
    x = [row.step for row in rows]
    axes.plot(x, [row.scores["accuracy"] for row in rows], "o-", color=BLUE, label="validation accuracy")
    axes.plot(x, [row.scores["macro_f1"] for row in rows], "^--", color=style.GREEN, label="validation macro F1")
    text = "Scores on the validation rows."
    if run.result and run.test_rows:
        interval, accuracy = run.accuracy_interval(), run.result.scores["accuracy"]
        reach = [[max(0.0, accuracy - interval.low)], [max(0.0, interval.high - accuracy)]]
        bar: dict[str, Any] = {"color": VERMILLION, "fmt": "D", "capsize": 3, "markersize": 5}
        axes.errorbar([run.result.best_step], [accuracy], yerr=reach, label="test accuracy, 95 % CI", zorder=3, **bar)
        text += f" The diamond is the accuracy on {run.test_rows:,} test rows, with its 95 % confidence interval (CI)."
    _finish_curves(axes, run, "score")
    return ReportFigure(Caption("accuracy", "Accuracy by step", _evaluation_count(run), text), figure)


def tracked_curves(run: RunData) -> ReportFigure | None:
    """The monitored and tracked scores by step, a panel each. A monitored loss alone is in the figure of the losses."""
    names = [name for name in run.tracked if any(name in row.scores for row in run.evaluations)]
    if not names or names == ["loss"]:
        return None
    columns = min(2, len(names))
    lines = math.ceil(len(names) / columns)
    figure = StyledFigure(figsize=(WIDTH, max(2.2, 0.5 + 1.45 * lines)), layout="constrained")
    panels = list(figure.subplots(lines, columns, sharex=True, squeeze=False).flat)
    best = _best_step(run)
    for panel, name in zip(panels, names, strict=False):
        rows = [row for row in run.evaluations if name in row.scores]
        panel.plot([row.step for row in rows], [row.scores[name] for row in rows], "o-", color=BLUE, markersize=3)
        if best:
            panel.axvline(best, color=INK, linewidth=0.9, linestyle=":")
        if run.result and name in run.result.scores:
            panel.plot([run.result.best_step], [run.result.scores[name]], "D", color=VERMILLION, markersize=4, zorder=3)
        monitored = " (monitored)" if name == run.monitor else ""
        panel.set_title(shorten(name, 46 // columns - len(monitored)) + monitored, fontsize=8.5, loc="left")
    _finish_panels(figure, panels, len(names), columns)
    text = "Circles: validation rows. Dotted line: the best weights. Diamond: their score on the test rows."
    return ReportFigure(Caption("tracked", "Monitored and tracked scores by step", _evaluation_count(run), text), figure)


def class_f1_curves(run: RunData) -> ReportFigure | None:
    """Validation F1 of each class by step."""
    if not run.evaluations:
        return None
    last = run.evaluations[-1].scores
    scored = [name for name in run.classes if f"f1:{name}" in last]
    if not scored:
        return None
    shown = sorted(sorted(scored, key=lambda name: last[f"f1:{name}"])[:MAX_CURVES], key=run.classes.index)
    figure, axes = single_axes(HEIGHT + 0.12 * len(shown))
    for i, name in enumerate(shown):
        rows = [row for row in run.evaluations if f"f1:{name}" in row.scores]
        form: dict[str, Any] = {
            "color": style.COLORS[i],
            "marker": style.MARKERS[i],
            "linestyle": style.DASHES[i],
            "markersize": 3.5,
        }
        axes.plot([row.step for row in rows], [row.scores[f"f1:{name}"] for row in rows], label=shorten(name, MAX_NAME), **form)
    _finish_curves(axes, run, "F1")
    subset = "" if len(shown) == len(scored) else f"; the {len(shown)} of {len(scored):,} classes with the lowest F1 at the end"
    text = "F1 of each class on the validation rows. Lines that move apart show that some classes gain while others lose."
    return ReportFigure(Caption("f1_by_step", "F1 by class and step", f"{_evaluation_count(run)}{subset}", text), figure)


def score_curves(run: RunData) -> ReportFigure | None:
    """Every validation score in its own panel, and the learning rate."""
    rows = run.evaluations
    if not rows or not run.steps:
        return None
    names = [name for name in SCORE_LABELS if name in rows[0].scores]
    count = len(names) + 1
    figure = StyledFigure(figsize=(WIDTH, 0.35 + 1.3 * ((count + 1) // 2)), layout="constrained")
    panels = list(figure.subplots((count + 1) // 2, 2, sharex=True, squeeze=False).flat)
    for panel, name in zip(panels, names, strict=False):
        panel.plot([row.step for row in rows], [row.scores[name] for row in rows], color=BLUE, marker="o", markersize=3)
        panel.set_title(SCORE_LABELS[name], fontsize=8.5, loc="left")
    steps = thin_steps(run.steps, MAX_POINTS)
    rate = panels[len(names)]
    rate.plot([step.step for step in steps], [step.learning_rate for step in steps], color=VERMILLION)
    rate.set_title("Learning rate", fontsize=8.5, loc="left")
    _finish_panels(figure, panels, count, 2)
    text = "Each score has its own scale. Lower is better for loss, calibration error and Brier score, higher for the others."
    return ReportFigure(Caption("all_metrics", "Validation scores and learning rate", _evaluation_count(run), text), figure)


def _most_confused_classes(summary: PredictionSummary) -> list[int]:
    """Return the indices of the classes to show, in order: all, or those with the most errors as true or predicted class."""
    if len(summary.classes) <= MAX_CLASSES:
        return list(range(len(summary.classes)))
    wrong = summary.confusion.sum(axis=0) + summary.confusion.sum(axis=1) - 2 * summary.confusion.diagonal()
    return sorted(np.argsort(-wrong, kind="stable")[:MAX_CLASSES].tolist())


def _finish_curves(axes: Axes, run: RunData, ylabel: str) -> None:
    """Mark the step of the best checkpoint, then add labels, ticks and the legend."""
    if best := _best_step(run):
        axes.axvline(best, color=INK, linewidth=0.9, linestyle=":", label="best weights")
    axes.set(xlabel="step", ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(
        MaxNLocator(6, steps=[1, 2, 5, 10])
    )  # the default picks more ticks than the constrained layout leaves room for
    axes.margins(x=0.03, y=0.08)
    style.legend_below(axes)


def _finish_panels(figure: Figure, panels: Sequence[Axes], count: int, columns: int) -> None:
    """Set the ticks of the first `count` panels, which share their steps, and hide the others."""
    for i, panel in enumerate(panels):
        panel.set_visible(i < count)
        panel.tick_params(labelsize=7.5, labelbottom=i >= count - columns)
        panel.locator_params(axis="y", nbins=4)
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.supxlabel("step", fontsize=8.5)


def _best_step(run: RunData) -> int | None:
    """Return the step of the best checkpoint so far; None without an evaluation."""
    return run.result.best_step if run.result else max((row.step for row in run.evaluations if row.improved), default=None)


def _penalties(run: RunData) -> str:
    """Name what makes the training loss differ from plain cross entropy."""
    train = run.config.train
    parts = [f"label smoothing {train.label_smoothing:g}"] if train.label_smoothing else []
    parts += ["class weights"] if train.class_weights else []
    parts += [f"focal gamma {train.focal_gamma:g}"] if train.focal_gamma else []
    return f" (with {', '.join(parts)})" if parts else ""


def _evaluation_count(run: RunData) -> str:
    count = len(run.evaluations)
    return f"{count:,} evaluation{'s' if count > 1 else ''} on {run.validation_rows:,} validation rows"
