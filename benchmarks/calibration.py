"""Do the reports' intervals and claims hold at the rate they state? Simulated, as a table: make calibrate.

Two sources of predictions. *Stored*: which of 3,800 AG News test rows ten seeds of three recipes classified correctly (800
training rows, minilm; `stored_predictions.npz`). Swapping two recipes for half of the rows, all seeds together, makes them equal
in the population. *Simulated*: rows differ in difficulty, recipes in the rows they find difficult, seeds in level and single rows.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from loralab import stats
from loralab.stats.power_law import PowerLaw

Correct = npt.NDArray[np.bool_]
STORED = Path(__file__).parent / "stored_predictions.npz"
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "calibration.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
MARGIN = 0.01


@dataclass(frozen=True)
class Rate:
    """How often something happened in simulated experiments. nominal: as stated; at_least: whether more is fine too."""

    claim: str
    situation: str
    nominal: float
    count: int
    experiments: int
    bound: str = ""

    @property
    def measured(self) -> float:
        return self.count / self.experiments

    @property
    def row(self) -> str:
        error = 196 * math.sqrt(max(self.measured * (1 - self.measured), 1 / self.experiments) / self.experiments)
        stated = f"{self.bound}{100 * self.nominal:g} %"
        return f"| {self.claim} | {self.situation} | {stated} | {100 * self.measured:.1f} % ± {error:.1f} |"


@cache
def stored() -> dict[str, Correct]:
    """Recipe → correct predictions (10 seeds, 3,800 rows)."""
    with np.load(STORED) as file:
        return {name: np.unpackbits(file[name], axis=1, count=3800).astype(bool) for name in file.files}


def swapped(random: np.random.Generator, first: Correct, second: Correct) -> tuple[Correct, Correct]:
    """Exchange two recipes for a random half of the rows, all seeds together."""
    swap = random.random(first.shape[1]) < 0.5
    return np.where(swap, second, first), np.where(swap, first, second)


@dataclass(frozen=True)
class Population:
    """Models that are right where level + difficulty of row, recipe and seed exceed noise. Fields: standard deviations, level."""

    rows: float = 2.5
    recipe: float = 0.5
    seed: float = 0.15
    noise: float = 0.5
    level: float = 4.75

    def draw(self, random: np.random.Generator, shifts: list[float], seeds: int, rows: int, unsteady: float = 1.0) -> list[Correct]:
        """unsteady: the seeds of the last configuration vary by this factor more than those of the others."""
        difficulty = random.normal(self.level, self.rows, rows)
        return [
            difficulty + random.normal(0, self.recipe, rows) + random.normal(0, self.seed * factor, (seeds, 1)) + shift
            > random.normal(0, self.noise, (seeds, rows))
            for shift, factor in zip(shifts, [1.0] * (len(shifts) - 1) + [unsteady], strict=True)
        ]

    def accuracy(self, shift: float = 0.0) -> float:
        spread = math.sqrt(self.rows**2 + self.recipe**2 + self.seed**2 + self.noise**2)
        return float(norm.cdf((self.level + shift) / spread))

    def shift_to(self, accuracy: float) -> float:
        spread = math.sqrt(self.rows**2 + self.recipe**2 + self.seed**2 + self.noise**2)
        return float(spread * norm.ppf(accuracy) - self.level)


def rate(claim: str, situation: str, nominal: float, happened: Callable[[], bool], experiments: int, bound: str = "") -> Rate:
    return Rate(claim, situation, nominal, sum(happened() for _ in range(experiments)), experiments, bound)


def differences(random: np.random.Generator, experiments: int) -> Iterator[Rate]:
    """Claims of a difference where there is none. The interval of a difference misses 0 exactly as often."""
    names = [*stored()]
    for first, second in ((names[0], names[1]), (names[0], names[2])):
        for seeds in (3, 5, 10):
            for rows in (400, 1900, 3800):

                def paired(first: str = first, second: str = second, seeds: int = seeds, rows: int = rows) -> bool:
                    chosen, shown = random.permutation(10)[:seeds], random.permutation(3800)[:rows]
                    a, b = swapped(random, *(stored()[name][np.ix_(chosen, shown)] for name in (first, second)))
                    return stats.difference(a, b, paired=True).p() < 0.05

                label = f"{first} and {second}: {seeds} seeds, {rows:,} rows"
                yield rate("difference over the same seeds", label, 0.05, paired, experiments)
    for rows in (400, 3800):

        def unpaired(rows: int = rows) -> bool:
            order, shown = random.permutation(10), random.permutation(3800)[:rows]
            a, b = swapped(random, stored()[names[0]][:, shown], stored()[names[2]][:, shown])
            return stats.difference(a[order[:5]], b[order[5:]], paired=False).p() < 0.05

        label = f"{names[0]} and {names[2]}: 5 seeds each, none shared, {rows:,} rows"
        yield rate("difference over other seeds", label, 0.05, unpaired, experiments)

        def models(rows: int = rows) -> bool:
            one, shown = random.integers(10, size=1), random.permutation(3800)[:rows]
            a, b = swapped(random, stored()[names[0]][np.ix_(one, shown)], stored()[names[2]][np.ix_(one, shown)])
            return stats.difference(a, b, paired=False).p() < 0.05

        yield rate("difference of two models", f"{names[0]} and {names[2]}: one seed, {rows:,} rows", 0.05, models, experiments)


def simulated_differences(random: np.random.Generator, experiments: int) -> Iterator[Rate]:
    """As `differences`, where recipes, seeds or single rows make most of the variance."""
    situations = {
        "recipes differ in many rows": Population(recipe=1.0, seed=0.05, noise=0.3),
        "seeds differ much": Population(seed=0.6),
        "single rows flip": Population(recipe=0.1, seed=0.05, noise=1.0),
    }
    for name, population in situations.items():
        for seeds in (3, 5, 10):

            def claimed(population: Population = population, seeds: int = seeds) -> bool:
                a, b = population.draw(random, [0.0, 0.0], seeds, 1000)
                return stats.difference(a, b, paired=True).p() < 0.05

            yield rate(
                "difference over the same seeds", f"simulated, {name}: {seeds} seeds, 1,000 rows", 0.05, claimed, experiments
            )


def accuracies(random: np.random.Generator, experiments: int) -> Iterator[Rate]:
    """Coverage of the interval of a mean accuracy."""
    for name, population in (("seeds differ little", Population(seed=0.05)), ("seeds differ much", Population(seed=0.6))):
        for seeds, rows in ((3, 400), (3, 4000), (10, 400), (10, 4000)):

            def held(population: Population = population, seeds: int = seeds, rows: int = rows) -> bool:
                (correct,) = population.draw(random, [0.0], seeds, rows)
                low, _, high = stats.mean_interval(correct)
                return low <= population.accuracy() <= high

            yield rate("interval of a mean accuracy", f"simulated, {name}: {seeds} seeds, {rows:,} rows", 0.95, held, experiments)

    def near_one() -> bool:
        low, _, high = stats.mean_interval(random.random((1, 200)) < 0.99)
        return low <= 0.99 <= high

    yield rate("interval of an accuracy", "simulated, true accuracy 99 %: one model, 200 rows", 0.95, near_one, experiments)


def families(random: np.random.Generator, experiments: int) -> Iterator[Rate]:
    """Any claim among several comparisons where all configurations are equal."""
    for points, unsteady in ((3, 1.0), (5, 1.0), (5, 10.0)):

        def planned(points: int = points, unsteady: float = unsteady) -> bool:
            first, *others = Population(seed=0.1).draw(random, [0.0] * points, 3, 1000, unsteady)
            tests = stats.moderate([stats.difference(other, first, paired=True) for other in others])
            return any(test.p(len(tests)) < 0.05 for test in tests)

        label = f"simulated, {points - 1} comparisons: 3 seeds, 1,000 rows"
        label += ", one configuration's seeds vary ten times as much" if unsteady > 1 else ""
        yield rate("any difference from the baseline", label, 0.05, planned, experiments, "≤ ")
    for points, population in ((6, Population()), (12, Population()), (12, Population(seed=0.5))):

        def chosen(points: int = points, population: Population = population) -> bool:
            validation_and_test = population.draw(random, [0.0] * points, 3, 1200)
            best = int(np.argmax([correct[:, :200].mean() for correct in validation_and_test]))
            tests = [correct[:, 200:] for correct in validation_and_test]
            family = points * (points - 1) // 2
            others = [stats.difference(other, tests[best], paired=True) for i, other in enumerate(tests) if i != best]
            others = stats.moderate(others)
            return any(test.p(family) < 0.05 for test in others)

        label = f"simulated, best of {points} on validation rows, seeds {population.seed}: 3 seeds, 1,000 rows"
        yield rate("any difference from the best", label, 0.05, chosen, experiments, "≤ ")


def choices(random: np.random.Generator, experiments: int) -> Iterator[Rate]:
    """Coverage of the interval of the accuracy of the best, whose configurations are equal, or differ as recipes do."""
    spread = 0.3
    for part in ("validation", "test"):
        for points, seed, seeds in ((3, 0.15, 3), (6, 0.15, 5), (12, 0.15, 3), (12, 0.5, 3), (12, 0.5, 10)):
            for differ in (False, True):
                population = Population(seed=seed)

                def held(
                    points: int = points,
                    seeds: int = seeds,
                    differ: bool = differ,
                    population: Population = population,
                    part: str = part,
                ) -> bool:
                    shifts = random.normal(0, spread * differ, points).tolist()
                    drawn = population.draw(random, shifts, seeds, 1200)
                    validation, tests = [rows[:, :200].mean(axis=1) for rows in drawn], [rows[:, 200:] for rows in drawn]
                    by = validation if part == "validation" else None
                    best = int(np.argmax([scores.mean() for scores in by or tests]))
                    low, _, high = stats.chosen_interval(tests, best, by)
                    return low <= population.accuracy(shifts[best]) <= high

                label = (
                    f"simulated, best of {points} {'unequal' if differ else 'equal'} on {part} rows, seeds {seed}: {seeds} seeds"
                )
                yield rate("interval of the best's accuracy", label, 0.95, held, experiments)


def recommendations(random: np.random.Generator, experiments: int) -> Iterator[Rate]:
    """A cheaper choice is recommended although it loses exactly the margin."""
    population = Population()
    shift = population.shift_to(population.accuracy() - MARGIN)

    def recommended() -> bool:
        cheap, full = population.draw(random, [shift, 0.0], 5, 4000)
        return stats.difference(cheap, full, paired=True).interval().low > -MARGIN

    yield rate(
        "a choice that loses less than 1 point", "simulated, it loses 1 point: 5 seeds, 4,000 rows", 0.025, recommended, experiments
    )


def laws(random: np.random.Generator, experiments: int) -> Iterator[Rate]:
    """Coverage of the intervals of a power law, with and without an irreducible error."""
    sizes = np.array([100, 200, 400, 800, 1600], dtype=float)
    for law, seeds in (
        (PowerLaw(1.0, 0.4, 0.0), 3),
        (PowerLaw(1.0, 0.4, 0.0), 10),
        (PowerLaw(1.0, 0.5, 0.03), 3),
        (PowerLaw(2.0, 0.6, 0.05), 5),
    ):
        names = (
            "irreducible error",
            "exponent",
            "error at four times the rows",
            "diminishing returns",
            "check at the largest size",
        )
        held = np.zeros(len(names), dtype=int)
        for _ in range(experiments):
            groups = []
            difficulty = random.normal(size=1900)
            for error in law.predict(sizes):
                level = norm.ppf(error) * math.sqrt(1 + 0.05**2)
                ability = math.sqrt(0.85) * difficulty + math.sqrt(0.15) * random.normal(size=(seeds, 1900))
                groups.append(ability >= level + random.normal(0, 0.05, (seeds, 1)))
            rows, errors = np.repeat(sizes, seeds), 1 - np.concatenate([group.mean(axis=1) for group in groups])
            draws = 1 - stats.resampled_means(groups, 1000)
            estimate = stats.law_intervals(rows, errors, draws, at=(6400.0,))
            checked = stats.hold_out_last(rows, errors, draws)
            truths = (law.c, law.b, float(law.predict(6400.0)), stats.diminishing(law), 0.0)
            intervals = (estimate.c, estimate.b, estimate.predictions[0], estimate.diminishing, checked.gap)
            held += [low <= truth <= high for (low, _, high), truth in zip(intervals, truths, strict=True)]
        for name, count in zip(names, held.tolist(), strict=True):
            label = f"simulated, {100 * law.c:g} % irreducible: {seeds} seeds, 5 sizes, 1,900 rows"
            bound = "≥ " if name in ("irreducible error", "exponent") else ""  # at the border of what is possible, and of few seeds
            yield Rate(f"power law: {name}", label, 0.95, count, experiments, bound)


def measure(experiments: int, seed: int = 0) -> list[Rate]:
    """Run every simulation. experiments: of each row; the power law, which is slow, gets a fifth."""
    random = np.random.default_rng(seed)
    parts = (differences, simulated_differences, accuracies, families, choices, recommendations)
    rates = [estimate for part in parts for estimate in part(random, experiments)]
    return [*rates, *laws(random, max(20, experiments // 5))]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=2000, help="simulated experiments for each row of the table")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    options = parser.parse_args(arguments)
    rows = [estimate.row for estimate in measure(options.experiments)]
    table = "\n".join(["| claim or interval | situation | stated | measured |", "| --- | --- | --- | --- |", *rows])
    print(table)
    if options.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
