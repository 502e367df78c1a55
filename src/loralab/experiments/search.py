"""The route of a search: space → trials, each an ordinary run → the best settings. Killed at any time, it goes on."""

from __future__ import annotations

import contextlib
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
from loralab.config.loading import read_yaml, search_ranges
from loralab.errors import Interrupted, LoralabError, RunFailed
from loralab.experiments.execute import cores, use_threads
from loralab.experiments.plans import apply
from loralab.experiments.run import open_experiment
from loralab.experiments.run_trial import TrialPruned, run_trial
from loralab.experiments.search_results import write_found, write_table
from loralab.experiments.space import default_ranges, make_space, parse_over
from loralab.experiments.study import COSTS, Claimed, Pruner, Row, Rules, Sampler, Study, remove_study
from loralab.storage import experiment_folder, run_folder
from loralab.storage.experiment_folder import ExperimentSpec, Trial, TrialRecord
from loralab.training.callbacks import EvalEnd, Event, StepEnd

ASKS = "Which settings are best on the validation rows?"
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Search:
    """What is searched: a recipe with settings held, and the rules. classes: how many the data has."""

    recipe: str
    held: tuple[str, ...]
    base: Config
    rules: Rules
    classes: int

    @property
    def question(self) -> ExperimentSpec:
        """What experiment.json says."""
        varied = {name: [told] for name, told in self.rules.space.told().items()}
        return ExperimentSpec("search", ASKS, (self.recipe,), self.held, varied)

    def trial(self, number: int, points: Mapping[str, str]) -> Trial:
        """The run of a point."""
        config, factors = apply(self.base, points)
        return Trial(f"trial-{number:04d}", config.model_copy(update={"name": None}), factors)

    def refuse(self, points: Mapping[str, str]) -> tuple[int, str | None]:
        """Count what a point trains; the reason where that is over `lora.max_trainable`."""
        from loralab.info import count_parameters

        config = self.trial(0, points).config
        trainable = count_parameters(config, self.classes)[1].trainable
        most = config.lora.max_trainable
        over = most is not None and trainable > most
        return trainable, f"over budget: {trainable:,} of {most:,} trainable parameters" if over else None


@dataclass(frozen=True)
class SearchSummary:
    """What a search came to. best: numbers of the best trials, one or a Pareto front, the best by the first objective first."""

    folder: Path
    search: Search
    rows: tuple[Row, ...]
    best: tuple[int, ...]
    importances: Mapping[str, Mapping[str, float]]


def plan_search(
    recipe: str,
    settings: Sequence[str] = (),
    *,
    over: Sequence[str] = (),
    space: Path | None = None,
    objectives: Sequence[str] = ("accuracy",),
    sampler: Sampler = "tpe",
    pruner: Pruner = "median",
    trials: int = 20,
) -> Search:
    """Decide what is searched: `over`, else the file `space`, else the recipe's `search:`, else what is usual, less what is held.

    Raises LoralabError for what cannot be searched, for objectives that are no scores of the validation rows, and for data or
    an encoder that are not there: what is wrong with every trial is told before the first.
    """
    base = load_config(recipe, settings)
    if over and space:
        raise LoralabError("--over and --space both say what is searched: give one")
    held = {setting.partition("=")[0] for setting in settings}
    if over:
        ranges = parse_over(over)
        if both := sorted(held & set(ranges)):
            raise LoralabError(f"{both[0]} is both held, as KEY=VALUE, and searched, by --over: choose one")
    else:
        ranges = read_yaml(space) if space else search_ranges(recipe) or default_ranges(base)
        ranges = {name: given for name, given in ranges.items() if name not in held}
    rules = Rules(make_space(base, ranges), tuple(objectives), sampler, pruner, trials, base.seed)
    return Search(recipe, tuple(settings), base, rules, _check_objectives(base, rules.objectives))


