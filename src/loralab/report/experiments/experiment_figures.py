"""Figures of an experiment: which configurations, along which factor, with which caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from loralab.report.experiments.analysis import ExperimentAnalysis, differing_factors, group_by_other_factors, sort_by_factor
from loralab.report.experiments.experiment_data import ACCURACY, MACRO_F1, Point, Score, validation_curves
from loralab.report.experiments.result_tables import format_point, label_legend, point_labels, short_name
from loralab.report.figures import plots
from loralab.report.figures.plots import MAX_LINES, MAX_ROWS, Panel, Series
from loralab.report.figures.radar import MAX_SERIES, radar_center, radar_plot, radar_scores
from loralab.report.figures.search_figures import draw_search_figures, read_search_results
from loralab.report.figures.style import Caption, ReportFigure
from loralab.report.figures.surfaces import heat_map, power_law_plot, surface_plot
from loralab.report.formatting import capitalize, format_value
from loralab.storage.experiment_folder import SEARCH_RESULTS, Factor

MAX_FACTOR_FIGURES = 8
Drawings = Sequence[ReportFigure | None]


def search_figures(analysis: ExperimentAnalysis) -> Drawings:
    """What only a search has: history, importance, slices, parallel coordinates, Pareto front."""
    folder = analysis.data.folder
    return draw_search_figures(read_search_results(folder)) if (folder / SEARCH_RESULTS).is_file() else []


def score_figure(analysis: ExperimentAnalysis) -> Drawings:
    """The deciding score, macro F1 or test accuracy, and training time of every configuration."""
    points = _in_order(analysis, MAX_ROWS)
    panels = [_score_panel(points, analysis.score), _score_panel(points, MACRO_F1 if analysis.score == ACCURACY else ACCURACY)]
    seconds = _seconds_panel(analysis, points)
    panels += [seconds] if any(value >= 0.1 for values in seconds.values for value in values) else []  # zero-shot trains nothing
    text = label_legend(points) + _explain_marks(points, ACCURACY, boxes=True)
    caption = Caption("points", "Scores of each configuration", _count_runs(analysis, points), text)
    return [plots.strip_plot(caption, point_labels(points), panels)]


def cost_figure(analysis: ExperimentAnalysis) -> Drawings:
    """Accuracy, trainable parameters and training time of every configuration."""
    points = analysis.data.points
    panels = [_score_panel(points, analysis.score)]
    panels.append(Panel("trainable parameters", [p.facts("trainable") for p in points], [None] * len(points), bars=True))
    panels.append(_seconds_panel(analysis, points))
    panels = [panel for panel in panels if any(panel.values)]
    text = label_legend(points) + _explain_marks(points, analysis.score)
    caption = Caption("cost", "Accuracy and cost", _count_runs(analysis, points), text)
    return [plots.strip_plot(caption, point_labels(points), panels)]


def number_figure(analysis: ExperimentAnalysis) -> Drawings:
    """The score along the first numeric factor, one line per combination of the others."""
    factor, score = analysis.data.numeric_factor, analysis.score
    if factor is None:
        return []
    groups = group_by_other_factors(sort_by_factor(analysis.data.points, factor), factor)
    baselines = [comparison.baseline for comparison in analysis.comparisons]
    single = [points[0] for points in groups.values() if len(points) == 1 and points[0] in baselines]
    if len(single) == len(groups):
        single = []
    levels = [(format_point(dict(point.other_factors(factor))), 100 * point.mean(score)) for point in single]
    largest = sorted(groups, key=lambda others: -len(groups[others]))[:MAX_LINES]
    lines = [(others, points) for others, points in groups.items() if others in largest and points[0] not in single]
    if max(len(points) for _, points in lines) < 2:
        return []  # marks in one column show no trend
    series = [_line_along(score, factor, dict(others), points) for others, points in lines]
    title = f"{capitalize(str(score))} by {short_name(factor)}"
    points = [point for _, line_points in lines for point in line_points]
    caption = Caption("by_number", title, _count_runs(analysis, analysis.data.points), _explain_marks(points, score, lines=True))
    levels += _majority_level(analysis, series)
    return [plots.line_plot(caption, series, short_name(factor), f"{score}, %", levels=levels)]


def step_figure(analysis: ExperimentAnalysis) -> Drawings:
    """Validation accuracy by step of the best configurations."""
    points = _in_order(analysis, MAX_LINES)[:MAX_LINES]
    return [_step_plot("by_step", "Validation accuracy by step", analysis, points)]


def step_figures_by_factor(analysis: ExperimentAnalysis) -> Drawings:
    """Validation accuracy by step, one figure per factor, with each recipe's defaults in all of them."""
    defaults = [point for point in analysis.data.points if not set(point.factors) - {"recipe"}]
    figures: list[ReportFigure | None] = []
    for factor in [name for name in analysis.data.axes if name != "recipe"][:MAX_FACTOR_FIGURES]:
        points = [point for point in analysis.data.points if factor in point.factors]
        title = f"Validation accuracy by step: {short_name(factor)}"
        figures.append(_step_plot(f"by_step_{factor.replace('.', '_')}", title, analysis, [*defaults, *points]))
    return figures


