"""The runs and experiments of a folder, their test rows, and the comparison of two runs on them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loralab.config.loading import listed_settings
from loralab.errors import LoralabError
from loralab.report.run_data import count_scored_rows
from loralab.stats.intervals import wilson
from loralab.stats.mcnemar import mcnemar
from loralab.storage import experiment_folder, run_folder, run_predictions
from loralab.storage.sealed import Sealed, read_sealed
from loralab.tables import clip

_RESTORE = "restore the run from a copy, or train it again"
QUIET_SECONDS = 120.0
"""An incomplete run whose files did not change for so long has probably stopped."""
MAX_SHOWN_ROWS, MAX_CHARACTERS = 5000, 4000
MAX_DIFFERENCES, MAX_COMPARED = 300, 600


@dataclass(frozen=True)
class ScoredRow:
    """A test row with its prediction."""

    row: str
    true: str
    predicted: str
    confidence: float
    text: str

    @property
    def correct(self) -> bool:
        return self.true == self.predicted


class RunListing:
    """The runs and experiments in a folder, and others that are named, such as those of the loaded models.

    Clients name a run, and the name is looked up here. A report has a link that only those know who have seen the list, because a
    browser sends no API key with a link.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._cache: dict[Path, tuple[Any, dict[str, Any]]] = {}
        self._links: dict[Path, str] = {}
        self._reports: dict[str, Path] = {}

    def paths(self, others: Mapping[str, Path]) -> dict[str, Path]:
        """Return name → folder of all runs and experiments."""
        inside = sorted(self.folder.iterdir()) if self.folder is not None and self.folder.is_dir() else []
        known = {path.name: path for path in inside if _is_run(path) or experiment_folder.is_experiment(path)}
        resolved = {path.resolve() for path in known.values()} if others else set()
        return known | {name: path for name, path in others.items() if path.resolve() not in resolved and _is_run(path)}

    def rows(self, others: Mapping[str, Path]) -> list[dict[str, Any]]:
        """Return a line for each run and experiment, the latest first."""
        lines = [{"name": name, **self._line(path), "report": self._report(path)} for name, path in self.paths(others).items()]
        return sorted(lines, key=lambda line: line["modified"], reverse=True)

    def report(self, link: str) -> Path | None:
        """Return the file of a report by its link; None for an unknown one."""
        return self._reports.get(link)

    def _report(self, path: Path) -> str | None:
        page = path / run_folder.REPORT
        if not page.is_file():
            return None
        link = self._links.setdefault(page, secrets.token_urlsafe(16))
        self._reports[link] = page
        return link

    def _line(self, path: Path) -> dict[str, Any]:
        files = (run_folder.SCORES, run_folder.LOG, run_folder.CONFIG, experiment_folder.EXPERIMENT)
        times = [_modified(os.path.join(path, name)) for name in files]  # faster than `/`, which 10,000 runs would notice
        experiment = times[-1] > 0
        known = self._cache.get(path)
        if known is None or known[0] != times or experiment:
            try:
                line = _experiment_line(path) if experiment else run_line(path)
            except (LoralabError, OSError, KeyError, TypeError, ValueError) as error:
                line = {"kind": "experiment" if experiment else "run", "status": "damaged", "problem": str(error)}
            known = self._cache[path] = (times, {**line, "modified": max(times) / 1e9})
        line = known[1]
        if line["status"] == "running" and time.time() - line["modified"] > QUIET_SECONDS:
            line = {**line, "status": "stopped"}
        return line


def _modified(path: str) -> int:
    """Return when a file was changed, in ns; 0 without one."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _is_run(path: Path) -> bool:
    return (path / run_folder.CONFIG).is_file()


def run_line(path: Path) -> dict[str, Any]:
    """Return a run's settings and scores, or its progress. Raises LoralabError and KeyError for a damaged run."""
    complete = (path / run_folder.SCORES).is_file()
    sealed = read_sealed(path / run_folder.SCORES, _RESTORE) if complete else Sealed({})
    scores = sealed.content
    if "settings" in scores:
        _check_config_size(path, sealed)
        settings = scores["settings"]
    else:
        settings = listed_settings(run_folder.read_config(path))
    line: dict[str, Any] = {"kind": "run", **settings, "data": Path(settings["data"]).name}
    if not complete:
        return {**line, "status": "running", **progress_of(path)}
    values, rows = scores["scores"], count_scored_rows(scores["scores"])
    line |= {"status": "complete", "classes": len(scores["classes"]), "seconds": scores.get("seconds"), "test_rows": rows}
    if rows:
        low, _, high = wilson(round(values["accuracy"] * rows), rows)
        line |= {"accuracy": values["accuracy"], "low": low, "high": high, "macro_f1": values.get("macro_f1")}
    return {**line, "rows": (path / run_folder.PREDICTIONS).is_file(), "model": (path / run_folder.MODEL).is_dir()}


