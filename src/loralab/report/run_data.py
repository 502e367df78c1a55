"""Run folder → plain values. Figures, texts and pages show what these hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loralab import metrics
from loralab.config import Config
from loralab.config.loading import setting_table
from loralab.errors import LoralabError
from loralab.report.formatting import early_stopping
from loralab.report.predictions import PredictionSummary, read_predictions
from loralab.safe_files import exists
from loralab.stats import Interval, wilson
from loralab.storage import run_folder

SCORE_LABELS = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "balance": "Category balance",
    "mcc": "Matthews correlation",
    "kappa": "Cohen's kappa",
    "loss": "Loss (cross entropy)",
    "ece": "Calibration error (ECE)",
    "brier": "Brier score",
}
"""The scores over all classes, in the order of display."""
SCORE_MEANINGS = {
    "accuracy": "share of the rows that are classified correctly",
    "macro_f1": "mean F1 of the classes, small classes counting as much as large ones",
    "balance": "lowest F1 of a class over the highest; 1: all classes are recognized equally well",
    "mcc": "correlation of true and predicted classes; 0: no better than chance, 1: no errors",
    "kappa": "agreement of true and predicted classes beyond chance; 0: chance, 1: no errors",
    "loss": "mean of \u2212ln(probability of the true class); lower is better",
    "ece": "mean gap between confidence and accuracy; lower is better",
    "brier": "mean squared error of the probabilities; lower is better",
}
"""What the scores over all classes measure."""


@dataclass(frozen=True)
class Step:
    """One optimizer step, or a group of them: then `loss` is their mean and the rest is the last step's."""

    step: int
    epoch: float
    learning_rate: float
    loss: float


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on the validation rows. train_loss: mean since the previous evaluation; process_mb, gpu_mb: memory in MB."""

    step: int
    epoch: float
    scores: Mapping[str, float]
    improved: bool
    seconds: float
    learning_rate: float | None
    train_loss: float | None
    process_mb: float | None
    gpu_mb: float | None


@dataclass(frozen=True)
class CompletedRun:
    """The contents of scores.json. scores: empty without test rows. calibrated: with the temperature; counts: parameters.

    timing: seconds by phase; memory: MB of 10⁶ bytes by what takes them (`loralab.pipeline.RunSummary`); empty if not recorded.
    """

    scores: Mapping[str, float]
    validation: Mapping[str, float]
    temperature: float | None
    calibrated: Mapping[str, float]
    counts: Mapping[str, int]
    steps: int
    best_step: int
    stopped_early: bool
    seconds: float
    samples_per_second: float
    timing: Mapping[str, float | None]
    memory: Mapping[str, float | None]
    stopped_by_callback: bool = False

    def facts(self) -> dict[str, float]:
        """Return parameter counts, steps, seconds and throughput."""
        names = ("steps", "best_step", "seconds", "training_seconds", "samples_per_second")
        return {**self.counts, **{key: value for key in names if (value := getattr(self, key)) is not None}}

    @property
    def training_seconds(self) -> float | None:
        """The seconds of the training steps, without preparation, which the first of several runs pays for all; None if unknown."""
        return self.timing.get("training")


@dataclass(frozen=True)
class SettingRow:
    """A setting with its value, default and description."""

    name: str
    value: Any
    default: Any
    description: str

    @property
    def changed(self) -> bool:
        """True when the value is not the default."""
        return bool(self.value != self.default)


@dataclass(frozen=True)
class RunData:
    """Everything a run's report shows. `result` is None for an incomplete run; `model` is the manifest of the saved model."""

    name: str
    config: Config
    environment: Mapping[str, Any]
    classes: tuple[str, ...]
    steps: tuple[Step, ...]
    evaluations: tuple[Evaluation, ...]
    result: CompletedRun | None
    predictions: PredictionSummary | None
    diagnosis: Mapping[str, Any]
    model: Mapping[str, Any]

    @property
    def test_rows(self) -> int:
        """The number of test rows scored."""
        return count_scored_rows(self.result.scores) if self.result else 0

    @property
    def validation_rows(self) -> int:
        """The number of validation rows of every evaluation."""
        return count_scored_rows(self.evaluations[-1].scores) if self.evaluations else 0

    def row_count(self, part: str) -> int | None:
        """Return the rows of `train`, `validation` or `test`, as recorded before training."""
        count = self.environment.get("rows", {}).get(part, {}).get("count")
        return int(count) if count is not None else None

    @property
    def monitor(self) -> str:
        """The name of the monitored score."""
        return self.config.train.monitor

    @property
    def tracked(self) -> tuple[str, ...]:
        """The monitored score, then those of `train.track`, without those that no evaluation and no test has."""
        names = metrics.tracked_scores(self.monitor, self.config.train.track, self.classes)
        known = {name for row in self.evaluations for name in row.scores} | {*(self.result.scores if self.result else ())}
        return tuple(name for name in names if name in known)

    def tracked_labels(self) -> dict[str, str]:
        """Return the tracked scores that SCORE_LABELS does not have, under their own names."""
        return {name: name for name in self.tracked if name not in SCORE_LABELS}

    def stop_reason(self) -> str:
        """Return why the run stopped early; empty if it did not."""
        result, train = self.result, self.config.train
        if result is None or not result.stopped_early:
            return ""
        best = result.validation.get(train.monitor)
        return early_stopping(train.monitor, best, result.best_step, result.steps, train.patience, result.stopped_by_callback)

    def correct(self) -> int:
        """Return the number of test rows classified correctly."""
        return round(self.result.scores["accuracy"] * self.test_rows) if self.result and self.result.scores else 0

    def accuracy_interval(self) -> Interval:
        """Return the 95 % interval (Wilson) of the test accuracy."""
        return wilson(self.correct(), self.test_rows)

    def majority_class(self) -> tuple[str, float]:
        """Return the most frequent class of the test rows, and the accuracy of always predicting it."""
        rows = {row["class"]: row["true"] for row in self.per_class()}
        name = max(rows, key=rows.__getitem__)
        return name, rows[name] / self.test_rows

    def per_class(self) -> list[dict[str, Any]]:
        """Return the test scores of each class, as `metrics.table` does; none without test rows."""
        return metrics.table(self.result.scores, self.classes) if self.result and self.result.scores else []

    def temperature_remark(self) -> str:
        """Return how the probabilities were calibrated, as a sentence; empty without a temperature."""
        temperature = self.result.temperature if self.result else None
        return "" if temperature is None else metrics.temperature_remark(temperature, self.validation_rows)

    def macro_remark(self) -> str:
        """Return which classes the test's macro F1 leaves out; empty if every class has test rows."""
        return metrics.macro_remark(self.result.scores, self.classes) if self.result and self.result.scores else ""

    def parameters(self) -> dict[str, int | float]:
        """Return parameter counts: base, adapter, head, trainable, total, and the trainable share; empty when unknown."""
        counts = self.result.counts if self.result else {}
        if not counts:
            return {}
        total = counts["base"] + counts["adapter"] + counts["head"]
        return {**counts, "total": total, "share": counts["trainable"] / total}

    def settings(self) -> list[SettingRow]:
        """Return every setting under its dotted name."""
        values, defaults = self.config.flatten(), Config().flatten()
        descriptions = {setting.name: setting.description for setting in setting_table()}
        return [SettingRow(name, values[name], defaults[name], descriptions.get(name, "")) for name in values]


