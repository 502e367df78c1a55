"""Figures of a search, from its search.json: history, importance, slices, parallel coordinates, Pareto front."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from loralab.errors import LoralabError
from loralab.report.figures import style
from loralab.report.figures.style import BLUE, VERMILLION, WIDTH, Caption, ReportFigure, StyledFigure, single_axes
from loralab.report.formatting import shorten
from loralab.report.run_data import SCORE_LABELS
from loralab.storage.experiment_folder import SEARCH_RESULTS, read_search

SearchResults = Mapping[str, Any]
"""The contents of search.json."""
SHADES = LinearSegmentedColormap.from_list("worse to better", [style.GRID, BLUE])
MAX_NAME = 22


def read_search_results(folder: Path) -> dict[str, Any]:
    """Read a search's results. Raises LoralabError for a missing or damaged file."""
    results = read_search(folder)
    if missing := {"objectives", "minimised", "axes", "best", "importance", "trials"} - set(results):
        raise LoralabError(f"{folder / SEARCH_RESULTS} lacks {', '.join(sorted(missing))}: run the search again")
    return results


def draw_search_figures(results: SearchResults) -> list[ReportFigure]:
    """Draw every figure that the search has trials for."""
    figures = (search_history, setting_importance, score_by_setting, parallel_coordinates, pareto_front)
    with style.figure_style():
        return [drawing for draw in figures if (drawing := draw(results)) is not None]


def search_history(results: SearchResults) -> ReportFigure | None:
    """The first objective of every trial in the order of sampling, and the best so far."""
    trials = complete_trials(results)
    if not trials:
        return None
    figure, axes = single_axes()
    numbers, values = [trial["number"] for trial in trials], [trial["values"][0] for trial in trials]
    axes.plot(numbers, values, "o", color=BLUE, alpha=0.75, label="complete")
    pruned = [trial for trial in results["trials"] if trial["state"] == "pruned" and trial["evaluations"]]
    if pruned and len(results["objectives"]) == 1:
        last_scores = [trial["evaluations"][-1][1] for trial in pruned]
        axes.plot([trial["number"] for trial in pruned], last_scores, "x", color=VERMILLION, label="pruned, last score")
    best = best_so_far(values, results["minimised"][0])
    last = results["trials"][-1]["number"]
    axes.step([*numbers, last], [*best, best[-1]], color=style.GREEN, where="post", label="best so far")
    axes.set(xlabel="trial", ylabel=objective_label(results["objectives"][0]))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _finish(axes, 0)
    text = "Every trial by its score on the validation rows. A long plateau means that more trials would add little."
    return ReportFigure(Caption("search_history", "Search history", trial_counts(results), text), figure)


def setting_importance(results: SearchResults) -> ReportFigure | None:
    """The share of each objective's variance that a setting explains; None where no share exceeds those of shuffled scores."""
    importance = {
        name: measured for name, measured in results["importance"].items() if max(measured["shares"].values()) > measured["noise"]
    }
    if not importance:
        return None
    first = next(iter(importance.values()))["shares"]
    names = sorted(first, key=lambda name: -first[name])
    height = 0.7 / len(importance)
    figure, axes = single_axes(1.1 + 0.34 * len(names))
    for i, (objective, measured) in enumerate(importance.items()):
        y = np.arange(len(names)) + (i - (len(importance) - 1) / 2) * height
        color, shares = (BLUE, VERMILLION)[i], [measured["shares"][name] for name in names]
        bars = axes.barh(y, shares, height * 0.92, color=color, alpha=0.9, label=objective_label(objective))
        axes.axvline(measured["noise"], color=color, linewidth=1, linestyle="--")
        for bar, bar_y, share in zip(bars, y, shares, strict=True):
            bar.set_alpha(0.9 if share > measured["noise"] else 0.25)
            axes.annotate(f"{share:.0%}", (share + 0.015, bar_y), va="center", fontsize=8)
    style.label_rows(axes, [shorten(name, MAX_NAME) for name in names])
    axes.set(xlim=(0, 1.12), xlabel="share of the variance")
    style.legend_below(axes)
    text = (
        "fANOVA over the complete trials: the share of the score's variance that each setting explains. Dashed: the largest share "
        "in 19 shuffles of the scores. Pale: not more than that."
    )
    return ReportFigure(Caption("search_importance", "Setting importance", trial_counts(results), text), figure)


