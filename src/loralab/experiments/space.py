"""The search space: settings with choices or ranges. Nothing is read or run here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Protocol

from loralab.config import Config
from loralab.config.hints import unknown_setting
from loralab.config.loading import setting_names, setting_types
from loralab.errors import LoralabError
from loralab.experiments.plans import apply_points, split_assignments, split_points

_NUMBER = r"([-+]?\d*\.?\d+(?:e[-+]?\d+)?)"
_RANGE = re.compile(rf"{_NUMBER}(r?)\.\.{_NUMBER}(r?)(?:/{_NUMBER})?(:log)?", re.IGNORECASE)
_MULTIPLE = re.compile(rf"{_NUMBER}r")
_HYPHEN_RANGE = re.compile(rf"{_NUMBER}-{_NUMBER}(:log)?", re.IGNORECASE)
GRAMMAR = "give choices as 4,8,16, a range as 0..0.2, a log-scale range as 1e-5..1e-3:log, a range in steps as 0..0.2/0.05"
NOT_SEARCHED = {
    "name": "trials are numbered",
    "seed": "the best of several seeds is chance; `loralab experiment seeds` measures the variation",
    "data.sample_seed": "the best of several samples is chance",
    **dict.fromkeys(
        [f"data.{name}" for name in ("source", "text", "label", "classes", "test", "max_test_samples", "validation", "split_seed")],
        "all trials need the same validation rows",
    ),
}
"""Settings whose best value would be meaningless → why."""


class Suggester(Protocol):
    """The part of an Optuna trial that samples values."""

    def suggest_categorical(self, name: str, choices: Sequence[str], /) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, /, *, step: int, log: bool) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, /, *, step: float | None, log: bool) -> float: ...


@dataclass(frozen=True)
class Axis:
    """One setting of the space: choices as typed, or a range from `low` to `high`, both included.

    of_rank: the numbers are multiples of the trial's rank (lora.alpha only), so that alpha follows the sampled rank.
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
        """Parse `4,8,16`, `1r,2r`, `0..0.2`, `2..16/2`, `1e-5..1e-3:log` or `0.5r..4r:log`. Raises LoralabError for anything else.

        whole: the setting takes whole numbers only.
        """
        match = _RANGE.fullmatch(text.strip())
        if not match:
            if ".." in text:
                raise LoralabError(f"{name}={text} is not a range: {GRAMMAR}")
            if (wrong := _HYPHEN_RANGE.fullmatch(text.strip())) and str not in setting_types(name):
                low, high, log = wrong.groups()
                raise LoralabError(f"{name}={text} is not a range: did you mean {low}..{high}{log or ''}?\n  {GRAMMAR}")
            choices = split_points(text)
            if not choices or len(set(choices)) < len(choices):
                raise LoralabError(f"{name}={text}: give different choices; {GRAMMAR}")
            axis = cls(name, choices, of_rank=any(_MULTIPLE.fullmatch(point) for point in choices))
        else:
            low, first, high, second, step, log = match.groups()
            if whole and not all(float(number or 1).is_integer() for number in (low, high, step)):
                raise LoralabError(f"{name}={text}: {name} takes whole numbers")
            axis = cls(name, (), float(low), float(high), float(step) if step else None, bool(log), whole, bool(first))
            if bool(first) != bool(second):
                raise LoralabError(f"{name}={text}: write r at both ends or at neither")
            axis._check_range(text)
        if axis.of_rank and name != "lora.alpha":
            raise LoralabError(f"{name}={text}: only lora.alpha accepts multiples of the rank, such as 2r")
        return axis

    def _check_range(self, text: str) -> None:
        if not self.low < self.high:
            raise LoralabError(f"{self.name}={text}: the upper end must be above the lower one")
        if self.log and (self.low <= 0 or self.step is not None):
            raise LoralabError(f"{self.name}={text}: a log range must start above 0 and cannot have steps")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise LoralabError(f"{self.name}={text}: the step must be above 0 and at most the length of the range")

    def suggest(self, trial: Suggester) -> str:
        """Let `trial` sample a point."""
        if self.choices:
            return str(trial.suggest_categorical(self.name, list(self.choices)))
        if self.whole:
            return self.point(trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log))
        return self.point(trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log))

    def point(self, value: float | str) -> str:
        """Return a value as typed, with four significant digits, readable and exact to compare."""
        if isinstance(value, str):
            return value
        text = str(round(value)) if self.whole else f"{min(max(float(f'{value:.4g}'), self.low), self.high):.10g}"
        return text + "r" * self.of_rank

    def values(self) -> tuple[str | int | float, ...] | None:
        """Return every value of the axis, None for a continuous range."""
        if self.choices:
            return self.choices
        if self.whole:
            return tuple(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        if self.step is None:
            return None
        return tuple(round(self.low + i * self.step, 12) for i in range(int((self.high - self.low) / self.step + 1e-9) + 1))

    def edges(self) -> tuple[str, ...]:
        """Return all choices, or both ends of the range."""
        return self.choices or (self.point(self.low), self.point(self.high))

    def to_text(self) -> str:
        """Return the axis as typed; equal for equal axes."""
        if self.choices:
            return ",".join(self.choices)
        step = f"/{self.step:g}" if self.step else ""
        return f"{self.point(self.low)}..{self.point(self.high)}{step}{':log' * self.log}"


@dataclass(frozen=True)
class Space:
    """The settings that a search varies."""

    axes: tuple[Axis, ...]

    def suggest(self, trial: Suggester) -> dict[str, str]:
        """Let `trial` sample a point of every axis."""
        return {axis.name: axis.suggest(trial) for axis in self.axes}

    def points(self, values: Mapping[str, Any]) -> dict[str, str] | None:
        """Return sampled values as points, None if one is missing."""
        if any(axis.name not in values for axis in self.axes):
            return None
        return {axis.name: axis.point(values[axis.name]) for axis in self.axes}

    @property
    def size(self) -> int | None:
        """The number of combinations, None if a range is continuous."""
        values = [axis.values() for axis in self.axes]
        return None if None in values else prod(len(axis_values) for axis_values in values if axis_values is not None)

    def combinations(self) -> Iterator[dict[str, str | int | float]]:
        """Yield the values of every combination. Raises LoralabError for a continuous range."""
        for axis in self.axes:
            if axis.values() is None:
                raise LoralabError(f"--sampler grid: {axis.name}={axis.to_text()} is continuous; give choices or steps: {GRAMMAR}")
        for values in product(*(axis.values() or () for axis in self.axes)):
            yield {axis.name: value for axis, value in zip(self.axes, values, strict=True)}

    def to_text(self) -> dict[str, str]:
        """Return each axis as typed."""
        return {axis.name: axis.to_text() for axis in self.axes}


def make_space(base: Config, ranges: Mapping[str, object]) -> Space:
    """Return the space of `setting: range`, as in a recipe's `search:`. Raises LoralabError for an invalid setting or point."""
    names = setting_names()
    axes = []
    for name, given in ranges.items():
        if name not in names:
            raise LoralabError(f"the search space has an {unknown_setting(str(name), given, names)}")
        if name in NOT_SEARCHED:
            raise LoralabError(f"{name} cannot be searched: {NOT_SEARCHED[name]}")
        axis = Axis.parse(name, _range_text(given), float not in setting_types(name))
        for point in axis.edges():
            apply_points(base, {name: point})
        axes.append(axis)
    if not axes:
        raise LoralabError("the search space is empty: give --over SETTING=RANGE, such as --over lora.rank=4,8,16")
    return Space(tuple(axes))


def default_ranges(config: Config) -> dict[str, str]:
    """Return the space to search if neither the recipe nor the user gives one."""
    rate = config.train.learning_rate
    if config.tuning == "lora" and config.lora.variant != "ia3":  # which has no rank
        return {
            "lora.rank": "4,8,16,32",
            "lora.alpha": "1r,2r,4r",
            "lora.dropout": "0..0.2",
            "lora.targets": "query+value,all",
            "train.learning_rate": "2e-4..5e-3:log",
        }
    return {"train.learning_rate": f"{rate / 10:g}..{rate * 10:g}:log", "train.weight_decay": "0..0.1"}


def parse_over(arguments: Sequence[str]) -> dict[str, str]:
    """Parse `lora.rank=4,8,16`, one per setting. Raises LoralabError for anything else."""
    return split_assignments("--over", arguments, f"give SETTING=RANGE once per setting; {GRAMMAR}")


def _range_text(given: object) -> str:
    """Return a range from YAML as typed on the command line; a list within a list is joined by `+`."""
    if isinstance(given, list):
        return ",".join("+".join(map(str, choice)) if isinstance(choice, list) else _choice_text(choice) for choice in given)
    return _choice_text(given)


def _choice_text(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
