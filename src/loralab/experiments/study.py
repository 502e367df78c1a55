"""A search's study: its trials, which process runs each, and their results. Optuna is imported here and in `study_storage` only.

Every change of ownership happens under one lock, which its holder's death releases. Programs that share a study, on one machine or
several, therefore never run a trial twice, and stop at the requested number of trials.

Optuna's heartbeat and retry callback do not replace this: the journal storage has no heartbeat, a database's works in
`Study.optimize` only and after a grace period, and a retried trial gets a new number, which would lose its checkpoint.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import psutil

from loralab.errors import LoralabError, import_optional
from loralab.experiments.execute import death_message
from loralab.experiments.importance import Importance, setting_importance
from loralab.experiments.run_trial import MAX_DEATHS
from loralab.experiments.space import Space
from loralab.experiments.study_storage import Lock, database_lock, open_database, open_journal
from loralab.storage.experiment_folder import CLAIM_LOCK, STUDY, STUDY_LOCK
from loralab.storage.files import file_lock
from loralab.training.callbacks import LOWER_IS_BETTER

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

Sampler = Literal["tpe", "random", "grid"]
Pruner = Literal["none", "median", "hyperband"]
State = Literal["complete", "pruned", "failed", "rejected", "running"]
_STATES: Mapping[State, str] = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "running": "RUNNING"}
"""State → its name in Optuna."""
COSTS = ("trainable", "seconds")
"""Objectives that are not scores."""
MINIMISED = (*LOWER_IS_BETTER, *COSTS)
SILENT_SECONDS, HEARTBEAT_SECONDS = 3600.0, 60.0
"""Another machine's trial is taken over after this long without a heartbeat; interval of the heartbeats."""
REJECTED_PER_TRIAL = 10
"""A search ends after this many rejected points per requested trial: hardly any point is within the budget."""
MAX_REPEATS = 50
"""A space counts as exhausted after this many known points in a row."""
OWNER, REASON, REPEAT, REJECTED, DEATHS, FACTS, IDENTITY = "owner", "reason", "repeat", "rejected", "deaths", "facts", "identity"
MAX_GRID = 100_000


@dataclass(frozen=True)
class SearchSettings:
    """How a study samples and prunes. objectives: one or two scores of the validation rows or costs. trials: over all programs."""

    space: Space
    objectives: tuple[str, ...] = ("accuracy",)
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    trials: int = 20
    seed: int = 42

    def __post_init__(self) -> None:
        for name, value, valid in (("sampler", self.sampler, Sampler), ("pruner", self.pruner, Pruner)):
            if value not in get_args(valid):
                raise LoralabError(f"--{name} {value}: choose one of {', '.join(get_args(valid))}")
        if not 1 <= len(set(self.objectives)) == len(self.objectives) <= 2:
            raise LoralabError(f"--objective {', '.join(self.objectives)}: give one score or two different ones")
        if self.objectives[0] in COSTS:
            raise LoralabError(f"--objective {self.objectives[0]}: give a score first, such as --objective accuracy")
        if self.sampler == "grid":
            next(self.space.combinations())
            if (self.space.size or 0) > MAX_GRID:
                raise LoralabError(
                    f"--sampler grid: {self.space.size:,} points are more than the limit of {MAX_GRID:,}; use --sampler tpe"
                )

    @property
    def minimised(self) -> tuple[bool, ...]:
        """Whether lower is better, per objective."""
        return tuple(name in MINIMISED for name in self.objectives)

    @property
    def prunes(self) -> bool:
        """Whether trials are pruned; never with two objectives, which have no common order."""
        return self.pruner != "none" and len(self.objectives) == 1


