"""A question → its trials. Pure: nothing is read or run here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from loralab.config import Config, load_config
from loralab.config.loading import setting_names
from loralab.errors import LoralabError, nearest
from loralab.experiments.spec import Kind
from loralab.storage.experiment_folder import ExperimentSpec, Factor, Trial

_OF_RANK = re.compile(r"(\d+(?:\.\d+)?)r")
_NO_AUGMENTATION: Mapping[str, Factor] = {"data.augment": "none", "data.augment_ratio": 0}
MOST_TRIALS = 10_000
LONGEST_NAME = 150
"""Characters of a trial's name: file systems take 255 bytes."""


@dataclass(frozen=True)
class ExperimentPlan:
    """A question and the trials that answer it."""

    question: ExperimentSpec
    trials: tuple[Trial, ...]

    def inputs(self) -> Sequence[Config]:
        """The settings of each recipe's first trial."""
        return [*{trial.factors.get("recipe"): trial.config for trial in reversed(self.trials)}.values()]

    def rounds(self, folder: Path, say: Callable[[str], None] = lambda what: None) -> Iterator[Sequence[Trial]]:
        """Yield the trials in rounds, each to be run before the next is asked for: here all at once."""
        yield self.trials


@dataclass(frozen=True)
class BaseRecipe:
    """A recipe with the settings of every trial; `factors` names it where there are several."""

    recipe: str
    config: Config
    factors: Mapping[str, Factor]


def make_plan(
    kind: Kind,
    recipes: Sequence[str],
    settings: Sequence[str],
    points: Mapping[str, Sequence[str]],
    seeds: Sequence[int] | None = None,
) -> ExperimentPlan:
    """Return the trials of a kind of experiment on one or several recipes.

    settings: `key=value` of every trial; points: axis → its points, in the place of the kind's own; seeds: likewise. Raises
    LoralabError for an unknown setting or point, and for an axis that this kind does not vary.
    """
    axes = choose_axes(kind, points)
    seeds = choose_seeds(kind, seeds)
    bases, held = load_bases(kind, recipes, settings, axes)
    points_each = [len(values) for values in axes.values()]
    if (count := len(bases) * len(seeds) * (1 + sum(points_each) if kind.design == "around" else prod(points_each))) > MOST_TRIALS:
        raise LoralabError(f"{count:,} trials are over {MOST_TRIALS:,}: give fewer points or seeds")
    trials: dict[tuple[str, str], Trial] = {}
    for base in bases:
        for chosen in combinations(kind, axes):
            config, factors = apply(base.config, chosen)
            for seed in seeds:
                drawn = config.override(f"seed={seed}", *([f"data.sample_seed={seed}"] if kind.draws else []))
                told = {**base.factors, **factors, "seed": seed}
                trial = Trial(name_of(told), drawn.model_copy(update={"name": None}), told)
                trials.setdefault((base.recipe, drawn.fingerprint()), trial)  # points may equal the recipe's own, or one another
    found = tuple(trials.values())
    if len({trial.name.casefold() for trial in found}) < len(found):
        raise LoralabError("two trials would have one name: give points that differ by more than punctuation and case")
    return ExperimentPlan(ExperimentSpec(kind.name, kind.asks, tuple(recipes), held, _varied(found)), found)


def choose_seeds(kind: Kind, seeds: Sequence[int] | None) -> tuple[int, ...]:
    """Return the user's seeds, or the kind's. Raises LoralabError for none and for one given twice."""
    found = kind.seeds if seeds is None else tuple(seeds)
    if not found or len(set(found)) < len(found):
        raise LoralabError(f"--seeds {','.join(map(str, found))}: give different whole numbers, such as 1,2,3")
    return found


def load_bases(
    kind: Kind, recipes: Sequence[str], settings: Sequence[str], axes: Mapping[str, Sequence[str]]
) -> tuple[list[BaseRecipe], tuple[str, ...]]:
    """Return each recipe with the settings of every trial, and these settings: the kind's own, unless given, then those given.

    Raises LoralabError for a setting that the experiment itself sets, which would do nothing.
    """
    if len(set(recipes)) < len(recipes):
        raise LoralabError(f"{','.join(recipes)} names a recipe twice")
    given = {setting.partition("=")[0] for setting in settings}
    own = {"seed": "give --seeds", "name": "give --name, the trials are named after what is varied"}
    own |= {"data.sample_seed": "each of --seeds draws its own rows"} if kind.draws else {}
    own |= {"data.train_indices": f"{kind.name} chooses the rows"} if kind.design == "chains" else {}
    own |= {axis: f"{kind.name} varies it: give --points {axis}=..." for axis in axes if kind.design == "grid"}
    if taken := [f"{name} cannot be set here: {how}" for name, how in own.items() if name in given]:
        raise LoralabError(taken[0])
    held = (*(each for each in kind.always if each.partition("=")[0] not in given), *settings)
    return [
        BaseRecipe(recipe, load_config(recipe, held), {"recipe": recipe} if len(recipes) > 1 else {}) for recipe in recipes
    ], held


