"""Run folder → plain rows. No ink here: figures, texts and the page show what these hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loralab import metrics
from loralab.config import Config
from loralab.config.loading import describe_settings
from loralab.errors import LoralabError
from loralab.report.predictions import PredictionSummary, read_predictions
from loralab.stats import wilson
from loralab.storage import run_folder

OVERALL = ("accuracy", "macro_f1", "mcc", "kappa", "loss", "ece", "brier")
"""The scores that are not of one class, in the order they are shown; older runs lack some."""
LABELS = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "mcc": "Matthews correlation",
    "kappa": "Cohen's kappa",
    "loss": "Loss (cross entropy)",
    "ece": "Calibration error (ECE)",
    "brier": "Brier score",
}
_MANIFEST = "loralab.json"


@dataclass(frozen=True)
class Step:
    """One optimiser step, or several in a row: `loss` is then their mean, the rest that of the last."""

    step: int
    epoch: float
    learning_rate: float
    loss: float


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on the validation rows. train_loss: mean over the steps since the evaluation before; megabytes in use."""

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
class Result:
    """What a complete run came to: the contents of scores.json."""

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


@dataclass(frozen=True)
class SettingRow:
    """One setting with its value here and by default, and its meaning."""

    name: str
    value: Any
    default: Any
    meaning: str

    @property
    def changed(self) -> bool:
        """True when the value is not the default."""
        return bool(self.value != self.default)


