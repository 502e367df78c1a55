"""A folder of experiments and runs → one row for each, as tables and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from loralab.errors import LoralabError
from loralab.report.experiments.experiment_data import ACCURACY
from loralab.report.experiments.profiles import analyze_experiment
from loralab.report.experiments.result_tables import ReportTable, format_point
from loralab.report.figures.plots import MAX_ROWS, Panel, strip_plot
from loralab.report.figures.style import Caption, ReportFigure, figure_style
from loralab.report.run_data import RunData, read_run
from loralab.stats import Interval
from loralab.storage import experiment_folder, run_folder


@dataclass(frozen=True)
class DashboardRow:
    """An experiment or a run. values: test accuracies of its best configuration, one per seed; interval: of their mean.

    For a single run the interval is Wilson's. trials: (complete, planned). problem: why it cannot be read.
    """

    name: str
    kind: str
    recipe: str
    best: str = ""
    values: tuple[float, ...] = ()
    interval: Interval | None = None
    trials: tuple[int, int] = (0, 0)
    test_rows: int = 0
    modified: str = ""
    problem: str = ""

    @property
    def mean(self) -> float | None:
        """The mean test accuracy."""
        return sum(self.values) / len(self.values) if self.values else None


def read_dashboard(folder: Path) -> list[DashboardRow]:
    """Read the experiments and runs in a folder, newest first; damaged ones with their problem. Raises LoralabError for none."""
    if not folder.is_dir():
        raise LoralabError(f"there is no {folder}: give a run, an experiment, or a folder that holds some")
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    rows = [(path.stat().st_mtime, row) for path in folders if (row := _read_row(path))]
    if not rows:
        raise LoralabError(f"{folder} is no run and no experiment, and holds none")
    return [row for _, row in sorted(rows, key=lambda item: -item[0])]


def dashboard_tables(rows: Sequence[DashboardRow]) -> list[ReportTable]:
    """Return a table of the experiments and one of the single runs, each only with rows."""
    experiments = []
    for r in (row for row in rows if row.kind != "run"):
        counts = (len(r.values), "{} of {}".format(*r.trials), r.test_rows)
        experiments.append((r.name, r.kind, r.recipe, r.problem or r.best, r.mean, r.interval, *counts, r.modified))
    runs = [(r.name, r.recipe, r.problem or r.best, r.mean, r.interval, r.test_rows, r.modified) for r in rows if r.kind == "run"]
    names = ("name", "kind", "recipe", "best configuration", "test accuracy", "95 % CI", "seeds", "trials", "test rows", "modified")
    run_names = ("name", "model and data", "seed", "test accuracy", "95 % CI", "test rows", "modified")
    tables = [
        ReportTable("experiments", "Experiments", names, experiments, 4),
        ReportTable("runs", "Single runs", run_names, runs, 3),
    ]
    return [table for table in tables if table.rows]


def draw_dashboard(rows: Sequence[DashboardRow]) -> list[ReportFigure]:
    """Draw the accuracies of all experiments and runs."""
    shown = [row for row in rows if row.values]
    panel = Panel("test accuracy", [row.values for row in shown], [row.interval for row in shown])
    text = "Diamonds: means. Dots: seeds. Bars: the intervals of the tables. Compare accuracies only on the same test rows."
    count = f"the newest {MAX_ROWS} of {len(shown)}" if len(shown) > MAX_ROWS else f"{len(shown)} with a result"
    with figure_style():
        drawing = strip_plot(Caption("dashboard", "Best test accuracy", count, text), [row.name for row in shown], [panel])
    return [drawing] if drawing else []


def _read_row(path: Path) -> DashboardRow | None:
    is_experiment, is_run = experiment_folder.is_experiment(path), (path / run_folder.CONFIG).is_file()
    if not is_experiment and not is_run:
        return None
    result = run_folder.SCORES if (path / run_folder.SCORES).is_file() else run_folder.CONFIG
    dated = path / (experiment_folder.EXPERIMENT if is_experiment else result)
    modified = f"{datetime.fromtimestamp(dated.stat().st_mtime):%Y-%m-%d %H:%M}"
    try:
        return _experiment_row(path, modified) if is_experiment else _run_row(read_run(path), modified)
    except LoralabError as error:
        kind = "experiment" if is_experiment else "run"
        return DashboardRow(path.name, kind, "", modified=modified, problem=f"cannot be read: {error}")


def _experiment_row(path: Path, modified: str) -> DashboardRow:
    analysis = analyze_experiment(path)
    data, best = analysis.data, analysis.best
    kind, recipe, trials = data.spec.kind, ", ".join(data.spec.recipes), (len(data.complete), len(data.trials))
    if best is None:
        return DashboardRow(path.name, kind, recipe, "no result yet", trials=trials, test_rows=data.test_rows, modified=modified)
    summary, values = best.summary(ACCURACY), tuple(best.values(ACCURACY))
    interval = summary.t if summary else None
    return DashboardRow(path.name, kind, recipe, format_point(best.factors), values, interval, trials, data.test_rows, modified)


def _run_row(run: RunData, modified: str) -> DashboardRow:
    recipe = f"{run.config.model.base} on {run.config.data.source}"
    if run.result is None:
        return DashboardRow(run.name, "run", recipe, "not complete", trials=(0, 1), modified=modified)
    accuracy = run.result.scores["accuracy"]
    interval = run.accuracy_interval() if run.test_rows else None
    return DashboardRow(run.name, "run", recipe, str(run.config.seed), (accuracy,), interval, (1, 1), run.test_rows, modified)
