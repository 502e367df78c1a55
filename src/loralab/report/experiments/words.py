"""What was asked, varied, held and found, in sentences made from the numbers. Under three seeds nothing is claimed."""

from __future__ import annotations

from collections.abc import Iterator

from loralab.report.experiments.reading import GAIN, Law, Reading, sorted_along, without
from loralab.report.experiments.rows import ACCURACY, MACRO_F1, ReportTable, format_point, of_rows
from loralab.report.experiments.tables import LabTables, Point
from loralab.report.texts import format_value
from loralab.stats import FEWEST_SEEDS, Interval

FULL_CLAIMS, MOST_CLAIMS = 3, 8
"""So many comparisons are told in full, so many in short."""
NEAR = 0.95
"""A size that reaches this share of the largest's score is near it."""


def asked(tables: LabTables) -> dict[str, list[str]]:
    """The question: asked, recipes, varied, held, rows; each a list of lines."""
    question = tables.question
    varied = [f"{name}: {', '.join(format_value(point) for point in points)}" for name, points in question.varied.items()]
    found = {"Asked": [question.asks], "Recipe" if len(question.recipes) == 1 else "Recipes": [*question.recipes]}
    found["Varied"] = varied or ["nothing"]
    found["Held"] = [*question.held, "all else as the recipe has it"]
    if tables.complete:
        if not tables.same_test_rows:
            rows = "not the same in all runs: their test scores are of different rows"
        elif tables.test_rows:
            rows = f"the same {tables.test_rows:,} in every run"
        else:
            rows = "not the same number in all runs"
        found["Test rows"] = [rows]
    return found


def found(reading: Reading) -> list[str]:
    """What came out, most important first: sentences that the statistics carry, and what they do not."""
    tables = reading.tables
    if reading.best is None:
        return [*_unfinished(tables), "No trial has a result yet."]
    several = len(tables.points) > 1
    said = [*(_best_of_several(reading, reading.best) if several else _single(reading, reading.best))]
    if tables.question.kind == "scaling":
        said += _scaling(reading)
    said += [
        *_compared(reading),
        *_layers(reading),
        *_sizes(reading),
        *_by_rows(reading),
        *_sampling(reading, reading.best),
        *_unfinished(tables),
    ]
    return said


def headline(reading: Reading) -> tuple[str, str]:
    """What the page's large number is of, and how sure it is."""
    point = reading.best
    if point is None:
        return "No trial has a result yet.", ""
    of = f" of {format_point(point.factors)}" if len(reading.tables.points) > 1 else ""
    n, summary = len(point.trials), point.summary(reading.score)
    what = f"{_capital(str(reading.score))}{of}" + (f", mean of {n} runs." if n > 1 else ", one run.")
    if reading.tables.fewest_seeds < FEWEST_SEEDS or summary is None or summary.t is None:
        return what, _few(reading.tables.fewest_seeds)
    return (
        what,
        f"95 % interval of the mean over the seeds: {between(summary.t)} % (Student's t).",
    )


def efficiency(reading: Reading) -> ReportTable | None:
    """What each step along the first numeric factor adds, all else alike: score, share of the largest's, gain."""
    if reading.number is None:
        return None
    axis, rows = reading.number, []
    for point in reading.tables.points:
        line = sorted_along([other for other in reading.tables.points if without(other, axis) == without(point, axis)], axis)
        mean, largest, at = point.mean(reading.score), line[-1].mean(reading.score), line.index(point)
        before = line[at - 1] if at else None
        gained = mean - before.mean(reading.score) if before else None
        more = point.training_rows - before.training_rows if before else 0
        rows.append((*point.factors.values(), point.training_rows, mean, mean / largest if largest else None, gained,
                     100 * gained / more if gained is not None and more > 0 else None))  # fmt: skip
    columns = (*reading.tables.axes, "training rows", str(reading.score), "share of the largest's", "gain since the size before")
    return ReportTable("efficiency", "What more rows buy", (*columns, "gain per 100 rows"), rows, len(reading.tables.axes))


def law_table(law: Law) -> ReportTable:
    """The power law's numbers with their intervals, and its predictions."""
    of, predictions = law.intervals, law.intervals.predictions[:2] if law.intervals else (None, None)
    rows: list[tuple[object, ...]] = [
        ("c, the error that no rows take away", law.fitted.c, of.c if of else None),
        ("b, the exponent", law.fitted.b, of.b if of else None),
        ("a", law.fitted.a, None),
    ]
    for at, interval in zip(law.at[:2], predictions, strict=True):
        rows.append((f"error predicted at {at:,.0f} rows", float(law.fitted.predict(at)), interval))
    if law.checked:
        c = law.checked
        rows.append((f"error predicted at {c.rows:,.0f} rows without having seen it", c.predicted, c.predicted_interval))
        rows.append((f"error measured at {c.rows:,.0f} rows", c.measured, None))
        rows.append(("measured − predicted", c.measured - c.predicted, c.gap))
    note = "error(rows) = c + a · rows^−b. Intervals: 95 %, bootstrap over the seeds at each size."
    return ReportTable("power_law", "The power law", ("what", "value", "95 % interval"), rows, 1, note)


