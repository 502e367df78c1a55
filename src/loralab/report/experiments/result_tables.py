"""The tables of an experiment: plain rows, for CSV files and pages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from loralab.report.experiments.analysis import ExperimentAnalysis, PointComparison, sort_by_factor
from loralab.report.experiments.experiment_data import ACCURACY, MACRO_F1, SEED, VALIDATION, ExperimentData, Point, Score
from loralab.report.formatting import format_value, is_number, one_line
from loralab.report.scaling_law import ScalingLaw
from loralab.stats import Interval
from loralab.tables import csv_writer

DEFAULTS = "recipe defaults"
"""The configuration that no factor changes."""
UNITS = {"data.max_train_samples": "training rows", "data.shots_per_class": "rows per class", "labels": "labels"}
"""Factors that are numbers, and what they count."""


@dataclass(frozen=True)
class ReportTable:
    """The first `keys` columns are factors or names. Cells: text, numbers, None or Interval (low and high in a CSV file)."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    keys: int = 1


def write_csv(table: ReportTable, file: IO[str]) -> None:
    """Write a table with its numbers in full."""
    columns, rows = flat_cells(table)
    writer = csv_writer(file)
    writer.writerow(columns)
    writer.writerows(rows)


def flat_cells(table: ReportTable) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows with two columns, low and high, for a column of intervals."""
    spans = [any(isinstance(row[i], Interval) for row in table.rows) for i in range(len(table.columns))]
    names = [[f"{name} low", f"{name} high"] if span else [name] for name, span in zip(table.columns, spans, strict=True)]
    rows = []
    for row in table.rows:
        ends = [
            [cell.low, cell.high] if isinstance(cell, Interval) else [None, None] if span else [cell]
            for cell, span in zip(row, spans, strict=True)
        ]
        rows.append([*itertools.chain(*ends)])
    return [*itertools.chain(*names)], rows


def format_point(factors: Mapping[str, Any]) -> str:
    """Return a configuration as text: `rank 8, targets value`."""
    named = ", ".join(_format_factor(name, value) for name, value in factors.items() if name != SEED)
    return one_line(named) or DEFAULTS


def _format_factor(factor: str, value: Any) -> str:
    name = short_name(factor)
    if is_number(value) and factor in UNITS:
        return f"{value:,} {UNITS[factor].replace('s', '', 1) if value == 1 else UNITS[factor]}"
    if value == "recipe" and name != "recipe":
        return f"the recipe's {name}"
    nothing = value is None or (factor, value) == ("data.descriptions", "none")
    return f"no {name}" if nothing else f"{name} {format_value(value)}"


def point_labels(points: Sequence[Point]) -> list[str]:
    """Return a label per configuration: the values that vary, or `format_point` where configurations have different factors."""
    varied = _varied_factors(points)
    if varied is None:
        return [format_point(point.factors) for point in points]
    return [one_line(" · ".join(format_value(point.factors[name]) for name in varied)) or DEFAULTS for point in points]


def label_legend(points: Sequence[Point]) -> str:
    """Return the names of the values in `point_labels`, for a caption; empty where the labels name them."""
    varied = _varied_factors(points)
    return f"Labels: {' · '.join(map(short_name, varied))}. " if varied else ""


def short_name(factor: str) -> str:
    """Return a setting's name without its section: `rank` for lora.rank; of a number of rows what it counts."""
    return UNITS[factor] if factor in UNITS else factor.rpartition(".")[2].replace("_", " ")


def experiment_tables(analysis: ExperimentAnalysis) -> list[ReportTable]:
    """Return every table of an experiment that has rows."""
    data, kind = analysis.data, analysis.data.spec.kind
    tables = [point_table(data, analysis.score), comparison_table(analysis.comparisons)]
    if kind in ("few-shot", "scaling", "active") and (table := sample_efficiency_table(analysis)):
        tables.append(table)
    if kind == "compare":
        tables.append(settings_table(data))
    if kind == "scaling" and analysis.scaling_law:
        tables.append(power_law_table(analysis.scaling_law))
    return [table for table in (*tables, trial_overview(data)) if table.rows]


