"""Active learning: chains of trials, each with more labelled rows than the one before, which chose them.

A chain is one strategy with one seed. All chains of a seed begin with the same rows, and so share their first run. Between two
rounds each chain's classifier reads the pool once, and the rows it asks for go into the index file that its next trial's
`data.train_indices` names: every trial is an ordinary run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from loralab.config import Config
from loralab.data.prepare import load_splits
from loralab.data.splits import read_indices, stratified
from loralab.data.types import Examples, Ints
from loralab.errors import LoralabError, nearest
from loralab.experiments.plans import BaseRecipe, choose_axes, choose_seeds, load_bases, name_of
from loralab.experiments.run_trial import is_complete
from loralab.experiments.spec import Kind
from loralab.experiments.strategies import RANDOM, STRATEGIES, Scored
from loralab.storage import run_folder
from loralab.storage.experiment_folder import (
    INDICES,
    TRIALS,
    ExperimentSpec,
    Factor,
    Trial,
    is_experiment,
    read_experiment,
    trial_folder,
)

POOL = "pool.json"
_NO_ROWS: Ints = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Pool:
    """Rows to choose from, and their positions among the rows left for training, as `data.train_indices` counts them: int64[n]."""

    positions: Ints
    examples: Examples
    fingerprint: str

    @classmethod
    def load(cls, config: Config) -> Pool:
        """Read a run's training rows, data.max_train_samples of them at most, drawn in proportion. The fingerprint is of them all."""
        free = dict.fromkeys(("max_train_samples", "max_test_samples", "shots_per_class", "train_indices"))
        splits, _ = load_splits(**{**config.data.division(), **free})
        rows, limit = splits.train, config.data.max_train_samples
        positions = np.arange(len(rows))
        if limit is not None and limit < len(rows):
            positions = stratified(rows.require_labels(), limit, np.random.default_rng(config.data.split_seed))
        return cls(positions, rows.take(positions), rows.fingerprint())

    def without(self, labelled: Ints) -> tuple[Ints, list[str]]:
        """The positions and texts that are not yet labelled."""
        left = ~np.isin(self.positions, labelled)
        return self.positions[left], [self.examples.texts[i] for i in np.flatnonzero(left).tolist()]


@dataclass(frozen=True, eq=False)
class Chain:
    """The trials of one strategy with one seed on one recipe."""

    base: BaseRecipe
    strategy: str
    seed: int

    def trial(self, count: int, folder: Path, *, shared: bool) -> Trial:
        """Return its trial with so many labels, on the rows of its run's index file; `shared` with the other strategies."""
        factors: dict[str, Factor] = {**self.base.factors, "strategy": self.strategy, "labels": count, "seed": self.seed}
        run = name_of({name: value for name, value in factors.items() if not (shared and name == "strategy")})
        path = json.dumps(str(folder / INDICES / f"{run}.txt"))  # in quotes, for settings are read as YAML
        config = self.base.config.override(f"seed={self.seed}", f"data.train_indices={path}")
        return Trial(name_of(factors), config.model_copy(update={"name": None}), factors, f"{TRIALS}/{run}" if shared else None)

    def choose(self, pool: Pool, count: int, labelled: Ints, score: Callable[[Sequence[str]], Scored]) -> Ints:
        """Return `count` positions, those labelled among them, ascending. `score` reads texts with the chain's classifier."""
        random = np.random.default_rng([self.seed, count])
        if not len(labelled):
            return first_rows(pool, count, random)
        free, texts = pool.without(labelled)
        more = count - len(labelled)
        picked = (
            random.permutation(len(free))[:more]
            if self.strategy == RANDOM
            else STRATEGIES[self.strategy](score(texts), more, random)
        )
        return np.union1d(labelled, free[picked])


@dataclass(frozen=True)
class ActivePlan:
    """Chains of trials, and the numbers of labelled rows that they go through, in ascending order."""

    question: ExperimentSpec
    bases: Sequence[BaseRecipe]
    strategies: Sequence[str]
    labels: Sequence[int]
    seeds: Sequence[int]

    def inputs(self) -> Sequence[Config]:
        """Each recipe's settings."""
        return [base.config for base in self.bases]

    def rounds(self, folder: Path, say: Callable[[str], None]) -> Iterator[Sequence[Trial]]:
        """Yield all chains' trials with one number of labels; when they have run, choose the rows of the next, and so on.

        A chain whose trial failed ends there, for nothing scores its pool; `random` goes on. Raises LoralabError for a pool that
        is too small or has changed since an earlier call, and for other steps than that call's.
        """
        check_steps(folder, self.labels)
        pools = {base.recipe: Pool.load(base.config) for base in self.bases}
        check_pools(folder, pools, self.labels)
        chains = [Chain(base, name, seed) for base in self.bases for seed in self.seeds for name in self.strategies]
        before: dict[Chain, Trial] = {}
        for count in self.labels:
            trials = {chain: chain.trial(count, folder, shared=not before) for chain in chains}
            reader = Reader(say)
            for chain, trial in trials.items():
                path = index_file(folder, trial)
                labelled = read_rows(index_file(folder, before[chain])) if before else _NO_ROWS
                if not path.is_file():
                    score = partial(reader.read, trial_folder(folder, before[chain]) if before else folder)
                    write_rows(path, chain.choose(pools[chain.base.recipe], count, labelled, score))
                check_rows(path, count, labelled)
            yield [*trials.values()]
            before, chains = trials, [c for c in chains if c.strategy == RANDOM or is_complete(trials[c], folder)]