def percent(share: float) -> str:
    """`91.23 %`."""
    return f"{100 * share:.2f} %"


def between(interval: Interval) -> str:
    """`90.10 to 92.30`, within what a share can be."""
    return f"{100 * max(0.0, interval.low):.2f} to {100 * min(1.0, interval.high):.2f}"


def _single(reading: Reading, point: Point) -> Iterator[str]:
    summary = point.summary(reading.score)
    assert summary
    if summary.n < FEWEST_SEEDS or summary.t is None or summary.sd is None:
        yield f"{_few(summary.n)} The mean {reading.score} is {percent(summary.mean)}."
        return
    values = point.values(reading.score)
    yield (
        f"Mean {reading.score} {percent(summary.mean)}, 95 % interval {between(summary.t)} over {summary.n} seeds; the "
        f"deviation from seed to seed is {100 * summary.sd:.2f} points, the runs lie between {percent(min(values))} and "
        f"{percent(max(values))}."
    )
    f1 = point.summary(MACRO_F1)
    if f1 and f1.t:
        yield f"Mean test macro F1 {f1.mean:.4f}, 95 % interval {f1.t.low:.4f} to {f1.t.high:.4f}."


def _best_of_several(reading: Reading, point: Point) -> Iterator[str]:
    tables, summary = reading.tables, point.summary(reading.score)
    assert summary
    if tables.fewest_seeds < FEWEST_SEEDS or summary.t is None:
        yield (
            f"{_few(tables.fewest_seeds)} The highest mean {reading.score} is {percent(summary.mean)}, of {format_point(point.factors)}; "
            "another seed may put another point first."
        )
        return
    also = f" Its mean test accuracy is {percent(point.mean(ACCURACY))}." if reading.score != ACCURACY else ""
    yield (
        f"Highest mean {reading.score}: {format_point(point.factors)}, {percent(summary.mean)}, 95 % interval {between(summary.t)} over "
        f"{summary.n} seeds.{also}"
    )
    if ties := [format_point(p.factors) for p in tables.points if p is not point and p.mean(reading.score) == summary.mean]:
        more = f"; and {len(ties) - MOST_CLAIMS} more" if len(ties) > MOST_CLAIMS else ""
        yield f"The same mean: {'; '.join(ties[:MOST_CLAIMS])}{more}."
    if reading.score.part == "validation":
        yield (
            f"The validation rows picked it from {len(tables.points)} points and each run's weights too, so its validation score "
            "is a little too good, and what is compared with it looks a little too bad; its test score is honest."
        )


def _compared(reading: Reading) -> Iterator[str]:
    enough = [each for each in reading.comparisons if each.found.n >= FEWEST_SEEDS]
    if not enough:
        return
    clear = [each for each in enough if each.clear]
    bases = {format_point(each.against.factors) for each in enough}
    if len(clear) <= FULL_CLAIMS:
        for each in clear:
            yield f"{_capital(format_point(each.point.factors))} against {format_point(each.against.factors)}: {each.words}."
    else:
        against = f" against {bases.pop()}" if len(bases) == 1 else ""
        listed = [
            format_point(e.point.factors) + (f" against {format_point(e.against.factors)}" if not against else "") for e in clear
        ]
        said = "; ".join(f"{name} {_signed(e.found.difference)}" for name, e in zip(listed[:MOST_CLAIMS], clear, strict=False))
        rest = f"; and {len(clear) - MOST_CLAIMS} more" if len(clear) > MOST_CLAIMS else ""
        yield f"{len(clear)} of {len(enough)} differences are clear{against} (p after Holm under 0.05), in points: {said}{rest}."
    if len(clear) < len(enough):
        what = "the one comparison" if len(enough) == 1 else f"{len(enough) - len(clear)} of {len(enough)} comparisons"
        yield f"In {what} the difference may be luck (p after Holm not under 0.05): no difference is shown, and none is ruled out."
    if reach := sorted(each.found.detectable for each in enough if each.found.detectable):
        seeds = min(each.found.n for each in enough)
        least, most = f"{100 * reach[0]:.2f}", f"{100 * reach[-1]:.2f}"
        span = f"{least} points" if least == most else f"{least} to {most} points (it depends on the pair)"
        yield f"With {seeds} seeds, a true difference under {span} would often have been missed."


def _sizes(reading: Reading) -> Iterator[str]:
    """Few-shot and label efficiency: the smallest size that comes near the largest, of each line by itself."""
    axis, tables = reading.number, reading.tables
    if tables.question.kind not in ("few-shot", "active") or axis is None or tables.fewest_seeds < FEWEST_SEEDS:
        return
    for others in dict.fromkeys(without(point, axis) for point in tables.points):
        line = sorted_along([point for point in tables.points if without(point, axis) == others], axis)
        largest = line[-1].mean(reading.score)
        near = next(point for point in line if point.mean(reading.score) >= NEAR * largest)
        if near is not line[-1] and largest:
            yield (
                f"{_capital(format_point(near.factors))}, {near.training_rows:,.0f} training rows, reaches "
                f"{percent(near.mean(reading.score) / largest)} of the mean {reading.score} at the largest size."
            )


