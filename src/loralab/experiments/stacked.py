"""Trials in one pass: those whose networks differ in seed, rates and rows alone train together, others in a stack of their own.

It is meant for a GPU, where a step of few texts takes as long as its number of operations: a pass of eight runs has twice the
operations of one run's, not eight times. On a processor, whose products are busy with one run's tokens, it saves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from loralab.config import Config
from loralab.errors import Interrupted, LoralabError
from loralab.experiments.attempt import Outcome, Tell, attempt, go_on, told
from loralab.trials import Trial, trial_folder

if TYPE_CHECKING:
    from loralab.pipeline import Begun


def run_together(trials: Sequence[Trial], folder: Path, most: int, ended: Tell) -> None:
    """Run trials in stacks of at most `most`. Each leaves the run folder that it leaves alone, but for rounding."""
    alike: dict[str, list[Trial]] = {}
    for trial in trials:
        alike.setdefault(_shape(trial.config), []).append(trial)
    for same in alike.values():
        for stack in (same[start : start + most] for start in range(0, len(same), most)):
            if len(stack) == 1:
                ended(attempt(stack[0], folder))
            else:
                _run_stack(stack, folder, ended)


def _shape(config: Config) -> str:
    """What trials of one stack have in common: whatever decides the frozen weights, and the adapters' places and shapes."""
    model = config.model.model_dump_json(exclude={"dropout"})
    lora = config.lora.model_dump_json(exclude={"dropout", "max_trainable", "plus_ratio"})
    train = config.train.model_dump_json(include={"precision", "threads", "cache", "gradient_checkpointing"})
    return f"{config.tuning} {model} {lora} {train} {config.train.epochs == 0}"


def _run_stack(trials: Sequence[Trial], folder: Path, ended: Tell) -> None:
    """Begin every trial, train all, finish each; one that fails on the way leaves the others to go on."""
    from loralab.pipeline import finish
    from loralab.training.stacked import fit_stacked

    started = time.perf_counter()
    begun: list[tuple[Trial, Begun]] = []
    for trial in trials:
        found = told(trial, partial(_begin, trial, folder, begun))
        if isinstance(found, Outcome):
            ended(found)
        else:
            begun.append((trial, found))
    results = fit_stacked([run.loop for _, run in begun]) if begun else []
    each = (time.perf_counter() - started) / max(1, len(begun))  # a run's share of the time, so that times add up to what it took
    interrupted: Interrupted | None = None
    for (trial, run), result in zip(begun, results, strict=True):
        if isinstance(result, LoralabError):
            ended(Outcome(trial, failure=str(result)))
            continue
        try:
            alone = replace(result, train_seconds=result.train_seconds / len(begun))
            summary = told(trial, partial(finish, replace(run, began=time.perf_counter() - each), alone))
            ended(summary if isinstance(summary, Outcome) else Outcome(trial))
        except Interrupted as error:
            interrupted = error
    if interrupted:
        raise interrupted


def _begin(trial: Trial, folder: Path, others: Sequence[tuple[Trial, Begun]]) -> Begun:
    """Begin a trial, with the frozen weights of the first in the place of its own."""
    from loralab.pipeline import begin
    from loralab.training.stacked import join

    target = trial_folder(folder, trial)
    run = go_on(partial(begin, trial.config, target), target)
    join(others[0][1].loop if others else run.loop, run.loop)
    return run
