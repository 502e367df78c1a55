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
from loralab.training import prefix_cache
from loralab.training.callbacks import Watch
from loralab.training.checkpoint import Checkpoint
from loralab.training.engine import Fit, Loop, Optimisation
from loralab.training.loss import Loss
from loralab.training.stacked import fit_stacked

SEEDS = (0, 1)
LAYOUTS = pytest.mark.parametrize(  # a processor's own is also what the tests without a layout take
    "rectangle", [pytest.param(False, marks=pytest.mark.slow, id="own widths"), pytest.param(True, id="one rectangle")]
)


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
    """Train each seed alone and all together, and hold weights, losses, norms and scores of one to those of the other."""
    changes = {"epochs": 1.0, "eval_every": 3, **changes}
    shape, pooling = {name: changes.pop(name) for name in [*changes] if name in SHAPE}, changes.pop("pooling", "cls")
    atol = 1e-5 if dtype == torch.float32 else 2e-2
    alone, together = ([network(tiny, seed=seed, **shape) for seed in SEEDS] for _ in range(2))
    for net in (*alone, *together):
        net.freeze_to(dtype)
        net.pooling = pooling
    before = [trained(net) for net in together]
    told = [[Recorder() for _ in SEEDS] for _ in range(2)]
    each = [loop(*args, listeners=[told[0][i]], **changes) for i, args in enumerate(_runs(alone, data, held_out))]
    expected = [one.run() for one in each]
    each = [loop(*args, listeners=[told[1][i]], **changes) for i, args in enumerate(_runs(together, data, held_out))]
    found = fits(fit_stacked(each, rectangle=rectangle))
    for i in range(len(SEEDS)):
        assert (found[i].steps, found[i].best_step, found[i].samples) == (5, expected[i].best_step, 36)
        assert found[i].scores == pytest.approx(expected[i].scores, abs=atol)
        for ours, its in zip(told[1][i].steps, told[0][i].steps, strict=True):
            assert (ours.loss, ours.gradient_norm) == pytest.approx((its.loss, its.gradient_norm), abs=10 * atol, rel=1e-4)
        for name, weight in trained(together[i]).items():
            torch.testing.assert_close(weight, trained(alone[i])[name], rtol=0, atol=atol)
            assert not torch.equal(weight, before[i][name])
    assert not same(trained(together[0]), trained(together[1]))


SHAPE = ("dropout", "head", "tuning", "rank", "targets", "layers", "variant")


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
        {"tuning": "head", "pooling": "mean"},
    ],
    ids=["plain", "dropout", "all targets, weighted", "top layers, cut steps", "head, mean"],
)
def test_runs_together_are_the_runs_alone(
    tiny: Path, data: Encoded, held_out: Encoded, rectangle: bool, changes: dict[str, Any]
) -> None:
    compare(tiny, data, held_out, rectangle, **changes)


@LAYOUTS
def test_in_bf16_they_are_within_its_noise(tiny: Path, data: Encoded, held_out: Encoded, rectangle: bool) -> None:
    compare(tiny, data, held_out, rectangle, dtype=torch.bfloat16, dropout=0.1)