@dataclass(frozen=True)
class SearchTrial:
    """One trial. values: of the objectives, for a complete trial. evaluations: number (1, 2, ...) → first objective.

    facts: trainable, steps, seconds and restarted (why it was started anew), as far as known. reason: why there is no value.
    """

    number: int
    state: State
    points: Mapping[str, str]
    values: tuple[float, ...] | None = None
    evaluations: Mapping[int, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None

    @property
    def ended(self) -> bool:
        return self.state != "running"


BudgetCheck = Callable[[Mapping[str, str]], tuple[int, str | None]]
"""A point → its trainable parameters, and why it exceeds the budget, or None."""


class Study:
    """The trials of a search, in the journal of `folder` or in a PostgreSQL database that several machines share."""

    def __init__(
        self,
        settings: SearchSettings,
        folder: Path,
        name: str,
        url: str | None = None,
        identity: Mapping[str, object] | None = None,
    ) -> None:
        """Open or create the study. Raises LoralabError if the storage has another study of this name."""
        import_optional("optuna", "search")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.settings, self.last_heartbeat = settings, 0.0
        self.storage = open_database(url) if url else open_journal(folder / STUDY, folder / STUDY_LOCK)
        self.lock: Lock = database_lock(self.storage, name) if url else partial(file_lock, folder / CLAIM_LOCK)
        directions: list[Any] = ["minimize" if minimised else "maximize" for minimised in settings.minimised]
        space = {f"--over {name}": text for name, text in settings.space.to_text().items()}
        own = {**(identity or {}), **space, "objectives": ", ".join(settings.objectives)}
        facts = {name: str(value) for name, value in own.items()}
        with self.lock():
            if name in optuna.get_all_study_names(self.storage):
                attributes = optuna.load_study(study_name=name, storage=self.storage).user_attrs
                before = attributes.get(IDENTITY, facts)
                if before != facts:
                    names = [name for name in {**before, **facts} if before.get(name) != facts.get(name)]
                    changed = "; ".join(f"{name} {before.get(name, 'not set')}, not {facts.get(name, 'set')}" for name in names)
                    place = f"the database has another search named {name}" if url else f"{folder} holds another search"
                    raise LoralabError(f"{place}, with {changed}\n  choose another --name, or replace it with --overwrite")
            pruner = _make_pruner(settings)
            self.study: optuna.Study = optuna.create_study(
                study_name=name, storage=self.storage, directions=directions, pruner=pruner, load_if_exists=True
            )
            if IDENTITY not in self.study.user_attrs:
                self.study.set_user_attr(IDENTITY, facts)

    def claim(self, check_budget: BudgetCheck) -> SearchTrial | None:
        """Return a trial for this process to run: an abandoned one or a new one; None if there is none left to start."""
        with self.lock():
            for trial in self._frozen_trials():
                if trial.state.name == "RUNNING" and _is_abandoned(trial.user_attrs.get(OWNER)):
                    return SearchTrial(trial.number, "running", self._own(self._handle(trial)))
            return self._claim_new(check_budget)

    def _claim_new(self, check_budget: BudgetCheck) -> SearchTrial | None:
        """Sample until a point is new and within the budget."""
        from optuna.trial import TrialState

        repeats, space = 0, self.settings.space
        while repeats < MAX_REPEATS and self.remaining > 0:
            trials = self._frozen_trials()
            known = [points for trial in trials if (points := space.points(trial.params)) and REPEAT not in trial.user_attrs]
            self.study.sampler = _make_sampler(self.settings, len(trials))
            if self.settings.sampler == "grid" or (repeats and (space.size or MAX_GRID) < MAX_GRID):
                unknown = self._next_combination(known)
                if unknown is None:
                    return None
                self.study.enqueue_trial(unknown)
            trial = self.study.ask()
            points = self._own(trial)
            if points in known:
                repeats += 1
                trial.set_user_attr(REPEAT, True)
                self.study.tell(trial, state=TrialState.FAIL)
                continue
            trainable, reason = check_budget(points)
            trial.set_user_attr(FACTS, {"trainable": trainable})
            if reason is None:
                return SearchTrial(trial.number, "running", points)
            trial.set_user_attr(REJECTED, True)
            trial.set_user_attr(REASON, reason)
            self.study.tell(trial, state=TrialState.PRUNED)  # TPE ranks pruned trials worst and avoids their region
        return None

    def _next_combination(self, known: Sequence[Mapping[str, str]]) -> dict[str, str | int | float] | None:
        """Return the next combination that no trial has, in an order shuffled by the seed."""
        combinations = list(self.settings.space.combinations())
        random.Random(self.settings.seed).shuffle(combinations)  # noqa: S311
        return next((values for values in combinations if self.settings.space.points(values) not in known), None)

    def _own(self, trial: optuna.Trial) -> dict[str, str]:
        """Make this process the owner of a trial, and return its point; values sampled before stay."""
        self._record_owner(trial)
        return self.settings.space.suggest(trial)

    def _record_owner(self, trial: optuna.Trial) -> None:
        self.last_heartbeat = time.time()
        process = psutil.Process()
        owner = {"host": socket.gethostname(), "pid": process.pid, "born": process.create_time(), "seen": self.last_heartbeat}
        trial.set_user_attr(OWNER, owner)

    def heartbeat(self, number: int) -> None:
        """Record that the trial's process is alive, once per HEARTBEAT_SECONDS."""
        if time.time() - self.last_heartbeat > HEARTBEAT_SECONDS:
            self._record_owner(self._handle(self._frozen_trial(number)))

    def should_prune(self, number: int, evaluation: int, value: float) -> bool:
        """Record the objective at an evaluation (1, 2, ...), and return whether to prune the trial."""
        if len(self.settings.objectives) > 1:
            return False
        trial = self._frozen_trial(number)
        if evaluation not in trial.intermediate_values:  # a resumed trial may repeat its last evaluation
            self._handle(trial).report(value, evaluation)
        return self.settings.prunes and self._handle(trial).should_prune()

    def finish(
        self, number: int, state: State, *, values: Sequence[float] | None = None, reason: str | None = None, **facts: Any
    ) -> None:
        """Record how a trial ended: the values of a complete one, or the reason; facts as in SearchTrial."""
        from optuna.trial import TrialState

        with self.lock():
            trial = self._frozen_trial(number)
            if trial.state.is_finished():  # another machine took it over after SILENT_SECONDS
                return
            handle = self._handle(trial)
            handle.set_user_attr(FACTS, {**trial.user_attrs.get(FACTS, {}), **facts})
            if reason is not None:
                handle.set_user_attr(REASON, reason)
            self.study.tell(number, values, state=TrialState[_STATES[state]])

    def release(self, number: int) -> None:
        """Give up the ownership of a trial, so that the next claim resumes it."""
        self._handle(self._frozen_trial(number)).set_user_attr(OWNER, None)

    def record_death(self, pid: int) -> bool:
        """Count the death of a process of this program; its trial fails after MAX_DEATHS. Return False if it had no trial."""
        for trial in self._frozen_trials():
            owner = trial.user_attrs.get(OWNER) or {}
            if not trial.state.is_finished() and (owner.get("host"), owner.get("pid")) == (socket.gethostname(), pid):
                deaths = trial.user_attrs.get(DEATHS, 0) + 1
                self._handle(trial).set_user_attr(DEATHS, deaths)
                if deaths >= MAX_DEATHS:
                    self.finish(trial.number, "failed", reason=death_message(deaths))
                return True
        return False

    @property
    def remaining(self) -> int:
        """Trials still to start; running ones, here or elsewhere, count as started. 0 after too many rejected points."""
        trials, wanted = self.trials(), self.settings.trials
        rejected = sum(trial.state == "rejected" for trial in trials)
        return 0 if rejected >= REJECTED_PER_TRIAL * wanted else wanted - (len(trials) - rejected)

    def trials(self) -> list[SearchTrial]:
        """Return every trial in order; repeated points, which never ran, are left out."""
        return [
            _to_search_trial(self.settings.space, trial)
            for trial in self._frozen_trials()
            if trial.state.name != "WAITING" and REPEAT not in trial.user_attrs
        ]

    def best_numbers(self) -> list[int]:
        """Return the numbers of the best trials, the best first: those with the highest score, or the Pareto front.

        Tied trials are ordered by their trainable parameters, then by number.
        """
        trials = {trial.number: trial for trial in self.trials() if trial.values}
        if not trials:
            return []
        sign = 1 if self.settings.minimised[0] else -1

        def rank(number: int) -> tuple[float, float, int]:
            trial = trials[number]
            return sign * (trial.values or (0.0,))[0], trial.facts.get("trainable", 0), number

        ordered = sorted(trials, key=rank)
        if len(self.settings.objectives) == 1:
            return [number for number in ordered if rank(number)[0] == rank(ordered[0])[0]]
        front = {trial.number for trial in self.study.best_trials}
        return [number for number in ordered if number in front]

    def importances(self) -> dict[str, Importance]:
        """Return objective → the importance of each setting, where there are enough trials with different values."""
        complete = [trial for trial in self._frozen_trials() if trial.state.name == "COMPLETE" and trial.values]
        names = {axis.name for axis in self.settings.space.axes}
        complete = [trial for trial in complete if names <= set(trial.params)]
        points = [{name: trial.params[name] for name in names} for trial in complete]
        distributions = {name: complete[-1].distributions[name] for name in names} if complete else {}
        importances = {
            objective: setting_importance(points, distributions, [trial.values[i] for trial in complete])
            for i, objective in enumerate(self.settings.objectives)
        }
        return {objective: importance for objective, importance in importances.items() if importance}

    def _frozen_trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _frozen_trial(self, number: int) -> FrozenTrial:
        return next(trial for trial in self._frozen_trials() if trial.number == number)

    def _handle(self, trial: FrozenTrial) -> optuna.Trial:
        """Return the writable object of a trial, whichever process sampled it."""
        from optuna.trial import Trial

        return Trial(self.study, trial._trial_id)


def remove_study(name: str, url: str) -> None:
    """Delete a study from a database, if it exists."""
    import_optional("optuna", "search")
    import optuna

    storage = open_database(url)
    if name in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=name, storage=storage)