def factor_pair_figures(analysis: ExperimentAnalysis) -> Drawings:
    """Two factors at once as a heat map and a surface; other factors are those of the best configuration."""
    varied = [name for name, values in analysis.data.axes.items() if len(values) > 1]
    if len(varied) < 2 or analysis.best is None:
        return []
    across, up = varied[:2]
    fixed = analysis.best.other_factors(across, up)
    xs, ys = _sorted_values(analysis.data.axes[across]), _sorted_values(analysis.data.axes[up])
    grid = np.full((len(ys), len(xs)), np.nan)
    for point in analysis.data.points:
        if point.other_factors(across, up) == fixed and across in point.factors and up in point.factors:
            grid[ys.index(point.factors[up]), xs.index(point.factors[across])] = point.mean(analysis.score)
    note = f" Other factors: {format_point(dict(fixed))}." if fixed else ""
    contents = [format_value(x) for x in xs], [format_value(y) for y in ys], grid, short_name(across), short_name(up)
    rows = _count_runs(analysis, analysis.data.points)
    title = f"{capitalize(str(analysis.score))} by {short_name(across)} and {short_name(up)}"
    frame = f"Mean {analysis.score} in %. The frame marks the highest, which may be chance: see the differences.{note}"
    diamond = f"Mean {analysis.score} in %. The diamond marks the highest.{note}"
    surface = Caption("surface", f"{title}, as a surface", rows, diamond)
    return [heat_map(Caption("heat", title, rows, frame), *contents), surface_plot(surface, *contents)]


def seed_figure(analysis: ExperimentAnalysis) -> Drawings:
    """Every seed's score across the configurations."""
    points = analysis.data.points
    scores = [point.by_seed(analysis.score) for point in points]
    shared = [seed for seed in analysis.data.seeds if all(seed in by_seed for by_seed in scores)]
    values = [[100 * by_seed[seed] for by_seed in scores] for seed in shared]
    text = "Grey: one seed across the configurations. Blue: their mean."
    caption = Caption("paired_seeds", "Scores by seed", f"{len(shared)} seeds, {len(points)} configurations", text)
    return [plots.slope_plot(caption, point_labels(points), values, f"{analysis.score}, %")]


def radar_figure(analysis: ExperimentAnalysis) -> Drawings:
    """Several test scores of two to five configurations, calibrated where the runs have a temperature."""
    points = analysis.data.points
    if not 2 <= len(points) <= MAX_SERIES:
        return []
    series = {}
    for label, point in zip(point_labels(points), points, strict=True):
        runs = [radar_scores({**t.result.scores, **t.result.calibrated}) for t in point.trials if t.result]
        series[label] = {name: float(np.mean([run[name] for run in runs])) for name in runs[0] if all(name in run for run in runs)}
    shared = [name for name in next(iter(series.values())) if all(name in values for values in series.values())]
    series = {label: {name: values[name] for name in shared} for label, values in series.items()}
    begin = f"The axes begin at {radar_center(series):g}."
    text = f"{label_legend(points)}Test rows, means over seeds; outward is better. {begin}"
    caption = Caption("radar", "Scores at a glance", _count_runs(analysis, points), text)
    return [radar_plot(caption, series)]


