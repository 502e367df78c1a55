"""The route of an experiment: question → trials → run folders. Each trial is an ordinary run, and what is finished stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loralab import trials
from loralab.errors import LoralabError
from loralab.experiments.attempt import Outcome, Tell
from loralab.experiments.execute import Where, run_all
from loralab.experiments.plans import Plan
from loralab.trials import Entry, Question, Trial


@dataclass(frozen=True)
class ExperimentSummary:
    """What an experiment came to: its folder and how each trial ended."""

    folder: Path
    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> dict[str, str]:
        """Why trials have no result, by name."""
        return {outcome.trial.name: outcome.failure for outcome in self.outcomes if outcome.failure is not None}


def run_experiment(
    plan: Plan,
    folder: Path,
    *,
    where: Where = "here",
    jobs: int | None = None,
    ray_address: str | None = None,
    overwrite: bool = False,
    announce: Callable[[Question, Sequence[Trial]], None] = lambda question, trials: None,
    tell: Tell = lambda outcome: None,
) -> ExperimentSummary:
    """Run a plan's trials into `folder`, or go on with an experiment that was stopped or now has more points.

    `announce` is told the question and each round of trials before it starts, `tell` each trial's end. Raises LoralabError
    where the folder holds another experiment, unless `overwrite`.
    """
    earlier = open_experiment(plan.question, folder, overwrite)
    entries = {entry.name: entry for entry in earlier}
    outcomes: list[Outcome] = []
    for round_ in plan.rounds(folder):
        entries |= {trial.name: Entry.of(trial) for trial in round_}
        trials.write_experiment(folder, plan.question, entries.values())
        announce(plan.question, round_)
        ended = run_all(round_, folder, where=where, jobs=jobs, ray_address=ray_address, tell=tell)
        entries |= {outcome.trial.name: Entry.of(outcome.trial, outcome.failure) for outcome in ended}
        trials.write_experiment(folder, plan.question, entries.values())
        outcomes += ended
    return ExperimentSummary(folder, tuple(outcomes))


def open_experiment(question: Question, folder: Path, overwrite: bool) -> Iterable[Entry]:
    """Return the trials that an earlier call of the same question planned. They stay, whatever points this call gives."""
    if overwrite:
        trials.remove_experiment(folder)
    if not trials.is_experiment(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise LoralabError(f"{folder} exists and is not an experiment: choose another --name or --runs")
        return ()
    earlier = trials.read_experiment(folder)
    before, now = earlier.question, question
    for what in ("kind", "recipes", "held"):
        if getattr(before, what) != getattr(now, what):
            raise LoralabError(
                f"{folder} asks something else: its {what} are {getattr(before, what)}, not {getattr(now, what)}\n"
                "  choose another --name, or replace it with --overwrite"
            )
    return earlier.entries