def settings_table(data: ExperimentData) -> ReportTable:
    """The settings in which compared runs differ, one row each, with a column per recipe."""
    trials = {str(trial.factors.get("recipe")): trial for trial in reversed(data.complete)}
    names = [
        name for name in dict.fromkeys(name for trial in data.complete for name in trial.factors) if name not in ("recipe", SEED)
    ]
    rows = [(name, *(format_value(trial.factors.get(name)) for trial in reversed(trials.values()))) for name in names]
    return ReportTable("settings", "Settings that differ", ("setting", *reversed(trials)), rows, len(trials) + 1)


def trial_table(data: ExperimentData) -> ReportTable:
    """One row per trial, for trials.csv: factors, state, every score, counts, steps, seconds, failure."""
    names = list(dict.fromkeys(name for trial in data.trials for name in trial.factors))
    results = [trial.result for trial in data.complete if trial.result]
    test = list(dict.fromkeys(name for result in results for name in result.scores))
    validation = list(dict.fromkeys(name for result in results for name in result.validation))
    facts = list(dict.fromkeys(name for result in results for name in result.facts()))
    rows = []
    for trial in data.trials:
        result = trial.result
        of_test, of_validation, counts = (result.scores, result.validation, result.facts()) if result else ({}, {}, {})
        values = [*(of_test.get(n) for n in test), *(of_validation.get(n) for n in validation), *(counts.get(n) for n in facts)]
        train = trial.rows.get("train", {}).get("count")
        rows.append((trial.name, *(trial.factors.get(name) for name in names), trial.state, *values, train, trial.failure))
    columns = ("trial", *names, "state", *(f"test_{n}" for n in test), *(f"validation_{n}" for n in validation), *facts)
    return ReportTable("trials", "Trials", (*columns, "training_rows", "failure"), rows, 1 + len(names))


def trial_overview(data: ExperimentData) -> ReportTable:
    """One row per trial, for the page: factors, main scores, size, seconds, state. Compared runs have a table of their settings."""
    names = list(dict.fromkeys(name for trial in data.trials for name in trial.factors))
    names = [name for name in names if data.spec.kind != "compare" or name in ("recipe", SEED)]
    numbered = data.spec.kind == "search" and "trial" not in names and all(trial.name.startswith("trial-") for trial in data.trials)
    scores = [score for score in (VALIDATION, ACCURACY, MACRO_F1) if _is_known(data, score)]
    rows = []
    for trial in data.trials:
        seconds = trial.result.facts()[data.seconds] if trial.result else None
        facts = [trial.result.counts.get("trainable"), round(seconds, 1)] if trial.result and seconds is not None else [None, None]
        state = one_line(f"failed: {trial.failure}") if trial.failure else trial.state
        number = [int(trial.name.removeprefix("trial-"))] if numbered else []
        keys = [*number, *(trial.factors.get(name) for name in names)]
        rows.append((*keys, *(trial.value(score) for score in scores), *facts, state))
    names = ["trial", *names] if numbered else names
    columns = (*names, *map(str, scores), "trainable parameters", data.seconds.replace("_", " "), "state")
    return ReportTable("overview", "All trials", columns, rows, len(names))


def point_table(data: ExperimentData, score: Score) -> ReportTable:
    """One row per configuration: its factors (one text where they differ), its scores over the seeds, parameters, seconds."""
    alike = all(list(point.factors) == list(data.axes) for point in data.points)
    factors = list(data.axes) if alike else ["configuration"]
    scores = list(dict.fromkeys(s for s in (score, ACCURACY, MACRO_F1, VALIDATION) if _is_known(data, s)))
    rows = []
    for point in data.points:
        if not point.values(score):
            continue
        keys = [*point.factors.values()] if alike else [format_point(point.factors)]
        measured: list[object] = [len(point.trials)]
        for s in scores:
            measured += [point.mean(s), point.interval, point.std(s)] if s == ACCURACY else [point.mean(s)]
        rows.append((*keys, *measured, _whole(point.mean_fact("trainable")), round(point.mean_fact(data.seconds), 1)))
    columns = [name for s in scores for name in ([str(s), "95 % CI", "std"] if s == ACCURACY else [str(s)])]
    return ReportTable(
        "points",
        "Scores of each configuration",
        (*factors, "seeds", *columns, "trainable", data.seconds.replace("_", " ")),
        rows,
        len(factors),
    )


