"""A question → its trials. Pure: nothing is read or run here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from loralab.config import Config, load_config, setting_names
from loralab.errors import LoralabError, nearest
from loralab.experiments.kinds import Kind
from loralab.trials import Factor, Question, Trial

_OF_RANK = re.compile(r"(\d+(?:\.\d+)?)r")
MOST_TRIALS = 10_000


@dataclass(frozen=True)
class Plan:
    """A question and the trials that answer it."""

    question: Question
    trials: tuple[Trial, ...]

    def rounds(self, folder: Path) -> Iterator[Sequence[Trial]]:
        """Yield the trials in rounds, each to be run before the next is asked for: here all at once."""
        yield self.trials


def make_plan(
    kind: Kind,
    recipes: Sequence[str],
    settings: Sequence[str],
    points: Mapping[str, Sequence[str]],
    seeds: Sequence[int] | None = None,
) -> Plan:
    """Return the trials of a kind of experiment on one or several recipes.

    settings: `key=value` of every trial; points: axis → its points, in the place of the kind's own; seeds: likewise. Raises
    LoralabError for an unknown setting or point, and for an axis that this kind does not vary.
    """
    axes = choose_axes(kind, points)
    seeds = tuple(kind.seeds if seeds is None else seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise LoralabError(f"--seeds {','.join(map(str, seeds))}: give different whole numbers, such as 1,2,3")
    always = [each for each in kind.always if each.partition("=")[0] not in {s.partition("=")[0] for s in settings}]
    trials: dict[str, Trial] = {}
    for recipe in recipes:
        base = load_config(recipe, [*always, *settings])
        for chosen in combinations(kind, axes):
            config, factors = apply(base, chosen)
            if len(recipes) > 1:
                factors = {"recipe": recipe, **factors}
            for seed in seeds:
                drawn = [f"seed={seed}", *([f"data.draw_seed={seed}"] if kind.draws else [])]
                trial = _named(config.override(*drawn), {**factors, "seed": seed})
                trials.setdefault(trial.config.fingerprint(), trial)
        if len(trials) > MOST_TRIALS:
            raise LoralabError(f"{len(trials):,} trials are over {MOST_TRIALS:,}: give fewer points or seeds")
    found = tuple(trials.values())
    if len({trial.name for trial in found}) < len(found):
        raise LoralabError("two trials would have one name: give points that differ by more than punctuation")
    return Plan(Question(kind.name, kind.asks, tuple(recipes), (*always, *settings), _varied(found)), found)


def choose_axes(kind: Kind, points: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return the axes with the user's points. A free kind varies just what it is given; another keeps its other axes."""
    names = setting_names() if kind.free else [*kind.axes]
    for axis, values in points.items():
        if axis not in names:
            known = "any setting" if kind.free else ", ".join(kind.axes) or "nothing but seeds"
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

    `a+b` is a list of words; `2r` of lora.alpha is twice the rank. Where the rank varies and alpha does not, alpha / rank is held.
    """
    plain = {axis: _assigned(point) for axis, point in chosen.items() if not _OF_RANK.fullmatch(point)}
    config = base.override(*(f"{axis}={value}" for axis, value in plain.items()))
    scale = base.lora.alpha / base.lora.rank
    if multiple := _OF_RANK.fullmatch(chosen.get("lora.alpha", "")):
        scale = float(multiple[1])
    if multiple or ("lora.rank" in chosen and "lora.alpha" not in chosen):
        config = config.override(f"lora.alpha={scale * config.lora.rank:g}")
    return config, {axis: point if _OF_RANK.fullmatch(point) else value_of(config, axis, point) for axis, point in chosen.items()}


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


def _assigned(point: str) -> str:
    """A point as the value of an assignment: `query+value` is two words, 1e+3 a number."""
    try:
        float(point)
    except ValueError:
        return point.replace("+", ",")
    return point


def _named(config: Config, factors: Mapping[str, Factor]) -> Trial:
    """A trial called after its factors, in characters that every file system takes."""
    words = [f"{name.rpartition('.')[2]}-{value}" for name, value in factors.items()]
    name = "_".join(re.sub(r"[^A-Za-z0-9.+-]+", "-", word) for word in words)
    return Trial(name[:150], config.model_copy(update={"name": None}), dict(factors))


def _varied(trials: Sequence[Trial]) -> dict[str, list[Factor]]:
    """Each factor with the points it takes, in order of appearance."""
    found: dict[str, dict[Factor, None]] = {}
    for trial in trials:
        for name, value in trial.factors.items():
            found.setdefault(name, {})[value] = None
    return {name: [*points] for name, points in found.items()}
