"""An experiment's findings as sentences made from the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from loralab.report.experiments.analysis import MARGIN, ExperimentAnalysis, PointComparison, p_text, sort_by_factor
from loralab.report.experiments.experiment_data import ACCURACY, MACRO_F1, SEED, ExperimentData, Point
from loralab.report.experiments.result_tables import format_point
from loralab.report.formatting import capitalize, format_percent, format_range, format_value, signed_points
from loralab.report.scaling_law import SMALL_GAIN
from loralab.stats import FEWEST_SEEDS, HoldOut, Interval

MAX_FULL_CLAIMS, MAX_LISTED = 3, 8
"""Comparisons with a sentence each, and names in a list."""
MANY_ROWS = 1e9
_BY_SIZE = ("few-shot", "scaling")
"""Kinds that compare numbers of rows."""
_NO_SEEDS = "so the seed changes nothing. Intervals and tests allow for other test rows."
_MARGIN_TEXT = f"{100 * MARGIN:g} point"


class Headline(NamedTuple):
    """The page's large number, its unit, what it measures, and its uncertainty."""

    number: str
    unit: str
    measure: str
    uncertainty: str


def question_facts(data: ExperimentData) -> dict[str, list[str]]:
    """Return the recipes, varied and fixed settings, and test rows, each as lines."""
    spec = data.spec
    factors = [(name, values) for name, values in spec.varied.items() if name != SEED or len(values) > 1]
    varied = [f"{name}: {', '.join(format_value(value) for value in values)}" for name, values in factors]
    if spec.kind == "compare" and len(varied) > MAX_LISTED:
        varied = [f"{len(varied) - 1} settings: see the table of settings that differ"]
    facts = {
        "Recipe" if len(spec.recipes) == 1 else "Recipes": [*spec.recipes],
        "Varied": varied or ["nothing"],
        "Fixed": [*spec.fixed, "everything else: recipe defaults"],
    }
    if data.complete:
        number = f"the same {data.test_rows:,} in every run" if data.test_rows else "a different number in some runs"
        facts["Test rows"] = [number if data.same_test_rows else "differ between runs: test scores are not comparable"]
    return facts


def findings(analysis: ExperimentAnalysis) -> list[str]:
    """Return what the statistics support, and what they do not, most important first."""
    data, best = analysis.data, analysis.best
    if best is None:
        return [*_unfinished(data), "No trial has a result yet."]
    sentences: list[str] = []
    for describe in (_single_point, _best_of_several, _gains, _comparisons, _recommendation, _scaling):
        sentences += describe(analysis, best)
    return [*sentences, *_scope(analysis), *_unfinished(data)]


def headline(analysis: ExperimentAnalysis) -> Headline:
    """Return the number that the experiment's question asks for."""
    kind = analysis.data.spec.kind
    if analysis.best is None:
        return Headline("–", "", "No trial has a result yet.", "")
    if not analysis.comparisons or not analysis.planned:
        return _best_headline(analysis, analysis.best)
    if kind in ("few-shot", "zero-shot"):
        return _accuracies_headline(analysis, analysis.best)
    if kind == "scaling":
        return _gain_headline(_first_against_last(analysis)[0])
    if kind == "layers":
        return _layers_headline(analysis)
    return _changes_headline(analysis) if kind == "ablation" else _difference_headline(analysis)


def _gain_headline(gain: PointComparison) -> Headline:
    measure = f"Gain in mean test accuracy from {format_point(gain.point.factors)} to {format_point(gain.baseline.factors)}."
    low, value, high = gain.interval
    return Headline(signed_points(-value), "points", measure, _difference_text(Interval(-high, -value, -low), gain))


def _layers_headline(analysis: ExperimentAnalysis) -> Headline:
    baseline = analysis.comparisons[0].baseline
    cheapest = _cheapest(analysis, baseline)
    measure = f"With fewer layers, a loss of {_MARGIN_TEXT} or more is not ruled out."
    if cheapest:
        measure = f"The fewest layers shown to lose less than {_MARGIN_TEXT} against {format_point(baseline.factors)}."
    chosen = cheapest.point if cheapest else baseline
    accuracy = _accuracy_text(chosen, f"With {format_point(chosen.factors)}, mean")
    return Headline(format_value(chosen.factors.get("lora.layers")), "layers", measure, accuracy)


