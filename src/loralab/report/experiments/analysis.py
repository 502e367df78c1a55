"""An experiment's statistics: comparisons of configurations on the test rows, what can be recommended, and the power law."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np

from loralab import stats
from loralab.report.experiments.experiment_data import ExperimentData, FactorItems, Point, Score
from loralab.report.formatting import signed_points
from loralab.report.scaling_law import ScalingLaw, fit_scaling_law
from loralab.storage.experiment_folder import Factor

PointPairs = list[tuple[Point, Point]]
"""(configuration, baseline) pairs."""
PairSelector = Callable[[ExperimentData, Score], PointPairs]
LEVEL = 0.05
"""A difference is significant if its adjusted p-value is below this."""
MARGIN = 0.01
"""A cheaper choice is recommended if it is shown to lose less accuracy than this: one percentage point."""


@dataclass(frozen=True)
class PointComparison:
    """The test accuracy of a configuration against a baseline. family: the number of comparisons behind p and interval."""

    point: Point
    baseline: Point
    test: stats.Difference
    family: int

    @cached_property
    def p(self) -> float:
        """The p-value, adjusted for the family."""
        return self.test.p(self.family)

    @cached_property
    def interval(self) -> stats.Interval:
        """The 95 % interval; those of the family hold together."""
        return self.test.interval(self.family)

    @property
    def significant(self) -> bool:
        """True when a difference may be claimed."""
        return self.p < LEVEL

    @property
    def no_worse(self) -> bool:
        """True when the configuration is shown to lose less than `MARGIN`."""
        return self.interval.low > -MARGIN

    @property
    def verdict(self) -> str:
        """What the test supports, as text."""
        low, value, high = self.interval
        rows = "" if self.test.new_seeds else " for these models"
        if self.significant:
            ends = (low, high) if value > 0 else (-high, -low)
            spread = f"95 % CI {100 * ends[0]:.2f} to {100 * ends[1]:.2f}, {p_text(self.p)}"
            return f"{'better' if value > 0 else 'worse'} by {100 * abs(value):.2f} points{rows} ({spread})"
        spread = f"95 % CI {signed_points(low)} to {signed_points(high)}, {p_text(self.p)}"
        return f"no significant difference{rows}: {signed_points(value)} points ({spread})"


@dataclass(frozen=True)
class ExperimentAnalysis:
    """An experiment, the score that ranks its configurations, and their comparisons.

    planned: whether the pairs were fixed before the results were known; else each pair of configurations could have been compared.
    """

    data: ExperimentData
    score: Score
    comparisons: tuple[PointComparison, ...]
    planned: bool = True

    @cached_property
    def best(self) -> Point | None:
        """The configuration with the highest mean score."""
        return best_point(self.data.points, self.score)

    @cached_property
    def best_interval(self) -> stats.Interval | None:
        """The 95 % interval of the best configuration's test accuracy, adjusted for having been chosen; None if unknown."""
        best, score = self.best, self.score
        if best is None or best.correct is None or not self.best_is_adjusted:
            return best.interval if best else None
        rows = (best.trials[0].test_fingerprint, best.correct.shape[1])
        comparable = [
            (point, point.correct)
            for point in self.data.points
            if point.correct is not None
            and (point.trials[0].test_fingerprint, point.correct.shape[1]) == rows
            and len(point.values(score)) == len(point.trials)
        ]
        positions = [position for position, (point, _) in enumerate(comparable) if point is best]
        if not positions:  # a model without the score, such as the F1 of a class that its validation rows lack
            return best.interval
        return stats.chosen_interval(
            [correct for _, correct in comparable],
            positions[0],
            [point.values(score) for point, _ in comparable] if score.part == "validation" else None,
            choices=len(self.data.points),
        )

    @property
    def best_is_adjusted(self) -> bool:
        """Whether the choice of the best changes its interval. One for given models, chosen on other rows, stays as it is."""
        return len(self.data.points) > 1 and self.best is not None and (self.best.new_seeds or self.score.part == "test")

    @cached_property
    def scaling_law(self) -> ScalingLaw | None:
        """The power law of test errors by training rows; None for too few sizes."""
        runs = [t for t in self.data.complete if "train" in t.rows and t.correct is not None]
        if len({trial.test_fingerprint for trial in runs}) != 1:
            return None
        sizes = [float(trial.rows["train"]["count"]) for trial in runs]
        groups = {
            size: np.stack([cast(np.ndarray, trial.correct) for trial, rows in zip(runs, sizes, strict=True) if rows == size])
            for size in sorted(set(sizes))
        }
        return fit_scaling_law(groups)


