"""An experiment's rows → its figures: which points, along what, and what the reader is told of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loralab.report.experiments.comparisons import apart
from loralab.report.experiments.reading import FURTHEST, Reading, sorted_along, without
from loralab.report.experiments.rows import ACCURACY, MACRO_F1, format_point, key, labels, short
from loralab.report.experiments.tables import Point, Score, curves
from loralab.report.figures import points as ink
from loralab.report.figures import surfaces
from loralab.report.figures.ink import ReportFigure
from loralab.report.figures.points import Caption, Panel, Series
from loralab.report.figures.search import draw_search
from loralab.report.search import read_found
from loralab.report.texts import format_value
from loralab.storage.experiment_folder import FOUND, Factor

BAND = "Diamonds or lines are means over the seeds, dots single runs, bars or bands 95 % t intervals of the means."
BOX = f"A box is drawn from {ink.LEAST_BOX} seeds on."
MOST_PANELS = 8


def search(reading: Reading) -> list[ReportFigure]:
    """What only a search has: its history, what mattered, slices, parallel coordinates, the Pareto front."""
    folder = reading.tables.folder
    return draw_search(read_found(folder)) if (folder / FOUND).is_file() else []


def categories(reading: Reading) -> list[ReportFigure]:
    """Accuracy, macro F1 and training time of every point, seeds as dots."""
    points = _ranked(reading, ink.MOST_ROWS)
    panels = [_panel(points, reading.score), _panel(points, MACRO_F1)]
    panels.append(Panel("seconds", [p.facts("seconds") for p in points], [None] * len(points), bars=True))
    caption = Caption("points", "Each point over its seeds", _counted(reading, points), f"{key(points)}{BAND} {BOX}")
    return _kept(ink.strips(caption, labels(points), panels))


def size_and_time(reading: Reading) -> list[ReportFigure]:
    """What a point buys and what it costs: accuracy, trainable parameters, seconds."""
    points = reading.tables.points
    panels = [_panel(points, reading.score)]
    for title, fact in (("trained parameters", "trainable"), ("seconds", "seconds")):
        if any(p.facts(fact) for p in points):
            panels.append(Panel(title, [p.facts(fact) for p in points], [None] * len(points), bars=True))
    caption = Caption("cost", "Accuracy and what it costs", _counted(reading, points), key(points) + BAND)
    return _kept(ink.strips(caption, labels(points), panels))


def by_number(reading: Reading) -> list[ReportFigure]:
    """The score along the first numeric factor, one line for each combination of the others."""
    axis = reading.number
    if axis is None:
        return []
    groups: dict[tuple[tuple[str, Factor], ...], list[Point]] = {}
    for point in sorted_along(reading.tables.points, axis):
        groups.setdefault(without(point, axis), []).append(point)
    bases = [each.against for each in reading.comparisons]
    alone = [points[0] for points in groups.values() if len(points) == 1 and points[0] in bases]
    levels = [
        (format_point(dict(without(base, axis))), 100 * base.mean(reading.score)) for base in alone if len(groups) > len(alone)
    ]
    lines = [(others, points) for others, points in _fullest(groups) if not levels or points[0] not in alone]
    series = [_along(reading.score, axis, dict(others), points) for others, points in lines]
    title = f"{str(reading.score).capitalize()} by {short(axis)}"
    caption = Caption("by_number", title, _counted(reading, reading.tables.points), BAND)
    return _kept(ink.lines(caption, series, axis, f"{reading.score}, %", levels=[*levels, *_chance(reading, series)]))


def by_step(reading: Reading) -> list[ReportFigure]:
    """Validation accuracy by step of the best points."""
    points = _ranked(reading, ink.MOST_LINES)[: ink.MOST_LINES]
    return _kept(_steps("by_step", "Validation accuracy by step", reading, points))


def by_step_and_axis(reading: Reading) -> list[ReportFigure]:
    """Validation accuracy by step, a figure for each setting that was changed, with each recipe's centre in all of them."""
    centre = [point for point in reading.tables.points if not set(point.factors) - {"recipe"}]
    found = []
    for axis in [name for name in reading.tables.axes if name != "recipe"][:MOST_PANELS]:
        points = [point for point in reading.tables.points if axis in point.factors]
        title = f"Validation accuracy by step: {short(axis)}"
        found += _kept(_steps(f"by_step_{axis.replace('.', '_')}", title, reading, [*centre, *points]))
    return found


