"""A folder of experiments and runs → one row for each, as tables and a figure."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from loralab.errors import LoralabError
from loralab.metrics import NO_TEST_ROWS
from loralab.report.experiments.experiment_data import ACCURACY
from loralab.report.experiments.profiles import analyze_experiment
from loralab.report.experiments.result_tables import ReportTable, format_point
from loralab.report.figures.plots import MAX_ROWS, Panel, strip_plot
from loralab.report.figures.style import Caption, ReportFigure, figure_style
from loralab.report.run_data import RunData, read_run
from loralab.stats import Interval
from loralab.storage import experiment_folder, run_folder

_LETTERS = (*string.ascii_uppercase, *(f"{a}{b}" for a in string.ascii_uppercase for b in string.ascii_uppercase))
"""Names of the sets of test rows."""


@dataclass(frozen=True)
class DashboardRow:
    """An experiment or a run. values: test accuracies of its best configuration, one per seed, if tested; interval: of their mean.

    test_set: digest of the test rows. trials: (complete, planned).
    problem: why it cannot be read.
    """

    name: str
    kind: str
    recipe: str
    best: str = ""
    values: tuple[float, ...] = ()
    interval: Interval | None = None
    test_set: str = ""
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
    rows = [row for path in folders if (row := _read_row(path))]
    if not rows:
        raise LoralabError(f"{folder} is no run and no experiment, and holds none")
    return sorted(rows, key=lambda row: row.modified, reverse=True)


def dashboard_tables(rows: Sequence[DashboardRow]) -> list[ReportTable]:
    """Return a table of the experiments and one of the single runs, each only with rows."""
    sets = dict(zip(_test_sets(rows), _LETTERS, strict=False))
    experiments = []
    for r in (row for row in rows if row.kind != "run"):
        test = (len(r.values), "{} of {}".format(*r.trials), _test_set(r, sets))
        experiments.append((r.name, r.kind, r.recipe, r.problem or r.best, r.mean, r.interval, *test, r.modified[:10]))
    runs = [
        (r.name, r.recipe, r.problem or r.best, r.mean, r.interval, _test_set(r, sets), r.modified[:10])
        for r in rows
        if r.kind == "run"
    ]
    scores = ("test accuracy", "95 % CI", "seeds", "trials", "test rows", "modified")
    names = ("name", "kind", "recipe", "best configuration", *scores)
    run_names = ("name", "model and data", "seed", "test accuracy", "95 % CI", "test rows", "modified")
    tables = [
        ReportTable("experiments", "Experiments", names, experiments, 4),
        ReportTable("runs", "Single runs", run_names, runs, 3),
    ]
    return [table for table in tables if table.rows]


def draw_dashboard(rows: Sequence[DashboardRow]) -> list[ReportFigure]:
    """Draw the accuracies of all experiments and runs, a figure for each set of test rows."""
    drawings = []
    for digest, letter in zip(_test_sets(rows), _LETTERS, strict=False):
        shown = [row for row in rows if row.values and row.test_rows and row.test_set == digest]
        panel = Panel("test accuracy", [row.values for row in shown], [row.interval for row in shown])
        text = "Diamonds: means. Dots: seeds. Lines through the diamonds: 95 % confidence intervals, as in the tables."
        count = f"the newest {MAX_ROWS} of {len(shown)}" if len(shown) > MAX_ROWS else f"{len(shown)} with a result"
        caption = Caption(f"dashboard_{letter.lower()}", f"Test accuracy on set {letter}: {shown[0].test_rows:,} rows", count, text)
        with figure_style():
            drawing = strip_plot(caption, [row.name for row in shown], [panel])
        if drawing:
            drawings.append(drawing)
    return drawings


def _test_set(row: DashboardRow, sets: Mapping[str, str]) -> str:
    """Return the letter of a row's test rows and their number; the same letter means the same rows."""
    if not row.test_rows:
        return "differ" if row.values else ""
    return f"{sets.get(row.test_set, '')} {row.test_rows:,}".strip()


def _test_sets(rows: Sequence[DashboardRow]) -> list[str]:
    """Return the digests of the test rows, the set with the most results first."""
    counts = Counter(row.test_set for row in rows if row.values and row.test_rows)
    return [digest for digest, _ in counts.most_common()]


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
    digest = (best.trials[0].test_fingerprint or "") if data.same_test_rows else ""
    return DashboardRow(
        path.name,
        kind,
        recipe,
        format_point(best.factors),
        tuple(best.values(ACCURACY)),
        analysis.best_interval,
        digest,
        trials,
        data.test_rows if data.same_test_rows else 0,
        modified,
    )


def _run_row(run: RunData, modified: str) -> DashboardRow:
    recipe = f"{run.config.model.base} on {run.config.data.source}"
    if run.result is None:
        return DashboardRow(run.name, "run", recipe, "not complete", trials=(0, 1), modified=modified)
    return DashboardRow(
        run.name,
        "run",
        recipe,
        str(run.config.seed) if run.result.scores else f"{run.config.seed}, {NO_TEST_ROWS}",
        (run.result.scores["accuracy"],) if run.result.scores else (),
        run.accuracy_interval() if run.test_rows else None,
        test_set=str(run.environment.get("rows", {}).get("test", {}).get("fingerprint", "")),
        trials=(1, 1),
        test_rows=run.test_rows,
        modified=modified,
    )