def _changes_headline(analysis: ExperimentAnalysis) -> Headline:
    number = sum(comparison.significant for comparison in analysis.comparisons)
    differ = "change differs" if number == 1 else "changes differ"
    measure = f"{differ} significantly from the recipe in test accuracy."
    text = _accuracy_text(analysis.comparisons[0].baseline, "The recipe's own")
    return Headline(str(number), f"of {len(analysis.comparisons)}", measure, text)


def _difference_headline(analysis: ExperimentAnalysis) -> Headline:
    compared = analysis.comparisons
    if analysis.data.spec.kind == "active" and (points := sort_by_factor([c.point for c in compared], "labels")):
        compared = tuple(c for c in compared if c.point.factors.get("labels") == points[-1].factors["labels"])
    largest = max(compared, key=lambda comparison: abs(comparison.test.value))
    several = f" The largest of {len(compared)} differences." if len(compared) > 1 else ""
    pair = f"{format_point(largest.point.factors)} minus {format_point(largest.baseline.factors)}"
    measure = f"Difference in mean test accuracy: {pair}.{several}"
    return Headline(signed_points(largest.test.value), "points", measure, _difference_text(largest.interval, largest))


def _best_headline(analysis: ExperimentAnalysis, best: Point) -> Headline:
    runs, interval, choices = best.values(ACCURACY), analysis.best_interval, len(analysis.data.points)
    preposition = "of" if analysis.data.spec.kind == "search" else "with"
    name = f" {preposition} {format_point(best.factors)}" if choices > 1 else ""
    chosen = ", which has the highest validation accuracy" if name and analysis.score.part == "validation" else ""
    measure = f"Test accuracy{name}{f' (mean of {len(runs)} runs)' if len(runs) > 1 else ''}{chosen}."
    uncertainty = f"95 % CI {format_range(interval)} %{_adjusted(analysis)}." if interval else ""
    return Headline(f"{100 * best.mean(ACCURACY):.1f}", "%", measure, uncertainty)


def _accuracies_headline(analysis: ExperimentAnalysis, best: Point) -> Headline:
    top, lowest = _best_headline(analysis, best), min(analysis.data.points, key=lambda point: point.mean(ACCURACY))
    others = f"Lowest: {format_point(lowest.factors)}, {format_percent(lowest.mean(ACCURACY))}."
    return top._replace(uncertainty=f"{top.uncertainty} {others}".strip())


def _difference_text(interval: Interval, comparison: PointComparison) -> str:
    several = f", adjusted for {comparison.family} comparisons" if comparison.family > 1 else ""
    verdict = "" if comparison.significant else " Not significant."
    return f"95 % CI {signed_points(interval.low)} to {signed_points(interval.high)}; {p_text(comparison.p)}{several}.{verdict}"


def _accuracy_text(point: Point, whose: str) -> str:
    interval = f" (95 % CI {format_range(point.interval)})" if point.interval else ""
    return f"{whose} test accuracy: {format_percent(point.mean(ACCURACY))}{interval}."


def _single_point(analysis: ExperimentAnalysis, point: Point) -> Iterator[str]:
    if len(analysis.data.points) > 1:
        return
    values, std, f1 = point.values(ACCURACY), point.std(ACCURACY), point.std(MACRO_F1)
    yield _accuracy_text(point, "Mean" if len(values) > 1 else "The")
    if std is not None:
        yield (
            f"Between {len(values)} seeds the test accuracy has a standard deviation of {100 * std:.2f} points and ranges from "
            f"{format_percent(min(values))} to {format_percent(max(values))}."
        )
    if f1 is not None:
        yield f"Mean test macro F1: {point.mean(MACRO_F1):.4f} (standard deviation {f1:.4f})."


def _adjusted(analysis: ExperimentAnalysis) -> str:
    return f", adjusted for the choice among {len(analysis.data.points)}" if analysis.best_is_adjusted else ""


