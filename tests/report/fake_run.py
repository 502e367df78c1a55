"""Run folders written by hand, without training: `from fake_run import make_run`."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sealing import SEAL
from sklearn.metrics import cohen_kappa_score, matthews_corrcoef

from loralab import metrics
from loralab.config import Config
from loralab.config.run_settings import END_OF_SETTINGS
from loralab.storage import run_folder

CLASSES = ("World", "Sports", "Business", "Sci/Tech")
HOSTILE = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "</style></svg><svg onload='window.hacked = 1'>",
    "{{ 7 * 7 }} $x_{ _a|b`c \x07 \u202e",
)
TEMPERATURE = 0.5


def make_run(
    folder: Path, classes: Sequence[str] = CLASSES, *, rows: int = 200, seed: int = 0, text: str = "some text", **settings: str
) -> Path:
    """Write a complete run of 40 steps and 4 evaluations with a diagnosis; about a quarter of its test rows are misclassified.

    `settings`: overrides with __ for the dot, such as data__source="x.csv".
    """
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % len(classes)
    logits = random.normal(size=(rows, len(classes))).astype(np.float32)
    logits[np.arange(rows), labels] += 1.5
    logits = logits.round(4)
    config = Config().override(*(f"{key.replace('__', '.')}={value}" for key, value in settings.items()))
    (folder / "model").mkdir(parents=True)
    (folder / run_folder.CONFIG).write_text(config.to_yaml() + END_OF_SETTINGS, encoding="utf-8")
    parts = {name: {"count": count, "fingerprint": "0123abcd"} for name, count in (("train", 640), ("test", rows))}
    machine = {"versions": {"loralab": "0", "torch": "0"}, "machine": {"python": "3", "cores": 2}}
    base = {"name": config.model.base, "sha256": "53aa"}
    setting = {"device": "cpu", "precision": "fp32", "threads": 1}
    _json(folder / run_folder.ENVIRONMENT, {**machine, **setting, "base": base, "classes": [*classes], "rows": parts})
    manifest = {"pooling": "mean", "head": "linear", "dims": {"layers": 6, "width": 384}, "base_folder": "/secret/place"}
    _json(folder / "model" / "loralab.json", manifest)
    (folder / "model" / "adapter_config.json").write_text("{}", encoding="utf-8")
    (folder / "model" / "head.safetensors").write_bytes(b"")
    scores = all_scores(logits, labels, classes)
    events = [event for step in range(1, 41) for event in _events(step, scores)]
    (folder / run_folder.LOG).write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    _predictions(folder / run_folder.PREDICTIONS, logits, labels, classes, text)
    outcome = {"steps": 40, "best_step": 30, "stopped_early": False, "seconds": 12.5, "samples_per_second": 51.2}
    timing = {"preparation": 2.0, "cache": 0.5, "training": 8.0, "step": 0.2, "evaluation": 1.5, "test": 1.0}
    memory = {"start": 250.0, "process": 900.0, "gpu": None, "gradients": 0.0004, "optimizer": 0.0008, "checkpoint": 0.002}
    outcome |= {"timing": timing, "memory": {**memory, "model": 0.5}}
    counts = {"base": 1000, "adapter": 60, "head": 40, "trainable": 100}
    fitted = {"temperature": TEMPERATURE, "calibrated": {key: scores[key] for key in ("loss", "ece", "brier")}}
    found = {"name": folder.name, "folder": str(folder), "scores": scores, "validation": scores, **fitted}
    _json(folder / run_folder.SCORES, {**found, "classes": [*classes], "counts": counts, **outcome, "fingerprint": "f" * 16})
    _json(folder / run_folder.DIAGNOSIS, _diagnosis(classes, text))
    return folder


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes a key. A sealed file becomes one without checksums."""
    content = json.loads(path.read_text(encoding="utf-8")) | dict.fromkeys(SEAL) | changes
    _json(path, {key: value for key, value in content.items() if value is not None})


def ece_by_hand(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Guo et al. (2017), equation 3, a row at a time."""
    gaps = 0.0
    for number in range(bins):
        inside = [i for i, row in enumerate(probabilities) if number / bins < row.max() <= (number + 1) / bins]
        if inside:
            right = np.mean([probabilities[i].argmax() == labels[i] for i in inside])
            sure = np.mean([probabilities[i].max() for i in inside])
            gaps += len(inside) / len(labels) * abs(right - sure)
    return gaps


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def read_rows(folder: Path, classes: Sequence[str] = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits of predictions.csv, read without the package."""
    with (folder / run_folder.PREDICTIONS).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    logits = np.array([[float(row[f"logit:{name}"]) for name in classes] for row in rows])
    return np.array([[*classes].index(row["true"]) for row in rows]), logits


def all_scores(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    chances, predicted = softmax(logits), logits.argmax(axis=1)
    truth = np.eye(len(classes))[labels]
    return metrics.scores(logits, labels, classes) | {
        "mcc": float(matthews_corrcoef(labels, predicted)),
        "kappa": float(cohen_kappa_score(labels, predicted)),
        "ece": ece_by_hand(chances, labels),
        "brier": float(((chances - truth) ** 2).sum(axis=1).mean()),
    }


def _events(step: int, scores: dict[str, float]) -> list[dict[str, Any]]:
    facts = {"step": step, "epoch": step / 20, "seconds": step * 0.25}
    more = {"steps": 40, "learning_rate": 0.001 * (1 - step / 40), "gradient_norm": 1.0, "samples": 16 * step}
    events = [{"event": "StepEnd", **facts, **more, "loss": 2.0 - step / 40}]
    if step % 10 == 0:
        worse = {key: value - 0.001 * (40 - step) if key in ("accuracy", "macro_f1") else value for key, value in scores.items()}
        memory = {"process_mb": 1234.5, "gpu_mb": None}
        events.append({"event": "EvalEnd", **facts, "scores": worse, "improved": step == 30, "memory": memory})
    return events


def _predictions(path: Path, logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], text: str) -> None:
    confidence = softmax(logits / TEMPERATURE).max(axis=1)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["row", "true", "predicted", "confidence", *(f"logit:{name}" for name in classes), "text"])
        for i, values in enumerate(logits):
            found = [i, classes[labels[i]], classes[values.argmax()], f"{confidence[i]:.5f}"]
            table.writerow([*found, *(f"{value:.4f}" for value in values), f"{text} {i}"])


def _diagnosis(classes: Sequence[str], text: str) -> dict[str, Any]:
    rows = [["typos", 0.5, -0.25, 12], [text, 0.9375, 0.0, 1234]]
    section = {"title": f"Robustness {text}", "summary": text, "columns": ["damage", "accuracy", "change", text], "rows": rows}
    tokens = [["Oil ", 0.5], ["sli", -0.25], ["ps ", 0.001], [text, 1.0]]
    explained = {"text": text, "true": classes[0], "predicted": classes[1], "confidence": 0.75, "tokens": tokens}
    return {"sections": [{**section, "note": text}], "attributions": [explained, {**explained, "true": None}]}


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