def read_run(folder: Path) -> RunData:
    """Read a run, complete or not. Raises LoralabError for a folder that is not a run and for damaged files."""
    complete = exists(folder / run_folder.SCORES)
    config, environment = run_folder.read_config(folder), run_folder.read_environment(folder)
    run_folder.check_recorded(folder, run_folder.DATA)
    scores = run_folder.read_scores(folder) if complete else None
    diagnosis, model = run_folder.read_diagnosis(folder), run_folder.read_model_facts(folder)
    try:
        steps, evaluations = parse_events(run_folder.read_log(folder))
        result = parse_result(scores) if scores else None
        classes = tuple(scores["classes"] if scores else environment.get("classes", model.get("classes", ())))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise LoralabError(f"{folder} is damaged ({error!r}): train the run again with --overwrite") from error
    name, predictions = folder.resolve().name, read_predictions(folder, classes)
    return RunData(name, config, environment, classes, steps, evaluations, result, predictions, diagnosis, model)


def parse_events(events: Sequence[Mapping[str, Any]]) -> tuple[tuple[Step, ...], tuple[Evaluation, ...]]:
    """Split a log's events into steps and evaluations; each evaluation gets the mean training loss since the previous one."""
    steps: list[Step] = []
    evaluations: list[Evaluation] = []
    first = 0
    for event in events:
        if event["event"] == "StepEnd":
            steps.append(Step(event["step"], event["epoch"], event["learning_rate"], event["loss"]))
        elif event["event"] == "EvalEnd":
            since, memory = steps[first:], event.get("memory") or {}
            recorded = {key: event[key] for key in ("step", "epoch", "scores", "improved", "seconds")}
            rate = steps[-1].learning_rate if steps else None
            loss = sum(step.loss for step in since) / len(since) if since else None
            used: dict[str, Any] = {key: memory.get(key) for key in ("process_mb", "gpu_mb")}
            evaluations.append(Evaluation(**recorded, learning_rate=rate, train_loss=loss, **used))
            first = len(steps)
    return tuple(steps), tuple(evaluations)


def parse_result(scores: Mapping[str, Any]) -> CompletedRun:
    """Parse the contents of scores.json. Raises KeyError for a missing required key."""
    required = ("scores", "steps", "best_step", "stopped_early", "seconds", "samples_per_second")
    optional: dict[str, Any] = {key: scores.get(key) or {} for key in ("validation", "calibrated", "counts", "timing", "memory")}
    optional |= {"temperature": scores.get("temperature"), "stopped_by_callback": bool(scores.get("stopped_by_callback"))}
    return CompletedRun(**{key: scores[key] for key in required}, **optional)


def thin_steps(steps: Sequence[Step], max_steps: int) -> list[Step]:
    """Return at most `max_steps` steps, each the mean of a group of neighbours."""
    size = math.ceil(len(steps) / max_steps) or 1
    groups = [steps[i : i + size] for i in range(0, len(steps), size)]
    return [Step(g[-1].step, g[-1].epoch, g[-1].learning_rate, sum(s.loss for s in g) / len(g)) for g in groups]


def count_scored_rows(scores: Mapping[str, float]) -> int:
    """Return the number of rows behind a set of scores: the sum of its true:CLASS."""
    return int(sum(value for name, value in scores.items() if name.startswith("true:")))