def time_figure(analysis: ExperimentAnalysis) -> Drawings:
    """Each run's score by its training time."""
    points = _in_order(analysis, MAX_LINES)
    groups, fact = [], analysis.data.seconds
    for label, point in zip(point_labels(points[:MAX_LINES]), points, strict=False):
        runs = [
            (t.result.facts()[fact], value) for t in point.trials if t.result and (value := t.value(analysis.score)) is not None
        ]
        groups.append((label, [x for x, _ in runs], [100 * y for _, y in runs]))
    subset = f", the {MAX_LINES} best configurations" if len(points) > MAX_LINES else ""
    rows = f"{len(analysis.data.complete)} runs{subset}"
    caption = Caption("time", "Score by training time", rows, f"{label_legend(points)}One mark per run.")
    return [plots.scatter_plot(caption, groups, fact.replace("_", " "), f"{analysis.score}, %")]


def scaling_figure(analysis: ExperimentAnalysis) -> Drawings:
    """Errors by training rows, the power law, its extrapolation, and the check at the largest size."""
    scaling = analysis.scaling_law
    if scaling is None:
        return []
    text = "error = c + a · rows^−b (Hestness et al. 2017)."
    if scaling.intervals:
        text += " Band: 95 % confidence interval of the law, allowing for other test rows and seeds."
    if scaling.checked:
        text += " Dashed: the law fitted without the largest size; its diamond is the error it predicts there."
    rows = f"{len(scaling.rows)} runs at {len(set(scaling.rows))} sizes"
    return [power_law_plot(Caption("law", "Learning curve and power law", rows, text), scaling)]


def difference_figure(analysis: ExperimentAnalysis) -> Drawings:
    """The difference of each configuration from its baseline."""
    if not analysis.comparisons:
        return []
    baselines = {format_point(comparison.baseline.factors) for comparison in analysis.comparisons}
    baseline = baselines.pop() if len(baselines) == 1 else None
    largest = sorted(analysis.comparisons, key=lambda comparison: -abs(comparison.test.value))[:MAX_ROWS]
    shown = [comparison for comparison in analysis.comparisons if comparison in largest]
    points = [comparison.point for comparison in shown]
    names = point_labels(points) if baseline else [_difference_label(c.point, c.baseline) for c in shown]
    rows = [(name, c.interval, c.test.value, c.significant) for name, c in zip(names, shown, strict=True)]
    family = analysis.comparisons[0].family
    adjusted = f", adjusted for {family} comparisons" if family > 1 else ""
    text = f"Bars: 95 % confidence intervals{adjusted}. Filled, coloured: significant. Hollow, grey: not significant."
    count = f"{len(analysis.comparisons)} comparison{'s' if len(analysis.comparisons) != 1 else ''}"
    against, legend = (f"with {baseline}", label_legend(points)) if baseline else ("of pairs", "")
    caption = Caption("differences", "Differences in test accuracy", f"{count} {against}", legend + text)
    return [plots.forest_plot(caption, rows, "percentage points")]


def _difference_label(point: Point, baseline: Point) -> str:
    """Return two configurations as a difference, with what they share last: `entropy − random · 500`."""
    names = differing_factors(point, baseline)
    first, second = (" · ".join(format_value(each.factors.get(name)) for name in names) for each in (point, baseline))
    shared = (format_value(value) for name, value in point.factors.items() if name not in names)
    return " · ".join([f"{first} − {second}", *shared])


def _step_plot(name: str, title: str, analysis: ExperimentAnalysis, points: Sequence[Point]) -> ReportFigure | None:
    series = []
    for label, point in zip(point_labels(points), points, strict=True):
        steps, scores = validation_curves(point.trials)
        if steps and len(scores):
            low, high = (scores.min(axis=0), scores.max(axis=0)) if len(scores) > 1 else ((), ())
            mean = 100 * scores.mean(axis=0)
            series.append(Series(label, steps, list(mean), [100 * v for v in low], [100 * v for v in high]))
    if not any(len(line.x) > 1 for line in series):
        return None
    spread = "Lines: mean over seeds. Bands: lowest to highest." if any(len(line.low) for line in series) else "One run per line."
    caption = Caption(name, title, _count_runs(analysis, points[:MAX_LINES]), f"{label_legend(points)}{spread}")
    return plots.line_plot(caption, series, "step", "validation accuracy, %", x_is_setting=False)


