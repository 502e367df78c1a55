"""Experiment folder → its trials, and the configurations that they measure. Plain values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from loralab.errors import LoralabError
from loralab.report.formatting import is_number
from loralab.report.predictions import read_correct
from loralab.report.run_data import CompletedRun, Evaluation, count_scored_rows, parse_events, parse_result
from loralab.stats import FEWEST_SEEDS, Interval, mean_interval
from loralab.storage import experiment_folder, run_folder
from loralab.storage.experiment_folder import ExperimentSpec, Factor, TrialRecord

SEED = "seed"
"""The factor that is repetition, not a choice: trials that differ only in it measure one configuration."""
FactorItems = tuple[tuple[str, Factor], ...]


@dataclass(frozen=True)
class Score:
    """A score's name in scores.json, and whether it is that of the test or of the validation rows."""

    part: Literal["test", "validation"] = "test"
    name: str = "accuracy"

    def __str__(self) -> str:
        return f"{self.part} {self.name.replace('_f1', ' F1').replace('_', ' ')}"


ACCURACY, MACRO_F1, VALIDATION = Score(), Score(name="macro_f1"), Score("validation")


@dataclass(frozen=True)
class TrialData:
    """One trial. `result` is None for an incomplete one; pruned: why a search stopped it.

    rows: part → {count, fingerprint}, as recorded before training.
    """

    name: str
    folder: Path
    factors: Mapping[str, Factor]
    failure: str | None
    pruned: str | None
    result: CompletedRun | None
    rows: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]

    @property
    def state(self) -> str:
        """One of complete, pruned, failed, stopped, not started."""
        if self.result is not None or self.pruned is not None:
            return "complete" if self.result is not None else "pruned"
        return "failed" if self.failure is not None else "stopped" if self.evaluations else "not started"

    @property
    def seed(self) -> Factor:
        """The trial's seed; None where the experiment has no seeds."""
        return self.factors.get(SEED)

    @property
    def test_fingerprint(self) -> str | None:
        """The digest of the test rows; None where it was not recorded."""
        fingerprint = self.rows.get("test", {}).get("fingerprint")
        return None if fingerprint is None else str(fingerprint)

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_] | None:
        """Whether each test row was classified correctly, (rows,); None without predictions."""
        return read_correct(self.folder) if self.result else None

    def value(self, score: Score) -> float | None:
        """Return one score; None for an incomplete trial or an unknown score."""
        result = self.result
        return (result.scores if score.part == "test" else result.validation).get(score.name) if result else None


@dataclass(frozen=True)
class Point:
    """One configuration: the complete trials with the same factors, the seed aside."""

    factors: Mapping[str, Factor]
    trials: tuple[TrialData, ...]

    def by_seed(self, score: Score) -> dict[Factor, float]:
        """Return seed → score."""
        return {trial.seed: value for trial in self.trials if (value := trial.value(score)) is not None}

    def values(self, score: Score) -> list[float]:
        """Return the score of every seed."""
        return [value for trial in self.trials if (value := trial.value(score)) is not None]

    def std(self, score: Score) -> float | None:
        """Return the standard deviation between seeds (n - 1); None for one seed."""
        values = self.values(score)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_] | None:
        """Whether each seed classified each test row correctly, (seeds, rows); None without predictions of the same rows."""
        rows = [trial.correct for trial in self.trials]
        known = [row for row in rows if row is not None]
        same_rows = len({(trial.test_fingerprint, len(row)) for trial, row in zip(self.trials, known, strict=False)}) == 1
        return np.stack(known) if len(known) == len(rows) and same_rows else None

    @property
    def new_seeds(self) -> bool:
        """True where intervals hold for new seeds too, False where they hold for new rows and these models only."""
        return len(self.trials) >= FEWEST_SEEDS

    @cached_property
    def interval(self) -> Interval | None:
        """The 95 % interval of the mean test accuracy for new rows, and new seeds where there are enough; None if unknown."""
        return None if self.correct is None else mean_interval(self.correct)

    def mean(self, score: Score) -> float:
        """Return the mean over the seeds; nan without values."""
        return float(np.mean(self.values(score) or [np.nan]))

    def facts(self, name: str) -> list[float]:
        """Return a fact such as seconds, steps or trainable of every seed that has it."""
        return [facts[name] for trial in self.trials if trial.result and name in (facts := trial.result.facts())]

    def mean_fact(self, name: str) -> float:
        """Return the mean of a fact; nan where it is unknown."""
        return float(np.mean(self.facts(name) or [np.nan]))

    @property
    def training_rows(self) -> float:
        """The mean number of training rows; nan where it is unknown."""
        counts = [trial.rows.get("train", {}).get("count", np.nan) for trial in self.trials]
        return float(np.mean(counts or [np.nan]))

    def other_factors(self, *names: str) -> FactorItems:
        """Return the factors except these."""
        return tuple((name, value) for name, value in self.factors.items() if name not in names)


