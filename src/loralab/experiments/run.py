"""The route of an experiment: question → trials → run folders. Each trial is an ordinary run, and what is finished stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from loralab.config import Config
from loralab.data.prepare import load_splits
from loralab.errors import LoralabError
from loralab.experiments.active import plan_active
from loralab.experiments.compare import plan_comparison
from loralab.experiments.execute import Where, run_all
from loralab.experiments.plans import make_plan
from loralab.experiments.run_trial import Outcome, Tell
from loralab.experiments.spec import Kind
from loralab.storage import experiment_folder
from loralab.storage.experiment_folder import Experiment, ExperimentSpec, Factor, Trial, TrialRecord


class Planned(Protocol):
    """A question, and its trials in rounds, each run before the next is asked for; `say` hears what takes time between them."""

    @property
    def question(self) -> ExperimentSpec: ...

    def inputs(self) -> Sequence[Config]:
        """The settings of one trial of each recipe, to be tried before anything is written; of runs that are there none."""

    def rounds(self, folder: Path, say: Callable[[str], None]) -> Iterator[Sequence[Trial]]: ...


@dataclass(frozen=True)
class ExperimentSummary:
    """What an experiment came to: its folder and how each trial ended."""

    folder: Path
    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> dict[str, str]:
        """Why trials have no result, by name."""
        return {outcome.trial.name: outcome.failure for outcome in self.outcomes if outcome.failure is not None}


def plan_experiment(
    kind: Kind,
    recipes: Sequence[str],
    settings: Sequence[str] = (),
    points: Mapping[str, Sequence[str]] | None = None,
    seeds: Sequence[int] | None = None,
) -> Planned:
    """Plan a kind of experiment on recipes or, where its design is `runs`, on run folders; arguments as in `make_plan`."""
    points = points or {}
    match kind.design:
        case "grid" | "around":
            return make_plan(kind, recipes, settings, points, seeds)
        case "chains":
            return plan_active(kind, recipes, settings, points, seeds)
        case "runs":
            return plan_comparison(kind, recipes, settings, points, seeds)


def run_experiment(
    plan: Planned,
    folder: Path,
    *,
    where: Where = "here",
    jobs: int | None = None,
    ray_address: str | None = None,
    overwrite: bool = False,
    announce: Callable[[ExperimentSpec, Sequence[Trial]], None] = lambda question, trials: None,
    tell: Tell = lambda outcome: None,
    say: Callable[[str], None] = lambda what: None,
) -> ExperimentSummary:
    """Run a plan's trials into `folder`, or go on with an experiment that was stopped or now has more points.

    `announce` is told the question and each round of trials before it starts, `tell` each trial's end, `say` what is done between
    rounds. Raises LoralabError where the folder holds another experiment, unless `overwrite`, and for data or an encoder that
    no recipe finds.
    """
    check_inputs(plan.inputs())
    earlier = open_experiment(plan.question, folder, overwrite)
    question = together(earlier.question, plan.question) if earlier else plan.question
    entries = {entry.name: entry for entry in earlier.entries} if earlier else {}
    outcomes: list[Outcome] = []
    for round_ in plan.rounds(folder, say):
        entries |= {trial.name: TrialRecord.of(trial) for trial in round_}
        experiment_folder.write_experiment(folder, question, entries.values())
        announce(plan.question, round_)
        ended = run_all(round_, folder, where=where, jobs=jobs, ray_address=ray_address, tell=tell)
        entries |= {outcome.trial.name: TrialRecord.of(outcome.trial, outcome.failure) for outcome in ended}
        experiment_folder.write_experiment(folder, question, entries.values())
        outcomes += ended
    return ExperimentSummary(folder, tuple(outcomes))


def check_inputs(configs: Sequence[Config]) -> None:
    """Raise what is wrong with every recipe, such as data or an encoder that is not there: once, and before the first trial."""
    wrong = [error for config in configs if (error := _wrong(config)) is not None]
    if wrong and len(wrong) == len(configs):
        raise wrong[0]


def _wrong(config: Config) -> LoralabError | None:
    from loralab.info import count_parameters

    try:
        splits, _ = load_splits(**config.data.division())
        count_parameters(config, len(splits.classes))
    except LoralabError as error:
        return error
    return None


def open_experiment(question: ExperimentSpec, folder: Path, overwrite: bool) -> Experiment | None:
    """Return what an earlier call of the same question planned. Its trials stay, whatever points this call gives."""
    if overwrite:
        experiment_folder.remove_experiment(folder)
    if not experiment_folder.is_experiment(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise LoralabError(f"{folder} exists and is not an experiment: choose another --name or --runs")
        return None
    earlier = experiment_folder.read_experiment(folder)
    before, now = earlier.question, question
    for what in ("kind", "recipes", "held"):
        if getattr(before, what) != getattr(now, what):
            raise LoralabError(
                f"{folder} asks something else: its {what} are {getattr(before, what)}, not {getattr(now, what)}\n"
                "  choose another --name, or replace it with --overwrite"
            )
    return earlier


def together(before: ExperimentSpec, now: ExperimentSpec) -> ExperimentSpec:
    """Return the question with the points of both calls, numbers in ascending order."""

    def points(factor: str) -> Sequence[Factor]:
        all_ = [*dict.fromkeys((*before.varied.get(factor, ()), *now.varied.get(factor, ())))]
        numbers = [point for point in all_ if isinstance(point, int | float)]
        return [*sorted(numbers)] if len(numbers) == len(all_) else all_

    return replace(now, varied={factor: points(factor) for factor in {**before.varied, **now.varied}})
