"""Experiment folders written by hand: `from fake_experiment import make_experiment`."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from fake_run import edit, make_run

from loralab.storage import run_folder
from loralab.storage.experiment_folder import TRIALS, ExperimentSpec, Factor, TrialRecord, write_experiment

Factors = Mapping[str, Factor]
ROWS = 400


@cache
def _template_run() -> Path:
    """One run of 400 test rows; all trials are copies of it."""
    return make_run(Path(mkdtemp()) / "run", rows=ROWS)


def make_experiment(
    folder: Path,
    kind: str,
    trials: Sequence[tuple[Factors, float]],
    *,
    failed: Sequence[Factors] = (),
    waiting: Sequence[Factors] = (),
    recipes: Sequence[str] = ("quickstart",),
    question: str = "Which?",
    gap: float = 0.05,
) -> Path:
    """Write an experiment of trials (factors, test accuracy). Macro F1 is 0.01 less, validation accuracy `gap` more; a trial with
    the factor data.max_train_samples was trained on that many rows. `failed` trials have a reason, `waiting` ones nothing.

    Rows are as difficult for every trial: a trial with more correct rows has all that one with fewer has."""
    entries = [TrialRecord(_name(factors), dict(factors), "f" * 16) for factors, _ in trials]
    for factors, accuracy in trials:
        _trial(folder / TRIALS / _name(factors), factors, accuracy, gap)
    entries += [TrialRecord(_name(factors), dict(factors), "f" * 16, "CUDA is out of memory") for factors in failed]
    entries += [TrialRecord(_name(factors), dict(factors), "f" * 16) for factors in waiting]
    varied: dict[str, list[Factor]] = {}
    for entry in entries:
        for name, value in entry.factors.items():
            varied.setdefault(name, [])
            if value not in varied[name]:
                varied[name].append(value)
    write_experiment(folder, ExperimentSpec(kind, question, tuple(recipes), ("train.epochs=3",), varied), entries)
    return folder


def over_seeds(points: Sequence[tuple[Factors, Sequence[float]]]) -> list[tuple[Factors, float]]:
    """Trials of points (factors, accuracy of seed 1, of seed 2, ...)."""
    return [({**factors, "seed": seed}, value) for factors, values in points for seed, value in enumerate(values, 1)]


def answer(folder: Path, factors: Factors, correct: Sequence[bool]) -> None:
    """Set which of the 400 test rows a trial classifies correctly."""
    _write_predictions(folder / TRIALS / _name(factors), correct)


@cache
def _template_predictions() -> list[dict[str, str]]:
    with (_template_run() / run_folder.PREDICTIONS).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write_predictions(folder: Path, correct: Sequence[bool]) -> None:
    rows = [dict(row) for row in _template_predictions()]
    for row, right in zip(rows, correct, strict=True):
        row["predicted"] = row["true"] if right else next(name for name in ("World", "Sports") if name != row["true"])
    with (folder / run_folder.PREDICTIONS).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _name(factors: Factors) -> str:
    return "_".join(f"{name.rpartition('.')[2]}-{value}" for name, value in factors.items()).replace("/", "-")[:200]


def _trial(folder: Path, factors: Factors, accuracy: float, gap: float) -> None:
    shutil.copytree(_template_run(), folder)
    template: dict[str, Any] = run_folder.read_scores(folder)
    scores = {**template["scores"], "accuracy": accuracy, "macro_f1": accuracy - 0.01}
    edit(folder / run_folder.SCORES, scores=scores, validation={**scores, "accuracy": accuracy + gap})
    _write_predictions(folder, [row < round(accuracy * ROWS) for row in range(ROWS)])
    if "data.max_train_samples" in factors:
        parts = run_folder.read_environment(folder)["rows"]
        parts["train"]["count"] = factors["data.max_train_samples"]
        edit(folder / run_folder.ENVIRONMENT, rows=parts)
    log = [json.loads(line) for line in (folder / run_folder.LOG).read_text(encoding="utf-8").splitlines()]
    for event in log:
        if event["event"] == "EvalEnd":
            event["scores"]["accuracy"] = accuracy - 1 / event["step"]
    (folder / run_folder.LOG).write_text("".join(json.dumps(event) + "\n" for event in log), encoding="utf-8")