def compare_points(pairs: PointPairs, points: int | None = None) -> list[PointComparison]:
    """Compare each pair that has predictions of the same test rows.

    points: the number of configurations, if the pairs were chosen for their results: the family is then every pair of them.
    """
    tests = [(point, baseline, test) for point, baseline in pairs if (test := _compare(point, baseline))]
    moderated = stats.moderate([test for _, _, test in tests])
    family = max(1, len(tests) if points is None else points * (points - 1) // 2)
    return [PointComparison(point, baseline, test, family) for (point, baseline, _), test in zip(tests, moderated, strict=True)]


def best_point(points: Sequence[Point], score: Score) -> Point | None:
    """Return the configuration with the highest mean; of ties the one with the fewest trainable parameters, then the first."""
    scored = [point for point in points if point.values(score)]
    return max(scored, key=lambda point: (round(point.mean(score), 9), -np.nan_to_num(point.mean_fact("trainable"))), default=None)


def p_text(p: float) -> str:
    """Format p as `p = 0.011` or `p < 0.001`, with more digits if three would equal the level."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.{5 if round(p, 3) == LEVEL != p else 3}f}"


def pairs_with_first(data: ExperimentData, score: Score) -> PointPairs:
    """Pair every configuration with the first one, such as the first recipe given."""
    return [(point, data.points[0]) for point in data.points[1:]]


def pairs_with_best(data: ExperimentData, score: Score) -> PointPairs:
    """Pair every configuration with the one that has the highest mean."""
    best = best_point(data.points, score)
    return [(point, best) for point in data.points if best and point is not best]


def pairs_with_defaults(data: ExperimentData, score: Score) -> PointPairs:
    """Pair every configuration with its recipe's own settings."""
    defaults = {point.factors.get("recipe"): point for point in data.points if not set(point.factors) - {"recipe"}}
    pairs = [(point, defaults.get(point.factors.get("recipe"))) for point in data.points]
    return [(point, baseline) for point, baseline in pairs if baseline and point is not baseline]


def pairs_with_value(*values: Factor) -> PairSelector:
    """Pair every configuration with the most similar one that has a baseline value, such as all layers or no augmentation."""

    def select(data: ExperimentData, score: Score) -> PointPairs:
        baselines = [point for point in data.points if any(value in values for value in point.factors.values())]
        others = [point for point in data.points if baselines and point not in baselines]
        return [(point, min(baselines, key=lambda baseline: len(differing_factors(point, baseline)))) for point in others]

    return select


def pairs_with_largest(data: ExperimentData, score: Score) -> PointPairs:
    """Pair every configuration with the largest one along the first numeric factor, the other factors equal."""
    factor = data.numeric_factor
    if factor is None:
        return []
    lines = [sort_by_factor(group, factor) for group in group_by_other_factors(data.points, factor).values()]
    return [(smaller, line[-1]) for line in lines for smaller in line[:-1]]


def differing_factors(point: Point, other: Point) -> list[str]:
    """Return the factors in which two configurations differ."""
    return [name for name in {**point.factors, **other.factors} if point.factors.get(name) != other.factors.get(name)]


def group_by_other_factors(points: Sequence[Point], factor: str) -> dict[FactorItems, list[Point]]:
    """Return the configurations by their factors except this one."""
    groups: dict[FactorItems, list[Point]] = {}
    for point in points:
        groups.setdefault(point.other_factors(factor), []).append(point)
    return groups


def sort_by_factor(points: Sequence[Point], factor: str) -> list[Point]:
    """Return the configurations that have a numeric factor, in its order."""
    return sorted((p for p in points if factor in p.factors), key=lambda p: float(cast(float, p.factors[factor])))


def _compare(point: Point, baseline: Point) -> stats.Difference | None:
    """Compare two configurations seed by seed if they share enough seeds, else as independent samples of seeds."""
    if {trial.folder.resolve() for trial in point.trials} == {trial.folder.resolve() for trial in baseline.trials}:
        return None  # trials may share a run, such as active learning's first, before any strategy has chosen rows
    if point.correct is None or baseline.correct is None or point.trials[0].test_fingerprint != baseline.trials[0].test_fingerprint:
        return None
    first = {trial.seed: row for trial, row in zip(point.trials, point.correct, strict=True)}
    second = {trial.seed: row for trial, row in zip(baseline.trials, baseline.correct, strict=True)}
    shared = [seed for seed in first if seed in second and seed is not None]
    if len(shared) >= stats.FEWEST_SEEDS:
        return stats.difference([first[seed] for seed in shared], [second[seed] for seed in shared], paired=True)
    return stats.difference(point.correct, baseline.correct, paired=False)
