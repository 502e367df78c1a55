"""Figures of the training: what was minimised, what was scored on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from loralab.report.figures.ink import BLUE, GREEN, HEIGHT, INK, VERMILLION, WIDTH, ReportFigure, legend_below
from loralab.report.tables import LABELS, OVERALL, RunTables, thin

MOST_POINTS = 300


def learning_curve(tables: RunTables) -> ReportFigure | None:
    """Training loss of every step, and its running mean."""
    steps = thin(tables.steps, MOST_POINTS)
    if not steps:
        return None
    figure, axes = _one()
    x, losses = [step.step for step in steps], [step.loss for step in steps]
    window = max(1, len(steps) // 12)
    sums = np.cumsum([0.0, *losses])
    smooth = [(sums[i + 1] - sums[max(0, i + 1 - window)]) / min(i + 1, window) for i in range(len(losses))]
    axes.plot(x, losses, color=BLUE, alpha=0.4, linewidth=1.0, label="step")
    axes.plot(x, smooth, color=BLUE, label="running mean")
    _mark_best(axes, tables)
    axes.set(xlabel="step", ylabel="training loss")
    _finish(axes)
    each = tables.steps[-1].step / len(steps)
    group = "" if each <= 1 else f", each point the mean of about {each:.0f}"
    caption = f"What training minimised{_penalties(tables)}. The bold line is the mean of the last {window * each:.0f} steps."
    return ReportFigure("learning_curve", "Learning curve", f"{len(tables.steps):,} steps{group}", caption, figure)


def losses(tables: RunTables) -> ReportFigure | None:
    """Training and validation loss at every evaluation."""
    rows = tables.evaluations
    if not rows:
        return None
    figure, axes = _one()
    trained = [(row.step, row.train_loss) for row in rows if row.train_loss is not None]
    axes.plot([x for x, _ in trained], [y for _, y in trained], color=BLUE, marker="o", label="training")
    style: dict[str, Any] = {"color": VERMILLION, "marker": "s", "linestyle": "--"}
    axes.plot([row.step for row in rows], [row.scores["loss"] for row in rows], label="validation", **style)
    _mark_best(axes, tables)
    axes.set(xlabel="step", ylabel="loss")
    _finish(axes)
    caption = (
        f"Training: what was minimised{_penalties(tables)}, mean since the evaluation before. "
        "Validation: plain cross entropy, without dropout. Apart from that, a widening gap means overfitting."
    )
    return ReportFigure("loss", "Training and validation loss", _evaluations(tables), caption, figure)


def accuracy_trend(tables: RunTables) -> ReportFigure | None:
    """Validation accuracy and macro F1 by step; the test accuracy with its interval at the step whose weights were kept."""
    rows = tables.evaluations
    if not rows:
        return None
    figure, axes = _one()
    x = [row.step for row in rows]
    axes.plot(x, [row.scores["accuracy"] for row in rows], color=BLUE, marker="o", label="validation accuracy")
    f1: dict[str, Any] = {"color": GREEN, "marker": "^", "linestyle": "--"}
    axes.plot(x, [row.scores["macro_f1"] for row in rows], label="validation macro F1", **f1)
    _mark_best(axes, tables)
    caption = "Scores on the validation rows."
    if tables.result and tables.test_rows:
        low, high = tables.interval()
        accuracy = tables.result.scores["accuracy"]
        reach = [[max(0.0, accuracy - low)], [max(0.0, high - accuracy)]]
        bar: dict[str, Any] = {"color": VERMILLION, "fmt": "D", "capsize": 3, "markersize": 5}
        axes.errorbar([tables.result.best_step], [accuracy], yerr=reach, label="test accuracy, 95 %", zorder=3, **bar)
        caption = (
            f"Scores on the validation rows; the diamond is the accuracy on {tables.test_rows:,} test rows with its 95 % interval."
        )
    axes.set(xlabel="step", ylabel="score")
    _finish(axes)
    return ReportFigure("accuracy", "Accuracy by step", _evaluations(tables), caption, figure)


def all_metrics(tables: RunTables) -> ReportFigure | None:
    """Every validation score in a panel of its own, with the learning rate."""
    rows = tables.evaluations
    if not rows or not tables.steps:
        return None
    names = [name for name in OVERALL if name in rows[0].scores]
    count = len(names) + 1
    figure = Figure(figsize=(WIDTH, 0.35 + 1.3 * ((count + 1) // 2)), layout="constrained")
    panels = figure.subplots((count + 1) // 2, 2, sharex=True, squeeze=False).flat
    for panel, name in zip(panels, names, strict=False):
        panel.plot([row.step for row in rows], [row.scores[name] for row in rows], color=BLUE, marker="o", markersize=3)
        panel.set_title(LABELS[name], fontsize=8.5, loc="left")
    steps = thin(tables.steps, MOST_POINTS)
    rate = panels[len(names)]
    rate.plot([step.step for step in steps], [step.learning_rate for step in steps], color=VERMILLION)
    rate.set_title("Learning rate", fontsize=8.5, loc="left")
    for i, panel in enumerate(panels):
        panel.set_visible(i < count)
        panel.tick_params(labelsize=7.5, labelbottom=i >= count - 2)
        panel.locator_params(axis="y", nbins=4)
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.supxlabel("step", fontsize=8.5)
    caption = (
        "Each score on a scale of its own. Loss, calibration error and Brier score are better when lower, the others when higher."
    )
    return ReportFigure("all_metrics", "All validation scores and the learning rate", _evaluations(tables), caption, figure)


def _one() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    return figure, figure.subplots()


def _finish(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6))  # not as many as fit, which the layout would find out too late
    axes.margins(x=0.03, y=0.08)
    legend_below(axes)


def _mark_best(axes: Axes, tables: RunTables) -> None:
    """A line at the step whose weights were kept."""
    best = tables.result.best_step if tables.result else max((row.step for row in tables.evaluations if row.improved), default=None)
    if best:
        axes.axvline(best, color=INK, linewidth=0.9, linestyle=":", label="weights kept")


def _penalties(tables: RunTables) -> str:
    """What makes the training loss another than plain cross entropy."""
    train = tables.config.train
    said = [f"label smoothing {train.label_smoothing:g}"] if train.label_smoothing else []
    said += ["class weights"] if train.class_weights else []
    said += [f"focal gamma {train.focal_gamma:g}"] if train.focal_gamma else []
    return f" (with {', '.join(said)})" if said else ""


def _evaluations(tables: RunTables) -> str:
    count = len(tables.evaluations)
    return f"{count:,} evaluation{'s' if count > 1 else ''} on {tables.validation_rows:,} validation rows"
