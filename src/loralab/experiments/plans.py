"""Points and seeds → the trials of an experiment. Nothing is read or run here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod
from operator import attrgetter
from pathlib import Path
from typing import get_origin

from loralab.config import Config, load_config
from loralab.config.hints import unknown_setting
from loralab.config.loading import setting_names, setting_types
from loralab.errors import LoralabError, suggest
from loralab.experiments.spec import ExperimentKind
from loralab.storage.experiment_folder import ExperimentSpec, Factor, Trial

_RANK_MULTIPLE = re.compile(r"(\d+(?:\.\d+)?)r")
_NO_AUGMENTATION: Mapping[str, Factor] = {"data.augment": "none", "data.augment_ratio": 0}
_TEXT_LISTS = ("lora.layers", "model.freeze")
"""Settings that hold a list as text."""
MAX_TRIALS = 10_000
MAX_NAME_LENGTH = 150
"""Characters of a trial's name; file systems allow 255 bytes."""


@dataclass(frozen=True)
class StaticPlan:
    """An experiment whose trials are all known in advance."""

    spec: ExperimentSpec
    trials: tuple[Trial, ...]

    def inputs(self) -> Sequence[Config]:
        """Return the config of each recipe's first trial."""
        return [*{trial.factors.get("recipe"): trial.config for trial in reversed(self.trials)}.values()]

    def rounds(self, folder: Path, on_progress: Callable[[str], None] = lambda message: None) -> Iterator[Sequence[Trial]]:
        """Yield all trials as one round."""
        yield self.trials


@dataclass(frozen=True)
class BaseRecipe:
    """A recipe with the fixed settings applied. factors: its name if there are several recipes."""

    recipe: str
    config: Config
    factors: Mapping[str, Factor]


def make_plan(
    kind: ExperimentKind,
    recipes: Sequence[str],
    settings: Sequence[str],
    points: Mapping[str, Sequence[str]],
    seeds: Sequence[int] | None = None,
) -> StaticPlan:
    """Return the trials of a grid or one-at-a-time experiment on one or several recipes.

    settings: `key=value` for every trial. points: axis → points, which replace the kind's own; seeds likewise. Raises LoralabError
    for an unknown setting or point and for an axis that this kind does not vary.
    """
    axes = choose_axes(kind, points)
    seeds = choose_seeds(kind, seeds)
    bases, fixed = load_base_recipes(kind, recipes, settings, axes)
    sizes = [len(values) for values in axes.values()]
    per_seed = 1 + sum(sizes) if kind.design == "one-at-a-time" else prod(sizes)
    if (count := len(bases) * len(seeds) * per_seed) > MAX_TRIALS:
        raise LoralabError(f"{count:,} trials are more than the limit of {MAX_TRIALS:,}: give fewer points or seeds")
    trials: dict[tuple[str, str], Trial] = {}
    for base in bases:
        for combination in combinations(kind, axes):
            config, point_factors = apply_points(base.config, combination)
            for seed in seeds:
                seeded = config.override(f"seed={seed}", *([f"data.sample_seed={seed}"] if kind.resample else []))
                factors = {**base.factors, **point_factors, "seed": seed}
                trial = Trial(trial_name(factors), seeded.model_copy(update={"name": None}), factors)
                trials.setdefault((base.recipe, seeded.fingerprint()), trial)  # points may equal the recipe's value or one another
    for trial in trials.values():
        require_test_rows(kind, trial.config)
    if len({trial.name.casefold() for trial in trials.values()}) < len(trials):
        raise LoralabError("two trials would have the same name: give points that differ by more than punctuation and case")
    varied = points_of_factors(trial.factors for trial in trials.values())
    return StaticPlan(ExperimentSpec(kind.name, kind.question, tuple(recipes), fixed, varied), tuple(trials.values()))