@LAYOUTS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hidden_states_that_are_kept_are_read(
    tiny: Path, data: Encoded, held_out: Encoded, rectangle: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    net = network(tiny, layers="2")
    net.freeze_to(dtype)
    named: dict[str, Any] = {"setting": "memory", "limit": 1e9, "epochs": 2, "folder": tmp_path, "identity": ""}
    cache = prefix_cache.plan(net, [data, held_out], **named)
    kept = [cache.keep(net, part) for part in (data, held_out)]
    assert kept[0].start == 2
    compare(tiny, kept[0], kept[1], rectangle, dtype=dtype, layers="2", dropout=0.1)


def test_another_family_with_a_head_of_its_own(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "roberta", "roberta")
    compare(folder, rows(folder, 9), rows(folder, 4, seed=1), True, dropout=0.1)


def test_runs_may_differ_in_rate_loss_rows_and_length(tiny: Path, data: Encoded, held_out: Encoded) -> None:
    changes: list[dict[str, Any]] = [
        {"learning_rate": 1e-3, "schedule": "linear"},
        {"learning_rate": 1e-2, "head_learning_rate": 1e-3, "epochs": 1.0, "loss": Loss(smoothing=0.1)},
        {"batch_size": 5, "weight_decay": 0.5, "max_steps": 13, "clip_norm": 0.1},
    ]
    parts, seeds = [data, data, rows(tiny, 6, seed=3)], range(3)
    alone, together = ([network(tiny, seed=seed, dropout=seed / 10) for seed in seeds] for _ in range(2))
    expected, loops = ([loop(net, parts[i], held_out, i, **changes[i]) for i, net in enumerate(nets)] for nets in (alone, together))
    fitted = [each.run() for each in expected]
    found = fits(fit_stacked(loops))
    assert [fit.steps for fit in found] == [10, 5, 10] == [fit.steps for fit in fitted]
    for one, other in zip(alone, together, strict=True):
        for name, weight in trained(other).items():
            torch.testing.assert_close(weight, trained(one)[name], rtol=0, atol=1e-5)


# --- how a run ends ------------------------------------------------------------------------------------------------


def test_one_that_stops_early_leaves_the_others_to_go_on(tiny: Path, data: Encoded, held_out: Encoded) -> None:
    scripts = [(5.0, 6.0, 7.0), (5.0, 4.0, 3.0, 2.0)]
    nets, recorders = [network(tiny, seed=seed) for seed in SEEDS], [Recorder(), Recorder()]
    for recorder, net in zip(recorders, nets, strict=True):
        recorder.net = net
    loops = [
        loop(net, data, held_out, i, score=script(*told), watch=Watch("loss", patience=1), epochs=4.0, listeners=[recorders[i]])
        for i, (net, told) in enumerate(zip(nets, scripts, strict=True))
    ]
    first, second = fits(fit_stacked(loops))
    assert (first.steps, first.best_step, first.stopped_early) == (10, 5, True)
    assert (second.steps, second.best_step, second.stopped_early) == (20, 20, False)
    assert same(trained(nets[0]), recorders[0].snapshots[5])
    assert same(trained(nets[1]), recorders[1].snapshots[20])
    assert not any(net.training for net in nets)


def test_one_that_fails_leaves_the_others_as_they_were(tiny: Path, data: Encoded, held_out: Encoded) -> None:
    alone, *nets = (network(tiny, seed=seed) for seed in (0, 0, 1))
    loop(alone, data, held_out, 0).run()
    with torch.no_grad():
        nets[1].head.out.weight[0, 0] = math.nan
        nets[1].layer(0).qkv.adapter("query").a[0, 0] = math.inf
    good, bad = fit_stacked([loop(net, data, held_out, i) for i, net in enumerate(nets)], rectangle=True)
    assert isinstance(good, Fit)
    assert isinstance(bad, RunFailed)
    for name, weight in trained(nets[0]).items():
        torch.testing.assert_close(weight, trained(alone)[name], rtol=0, atol=1e-5)


def test_ctrl_c_ends_all_with_their_best_weights_and_each_can_go_on(tiny: Path, data: Encoded, held_out: Encoded) -> None:
    def stop(event: Any) -> None:
        if event.step == 7:
            raise KeyboardInterrupt

    whole, cut, resumed = ([network(tiny, seed=seed, dropout=0.2) for seed in SEEDS] for _ in range(3))
    fit_stacked([loop(net, data, held_out, i) for i, net in enumerate(whole)])
    kept: list[list[Checkpoint]] = [[], []]
    loops = [loop(net, data, held_out, i, keep=kept[i].append, listeners=[stop] * i) for i, net in enumerate(cut)]
    assert [(fit.interrupted, fit.best_step) for fit in fits(fit_stacked(loops))] == [(True, 5), (True, 5)]
    assert len(kept[0]) == 1
    fit_stacked([loop(net, data, held_out, i, resume=kept[i][0]) for i, net in enumerate(resumed)])
    assert all(same(trained(one), trained(other)) for one, other in zip(whole, resumed, strict=True))


# --- which networks may ---------------------------------------------------------------------------------------------


def test_the_frozen_weights_are_held_once(tiny: Path, data: Encoded) -> None:
    nets = [network(tiny, seed=seed) for seed in SEEDS]
    fit_stacked([loop(net, data, None, i, max_steps=1) for i, net in enumerate(nets)])
    for name, weight in nets[0].named_parameters():
        held = {dict(net.named_parameters())[name].data_ptr() for net in nets}
        assert len(held) == (2 if weight.requires_grad or name.startswith("head.") else 1), name


def other_encoder(tiny: Path) -> torch.nn.Module:
    net = network(tiny)
    with torch.no_grad():
        net.layer(1).output.weight[0, 0] += 1e-3
    return net


def recomputing(tiny: Path) -> torch.nn.Module:
    net = network(tiny)
    net.gradient_checkpointing = True
    return net


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (other_encoder, "where encoder, pooling"),
        (lambda tiny: network(tiny, rank=2), "rank and alpha are the same"),
        (lambda tiny: network(tiny, alpha=4.0), "rank and alpha are the same"),
        (lambda tiny: network(tiny, targets=("value",)), "adapters' places"),
        (lambda tiny: network(tiny, tuning="full"), "use tuning=lora or tuning=head"),
        (recomputing, "activations are computed twice"),
        (lambda tiny: torch.nn.Linear(2, 4), "runs through Transformers"),
    ],
)
def test_networks_that_cannot_share_a_pass_are_refused(tiny: Path, data: Encoded, make: Any, message: str) -> None:
    with pytest.raises(LoralabError, match=message):
        fit_stacked([loop(net, data, None, 0) for net in (network(tiny), make(tiny))])


def test_hidden_states_are_kept_of_all_or_of_none(tiny: Path, data: Encoded) -> None:
    hidden = np.zeros((len(data.tokens), 32), dtype=np.float32)
    parts = data, replace(data, hidden=hidden, start=2)
    with pytest.raises(LoralabError, match=r"train\.cache=off"):
        fit_stacked([loop(network(tiny, layers="2"), part, None, 0) for part in parts])


def test_two_hands_take_the_passes_that_they_take_alone(
    tiny: Path, data: Encoded, held_out: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Network, "texts_at_least", 4)
    torch.set_num_threads(2)
    compare(tiny, data, held_out, False, dropout=0.3)