def _to_search_trial(space: Space, trial: FrozenTrial) -> SearchTrial:
    states = {name: state for state, name in _STATES.items()}
    state: State = "rejected" if trial.user_attrs.get(REJECTED) else states[trial.state.name]
    return SearchTrial(
        trial.number,
        state,
        space.points(trial.params) or {},
        tuple(trial.values) if state == "complete" and trial.values is not None else None,
        dict(trial.intermediate_values),
        trial.user_attrs.get(FACTS, {}),
        trial.user_attrs.get(REASON),
    )


def _is_abandoned(owner: Mapping[str, Any] | None) -> bool:
    """Return whether no process runs a trial: its process is gone, or its machine has sent no heartbeat for SILENT_SECONDS."""
    if owner is None:
        return True
    if owner["host"] != socket.gethostname():
        return time.time() - float(owner["seen"]) > SILENT_SECONDS
    try:
        process = psutil.Process(owner["pid"])
        reused_pid = abs(process.create_time() - owner["born"]) > 2  # seconds
        return reused_pid or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _make_sampler(settings: SearchSettings, sampled: int) -> optuna.samplers.BaseSampler:
    """Return a sampler seeded by the seed and the number of sampled trials, so that a resumed search samples the same points."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = random.Random(f"{settings.seed}/{sampled}").getrandbits(32)  # noqa: S311
    if settings.sampler == "tpe":
        return TPESampler(seed=seed, multivariate=True, constant_liar=True)  # Bergstra et al. 2011; Falkner et al. 2018
    return RandomSampler(seed=seed)


def _make_pruner(settings: SearchSettings) -> optuna.pruners.BasePruner:
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if settings.prunes and settings.pruner == "hyperband":
        return HyperbandPruner(min_resource=1)  # Li et al. 2018; a unit is an evaluation
    if settings.prunes:
        return MedianPruner(n_startup_trials=5, n_warmup_steps=0)  # Golovin et al. 2017
    return NopPruner()
