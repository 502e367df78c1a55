"""AdaLoRA in the trainer: the penalty, and ranks that only the trainer changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from workbench import make_model, rows, train

from loralab.model.hf.model import HFClassifier
from loralab.training.callbacks import StepEnd


def adalora(tiny: Path) -> HFClassifier:
    model: Any = make_model(tiny, variant="adalora", rank=4)
    assert isinstance(model, HFClassifier)
    return model


def test_the_penalty_is_that_of_the_paper(tiny: Path) -> None:
    model = adalora(tiny)
    assert model.allocation
    terms = []
    for name, p in model.named_parameters():
        if "lora_A" in name:
            terms.append(math.sqrt(float((p @ p.T - torch.eye(6)).detach().square().sum())))
        elif "lora_B" in name:
            terms.append(math.sqrt(float((p.T @ p - torch.eye(6)).detach().square().sum())))
    assert len(terms) == 12
    assert abs(float(model.allocation.penalty().detach()) - 0.5 * sum(terms) / 12) < 1e-5


def test_ranks_fall_from_the_start_to_the_target_and_stay(tiny: Path) -> None:
    model = adalora(tiny)
    assert model.allocation
    totals = []

    def listen(event: object) -> None:
        if isinstance(event, StepEnd):
            assert model.allocation
            totals.append(sum(model.allocation.ranks().values()))

    train(model, rows(tiny), listeners=[listen], epochs=8.0)  # 40 steps of 8 rows; 6 maps
    assert totals[:5] == [36] * 5, "an eighth of the steps changes nothing"
    assert totals[20:] == [24] * 20, "the second half has 4 on average"
    assert sorted(totals, reverse=True) == totals
    assert len(set(totals[5:20])) > 5, "in between they fall little by little"
    assert len(set(model.allocation.ranks().values())) > 1, "they are moved, not cut alike"


def test_the_penalty_keeps_a_and_b_near_orthogonal(tiny: Path) -> None:
    free, regularized = adalora(tiny), adalora(tiny)
    assert free.allocation
    assert regularized.allocation
    free.allocation.config.orth_reg_weight = 0.0
    for model in (free, regularized):
        train(model, rows(tiny), epochs=6.0, learning_rate=2e-2)
    free.allocation.config.orth_reg_weight = regularized.allocation.config.orth_reg_weight
    assert float(regularized.allocation.penalty().detach()) < 0.5 * float(free.allocation.penalty().detach())


def test_the_state_can_be_restored(tiny: Path) -> None:
    model, other = adalora(tiny), adalora(tiny)

    def stop(event: object) -> None:
        if isinstance(event, StepEnd) and event.step == 12:
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="middle"):
        train(model, rows(tiny), epochs=8.0, listeners=[stop])
    assert model.allocation
    assert other.allocation
    state = model.allocation.state()
    assert {key.partition("/")[0] for key in state} == {"exp_avg_ipt", "exp_avg_unc", "pattern"}
    other.allocation.restore(state)
    restored = other.allocation.state()
    assert state.keys() == restored.keys()
    assert all(torch.equal(state[key], restored[key]) for key in state)
