"""An experiment, scored and compared: what its figures, tables and words are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np

from loralab.errors import LoralabError
from loralab.report.experiments.comparisons import Comparison, RowTest, best
from loralab.report.experiments.rows import ACCURACY
from loralab.report.experiments.tables import LabTables, Point, Score, is_number
from loralab.stats import HoldOut, LawIntervals, PowerLaw, diminishing, fit_power_law, hold_out_last, law_intervals
from loralab.storage.experiment_folder import Factor

GAIN = 0.01
"""A doubling of the rows that takes less than this off the error is called diminishing."""
FURTHEST = 4
"""The law is drawn up to this many times the rows measured."""


@dataclass(frozen=True)
class Law:
    """The power law through an experiment's errors. rows, errors: one a run; `beyond`: where it predicts, (rows, error)."""

    rows: tuple[float, ...]
    errors: tuple[float, ...]
    fitted: PowerLaw
    intervals: LawIntervals | None
    checked: HoldOut | None
    at: tuple[float, ...]
    diminishing: float


@dataclass(frozen=True)
class Reading:
    """An experiment's rows, the score that decides, and the comparisons of its points."""

    tables: LabTables
    score: Score
    comparisons: tuple[Comparison, ...]
    row_tests: tuple[RowTest, ...]

    @cached_property
    def best(self) -> Point | None:
        """The point with the highest mean."""
        return best(self.tables.points, self.score)

    @cached_property
    def number(self) -> str | None:
        """The first numeric factor of several points."""
        return next((name for name, values in self.tables.axes.items() if len(values) > 1 and all(map(is_number, values))), None)

    @cached_property
    def crossed(self) -> tuple[str, str] | None:
        """The first two factors of several points, for a plane: one along, one up."""
        axes = [name for name, values in self.tables.axes.items() if len(values) > 1]
        return (axes[0], axes[1]) if len(axes) > 1 else None

    @cached_property
    def law(self) -> Law | None:
        """The power law of test errors by training rows; None where there are too few sizes."""
        runs = [
            (float(trial.rows["train"]["count"]), 1 - value)
            for trial in self.tables.complete
            if "train" in trial.rows and (value := trial.value(ACCURACY)) is not None
        ]
        rows, errors = tuple(n for n, _ in runs), tuple(error for _, error in runs)
        try:
            fitted = fit_power_law(rows, errors)
        except (LoralabError, ValueError):
            return None
        at = tuple(float(n) for n in np.geomspace(min(rows), FURTHEST * max(rows), 25))
        doubled = (2.0 * max(rows), float(FURTHEST * max(rows)))
        try:
            intervals = law_intervals(rows, errors, at=(*doubled, *at))
        except LoralabError:
            intervals = None
        try:
            checked = hold_out_last(rows, errors)
        except LoralabError:
            checked = None
        return Law(rows, errors, fitted, intervals, checked, (*doubled, *at), diminishing(fitted, gain=GAIN))


def sorted_along(points: Sequence[Point], axis: str) -> list[Point]:
    """Points by a numeric factor."""
    return sorted((p for p in points if axis in p.factors), key=lambda p: float(cast(float, p.factors[axis])))


def without(point: Point, *axes: str) -> tuple[tuple[str, Factor], ...]:
    """A point's other factors."""
    return tuple((name, value) for name, value in point.factors.items() if name not in axes)