def _scaling(reading: Reading) -> Iterator[str]:
    law = reading.law
    if law is None:
        yield "There are too few sizes for a power law: it needs three, and a fourth to check it."
        return
    if reading.tables.fewest_seeds < FEWEST_SEEDS:
        yield "The power law is a line through the runs that there are, not a claim: no interval says how sure it is."
        return
    limit = f", interval {between(law.intervals.c)}" if law.intervals else ""
    yield (
        f"The power law's floor, the error that no number of rows takes away, is {percent(law.fitted.c)}{limit}; "
        f"its exponent {law.fitted.b:.2f}."
    )
    if law.diminishing <= 0 or law.fitted.a <= 0:
        yield "The errors do not fall with the rows: more rows like these buy nothing that could be seen."
    elif law.diminishing <= max(law.rows):
        yield (
            f"From about {law.diminishing:,.0f} rows on, twice as many take less than {100 * GAIN:.0f} point off the error: "
            "diminishing returns began within the sizes measured."
        )
    else:
        beyond = f"about {law.diminishing:,.0f} rows" if law.diminishing < 1e9 else "beyond all reckoning"
        yield f"By the law, doubling the rows goes on taking at least {100 * GAIN:.0f} point off the error up to {beyond}."
    predicted = float(law.fitted.predict(law.at[0]))
    reach = f", interval {between(law.intervals.predictions[0])}" if law.intervals else ""
    yield f"Twice the rows ({law.at[0]:,.0f}) would give an error of {percent(predicted)}{reach}, if the law holds."
    if law.checked is None:
        yield "The law could not be checked: that takes four sizes, one of them held out."
    else:
        yield _checked(law)


def _checked(law: Law) -> str:
    c = law.checked
    assert c
    gap = 100 * (c.measured - c.predicted)
    said = (
        f"Fitted without its last size, the law predicts an error of {percent(c.predicted)} at {c.rows:,.0f} rows; "
        f"measured: {percent(c.measured)}"
    )
    if c.gap is None:
        return f"{said}, {abs(gap):.2f} points {'more' if gap > 0 else 'less'}: one seed a size cannot say whether that is luck."
    if c.gap.low <= 0 <= c.gap.high:
        span = f"{_signed(c.gap.low)} to {_signed(c.gap.high)} points"
        return f"{said}. The difference is within what seeds vary ({span}): nothing speaks against the law."
    return f"{said}: {abs(gap):.2f} points {'more' if gap > 0 else 'less'} than seeds explain. Do not trust its predictions."


def _by_rows(reading: Reading) -> Iterator[str]:
    tests = reading.row_tests
    if tests:
        clear = sum(test.p < 0.05 for test in tests)
        yield f"Over test rows {clear} of {len(tests)} pairs of runs of one seed differ (McNemar, p after Holm under 0.05)."


def _sampling(reading: Reading, point: Point) -> Iterator[str]:
    interval = of_rows(reading.tables, point)
    if interval:
        yield (
            f"All runs share {reading.tables.test_rows:,} test rows. By the luck of those rows alone a test accuracy of "
            f"{percent(interval.estimate)} may stand for {between(interval)} (Wilson); intervals over seeds do not count that."
        )


def _unfinished(tables: LabTables) -> Iterator[str]:
    missing = len(tables.trials) - len(tables.complete)
    if missing:
        failed = sum(trial.state == "failed" for trial in tables.trials)
        why = f" ({failed} failed)" if failed else ""
        yield f"{len(tables.complete)} of {len(tables.trials)} trials have a result{why}: the experiment is not complete."


def _layers(reading: Reading) -> Iterator[str]:
    """The cheapest choice of layers that is not clearly worse, and what it may lose."""
    if reading.tables.question.kind != "layers":
        return
    within = [each for each in reading.comparisons if each.found.n >= FEWEST_SEEDS and not each.clear and each.found.interval]
    if not within:
        return
    each = min(within, key=lambda each: each.point.mean_of("trainable"))
    point, whole, interval = each.point, each.against, each.found.interval
    assert interval
    yield (
        f"{_capital(format_point(point.factors))} is the cheapest that is not clearly worse than {format_point(whole.factors)}: "
        f"{point.mean_of('trainable'):,.0f} trained parameters and {point.mean_of('seconds'):,.0f} s against "
        f"{whole.mean_of('trainable'):,.0f} and {whole.mean_of('seconds'):,.0f} s. "
        f"By its interval it may lose {max(0.0, -100 * interval.low):.2f} points."
    )


def _signed(share: float) -> str:
    return f"{100 * share:+.2f}".replace("-", "−")


def _few(seeds: int) -> str:
    return f"{seeds} seed{'' if seeds == 1 else 's'} a point: too few for any claim ({FEWEST_SEEDS} at the least)."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