def choose_axes(kind: Kind, points: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the axes with the user's points. A free kind varies just what it is given; another keeps its other axes."""
    names = [name for name in setting_names() if name not in ("seed", "name")] if kind.free else [*kind.axes]
    for axis, values in points.items():
        if axis not in names:
            known = "any setting" if kind.free else ", ".join(kind.axes) or "nothing else"
            raise LoralabError(f"--points {axis}: {kind.name} varies {known}{nearest(axis, names)}")
        if not values or len(set(values)) < len(values):
            raise LoralabError(f"--points {axis}={','.join(values)}: give different points, with commas between them")
    given = {axis: tuple(values) for axis, values in points.items()}
    return given if kind.free and given else {**kind.axes, **given}


def combinations(kind: Kind, axes: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    """Yield each trial's points: every combination, or the centre (no point) and then one axis at a time."""
    if kind.design == "around":
        yield {}
        yield from ({axis: point} for axis, values in axes.items() for point in values)
    else:
        yield from (dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


def apply(base: Config, chosen: Mapping[str, str]) -> tuple[Config, dict[str, Factor]]:
    """Return the settings with the points chosen, and the points as values.

    `a+b` is a list of words; `none` no value, `own` the recipe's; `2r` of lora.alpha is twice the rank. Where the rank varies and
    alpha does not, alpha / rank is held. No augmentation is one point, however it is said.
    """
    if chosen.get("data.augment") == "none" or chosen.get("data.augment_ratio") == "0":
        others = {axis: point for axis, point in chosen.items() if axis not in _NO_AUGMENTATION}
        config, factors = apply(base.override("data.augment=", "data.augment_ratio=0"), others)
        return config, {axis: _NO_AUGMENTATION.get(axis, factors.get(axis)) for axis in chosen}
    plain = {axis: _assigned(point) for axis, point in chosen.items() if point != "own" and not _OF_RANK.fullmatch(point)}
    config = base.override(*(f"{axis}={value}" for axis, value in plain.items()))
    scale = base.lora.alpha / base.lora.rank
    if multiple := _OF_RANK.fullmatch(chosen.get("lora.alpha", "")):
        scale = float(multiple[1])
    if multiple or ("lora.rank" in chosen and "lora.alpha" not in chosen):
        config = config.override(f"lora.alpha={scale * config.lora.rank:g}")
    told = {axis: point for axis, point in chosen.items() if point in ("own", "none") or _OF_RANK.fullmatch(point)}
    return config, {axis: told.get(axis, value_of(config, axis, point)) for axis, point in chosen.items()}


def value_of(config: Config, axis: str, point: str) -> Factor:
    """A setting's value by its dotted name; words are joined by +, and where a point stands for none, it is told itself."""
    value: Any = config
    for name in axis.split("."):
        value = getattr(value, name)
    if value is None:
        return point
    return "+".join(map(str, value)) if isinstance(value, tuple) else value if isinstance(value, Factor) else str(value)


def parse_points(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read `lora.rank=2,4,8`, one for each axis. Raises LoralabError for anything else."""
    found: dict[str, tuple[str, ...]] = {}
    for each in given:
        axis, equals, values = each.partition("=")
        if not equals or axis in found:
            raise LoralabError(f"--points {each}: write SETTING=POINT,POINT,... once for each setting, such as lora.rank=2,4,8")
        found[axis.strip()] = tuple(value.strip() for value in values.split(",") if value.strip())
    return found


def parse_seeds(given: str) -> tuple[int, ...]:
    """Read `1,2,3`."""
    words = given.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise LoralabError(f"--seeds {given}: write whole numbers with commas between them, such as 1,2,3")
    return tuple(int(word) for word in words)


def name_of(factors: Mapping[str, Factor]) -> str:
    """Return a name made of factors, in characters that every file system takes; a long one is cut and ends in a digest."""
    words = [f"{_short(name)}-{value}" for name, value in factors.items()]
    name = "_".join(re.sub(r"[^A-Za-z0-9.+-]+", "-", word) for word in words)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@cache
def _short(setting: str) -> str:
    """`rank` for lora.rank; `lora.dropout` in full, for there is model.dropout too."""
    last = setting.rpartition(".")[2]
    return last if sum(name.rpartition(".")[2] == last for name in setting_names()) < 2 else setting


def _assigned(point: str) -> str:
    """A point as the value of an assignment: `query+value` is two words, 1e+3 a number, `none` no value."""
    if point == "none":
        return ""
    try:
        float(point)
    except ValueError:
        return point.replace("+", ",")
    return point


def _varied(trials: Sequence[Trial]) -> dict[str, list[Factor]]:
    """Each factor with the points it takes, in order of appearance."""
    found: dict[str, dict[Factor, None]] = {}
    for trial in trials:
        for name, value in trial.factors.items():
            found.setdefault(name, {})[value] = None
    return {name: [*points] for name, points in found.items()}
