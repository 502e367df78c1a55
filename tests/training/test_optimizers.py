"""Optimizers by name: they learn, resume bit for bit, and have the parameter groups of the settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn
from workbench import Recorder, make_model, rows, same, train, trained, weights

from loralab.config import TrainConfig
from loralab.errors import LoralabError
from loralab.training.checkpoint import Checkpoint
from loralab.training.optimizers import _TORCH, build_optimizer, without_compiler

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


@pytest.mark.parametrize("name", _TORCH)
def test_an_optimizer_without_the_compiler_computes_the_same(name: str) -> None:
    attribute, options = _TORCH[name]
    kind = getattr(torch.optim, attribute)
    weights = []
    for one in (kind, without_compiler(kind)):
        torch.manual_seed(0)
        layer = nn.Linear(5, 3)
        optimizer = one(layer.parameters(), lr=0.01, **options)
        for _ in range(5):
            optimizer.zero_grad()
            layer(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
        assert isinstance(optimizer, kind)
        assert not any(p.grad_fn for p in layer.parameters())
        weights.append((layer.weight.detach().clone(), optimizer.state_dict()["state"][0]))
    assert torch.equal(weights[0][0], weights[1][0])
    assert weights[0][1].keys() == weights[1][1].keys()


@pytest.mark.slow
def test_a_run_imports_no_compiler(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from loralab import load_config
from loralab.pipeline import run_training
settings = ["model.base={tiny}", "train.epochs=1", "train.head_init=probe"]
run_training(load_config({str(topics_csv)!r}, settings), name="run", folder={str(tmp_path)!r})
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
