"""Measured values → tables and plain words. Pure; every claim rests on an interval or on a measure of what is normal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loralab import metrics
from loralab.data.types import Examples
from loralab.diagnostics.calibration import error_by_chance, reliability
from loralab.diagnostics.duplicates import DuplicatePair
from loralab.diagnostics.labels import find_label_errors
from loralab.stats import Interval, difference_of_shares, paired_bootstrap, wilson

Logits = npt.NDArray[np.float32]
Cell = str | int | float
YES, NO, UNSURE, READ = "yes", "no", "cannot tell", "read them"
HARM = 0.01
"""What matters: the accuracy that a damage must cost to count as fragility, and the least error of calibration."""
LESS_TO_READ = "first half"
"""A damage that takes information away: what it costs is no fragility."""
SHOWN = 10


@dataclass(frozen=True)
class DiagnosisSection:
    """One table with its title, a summary in words, and a note on how to read it."""

    title: str
    summary: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str | None = None


@dataclass(frozen=True)
class Hypothesis:
    """A possible reason for a worse score, whether the numbers support it (yes, no, cannot tell), and on what evidence."""

    name: str
    supported: str
    evidence: str


@dataclass(frozen=True)
class ScoredExamples:
    """Texts with what the run made of them. logits: (n, classes); labels inside `examples` may be None."""

    examples: Examples
    logits: Logits

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The predicted classes: (n,)."""
        found: npt.NDArray[np.int64] = self.logits.argmax(axis=1)
        return found

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """The probability of each predicted class: (n,)."""
        found: npt.NDArray[np.float64] = metrics.softmax(self.logits).max(axis=1)
        return found

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Which predictions are the label: (n,). Only for labelled rows."""
        found: npt.NDArray[np.bool_] = self.predicted == self.examples.require_labels()
        return found

    def accuracy(self) -> Interval:
        """The accuracy with Wilson's interval."""
        return wilson(int(self.right.sum()), len(self))


def calibrate(rows: ScoredExamples, temperature: float | None) -> tuple[list[DiagnosisSection], Hypothesis]:
    """Compare confidence with accuracy, before and after the run's temperature (None: it has none)."""
    labels, right = rows.examples.require_labels(), rows.right
    temperatures = [1.0] if temperature is None else [1.0, temperature]
    columns = [metrics.softmax(rows.logits, t) for t in temperatures]
    own = np.arange(len(labels)), labels
    measures = {
        "expected calibration error": [metrics.expected_calibration_error(p, labels) for p in columns],
        "the same, by chance up to": [error_by_chance(p)[1] for p in columns],
        "Brier score": [metrics.brier(p, labels) for p in columns],
        "loss": [float(-np.log(np.maximum(p[own], 1e-300)).mean()) for p in columns],
        "mean confidence": [float(p.max(axis=1).mean()) for p in columns],
        "accuracy": [float(right.mean())] * len(columns),
    }
    names = ["before"] if temperature is None else ["before", f"after (temperature {temperature:.3f})"]
    readings = [_calibration_reading(p, right, measures, i) for i, p in enumerate(columns)]
    evidence = f"{names[-1]}: {readings[-1][1]}" if temperature is not None else readings[0][1]
    note = None if temperature is not None else "This run has no temperature, so there is only before."
    table = DiagnosisSection(
        "Calibration",
        "; ".join(f"{name}: {words}" for name, (_, words) in zip(names, readings, strict=True)),
        ("measure", *names),
        tuple((name, *values) for name, values in measures.items()),
        note,
    )
    bins = [
        (f"{b.low:.2f}-{b.high:.2f}", b.rows, b.confidence, b.right / b.rows, span(wilson(b.right, b.rows)))
        for b in reliability(columns[-1], labels)
    ]
    diagram = DiagnosisSection(
        "Reliability",
        f"15 bins of equal width ({names[-1].split(' (')[0]} temperature); in a good one the confidence lies within the interval.",
        ("confidence", "rows", "mean confidence", "accuracy", "95 % interval"),
        tuple(bins),
        "Bins without rows are left out. Bins of few rows have wide intervals and say little.",
    )
    return [table, diagram], Hypothesis(
        "calibration: the confidences mislead", readings[-1][0], evidence + "; this changes no prediction"
    )