def _check_config_size(folder: Path, scores: Sealed) -> None:
    """Raise LoralabError unless config.yaml has the size that a complete run recorded.

    The line shows the settings in scores.json, so the SHA-256 of config.yaml, which takes longer than all the rest, is left to
    those who read the file.
    """
    path = folder / run_folder.CONFIG
    record, size = scores.files.get(run_folder.CONFIG), os.stat(path).st_size
    if record is not None and size != record.size:
        raise LoralabError(f"{path} is damaged: it has {size:,} bytes, and was written with {record.size:,}; {_RESTORE}")


def progress_of(folder: Path) -> dict[str, Any]:
    """Return how far a run is, from its log: step, steps, seconds, training loss, and the scores of each evaluation."""
    events = run_folder.read_log(folder)
    steps = [event for event in events if event["event"] == "StepEnd"]
    last = steps[-1] if steps else {}
    evaluations = [
        {"step": event["step"], **{name: event["scores"].get(name) for name in ("accuracy", "macro_f1", "loss")}}
        for event in events
        if event["event"] == "EvalEnd"
    ]
    return {
        "step": last.get("step", 0),
        "steps": last.get("steps", 0),
        "seconds": last.get("seconds"),
        "losses": [[event["step"], event["loss"]] for event in _thin(steps)],
        "evaluations": evaluations,
    }


def _thin(steps: list[dict[str, Any]], most: int = 200) -> list[dict[str, Any]]:
    stride = -(-len(steps) // most) or 1
    return steps[::stride]


def _experiment_line(path: Path) -> dict[str, Any]:
    experiment = experiment_folder.read_experiment(path)
    folders = [experiment_folder.recorded_run(path, record) for record in experiment.records]
    complete = [folder for folder in folders if (folder / run_folder.SCORES).is_file()]
    failed = sum(record.failure is not None for record in experiment.records)
    accuracies = [run_folder.read_scores(folder)["scores"].get("accuracy") for folder in complete]
    return {
        "kind": experiment.spec.kind,
        "status": "complete" if len(complete) + failed >= len(folders) else "incomplete",
        "question": experiment.spec.question,
        "data": ", ".join(experiment.spec.recipes),
        "trials": [len(complete), len(folders), failed],
        "accuracy": max((value for value in accuracies if value is not None), default=None),
    }


def read_rows(folder: Path) -> list[ScoredRow]:
    """Return all test rows of a run. Raises LoralabError for a run without them and for a damaged file."""
    with run_predictions.prediction_errors(folder):
        file = run_predictions.open_predictions(folder)
        if file is None:
            raise LoralabError("the run has no test rows with predictions")
        with file:
            return [
                ScoredRow(row["row"], row["true"], row["predicted"], float(row["confidence"]), row["text"])
                for row in run_predictions.prediction_rows(file)
            ]


def rows_to_check(folder: Path) -> dict[str, Any]:
    """Return a run's errors, the most confident first, then its correct rows, the least confident first."""
    rows = read_rows(folder)
    errors = sorted((row for row in rows if not row.correct), key=lambda row: -row.confidence)
    correct = sorted((row for row in rows if row.correct), key=lambda row: row.confidence)
    shown = [*errors, *correct][:MAX_SHOWN_ROWS]
    classes = [*run_folder.read_scores(folder)["classes"]]
    return {
        "classes": classes,
        "total": len(rows),
        "errors": len(errors),
        "rows": [[row.row, row.true, row.predicted, row.confidence, row.text[:MAX_CHARACTERS]] for row in shown],
    }


def compare_runs(first: Path, second: Path) -> dict[str, Any]:
    """Compare two runs row by row, if they have the same test rows: McNemar's test, and the rows where they differ."""
    a, b = read_rows(first), read_rows(second)
    if [(row.text, row.true) for row in a] != [(row.text, row.true) for row in b]:
        common = len({row.text for row in a} & {row.text for row in b})
        return {"same_rows": False, "rows": [len(a), len(b)], "common": common}
    result = mcnemar([row.correct for row in a], [row.correct for row in b])
    differing = [(x, y) for x, y in zip(a, b, strict=True) if x.predicted != y.predicted]
    differing.sort(key=lambda pair: -max(pair[0].confidence, pair[1].confidence))
    low, value, high = result.interval
    return {
        "same_rows": True,
        "rows": len(a),
        "accuracy": [float(np.mean([row.correct for row in rows])) for rows in (a, b)],
        "only_a": result.only_a,
        "only_b": result.only_b,
        "p": result.p,
        "difference": {"value": value, "low": low, "high": high},
        "differing": len(differing),
        "differences": [
            [x.row, x.true, x.predicted, x.confidence, y.predicted, y.confidence, clip(x.text, MAX_COMPARED)]
            for x, y in differing[:MAX_DIFFERENCES]
        ],
    }