def _line_along(score: Score, factor: str, others: Mapping[str, Factor], points: Sequence[Point]) -> Series:
    x = [float(point.factors[factor]) for point in points]  # type: ignore[arg-type]
    intervals = [point.interval for point in points if point.interval] if score == ACCURACY else []
    if len(intervals) < len(points):
        intervals = []
    low, high = [100 * i.low for i in intervals], [100 * i.high for i in intervals]
    repeated = [(value, point) for value, point in zip(x, points, strict=True) if len(point.trials) > 1]
    dots = [(value, 100 * result) for value, point in repeated for result in point.values(score)]
    label = format_point(others) if others else short_name(factor)
    return Series(label, x, [100 * point.mean(score) for point in points], low, high, dots)


def _explain_marks(points: Sequence[Point], score: Score, *, lines: bool = False, boxes: bool = False) -> str:
    """Explain the marks that a figure of these configurations has."""
    mean, spread = ("Lines", "Bands") if lines else ("Diamonds", "Lines through the diamonds")
    seeds = max((len(point.trials) for point in points), default=0)
    text = f"{mean}: one run per configuration." if seeds < 2 else f"{mean}: mean over seeds. Dots: single runs."
    drawn = [point for point in points if point.interval] if score == ACCURACY else []
    if len(drawn) == len(points) or (drawn and not lines):
        scope = "rows and seeds" if all(point.new_seeds for point in drawn) else "rows"
        text += f" {spread}: 95 % confidence intervals of the test accuracy, allowing for other test {scope}."
    return f"{text} Boxes: quartiles, from {plots.MIN_BOX_VALUES} seeds." if boxes and seeds >= plots.MIN_BOX_VALUES else text


def _score_panel(points: Sequence[Point], score: Score) -> Panel:
    intervals = [point.interval if score == ACCURACY else None for point in points]
    return Panel(str(score), [point.values(score) for point in points], intervals)


def _seconds_panel(analysis: ExperimentAnalysis, points: Sequence[Point]) -> Panel:
    fact = analysis.data.seconds
    return Panel(fact.replace("_", " "), [p.facts(fact) for p in points], [None] * len(points), bars=True)


def _in_order(analysis: ExperimentAnalysis, max_points: int) -> list[Point]:
    """Return the configurations in the plan's order; more than `max_points` with the best first."""
    points = list(analysis.data.points)
    return points if len(points) <= max_points else sorted(points, key=lambda point: -np.nan_to_num(point.mean(analysis.score)))


def _sorted_values(values: Sequence[Factor]) -> list[Factor]:
    """Return numbers by size, words in the order given."""
    numbers = all(isinstance(value, int | float) for value in values)
    return sorted(values, key=float) if numbers else [*values]  # type: ignore[arg-type]


def _majority_level(analysis: ExperimentAnalysis, series: Sequence[Series]) -> list[tuple[str, float]]:
    """Return the accuracy, in %, of always predicting the majority class, where a line comes near it."""
    results = [trial.result for trial in analysis.data.complete if trial.result]
    counts = [value for name, value in (results[0].scores if results else {}).items() if name.startswith("true:")]
    if analysis.score.name != ACCURACY.name or not sum(counts):
        return []
    majority = 100 * max(counts) / sum(counts)
    return [("majority class", majority)] if any(min(line.mean) < 1.5 * majority for line in series) else []


def _count_runs(analysis: ExperimentAnalysis, points: Sequence[Point]) -> str:
    runs, all_points = sum(len(point.trials) for point in points), len(analysis.data.points)
    subset = f" of {all_points}" if len(points) < all_points else ""
    return f"{len(points)}{subset} configuration{'s' if len(points) != 1 else ''}, {runs} run{'s' if runs != 1 else ''}"
