"""An experiment from plan to results: its trials are ordinary runs, and completed trials are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from loralab.config import Config
from loralab.data.splits import load_splits
from loralab.errors import LoralabError
from loralab.experiments.active import plan_active
from loralab.experiments.compare import plan_comparison
from loralab.experiments.execute import ExecutionOptions, run_trials
from loralab.experiments.plans import make_plan
from loralab.experiments.run_trial import Outcome, OutcomeCallback, check_same_rows
from loralab.experiments.spec import ExperimentKind
from loralab.storage import experiment_folder, run_folder
from loralab.storage.experiment_folder import Experiment, ExperimentSpec, Factor, Trial, TrialRecord


class ExperimentPlan(Protocol):
    """A spec and its trials in rounds; each round runs before the next is requested."""

    @property
    def spec(self) -> ExperimentSpec: ...

    def inputs(self) -> Sequence[Config]:
        """Return one config per recipe, to be checked before anything is written; none for existing runs."""

    def rounds(self, folder: Path, on_progress: Callable[[str], None]) -> Iterator[Sequence[Trial]]:
        """Yield rounds of trials. `on_progress` receives a message before slow work between rounds."""


@dataclass(frozen=True)
class ExperimentSummary:
    """An experiment's folder and how each trial ended."""

    folder: Path
    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> dict[str, str]:
        """Trial name → why it failed."""
        return {outcome.trial.name: outcome.failure for outcome in self.outcomes if outcome.failure is not None}


def plan_experiment(
    kind: ExperimentKind,
    sources: Sequence[str],
    settings: Sequence[str] = (),
    points: Mapping[str, Sequence[str]] | None = None,
    seeds: Sequence[int] | None = None,
) -> ExperimentPlan:
    """Plan an experiment on recipes or, for the design `runs`, on run folders. Other arguments as in `make_plan`."""
    points = points or {}
    match kind.design:
        case "grid" | "one-at-a-time":
            return make_plan(kind, sources, settings, points, seeds)
        case "sequential":
            return plan_active(kind, sources, settings, points, seeds)
        case "runs":
            return plan_comparison(kind, sources, settings, points, seeds)


def default_name(kind: str, sources: Sequence[str]) -> str:
    """Return an experiment's default name: its kind and the stems of its recipes or runs, equal words once."""
    return "-".join(dict.fromkeys([kind, *(Path(source).stem for source in sources)]))[:80]


def run_experiment(
    plan: ExperimentPlan,
    folder: Path,
    execution: ExecutionOptions | None = None,
    *,
    overwrite: bool = False,
    announce: Callable[[ExperimentSpec, Sequence[Trial]], None] = lambda spec, trials: None,
    on_outcome: OutcomeCallback = lambda outcome: None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> ExperimentSummary:
    """Run a plan's trials into `folder`, or resume an interrupted experiment or one that has more points now.

    `announce` receives the spec and each round of trials before it starts, `on_outcome` each ended trial, `on_progress` what
    happens between rounds. Raises LoralabError for a folder with another experiment, unless `overwrite`, and if no recipe has
    usable data and a usable encoder.
    """
    check_inputs(plan.inputs())
    earlier = open_experiment(plan.spec, folder, overwrite)
    spec = merge_specs(earlier.spec, plan.spec) if earlier else plan.spec
    records = {record.name: record for record in earlier.records} if earlier else {}
    outcomes: list[Outcome] = []
    for trials in plan.rounds(folder, on_progress):
        records |= {trial.name: TrialRecord.of(trial) for trial in trials}
        experiment_folder.write_experiment(folder, spec, records.values())
        announce(plan.spec, trials)
        ended = run_trials(trials, folder, execution or ExecutionOptions(), on_outcome)
        records |= {outcome.trial.name: _record(folder, outcome) for outcome in ended}
        experiment_folder.write_experiment(folder, spec, records.values())
        outcomes += ended
        check_same_rows(folder, [outcome.trial for outcome in outcomes if outcome.failure is None])
    return ExperimentSummary(folder, tuple(outcomes))


def check_inputs(configs: Sequence[Config]) -> None:
    """Raise the first error, such as missing data or a missing encoder, if every recipe has one."""
    from loralab.info import count_parameters

    errors = []
    for config in configs:
        try:
            splits, _ = load_splits(config.data)
            count_parameters(config, len(splits.classes))
            return
        except LoralabError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def open_experiment(spec: ExperimentSpec, folder: Path, overwrite: bool) -> Experiment | None:
    """Return the experiment in `folder`, None for a new folder. Raises LoralabError for another experiment or other content."""
    if overwrite:
        experiment_folder.remove_experiment(folder)
    if not experiment_folder.is_experiment(folder):
        if folder.exists() and (not folder.is_dir() or not all(_is_beginning(path.name, spec.kind) for path in folder.iterdir())):
            raise LoralabError(f"{folder} exists and is not an experiment: choose another --name or --runs")
        return None
    earlier = experiment_folder.read_experiment(folder)
    for name, label in (("kind", "kind"), ("recipes", "recipes"), ("fixed", "fixed settings")):
        before, now = getattr(earlier.spec, name), getattr(spec, name)
        if before != now:
            if not isinstance(before, str):  # name what differs, not what both have
                before, now = ([value for value in own if value not in other] for own, other in ((before, now), (now, before)))
            raise LoralabError(
                f"{folder} holds another experiment, with {label} {_text(before)}, not {_text(now)}\n"
                "  choose another --name, or replace it with --overwrite"
            )
    return earlier


def _is_beginning(name: str, kind: str) -> bool:
    """Return whether a file is what a killed command leaves before experiment.json exists."""
    journal = {experiment_folder.STUDY, experiment_folder.STUDY_LOCK, experiment_folder.CLAIM_LOCK}
    own = {experiment_folder.ROWS, *(journal if kind == "search" else ())}
    return name in own or name.startswith(f".{experiment_folder.EXPERIMENT}.")


def merge_specs(before: ExperimentSpec, now: ExperimentSpec) -> ExperimentSpec:
    """Return the spec with the points of both calls, numbers in ascending order."""

    def merge(factor: str) -> Sequence[Factor]:
        points = [*dict.fromkeys((*before.varied.get(factor, ()), *now.varied.get(factor, ())))]
        numbers = [point for point in points if isinstance(point, int | float)]
        return sorted(numbers) if len(numbers) == len(points) else points

    return replace(now, varied={factor: merge(factor) for factor in {**before.varied, **now.varied}})


def _record(folder: Path, outcome: Outcome) -> TrialRecord:
    complete = outcome.failure is None and outcome.pruned is None
    identity = run_folder.run_identity(experiment_folder.trial_folder(folder, outcome.trial)) if complete else ""
    return TrialRecord.of(outcome.trial, outcome.failure, run_sha256=identity)


def _text(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value) or "none"