def score_by_setting(results: SearchResults) -> ReportFigure | None:
    """The first objective by each setting."""
    trials = complete_trials(results)
    if not trials:
        return None
    settings = results["axes"]
    figure = StyledFigure(figsize=(WIDTH, 0.3 + 1.75 * ((len(settings) + 1) // 2)), layout="constrained")
    panels = list(figure.subplots((len(settings) + 1) // 2, 2, sharey=True, squeeze=False).flat)
    values = [trial["values"][0] for trial in trials]
    best = next((i for i, trial in enumerate(trials) if trial["number"] == results["best"][0]), 0)
    ties = len(results["objectives"]) == 1 and len(results["best"]) > 1
    for panel, setting in zip(panels, settings, strict=False):
        x, ticks = setting_positions(setting, [trial["points"][setting["name"]] for trial in trials])
        panel.plot(x, values, "o", color=BLUE, alpha=0.7, markersize=3.5)
        panel.plot(x[best], values[best], "D", color=VERMILLION, markersize=5)
        panel.set_title(shorten(setting["name"], MAX_NAME), fontsize=8.5, loc="left")
        _scale_x(panel, setting, ticks)
        panel.tick_params(labelsize=7.5)
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.margins(x=0.12, y=0.1)
    for panel in panels[len(settings) :]:
        panel.set_visible(False)
    figure.supylabel(objective_label(results["objectives"][0]), fontsize=8.5)
    text = "Every complete trial by each setting; the diamond is the best."
    text += f" {len(results['best'])} trials tie." if ties else " If it lies at the edge of a range, widen the range."
    return ReportFigure(Caption("search_slices", "Score by setting", trial_counts(results), text), figure)


def parallel_coordinates(results: SearchResults) -> ReportFigure | None:
    """Every complete trial as a line through its settings, darker where it is better."""
    trials, settings = complete_trials(results), results["axes"]
    if len(trials) < 2:
        return None
    values = np.array([trial["values"][0] for trial in trials])
    is_best = np.array([trial["number"] == results["best"][0] for trial in trials])
    worst_first = np.lexsort((is_best, -values if results["minimised"][0] else values))
    goodness = np.empty(len(values))
    goodness[worst_first] = np.linspace(0, 1, len(values)) ** 2  # by rank: one very bad trial would make all others look alike
    columns = [setting_positions(setting, [trial["points"][setting["name"]] for trial in trials]) for setting in settings]
    figure, axes = single_axes(3.4, max(WIDTH, 1.15 * (len(settings) + 1)))
    note: dict[str, Any] = {"xytext": (3, 0), "textcoords": "offset points", "fontsize": 7.5, "va": "center"}
    background: dict[str, Any] = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6}
    heights = []
    for i, ((x, ticks), setting) in enumerate(zip(columns, settings, strict=True)):
        height, marks = _unit_positions(x, ticks, setting)
        heights.append(height)
        for y, text in marks:
            axes.annotate(text, (i, y), zorder=4, bbox=background, **note)
    span = values.max() - values.min()
    heights.append((values - values.min()) / (span or 1.0))
    for y, value in ((0.0, values.min()), (1.0, values.max())) if span else ((0.0, values.min()),):
        axes.annotate(f"{value:.4g}", (len(settings), y), **note)
    lines = np.array(heights).T
    for i in worst_first:
        best = i == worst_first[-1]
        axes.plot(lines[i], color=VERMILLION if best else SHADES(float(goodness[i])), linewidth=1.8 if best else 1.0)
    names = [*(setting["name"].rpartition(".")[2] for setting in settings), objective_label(results["objectives"][0])]
    labels = [shorten(name, 14) for name in names]
    axes.set_xticks(range(len(names)), labels, fontsize=8, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(names) - 0.55)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(visible=True, axis="x", color=style.INK, linewidth=0.6)
    ties = f" ({len(results['best'])} tie)" if len(results["objectives"]) == 1 and len(results["best"]) > 1 else ""
    text = f"Each line is a complete trial: bluer is better, orange is the best{ties}."
    return ReportFigure(Caption("search_parallel", "Parallel coordinates", trial_counts(results), text), figure)


def pareto_front(results: SearchResults) -> ReportFigure | None:
    """Two objectives against each other, with the trials that no other trial beats in both."""
    trials = complete_trials(results)
    if len(results["objectives"]) < 2 or not trials:
        return None
    figure, axes = single_axes()
    first, second = results["objectives"]
    x, y = [trial["values"][1] for trial in trials], [trial["values"][0] for trial in trials]
    axes.plot(x, y, "o", color=BLUE, alpha=0.5, label="trial")
    front = sorted((*reversed(trial["values"]), trial["number"]) for trial in trials if trial["number"] in results["best"])
    line: dict[str, Any] = {"color": VERMILLION, "linewidth": 1.2, "drawstyle": "steps-post"}
    axes.plot([x for x, _, _ in front], [y for _, y, _ in front], "D--", label="Pareto front, with trial numbers", **line)
    for front_x, front_y, number in front:
        axes.annotate(str(number), (front_x, front_y), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set(xlabel=objective_label(second), ylabel=objective_label(first))
    if second == "trainable":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value / 1000:,.0f}k"))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    _finish(axes, 0.06)
    text = f"No other trial beats a trial on the front in both {objective_label(first)} and {objective_label(second)}."
    return ReportFigure(Caption("search_pareto", "Pareto front", trial_counts(results), text), figure)


def complete_trials(results: SearchResults) -> list[dict[str, Any]]:
    """Return the trials with values."""
    return [trial for trial in results["trials"] if trial["values"]]


def best_so_far(values: Sequence[float], lower_is_better: bool) -> list[float]:
    """Return the running best."""
    return [float(value) for value in (np.minimum if lower_is_better else np.maximum).accumulate(values)]


def setting_positions(setting: Mapping[str, Any], points: Sequence[str]) -> tuple[list[float], list[str]]:
    """Return where points lie on a setting's axis, and its ticks: a range has its numbers and no ticks, choices their order."""
    if setting["choices"]:
        numeric = all(re.fullmatch(r"[-+]?\d*\.?\d+(e[-+]?\d+)?r?", choice, re.IGNORECASE) for choice in setting["choices"])
        order = sorted(setting["choices"], key=_to_number) if numeric else list(setting["choices"])
        return [float(order.index(point)) for point in points], order
    return [_to_number(point) for point in points], []


def objective_label(objective: str) -> str:
    """Return an objective's name for an axis."""
    costs = {"trainable": "Trainable parameters", "seconds": "Seconds"}
    return {**SCORE_LABELS, **costs}.get(objective, shorten(objective, MAX_NAME))


def trial_counts(results: SearchResults) -> str:
    """Return the number of trials in each state as text."""
    states = [trial["state"] for trial in results["trials"]]
    labels = {"complete": "complete", "pruned": "pruned", "failed": "failed", "rejected": "over budget"}
    return ", ".join(f"{states.count(state):,} {label}" for state, label in labels.items() if state in states) + " trials"


def _unit_positions(x: Sequence[float], ticks: Sequence[str], setting: Mapping[str, Any]) -> tuple[Any, list[tuple[float, str]]]:
    """Scale positions to 0..1 and return them with the marks (position, text) of the axis."""
    values = np.log10(x) if setting["log"] else np.asarray(x, dtype=float)
    if ticks:
        last = max(len(ticks) - 1, 1)
        return values / last, [(i / last, shorten(text, 12)) for i, text in enumerate(ticks)]
    span = float(values.max() - values.min())
    ends = [(0.0, min(x)), (1.0, max(x))] if span else [(0.0, min(x))]
    return (values - values.min()) / (span or 1.0), [(position, f"{value:.3g}") for position, value in ends]


def _scale_x(panel: Axes, setting: Mapping[str, Any], ticks: Sequence[str]) -> None:
    if ticks:
        rotation: dict[str, Any] = {} if sum(map(len, ticks)) < 22 else {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
        panel.set_xticks(range(len(ticks)), [shorten(text, 14) for text in ticks], **rotation)
    elif setting["log"]:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(numticks=4))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
        panel.minorticks_off()
    else:
        panel.xaxis.set_major_locator(MaxNLocator(4))


def _finish(axes: Axes, margin: float) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.margins(x=0.04 + margin, y=0.08 + margin)
    style.legend_below(axes)


def _to_number(text: str) -> float:
    """Read a number, also as a multiple of the rank such as 2r."""
    return float(text.rstrip("r"))
