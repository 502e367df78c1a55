"""A search from space to best settings: its trials are ordinary runs, and an interrupted search is resumed."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from loralab.config import Config, load_config
from loralab.config.loading import search_ranges
from loralab.config.yaml_core import read_yaml
from loralab.errors import Interrupted, LoralabError, RunFailed
from loralab.experiments.importance import Importance
from loralab.experiments.plans import apply_points
from loralab.experiments.run import open_experiment
from loralab.experiments.run_trial import TrialPruned, check_same_rows, run_trial
from loralab.experiments.search_results import write_best_settings, write_search_results, write_trial_table
from loralab.experiments.space import default_ranges, make_space, parse_over
from loralab.experiments.study import COSTS, Pruner, Sampler, SearchSettings, SearchTrial, Study, remove_study
from loralab.storage import experiment_folder, run_folder
from loralab.storage.experiment_folder import BEST, SEARCH_RESULTS, TABLE, ExperimentSpec, Trial, TrialRecord
from loralab.storage.files import write_errors
from loralab.training.callbacks import EvalEnd, Event, StepEnd
from loralab.training.distributed import available_cores
from loralab.verify import check_complete_run

QUESTION = "Which settings are best on the validation rows?"
LIMITS = ("data.max_train_samples", "data.max_test_samples", "train.max_steps")
"""Settings that make a search faster and that training with the best settings should not inherit."""
POLL_SECONDS = 1.0
STOPPED = 3
"""Exit code of a worker that has reported why no trial can run."""


@dataclass(frozen=True)
class SearchPlan:
    """A recipe with fixed settings (`key=value`), and the search settings. classes: the data's number of classes."""

    recipe: str
    fixed: tuple[str, ...]
    base: Config
    settings: SearchSettings
    classes: int

    @property
    def spec(self) -> ExperimentSpec:
        """The spec in experiment.json."""
        varied = {name: [text] for name, text in self.settings.space.to_text().items()}
        return ExperimentSpec("search", QUESTION, (self.recipe,), self.fixed, varied)

    @property
    def limits(self) -> list[str]:
        """The fixed settings that limit rows or steps."""
        return [setting for setting in self.fixed if setting.partition("=")[0] in LIMITS]

    def trial(self, number: int, points: Mapping[str, str]) -> Trial:
        """Return the trial of a point."""
        config, factors = apply_points(self.base, points)
        return Trial(f"trial-{number:04d}", config.model_copy(update={"name": None}), factors)

    def unlimited_config(self, points: Mapping[str, str]) -> Config:
        """Return the config of a point without the search's limits."""
        base = load_config(self.recipe, [setting for setting in self.fixed if setting not in self.limits])
        return apply_points(base, points)[0].model_copy(update={"name": None})

    def check_budget(self, points: Mapping[str, str]) -> tuple[int, str | None]:
        """Return the trainable parameters of a point, and the reason if they exceed `lora.max_trainable`."""
        from loralab.info import count_parameters

        config = self.trial(0, points).config
        trainable = count_parameters(config, self.classes)[1].trainable
        budget = config.lora.max_trainable
        over = budget is not None and trainable > budget
        return trainable, f"over budget: {trainable:,} of {budget:,} trainable parameters" if over else None


@dataclass(frozen=True)
class SearchSummary:
    """A search's results. best: the numbers of the best trials, the best first; several tie, or are a Pareto front."""

    folder: Path
    plan: SearchPlan
    trials: tuple[SearchTrial, ...]
    best: tuple[int, ...]
    importances: Mapping[str, Importance]


def plan_search(
    recipe: str,
    settings: Sequence[str] = (),
    *,
    ranges: Sequence[str] | Path = (),
    objectives: Sequence[str] = ("accuracy",),
    sampler: Sampler = "tpe",
    pruner: Pruner = "median",
    trials: int = 20,
) -> SearchPlan:
    """Plan a search. The space is `ranges` (`SETTING=RANGE`, or a YAML file), else the recipe's `search:`, else a default space.

    Fixed `settings` leave the space of a file or recipe. Raises LoralabError for a setting that cannot be searched, an objective
    that is not a score of the validation rows, missing data and a missing encoder: anything that would fail in every trial.
    """
    base = load_config(recipe, settings)
    fixed = {setting.partition("=")[0] for setting in settings}
    if ranges and not isinstance(ranges, Path):
        space = parse_over(ranges)
        if conflicts := sorted(fixed & set(space)):
            raise LoralabError(f"{conflicts[0]} is both fixed, by KEY=VALUE, and searched, by --over: choose one")
    else:
        space = read_yaml(ranges) if isinstance(ranges, Path) else search_ranges(recipe) or default_ranges(base)
        space = {name: text for name, text in space.items() if name not in fixed}
    search_settings = SearchSettings(make_space(base, space), tuple(objectives), sampler, pruner, trials, base.seed)
    return SearchPlan(recipe, tuple(settings), base, search_settings, check_objectives(base, search_settings.objectives))