def run_search(
    search: Search,
    folder: Path,
    *,
    jobs: int = 1,
    storage: str | None = None,
    overwrite: bool = False,
    announce: Callable[[Search, Sequence[Row]], None] = lambda search, rows: None,
    tell: Callable[[Row], None] = lambda row: None,
) -> SearchSummary:
    """Run a search's trials into `folder`, in `jobs` processes, or go on with one that was stopped.

    `search.rules.trials` counts over all calls, and over all programs that share `storage`, a PostgreSQL URL. `announce` is told
    of the trials that ended before, `tell` each that ends now, on other machines too. Raises LoralabError where the folder or the
    storage holds another search, and Interrupted after Ctrl-C.
    """
    open_experiment(search.question, folder, overwrite)
    if overwrite and storage:
        remove_study(folder.name, storage)
    with run_folder.says_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    study = open_study(search, folder, storage)
    ledger = _Ledger(search, folder, study, tell)
    ledger.update(quiet=True)
    announce(search, study.rows())
    try:
        if jobs == 1:
            work(study, search, folder, ledger.update)
        else:
            _work_in_processes(search, folder, storage, jobs, study, ledger)
    except (KeyboardInterrupt, Interrupted) as error:
        ledger.update()
        raise Interrupted(f"interrupted: {folder} keeps what is done; the same command goes on") from error
    ledger.update()
    summary = SearchSummary(folder, search, tuple(study.rows()), tuple(_best_first(study)), study.importances())
    write_found(folder, search.rules, summary.rows, summary.best, summary.importances, _configs(summary))
    return summary


def open_study(search: Search, folder: Path, storage: str | None) -> Study:
    """Open the study of a search: in its folder, or under the folder's name in a database."""
    places: Any = {
        "data": {"source", "test", "validation", "indices"},
        "model": {"base"},
        "name": True,
    }  # may differ among machines
    settings = search.base.model_dump(mode="json", exclude=places)
    identity = " ".join(f"{name}={value}" for name, value in settings.items())
    return Study(search.rules, folder, folder.name if storage else "search", storage, identity)


def work(study: Study, search: Search, folder: Path, changed: Callable[[], None] = lambda: None) -> None:
    """Claim trials and run them until none is left; `changed` hears of each beginning and end."""
    while (claimed := study.claim(search.refuse)) is not None:
        changed()
        try:
            run_claimed(study, search, folder, claimed)
        except BaseException:
            study.release(claimed.number)
            raise
        changed()


def run_claimed(study: Study, search: Search, folder: Path, claimed: Claimed) -> None:
    """Run one trial, from where it was cut off, and tell the study what came of it. Only Ctrl-C gets through."""
    trial = search.trial(claimed.number, claimed.points)
    target = experiment_folder.trial_folder(folder, trial)
    outcome = run_trial(trial, folder, [_Reporter(study, claimed.number, target, search.rules.objectives[0])])
    if outcome.stopped is not None:
        (target / run_folder.CHECKPOINT).unlink(missing_ok=True)
        study.prune(claimed.number, outcome.stopped, {"steps": max(event["step"] for event in run_folder.read_log(target))})
    elif outcome.failure is not None:
        study.fail(claimed.number, outcome.failure)
    else:
        scores = run_folder.read_scores(target)
        facts = {"trainable": scores["counts"]["trainable"], "steps": scores["steps"], "seconds": scores["seconds"]}
        values = [float(facts[name] if name in COSTS else scores["validation"][name]) for name in search.rules.objectives]
        if any(value != value for value in values):
            study.fail(claimed.number, f"{search.rules.objectives[0]} is not a number")
        else:
            study.complete(claimed.number, values, facts)


class _Reporter:
    """Hears a trial's training: tells the study each evaluation, and stops the trial where the study sees no hope."""

    def __init__(self, study: Study, number: int, target: Path, objective: str) -> None:
        self.study, self.number, self.target, self.objective = study, number, target, objective
        self.at_end = False

    def __call__(self, event: Event) -> None:
        self.study.alive(self.number)
        if isinstance(event, StepEnd):
            self.at_end = event.step == event.steps
        if not isinstance(event, EvalEnd):
            return
        evaluation = sum(each["event"] == "EvalEnd" for each in run_folder.read_log(self.target))  # over every resume
        value = event.scores[self.objective]
        if self.study.hopeless_after(self.number, evaluation, value) and not self.at_end:
            raise TrialPruned(f"pruned at evaluation {evaluation}, step {event.step}: {self.objective} {value:.4f}")


