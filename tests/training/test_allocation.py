"""AdaLoRA in the engine: its penalty and its ranks, which a loop that knows nothing of it would never move."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from workbench import make_model, rows, train

from loralab.model.hf.model import HFClassifier
from loralab.training.callbacks import StepEnd


def adalora(tiny: Path) -> HFClassifier:
    found = make_model(tiny, variant="adalora", rank=4)
    assert isinstance(found, HFClassifier)
    return found


def test_the_penalty_is_the_papers(tiny: Path) -> None:
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
    free, held = adalora(tiny), adalora(tiny)
    assert free.allocation
    assert held.allocation
    free.allocation.config.orth_reg_weight = 0.0
    for model in (free, held):
        train(model, rows(tiny), epochs=6.0, learning_rate=2e-2)
    free.allocation.config.orth_reg_weight = held.allocation.config.orth_reg_weight
    assert float(held.allocation.penalty().detach()) < 0.5 * float(free.allocation.penalty().detach())


def test_the_state_comes_back_as_it_was(tiny: Path) -> None:
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
    found = other.allocation.state()
    assert state.keys() == found.keys()
    assert all(torch.equal(state[key], found[key]) for key in state)
