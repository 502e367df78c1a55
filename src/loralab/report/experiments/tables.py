"""Experiment folder → its trials as rows, and the points that they measure. No ink and no words here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from loralab.errors import LoralabError
from loralab.report.predictions import read_right
from loralab.report.tables import Evaluation, Result, read_events, read_result, rows_scored
from loralab.stats import Summary, summary
from loralab.storage import experiment_folder, run_folder
from loralab.storage.experiment_folder import ExperimentSpec, Factor, TrialRecord

SEED = "seed"
"""The factor that is luck, not a choice: trials that differ in it alone measure one point."""


@dataclass(frozen=True)
class Score:
    """Which score is looked at, and of which rows; `test` and `validation` as in scores.json."""

    part: Literal["test", "validation"] = "test"
    name: str = "accuracy"

    def __str__(self) -> str:
        """As it is told: `test accuracy`."""
        return f"{self.part} {self.name.replace('_', ' ')}"


@dataclass(frozen=True)
class TrialRow:
    """One trial. `result` is None where it has none; `rows`: part → {count, fingerprint}, as written down before its step 1."""

    name: str
    folder: Path
    factors: Mapping[str, Factor]
    failure: str | None
    result: Result | None
    rows: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]

    @property
    def state(self) -> str:
        """complete, failed, stopped or not begun."""
        if self.result is not None:
            return "complete"
        return "failed" if self.failure is not None else "stopped" if self.evaluations else "not begun"

    @property
    def seed(self) -> Factor:
        """What is varied for luck's sake alone."""
        return self.factors.get(SEED)

    def value(self, score: Score) -> float | None:
        """One score of a complete trial."""
        if self.result is None:
            return None
        return (self.result.scores if score.part == "test" else self.result.validation).get(score.name)

    def right(self) -> dict[str, bool]:
        """Each test row by its number: whether it was classified right. Empty without predictions. Reads the file."""
        return read_right(self.folder)


@dataclass(frozen=True)
class Point:
    """The complete trials of one combination of factors, seeds aside."""

    factors: Mapping[str, Factor]
    trials: tuple[TrialRow, ...]

    def by_seed(self, score: Score) -> dict[Factor, float]:
        """Seed → score."""
        return {trial.seed: value for trial in self.trials if (value := trial.value(score)) is not None}

    def values(self, score: Score) -> list[float]:
        """The score of every seed."""
        return [value for trial in self.trials if (value := trial.value(score)) is not None]

    def summary(self, score: Score) -> Summary | None:
        """Mean, deviation and intervals over the seeds; None without trials."""
        values = self.values(score)
        return summary(values) if values else None

    def mean(self, score: Score) -> float:
        """The mean over the seeds; not a number without trials."""
        return float(np.mean(self.values(score) or [np.nan]))

    def facts(self, name: str) -> list[float]:
        """A fact such as seconds, steps or trainable, of every seed where it is known."""
        found = [facts(trial.result).get(name) for trial in self.trials if trial.result]
        return [value for value in found if value is not None]

    def mean_of(self, name: str) -> float:
        """The mean of a fact; not a number where it is not known."""
        return float(np.mean(self.facts(name) or [np.nan]))

    @property
    def training_rows(self) -> float:
        """The mean number of training rows; not a number where it is not known."""
        counts = [trial.rows.get("train", {}).get("count", np.nan) for trial in self.trials]
        return float(np.mean(counts or [np.nan]))


@dataclass(frozen=True)
class LabTables:
    """An experiment as rows: its question and every trial planned so far, in order."""

    folder: Path
    question: ExperimentSpec
    trials: tuple[TrialRow, ...]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @cached_property
    def complete(self) -> tuple[TrialRow, ...]:
        """The trials that have a result."""
        return tuple(trial for trial in self.trials if trial.result is not None)

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """One for each combination of factors that has a result, in the order of the plan."""
        found: dict[tuple[tuple[str, Factor], ...], list[TrialRow]] = {}
        for trial in self.complete:
            found.setdefault(tuple((k, v) for k, v in trial.factors.items() if k != SEED), []).append(trial)
        return tuple(Point(dict(factors), tuple(group)) for factors, group in found.items())

    @cached_property
    def axes(self) -> dict[str, tuple[Factor, ...]]:
        """Each factor but the seed, with its points that have a result, in order of appearance."""
        found: dict[str, dict[Factor, None]] = {}
        for point in self.points:
            for name, value in point.factors.items():
                found.setdefault(name, {})[value] = None
        return {name: tuple(values) for name, values in found.items()}

    @cached_property
    def seeds(self) -> tuple[Factor, ...]:
        """The seeds that any complete trial has."""
        return tuple(dict.fromkeys(trial.seed for trial in self.complete if trial.seed is not None))

    @property
    def fewest_seeds(self) -> int:
        """Trials of the point that has the fewest."""
        return min((len(point.trials) for point in self.points), default=0)

    @property
    def test_rows(self) -> int:
        """Rows behind a test score; 0 where trials differ in it."""
        counts = {rows_scored(trial.result.scores) for trial in self.complete if trial.result}
        return counts.pop() if len(counts) == 1 else 0

    @property
    def same_test_rows(self) -> bool:
        """True where all trials were tested on the very same rows, as their fingerprints tell."""
        return len({trial.rows.get("test", {}).get("fingerprint") for trial in self.complete}) == 1

    @property
    def validated(self) -> bool:
        """True where every complete trial has validation scores."""
        return bool(self.complete) and all(trial.result and trial.result.validation for trial in self.complete)

    @property
    def seconds(self) -> float:
        """Training time of all complete trials together."""
        return sum(trial.result.seconds for trial in self.complete if trial.result)


def read_lab(folder: Path) -> LabTables:
    """Read an experiment, complete or not. Raises LoralabError for a folder that is none and for damaged files."""
    experiment = experiment_folder.read_experiment(folder)
    return LabTables(folder, experiment.question, tuple(_trial(folder, entry) for entry in experiment.entries))


def facts(result: Result) -> dict[str, float]:
    """What a result says apart from scores: counts of parameters, steps, seconds."""
    found: dict[str, float] = {**result.counts, "steps": result.steps, "best_step": result.best_step, "seconds": result.seconds}
    return {**found, "samples_per_second": result.samples_per_second}


def curves(rows: Sequence[TrialRow], name: str = "accuracy") -> tuple[list[int], npt.NDArray[np.float64]]:
    """Return the steps at which all of these trials were evaluated, and one validation score there, (trials, steps)."""
    found = [{e.step: e.scores[name] for e in trial.evaluations if name in e.scores} for trial in rows]
    found = [each for each in found if each]
    steps = sorted(set.intersection(*(set(each) for each in found))) if found else []
    return steps, np.array([[each[step] for step in steps] for each in found])


def is_number(value: object) -> bool:
    """True for a number that is no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _trial(folder: Path, entry: TrialRecord) -> TrialRow:
    where = experiment_folder.trial_folder(folder, entry)
    complete = (where / run_folder.SCORES).is_file()
    try:
        result = read_result(run_folder.read_scores(where)) if complete else None
        rows = run_folder.read_environment(where).get("rows", {}) if (where / run_folder.ENVIRONMENT).is_file() else {}
        _, evaluations = read_events(run_folder.read_log(where))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LoralabError(f"{where} is damaged ({error!r}): delete it, and give the experiment's command again") from error
    return TrialRow(entry.name, where, entry.factors, None if complete else entry.failure, result, rows, evaluations)
