"""Dropout of DeBERTa's adapters in a real run: it also acts evenly on the relative position embeddings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import make_checkpoint
from torch import Tensor

from loralab import load_config, run_training
from loralab.model.dropout import Dropout

SPAN, P = 64, 0.3


def test_relative_positions_are_dropped_with_probability_p(
    tmp_path: Path, topics_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are 2 · span positions, more than a text has tokens; positions beyond the tokens were once always dropped."""
    base = make_checkpoint(tmp_path / "base", "deberta-v2", layers=1, position_buckets=SPAN, max_position_embeddings=2 * SPAN)
    kept: list[Tensor] = []
    forward = Dropout.forward

    def record(self: Dropout, x: Tensor) -> Tensor:
        y = forward(self, x)
        if x.shape[:-1] == (1, 2 * SPAN) and self.training:
            kept.append((y != 0).float().mean(dim=-1)[0].detach())
        return y

    monkeypatch.setattr(Dropout, "forward", record)
    settings = ("train.epochs=1", "train.batch_size=4", "lora.rank=2", "lora.targets=query,key,value", f"lora.dropout={P}")
    data = (f"data.source={topics_csv}", "data.max_train_samples=60", "data.max_test_samples=8", "train.precision=fp32")
    run_training(load_config("quickstart", (f"model.base={base}", *data, *settings)), folder=tmp_path)
    share = torch.stack(kept).mean(dim=0)
    deviation = (P * (1 - P) / (32 * len(kept))) ** 0.5
    assert len(kept) >= 20
    assert float((share - (1 - P)).abs().max()) < 6 * deviation