@dataclass(frozen=True)
class RunTables:
    """Everything a report shows. `result` is None while the run is not complete; `model` is what the bundle says of itself."""

    name: str
    config: Config
    environment: Mapping[str, Any]
    classes: tuple[str, ...]
    steps: tuple[Step, ...]
    evaluations: tuple[Evaluation, ...]
    result: Result | None
    predictions: PredictionSummary | None
    diagnosis: Mapping[str, Any]
    model: Mapping[str, Any]

    @property
    def test_rows(self) -> int:
        """Rows behind the test scores."""
        return rows_scored(self.result.scores) if self.result else 0

    @property
    def validation_rows(self) -> int:
        """Rows behind every evaluation."""
        return rows_scored(self.evaluations[-1].scores) if self.evaluations else 0

    def rows_of(self, part: str) -> int | None:
        """Rows of train, validation or test, as they were written down before step 1."""
        count = self.environment.get("rows", {}).get(part, {}).get("count")
        return int(count) if count is not None else None

    def right(self) -> int:
        """Test rows classified right."""
        return round(self.result.scores["accuracy"] * self.test_rows) if self.result else 0

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the test accuracy."""
        found = wilson(self.right(), self.test_rows)
        return found.low, found.high

    def majority(self) -> tuple[str, float]:
        """The commonest class of the test rows, and the accuracy of always saying it."""
        rows = {row["class"]: row["true"] for row in self.per_class()}
        name = max(rows, key=rows.__getitem__)
        return name, rows[name] / self.test_rows

    def per_class(self) -> list[dict[str, Any]]:
        """One row a class of the test scores: class, precision, recall, f1, true, predicted."""
        return metrics.table(self.result.scores, self.classes) if self.result else []

    def counts(self) -> dict[str, int | float]:
        """Parameters apart: base, adapter, head, trainable, total, and the trainable share; empty where not known."""
        if not self.result or not self.result.counts:
            return {}
        found = self.result.counts
        total = found["base"] + found["adapter"] + found["head"]
        return {**found, "total": total, "share": found["trainable"] / total}

    def settings(self) -> list[SettingRow]:
        """Every setting, with dots."""
        here, default = _flat(self.config.model_dump(mode="json")), _flat(Config().model_dump(mode="json"))
        said = {name: text.partition("  ")[2] for name, text in describe_settings()}
        return [SettingRow(name, here[name], default[name], said.get(name, "")) for name in here]


def read_tables(folder: Path) -> RunTables:
    """Read a run, complete or not. Raises LoralabError for a folder that is no run and for damaged files."""
    config = run_folder.read_config(folder)
    environment = run_folder.read_environment(folder) if (folder / run_folder.ENVIRONMENT).is_file() else {}
    found = run_folder.read_scores(folder) if (folder / run_folder.SCORES).is_file() else None
    diagnosis, model = read_object(folder / run_folder.DIAGNOSIS), read_object(folder / run_folder.MODEL / _MANIFEST)
    try:
        steps, evaluations = read_events(run_folder.read_log(folder))
        result = read_result(found) if found else None
        classes = tuple(found["classes"] if found else environment.get("classes", model.get("classes", ())))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LoralabError(f"{folder} is damaged ({error!r}): train the run again with --overwrite") from error
    predictions = read_predictions(folder, classes)
    name = folder.resolve().name
    return RunTables(name, config, environment, classes, steps, evaluations, result, predictions, diagnosis, model)


def read_events(events: Sequence[Mapping[str, Any]]) -> tuple[tuple[Step, ...], tuple[Evaluation, ...]]:
    """Tell steps and evaluations apart, and give every evaluation the mean training loss since the one before."""
    steps: list[Step] = []
    evaluations: list[Evaluation] = []
    first = 0
    for event in events:
        if event["event"] == "StepEnd":
            steps.append(Step(event["step"], event["epoch"], event["learning_rate"], event["loss"]))
        elif event["event"] == "EvalEnd":
            since, memory = steps[first:], event.get("memory") or {}
            evaluations.append(
                Evaluation(
                    event["step"],
                    event["epoch"],
                    event["scores"],
                    event["improved"],
                    event["seconds"],
                    steps[-1].learning_rate if steps else None,
                    sum(step.loss for step in since) / len(since) if since else None,
                    memory.get("process_mb"),
                    memory.get("gpu_mb"),
                )
            )
            first = len(steps)
    return tuple(steps), tuple(evaluations)


def thin(steps: Sequence[Step], most: int) -> list[Step]:
    """At most so many steps: each stands for a group of neighbours and holds their mean loss."""
    size = math.ceil(len(steps) / most) or 1
    groups = [steps[i : i + size] for i in range(0, len(steps), size)]
    return [Step(g[-1].step, g[-1].epoch, g[-1].learning_rate, sum(s.loss for s in g) / len(g)) for g in groups]


def rows_scored(scores: Mapping[str, float]) -> int:
    """Rows behind a set of scores: the sum of its true:NAME."""
    return int(sum(value for name, value in scores.items() if name.startswith("true:")))


def one_line(text: str) -> str:
    """Return a text with every run of white space, line breaks too, as one space."""
    return " ".join(text.split())


def shorten(text: str, most: int) -> str:
    """Return a text in one line of at most so many characters; what is left out is in the middle, where names differ least."""
    text = one_line("".join(c if c.isprintable() else " " for c in text))
    if len(text) <= most:
        return text
    tail = (most - 1) // 3
    return f"{text[: most - 1 - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object that need not be there: then it is empty. Raises LoralabError when it is damaged."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except (OSError, ValueError) as error:
        raise LoralabError(f"cannot read {path} ({error}): restore it, or delete it") from error
    return content


def read_result(found: Mapping[str, Any]) -> Result:
    """Read the contents of scores.json. Raises KeyError for what must be there and is not."""
    return Result(
        scores=found["scores"],
        validation=found.get("validation") or {},
        temperature=found.get("temperature"),
        calibrated=found.get("calibrated") or {},
        counts=found.get("counts") or {},
        **{key: found[key] for key in ("steps", "best_step", "stopped_early", "seconds", "samples_per_second")},
    )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inner = Config.model_fields[name].annotation
        if isinstance(value, dict) and isinstance(inner, type):
            flat |= {f"{name}.{key}": each for key, each in value.items()}
        else:
            flat[name] = value
    return flat
