"""One trial, wherever it runs: complete trials are skipped, interrupted ones are resumed from their last checkpoint."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loralab.errors import Interrupted, LoralabError, RunFailed
from loralab.storage import run_folder
from loralab.storage.experiment_folder import Trial, trial_folder
from loralab.training.callbacks import Listener
from loralab.verify import check_complete_run

MAX_DEATHS = 3
"""A trial whose process died this often fails: the cause is probably the trial itself."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    skipped: it was complete already. failure, pruned: why it has no result. restarted: why it could not be resumed and started
    anew. environment: the failure is that of a file or a disk, not of the trial's settings: it can be run again.
    """

    trial: Trial
    skipped: bool = False
    failure: str | None = None
    pruned: str | None = None
    restarted: str | None = None
    environment: bool = False


class TrialPruned(Exception):
    """Raised by a listener to end a trial early. A pruned trial has no result and is not a failure."""


OutcomeCallback = Callable[[Outcome], None]


def is_complete(trial: Trial, folder: Path) -> bool:
    """Return whether the trial has a result.

    Raises LoralabError for a result of other settings, a damaged one, and an incomplete external run.
    """
    target = trial_folder(folder, trial)
    if trial.external:
        run_folder.read_scores(target)
        return True
    if not (target / run_folder.SCORES).is_file():
        return False
    # the fingerprint of the saved settings: those added later have defaults
    if run_folder.read_config(target).fingerprint() != trial.config.fingerprint():
        raise LoralabError(
            f"{target} was run with other settings: choose another --name, or replace the experiment with --overwrite"
        )
    try:
        check_complete_run(target)
    except LoralabError as error:
        raise LoralabError(f"{error}\n  or delete {target} and repeat the command: it trains this trial again") from error
    return True


def check_same_rows(folder: Path, trials: Sequence[Trial]) -> None:
    """Raise RunFailed if trials with equal data settings and seeds were trained or tested on other rows: the data has changed."""
    first: dict[tuple[str, int], tuple[Trial, object]] = {}
    for trial in trials:
        target = trial_folder(folder, trial)
        if trial.external or not (target / run_folder.SCORES).is_file():
            continue
        rows = run_folder.read_environment(target).get("rows")
        decisive = (trial.config.data.model_dump_json(), trial.config.seed)  # augmented rows depend on the seed
        before, expected = first.setdefault(decisive, (trial, rows))
        if rows != expected:
            raise RunFailed(
                f"the data changed between the trials {before.name} and {trial.name} of {folder}, so they cannot be compared\n"
                "  choose another --name, or replace the experiment with --overwrite"
            )


def run_trial(trial: Trial, folder: Path, listeners: Sequence[Listener] = ()) -> Outcome:
    """Run one trial, or resume it, and return how it ended. Raises nothing but Interrupted, after Ctrl-C."""
    from loralab.pipeline import run_training

    target = trial_folder(folder, trial)
    run = partial(run_training, trial.config, name=target.name, folder=target.parent, listeners=listeners)
    try:
        if is_complete(trial, folder):
            return Outcome(trial, skipped=True)
        return Outcome(trial, restarted=start_or_resume(run, target))
    except Interrupted:
        raise
    except TrialPruned as reason:
        return Outcome(trial, pruned=str(reason))
    except LoralabError as error:
        return Outcome(trial, failure=str(error), environment=isinstance(error.__cause__, OSError))
    except OSError as error:  # such as the journal's of a search, on a disk that has become read-only
        return Outcome(trial, failure=str(error), environment=True)
    except Exception as error:
        traceback.print_exc()  # a bug keeps its traceback, and the other trials continue
        return Outcome(trial, failure=repr(error))


def start_or_resume(run: Callable[..., object], target: Path) -> str | None:
    """Start a run, or resume the one in its folder with the threads it was started with, which its result depends on.

    Return why a run could not be resumed to the same result, such as another device; it is then started anew.
    """
    from loralab.model.device import thread_limit

    if not (target / run_folder.CONFIG).is_file():
        run()
        return None
    try:
        with thread_limit(run_folder.read_environment(target).get("threads")):
            run(resume=True)
        return None
    except RunFailed:
        raise
    except LoralabError as error:
        run(overwrite=True)
        return str(error)
