"""Where trials run: here, one after another; in processes of this machine; on Ray. Completed trials are skipped."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, cast, get_args

from loralab.errors import LoralabError
from loralab.experiments.run_trial import MOST_DEATHS, Outcome, Tell, is_complete, run_trial
from loralab.storage.experiment_folder import Trial, trial_folder

Where = Literal["here", "processes", "ray"]


def run_all(
    trials: Sequence[Trial],
    folder: Path,
    *,
    where: Where,
    jobs: int | None = None,
    ray_address: str | None = None,
    tell: Tell = lambda outcome: None,
) -> list[Outcome]:
    """Run what is not yet complete of an experiment's trials, and return how each ended, in their order.

    jobs: at most so many at a time; ray_address: a cluster, in the place of a Ray of this machine. Trials that share a run are run
    once. `tell` hears of each as it ends. A trial that fails does not stop the others; Ctrl-C does, and leaves what runs to be
    resumed by the next call. Raises LoralabError when a trial of the same name has other settings.
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
    at_once = min(jobs or cores(), len(waiting))
    if where == "ray" and waiting:
        from loralab.experiments.on_ray import run_on_ray

        run_on_ray(waiting, folder, jobs, ray_address, ended)
    elif where == "here" or at_once <= 1:
        for trial in waiting:
            ended(run_trial(trial, folder))
    else:
        _run_in_processes(waiting, folder, at_once, ended)
    return [outcomes[trial.name] for trial in trials]


def choose_where(asked: str | None, ray_address: str | None = None) -> Where:
    """Read --where and --ray-address. By default processes, where there is more than one core and no GPU that they would share."""
    if ray_address is not None and asked != "ray":
        raise LoralabError(f"--ray-address {ray_address} is for --where ray")
    if asked is not None:
        if asked not in get_args(Where):
            raise LoralabError(f"--where {asked}: choose one of {', '.join(get_args(Where))}")
        return cast(Where, asked)
    import torch

    return "processes" if cores() > 1 and not torch.cuda.is_available() else "here"


def _run_in_processes(trials: Sequence[Trial], folder: Path, jobs: int, ended: Tell) -> None:
    """Run trials in `jobs` processes that share the cores. One that dies takes its pool with it: a new pool goes on."""
    left = list(trials)
    deaths = dict.fromkeys((trial.name for trial in trials), 0)
    threads = max(1, cores() // jobs)
    while left:
        with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_begin, initargs=(threads,)) as pool:
            try:
                with _ctrl_c_ignored():
                    futures = [pool.submit(run_trial, trial, folder) for trial in left]
                for future in as_completed(futures):
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


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Processes started here ignore Ctrl-C until `_begin`: one that came while they import would end in a trace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(threads: int) -> None:
    """Make a worker ready: everything imported, its threads, and Ctrl-C as it is meant."""
    import loralab.pipeline  # noqa: F401 - what a trial needs, before it can be interrupted

    use_threads(threads)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def use_threads(threads: int) -> None:
    """Let this process compute with so many threads."""
    import torch

    torch.set_num_threads(threads)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
