"""An experiment's findings as sentences made from the numbers. Fewer than three seeds support no claim."""

from __future__ import annotations

from collections.abc import Iterator

from loralab.report.experiments.analysis import ExperimentAnalysis, PointComparison, sort_by_factor
from loralab.report.experiments.experiment_data import ACCURACY, MACRO_F1, ExperimentData, Point
from loralab.report.experiments.result_tables import format_point, sampling_interval
from loralab.report.formatting import capitalize, format_value
from loralab.report.scaling_law import SMALL_GAIN
from loralab.stats import FEWEST_SEEDS, HoldOut, Interval

MAX_FULL_CLAIMS, MAX_LISTED = 3, 8
"""Comparisons with a sentence each, and names in a list."""
NEAR_LARGEST = 0.95
"""A size that reaches this share of the largest size's score is near it."""


def question_facts(data: ExperimentData) -> dict[str, list[str]]:
    """Return the question, recipes, varied and fixed settings, and test rows, each as lines."""
    spec = data.spec
    varied = [f"{name}: {', '.join(format_value(value) for value in values)}" for name, values in spec.varied.items()]
    facts = {
        "Question": [spec.question],
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
    sentences = [*(_best_of_several(analysis, best) if len(data.points) > 1 else _single_point(analysis, best))]
    for describe in (_scaling, _comparisons, _layers, _sizes, _row_comparisons):
        sentences += describe(analysis)
    return [*sentences, *_sampling_error(data, best), *_unfinished(data)]


def headline(analysis: ExperimentAnalysis) -> tuple[str, str]:
    """Return what the page's large number measures, and its uncertainty."""
    point = analysis.best
    if point is None:
        return "No trial has a result yet.", ""
    configuration = f" of {format_point(point.factors)}" if len(analysis.data.points) > 1 else ""
    n, summary = len(point.trials), point.summary(analysis.score)
    measure = f"{capitalize(str(analysis.score))}{configuration}" + (f", mean of {n} runs." if n > 1 else ", one run.")
    if analysis.data.min_seeds < FEWEST_SEEDS or summary is None or summary.t is None:
        return measure, _too_few_seeds(analysis.data.min_seeds)
    return measure, f"95 % CI of the mean over seeds: {format_range(summary.t)} % (Student's t)."


def format_percent(share: float) -> str:
    """Return a share as `91.23 %`."""
    return f"{100 * share:.2f} %"


def format_range(interval: Interval) -> str:
    """Return an interval of a share in percent, within 0 and 100: `90.10 to 92.30`."""
    return f"{100 * max(0.0, interval.low):.2f} to {100 * min(1.0, interval.high):.2f}"


def _single_point(analysis: ExperimentAnalysis, point: Point) -> Iterator[str]:
    score, summary = analysis.score, point.summary(analysis.score)
    assert summary
    if summary.n < FEWEST_SEEDS or summary.t is None or summary.sd is None:
        yield f"{_too_few_seeds(summary.n)} Mean {score}: {format_percent(summary.mean)}."
        return
    values = point.values(score)
    yield (
        f"Mean {score}: {format_percent(summary.mean)} (95 % CI {format_range(summary.t)}, {summary.n} seeds). Standard deviation "
        f"between seeds: {100 * summary.sd:.2f} points; range: {format_percent(min(values))} to {format_percent(max(values))}."
    )
    if (f1 := point.summary(MACRO_F1)) and f1.t:
        yield f"Mean test macro F1: {f1.mean:.4f} (95 % CI {f1.t.low:.4f} to {f1.t.high:.4f})."


def _best_of_several(analysis: ExperimentAnalysis, point: Point) -> Iterator[str]:
    data, score, summary = analysis.data, analysis.score, point.summary(analysis.score)
    assert summary
    if data.min_seeds < FEWEST_SEEDS or summary.t is None:
        yield (
            f"{_too_few_seeds(data.min_seeds)} Highest mean {score}: {format_point(point.factors)}, "
            f"{format_percent(summary.mean)}; other seeds may rank the configurations differently."
        )
        return
    mean = f"{format_percent(summary.mean)} (95 % CI {format_range(summary.t)}, {summary.n} seeds)"
    test = f" Its mean test accuracy: {format_percent(point.mean(ACCURACY))}." if score != ACCURACY else ""
    yield f"Highest mean {score}: {format_point(point.factors)}, {mean}.{test}"
    if ties := [format_point(p.factors) for p in data.points if p is not point and p.mean(score) == summary.mean]:
        yield f"Tied with it: {_listed(ties)}."
    if score.part == "validation":
        yield (
            f"The validation rows chose it from {len(data.points)} configurations, and each run's checkpoint: its validation score "
            "is optimistic; use the test score."
        )


def _comparisons(analysis: ExperimentAnalysis) -> Iterator[str]:
    tested = [comparison for comparison in analysis.comparisons if comparison.enough_seeds]
    if not tested:
        return
    significant = [comparison for comparison in tested if comparison.significant]
    others = [comparison for comparison in tested if not comparison.significant]
    shared_baseline = len({format_point(comparison.baseline.factors) for comparison in tested}) == 1

    def name(comparison: PointComparison) -> str:
        baseline = "" if shared_baseline else f" vs. {format_point(comparison.baseline.factors)}"
        return format_point(comparison.point.factors) + baseline

    versus = f" from {format_point(tested[0].baseline.factors)}" if shared_baseline else ""
    total = f"{len(tested)} differences"
    if len(significant) <= MAX_FULL_CLAIMS:
        for comparison in significant:
            point, baseline = format_point(comparison.point.factors), format_point(comparison.baseline.factors)
            yield f"{capitalize(point)} vs. {baseline}: {comparison.verdict}."
    else:
        listed = _listed([f"{name(comparison)} {_signed_points(comparison.test.difference)}" for comparison in significant])
        yield f"{len(significant)} of {total}{versus} are significant (Holm-adjusted p < 0.05), in points: {listed}."
    if others:
        names = _listed([name(comparison) for comparison in others])
        count = f"{len(others)} of {total}{versus} are" if significant else f"None of the {total} is"
        count = f"The difference{versus} is" if len(tested) == 1 else count
        yield f"{count} not significant (Holm-adjusted p ≥ 0.05): {names}. This does not show that they are equal."
    if detectable := sorted(comparison.test.detectable for comparison in tested if comparison.test.detectable):
        seeds = min(comparison.test.n for comparison in tested)
        low, high = f"{100 * detectable[0]:.2f}", f"{100 * detectable[-1]:.2f}"
        reach = f"{low} points" if low == high else f"{low} to {high} points (depending on the pair)"
        yield f"With {seeds} seeds, an experiment like this often misses a true difference below {reach}."


def _sizes(analysis: ExperimentAnalysis) -> Iterator[str]:
    """For few-shot and active learning: the smallest size near the largest one's score, per line."""
    factor, data, score = analysis.data.numeric_factor, analysis.data, analysis.score
    if data.spec.kind not in ("few-shot", "active") or factor is None or data.min_seeds < FEWEST_SEEDS:
        return
    for others in dict.fromkeys(point.other_factors(factor) for point in data.points):
        line = sort_by_factor([point for point in data.points if point.other_factors(factor) == others], factor)
        largest = line[-1].mean(score)
        near = next(point for point in line if point.mean(score) >= NEAR_LARGEST * largest)
        if near is not line[-1] and largest:
            yield (
                f"{capitalize(format_point(near.factors))} ({near.training_rows:,.0f} training rows) reaches "
                f"{format_percent(near.mean(score) / largest)} of the mean {score} at the largest size."
            )


def _scaling(analysis: ExperimentAnalysis) -> Iterator[str]:
    if analysis.data.spec.kind != "scaling":
        return
    scaling = analysis.scaling_law
    if scaling is None:
        yield "Too few sizes for a power law: it needs three, and a fourth to check it."
        return
    if analysis.data.min_seeds < FEWEST_SEEDS:
        yield "The power law is only a fit to these runs: too few seeds for an interval or a claim."
        return
    law, intervals, points = scaling.law, scaling.intervals, f"{100 * SMALL_GAIN:.0f} point"
    c_interval = f" (95 % CI {format_range(intervals.c)})" if intervals else ""
    yield f"Power law: irreducible error {format_percent(law.c)}{c_interval}, exponent {law.b:.2f}."
    if scaling.diminishing <= 0 or law.a <= 0:
        yield "The error does not decrease with more training rows."
    elif scaling.diminishing <= max(scaling.rows):
        yield (
            f"From about {scaling.diminishing:,.0f} rows on, doubling the rows reduces the error by less than {points}; this size "
            "is within the measured range."
        )
    else:
        rows = f"about {scaling.diminishing:,.0f} rows" if scaling.diminishing < 1e9 else "more than 10^9 rows"
        yield f"By the law, doubling the rows reduces the error by at least {points} up to {rows}."
    interval = f" (95 % CI {format_range(intervals.predictions[0])})" if intervals else ""
    error = format_percent(float(law.predict(scaling.at[0])))
    yield f"Extrapolation to twice the rows ({scaling.at[0]:,.0f}): error {error}{interval}, if the law holds."
    unchecked = "The law was not checked: that needs four sizes, one of them held out."
    yield _law_check(scaling.checked) if scaling.checked else unchecked


def _law_check(checked: HoldOut) -> str:
    gap = 100 * (checked.measured - checked.predicted)
    direction = "more" if gap > 0 else "less"
    predicted = f"an error of {format_percent(checked.predicted)} at {checked.rows:,.0f} rows"
    measured = f"Fitted without its largest size, the law predicts {predicted}; measured: {format_percent(checked.measured)}"
    if checked.gap is None:
        return f"{measured}, {abs(gap):.2f} points {direction}. One seed per size cannot separate this from chance."
    if checked.gap.low <= 0 <= checked.gap.high:
        interval = f"{_signed_points(checked.gap.low)} to {_signed_points(checked.gap.high)} points"
        return f"{measured}. The difference is within the variation between seeds ({interval}): no evidence against the law."
    return f"{measured}: {abs(gap):.2f} points {direction} than seeds explain. Do not rely on its predictions."


def _row_comparisons(analysis: ExperimentAnalysis) -> Iterator[str]:
    if comparisons := analysis.row_comparisons:
        pairs = f"{sum(comparison.p < 0.05 for comparison in comparisons)} of {len(comparisons)} pairs of models"
        yield f"Paired by seed, {pairs} differ on the test set (McNemar, Holm-adjusted p < 0.05)."


def _sampling_error(data: ExperimentData, point: Point) -> Iterator[str]:
    if interval := sampling_interval(data, point):
        yield (
            f"With {data.test_rows:,} test rows, sampling error alone puts a test accuracy of {format_percent(interval.estimate)} "
            f"at {format_range(interval)} (95 % CI, Wilson). Intervals over seeds do not include it."
        )


def _unfinished(data: ExperimentData) -> Iterator[str]:
    if len(data.complete) < len(data.trials):
        failed = sum(trial.state == "failed" for trial in data.trials)
        reason = f" ({failed} failed)" if failed else ""
        yield f"{len(data.complete)} of {len(data.trials)} trials have a result{reason}: the experiment is not complete."


def _layers(analysis: ExperimentAnalysis) -> Iterator[str]:
    """The choice of layers with the fewest trainable parameters that is not significantly worse, and its possible loss."""
    if analysis.data.spec.kind != "layers":
        return
    candidates = [c for c in analysis.comparisons if c.enough_seeds and not c.significant and c.test.interval]
    if not candidates:
        return
    cheapest = min(candidates, key=lambda comparison: comparison.point.mean_fact("trainable"))
    point, baseline, interval = cheapest.point, cheapest.baseline, cheapest.test.interval
    assert interval
    parameters, seconds = (f"{point.mean_fact(f):,.0f} vs. {baseline.mean_fact(f):,.0f}" for f in ("trainable", "seconds"))
    yield (
        f"{capitalize(format_point(point.factors))} is the cheapest choice that is not significantly worse than "
        f"{format_point(baseline.factors)}: {parameters} trainable parameters, {seconds} s. Its interval includes a loss of "
        f"{max(0.0, -100 * interval.low):.2f} points."
    )


def _listed(names: list[str]) -> str:
    more = f"; and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return "; ".join(names[:MAX_LISTED]) + more


def _signed_points(share: float) -> str:
    return f"{100 * share:+.2f}".replace("-", "−")


def _too_few_seeds(seeds: int) -> str:
    return f"{seeds} seed{'' if seeds == 1 else 's'} per configuration: too few for any claim (at least {FEWEST_SEEDS} are needed)."
