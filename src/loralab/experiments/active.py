"""Active learning: chains of trials with more and more labelled rows, each chosen with the classifier of the trial before.

A chain is one strategy with one seed. All chains of a seed start with the same rows and share their first run. Between two rounds
each chain's classifier scores the pool, and the chosen rows go into the index file that `data.train_indices` of the next trial
names, so every trial is an ordinary run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from loralab.config import Config
from loralab.data.hold_out import stratified
from loralab.data.splits import load_splits, read_indices
from loralab.data.types import Examples, Ints
from loralab.errors import LoralabError, suggest
from loralab.experiments.plans import BaseRecipe, choose_axes, choose_seeds, load_base_recipes, require_test_rows, trial_name
from loralab.experiments.run_trial import is_complete
from loralab.experiments.spec import ExperimentKind
from loralab.experiments.strategies import RANDOM, STRATEGIES, PoolScores
from loralab.safe_files import MAX_SETTINGS_BYTES, check_file
from loralab.storage.experiment_folder import (
    INDICES,
    TRIALS,
    ExperimentSpec,
    Factor,
    Trial,
    check_indices,
    is_experiment,
    read_experiment,
    trial_folder,
)
from loralab.storage.files import atomic_write, read_json_object, write_errors, write_json

POOL = "pool.json"
_NO_ROWS: Ints = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Pool:
    """Rows to choose from. positions: int64[n], the rows as `data.train_indices` numbers them."""

    positions: Ints
    examples: Examples
    fingerprint: str

    @classmethod
    def load(cls, config: Config) -> Pool:
        """Read a run's training rows, or a stratified sample of data.max_train_samples. The fingerprint covers all of them."""
        unlimited = dict.fromkeys(("max_train_samples", "max_test_samples", "shots_per_class", "train_indices"))
        splits, _ = load_splits(config.data.model_copy(update=unlimited))
        rows, limit = splits.train, config.data.max_train_samples
        positions = np.arange(len(rows))
        if limit is not None and limit < len(rows):
            positions = stratified(rows.require_labels(), limit, np.random.default_rng(config.data.split_seed))
        return cls(positions, rows.take(positions), rows.fingerprint())

    def without(self, labelled: Ints) -> tuple[Ints, list[str]]:
        """Return the positions and texts of the unlabelled rows."""
        unlabelled = ~np.isin(self.positions, labelled)
        return self.positions[unlabelled], [self.examples.texts[i] for i in np.flatnonzero(unlabelled).tolist()]


@dataclass(frozen=True, eq=False)
class Chain:
    """The trials of one strategy with one seed on one recipe."""

    base: BaseRecipe
    strategy: str
    seed: int

    def trial(self, count: int, folder: Path, *, shared: bool) -> Trial:
        """Return the trial with `count` labels, on the rows of its run's index file. shared: strategies share the run."""
        factors: dict[str, Factor] = {**self.base.factors, "strategy": self.strategy, "labels": count, "seed": self.seed}
        run = trial_name({name: value for name, value in factors.items() if not (shared and name == "strategy")})
        path = json.dumps(str(folder / INDICES / f"{run}.txt"))  # quoted, because settings are read as YAML
        config = self.base.config.override(f"seed={self.seed}", f"data.train_indices={path}")
        return Trial(trial_name(factors), config.model_copy(update={"name": None}), factors, f"{TRIALS}/{run}" if shared else None)

    def choose(self, pool: Pool, count: int, labelled: Ints, score: Callable[[Sequence[str]], PoolScores]) -> Ints:
        """Return `count` ascending positions, the labelled ones included. `score` scores texts with the chain's classifier."""
        random = np.random.default_rng([self.seed, count])
        if not len(labelled):
            return first_rows(pool, count, random)
        unlabelled, texts = pool.without(labelled)
        added = count - len(labelled)
        if self.strategy == RANDOM:
            picked = random.permutation(len(unlabelled))[:added]
        else:
            picked = STRATEGIES[self.strategy](score(texts), added, random)
        return np.union1d(labelled, unlabelled[picked])


@dataclass(frozen=True)
class ActivePlan:
    """Chains of trials. labels: numbers of labelled rows, ascending."""

    spec: ExperimentSpec
    bases: Sequence[BaseRecipe]
    strategies: Sequence[str]
    labels: Sequence[int]
    seeds: Sequence[int]

    def inputs(self) -> Sequence[Config]:
        """Return each recipe's config."""
        return [base.config for base in self.bases]

    def rounds(self, folder: Path, on_progress: Callable[[str], None]) -> Iterator[Sequence[Trial]]:
        """Yield the trials of all chains with one number of labels, then choose the rows of the next ones.

        A chain ends with a failed trial, which cannot score the pool; `random` continues. Raises LoralabError for a pool that is
        too small or has changed, and for steps other than those of an earlier call.
        """
        check_steps(folder, self.labels)
        if is_experiment(folder):
            check_indices(folder)
        pools = {base.recipe: Pool.load(base.config) for base in self.bases}
        check_pools(folder, pools, self.labels)
        chains = [Chain(base, name, seed) for base in self.bases for seed in self.seeds for name in self.strategies]
        previous: dict[Chain, Trial] = {}
        for count in self.labels:
            trials = {chain: chain.trial(count, folder, shared=not previous) for chain in chains}
            scorer = PoolScorer(on_progress)
            for chain, trial in trials.items():
                path = index_file(folder, trial)
                labelled = read_rows(index_file(folder, previous[chain])) if previous else _NO_ROWS
                if not path.is_file():
                    score = partial(scorer.score, trial_folder(folder, previous[chain]) if previous else folder)
                    write_rows(path, chain.choose(pools[chain.base.recipe], count, labelled, score))
                check_rows(path, count, labelled)
            yield [*trials.values()]
            previous, chains = trials, [c for c in chains if c.strategy == RANDOM or is_complete(trials[c], folder)]