def _calibration_reading(
    probabilities: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], measures: Mapping[str, Sequence[float]], column: int
) -> tuple[str, str]:
    """(supported, words) of one column of probabilities."""
    error, chance = measures["expected calibration error"][column], measures["the same, by chance up to"][column]
    excess = paired_bootstrap(probabilities.max(axis=1), right)
    words = f"confidence less accuracy {signed(excess)}, calibration error {error:.3f} (chance alone: up to {chance:.3f})"
    if error <= max(chance, HARM):
        return NO, f"within what chance explains: {words}"
    sure = "too sure" if excess.low > 0 else "not sure enough" if excess.high < 0 else "off in places, though not on the whole"
    return YES, f"{sure}: {words}"


def robustness(clean: ScoredExamples, damaged: Mapping[str, Logits]) -> tuple[DiagnosisSection, Hypothesis]:
    """Compare the answers on damaged texts with those on the same texts undamaged, row by row."""
    after = {kind: ScoredExamples(clean.examples, logits) for kind, logits in damaged.items()}
    flipped = {kind: float((found.predicted != clean.predicted).mean()) for kind, found in after.items()}
    name, kinds = "fragility: small damages change the answers", [kind for kind in damaged if kind != LESS_TO_READ]
    if clean.examples.labels is None:
        most = max(kinds, key=lambda kind: flipped[kind])
        reason = Hypothesis(
            name,
            UNSURE,
            f"worst of {len(kinds)}: {most} change {flipped[most]:.1%} of the answers; for the worse or not, labels would say",
        )
        columns: tuple[str, ...] = ("damage", "answers changed")
        rows: list[tuple[Cell, ...]] = list(flipped.items())
        evidence = f"{most} change most answers"
    else:
        losses = {kind: paired_bootstrap(found.right, clean.right) for kind, found in after.items()}
        worst = min(kinds, key=lambda kind: losses[kind].estimate)
        evidence = f"worst of {len(kinds)}: {worst}, accuracy {signed(losses[worst])}"
        reason = Hypothesis(name, _fragile(clean, [after[kind] for kind in kinds]), evidence)
        evidence = f"accuracy {clean.right.mean():.4f} undamaged; {evidence}"
        columns = ("damage", "accuracy", "difference", "95 % interval", "answers changed")
        rows = [(kind, float(after[kind].right.mean()), loss.estimate, span(loss), flipped[kind]) for kind, loss in losses.items()]
    note = "The seed fixes the damage. Half a text holds less to go by: its row shows what the second half is worth."
    if undone := [kind for kind, logits in damaged.items() if np.allclose(logits, clean.logits, atol=1e-4)]:
        note += f" Undone before the network reads it, by cleaning or a tokenizer blind to case: {', '.join(undone)}."
    return DiagnosisSection("Robustness", f"On {len(clean):,} texts: {evidence}.", columns, tuple(rows), note), reason


def _fragile(clean: ScoredExamples, after: Sequence[ScoredExamples]) -> str:
    """Whether a damage costs accuracy that matters. Several are tried, so each is held to a stricter level (Bonferroni)."""
    sure = [paired_bootstrap(found.right, clean.right, level=1 - 0.05 / len(after)) for found in after]
    if any(loss.high < 0 and loss.estimate <= -HARM for loss in sure):
        return YES
    return NO if all(loss.low > -2 * HARM for loss in sure) else UNSURE


def label_errors(rows: ScoredExamples, held_out: str) -> tuple[DiagnosisSection, Hypothesis]:
    """List the rows whose label the classifier confidently contradicts. `held_out` says why they count as not trained on."""
    labels, classes = rows.examples.require_labels(), rows.examples.classes
    probabilities = metrics.softmax(rows.logits)
    found = find_label_errors(probabilities, labels)
    table = [
        (
            int(rows.examples.rows[i]),
            classes[labels[i]],
            classes[k],
            float(probabilities[i, labels[i]]),
            float(probabilities[i, k]),
            shorten(rows.examples.texts[i]),
        )
        for i, k in zip(found.positions[: 2 * SHOWN], found.likely, strict=False)
    ]
    count, share = len(found.positions), len(found.positions) / len(rows)
    best = (int(rows.right.sum()) + count) / len(rows)
    pairs: dict[str, int] = {}
    for i, k in zip(found.positions, found.likely, strict=True):
        name = f"{classes[labels[i]]} → {classes[k]}"
        pairs[name] = pairs.get(name, 0) + 1
    common = ", ".join(f"{name} {n}" for name, n in sorted(pairs.items(), key=lambda pair: -pair[1])[:3])
    evidence = f"{count} of {len(rows):,} rows ({share:.1%}) are suspected" + (f", most: {common}" if pairs else "")
    if count:
        evidence += f"; accuracy would be {best:.4f} if every suspicion were right"
    section = DiagnosisSection(
        "Suspected label errors",
        f"{evidence}.",
        ("row", "label", "seems to be", "p(label)", "p(seems)", "text"),
        tuple(table),
        f"Confident learning (Northcutt et al. 2021); {held_out}. The {2 * SHOWN} most suspicious are shown. The classifier's own "
        "confident mistakes look the same: read them before changing a label.",
    )
    return section, Hypothesis("label errors", READ if count else NO, evidence)