@dataclass(frozen=True)
class ExperimentData:
    """An experiment's question and every trial planned so far, in order."""

    folder: Path
    spec: ExperimentSpec
    trials: tuple[TrialData, ...]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @cached_property
    def complete(self) -> tuple[TrialData, ...]:
        """The trials with a result."""
        return tuple(trial for trial in self.trials if trial.result is not None)

    @property
    def unfinished(self) -> bool:
        """True when a trial has neither a result nor been pruned."""
        return any(trial.state not in ("complete", "pruned") for trial in self.trials)

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """The configurations with a result, in the order of the plan."""
        groups: dict[FactorItems, list[TrialData]] = {}
        for trial in self.complete:
            groups.setdefault(tuple((k, v) for k, v in self._named(trial).items() if k != SEED), []).append(trial)
        return tuple(Point(dict(factors), tuple(group)) for factors, group in groups.items())

    def _named(self, trial: TrialData) -> Mapping[str, Factor]:
        """Return a trial's factors, or one name for all of them where they are many: a compared recipe, a trial of a search."""
        if self.spec.kind == "compare" and "recipe" in trial.factors:
            return {"recipe": trial.factors["recipe"]}
        if self.spec.kind == "search" and trial.name.startswith("trial-"):
            return {"trial": int(trial.name.removeprefix("trial-"))}
        return trial.factors

    @cached_property
    def axes(self) -> dict[str, tuple[Factor, ...]]:
        """Each factor except the seed, with its values that have a result, in order of appearance."""
        names = dict.fromkeys(name for point in self.points for name in point.factors)
        return {name: tuple(dict.fromkeys(p.factors[name] for p in self.points if name in p.factors)) for name in names}

    @cached_property
    def numeric_factor(self) -> str | None:
        """The first numeric factor with several values."""
        return next((name for name, values in self.axes.items() if len(values) > 1 and all(map(is_number, values))), None)

    @cached_property
    def seeds(self) -> tuple[Factor, ...]:
        """The seeds of the complete trials."""
        return tuple(dict.fromkeys(trial.seed for trial in self.complete if trial.seed is not None))

    @cached_property
    def seconds(self) -> str:
        """The fact that costs are compared by: training_seconds, or seconds for runs that did not record it."""
        known = all(trial.result and trial.result.training_seconds is not None for trial in self.complete)
        return "training_seconds" if known else "seconds"

    @property
    def test_rows(self) -> int:
        """Rows behind a test score; 0 where trials differ in it."""
        counts = {count_scored_rows(trial.result.scores) for trial in self.complete if trial.result}
        return counts.pop() if len(counts) == 1 else 0

    @property
    def same_test_rows(self) -> bool:
        """True when the fingerprints of all trials' test rows agree."""
        return len({trial.test_fingerprint for trial in self.complete}) == 1

    @property
    def has_validation(self) -> bool:
        """True when every complete trial has validation scores."""
        return bool(self.complete) and all(trial.result and trial.result.validation for trial in self.complete)


def read_experiment_data(folder: Path) -> ExperimentData:
    """Read an experiment, complete or not. Raises LoralabError for a folder without one and for damaged files."""
    experiment = experiment_folder.read_experiment(folder)
    return ExperimentData(folder, experiment.spec, tuple(_read_trial(folder, record) for record in experiment.records))


def validation_curves(trials: Sequence[TrialData]) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Return the steps at which all trials were evaluated, and the validation accuracy there, (trials, steps)."""
    curves = [c for trial in trials if (c := {e.step: e.scores["accuracy"] for e in trial.evaluations if "accuracy" in e.scores})]
    steps = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return steps, np.array([[curve[step] for step in steps] for curve in curves])


def _read_trial(folder: Path, entry: TrialRecord) -> TrialData:
    path = experiment_folder.recorded_run(folder, entry)
    complete = (path / run_folder.SCORES).is_file()
    try:
        result = parse_result(run_folder.read_scores(path)) if complete else None
        rows = run_folder.read_environment(path).get("rows", {}) if (path / run_folder.ENVIRONMENT).is_file() else {}
        _, evaluations = parse_events(run_folder.read_log(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LoralabError(f"{path} is damaged ({error!r}): delete it, and run the experiment's command again") from error
    return TrialData(entry.name, path, entry.factors, None if complete else entry.failure, entry.pruned, result, rows, evaluations)