def choose_seeds(kind: ExperimentKind, seeds: Sequence[int] | None) -> tuple[int, ...]:
    """Return the given seeds, or the kind's. Raises LoralabError for none and for duplicates."""
    chosen = tuple(kind.seeds if seeds is None else seeds)
    if not chosen or len(set(chosen)) < len(chosen):
        raise LoralabError(f"--seeds {','.join(map(str, chosen))}: give different whole numbers, such as 1,2,3")
    return chosen


def load_base_recipes(
    kind: ExperimentKind, recipes: Sequence[str], settings: Sequence[str], axes: Mapping[str, Sequence[str]]
) -> tuple[list[BaseRecipe], tuple[str, ...]]:
    """Return each recipe with the fixed settings applied, and these settings: the kind's own, unless given, then the given ones.

    Raises LoralabError for a setting that the experiment itself controls.
    """
    if len(set(recipes)) < len(recipes):
        raise LoralabError(f"{','.join(recipes)} names a recipe twice")
    given = {setting.partition("=")[0] for setting in settings}
    controlled = {"seed": "use --seeds", "name": "use --name; trials are named after their points"}
    controlled |= {"data.sample_seed": "each of --seeds samples its own rows"} if kind.resample else {}
    controlled |= {"data.train_indices": f"{kind.name} chooses the rows"} if kind.design == "sequential" else {}
    controlled |= {axis: f"{kind.name} varies it; use --points {axis}=..." for axis in axes if kind.design == "grid"}
    for name, reason in controlled.items():
        if name in given:
            raise LoralabError(f"{name} cannot be set here: {reason}")
    fixed = (*(setting for setting in kind.fixed if setting.partition("=")[0] not in given), *settings)
    several = len(recipes) > 1
    return [BaseRecipe(recipe, load_config(recipe, fixed), {"recipe": recipe} if several else {}) for recipe in recipes], fixed


def require_test_rows(kind: ExperimentKind, config: Config) -> None:
    """Raise LoralabError for trials without test rows, whose scores the experiment compares."""
    if config.data.test == 0:
        raise LoralabError(
            f"{kind.name} compares scores on test rows, and data.test=0 leaves none: set a fraction, such as data.test=0.2"
        )