def run_search(
    plan: SearchPlan,
    folder: Path,
    *,
    jobs: int = 1,
    storage: str | None = None,
    overwrite: bool = False,
    announce: Callable[[SearchPlan, Sequence[SearchTrial]], None] = lambda plan, trials: None,
    on_trial_end: Callable[[SearchTrial], None] = lambda trial: None,
) -> SearchSummary:
    """Run a search's trials into `folder` in `jobs` processes, or resume an interrupted search.

    `plan.settings.trials` counts over all calls, and over all programs that share `storage`, a PostgreSQL URL. `announce` receives
    the trials known before, `on_trial_end` each trial that ends now, on other machines too. Raises LoralabError if the folder or
    the storage holds another search, and Interrupted after Ctrl-C.
    """
    open_experiment(plan.spec, folder, overwrite)
    if overwrite and storage:
        remove_study(folder.name, storage)
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    study = open_study(plan, folder, storage)
    check_complete_trials(study, plan, folder)
    recorder = _SearchRecorder(plan, folder, study, on_trial_end)
    recorder.update(quiet=True)
    announce(plan, study.trials())
    try:
        with write_errors(folder):  # Optuna's journal does not explain a full disk
            if jobs == 1:
                run_claimed_trials(study, plan, folder, recorder.update)
            else:
                _run_in_processes(plan, folder, storage, jobs, study, recorder)
    except (KeyboardInterrupt, Interrupted) as error:
        recorder.update()
        raise Interrupted(f"interrupted: {folder} keeps the completed trials; resume with the same command") from error
    recorder.update()
    summary = SearchSummary(folder, plan, tuple(study.trials()), tuple(study.best_numbers()), study.importances())
    with write_errors(folder):  # its checksums are those of the files that are replaced now
        (folder / SEARCH_RESULTS).unlink(missing_ok=True)
    if summary.best:
        best = next(trial for trial in summary.trials if trial.number == summary.best[0])
        ties = summary.best[1:] if len(plan.settings.objectives) == 1 else ()
        write_best_settings(folder, _best_header(plan, best, ties), plan.unlimited_config(best.points))
    write_search_results(folder, plan.spec, plan.settings, summary.trials, summary.best, summary.importances)
    return summary


def open_study(plan: SearchPlan, folder: Path, storage: str | None) -> Study:
    """Open a search's study, in its folder or, under the folder's name, in a database."""
    # differ among machines
    paths: Any = {"data": {"source", "test", "validation", "train_indices"}, "model": {"base"}, "name": True}
    settings = plan.base.model_dump(mode="json", exclude=paths)
    sections = {name: value if isinstance(value, dict) else {"": value} for name, value in settings.items()}
    named = {f"{section}.{name}".rstrip("."): value for section, own in sections.items() for name, value in own.items()}
    return Study(plan.settings, folder, folder.name if storage else "search", storage, named)


def check_complete_trials(study: Study, plan: SearchPlan, folder: Path) -> None:
    """Raise LoralabError for a trial that is complete, and whose files, where they are on this machine, are damaged."""
    for known in study.trials():
        target = experiment_folder.trial_folder(folder, plan.trial(known.number, known.points))
        if known.state == "complete" and target.exists():
            try:
                check_complete_run(target)
            except LoralabError as error:
                raise LoralabError(f"{error}\n  or replace the search with --overwrite") from error


