"""Runs to serve."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import make_checkpoint, topics, write_csv

from loralab import load_config
from loralab.pipeline import run_training

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


@pytest.fixture(scope="session")
def served_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `news` and `tone`, which adapt the top layer of one random encoder, and `pairs` of two columns."""
    folder = tmp_path_factory.mktemp("served")
    base = make_checkpoint(folder / "bert")
    data = write_csv(folder / "topics.csv", topics(20))
    rows = [(text.partition(" ")[0], text.partition(" ")[2], label) for text, label in topics(20)]
    pairs = write_csv(folder / "pairs.csv", rows, header=("title", "body", "label"))  # type: ignore[arg-type]
    common = (f"model.base={base}", "train.epochs=3", "train.learning_rate=0.02", "lora.layers=top1", "train.precision=fp32")
    for name, source, settings in (("news", data, ()), ("tone", data, ("seed=5",)), ("pairs", pairs, ())):
        run_training(load_config(source, [*common, *settings]), folder=folder / "runs", name=name)
    return folder / "runs"
