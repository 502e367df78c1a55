"""What a search may choose: settings with choices or ranges. Pure: nothing is read or run here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Protocol, get_args

from loralab.config import Config
from loralab.config.loading import setting_names
from loralab.errors import LoralabError, nearest
from loralab.experiments.plans import apply

_NUMBER = r"([-+]?\d*\.?\d+(?:e[-+]?\d+)?)"
_RANGE = re.compile(rf"{_NUMBER}(r?)\.\.{_NUMBER}(r?)(?:/{_NUMBER})?(:log)?", re.IGNORECASE)
_MULTIPLE = re.compile(rf"{_NUMBER}r")
GRAMMAR = "write choices as 4,8,16, a range as 0..0.2, one on a log scale as 1e-5..1e-3:log, one in steps as 0..0.2/0.05"
NOT_SEARCHED = {
    "name": "it is the trial's own",
    "seed": "the best of several seeds is luck; `loralab experiment seeds` measures it",
    "data.sample_seed": "the best of several draws is luck",
    **dict.fromkeys(
        (
            "data.source",
            "data.text",
            "data.label",
            "data.classes",
            "data.test",
            "data.max_test_samples",
            "data.validation",
            "data.split_seed",
        ),
        "trials are compared on the same validation rows",
    ),
}
"""Settings whose best value would mean nothing, and why."""


class Suggest(Protocol):
    """Whoever draws values: an Optuna trial, or a test."""

    def suggest_categorical(self, name: str, choices: Sequence[str], /) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, /, *, step: int, log: bool) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, /, *, step: float | None, log: bool) -> float: ...


@dataclass(frozen=True)
class Axis:
    """One setting of the space: choices as they are typed, or else a range from `low` to `high`, both included.

    of_rank: the numbers are multiples of the trial's rank (lora.alpha only), so that alpha follows whatever rank is drawn.
    """

    name: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False
    of_rank: bool = False

    @classmethod
    def parse(cls, name: str, text: str, whole: bool) -> Axis:
        """Read `4,8,16`, `1r,2r`, `0..0.2`, `2..16/2`, `1e-5..1e-3:log` or `0.5r..4r:log`. Raises LoralabError for anything else.

        whole: the setting takes whole numbers only.
        """
        found = _RANGE.fullmatch(text.strip())
        if not found:
            if ".." in text:
                raise LoralabError(f"{name}={text} is no range: {GRAMMAR}")
            choices = tuple(point.strip() for point in text.split(",") if point.strip())
            if not choices or len(set(choices)) < len(choices):
                raise LoralabError(f"{name}={text}: give different choices; {GRAMMAR}")
            axis = cls(name, choices, of_rank=any(_MULTIPLE.fullmatch(point) for point in choices))
        else:
            low, first, high, second, step, log = found.groups()
            if whole and not all(float(each or 1).is_integer() for each in (low, high, step)):
                raise LoralabError(f"{name}={text}: {name} takes whole numbers")
            axis = cls(name, (), float(low), float(high), float(step) if step else None, bool(log), whole, bool(first))
            if bool(first) != bool(second):
                raise LoralabError(f"{name}={text}: write r at both ends, or at none")
            axis._check_range(text)
        if axis.of_rank and name != "lora.alpha":
            raise LoralabError(f"{name}={text}: only lora.alpha is told in multiples of the rank, such as 2r")
        return axis

    def _check_range(self, text: str) -> None:
        if not self.low < self.high:
            raise LoralabError(f"{self.name}={text}: the range must go upward")
        if self.log and (self.low <= 0 or self.step is not None):
            raise LoralabError(f"{self.name}={text}: a log range starts above 0 and has no steps")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise LoralabError(f"{self.name}={text}: the step must be above 0 and fit into the range")

    def draw(self, trial: Suggest) -> str:
        """Let `trial` choose a point."""
        if self.choices:
            return str(trial.suggest_categorical(self.name, list(self.choices)))
        if self.whole:
            return self.point(trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log))
        return self.point(trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log))

    def point(self, value: float | str) -> str:
        """A value of this axis as it is typed: four digits, enough to be read and to be compared."""
        if isinstance(value, str):
            return value
        told = str(round(value)) if self.whole else f"{min(max(float(f'{value:.4g}'), self.low), self.high):.10g}"
        return told + "r" * self.of_rank

    def values(self) -> tuple[str | int | float, ...] | None:
        """Every value that can be drawn, None where they cannot be counted."""
        if self.choices:
            return self.choices
        if self.whole:
            return tuple(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        if self.step is None:
            return None
        return tuple(round(self.low + i * self.step, 12) for i in range(int((self.high - self.low) / self.step + 1e-9) + 1))

    def edges(self) -> tuple[str, ...]:
        """The points to try a configuration with: all choices, or both ends."""
        return self.choices or (self.point(self.low), self.point(self.high))

    def told(self) -> str:
        """The axis as it is typed; equal for equal axes."""
        if self.choices:
            return ",".join(self.choices)
        step = f"/{self.step:g}" if self.step else ""
        return f"{self.point(self.low)}..{self.point(self.high)}{step}{':log' * self.log}"


@dataclass(frozen=True)
class Space:
    """The settings that a search varies."""

    axes: tuple[Axis, ...]

    def draw(self, trial: Suggest) -> dict[str, str]:
        """Let `trial` choose a point of every axis."""
        return {axis.name: axis.draw(trial) for axis in self.axes}

    def points(self, values: Mapping[str, Any]) -> dict[str, str] | None:
        """Values that were drawn before, as points; None where one is missing."""
        if any(axis.name not in values for axis in self.axes):
            return None
        return {axis.name: axis.point(values[axis.name]) for axis in self.axes}

    @property
    def size(self) -> int | None:
        """How many combinations there are; None where a range is continuous."""
        values = [axis.values() for axis in self.axes]
        return None if None in values else prod(len(each) for each in values if each is not None)

    def combinations(self) -> Iterator[dict[str, str | int | float]]:
        """Yield the values of every combination. Raises LoralabError where a range is continuous."""
        for axis in self.axes:
            if axis.values() is None:
                raise LoralabError(
                    f"--sampler grid: {axis.name}={axis.told()} has no end of points; give choices, or steps: {GRAMMAR}"
                )
        for chosen in product(*(axis.values() or () for axis in self.axes)):
            yield {axis.name: value for axis, value in zip(self.axes, chosen, strict=True)}

    def told(self) -> dict[str, str]:
        """Each axis as it is typed."""
        return {axis.name: axis.told() for axis in self.axes}


def make_space(base: Config, ranges: Mapping[str, object]) -> Space:
    """Return the space of `setting: range`, as in a recipe's `search:`. Raises LoralabError where a setting or point cannot be."""
    names = setting_names()
    axes = []
    for name, given in ranges.items():
        if name not in names:
            raise LoralabError(f"the space names an unknown setting {name!r}{nearest(str(name), names)}")
        if name in NOT_SEARCHED:
            raise LoralabError(f"{name} cannot be searched: {NOT_SEARCHED[name]}")
        axis = Axis.parse(name, _typed(given), _takes_whole_numbers(name))
        for point in axis.edges():
            apply(base, {name: point})
        axes.append(axis)
    if not axes:
        raise LoralabError("the space is empty: give --over SETTING=RANGE, such as --over lora.rank=4,8,16")
    return Space(tuple(axes))