def choose_axes(kind: ExperimentKind, points: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """Return the axes with the given points. They replace all axes of a kind with `any_setting`; other kinds keep the rest."""
    names = [name for name in setting_names() if name not in ("seed", "name")] if kind.any_setting else [*kind.axes]
    for axis, values in points.items():
        if axis not in names:
            if kind.any_setting:
                hint = "use --seeds" if axis == "seed" else unknown_setting(axis, ",".join(values), names)
                raise LoralabError(f"--points {axis}: {hint}")
            valid = ", ".join(kind.axes) or "nothing else"
            raise LoralabError(f"--points {axis}: {kind.name} varies {valid}{suggest(axis, names)}")
        if not values or len(set(values)) < len(values):
            raise LoralabError(f"--points {axis}={','.join(values)}: give different points, separated by commas")
    return points if kind.any_setting and points else {**kind.axes, **points}


def combinations(kind: ExperimentKind, axes: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    """Yield the points of each trial: every combination, or first none and then one axis at a time."""
    if kind.design == "one-at-a-time":
        yield {}
        yield from ({axis: point} for axis, values in axes.items() for point in values)
    else:
        yield from (dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


def apply_points(base: Config, points: Mapping[str, str]) -> tuple[Config, dict[str, Factor]]:
    """Return the config with the points applied, and the points as factors.

    `a+b` is a list, for settings that take one; `none` unsets a setting; `recipe` keeps the recipe's value; `2r` of lora.alpha is
    twice the rank. If the rank varies without alpha, alpha / rank stays constant. Every way to turn augmentation off is one point.
    """
    if points.get("data.augment") == "none" or points.get("data.augment_ratio") == "0":
        others = {axis: point for axis, point in points.items() if axis not in _NO_AUGMENTATION}
        config, other_factors = apply_points(base.override("data.augment=", "data.augment_ratio=0"), others)
        return config, {axis: _NO_AUGMENTATION.get(axis, other_factors.get(axis)) for axis in points}
    changed = {axis: point for axis, point in points.items() if point != "recipe" and not _RANK_MULTIPLE.fullmatch(point)}
    config = base.override(*(f"{axis}={_to_value(axis, point)}" for axis, point in changed.items()))
    scale = base.lora.alpha / base.lora.rank
    if multiple := _RANK_MULTIPLE.fullmatch(points.get("lora.alpha", "")):
        scale = float(multiple[1])
    if multiple or ("lora.rank" in points and "lora.alpha" not in points):
        config = config.override(f"lora.alpha={scale * config.lora.rank:g}")
    values = {axis: attrgetter(axis)(config) for axis, point in changed.items() if point != "none"}
    values = {axis: to_factor(value) for axis, value in values.items() if value is not None}  # None: `all` of lora.layers
    return config, {**points, **values}


def to_factor(value: object) -> Factor:
    """Return a setting's value as a factor, a list joined by `+`."""
    if isinstance(value, tuple | list):
        return "+".join(map(str, value))
    return value if isinstance(value, Factor) else str(value)


def parse_points(arguments: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Parse `lora.rank=2,4,8`, one per setting. Raises LoralabError for anything else."""
    texts = split_assignments("--points", arguments, "give SETTING=POINT,POINT,... once per setting, such as lora.rank=2,4,8")
    return {axis: split_points(text) for axis, text in texts.items()}


def split_assignments(option: str, arguments: Sequence[str], hint: str) -> dict[str, str]:
    """Split each `SETTING=TEXT`. Raises LoralabError, ending with `hint`, for anything else and for a setting given twice."""
    texts: dict[str, str] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or name.strip() in texts:
            raise LoralabError(f"{option} {argument}: {hint}")
        texts[name.strip()] = text
    return texts


def split_points(text: str) -> tuple[str, ...]:
    """Split `2, 4, 8` at the commas; empty points are left out."""
    return tuple(point.strip() for point in text.split(",") if point.strip())


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse `1,2,3`. Raises LoralabError for anything else."""
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise LoralabError(f"--seeds {text}: give whole numbers separated by commas, such as 1,2,3")
    return tuple(int(word) for word in words)


def trial_name(factors: Mapping[str, Factor]) -> str:
    """Return `rank-4_seed-42` in characters that every file system allows; a long name is cut and ends with a digest."""
    words = [f"{_short_name(factor)}-{value}" for factor, value in factors.items()]
    name = "_".join(re.sub(r"[^A-Za-z0-9.+-]+", "-", word) for word in words)
    if len(name) <= MAX_NAME_LENGTH:
        return name
    return f"{name[: MAX_NAME_LENGTH - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def points_of_factors(factors: Iterable[Mapping[str, Factor]]) -> dict[str, list[Factor]]:
    """Return each factor with the points it takes in any trial, in order of appearance."""
    points: dict[str, dict[Factor, None]] = {}
    for trial_factors in factors:
        for name, value in trial_factors.items():
            points.setdefault(name, {})[value] = None
    return {name: [*values] for name, values in points.items()}


@cache
def _short_name(setting: str) -> str:
    """Return `rank` for lora.rank, but `lora.dropout` in full, because of model.dropout."""
    last = setting.rpartition(".")[2]
    return last if sum(name.rpartition(".")[2] == last for name in setting_names()) < 2 else setting


def _to_value(axis: str, point: str) -> str:
    """Return a point as the value of an assignment: `query+value` is a list for a setting that takes one, text for others."""
    if point == "none":
        return ""
    takes_list = axis in _TEXT_LISTS or any(get_origin(part) is tuple for part in setting_types(axis))
    return point.replace("+", ",") if takes_list else point
