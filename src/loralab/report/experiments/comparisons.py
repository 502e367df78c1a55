"""Points against one another: over seeds (paired) and over test rows (McNemar), each set corrected together by Holm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from loralab.report.experiments.tables import LabTables, Point, Score, is_number
from loralab.stats import FEWEST_SEEDS, McNemar, Paired, Unpaired, holm, mcnemar, paired, unpaired, verdict
from loralab.storage.experiment_folder import Factor

Pairs = list[tuple[Point, Point]]
NullComparison = Callable[[LabTables, Score], Pairs]
"""Says which point is compared with which; the second is the one to beat."""
MOST_ROW_TESTS = 60
"""Pairs of trials whose predictions are read and compared row by row."""


@dataclass(frozen=True)
class Comparison:
    """One point against another over their seeds. p is corrected for all comparisons of the experiment."""

    point: Point
    against: Point
    found: Paired | Unpaired
    p: float

    @property
    def clear(self) -> bool:
        """True where a difference may be claimed."""
        return self.found.n >= FEWEST_SEEDS and self.p < 0.05

    @property
    def words(self) -> str:
        """What may be said of the point against the other."""
        return verdict(self.found, corrected_p=self.p)


@dataclass(frozen=True)
class RowTest:
    """Two trials of one seed, row by row: does one get right what the other gets wrong? p is corrected."""

    point: Point
    against: Point
    seed: Factor
    rows: int
    found: McNemar
    p: float


def compare(pairs: Pairs, score: Score) -> list[Comparison]:
    """Compare over the seeds that both have, or, where they share none, as separate runs."""
    found = [each for point, against in pairs if (each := _over_seeds(point, against, score))]
    corrected = holm([each.p for _, _, each in found])
    return [Comparison(point, against, each, p) for (point, against, each), p in zip(found, corrected, strict=True)]


def compare_rows(pairs: Pairs) -> list[RowTest]:
    """Compare the trials of each pair seed by seed on the test rows that both have predicted. At most `MOST_ROW_TESTS`."""
    twins = [
        (point, against, a, b)
        for point, against in pairs
        for a in point.trials
        for b in against.trials
        if a.seed == b.seed and a.rows.get("test") == b.rows.get("test")
    ][:MOST_ROW_TESTS]
    right = {trial.name: trial.right() for trial in {t.name: t for _, _, a, b in twins for t in (a, b)}.values()}
    found = []
    for point, against, a, b in twins:
        shared = [row for row in right[a.name] if row in right[b.name]]
        if shared:
            result = mcnemar([right[a.name][row] for row in shared], [right[b.name][row] for row in shared])
            found.append((point, against, a.seed, len(shared), result))
    corrected = holm([each[-1].p for each in found])
    return [RowTest(*each, p) for each, p in zip(found, corrected, strict=True)]


def best(points: Sequence[Point], score: Score) -> Point | None:
    """The point with the highest mean; of equals the first."""
    scored = [point for point in points if point.values(score)]
    return max(scored, key=lambda point: point.mean(score), default=None)


def to_first(tables: LabTables, score: Score) -> Pairs:
    """Every point against the first one, such as the first recipe named."""
    return [(point, tables.points[0]) for point in tables.points[1:]]


def to_best(tables: LabTables, score: Score) -> Pairs:
    """Every point against the one with the highest mean."""
    top = best(tables.points, score)
    return [(point, top) for point in tables.points if top and point is not top]


def to_centre(tables: LabTables, score: Score) -> Pairs:
    """Every point against the recipe's own settings, which no factor changes; of each recipe by itself."""
    centres = {point.factors.get("recipe"): point for point in tables.points if not set(point.factors) - {"recipe"}}
    return [
        (point, centres[recipe])
        for point in tables.points
        if (recipe := point.factors.get("recipe")) in centres and point is not centres[recipe]
    ]


def to_value(wanted: Callable[[str, Factor], bool]) -> NullComparison:
    """Every point against the one most like it among those that have a `wanted` value, such as all layers or no augmentation."""

    def pairs(tables: LabTables, score: Score) -> Pairs:
        bases = [point for point in tables.points if any(wanted(name, value) for name, value in point.factors.items())]
        return [
            (point, min(bases, key=lambda base: len(apart(point, base)))) for point in tables.points if bases and point not in bases
        ]

    return pairs


def apart(point: Point, other: Point) -> list[str]:
    """The factors in which two points differ."""
    return [name for name in {**point.factors, **other.factors} if point.factors.get(name) != other.factors.get(name)]


def to_smaller(tables: LabTables, score: Score) -> Pairs:
    """Every point against the next smaller one along the first numeric factor, all else alike."""
    axis = next((name for name, values in tables.axes.items() if len(values) > 1 and all(map(is_number, values))), None)
    if axis is None:
        return []
    lines: dict[tuple[tuple[str, Factor], ...], list[Point]] = {}
    for point in tables.points:
        lines.setdefault(tuple((k, v) for k, v in point.factors.items() if k != axis), []).append(point)
    found = []
    for line in lines.values():
        ordered = sorted((point for point in line if axis in point.factors), key=lambda p: float(cast(float, p.factors[axis])))
        found += list(zip(ordered[1:], ordered[:-1], strict=True))
    return found


def _over_seeds(point: Point, against: Point, score: Score) -> tuple[Point, Point, Paired | Unpaired] | None:
    if {trial.folder.resolve() for trial in point.trials} == {trial.folder.resolve() for trial in against.trials}:
        return None  # trials may share a run, such as the first of active learning, before any strategy has chosen
    first, second = point.by_seed(score), against.by_seed(score)
    shared = [seed for seed in first if seed in second and seed is not None]
    if shared:
        return point, against, paired([first[seed] for seed in shared], [second[seed] for seed in shared])
    a, b = point.values(score), against.values(score)
    return (point, against, unpaired(a, b)) if a and b else None