def summary_table(data: ExperimentData, score: Score) -> ReportTable:
    """The configurations in short, for a terminal: factors, seeds, mean scores, the interval of the test accuracy."""
    whole = point_table(data, score)
    kept = ["seeds", str(VALIDATION), str(ACCURACY), "95 % CI"]
    kept = [name for name in kept if name in whole.columns and (name != str(VALIDATION) or score == VALIDATION)]
    rows = []
    for row in whole.rows:
        cells = [row[whole.columns.index(name)] for name in kept]
        texts = [f"{cell.low:.4f} to {cell.high:.4f}" if isinstance(cell, Interval) else cell for cell in cells]
        rows.append((*map(format_value, row[: whole.keys]), *("" if text is None else text for text in texts)))
    return ReportTable("summary", whole.title, (*whole.columns[: whole.keys], *kept), rows, whole.keys)


def comparison_table(comparisons: Sequence[PointComparison]) -> ReportTable:
    """One row per comparison of test accuracies."""
    rows = []
    for comparison in comparisons:
        test, names = comparison.test, (format_point(comparison.point.factors), format_point(comparison.baseline.factors))
        seeds = f"{test.seeds[0]}, paired" if test.paired else "{} and {}".format(*test.seeds)
        rows.append((*names, comparison.verdict, test.value, comparison.interval, comparison.p, seeds))
    columns = ("configuration", "baseline", "result", "difference", "95 % CI", "p", "seeds")
    return ReportTable("comparisons", "Differences in test accuracy", columns, rows, 3)


def sample_efficiency_table(analysis: ExperimentAnalysis) -> ReportTable | None:
    """What each step along the first numeric factor adds, the other factors equal: score, share of the largest's, gain."""
    factor, score = analysis.data.numeric_factor, analysis.score
    if factor is None:
        return None
    rows = []
    for point in analysis.data.points:
        others = point.other_factors(factor)
        line = sort_by_factor([other for other in analysis.data.points if other.other_factors(factor) == others], factor)
        mean, largest, index = point.mean(score), line[-1].mean(score), line.index(point)
        gain = gain_per_100 = None
        if index:
            gain, added = mean - line[index - 1].mean(score), point.training_rows - line[index - 1].training_rows
            gain_per_100 = 100 * gain / added if added > 0 else None
        share = mean / largest if largest else None
        rows.append((*point.factors.values(), point.training_rows, mean, share, gain, gain_per_100))
    columns = (*analysis.data.axes, "training rows", str(score), "share of the largest size", "gain over the previous size")
    return ReportTable("efficiency", "Sample efficiency", (*columns, "gain per 100 rows"), rows, len(analysis.data.axes))


def power_law_table(scaling: ScalingLaw) -> ReportTable:
    """The power law's parameters with their intervals, and its predictions."""
    law, intervals = scaling.law, scaling.intervals
    c, b, predictions = (intervals.c, intervals.b, intervals.predictions[:2]) if intervals else (None, None, (None, None))
    rows: list[tuple[object, ...]] = [("c (irreducible error)", law.c, c), ("b (exponent)", law.b, b), ("a (scale)", law.a, None)]
    if 0 < scaling.diminishing < 1e9:
        rows.append(("rows from which doubling gains under 1 point", scaling.diminishing, intervals and intervals.diminishing))
    for at, interval in zip(scaling.at[:2], predictions, strict=True):
        rows.append((f"predicted error at {at:,.0f} rows", float(law.predict(at)), interval))
    if checked := scaling.checked:
        size = f"{checked.rows:,.0f} rows"
        rows.append((f"predicted error at {size}, fitted without them", checked.predicted, checked.predicted_interval))
        rows.append((f"measured error at {size}", checked.measured, None))
        rows.append(("measured − predicted", checked.measured - checked.predicted, checked.gap))
    return ReportTable("power_law", "Power law", ("quantity", "value", "95 % CI"), rows, 1)


def _varied_factors(points: Sequence[Point]) -> list[str] | None:
    """Return the factors that distinguish configurations: the recipe, or all that vary; None where they have different ones."""
    factors = list(dict.fromkeys(name for point in points for name in point.factors))
    if not all(list(point.factors) == factors for point in points):
        return None
    if len({point.factors.get("recipe") for point in points}) == len(points) > 1:
        return ["recipe"]
    return [name for name in factors if len({point.factors[name] for point in points}) > 1] or factors


def _whole(number: float) -> int | None:
    return round(number) if math.isfinite(number) else None


def _is_known(data: ExperimentData, score: Score) -> bool:
    return any(point.values(score) for point in data.points)
