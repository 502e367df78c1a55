"""Seconds and memory of a run, recorded by what takes them, so that runs are compared like with like."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from loralab import Config, load_config
from loralab.errors import Interrupted
from loralab.pipeline import run_training
from loralab.training.callbacks import Event, StepEnd
from loralab.training.prefix_cache import PrefixCache

Configure = Callable[..., Config]


@pytest.fixture
def configure(tiny: Path, topics_csv: Path) -> Configure:
    """Return settings that learn the topics in a quarter of a second, with overrides."""

    def configured(*overrides: str) -> Config:
        own = [f"model.base={tiny}", "train.learning_rate=0.01", "train.epochs=6", "train.precision=fp32"]
        return load_config(topics_csv, [*own, *overrides])

    return configured


@pytest.mark.parametrize(("tuning", "rate"), [("lora", "0.01"), ("full", "0.001")])
def test_time_and_memory_are_recorded_by_what_takes_them(configure: Configure, tmp_path: Path, tuning: str, rate: str) -> None:
    summary = run_training(configure(f"tuning={tuning}", f"train.learning_rate={rate}"), folder=tmp_path)
    timing, memory = summary.timing, summary.memory
    phases = [timing[name] for name in ("preparation", "training", "evaluation", "test")]
    assert all(seconds is not None and seconds > 0 for seconds in phases)
    assert sum(filter(None, phases)) == pytest.approx(summary.seconds, rel=0.05)
    assert timing["cache"] < timing["preparation"]
    assert timing["step"] * summary.steps < 2 * timing["training"]
    trained = sum(tensor.nelement() for tensor in load_weights(summary.folder, tuning))
    assert memory["gradients"] == pytest.approx(4 * summary.counts.trainable / 1e6)
    assert memory["optimizer"] == pytest.approx(8 * summary.counts.trainable / 1e6, rel=0.02)  # AdamW's two moments
    assert memory["model"] > 4 * trained / 1e6
    assert memory["checkpoint"] == pytest.approx((8 + 2 * 4) * summary.counts.trainable / 1e6, rel=0.2)  # with the best weights
    assert memory["process"] >= memory["start"] > 50  # a peak: this process may have been larger before
    assert json.loads((summary.folder / "scores.json").read_text())["memory"] == memory


def load_weights(folder: Path, tuning: str) -> list[torch.Tensor]:
    name = "adapter_model.safetensors" if tuning == "lora" else "model.safetensors"
    return [*load_file(folder / "model" / name).values()]


def test_filling_the_cache_counts_as_preparation(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = PrefixCache.add_hidden_states

    def slow(*arguments: Any) -> Any:
        time.sleep(0.2)
        return cached(*arguments)

    monkeypatch.setattr(PrefixCache, "add_hidden_states", slow)
    timing = run_training(configure("train.max_steps=2", "lora.layers=2"), folder=tmp_path).timing
    assert timing["preparation"] > timing["cache"] > 3 * 0.2  # training, validation and test rows
    assert timing["training"] < 0.6


def test_a_resumed_run_counts_the_steps_of_both_processes(configure: Configure, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        time.sleep(0.1 if isinstance(event, StepEnd) else 0)
        if isinstance(event, StepEnd) and event.step == 4:
            raise KeyboardInterrupt

    config = configure("train.eval_steps=1", "train.max_steps=5")
    with pytest.raises(Interrupted):
        run_training(config, folder=tmp_path, listeners=[interrupt])
    timing = run_training(config, folder=tmp_path, resume=True).timing
    assert timing["training"] > 3 * 0.1  # up to the last checkpoint, after step 3
