"""Where trials run: here one after another, in processes of this machine. A finished trial is never run again."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, cast, get_args

from loralab import runs
from loralab.errors import Interrupted, LoralabError, RunFailed
from loralab.trials import Trial, trial_folder

Where = Literal["here", "processes", "ray"]
MOST_DEATHS = 3
"""A trial whose process died this often is given up: it dies of itself, not of its neighbours."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. found: it was complete before; failure: why it has no result, None where it has."""

    trial: Trial
    found: bool = False
    failure: str | None = None


Tell = Callable[[Outcome], None]


def run_all(
    trials: Sequence[Trial], folder: Path, *, where: Where, jobs: int | None = None, tell: Tell = lambda outcome: None
) -> list[Outcome]:
    """Run what is not yet complete of an experiment's trials, and return how each ended, in their order.

    Trials that share a run are run once. `tell` hears of each as it ends. A trial that fails does not stop the others; Ctrl-C
    does, and leaves what runs to be resumed by the next call. Raises LoralabError when a trial of the same name has other settings.
    """
    outcomes: dict[str, Outcome] = {}
    sharing: dict[Path, list[Trial]] = {}
    for trial in trials:
        sharing.setdefault(trial_folder(folder, trial), []).append(trial)

    def ended(outcome: Outcome) -> None:
        for trial in sharing[trial_folder(folder, outcome.trial)]:
            outcomes[trial.name] = replace(outcome, trial=trial)
            tell(outcomes[trial.name])

    waiting = []
    for trial, *_ in sharing.values():
        if is_complete(trial, folder):
            ended(Outcome(trial, found=True))
        else:
            waiting.append(trial)
    jobs = min(jobs or _cores(), len(waiting))
    if where == "here" or jobs <= 1:
        for trial in waiting:
            ended(attempt(trial, folder))
    else:
        _run_in_processes(waiting, folder, jobs, ended)
    return [outcomes[trial.name] for trial in trials]


def choose_where(asked: str | None) -> Where:
    """Read --where. By default processes, where there is more than one core and no GPU that they would share."""
    if asked is not None:
        if asked not in get_args(Where):
            raise LoralabError(f"--where {asked}: choose one of {', '.join(get_args(Where))}")
        return cast(Where, asked)
    import torch

    return "processes" if _cores() > 1 and not torch.cuda.is_available() else "here"


def is_complete(trial: Trial, folder: Path) -> bool:
    """True where the trial's result lies. Raises LoralabError where another trial's does, or a run from elsewhere has none."""
    target = trial_folder(folder, trial)
    if trial.elsewhere:
        runs.read_scores(target)
        return True
    if not (target / runs.SCORES).is_file():
        return False
    if runs.read_scores(target).get("fingerprint") != trial.config.fingerprint():
        raise LoralabError(f"{target} was run with other settings: give another --name, or replace the experiment with --overwrite")
    return True


def attempt(trial: Trial, folder: Path) -> Outcome:
    """Run one trial, from its last checkpoint where it was stopped, and tell how it ended. Only Ctrl-C gets through."""
    from loralab.pipeline import run_training

    target = trial_folder(folder, trial)
    run = partial(run_training, trial.config, name=target.name, folder=target.parent)
    try:
        if is_complete(trial, folder):
            return Outcome(trial, found=True)
        started = (target / runs.CONFIG).is_file()
        try:
            run(resume=started)
        except Interrupted:
            raise
        except LoralabError as error:
            if not started or isinstance(error, RunFailed):
                raise
            run(overwrite=True)  # what was begun on another machine or with other threads cannot go on to the same result
    except Interrupted:
        raise
    except LoralabError as error:
        return Outcome(trial, failure=str(error))
    except Exception as error:
        traceback.print_exc()  # a bug of ours keeps its trace, and the other trials their chance
        return Outcome(trial, failure=repr(error))
    return Outcome(trial)


def _run_in_processes(trials: Sequence[Trial], folder: Path, jobs: int, ended: Tell) -> None:
    """Run trials in `jobs` processes that share the cores. One that dies takes its pool with it: a new pool goes on."""
    left = list(trials)
    deaths = dict.fromkeys((trial.name for trial in trials), 0)
    threads = max(1, _cores() // jobs)
    while left:
        with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_use_threads, initargs=(threads,)) as pool:
            try:
                for future in as_completed([pool.submit(attempt, trial, folder) for trial in left]):
                    outcome = future.result()
                    left = [trial for trial in left if trial.name != outcome.trial.name]
                    ended(outcome)
            except BrokenProcessPool:
                for trial in left[:jobs]:  # trials start in order: these were running
                    deaths[trial.name] += 1
                for trial in [trial for trial in left if deaths[trial.name] == MOST_DEATHS]:
                    left.remove(trial)
                    ended(Outcome(trial, failure=f"its process died {MOST_DEATHS} times; if memory is short, try --jobs 1"))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _use_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
