"""One trial, run wherever it is asked for: from its last checkpoint where it was stopped, and not at all where it is complete."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from loralab.errors import Interrupted, LoralabError, RunFailed
from loralab.storage import run_folder
from loralab.storage.experiment_folder import Trial, trial_folder
from loralab.training.callbacks import Listener

MOST_DEATHS = 3
"""A trial whose process died this often is given up: it dies of itself, not of its neighbours."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. found: it was complete before; failure or stopped: why it has no result, None where it has."""

    trial: Trial
    found: bool = False
    failure: str | None = None
    stopped: str | None = None


class TrialPruned(Exception):
    """Raised by a listener to end a trial on purpose before its end: it has no result, and is no failure."""


Tell = Callable[[Outcome], None]
T = TypeVar("T")


def is_complete(trial: Trial, folder: Path) -> bool:
    """True where the trial's result lies. Raises LoralabError where another trial's does, or a run from elsewhere has none."""
    target = trial_folder(folder, trial)
    if trial.elsewhere:
        run_folder.read_scores(target)
        return True
    if not (target / run_folder.SCORES).is_file():
        return False
    if run_folder.read_config(target).fingerprint() != trial.config.fingerprint():  # what it does not name has its default
        raise LoralabError(f"{target} was run with other settings: give another --name, or replace the experiment with --overwrite")
    return True


def run_trial(trial: Trial, folder: Path, listeners: Sequence[Listener] = ()) -> Outcome:
    """Run one trial, from its last checkpoint where it was stopped, and tell how it ended. Only Ctrl-C gets through."""
    from loralab.pipeline import run_training

    target = trial_folder(folder, trial)
    run = partial(run_training, trial.config, name=target.name, folder=target.parent, listeners=listeners)

    def attempted() -> Outcome:
        if is_complete(trial, folder):
            return Outcome(trial, found=True)
        start_or_resume(run, target)
        return Outcome(trial)

    return capture_outcome(trial, attempted)


def start_or_resume(run: Callable[..., T], target: Path) -> T:
    """Begin a run, or go on with what lies in its folder; what cannot go on to the same result begins anew."""
    started = (target / run_folder.CONFIG).is_file()
    try:
        return run(resume=started)
    except Interrupted:
        raise
    except LoralabError as error:
        if not started or isinstance(error, RunFailed):
            raise
        return run(overwrite=True)  # begun on another machine, say, or with other threads


def capture_outcome(trial: Trial, work: Callable[[], T]) -> T | Outcome:
    """What a part of a trial returns or, where it raises, how the trial ended. Only Ctrl-C gets through."""
    try:
        return work()
    except Interrupted:
        raise
    except TrialPruned as reason:
        return Outcome(trial, stopped=str(reason))
    except LoralabError as error:
        return Outcome(trial, failure=str(error))
    except Exception as error:
        traceback.print_exc()  # a bug of ours keeps its trace, and the other trials their chance
        return Outcome(trial, failure=repr(error))