def heat_and_surface(reading: Reading) -> list[ReportFigure]:
    """Two settings at once, as a heat map and as a surface; further ones stand at the best point's."""
    if reading.crossed is None or reading.best is None:
        return []
    across, up = reading.crossed
    held = without(reading.best, across, up)
    xs, ys = _ordered(reading.tables.axes[across]), _ordered(reading.tables.axes[up])
    grid = np.full((len(ys), len(xs)), np.nan)
    for point in reading.tables.points:
        if without(point, across, up) == held and across in point.factors and up in point.factors:
            grid[ys.index(point.factors[up]), xs.index(point.factors[across])] = point.mean(reading.score)
    more = f" The other factors stand at {format_point(dict(held))}." if held else ""
    labels = [format_value(x) for x in xs], [format_value(y) for y in ys]
    rows = _counted(reading, reading.tables.points)
    text = (
        f"Mean {reading.score} in %; the highest is framed. Whether it differs from its neighbours is for the table to say.{more}"
    )
    flat = Caption("heat", f"{str(reading.score).capitalize()} by {short(across)} and {short(up)}", rows, text)
    high = Caption("surface", "The same as a surface", rows, f"Mean {reading.score} in %; the diamond is the highest point.{more}")
    return _kept(surfaces.heat(flat, *labels, grid, across, up), surfaces.surface(high, *labels, grid, short(across), short(up)))


def paired_seeds(reading: Reading) -> list[ReportFigure]:
    """Every seed's score in each point, joined: what the paired tests look at."""
    points = reading.tables.points
    scores = [point.by_seed(reading.score) for point in points]
    shared = [seed for seed in reading.tables.seeds if all(seed in each for each in scores)]
    values = [[100 * each[seed] for each in scores] for seed in shared]
    text = "Grey: one seed across the points; blue: their mean. The paired tests ask whether the grey lines go the same way."
    caption = Caption("paired_seeds", "Seed by seed", f"{len(shared)} seeds in {len(points)} points", text)
    return _kept(ink.slopes(caption, labels(points), values, f"{reading.score}, %"))


def time_and_score(reading: Reading) -> list[ReportFigure]:
    """Each run's score by its training time."""
    points = _ranked(reading, ink.MOST_LINES)
    groups = []
    for label, point in zip(labels(points[: ink.MOST_LINES]), points, strict=False):
        found = [(t.result.seconds, value) for t in point.trials if t.result and (value := t.value(reading.score)) is not None]
        groups.append((label, [x for x, _ in found], [100 * y for _, y in found]))
    part = f", the {ink.MOST_LINES} best points" if len(points) > ink.MOST_LINES else ""
    caption = Caption(
        "time", "Score and training time", f"{len(reading.tables.complete)} runs{part}", f"{key(points)}One mark a run."
    )
    return _kept(ink.scatter(caption, groups, "seconds", f"{reading.score}, %"))


def power_law(reading: Reading) -> list[ReportFigure]:
    """The learning curve: errors by training rows, the law, its prediction, and the check on the last size."""
    law = reading.law
    if law is None:
        return []
    band = (law.at[2:], law.intervals.predictions[2:]) if law.intervals else None
    text = (
        "error = c + a · rows^−b (Hestness et al. 2017), fitted to single runs; the band is the bootstrap interval over seeds. "
        "The dashed law and its diamond have not seen the last size: how far the diamond is from the dots there tells how far to "
        "trust the dotted part."
    )
    sizes = len(set(law.rows))
    caption = Caption("law", "Learning curve and power law", f"{len(law.rows)} runs at {sizes} sizes", text)
    beyond = FURTHEST * max(law.rows)
    drawing = surfaces.law(
        caption, law.rows, law.errors, law.fitted, beyond=beyond, band=band, checked=law.checked, diminishing=law.diminishing
    )
    return [drawing]


def differences(reading: Reading) -> list[ReportFigure]:
    """What each point differs by from what it is compared with."""
    if not any(each.found.interval for each in reading.comparisons):
        return []
    bases = {format_point(each.against.factors) for each in reading.comparisons}
    base = bases.pop() if len(bases) == 1 else None
    shown_first = sorted(reading.comparisons, key=lambda each: -abs(each.found.difference))[: ink.MOST_ROWS]
    kept = [each for each in reading.comparisons if each in shown_first]
    names = labels([each.point for each in kept]) if base else [_pair(each.point, each.against) for each in kept]
    rows = [(name, e.found.interval, e.found.difference, e.clear) for name, e in zip(names, kept, strict=True)]
    text = (
        "Bars: 95 % intervals of each difference alone. Filled and coloured: clear after Holm's correction; hollow and grey: it "
        "may be luck."
    )
    against = f"against {base}" if base else "seed by seed"
    said = key([each.point for each in kept]) if base else ""
    caption = Caption(
        "differences",
        f"Differences in {reading.score}",
        f"{len(reading.comparisons)} comparison{'s' if len(reading.comparisons) != 1 else ''} {against}",
        said + text,
    )
    return _kept(ink.forest(caption, rows, "points"))