class PoolScorer:
    """Scores the pool with a run's classifier, once for consecutive chains that share the run."""

    def __init__(self, on_progress: Callable[[str], None]) -> None:
        self.on_progress = on_progress
        self.run: Path | None = None
        self.scores: PoolScores | None = None

    def score(self, run: Path, texts: Sequence[str]) -> PoolScores:
        """Return the scores of the texts that the run has no labels of."""
        if self.scores is None or run != self.run:
            from loralab.inference.classifier import Classifier

            self.on_progress(f"scoring {len(texts):,} unlabelled rows with {run.name}")
            predictions, features = Classifier.load(run, backend="native").predict_with_features(texts)
            self.run, self.scores = run, PoolScores(predictions.probabilities, features)
        return self.scores


def plan_active(
    kind: ExperimentKind,
    recipes: Sequence[str],
    settings: Sequence[str],
    points: Mapping[str, Sequence[str]],
    seeds: Sequence[int] | None = None,
) -> ActivePlan:
    """Plan the chains of every recipe, strategy and seed. Arguments and errors as in `make_plan`."""
    axes = choose_axes(kind, points)
    valid = (RANDOM, *STRATEGIES)
    for name in axes["strategy"]:
        if name not in valid:
            raise LoralabError(f"--points strategy: unknown {name!r}{suggest(name, valid)}; strategies: {', '.join(valid)}")
    if invalid := [point for point in axes["labels"] if not point.isdecimal() or int(point) == 0]:
        raise LoralabError(f"--points labels: {invalid[0]!r} is not a number of rows; give labels=50,100,200")
    bases, fixed = load_base_recipes(kind, recipes, settings, axes)
    for base in bases:
        require_test_rows(kind, base.config)
        if base.config.data.shots_per_class is not None:
            raise LoralabError(
                f"{base.recipe} sets data.shots_per_class, but {kind.name} chooses the rows: add data.shots_per_class=null"
            )
    labels, seeds = sorted({int(point) for point in axes["labels"]}), choose_seeds(kind, seeds)
    varied: dict[str, Sequence[Factor]] = {"recipe": tuple(recipes)} if len(recipes) > 1 else {}
    varied |= {"strategy": axes["strategy"], "labels": tuple(labels), "seed": seeds}
    spec = ExperimentSpec(kind.name, kind.question, tuple(recipes), fixed, varied)
    return ActivePlan(spec, bases, axes["strategy"], labels, seeds)


def first_rows(pool: Pool, count: int, random: np.random.Generator) -> Ints:
    """Sample the first labelled rows at random, unstratified, because the classes of unlabelled rows are unknown in practice.

    A run needs a row of every class. For a class without one, its first row in the random order replaces the last sampled row that
    is not the only one of its class.
    """
    labels = pool.examples.require_labels()
    order = random.permutation(len(labels))
    firsts = np.unique(labels[order], return_index=True)[1]
    missing = firsts[firsts >= count]
    replaced = np.setdiff1d(np.arange(count), firsts)[::-1][: len(missing)]
    chosen = np.union1d(np.setdiff1d(np.arange(count), replaced), missing)
    return np.sort(pool.positions[order[chosen]])


def check_steps(folder: Path, labels: Sequence[int]) -> None:
    """Raise LoralabError if an earlier call used other numbers of labels. More may follow."""
    if is_experiment(folder):
        earlier = [*read_experiment(folder).spec.varied["labels"]]
        if any(a != b for a, b in zip(earlier, labels, strict=False)):
            raise LoralabError(
                f"{folder} was run with labels={','.join(map(str, earlier))}, and each number builds on the one before: give the "
                "same numbers, with more after them if needed, or choose another --name"
            )


def check_pools(folder: Path, pools: Mapping[str, Pool], labels: Sequence[int]) -> None:
    """Raise LoralabError for numbers of labels that do not fit and for changed rows; on the first call record the rows."""
    for recipe, pool in pools.items():
        classes, rows = len(pool.examples.classes), len(pool.positions)
        if not classes <= labels[0] <= labels[-1] <= rows:
            raise LoralabError(
                f"--points labels={','.join(map(str, labels))}: {recipe} has {rows:,} rows to choose from and {classes} classes, "
                f"and each class needs a row: give numbers from {classes} to {rows}"
            )
    path = folder / INDICES / POOL
    facts = {recipe: {"rows": len(pool.positions), "fingerprint": pool.fingerprint} for recipe, pool in pools.items()}
    if not path.is_file():
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, facts)
    elif read_json_object(path, "replace the experiment with --overwrite") != facts:
        raise LoralabError(f"the training rows have changed since {folder} was started: choose another --name, or --overwrite")


def index_file(folder: Path, trial: Trial) -> Path:
    """Return the path of a trial's index file."""
    return folder / INDICES / f"{trial_folder(folder, trial).name}.txt"


def read_rows(path: Path) -> Ints:
    """Read an index file. Raises LoralabError unless it is a regular file of row numbers."""
    return np.asarray(read_indices(check_file(path, MAX_SETTINGS_BYTES)), dtype=np.int64)


def write_rows(path: Path, rows: Ints) -> None:
    """Write an index file atomically."""
    with write_errors(path), atomic_write(path) as file:
        file.writelines(f"{row}\n" for row in rows)


def check_rows(path: Path, count: int, labelled: Ints) -> None:
    """Raise LoralabError for an index file that was changed since it was written."""
    rows = read_rows(path)
    if len(rows) != count or len(np.unique(rows)) != count or not np.isin(labelled, rows).all():
        raise LoralabError(
            f"{path} must hold {count} different rows, the earlier ones included: replace the experiment with --overwrite"
        )
