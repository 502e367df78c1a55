"""What an experiment's tables hold: plain rows, for CSV files and for the page alike."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from loralab.report.experiments.comparisons import Comparison, RowTest
from loralab.report.experiments.tables import SEED, LabTables, Point, Score, facts
from loralab.report.tables import one_line
from loralab.report.texts import format_value
from loralab.stats import Interval, Paired, wilson

CENTRE = "the recipe's own settings"
ACCURACY, MACRO_F1, VALIDATION = Score(), Score(name="macro_f1"), Score("validation")


@dataclass(frozen=True)
class ReportTable:
    """Rows under columns. The first `keys` columns are factors or names; cells are text, numbers, intervals or None.

    An Interval is one cell on the page and two columns of the CSV file, `low` and `high`.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    keys: int = 1
    note: str = ""


def write_csv(table: ReportTable, file: IO[str]) -> None:
    """Write a table; numbers in full."""
    spans = [any(isinstance(row[i], Interval) for row in table.rows) for i in range(len(table.columns))]
    writer = csv.writer(file, lineterminator="\n")
    names = [[f"{name} low", f"{name} high"] if span else [name] for name, span in zip(table.columns, spans, strict=True)]
    writer.writerow([each for group in names for each in group])
    for row in table.rows:
        cells = [_ends(cell) if span else [cell] for cell, span in zip(row, spans, strict=True)]
        writer.writerow([each for group in cells for each in group])


def format_point(factors: Mapping[str, Any]) -> str:
    """A point in words: `rank 8, targets value`."""
    said = ", ".join(f"{short(name)} {format_value(value)}" for name, value in factors.items() if name != SEED)
    return one_line(said) or CENTRE


def labels(points: Sequence[Point]) -> list[str]:
    """Points for a figure: the values that vary, joined by dots, where all have the same factors; else in words."""
    axes = list(dict.fromkeys(name for point in points for name in point.factors))
    if not all(list(point.factors) == axes for point in points):
        return [format_point(point.factors) for point in points]
    varied = _telling(points, axes)
    return [one_line(" · ".join(format_value(point.factors[name]) for name in varied)) or CENTRE for point in points]


def key(points: Sequence[Point]) -> str:
    """What the values of `labels` are, for a caption; empty where they say it themselves."""
    axes = list(dict.fromkeys(name for point in points for name in point.factors))
    if not axes or not all(list(point.factors) == axes for point in points):
        return ""
    return f"Labels: {' · '.join(map(short, _telling(points, axes)))}. "


def short(axis: str) -> str:
    """A setting's name without its section: `rank` of lora.rank."""
    return axis.rpartition(".")[2].replace("_", " ")


def trial_table(tables: LabTables) -> ReportTable:
    """One row a trial, for trials.csv: factors, state, every score, counts, steps and seconds, why it failed."""
    names = list(dict.fromkeys(name for trial in tables.trials for name in trial.factors))
    results = [trial.result for trial in tables.complete if trial.result]
    test = list(dict.fromkeys(name for result in results for name in result.scores))
    validation = list(dict.fromkeys(name for result in results for name in result.validation))
    more = list(dict.fromkeys(name for result in results for name in facts(result)))
    rows = []
    for trial in tables.trials:
        result = trial.result
        scores, checked, counts = (result.scores, result.validation, facts(result)) if result else ({}, {}, {})
        values = [*(scores.get(n) for n in test), *(checked.get(n) for n in validation), *(counts.get(n) for n in more)]
        train = trial.rows.get("train", {}).get("count")
        rows.append((trial.name, *(trial.factors.get(name) for name in names), trial.state, *values, train, trial.failure))
    columns = ("trial", *names, "state", *(f"test_{n}" for n in test), *(f"validation_{n}" for n in validation), *more)
    return ReportTable("trials", "Trials", (*columns, "training_rows", "failure"), rows, 1 + len(names))


def trial_overview(tables: LabTables) -> ReportTable:
    """The trials as the page shows them: factors, the main scores, size, seconds, state."""
    names = list(dict.fromkeys(name for trial in tables.trials for name in trial.factors))
    scores = [score for score in (VALIDATION, ACCURACY, MACRO_F1) if _known(tables, score)]
    rows = []
    for trial in tables.trials:
        more = [trial.result.counts.get("trainable"), round(trial.result.seconds, 1)] if trial.result else [None, None]
        state = one_line(f"failed: {trial.failure}") if trial.failure else trial.state
        rows.append((*(trial.factors.get(name) for name in names), *(trial.value(score) for score in scores), *more, state))
    columns = (*names, *map(str, scores), "trained parameters", "seconds", "state")
    return ReportTable("overview", "All trials", columns, rows, len(names), "trials.csv has every score of each.")