class _Ledger:
    """Keeps experiment.json and trials.csv true, and tells of each trial that has ended since it was asked last."""

    def __init__(self, search: Search, folder: Path, study: Study, tell: Callable[[Row], None]) -> None:
        self.search, self.folder, self.study, self.tell = search, folder, study, tell
        self.rows: list[Row] | None = None

    def update(self, quiet: bool = False) -> None:
        """Look at the study, and write down what has changed."""
        rows = self.study.rows()
        if self.rows is not None and [row.state for row in rows] == [row.state for row in self.rows]:
            return
        entries = [self._entry(row) for row in rows if row.state != "rejected" and row.points]
        experiment_folder.write_experiment(self.folder, self.search.question, entries)
        write_table(self.folder, self.search.rules, rows)
        before = {row.number for row in self.rows or () if row.ended}
        self.rows = rows
        for row in rows:
            if row.ended and row.number not in before and not quiet:
                self.tell(row)

    def _entry(self, row: Row) -> TrialRecord:
        trial = self.search.trial(row.number, row.points)
        return TrialRecord.of(
            trial,
            failure=row.reason if row.state == "failed" else None,
            stopped=row.reason if row.state == "pruned" else None,
        )


def _work_in_processes(search: Search, folder: Path, storage: str | None, jobs: int, study: Study, ledger: _Ledger) -> None:
    """Run trials in `jobs` processes that share the cores. One that dies is followed by another, which takes its trial up."""
    context, threads = get_context("spawn"), max(1, cores() // jobs)

    def start() -> BaseProcess:
        process = context.Process(target=_worker, args=(search, folder, storage, threads))
        process.start()
        return process

    workers = [start() for _ in range(jobs)]
    try:
        while workers:
            connection.wait([worker.sentinel for worker in workers], timeout=POLL_SECONDS)
            ledger.update()
            for worker in [worker for worker in workers if worker.exitcode is not None]:
                workers.remove(worker)
                if worker.exitcode == 0:
                    continue
                if not study.bury(worker.pid or 0):
                    raise RunFailed(f"a process of the search ended with exit code {worker.exitcode} before it had a trial")
                workers.append(start())
    finally:
        for worker in workers:  # empty but after Ctrl-C or a failure: trials go on from their last evaluations when called again
            worker.terminate()
        for worker in workers:
            worker.join()


def _worker(search: Search, folder: Path, storage: str | None, threads: int) -> None:
    """A process of the search: it lives no longer than the program that started it, which alone hears Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    use_threads(threads)
    try:
        work(open_study(search, folder, storage), search, folder)
    except LoralabError as error:
        print(f"loralab: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _check_objectives(base: Config, objectives: Sequence[str]) -> int:
    """Check that every trial can be run and scored; return the number of classes."""
    from loralab import metrics
    from loralab.data.sources import load_source
    from loralab.info import count_parameters

    if base.data.validation == 0:
        raise LoralabError("a search chooses on validation rows, and data.validation=0 keeps none: leave it out")
    data = base.data
    classes = data.classes or load_source(data.source, text=data.text, label=data.label).train.classes
    for name in objectives:
        if name in COSTS:
            continue
        with contextlib.suppress(LoralabError):
            metrics.check_stop_on(name, [str(each) for each in classes])
            if not name.startswith("balance:") or name == base.train.monitor:
                continue
        raise LoralabError(
            f"--objective {name}: give accuracy, macro_f1, mcc, kappa, loss, ece, brier, f1:NAME with NAME of "
            f"{', '.join(map(str, classes))}, or trainable or seconds as the second; "
            "balance:A/B only where train.monitor is the same"
        )
    count_parameters(base, len(classes))
    return len(classes)


def _best_first(study: Study) -> list[int]:
    """The best trials, best by the first objective first."""
    values = {row.number: row.values[0] for row in study.rows() if row.values}
    sign = 1 if study.rules.minimised[0] else -1
    return sorted(study.front(), key=lambda number: (sign * values[number], number))


def _configs(summary: SearchSummary) -> dict[int, Config]:
    """The settings of the best trials."""
    points = {row.number: row.points for row in summary.rows}
    return {number: summary.search.trial(number, points[number]).config for number in summary.best}
