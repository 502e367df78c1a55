"""A search's study: which trials there are, whose they are and what came of them. Only here and in `storage` is Optuna imported.

Every change of who runs what is made under one lock, which its holder's death opens: so programs that share a study, on one
machine or on several, never run a trial twice, and stop at the number that was asked for.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import psutil

from loralab.errors import LoralabError, need
from loralab.experiments.run_trial import MOST_DEATHS
from loralab.experiments.space import Space
from loralab.experiments.study_storage import database_lock, file_lock, open_database, open_journal
from loralab.storage.experiment_folder import CLAIM_LOCK, STUDY, STUDY_LOCK
from loralab.training.callbacks import LOWER_IS_BETTER

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

Sampler = Literal["tpe", "random", "grid"]
Pruner = Literal["none", "median", "hyperband"]
State = Literal["complete", "pruned", "failed", "rejected", "running"]
COSTS = ("trainable", "seconds")
"""Objectives that are no scores."""
MINIMISED = (*LOWER_IS_BETTER, *COSTS)
SILENT_SECONDS, SIGN_SECONDS = 3600.0, 60.0
"""A trial of another machine is taken over after so long without a sign of life, and gives one this often."""
REJECTED_PER_TRIAL = 10
"""So many trials over budget for each that is asked for, and the search ends: hardly any point fits."""
MOST_REPEATS = 50
"""A range so narrow that as many points in a row are known is taken to hold no more."""
OWNER, REASON, REPEAT, REJECTED, DEATHS, FACTS = "owner", "reason", "repeat", "rejected", "deaths", "facts"
LARGEST_GRID = 100_000


@dataclass(frozen=True)
class Rules:
    """How a study chooses. objectives: one score or two, each of validation rows or a cost; trials: how many, over all programs."""

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
            raise LoralabError(f"--objective {', '.join(self.objectives)}: give one score, or two different ones")
        if self.objectives[0] in COSTS:
            raise LoralabError(f"--objective {self.objectives[0]}: name the score first, such as --objective accuracy")
        if self.sampler == "grid":
            next(self.space.combinations())
            if (self.space.size or 0) > LARGEST_GRID:
                raise LoralabError(f"--sampler grid: {self.space.size:,} points are over {LARGEST_GRID:,}; use --sampler tpe")

    @property
    def minimised(self) -> tuple[bool, ...]:
        """For each objective, whether less is better."""
        return tuple(name in MINIMISED for name in self.objectives)

    @property
    def prunes(self) -> bool:
        """Two objectives have no order in which a trial could be hopeless."""
        return self.pruner != "none" and len(self.objectives) == 1


@dataclass(frozen=True)
class Claimed:
    """A trial that is this process's to run."""

    number: int
    points: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """One trial. values: of the objectives, where it is complete; evaluations: the first objective at the 1st, 2nd, ... evaluation.

    facts: trainable, steps, seconds, as far as they are known; reason: why there is no value. seconds: from asked to told.
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


Refuse = Callable[[Mapping[str, str]], tuple[int, str | None]]
"""A point → the parameters it trains, and why it may not be run, None where it may."""


class Study:
    """The trials of a search, in the journal of `folder` or in a PostgreSQL database that several machines share."""

    def __init__(self, rules: Rules, folder: Path, name: str, url: str | None = None, identity: str = "") -> None:
        """Open the study, or make it. Raises LoralabError where the storage holds another of this name."""
        need("optuna", "search")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.rules, self.signed = rules, 0.0
        self.storage = open_database(url) if url else open_journal(folder / STUDY, folder / STUDY_LOCK)
        self.lock = database_lock(self.storage, name) if url else file_lock(folder / CLAIM_LOCK)
        directions: list[Any] = ["minimize" if less else "maximize" for less in rules.minimised]
        asks = f"{identity} {rules.space.told()} {rules.objectives}"
        with self.lock():
            known = name in optuna.get_all_study_names(self.storage)
            if known and (before := optuna.load_study(study_name=name, storage=self.storage).user_attrs.get("asks", asks)) != asks:
                raise LoralabError(
                    f"the search {name} asks something else: {before}, not {asks}\n"
                    "  choose another --name, or replace it with --overwrite"
                )
            pruner = _make_pruner(rules)
            self.study: optuna.Study = optuna.create_study(
                study_name=name, storage=self.storage, directions=directions, pruner=pruner, load_if_exists=True
            )
            if "asks" not in self.study.user_attrs:
                self.study.set_user_attr("asks", asks)

    def claim(self, refuse: Refuse) -> Claimed | None:
        """Return a trial to run: one whose process is gone, or a new one; None where there is nothing left to start."""
        with self.lock():
            for trial in self._trials():
                if not trial.state.is_finished() and trial.state.name != "WAITING" and _gone(trial.user_attrs.get(OWNER)):
                    taken = self._handle(trial)
                    points = self._draw(taken)
                    return Claimed(trial.number, points)
            return self._new(refuse)

    def _new(self, refuse: Refuse) -> Claimed | None:
        """Ask until a point is neither known nor refused."""
        repeats = 0
        while repeats < MOST_REPEATS and self.left > 0 and not self.hopeless:
            trials = self._trials()
            known = [
                points for trial in trials if (points := self.rules.space.points(trial.params)) and REPEAT not in trial.user_attrs
            ]
            self.study.sampler = _make_sampler(self.rules, len(trials))
            if self.rules.sampler == "grid" or (repeats and (self.rules.space.size or LARGEST_GRID) < LARGEST_GRID):
                unknown = self._unknown(known)
                if unknown is None:
                    return None
                self.study.enqueue_trial(unknown)
            trial = self.study.ask()
            points = self._draw(trial)
            if points in known:
                repeats += 1
                trial.set_user_attr(REPEAT, True)
                self.study.tell(trial, state=_state("FAIL"))
                continue
            trainable, reason = refuse(points)
            trial.set_user_attr(FACTS, {"trainable": trainable})
            if reason is None:
                return Claimed(trial.number, points)
            trial.set_user_attr(REJECTED, True)
            trial.set_user_attr(REASON, reason)
            self.study.tell(trial, state=_state("PRUNED"))  # the sampler takes it for the worst there is, and keeps away
        return None

    def _unknown(self, known: Sequence[Mapping[str, str]]) -> dict[str, str | int | float] | None:
        """The next combination that no trial has, in an order drawn from the seed."""
        combinations = list(self.rules.space.combinations())
        random.Random(self.rules.seed).shuffle(combinations)  # noqa: S311 - no secret
        return next((values for values in combinations if self.rules.space.points(values) not in known), None)

    def _draw(self, trial: optuna.Trial) -> dict[str, str]:
        """Make a trial this process's, and draw its point; what was drawn before stays."""
        self._sign(trial)
        return self.rules.space.draw(trial)

    def _sign(self, trial: optuna.Trial) -> None:
        self.signed = time.time()
        me = psutil.Process()
        trial.set_user_attr(OWNER, {"host": socket.gethostname(), "pid": me.pid, "born": me.create_time(), "seen": self.signed})

    def alive(self, number: int) -> None:
        """Give a sign of life, now and then."""
        if time.time() - self.signed > SIGN_SECONDS:
            self._sign(self._handle(self._trial(number)))

    def hopeless_after(self, number: int, evaluation: int, value: float) -> bool:
        """Write down the objective at an evaluation (1, 2, ...); True where the trial should stop. Two objectives: never."""
        if len(self.rules.objectives) > 1:
            return False
        trial = self._trial(number)
        if evaluation not in trial.intermediate_values:  # a resumed trial may take its last evaluation again
            self._handle(trial).report(value, evaluation)
        return self.rules.prunes and self._handle(trial).should_prune()

    def complete(self, number: int, values: Sequence[float], facts: Mapping[str, Any]) -> None:
        """A trial has its values."""
        self._tell(number, "COMPLETE", facts, values=values)

    def prune(self, number: int, reason: str, facts: Mapping[str, Any]) -> None:
        """A trial was stopped as hopeless."""
        self._tell(number, "PRUNED", facts, reason)

    def fail(self, number: int, reason: str) -> None:
        """A trial has no result."""
        self._tell(number, "FAIL", {}, reason)

    def _tell(
        self, number: int, state: str, facts: Mapping[str, Any], reason: str | None = None, values: Sequence[float] | None = None
    ) -> None:
        with self.lock():
            trial = self._trial(number)
            if trial.state.is_finished():  # another machine took it over when this one was silent for too long
                return
            handle = self._handle(trial)
            handle.set_user_attr(FACTS, {**trial.user_attrs.get(FACTS, {}), **facts})
            if reason is not None:
                handle.set_user_attr(REASON, reason)
            self.study.tell(number, values, state=_state(state))

    def release(self, number: int) -> None:
        """Leave a trial to whoever claims next."""
        self._handle(self._trial(number)).set_user_attr(OWNER, None)

    def bury(self, pid: int) -> bool:
        """A process of this program died: give up its trial where it died too often. False where it had none."""
        for trial in self._trials():
            owner = trial.user_attrs.get(OWNER) or {}
            if not trial.state.is_finished() and (owner.get("host"), owner.get("pid")) == (socket.gethostname(), pid):
                deaths = trial.user_attrs.get(DEATHS, 0) + 1
                self._handle(trial).set_user_attr(DEATHS, deaths)
                if deaths >= MOST_DEATHS:
                    self.fail(trial.number, f"its process died {deaths} times; if memory is short, try --jobs 1")
                return True
        return False

    @property
    def left(self) -> int:
        """Trials still to be started: those that run, here or elsewhere, are counted as done."""
        return self.rules.trials - sum(row.state != "rejected" for row in self.rows())

    @property
    def hopeless(self) -> bool:
        """True where so many points were over the budget that no more are tried."""
        return sum(row.state == "rejected" for row in self.rows()) >= REJECTED_PER_TRIAL * self.rules.trials

    def rows(self) -> list[Row]:
        """Every trial that was asked for, in order; points that were drawn twice are left out, as they never ran twice."""
        return [
            _row(self.rules.space, trial)
            for trial in self._trials()
            if trial.state.name != "WAITING" and REPEAT not in trial.user_attrs
        ]

    def front(self) -> list[int]:
        """Numbers of the best trials: one, or those of the Pareto front; none where no trial is complete."""
        complete = [row for row in self.rows() if row.values]
        if not complete:
            return []
        return (
            sorted(trial.number for trial in self.study.best_trials)
            if len(self.rules.objectives) > 1
            else [self.study.best_trial.number]
        )

    def importances(self) -> dict[str, dict[str, float]]:
        """Each objective → each setting's share of its variance, by fANOVA (Hutter et al. 2014).

        An objective that does not vary over 4 complete trials or more has none.
        """
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        values = [row.values for row in self.rows() if row.values]
        evaluator = FanovaImportanceEvaluator(seed=0)

        def shares(which: int) -> dict[str, float]:
            return dict(get_param_importances(self.study, evaluator=evaluator, target=lambda trial: trial.values[which]))

        varies = [len(values) >= 4 and len({each[which] for each in values}) > 1 for which in range(len(self.rules.objectives))]
        return {name: shares(which) for which, name in enumerate(self.rules.objectives) if varies[which]}

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _trial(self, number: int) -> FrozenTrial:
        return next(trial for trial in self._trials() if trial.number == number)

    def _handle(self, trial: FrozenTrial) -> optuna.Trial:
        """What a trial is written to with, whichever process asked for it."""
        from optuna.trial import Trial

        return Trial(self.study, trial._trial_id)