def default_ranges(config: Config) -> dict[str, object]:
    """What is worth searching where neither the recipe nor the user says."""
    rate = config.train.learning_rate
    found: dict[str, object] = {"train.learning_rate": f"{rate / 10:g}..{rate * 10:g}:log", "train.weight_decay": "0..0.1"}
    if config.tuning == "lora" and config.lora.variant != "ia3":  # which has no rank
        found = {
            "lora.rank": "4,8,16,32",
            "lora.alpha": "1r,2r,4r",
            "lora.dropout": "0..0.2",
            "lora.targets": "query+value,all",
            "train.learning_rate": "2e-4..5e-3:log",
        }
    return found


def parse_over(given: Sequence[str]) -> dict[str, object]:
    """Read `lora.rank=4,8,16`, one for each setting. Raises LoralabError for anything else."""
    found: dict[str, object] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals or name in found:
            raise LoralabError(f"--over {each}: write SETTING=RANGE once for each setting; {GRAMMAR}")
        found[name.strip()] = text
    return found


def _takes_whole_numbers(name: str) -> bool:
    """True where a setting's type has no fractions in it."""
    section, _, inner = name.partition(".")
    fields: Mapping[str, Any] = Config.model_fields
    field = fields[section].annotation.model_fields[inner] if inner else fields[section]
    return float not in _types(field.annotation)


def _types(annotation: Any) -> list[Any]:
    """A type and all that it is made of: of `int | None` itself, int and None."""
    return [annotation, *(each for part in get_args(annotation) for each in _types(part))]


def _typed(given: object) -> str:
    """A range out of YAML as it is typed on the command line; a list within a list is words."""
    if isinstance(given, list):
        return ",".join("+".join(map(str, each)) if isinstance(each, list) else _typed_value(each) for each in given)
    return _typed_value(given)


def _typed_value(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