def _best_of_several(analysis: ExperimentAnalysis, point: Point) -> Iterator[str]:
    data, score = analysis.data, analysis.score
    if len(data.points) == 1 or data.spec.kind in _BY_SIZE:  # whose question is about the sizes, not about the best
        return
    if not data.same_test_rows and all(p.correct is not None for p in data.points):
        return  # accuracies on different rows have no highest
    interval = analysis.best_interval
    chosen = f" (95 % CI {format_range(interval)}{_adjusted(analysis)})" if interval else ""
    name = format_point(point.factors)
    if data.spec.kind == "search":
        name += f" ({format_point(point.trials[0].factors)})"
    if score == ACCURACY:
        yield f"Highest mean test accuracy: {name}, with {format_percent(point.mean(score))}{chosen}."
    else:
        yield (
            f"Highest mean {score}: {name}, with {format_percent(point.mean(score))}. As the best of "
            f"{len(data.points)} this score is probably too high. "
            f"Rely on the test accuracy: {format_percent(point.mean(ACCURACY))}{chosen}."
        )
    if ties := [format_point(p.factors) for p in data.points if p is not point and abs(p.mean(score) - point.mean(score)) < 1e-9]:
        yield f"Tied with it: {_listed(ties)}. Of tied configurations the one with the fewest trainable parameters is named."


def _comparisons(analysis: ExperimentAnalysis, best: Point) -> Iterator[str]:
    already = _first_against_last(analysis) if analysis.data.spec.kind in _BY_SIZE else []
    tested = [comparison for comparison in analysis.comparisons if comparison not in already]
    if already and not tested:
        return
    if not tested:
        if len(analysis.data.points) > 1:
            yield f"The configurations are not compared: {_obstacle(analysis.data)}."
        return
    if left_out := [format_point(point.factors) for point in analysis.data.points if point.correct is None]:
        yield f"Not compared: {_listed(left_out)}. {capitalize(_obstacle(analysis.data))}."
    significant = [comparison for comparison in tested if comparison.significant]
    others = [comparison for comparison in tested if not comparison.significant]
    shared_baseline = len({format_point(comparison.baseline.factors) for comparison in tested}) == 1

    def name(comparison: PointComparison) -> str:
        baseline = "" if shared_baseline else f" vs. {format_point(comparison.baseline.factors)}"
        return format_point(comparison.point.factors) + baseline

    family = tested[0].family
    adjusted = f", adjusted for {family} comparisons" if family > 1 else ""
    versus = f" from {format_point(tested[0].baseline.factors)}" if shared_baseline else ""
    total = f"{len(tested)} differences"
    if len(significant) <= MAX_FULL_CLAIMS:
        for comparison in significant:
            point, baseline = format_point(comparison.point.factors), format_point(comparison.baseline.factors)
            yield f"{capitalize(point)} vs. {baseline}: {comparison.verdict}."
    else:
        listed = _listed([f"{name(comparison)} ({signed_points(comparison.test.value)})" for comparison in significant])
        yield f"{len(significant)} of {total}{versus} are significant (p < 0.05{adjusted}). In points: {listed}."
    if others and len(tested) == 1:
        yield f"{capitalize(name(others[0]))}{'' if not shared_baseline else ' vs.' + versus[5:]}: {others[0].verdict}."
    elif others:
        count = (
            f"{len(others)} of {total}{versus} {'is' if len(others) == 1 else 'are'}"
            if significant
            else f"None of the {total}{versus} is"
        )
        names = _listed([f"{name(comparison)} ({signed_points(comparison.test.value)})" for comparison in others])
        yield f"{count} {'not ' if significant else ''}significant (p ≥ 0.05{adjusted}). In points: {names}."


def _obstacle(data: ExperimentData) -> str:
    """Return why configurations cannot be compared, and what would allow it."""
    if any(trial.correct is None for trial in data.complete):
        return "that needs predictions.csv of every run"
    if data.same_test_rows:
        return "no configuration has one to be compared with"
    between = "the seeds of one configuration" if any(point.correct is None for point in data.points) else "the configurations"
    return (
        f"{between} were tested on different rows; give all runs the same rows with a test file (data.test), or the same "
        "data.split_seed and data.max_test_samples"
    )