def duplicates(
    rows: ScoredExamples, train: Examples, pairs: Sequence[DuplicatePair], at_least: float
) -> tuple[DiagnosisSection, Hypothesis]:
    """Say how many rows stand in the training rows, and what that does to the accuracy."""
    examples = rows.examples
    copied = np.zeros(len(rows), dtype=bool)
    copied[[pair.test for pair in pairs]] = True
    shown = sorted(pairs, key=lambda pair: (-pair.share, pair.test))[:SHOWN]
    table = [(int(examples.rows[p.test]), int(train.rows[p.train]), p.share, shorten(examples.texts[p.test])) for p in shown]
    head = (
        f"{len(pairs)} of {len(rows):,} rows ({len(pairs) / len(rows):.2%}) share {at_least:.0%} or more of their five-word runs "
        f"with a training row"
    )
    note = (
        f"The {SHOWN} closest pairs at most are shown, rows counted from 0 in their own files; share: of the row's five-word runs."
    )
    name = "duplicates: copies of training rows flatter"
    if examples.labels is None or not pairs or copied.all():
        reason = Hypothesis(name, NO if not pairs else UNSURE, head)
    else:
        right = rows.right
        k, rest = int(copied.sum()), int((~copied).sum())
        difference = difference_of_shares((int(right[copied].sum()), k), (int(right[~copied].sum()), rest))
        without = wilson(int(right[~copied].sum()), rest)
        evidence = f"{head}; accuracy {right.mean():.4f} with them, {without.estimate:.4f} {span(without)} without"
        supported = YES if difference.low > 0 else NO if difference.high * k / len(rows) < 0.005 else UNSURE
        contrary = _other_labels(examples, train, pairs)
        evidence += f"; {contrary} of them have another label in training" if contrary else ""
        reason = Hypothesis(name, supported, evidence)
    return DiagnosisSection(
        "Near-duplicates of training rows", f"{reason.evidence}.", ("row", "training row", "share", "text"), tuple(table), note
    ), reason


def _other_labels(examples: Examples, train: Examples, pairs: Sequence[DuplicatePair]) -> int:
    labels, trained = examples.require_labels(), train.require_labels()
    return sum(bool(labels[pair.test] != trained[pair.train]) for pair in pairs)


def conclude(rows: ScoredExamples, own: ScoredExamples | None, what: str, reasons: Sequence[Hypothesis]) -> DiagnosisSection:
    """Write the first section: the score, against the run's own test rows where `rows` are others, and what it may come from."""
    sentences = []
    if rows.examples.labels is None:
        sentences.append(f"{what} ({len(rows):,} rows) has no labels: what needs labels is left out.")
    else:
        accuracy = rows.accuracy()
        sentences.append(f"Accuracy {accuracy.estimate:.4f} {span(accuracy)} on {what} ({len(rows):,} rows).")
        if own is not None:
            change = difference_of_shares((int(rows.right.sum()), len(rows)), (int(own.right.sum()), len(own)))
            real = "lower" if change.high < 0 else "higher" if change.low > 0 else "not to be told apart"
            sentences.append(
                f"On the run's {len(own):,} test rows it is {own.accuracy().estimate:.4f}: {real}, by {signed(change)}."
            )
    supported = [reason.name for reason in reasons if reason.supported == YES]
    sentences.append(f"The numbers support: {'; '.join(supported)}." if supported else "The numbers support none of these reasons.")
    return DiagnosisSection(
        "What the numbers support",
        " ".join(sentences),
        ("possible reason", "supported", "evidence"),
        tuple((reason.name, reason.supported, reason.evidence) for reason in reasons),
        "yes: the effect is there, beyond its 95 % interval or what chance explains; no: none that matters was found; cannot tell: "
        "neither is sure. That a supported reason caused the mistakes is a further claim.",
    )


def span(interval: Interval) -> str:
    """`[0.861, 0.877]`."""
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def signed(interval: Interval) -> str:
    """`-0.079 [-0.093, -0.065]`."""
    return f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def shorten(text: str, most: int = 100) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