def remove_study(name: str, url: str) -> None:
    """Delete a study from a database, where there is one."""
    need("optuna", "search")
    import optuna

    storage = open_database(url)
    if name in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=name, storage=storage)


def _row(space: Space, trial: FrozenTrial) -> Row:
    states: dict[str, State] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
    state: State = "rejected" if trial.user_attrs.get(REJECTED) else states[trial.state.name]
    return Row(
        trial.number,
        state,
        space.points(trial.params) or {},
        tuple(trial.values) if state == "complete" and trial.values is not None else None,
        dict(trial.intermediate_values),
        trial.user_attrs.get(FACTS, {}),
        trial.user_attrs.get(REASON),
    )


def _gone(owner: Mapping[str, Any] | None) -> bool:
    """True where nobody runs a trial any more: its process is gone, or its machine has been silent for long."""
    if owner is None:
        return True
    if owner["host"] != socket.gethostname():
        return time.time() - float(owner["seen"]) > SILENT_SECONDS
    try:
        process = psutil.Process(owner["pid"])
        another = abs(process.create_time() - owner["born"]) > 2  # seconds: its number was given again
        return another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _make_sampler(rules: Rules, asked: int) -> optuna.samplers.BaseSampler:
    """A sampler of the seed and of how many trials were asked for: a search that was killed draws on as if it was not."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = random.Random(f"{rules.seed}/{asked}").getrandbits(32)  # noqa: S311 - no secret
    if rules.sampler == "tpe":
        return TPESampler(seed=seed, multivariate=True, constant_liar=True)  # Bergstra et al. 2011; Falkner et al. 2018
    return RandomSampler(seed=seed)


def _make_pruner(rules: Rules) -> optuna.pruners.BasePruner:
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if rules.prunes and rules.pruner == "hyperband":
        return HyperbandPruner(min_resource=1)  # Li et al. 2018; a unit is an evaluation
    if rules.prunes:
        return MedianPruner(n_startup_trials=5, n_warmup_steps=0)  # Golovin et al. 2017
    return NopPruner()


def _state(name: str) -> optuna.trial.TrialState:
    from optuna.trial import TrialState

    return TrialState[name]
