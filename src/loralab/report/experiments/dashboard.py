"""A folder of experiments and runs → one line for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from loralab.errors import LoralabError
from loralab.report.experiments.kinds import read
from loralab.report.experiments.rows import ACCURACY, ReportTable, format_point
from loralab.report.figures import points as ink
from loralab.report.figures.ink import ReportFigure
from loralab.report.figures.points import Caption, Panel
from loralab.report.tables import RunTables, read_tables
from loralab.stats import Interval
from loralab.storage import experiment_folder, run_folder

EXPERIMENTS, RUNS = "experiments", "runs"


@dataclass(frozen=True)
class DashboardRow:
    """One experiment or run. values: the best point's test accuracies, one a seed; interval: of their mean, or a run's Wilson."""

    name: str
    kind: str
    recipe: str
    best: str
    values: tuple[float, ...]
    interval: Interval | None
    trials: tuple[int, int]
    test_rows: int
    when: str
    problem: str = ""

    @property
    def mean(self) -> float | None:
        """The mean test accuracy."""
        return sum(self.values) / len(self.values) if self.values else None


def read_lines(folder: Path) -> list[DashboardRow]:
    """Read every experiment and run directly in a folder, the newest first; one that is damaged says so and stops no other.

    Raises LoralabError where there is none.
    """
    if not folder.is_dir():
        raise LoralabError(f"there is no {folder}: give a run, an experiment, or a folder that holds some")
    found = [
        (path.stat().st_mtime, line)
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".") and (line := _line(path))
    ]
    if not found:
        raise LoralabError(f"{folder} is no run and no experiment, and holds none")
    return [line for _, line in sorted(found, key=lambda each: -each[0])]


def line_tables(lines: Sequence[DashboardRow]) -> list[ReportTable]:
    """The lines as a table of experiments and one of runs; of either only where there are some."""
    columns = ("name", "kind", "recipe", "best point", "test accuracy", "seeds", "95 % interval", "trials", "test rows", "when")
    found = []
    for name, title, runs_ in ((EXPERIMENTS, "Experiments", False), (RUNS, "Single runs", True)):
        rows = [
            (
                e.name,
                e.kind,
                e.recipe,
                e.problem or e.best,
                e.mean,
                len(e.values),
                e.interval,
                "{} of {}".format(*e.trials),
                e.test_rows,
                e.when,
            )
            for e in lines
            if (e.kind == "run") == runs_
        ]
        note = (
            "The interval is Wilson's, over test rows."
            if runs_
            else "Test accuracy of the point that the experiment's own score puts first; the interval is over seeds (t)."
        )
        if rows:
            found.append(ReportTable(name, title, columns, rows, 4, note))
    return found


def draw_lines(lines: Sequence[DashboardRow]) -> list[ReportFigure]:
    """The accuracies of all lines side by side."""
    shown = [line for line in lines if line.values]
    panel = Panel("test accuracy", [line.values for line in shown], [line.interval for line in shown])
    text = "Diamonds are means, dots seeds, bars the intervals of the table. Only accuracies on the same test rows may be compared."
    part = f"the newest {ink.MOST_ROWS} of {len(shown)}" if len(shown) > ink.MOST_ROWS else f"{len(shown)} with a result"
    drawing = ink.strips(Caption("dashboard", "Best of each", part, text), [line.name for line in shown], [panel])
    return [drawing] if drawing else []


def _line(path: Path) -> DashboardRow | None:
    lab, run = experiment_folder.is_experiment(path), (path / run_folder.CONFIG).is_file()
    if not lab and not run:
        return None
    written = path / (
        experiment_folder.EXPERIMENT if lab else run_folder.SCORES if (path / run_folder.SCORES).is_file() else run_folder.CONFIG
    )
    when = f"{datetime.fromtimestamp(written.stat().st_mtime):%Y-%m-%d %H:%M}"
    try:
        return _of_experiment(path, when) if lab else _of_run(read_tables(path), when)
    except LoralabError as error:
        return DashboardRow(
            path.name, "experiment" if lab else "run", "", "", (), None, (0, 0), 0, when, f"cannot be read: {error}"
        )


def _of_experiment(path: Path, when: str) -> DashboardRow:
    reading = read(path)
    tables, best = reading.tables, reading.best
    summary = best.summary(ACCURACY) if best else None
    done = (len(tables.complete), len(tables.trials))
    recipes, values = ", ".join(tables.question.recipes), tuple(best.values(ACCURACY)) if best else ()
    point = format_point(best.factors) if best else "no result yet"
    return DashboardRow(
        path.name, tables.question.kind, recipes, point, values, summary.t if summary else None, done, tables.test_rows, when
    )


def _of_run(tables: RunTables, when: str) -> DashboardRow:
    what = f"{tables.config.model.base} on {tables.config.data.source}"
    if tables.result is None:
        return DashboardRow(tables.name, "run", what, "not complete", (), None, (0, 1), 0, when)
    low, high = tables.interval() if tables.test_rows else (0.0, 1.0)
    accuracy = tables.result.scores["accuracy"]
    interval = Interval(low, accuracy, high) if tables.test_rows else None
    return DashboardRow(
        tables.name, "run", what, f"seed {tables.config.seed}", (accuracy,), interval, (1, 1), tables.test_rows, when
    )
