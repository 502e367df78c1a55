"""Runs in one pass: each comes to what it comes to alone, sees nothing of the others, and ends by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_checkpoint
from workbench import ALL_SCORES, Recorder, network, rows, same, script, trained

from loralab.data.values import Encoded
from loralab.errors import LoralabError, RunFailed
from loralab.model.network import Network
from loralab.training import engine, prefix_cache
from loralab.training.callbacks import Watch
from loralab.training.checkpoint import Checkpoint
from loralab.training.engine import Fit, Loop, Optimisation
from loralab.training.loss import Loss
from loralab.training.stacked import fit_stacked

SEEDS = (0, 1, 2)
LAYOUTS = pytest.mark.parametrize("rectangle", [False, True], ids=["own widths", "one rectangle"])


@pytest.fixture(scope="module")
def data(tiny: Path) -> Encoded:
    """36 rows: four steps of eight and one of four, which comes at another place in every seed's epoch."""
    return rows(tiny, 9)


@pytest.fixture(scope="module")
def held_out(tiny: Path) -> Encoded:
    return rows(tiny, 4, seed=1)


def loop(net: torch.nn.Module, data: Encoded, held_out: Encoded | None, seed: int, **changes: Any) -> Loop:
    named = {name: changes.pop(name) for name in ("listeners", "resume", "keep") if name in changes}
    loss, score = changes.pop("loss", Loss()), changes.pop("score", ALL_SCORES)
    watch = changes.pop("watch", None) or Watch("loss")
    settings = Optimisation(**{"batch_size": 8, "epochs": 2.0, "learning_rate": 5e-3, **changes})
    return Loop(net, data, held_out, loss, score, watch, seed, settings, **named)


def fits(found: Sequence[Fit | LoralabError]) -> list[Fit]:
    assert all(isinstance(each, Fit) for each in found), found
    return [each for each in found if isinstance(each, Fit)]


def compare(
    tiny: Path, data: Encoded, held_out: Encoded, rectangle: bool, *, dtype: torch.dtype = torch.float32, **changes: Any
) -> None:
    """Train three seeds alone and together, and hold weights, losses, norms and scores of one to those of the other."""
    shape = {name: changes.pop(name) for name in [*changes] if name in SHAPE}
    atol = 1e-5 if dtype == torch.float32 else 2e-2
    alone, together = ([network(tiny, seed=seed, **shape) for seed in SEEDS] for _ in range(2))
    for net in (*alone, *together):
        net.freeze_to(dtype)
    before = [trained(net) for net in together]
    told = [[Recorder() for _ in SEEDS] for _ in range(2)]
    each = [loop(*args, listeners=[told[0][i]], **changes) for i, args in enumerate(_runs(alone, data, held_out))]
    expected = [one.run() for one in each]
    each = [loop(*args, listeners=[told[1][i]], **changes) for i, args in enumerate(_runs(together, data, held_out))]
    found = fits(fit_stacked(each, rectangle=rectangle))
    for i in range(len(SEEDS)):
        assert (found[i].steps, found[i].best_step, found[i].samples) == (10, expected[i].best_step, 72)
        assert found[i].scores == pytest.approx(expected[i].scores, abs=atol)
        for ours, its in zip(told[1][i].steps, told[0][i].steps, strict=True):
            assert (ours.loss, ours.gradient_norm) == pytest.approx((its.loss, its.gradient_norm), abs=10 * atol, rel=1e-4)
        for name, weight in trained(together[i]).items():
            torch.testing.assert_close(weight, trained(alone[i])[name], rtol=0, atol=atol, msg=lambda told: f"{name}: {told}")
            assert not torch.equal(weight, before[i][name])
    assert not same(trained(together[0]), trained(together[1]))


SHAPE = ("dropout", "head", "pooling", "tuning", "rank", "targets", "layers", "variant")


def _runs(nets: Sequence[Network], data: Encoded, held_out: Encoded) -> list[tuple[Network, Encoded, Encoded, int]]:
    return [(net, data, held_out, seed) for net, seed in zip(nets, SEEDS, strict=True)]


@LAYOUTS
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dropout": 0.3},
        {"targets": ("all",), "dropout": 0.2, "loss": Loss(torch.tensor([1.3, 0.7, 2.5, 0.2]), 0.1, 2.0)},
        {"targets": ("query", "key", "ffn_in"), "layers": "top2", "tokens_per_pass": 64},
        {"tuning": "head"},
    ],
    ids=["plain", "dropout", "all targets, weighted", "top layers, cut steps", "head"],
)
def test_runs_together_are_the_runs_alone(
    tiny: Path, data: Encoded, held_out: Encoded, rectangle: bool, changes: dict[str, Any]
) -> None:
    compare(tiny, data, held_out, rectangle, **changes)
