"""Where trials run: one after another here, in processes of this machine, or on Ray. Completed trials are skipped."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, cast, get_args

from loralab.errors import LoralabError
from loralab.experiments.run_trial import MAX_DEATHS, Outcome, OutcomeCallback, is_complete, run_trial
from loralab.storage.experiment_folder import Trial, trial_folder
from loralab.training.distributed import available_cores

Where = Literal["here", "processes", "ray"]


@dataclass(frozen=True)
class ExecutionOptions:
    """Where trials run. jobs: at most this many at a time. ray_address: a Ray cluster; None starts Ray on this machine."""

    where: Where = "here"
    jobs: int | None = None
    ray_address: str | None = None


def choose_execution(where: str | None = None, jobs: int | None = None, ray_address: str | None = None) -> ExecutionOptions:
    """Check --where and --ray-address. The default is processes for several cores without a GPU, which they would share."""
    if ray_address is not None and where != "ray":
        raise LoralabError(f"--ray-address {ray_address} needs --where ray")
    if where is None:
        import torch

        where = "processes" if available_cores() > 1 and not torch.cuda.is_available() else "here"
    if where not in get_args(Where):
        raise LoralabError(f"--where {where}: choose one of {', '.join(get_args(Where))}")
    return ExecutionOptions(cast(Where, where), jobs, ray_address)


def run_trials(
    trials: Sequence[Trial],
    folder: Path,
    execution: ExecutionOptions,
    on_outcome: OutcomeCallback = lambda outcome: None,
) -> list[Outcome]:
    """Run the trials that are not complete and return all outcomes in the trials' order.

    Trials that share a run folder are run once. `on_outcome` receives each outcome as the trial ends. A failed trial does not stop
    the others; Ctrl-C does, and the next call resumes the interrupted ones. Raises LoralabError for a trial of the same name with
    other settings.
    """
    outcomes: dict[str, Outcome] = {}
    sharing: dict[Path, list[Trial]] = {}
    for trial in trials:
        sharing.setdefault(trial_folder(folder, trial), []).append(trial)

    def record(outcome: Outcome) -> None:
        for trial in sharing[trial_folder(folder, outcome.trial)]:
            outcomes[trial.name] = replace(outcome, trial=trial)
            on_outcome(outcomes[trial.name])

    waiting = []
    for trial, *_ in sharing.values():
        if is_complete(trial, folder):
            record(Outcome(trial, skipped=True))
        else:
            waiting.append(trial)
    processes = min(execution.jobs or available_cores(), len(waiting))
    if execution.where == "ray" and waiting:
        from loralab.experiments.on_ray import run_on_ray

        run_on_ray(waiting, folder, execution.jobs, execution.ray_address, record)
    elif execution.where == "here" or processes <= 1:
        for trial in waiting:
            record(run_trial(trial, folder))
    else:
        _run_in_processes(waiting, folder, processes, record)
    return [outcomes[trial.name] for trial in trials]


def _run_in_processes(trials: Sequence[Trial], folder: Path, processes: int, record: OutcomeCallback) -> None:
    """Run trials in processes that share the cores. A process that dies breaks its pool; a new pool runs what is left."""
    waiting = list(trials)
    deaths = Counter[str]()
    threads = max(1, available_cores() // processes)
    while waiting:
        with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_start_worker, initargs=(threads,)) as pool:
            try:
                with _sigint_ignored():
                    futures = [pool.submit(run_trial, trial, folder) for trial in waiting]
                for future in as_completed(futures):
                    outcome = future.result()
                    waiting = [trial for trial in waiting if trial.name != outcome.trial.name]
                    record(outcome)
            except BrokenProcessPool:
                for trial in waiting[:processes]:  # trials start in order, so these were running
                    deaths[trial.name] += 1
                    if deaths[trial.name] == MAX_DEATHS:
                        waiting.remove(trial)
                        record(Outcome(trial, failure=death_message(MAX_DEATHS)))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def death_message(deaths: int) -> str:
    """Return why a trial failed whose process died this often."""
    return f"its process died {deaths} times; if memory is short, use --jobs 1"


@contextmanager
def _sigint_ignored() -> Iterator[None]:
    """Let processes started here ignore Ctrl-C until `_start_worker`; during their imports it would print a traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker(threads: int) -> None:
    """Import what a trial needs, set the threads, then let Ctrl-C interrupt."""
    import torch

    import loralab.pipeline  # noqa: F401

    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.default_int_handler)