def point_table(tables: LabTables, score: Score) -> ReportTable:
    """One row a point: its factors, or where points differ in which they have, its name; the score over its seeds; other means."""
    alike = all(list(point.factors) == list(tables.axes) for point in tables.points)
    axes = list(tables.axes) if alike else ["point"]
    others = [other for other in (ACCURACY, MACRO_F1, VALIDATION) if other != score and _known(tables, other)]
    rows = []
    for point in tables.points:
        found = point.summary(score)
        if found is None:
            continue
        given = [*point.factors.values()] if alike else [format_point(point.factors)]
        means = [point.mean(other) for other in others]
        seconds = round(point.mean_of("seconds"), 1)
        rows.append((*given, found.n, found.mean, found.sd, found.t, found.bca, *means, of_rows(tables, point), seconds))
    columns = (*axes, "seeds", str(score), "deviation", "t interval", "BCa interval", *map(str, others))
    note = (
        "Intervals are 95 %. t and BCa (a bootstrap) say how far the mean of such runs may lie from this one by the luck of the "
        "seeds; of a handful of seeds t is the one to quote. All runs share their test rows, so neither counts the luck of those: "
        "the last interval does (Wilson's, of the mean test accuracy), and says nothing of seeds."
    )
    return ReportTable("points", "Each point over its seeds", (*columns, "of the test rows", "seconds"), rows, len(axes), note)


def summary_table(tables: LabTables, score: Score) -> ReportTable:
    """The points in short, for a terminal: factors, seeds, mean with its t interval."""
    whole = point_table(tables, score)
    axes, what = whole.columns[: whole.keys], str(score)
    seeds, mean, t = (whole.columns.index(name) for name in ("seeds", what, "t interval"))
    rows = [
        (
            *(format_value(cell) for cell in row[: whole.keys]),
            row[seeds],
            row[mean],
            f"{row[t].low:.4f} to {row[t].high:.4f}" if row[t] else "",
        )
        for row in whole.rows
    ]
    return ReportTable("summary", whole.title, (*axes, "seeds", what, "95 % interval"), rows, whole.keys)


def of_rows(tables: LabTables, point: Point) -> Interval | None:
    """Wilson's interval of the point's mean test accuracy on that many test rows; None where the runs differ in their number."""
    n, values = tables.test_rows, point.values(ACCURACY)
    return wilson(round(point.mean(ACCURACY) * n), n) if n and values else None


def comparison_table(comparisons: Sequence[Comparison], score: Score) -> ReportTable:
    """One row a comparison over seeds, with every test and what may be said."""
    rows = []
    for each in comparisons:
        f = each.found
        tests = (f.t_p, f.wilcoxon_p, f.permutation_p, f.effect) if isinstance(f, Paired) else (f.p, None, None, None)
        measured = (f.n, f.difference, f.interval, *tests, each.p, f.detectable)
        rows.append((format_point(each.point.factors), format_point(each.against.factors), each.words, *measured))
    columns = (
        "point",
        "against",
        "what may be said",
        "seeds",
        "difference",
        "95 % interval",
        "p: t",
        "p: Wilcoxon",
        "p: permutation",
    )
    note = (
        f"Differences of {score}, seed by seed. The three p are of this comparison alone; Holm's corrects for there being several. "
        "Effect size: Cohen's d of the differences. Detectable: the true difference that four of five such studies would find."
    )
    return ReportTable("comparisons", "Compared over seeds", (*columns, "effect size", "p after Holm", "detectable"), rows, 3, note)


def row_test_table(tests: Sequence[RowTest]) -> ReportTable:
    """One row a pair of trials of one seed."""
    rows = []
    for each in tests:
        f = each.found
        who = (format_point(each.point.factors), format_point(each.against.factors), each.seed)
        rows.append((*who, each.rows, f.only_a, f.only_b, f.interval.estimate, f.interval, f.p, each.p))
    columns = (
        "point",
        "against",
        "seed",
        "test rows",
        "only the point right",
        "only the other right",
        "difference",
        "95 % interval",
    )
    note = (
        "McNemar's test (mid-p) and the paired bootstrap over test rows: do these two trained models differ on rows like these? "
        "Whether the next seed's would is for the comparison over seeds to say."
    )
    return ReportTable(
        "row_tests", "Compared over test rows, seed by seed", (*columns, "p: McNemar", "p after Holm"), rows, 3, note
    )


def _telling(points: Sequence[Point], axes: Sequence[str]) -> list[str]:
    """The factors that tell points apart: the recipe, where each has its own, else all that vary."""
    if len({point.factors.get("recipe") for point in points}) == len(points) > 1:
        return ["recipe"]
    return [name for name in axes if len({point.factors[name] for point in points}) > 1] or [*axes]


def _known(tables: LabTables, score: Score) -> bool:
    return any(point.values(score) for point in tables.points)


def _ends(cell: Any) -> list[float | None]:
    return [cell.low, cell.high] if isinstance(cell, Interval) else [None, None]