def _pair(point: Point, against: Point) -> str:
    """Two points as a difference: `entropy − random · 500`, what they share last."""
    names = apart(point, against)
    first, second = (" · ".join(format_value(each.factors.get(name)) for name in names) for each in (point, against))
    return " · ".join([f"{first} − {second}", *(format_value(value) for name, value in point.factors.items() if name not in names)])


def _steps(name: str, title: str, reading: Reading, points: Sequence[Point]) -> ReportFigure | None:
    series = []
    for label, point in zip(labels(points), points, strict=True):
        steps, scores = curves(point.trials)
        if steps and len(scores):
            low, high = (scores.min(axis=0), scores.max(axis=0)) if len(scores) > 1 else ((), ())
            mean = 100 * scores.mean(axis=0)
            series.append(Series(label, steps, list(mean), [100 * v for v in low], [100 * v for v in high]))
    if not any(len(line.x) > 1 for line in series):
        return None
    text = f"{key(points)}Lines are means over the seeds, bands from the lowest to the highest, at steps evaluated by all."
    caption = Caption(name, title, _counted(reading, points[: ink.MOST_LINES]), text)
    return ink.lines(caption, series, "step", "validation accuracy, %", ticks=False)


def _along(score: Score, axis: str, others: dict[str, Factor], points: Sequence[Point]) -> Series:
    x = [float(point.factors[axis]) for point in points]  # type: ignore[arg-type]
    found = [point.summary(score) for point in points]
    ends = [each.t for each in found if each and each.t]
    low, high = ([100 * e.low for e in ends], [100 * e.high for e in ends]) if len(ends) == len(points) else ([], [])
    dots = [
        (at, 100 * value) for at, point in zip(x, points, strict=True) if len(point.trials) > 1 for value in point.values(score)
    ]
    return Series(format_point(others) if others else axis, x, [100 * point.mean(score) for point in points], low, high, dots)


def _fullest(groups: dict[tuple[tuple[str, Factor], ...], list[Point]]) -> list[tuple[tuple[tuple[str, Factor], ...], list[Point]]]:
    """The groups with the most points, as many as a figure can tell apart, in their order."""
    keep = sorted(groups, key=lambda key: -len(groups[key]))[: ink.MOST_LINES]
    return [(key, groups[key]) for key in groups if key in keep]


def _panel(points: Sequence[Point], score: Score) -> Panel:
    found = [point.summary(score) for point in points]
    return Panel(str(score), [point.values(score) for point in points], [each.t if each else None for each in found])


def _ranked(reading: Reading, most: int) -> list[Point]:
    """The points in the plan's order, or where there are more than `most`, the best first."""
    points = list(reading.tables.points)
    if len(points) <= most:
        return points
    return sorted(points, key=lambda point: -np.nan_to_num(point.mean(reading.score)))


def _ordered(values: Sequence[Factor]) -> list[Factor]:
    """Numbers by size, words as they came."""
    numbers = all(isinstance(value, int | float) for value in values)
    return sorted(values, key=float) if numbers else [*values]  # type: ignore[arg-type]


def _chance(reading: Reading, series: Sequence[Series]) -> list[tuple[str, float]]:
    """The accuracy, in %, of always saying the commonest class, where some line comes near it."""
    results = [trial.result for trial in reading.tables.complete if trial.result]
    counts = [value for name, value in (results[0].scores if results else {}).items() if name.startswith("true:")]
    if reading.score.name != ACCURACY.name or not sum(counts):
        return []
    chance = 100 * max(counts) / sum(counts)
    return [("always the commonest class", chance)] if any(min(line.mean) < 1.5 * chance for line in series) else []


def _counted(reading: Reading, points: Sequence[Point]) -> str:
    runs, all_points = sum(len(point.trials) for point in points), len(reading.tables.points)
    part = f" of {all_points}" if len(points) < all_points else ""
    return f"{len(points)}{part} point{'s' if len(points) != 1 else ''}, {runs} runs"


def _kept(*drawings: ReportFigure | None) -> list[ReportFigure]:
    return [drawing for drawing in drawings if drawing is not None]