def run_claimed_trials(study: Study, plan: SearchPlan, folder: Path, on_change: Callable[[], None] = lambda: None) -> None:
    """Claim and run trials until none is left. `on_change` is called after each claim and each end.

    Raises LoralabError if the next trials would fail too, because data, encoder or disk are gone: the same command resumes.
    """
    while (claimed := study.claim(plan.check_budget)) is not None:
        on_change()
        try:
            run_claimed_trial(study, plan, folder, claimed)
        except BaseException:
            with contextlib.suppress(Exception):  # such as a full disk: a trial whose process has ended is abandoned anyway
                study.release(claimed.number)
            raise
        on_change()


def run_claimed_trial(study: Study, plan: SearchPlan, folder: Path, claimed: SearchTrial) -> None:
    """Run or resume one trial and record its result in the study. Raises as `run_claimed_trials`, and Interrupted."""
    trial, objectives = plan.trial(claimed.number, claimed.points), plan.settings.objectives
    target = experiment_folder.trial_folder(folder, trial)
    outcome = run_trial(trial, folder, [_PruningListener(study, claimed.number, target, objectives[0])])
    facts: dict[str, Any] = {"restarted": outcome.restarted} if outcome.restarted else {}
    if outcome.pruned is not None:
        (target / run_folder.CHECKPOINT).unlink(missing_ok=True)
        facts["steps"] = max(event["step"] for event in run_folder.read_log(target))
        study.finish(claimed.number, "pruned", reason=outcome.pruned, **facts)
    elif outcome.failure is not None:
        if outcome.environment:
            raise RunFailed(f"the search stopped at {trial.name}: {outcome.failure}\n  the same command resumes it")
        check_objectives(plan.base, objectives)
        study.finish(claimed.number, "failed", reason=outcome.failure)
    else:
        scores = run_folder.read_scores(target)
        earlier = next((other for other in study.trials() if other.state == "complete"), None)
        check_same_rows(folder, [*([plan.trial(earlier.number, earlier.points)] if earlier else ()), trial])
        facts |= {"trainable": scores["counts"]["trainable"], "steps": scores["steps"], "seconds": scores["seconds"]}
        values = [float(facts[name] if name in COSTS else scores["validation"].get(name, math.nan)) for name in objectives]
        if any(value != value for value in values):
            study.finish(claimed.number, "failed", reason=f"{objectives[0]} is not a number")
        else:
            study.finish(claimed.number, "complete", values=values, **facts)


class _PruningListener:
    """Reports a trial's evaluations to the study, and ends the trial if the study prunes it."""

    def __init__(self, study: Study, number: int, target: Path, objective: str) -> None:
        self.study, self.number, self.target, self.objective = study, number, target, objective
        self.at_end = False

    def __call__(self, event: Event) -> None:
        self.study.heartbeat(self.number)
        if isinstance(event, StepEnd):
            self.at_end = event.step == event.steps
        if not isinstance(event, EvalEnd):
            return
        evaluation = sum(logged["event"] == "EvalEnd" for logged in run_folder.read_log(self.target))  # resumed ones included
        value = event.scores.get(self.objective)  # the F1 of a class without validation rows is missing
        if value is not None and self.study.should_prune(self.number, evaluation, value) and not self.at_end:
            raise TrialPruned(f"pruned at evaluation {evaluation}, step {event.step}: {self.objective} {value:.4f}")


class _SearchRecorder:
    """Keeps experiment.json and trials.csv up to date, and reports each trial that has ended since the last update."""

    def __init__(self, plan: SearchPlan, folder: Path, study: Study, on_trial_end: Callable[[SearchTrial], None]) -> None:
        self.plan, self.folder, self.study, self.on_trial_end = plan, folder, study, on_trial_end
        self.trials: list[SearchTrial] | None = None
        self._identities: dict[int, str] = {}

    def update(self, quiet: bool = False) -> None:
        """Read the study and write what has changed."""
        trials = self.study.trials()
        if self.trials is not None and [trial.state for trial in trials] == [trial.state for trial in self.trials]:
            return
        records = [self._record(trial) for trial in trials if trial.state != "rejected" and trial.points]
        experiment_folder.write_experiment(self.folder, self.plan.spec, records)
        write_trial_table(self.folder / TABLE, self.plan.settings, trials)
        ended_before = {trial.number for trial in self.trials or () if trial.ended}
        self.trials = trials
        for trial in trials:
            if trial.ended and trial.number not in ended_before and not quiet:
                self.on_trial_end(trial)

    def _record(self, trial: SearchTrial) -> TrialRecord:
        failure, pruned = (trial.reason if trial.state == state else None for state in ("failed", "pruned"))
        own = self.plan.trial(trial.number, trial.points)
        if trial.state == "complete" and trial.number not in self._identities:
            self._identities[trial.number] = run_folder.run_identity(experiment_folder.trial_folder(self.folder, own))
        return TrialRecord.of(own, failure, pruned, self._identities.get(trial.number, ""))