def _first_against_last(analysis: ExperimentAnalysis) -> list[PointComparison]:
    """Return the comparison of the smallest size with the largest, one for each line of sizes."""
    factor = analysis.data.numeric_factor
    if factor is None:
        return []
    first: dict[int, PointComparison] = {}
    for point in sort_by_factor([comparison.point for comparison in analysis.comparisons], factor):
        comparison = next(c for c in analysis.comparisons if c.point is point)
        first.setdefault(id(comparison.baseline), comparison)
    return [*first.values()]


def _gains(analysis: ExperimentAnalysis, best: Point) -> Iterator[str]:
    if analysis.data.spec.kind not in _BY_SIZE:
        return
    for gain in _first_against_last(analysis):
        low, value, high = gain.interval
        change = "is significant" if gain.significant else "is not significant"
        yield (
            f"From {format_point(gain.point.factors)} to {format_point(gain.baseline.factors)} the test accuracy changes by "
            f"{signed_points(-value)} points (95 % CI {signed_points(-high)} to {signed_points(-low)}, {p_text(gain.p)}): "
            f"the change {change}."
        )


def _price(analysis: ExperimentAnalysis, point: Point) -> float:
    return point.mean_fact("trainable") if analysis.data.spec.kind == "layers" else point.training_rows


def _cheapest(analysis: ExperimentAnalysis, baseline: Point) -> PointComparison | None:
    """Return the comparison of the cheapest point that is shown to lose less than the margin against the baseline."""
    price = _price(analysis, baseline)
    good = [c for c in analysis.comparisons if c.baseline is baseline and c.no_worse and _price(analysis, c.point) < price]
    return min(good, key=lambda comparison: _price(analysis, comparison.point), default=None)


def _recommendation(analysis: ExperimentAnalysis, best: Point) -> Iterator[str]:
    """The cheapest choice that is shown to lose less than the margin."""
    kind = analysis.data.spec.kind
    cost = {"layers": "trainable parameters", "few-shot": "training rows", "scaling": "training rows"}.get(kind)
    if cost is None:
        return
    for baseline in {id(c.baseline): c.baseline for c in analysis.comparisons}.values():
        cheaper = [
            c for c in analysis.comparisons if c.baseline is baseline and _price(analysis, c.point) < _price(analysis, baseline)
        ]
        name = format_point(baseline.factors)
        if chosen := _cheapest(analysis, baseline):
            low, value, high = chosen.interval
            yield (
                f"{capitalize(format_point(chosen.point.factors))} has the fewest {cost} of the choices shown to lose less than "
                f"{_MARGIN_TEXT} against {name}: {_price(analysis, chosen.point):,.0f} vs. {_price(analysis, baseline):,.0f}. "
                f"Difference: {signed_points(value)} points (95 % CI {signed_points(low)} to {signed_points(high)})."
            )
        elif cheaper:
            nearest = max(cheaper, key=lambda c: c.test.value)
            yield (
                f"No choice with fewer {cost} is shown to lose less than {_MARGIN_TEXT} against {name}. The best of them, "
                f"{format_point(nearest.point.factors)}, differs by {signed_points(nearest.test.value)} points; its 95 % CI "
                f"reaches down to {signed_points(nearest.interval.low)}."
            )


