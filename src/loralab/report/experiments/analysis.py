"""An experiment's statistics: comparisons over seeds and over test rows, each set Holm-corrected, and the power law."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from loralab import stats
from loralab.report.experiments.experiment_data import ACCURACY, ExperimentData, FactorItems, Point, Score
from loralab.report.predictions import read_correct
from loralab.report.scaling_law import ScalingLaw, fit_scaling_law
from loralab.storage.experiment_folder import Factor

PointPairs = list[tuple[Point, Point]]
"""(configuration, baseline) pairs."""
PairSelector = Callable[[ExperimentData, Score], PointPairs]
MAX_ROW_COMPARISONS = 60


@dataclass(frozen=True)
class PointComparison:
    """A configuration against a baseline over their seeds. p: Holm-adjusted for all comparisons of the experiment."""

    point: Point
    baseline: Point
    test: stats.Paired | stats.Unpaired
    p: float

    @property
    def enough_seeds(self) -> bool:
        """True when there are enough seeds for a claim."""
        return self.test.n >= stats.FEWEST_SEEDS

    @property
    def significant(self) -> bool:
        """True when a difference may be claimed."""
        return self.enough_seeds and self.p < 0.05

    @property
    def verdict(self) -> str:
        """What the test supports, as text."""
        return stats.verdict(self.test, adjusted_p=self.p)


@dataclass(frozen=True)
class RowComparison:
    """Two trials of one seed, compared row by row on the same test rows. p: Holm-adjusted."""

    point: Point
    baseline: Point
    seed: Factor
    rows: int
    test: stats.McNemar
    p: float


@dataclass(frozen=True)
class ExperimentAnalysis:
    """An experiment with the score that decides and the comparisons of its configurations."""

    data: ExperimentData
    score: Score
    comparisons: tuple[PointComparison, ...]
    row_comparisons: tuple[RowComparison, ...]

    @cached_property
    def best(self) -> Point | None:
        """The configuration with the highest mean."""
        return best_point(self.data.points, self.score)

    @cached_property
    def scaling_law(self) -> ScalingLaw | None:
        """The power law of test errors by training rows; None for too few sizes."""
        runs = [t for t in self.data.complete if "train" in t.rows and t.value(ACCURACY) is not None]
        errors = tuple(1 - cast(float, trial.value(ACCURACY)) for trial in runs)
        return fit_scaling_law(tuple(float(trial.rows["train"]["count"]) for trial in runs), errors)


def compare_points(pairs: PointPairs, score: Score) -> list[PointComparison]:
    """Compare each pair over the seeds that both have, or as independent samples where they share none."""
    tests = [(point, baseline, test) for point, baseline in pairs if (test := _compare_over_seeds(point, baseline, score))]
    adjusted = stats.holm([test.p for _, _, test in tests])
    return [PointComparison(point, baseline, test, p) for (point, baseline, test), p in zip(tests, adjusted, strict=True)]


def compare_rows(pairs: PointPairs) -> list[RowComparison]:
    """Compare trials of the same seed and test rows row by row, at most `MAX_ROW_COMPARISONS` pairs."""
    matched = [
        (point, baseline, a, b)
        for point, baseline in pairs
        for a, b in itertools.product(point.trials, baseline.trials)
        if a.seed == b.seed and a.rows.get("test") == b.rows.get("test")
    ][:MAX_ROW_COMPARISONS]
    correct = {trial.name: read_correct(trial.folder) for trial in {t.name: t for _, _, a, b in matched for t in (a, b)}.values()}
    tests = []
    for point, baseline, a, b in matched:
        shared = [row for row in correct[a.name] if row in correct[b.name]]
        if shared:
            test = stats.mcnemar([correct[a.name][row] for row in shared], [correct[b.name][row] for row in shared])
            tests.append((point, baseline, a.seed, len(shared), test))
    adjusted = stats.holm([fields[-1].p for fields in tests])
    return [RowComparison(*fields, p) for fields, p in zip(tests, adjusted, strict=True)]


def best_point(points: Sequence[Point], score: Score) -> Point | None:
    """Return the configuration with the highest mean; of ties the first."""
    scored = [point for point in points if point.values(score)]
    return max(scored, key=lambda point: point.mean(score), default=None)


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


def pairs_with_smaller(data: ExperimentData, score: Score) -> PointPairs:
    """Pair every configuration with the next smaller one along the first numeric factor, the other factors equal."""
    factor = data.numeric_factor
    if factor is None:
        return []
    groups = group_by_other_factors(data.points, factor).values()
    return [(larger, smaller) for group in groups for smaller, larger in itertools.pairwise(sort_by_factor(group, factor))]


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


def _compare_over_seeds(point: Point, baseline: Point, score: Score) -> stats.Paired | stats.Unpaired | None:
    if {trial.folder.resolve() for trial in point.trials} == {trial.folder.resolve() for trial in baseline.trials}:
        return None  # trials may share a run, such as active learning's first, before any strategy has chosen rows
    first, second = point.by_seed(score), baseline.by_seed(score)
    shared = [seed for seed in first if seed in second and seed is not None]
    if shared:
        return stats.paired([first[seed] for seed in shared], [second[seed] for seed in shared])
    a, b = point.values(score), baseline.values(score)
    return stats.unpaired(a, b) if a and b else None
