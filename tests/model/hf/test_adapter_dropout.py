"""Dropout of adapters in real runs: its share is the setting in every architecture, and training with it is peft's."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import torch
from tiny import FOREIGN_TYPES, MODEL_TYPES, make_checkpoint
from torch import Tensor, nn

from loralab import load_config
from loralab.model.dropout import Dropout
from loralab.pipeline import run_training
from loralab.training.callbacks import Event, StepEnd

SPAN, P = 64, 0.3
SIZES = {"deberta-v2": {"position_buckets": SPAN}}


def train(base: Path, data: Path, folder: Path, *more: str) -> list[float]:
    """Train three layers on 60 rows and return the losses of all steps."""
    losses: list[float] = []

    def record(event: Event) -> None:
        if isinstance(event, StepEnd):
            losses.append(event.loss)

    settings = ["train.epochs=1", "train.batch_size=4", "lora.rank=2", "lora.targets=all", "train.precision=fp32", *more]
    rows = [f"data.source={data}", "data.max_train_samples=60", "data.max_test_samples=8", "train.threads=1"]
    config = load_config("quickstart", [f"model.base={base}", *rows, *settings])
    run_training(config, folder=folder, overwrite=True, listeners=[record])
    return losses


@pytest.mark.parametrize("kind", [*MODEL_TYPES, *FOREIGN_TYPES, "deberta"])
def test_the_share_of_zeros_is_the_setting(kind: str, tmp_path: Path, topics_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all inputs together, and at each of DeBERTa's 2 · span relative positions, more than a text has tokens."""
    base = make_checkpoint(tmp_path / "base", kind, layers=1, **SIZES.get(kind, {}))
    zeros, values, positions = 0, 0, list[Tensor]()
    forward = Dropout.forward

    def record(self: Dropout, x: Tensor) -> Tensor:
        nonlocal zeros, values
        y = forward(self, x)
        if self.training and self.p == P:
            zeros += int(((y == 0) & (x != 0)).sum())
            values += int((x != 0).sum())
            if x.shape[-2] == 2 * SPAN:
                positions.append((y != 0).float().view(-1, 2 * SPAN, x.shape[-1]).mean(dim=-1)[0].detach())
        return y

    monkeypatch.setattr(Dropout, "forward", record)
    targets = "lora.targets=pos_proj,pos_q_proj,ffn_out" if kind == "deberta" else "lora.targets=query,key,value"
    train(base, topics_csv, tmp_path, targets, f"lora.dropout={P}", "model.dropout=0")
    assert values > 20_000
    assert abs(zeros / values - P) < 0.015
    assert (len(positions) >= 20) == (kind == "deberta-v2")
    if positions:
        share = torch.stack(positions).mean(dim=0)
        deviation = (P * (1 - P) / (32 * len(positions))) ** 0.5
        assert float((share - (1 - P)).abs().max()) < 6 * deviation


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*FOREIGN_TYPES, "deberta"])
def test_losses_are_those_of_pefts_dropout(kind: str, tmp_path: Path, topics_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean loss of the last steps over ten seeds, with our masks and with torch's, which peft uses, differs by noise only."""
    base = make_checkpoint(tmp_path / "base", kind, **SIZES.get(kind, {}))

    def last_losses() -> list[float]:
        settings = ("lora.dropout=0.3", "train.learning_rate=0.01", "train.epochs=2")
        return [statistics.mean(train(base, topics_csv, tmp_path, *settings, f"seed={seed}")[-10:]) for seed in range(10)]

    ours = last_losses()
    monkeypatch.setattr(Dropout, "forward", lambda self, x: nn.functional.dropout(x, self.p, self.training))
    theirs = last_losses()
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    assert ours != theirs
    assert abs(statistics.mean(differences)) < 3 * statistics.stdev(differences) / len(differences) ** 0.5
