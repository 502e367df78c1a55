"""What one process and several processes must come to alike: `run` is called in each of several processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from workbench import Recorder, network, rows, script, train, trained

from loralab.errors import LoralabError, RunFailed
from loralab.training.callbacks import EarlyStopping
from loralab.training.checkpoint import Checkpoint
from loralab.training.distributed import Distributed
from loralab.training.loss import Loss

Found = dict[str, Any]


def plain(tiny: Path, world: Distributed) -> Found:
    return _fit(tiny, world)


def passes_weights_smoothing(tiny: Path, world: Distributed) -> Found:
    return _fit(tiny, world, max_tokens_per_microbatch=24, loss=Loss(torch.tensor([1.3, 0.7, 2.5, 0.2]), 0.1, 2.0))


def one_example_in_the_last_step(tiny: Path, world: Distributed) -> Found:
    return _fit(tiny, world, batch_size=13)  # 40 rows: 13, 13, 13, 1


def nothing_trains_below(tiny: Path, world: Distributed) -> Found:
    return _fit(tiny, world, net=network(tiny, layers="top1"))


def a_parameter_that_nothing_uses(tiny: Path, world: Distributed) -> Found:
    """AdamW passes over what has no gradient; a gradient of zeros would let it decay."""
    net = network(tiny)
    net.register_parameter("idle", torch.nn.Parameter(torch.ones(2, 2)))
    return _fit(tiny, world, net=net, weight_decay=0.5)


def other_weights_to_begin_with(tiny: Path, world: Distributed) -> Found:
    return _fit(tiny, world, net=network(tiny, seed=world.rank))


def early_stopping(tiny: Path, world: Distributed) -> Found:
    """Scores that only the first process knows decide for all."""
    score = script(*((3.0, 1.0, 2.0, 2.0, 0.0) if world.is_main else ()))
    return _fit(tiny, world, score=score, watch=EarlyStopping("loss", patience=2), eval_steps=1)


def dropout(tiny: Path, world: Distributed) -> Found:
    """Each process draws its own masks, and training goes on from a checkpoint as if never stopped."""
    kept: list[Checkpoint] = []
    masks: list[Tensor] = []
    net = network(tiny, dropout=0.3)
    net.head.dropout.register_forward_hook(lambda module, inputs, output: masks.append(output[0] == 0))
    whole = _fit(tiny, world, net=net, keep=kept.append, eval_steps=2)
    second = world.run_on_main(lambda: kept[0])
    resumed = _fit(tiny, world, net=network(tiny, dropout=0.3), resume=second, eval_steps=2)
    return {"whole": whole["weights"], "resumed": resumed["weights"], "mask": masks[0]}


def errors(tiny: Path, world: Distributed) -> Found:
    """What each process is told when something goes wrong in one of them; rank 1 stands for any other than the first."""

    def fail(rank: int, error: type[LoralabError]) -> str:
        if world.rank == rank:
            raise error("no such file")
        return "fine"

    def said(call: Callable[[], object]) -> object:
        try:
            return call()
        except LoralabError as error:
            return type(error).__name__, str(error)

    return {
        "once, first": said(lambda: world.run_on_main(fail, 0, RunFailed)),
        "once, other": said(lambda: world.run_on_main(fail, 1, RunFailed)),
        "each, first": said(lambda: world.run_everywhere(fail, 0, LoralabError)),
        "each, other": said(lambda: world.run_everywhere(fail, 1, RunFailed)),
        "each, none": said(lambda: world.run_everywhere(fail, 7, RunFailed)),
        "in turn": world.main_first(lambda: world.local_rank),
        "same": said(lambda: world.check_same(rows=3, base="a")),
        "not the same": said(lambda: world.check_same(rows=3, base="ab"[world.rank % 2])),
        "diverged": said(lambda: _fit(tiny, world, learning_rate=1e30, warmup=0.0)),
    }


SCENARIOS = (
    plain,
    passes_weights_smoothing,
    one_example_in_the_last_step,
    nothing_trains_below,
    a_parameter_that_nothing_uses,
    other_weights_to_begin_with,
    early_stopping,
    dropout,
    errors,
)


def _fit(tiny: Path, world: Distributed, *, net: Any = None, **settings: Any) -> Found:
    net = network(tiny) if net is None else net
    recorder = Recorder()
    result = train(net, rows(tiny, 10), rows(tiny, 4, seed=1), listeners=[recorder], world=world, epochs=1.0, **settings)
    return {
        "losses": [event.loss for event in recorder.steps],
        "norms": [event.gradient_norm for event in recorder.steps],
        "scores": [dict(event.scores) for event in recorder.evaluations],
        "weights": trained(net),
        "result": (result.steps, result.best_step, result.samples, result.stopped_early),
    }


def run(tiny: Path, out: Path, environment: dict[str, str]) -> None:
    os.environ |= environment
    torch.set_num_threads(1)
    world = Distributed.join()
    found = {scenario.__name__: scenario(tiny, world) for scenario in SCENARIOS}
    torch.save({"found": found, "world": vars(world)}, out / f"{world.rank}.pt")
    world.leave()