class Reader:
    """Classifies the pool with a run, once for chains that share it and come one after another."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.run: Path | None = None
        self.scored: Scored | None = None

    def read(self, run: Path, texts: Sequence[str]) -> Scored:
        """texts: the rows that the run has no labels of."""
        if self.scored is None or run != self.run:
            from loralab.inference.classifier import Classifier

            self.say(f"{run.name} reads {len(texts):,} unlabelled rows")
            found, features = Classifier.load(run, backend="native").predict_with_features(texts)
            self.run, self.scored = run, Scored(found.probabilities, features)
        return self.scored


def plan_active(
    kind: Kind,
    recipes: Sequence[str],
    settings: Sequence[str],
    points: Mapping[str, Sequence[str]],
    seeds: Sequence[int] | None = None,
) -> ActivePlan:
    """Plan the chains of every recipe, strategy and seed; arguments and errors as in `make_plan`."""
    axes = choose_axes(kind, points)
    known = (RANDOM, *STRATEGIES)
    for name in axes["strategy"]:
        if name not in known:
            raise LoralabError(f"--points strategy: there is no {name!r}{nearest(name, known)}; strategies: {', '.join(known)}")
    if odd := [point for point in axes["labels"] if not point.isdecimal() or int(point) == 0]:
        raise LoralabError(f"--points labels: {odd[0]!r} is not a number of rows; write labels=50,100,200")
    bases, held = load_bases(kind, recipes, settings, axes)
    for base in bases:
        if base.config.data.shots_per_class is not None:
            raise LoralabError(
                f"{base.recipe} sets data.shots_per_class, but {kind.name} chooses the rows: data.shots_per_class=null"
            )
    labels, seeds = sorted({int(point) for point in axes["labels"]}), choose_seeds(kind, seeds)
    varied: dict[str, Sequence[Factor]] = {"recipe": tuple(recipes)} if len(recipes) > 1 else {}
    varied |= {"strategy": axes["strategy"], "labels": tuple(labels), "seed": seeds}
    return ActivePlan(ExperimentSpec(kind.name, kind.asks, tuple(recipes), held, varied), bases, axes["strategy"], labels, seeds)


def first_rows(pool: Pool, count: int, random: np.random.Generator) -> Ints:
    """Draw the first labels, as one would in practice: purely at random, for the classes of unlabelled rows are not known.

    Only where a class would have no row, which no run accepts, does its first row in the order drawn replace the last row drawn
    that is not the first of its own class.
    """
    labels = pool.examples.require_labels()
    order = random.permutation(len(labels))
    firsts = np.unique(labels[order], return_index=True)[1]
    late = firsts[firsts >= count]
    spare = np.setdiff1d(np.arange(count), firsts)[::-1][: len(late)]
    chosen = np.union1d(np.setdiff1d(np.arange(count), spare), late)
    return np.sort(pool.positions[order[chosen]])


def check_steps(folder: Path, labels: Sequence[int]) -> None:
    """Raise LoralabError unless an earlier call went through the same numbers of labels, as far as both go."""
    if is_experiment(folder):
        earlier = [*read_experiment(folder).question.varied["labels"]]
        if any(a != b for a, b in zip(earlier, labels, strict=False)):
            raise LoralabError(
                f"{folder} went through labels={','.join(map(str, earlier))}: each number builds on the one before, so give these, "
                "with more after them if you like; or choose another --name"
            )


def check_pools(folder: Path, pools: Mapping[str, Pool], labels: Sequence[int]) -> None:
    """Raise LoralabError where the numbers of labels do not fit, or the rows are not those of an earlier call; then note them."""
    for recipe, pool in pools.items():
        classes, rows = len(pool.examples.classes), len(pool.positions)
        if not classes <= labels[0] <= labels[-1] <= rows:
            raise LoralabError(
                f"--points labels={','.join(map(str, labels))}: {recipe} has {rows:,} rows to choose from and {classes} classes, "
                f"each of which needs a row: give numbers from {classes} to {rows}"
            )
    path = folder / INDICES / POOL
    facts = {recipe: {"rows": len(pool.positions), "fingerprint": pool.fingerprint} for recipe, pool in pools.items()}
    if path.is_file():
        if path.read_text(encoding="utf-8") != json.dumps(facts, indent=2) + "\n":
            raise LoralabError(f"the training rows are not those that {folder} began with: choose another --name, or --overwrite")
        return
    with run_folder.says_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(path, facts)


def index_file(folder: Path, trial: Trial) -> Path:
    """Where the numbers of a trial's rows lie."""
    return folder / INDICES / f"{trial_folder(folder, trial).name}.txt"


def read_rows(path: Path) -> Ints:
    """Read an index file."""
    return np.asarray(read_indices(path), dtype=np.int64)


def write_rows(path: Path, rows: Ints) -> None:
    """Write an index file, whole or not at all."""
    with run_folder.says_disk(path), run_folder.atomic(path) as file:
        file.writelines(f"{row}\n" for row in rows)


def check_rows(path: Path, count: int, labelled: Ints) -> None:
    """Raise LoralabError for an index file, found from an earlier call, that is not what was written."""
    rows = read_rows(path)
    if len(rows) != count or len(np.unique(rows)) != count or not np.isin(labelled, rows).all():
        raise LoralabError(f"{path} does not hold {count} different rows, those chosen before among them: replace with --overwrite")