def _scaling(analysis: ExperimentAnalysis, best: Point) -> Iterator[str]:
    if analysis.data.spec.kind != "scaling":
        return
    scaling = analysis.scaling_law
    if scaling is None:
        yield "There is no power law: it needs three sizes with predictions of the same test rows, and a fourth to check it."
        return
    law, intervals = scaling.law, scaling.intervals
    if intervals is None:
        yield f"The power law has no intervals: they need {FEWEST_SEEDS} seeds at every size."
    c, b = (f" (95 % CI {format_range(intervals.c)})", f" ({_range(intervals.b)})") if intervals else ("", "")
    yield (
        f"Power law: with ever more rows, the error approaches {format_percent(law.c)}{c}, the irreducible error. Each doubling of "
        f"the rows multiplies the error above it by {2**-law.b:.2f}: exponent {law.b:.2f}{b}."
    )
    if scaling.diminishing <= 0 or law.a <= 0:
        yield "The error does not decrease with more training rows."
    else:
        span = f" (95 % CI {_rows(intervals.diminishing.low)} to {_rows(intervals.diminishing.high)})" if intervals else ""
        where = "within" if scaling.diminishing <= max(scaling.rows) else "beyond"
        yield (
            f"From {_rows(scaling.diminishing)} rows{span} on, doubling the rows reduces the error by less than "
            f"{100 * SMALL_GAIN:.0f} point; this is {where} the measured sizes."
        )
    interval = f" (95 % CI {format_range(intervals.predictions[0])})" if intervals else ""
    error = format_percent(float(law.predict(scaling.at[0])))
    yield f"Predicted error with twice the rows ({scaling.at[0]:,.0f}): {error}{interval}, if the law still holds there."
    yield (
        _law_check(scaling.checked)
        if scaling.checked
        else (f"The law is not checked: that needs four sizes with {FEWEST_SEEDS} seeds each, one of them not used for the fit.")
    )


def _law_check(checked: HoldOut) -> str:
    gap, width = checked.gap, 50 * (checked.gap.high - checked.gap.low)
    measured = (
        f"Fitted without its largest size, the law predicts an error of {format_percent(checked.predicted)} at {checked.rows:,.0f} "
        f"rows; measured: {format_percent(checked.measured)}. Difference: {signed_points(gap.estimate)} points (95 % CI "
        f"{signed_points(gap.low)} to {signed_points(gap.high)})"
    )
    if gap.low <= 0 <= gap.high:
        return f"{measured}. The law passes this check, which only notices deviations above about {width:.1f} points."
    return f"{measured}: the law does not hold here. Do not rely on its predictions."


def _scope(analysis: ExperimentAnalysis) -> Iterator[str]:
    """For what the intervals and tests hold."""
    data = analysis.data
    points = [point for point in data.points if point.correct is not None]
    if not points:
        return
    if all(len(point.trials) > 1 and (point.correct == point.correct[0]).all() for point in points if point.correct is not None):
        yield f"All seeds give the same predictions, {_NO_SEEDS}"
    elif data.spec.kind == "zero-shot" and "train.epochs=0" in data.spec.fixed:
        yield f"Nothing is trained, {_NO_SEEDS}"
    elif all(point.new_seeds for point in points):
        yield f"Intervals and tests allow for other test rows and other seeds.{_what_would_help(analysis)}"
    else:
        yield (
            f"With fewer than {FEWEST_SEEDS} seeds per configuration, intervals and tests allow for other test rows only. Other "
            "seeds may change the results by more than the intervals show."
        )


def _what_would_help(analysis: ExperimentAnalysis) -> str:
    """What makes most of the uncertainty of the comparisons that are not significant."""
    errors = [comparison.test.error for comparison in analysis.comparisons if not comparison.significant]
    if not errors:
        return ""
    from_seeds = sum(error.seeds_margin > error.rows_margin for error in errors)
    if 2 * from_seeds > len(errors):
        return " Most of the uncertainty comes from the seeds: more seeds would narrow the intervals."
    return " Most of the uncertainty comes from the test rows: more test rows would narrow the intervals, more seeds hardly."


def _unfinished(data: ExperimentData) -> Iterator[str]:
    if data.unfinished:
        failed = sum(trial.state == "failed" for trial in data.trials)
        reason = f" ({failed} failed)" if failed else ""
        yield f"{len(data.complete)} of {len(data.trials)} trials have a result{reason}: the experiment is not complete."


def _listed(names: list[str]) -> str:
    more = f"; and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return "; ".join(names[:MAX_LISTED]) + more


def _range(interval: Interval) -> str:
    return f"95 % CI {interval.low:.2f} to {interval.high:.2f}"


def _rows(number: float) -> str:
    return f"{number:,.0f}" if number < MANY_ROWS else "more than 10^9"
