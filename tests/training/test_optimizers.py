"""Optimizers by name: they learn, resume bit for bit, and have the parameter groups of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from workbench import Recorder, make_model, rows, same, train, trained, weights

from loralab.config import TrainConfig
from loralab.errors import LoralabError
from loralab.training.checkpoint import Checkpoint
from loralab.training.optimizers import build_optimizer

NAMES: tuple[Any, ...] = get_args(TrainConfig.model_fields["optimizer"].annotation)
BY_TORCH = [name for name in NAMES if not name.endswith("_8bit")]
RATES = {"sgd": 0.1, "adagrad": 0.05, "adafactor": 0.05, "radam": 0.03}


@pytest.mark.parametrize("name", BY_TORCH)
def test_it_resumes_bit_for_bit(tiny: Path, tmp_path: Path, name: str) -> None:
    data, held_out, checkpoints = rows(tiny), rows(tiny, 4, seed=1), list[Checkpoint]()
    settings: dict[str, Any] = {"optimizer": name, "epochs": 3.0, "eval_steps": 4}
    whole, resumed = make_model(tiny, dropout=0.2), make_model(tiny, dropout=0.2)
    result = train(whole, data, held_out, save_checkpoint=checkpoints.append, **settings)
    checkpoints[1].save(tmp_path / "checkpoint")
    again = train(resumed, data, held_out, resume=Checkpoint.load(tmp_path / "checkpoint"), **settings)
    assert same(weights(resumed), weights(whole))
    assert again.scores == result.scores


@pytest.mark.parametrize("name", BY_TORCH)
def test_it_learns(tiny: Path, name: str) -> None:
    recorder = Recorder()
    train(make_model(tiny), rows(tiny), optimizer=name, learning_rate=RATES.get(name, 0.005), epochs=8.0, listeners=[recorder])
    losses = [event.loss for event in recorder.steps]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("name", BY_TORCH)
def test_a_checkpoint_is_not_changed_by_the_run_that_resumes_from_it(tiny: Path, name: str) -> None:
    checkpoints = list[Checkpoint]()
    train(make_model(tiny), rows(tiny), rows(tiny, 4), optimizer=name, save_checkpoint=checkpoints.append)
    before = {key: tensor.clone() for key, tensor in checkpoints[0].tensors.items()}
    train(make_model(tiny), rows(tiny), rows(tiny, 4), optimizer=name, resume=checkpoints[0])
    assert same(before, checkpoints[0].tensors)


def test_optimizers_differ(tiny: Path) -> None:
    outcomes = []
    for name in BY_TORCH:
        model = make_model(tiny)
        train(model, rows(tiny), optimizer=name, max_steps=3)
        outcomes.append(trained(model))
    assert all(not same(first, second) for i, first in enumerate(outcomes) for second in outcomes[:i])


@pytest.mark.parametrize("name", BY_TORCH)
def test_groups_have_the_rates_and_decays_of_the_settings(tiny: Path, name: Any) -> None:
    config = TrainConfig(optimizer=name, learning_rate=0.01, head_learning_rate=0.03, weight_decay=0.1)
    groups = build_optimizer(make_model(tiny), config, 4.0).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.01, 0.1), (0.04, 0.1), (0.03, 0.1), (0.03, 0.0)]


def test_adamw_is_fused_and_sgd_has_momentum(tiny: Path) -> None:
    adamw = build_optimizer(make_model(tiny), TrainConfig())
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["fused"]
    assert build_optimizer(make_model(tiny), TrainConfig(optimizer="sgd")).defaults["momentum"] == 0.9


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(BY_TORCH)))
def test_8_bit_optimizers_need_cuda(tiny: Path, name: Any) -> None:
    with pytest.raises(LoralabError, match=f"train.optimizer={name} needs a CUDA device, .* on cpu: use train.optimizer=adamw"):
        build_optimizer(make_model(tiny), TrainConfig(optimizer=name))
