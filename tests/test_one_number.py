"""Train, evaluate, diagnose and predict give the same numbers for the same rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_checkpoint, topics, write_csv

import loralab.inference.saved_scores
from loralab import Classifier, load_config
from loralab.diagnostics.diagnose import diagnose
from loralab.metrics import softmax
from loralab.pipeline import run_training

CASES = {
    "cached": ("lora.layers=2",),
    "all layers": ("lora.targets=all",),
    "full": ("tuning=full", "model.freeze=embeddings,0", "train.learning_rate=0.003"),
    "head": ("tuning=head",),
    "checkpointing": ("lora.layers=2", "train.gradient_checkpointing=true"),
    "fp32": ("train.precision=fp32", "lora.layers=1,2"),
}
"""Settings under which the saved model computes differently from the trained one, or starts from the feature cache."""


@pytest.fixture(scope="module")
def kernel_sized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with widths that the C kernels compute, where the CPU has them."""
    sizes = {"hidden_size": 64, "intermediate_size": 128}
    return make_checkpoint(tmp_path_factory.mktemp("kernel-sized") / "bert", **sizes)


@pytest.mark.parametrize("case", CASES)
def test_every_command_gives_the_same_scores(kernel_sized: Path, tmp_path: Path, case: str) -> None:
    train = write_csv(tmp_path / "train.csv", topics(20))
    test, validation = (write_csv(tmp_path / f"{seed}.csv", topics(15, seed)) for seed in (1, 2))
    own = [f"model.base={kernel_sized}", "train.precision=bf16", "train.epochs=2", "train.learning_rate=0.01"]
    config = load_config(train, [*own, f"data.test={test}", f"data.validation={validation}", *CASES[case]])
    summary = run_training(config, folder=tmp_path / "runs", name=case)
    run, classifier = summary.folder, Classifier.load(summary.folder)

    assert summary.scores == classifier.evaluate(test)
    assert summary.validation == classifier.evaluate(validation)
    assert summary.temperature == classifier.manifest.temperature
    assert json.loads((run / "scores.json").read_text())["scores"] == summary.scores
    texts, rows = [text for text, _ in topics(15, 1)], read(run / "predictions.csv")
    logits = classifier.logits(texts)
    written = [[f"{value:.4f}" for value in row] for row in logits]
    assert [[row[f"logit:{name}"] for name in classifier.classes] for row in rows] == written
    classifier.predict_file(test, tmp_path / "out.csv")
    out = read(tmp_path / "out.csv")
    assert [(row["text"], row["predicted"]) for row in rows] == [(row["text"], row["label"]) for row in out]
    assert [float(row["confidence"]) for row in rows] == [float(row["confidence"]) for row in out]
    confidence = softmax(logits, summary.temperature).astype(np.float32).max(axis=1)  # as in Predictions
    assert [float(row["confidence"]) for row in rows] == [round(float(p), 5) for p in confidence]
    overview = diagnose(run, rows=4).sections[0].summary
    assert f"Accuracy {summary.scores['accuracy']:.4f}" in overview


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_test_starts_from_the_feature_cache(
    kernel_sized: Path, topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    used: list[dict[str, Any]] = []
    score = loralab.inference.saved_scores.logits_of

    def recording(model: Any, encoded: Any) -> Any:
        used.append({"start": encoded.start, "rows": len(encoded)})
        return score(model, encoded)

    monkeypatch.setattr(loralab.inference.saved_scores, "logits_of", recording)
    settings = [f"model.base={kernel_sized}", "train.precision=bf16", "train.max_steps=2", f"train.threads={threads}"]
    cached = run_training(load_config(topics_csv, [*settings, "lora.layers=2"]), folder=tmp_path, name="cached")
    assert [part["start"] for part in used] == [2, 2]  # validation, test
    plain = run_training(
        load_config(topics_csv, [*settings, "lora.layers=2", "train.feature_cache=off"]), folder=tmp_path, name="plain"
    )
    assert [part["start"] for part in used[2:]] == [None, None]
    assert cached.scores == plain.scores


def test_a_model_keeps_its_runs_precision_unless_the_device_is_slow_in_it(
    kernel_sized: Path, topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [f"model.base={kernel_sized}", "train.max_steps=1"]
    for precision in ("fp32", "fp16"):
        config = load_config(topics_csv, [*settings, f"train.precision={precision}"])
        run_training(config, folder=tmp_path, name=precision)
    monkeypatch.setattr("loralab.model.device.fast_in_bf16", lambda device: True)
    assert Classifier.load(tmp_path / "fp32").model.compute_dtype == torch.float32
    assert Classifier.load(tmp_path / "fp32", precision="auto").model.compute_dtype == torch.bfloat16
    assert Classifier.load(tmp_path / "fp16").model.compute_dtype == torch.bfloat16  # fp16 is slow on a CPU
    scores = json.loads((tmp_path / "fp32" / "scores.json").read_text())
    assert np.isfinite(scores["scores"]["loss"])