def _run_in_processes(
    plan: SearchPlan, folder: Path, storage: str | None, jobs: int, study: Study, recorder: _SearchRecorder
) -> None:
    """Run trials in `jobs` processes that share the cores. A process that dies is replaced, and its trial resumed."""
    context, threads = get_context("spawn"), max(1, available_cores() // jobs)
    reasons = context.SimpleQueue()

    def start() -> BaseProcess:
        process = context.Process(target=_run_worker, args=(plan, folder, storage, threads, reasons))
        process.start()
        return process

    workers = [start() for _ in range(jobs)]
    try:
        while workers:
            connection.wait([worker.sentinel for worker in workers], timeout=POLL_SECONDS)
            recorder.update()
            for worker in [worker for worker in workers if worker.exitcode is not None]:
                workers.remove(worker)
                if worker.exitcode == 0:
                    continue
                if worker.exitcode == STOPPED:
                    raise RunFailed(reasons.get())
                if not study.record_death(worker.pid or 0):
                    raise RunFailed(f"a process of the search ended with exit code {worker.exitcode} before it had a trial")
                workers.append(start())
    finally:
        for worker in workers:  # left only after Ctrl-C or a failure; the next call resumes their trials
            worker.terminate()
        for worker in workers:
            worker.join()


def _run_worker(plan: SearchPlan, folder: Path, storage: str | None, threads: int, reasons: Any) -> None:
    """Run trials in a process that ends with its parent. Ctrl-C is left to the parent.

    reasons: a queue that gets the message of a LoralabError, which ends the process with the exit code STOPPED.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    import torch  # takes a second, in which Ctrl-C must already be ignored

    torch.set_num_threads(threads)
    try:
        with write_errors(folder):
            run_claimed_trials(open_study(plan, folder, storage), plan, folder)
    except LoralabError as error:
        reasons.put(str(error))
        sys.exit(STOPPED)


def _exit_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def check_objectives(base: Config, objectives: Sequence[str]) -> int:
    """Check that trials can run and be scored, and return the number of classes."""
    from loralab import metrics
    from loralab.data.sources import load_source
    from loralab.info import count_parameters

    if base.data.validation == 0:
        raise LoralabError("a search needs validation rows, and data.validation=0 leaves none: remove it")
    data = base.data
    classes = data.classes or load_source(data).train.classes
    scored = metrics.tracked_scores(base.train.monitor, base.train.track, [str(label) for label in classes])
    for name in objectives:
        if name in COSTS:
            continue
        with contextlib.suppress(LoralabError):
            metrics.check_monitor(name, [str(label) for label in classes])
            if not name.startswith("balance:") or name in scored:
                continue
        raise LoralabError(
            f"--objective {name}: choose accuracy, macro_f1, macro_f1_all, mcc, kappa, loss, ece, brier, f1:NAME with NAME one of "
            f"{', '.join(map(str, classes))}, or trainable or seconds as the second; "
            "balance:A/B only if train.monitor or train.track has it"
        )
    count_parameters(base, len(classes))
    return len(classes)


def _best_header(plan: SearchPlan, best: SearchTrial, ties: Sequence[int]) -> list[str]:
    values = ", ".join(f"{name} {value:.6g}" for name, value in zip(plan.settings.objectives, best.values or (), strict=True))
    header = [
        f"Trial {best.number} of a search on {plan.recipe}: {values} on the validation rows.",
        f"Chosen by the search: {' '.join(f'{name}={point}' for name, point in best.points.items())}",
        "Listed: settings that differ from loralab's defaults.",
    ]
    if ties:
        tied = ", ".join(map(str, ties))
        header.insert(1, f"Tied with it: trial {tied}. Of tied trials the one with the fewest trainable parameters is taken.")
    if plan.limits:
        limits = " ".join(plan.limits)
        header += [
            f"The search ran with {limits}; this file has no such limits.",
            f"To repeat the trial: loralab train {BEST} {limits}",
        ]
    return header
