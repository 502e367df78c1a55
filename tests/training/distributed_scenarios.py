"""Scenarios with the same result in one process and in several. `run` is called in each of several processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from workbench import Recorder, make_model, rows, script, train, trained

from loralab.data.types import Encoded
from loralab.errors import LoralabError, RunFailed
from loralab.training.checkpoint import Checkpoint
from loralab.training.distributed import Distributed
from loralab.training.loss import Loss

Outcome = dict[str, Any]


def plain(tiny: Path, distributed: Distributed) -> Outcome:
    return _fit(tiny, distributed)


def microbatches_weights_smoothing(tiny: Path, distributed: Distributed) -> Outcome:
    return _fit(tiny, distributed, max_tokens_per_microbatch=24, loss=Loss(torch.tensor([1.3, 0.7, 2.5, 0.2]), 0.1, 2.0))


def row_weights(tiny: Path, distributed: Distributed) -> Outcome:
    data = rows(tiny, 10)
    assert data.labels is not None
    weights = np.linspace(0, 2, len(data))
    loss = Loss(torch.tensor([1.3, 0.7, 2.5, 0.2])).with_row_weights(data.labels, weights)
    return _fit(tiny, distributed, data=replace(data, weights=weights), loss=loss)


def one_example_in_the_last_step(tiny: Path, distributed: Distributed) -> Outcome:
    return _fit(tiny, distributed, batch_size=13)  # 40 rows: 13, 13, 13, 1


def frozen_layers_below(tiny: Path, distributed: Distributed) -> Outcome:
    return _fit(tiny, distributed, model=make_model(tiny, layers="top1"))


def unused_parameter(tiny: Path, distributed: Distributed) -> Outcome:
    """AdamW skips a parameter without gradient; with a gradient of zeros it would decay."""
    model = make_model(tiny)
    model.register_parameter("idle", torch.nn.Parameter(torch.ones(2, 2)))
    return _fit(tiny, distributed, model=model, weight_decay=0.5)


def different_initial_weights(tiny: Path, distributed: Distributed) -> Outcome:
    return _fit(tiny, distributed, model=make_model(tiny, seed=distributed.rank))


def early_stopping(tiny: Path, distributed: Distributed) -> Outcome:
    """Scores of the main process decide for all."""
    score = script(*((3.0, 1.0, 2.0, 2.0, 0.0) if distributed.is_main else ()))
    return _fit(tiny, distributed, score=score, monitor="loss", patience=2, eval_steps=1)


def dropout(tiny: Path, distributed: Distributed) -> Outcome:
    """Each process draws its own masks, and a resumed training equals an uninterrupted one."""
    checkpoints: list[Checkpoint] = []
    masks: list[Tensor] = []
    model = make_model(tiny, dropout=0.3)
    model.head.dropout.register_forward_hook(lambda module, inputs, output: masks.append(output[0] == 0))
    whole = _fit(tiny, distributed, model=model, save_checkpoint=checkpoints.append, eval_steps=2)
    second = distributed.run_on_main(lambda: checkpoints[0])
    resumed = _fit(tiny, distributed, model=make_model(tiny, dropout=0.3), resume=second, eval_steps=2)
    return {"whole": whole["weights"], "resumed": resumed["weights"], "mask": masks[0]}


def errors(tiny: Path, distributed: Distributed) -> Outcome:
    """The outcome of each process if one of them fails. Rank 1 stands for all but the main process."""

    def fail(rank: int, error: type[LoralabError]) -> str:
        if distributed.rank == rank:
            raise error("no such file")
        return "fine"

    def outcome(call: Callable[[], object]) -> object:
        try:
            return call()
        except LoralabError as error:
            return type(error).__name__, str(error)

    return {
        "run_on_main, main": outcome(lambda: distributed.run_on_main(fail, 0, RunFailed)),
        "run_on_main, other": outcome(lambda: distributed.run_on_main(fail, 1, RunFailed)),
        "run_everywhere, main": outcome(lambda: distributed.run_everywhere(fail, 0, LoralabError)),
        "run_everywhere, other": outcome(lambda: distributed.run_everywhere(fail, 1, RunFailed)),
        "run_everywhere, none": outcome(lambda: distributed.run_everywhere(fail, 7, RunFailed)),
        "main_first": distributed.main_first(lambda: distributed.local_rank),
        "same": outcome(lambda: distributed.check_same(rows=3, base="a")),
        "different": outcome(lambda: distributed.check_same(rows=3, base="ab"[distributed.rank % 2])),
        "diverged": outcome(lambda: _fit(tiny, distributed, learning_rate=1e30, warmup=0.0)),
    }


SCENARIOS = (
    plain,
    microbatches_weights_smoothing,
    row_weights,
    one_example_in_the_last_step,
    frozen_layers_below,
    unused_parameter,
    different_initial_weights,
    early_stopping,
    dropout,
    errors,
)


def _fit(tiny: Path, distributed: Distributed, *, model: Any = None, data: Encoded | None = None, **settings: Any) -> Outcome:
    model = make_model(tiny) if model is None else model
    recorder = Recorder()
    result = train(
        model, data or rows(tiny, 10), rows(tiny, 4, seed=1), listeners=[recorder], distributed=distributed, epochs=1.0, **settings
    )
    return {
        "losses": [event.loss for event in recorder.steps],
        "norms": [event.gradient_norm for event in recorder.steps],
        "memory": [sorted(event.memory) for event in recorder.evaluations],
        "scores": [dict(event.scores) for event in recorder.evaluations],
        "weights": trained(model),
        "result": (result.steps, result.best_step, result.samples, result.stopped_early),
    }


def run(tiny: Path, out: Path, environment: dict[str, str]) -> None:
    os.environ |= environment
    torch.set_num_threads(1)
    distributed = Distributed.join()
    outcomes = {scenario.__name__: scenario(tiny, distributed) for scenario in SCENARIOS}
    torch.save({"outcomes": outcomes, "distributed": vars(distributed)}, out / f"{distributed.rank}.pt")
    distributed.leave()
