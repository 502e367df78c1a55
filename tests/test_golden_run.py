"""A tiny run whose weights are written here, so that every platform trains it to the same scores within stated bounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import topics, write_csv

from loralab import Classifier, load_config
from loralab.pipeline import run_training

GOLDEN = Path(__file__).with_name("golden_run.json")
LOSS, LOGITS = 2e-3, 2e-2
"""The bounds: losses of the first steps, and logits after training, differ by no more. In fp32 one platform differs from another in
the last bits of a product, and training amplifies them."""
SETTINGS = [
    "train.precision=fp32",
    "train.threads=1",
    "train.epochs=3",
    "train.batch_size=16",
    "data.max_length=32",
    "lora.dropout=0",
]


def test_a_run_gives_the_stored_losses_and_logits(tiny: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "rows.csv", topics(20))
    config = load_config("quickstart", [f"model.base={tiny}", f"data.source={data}", *SETTINGS])
    folder = run_training(config, folder=tmp_path).folder
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if event["event"] == "StepEnd"]
    logits = np.log(Classifier.load(folder).predict([text for text, _ in topics(2, seed=9)]).probabilities.astype(float))
    golden = json.loads(GOLDEN.read_text())
    assert losses == pytest.approx(golden["losses"], abs=LOSS)
    np.testing.assert_allclose(logits, golden["log_probabilities"], rtol=0, atol=LOGITS)
