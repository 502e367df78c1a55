"""The sections of a diagnosis: measured values → tables, summaries and supported hypotheses. Claims rest on intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from importlib import resources

import numpy as np
import numpy.typing as npt

from loralab import metrics
from loralab.config.yaml_core import parse_yaml
from loralab.data.types import Examples
from loralab.diagnostics.duplicates import DuplicatePair
from loralab.diagnostics.labels import find_label_errors
from loralab.stats import Interval, difference_of_proportions, paired_bootstrap, wilson

Logits = npt.NDArray[np.float32]
Cell = str | int | float
YES, NO, UNCLEAR, REVIEW = "yes", "no", "unclear", "review"
MIN_EFFECT = 0.01
"""The smallest effect that matters: accuracy lost to a perturbation, or calibration error."""
LESS_TEXT = "first half"
"""The perturbation that removes information: its loss is no lack of robustness."""
MAX_SHOWN = 10
_LAYOUTS = parse_yaml((resources.files("loralab.diagnostics") / "sections.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class DiagnosisSection:
    """A table with its title, a summary, and a note on how to read it."""

    title: str
    summary: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str | None = None

    @classmethod
    def of(
        cls, layout: str, summary: str, rows: Iterable[tuple[Cell, ...]], columns: Sequence[str] = (), **values: object
    ) -> DiagnosisSection:
        """Return a section with the title, columns and note of `layout` in sections.yaml. values: for the names in the note."""
        entry = _LAYOUTS[layout]
        return cls(entry["title"], summary, tuple(columns or entry["columns"]), tuple(rows), entry["note"].format(**values))


@dataclass(frozen=True)
class Hypothesis:
    """A possible cause of a lower score, whether the numbers support it (yes, no, unclear, review), and the evidence."""

    name: str
    supported: str
    evidence: str


@dataclass(frozen=True)
class ScoredExamples:
    """Texts with the run's logits (n, classes). The labels inside `examples` may be None."""

    examples: Examples
    logits: Logits

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The predicted classes: (n,)."""
        predicted: npt.NDArray[np.int64] = self.logits.argmax(axis=1)
        return predicted

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """The probability of each predicted class: (n,)."""
        confidence: npt.NDArray[np.float64] = metrics.softmax(self.logits).max(axis=1)
        return confidence

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each prediction equals the label: (n,). Only for labelled rows."""
        correct: npt.NDArray[np.bool_] = self.predicted == self.examples.require_labels()
        return correct

    def accuracy(self) -> Interval:
        """Return the accuracy with Wilson's interval."""
        return wilson(int(self.correct.sum()), len(self))


def summary_section(
    rows: ScoredExamples, own: ScoredExamples | None, name: str, hypotheses: Sequence[Hypothesis]
) -> DiagnosisSection:
    """Return the first section: the accuracy, compared with the run's `own` test rows where `rows` are others, and its causes."""
    sentences = []
    if rows.examples.labels is None:
        sentences.append(f"{name} ({len(rows):,} rows) has no labels: checks that need labels are left out.")
    else:
        accuracy = rows.accuracy()
        sentences.append(f"Accuracy {accuracy.estimate:.4f} (95 % CI {format_interval(accuracy)}) on {name}: {len(rows):,} rows.")
        if own is not None:
            change = difference_of_proportions(_correct_of_total(rows.correct), _correct_of_total(own.correct))
            significance = "" if change.high < 0 or change.low > 0 else "not "
            sentences.append(
                f"On the run's {len(own):,} test rows it is {own.accuracy().estimate:.4f}. The difference, "
                f"{format_difference(change)}, is {significance}significant."
            )
    supported = [f"{hypothesis.name.replace(': ', ' (')})" for hypothesis in hypotheses if hypothesis.supported == YES]
    sentences.append(f"Supported hypotheses: {'; '.join(supported)}." if supported else "No hypothesis is supported.")
    return DiagnosisSection.of("hypotheses", " ".join(sentences), map(astuple, hypotheses))


def robustness_section(clean: ScoredExamples, perturbed: Mapping[str, Logits]) -> tuple[DiagnosisSection, Hypothesis]:
    """Compare predictions on perturbed texts with those on the same clean texts, row by row."""
    after = {kind: ScoredExamples(clean.examples, logits) for kind, logits in perturbed.items()}
    changed = {kind: float((rows.predicted != clean.predicted).mean()) for kind, rows in after.items()}
    name, kinds = "robustness: small perturbations change predictions", [kind for kind in perturbed if kind != LESS_TEXT]
    if clean.examples.labels is None:
        worst = max(kinds, key=lambda kind: changed[kind])
        evidence = (
            f"largest change of {len(kinds)} perturbations: {worst}, {changed[worst]:.1%} of the predictions; their effect on "
            "accuracy needs labels"
        )
        hypothesis = Hypothesis(name, UNCLEAR, evidence)
        columns: tuple[str, ...] = ("perturbation", "predictions changed")
        table: list[tuple[Cell, ...]] = [*changed.items()]
        summary = f"{worst} changes most predictions"
    else:
        losses = {kind: paired_bootstrap(rows.correct, clean.correct) for kind, rows in after.items()}
        worst = min(kinds, key=lambda kind: losses[kind].estimate)
        evidence = f"of {len(kinds)} perturbations {worst} costs most accuracy: {format_difference(losses[worst])}"
        hypothesis = Hypothesis(name, _loses_accuracy(clean, [after[kind] for kind in kinds]), evidence)
        summary = f"accuracy {clean.correct.mean():.4f} on the clean texts; {evidence}"
        columns = ("perturbation", "accuracy", "difference", "95 % CI", "predictions changed")
        table = [
            (kind, float(after[kind].correct.mean()), loss.estimate, format_interval(loss), changed[kind])
            for kind, loss in losses.items()
        ]
    removed = [kind for kind, logits in perturbed.items() if np.allclose(logits, clean.logits, atol=1e-4)]
    no_effect = f" Cleaning and tokenizer remove every effect of: {', '.join(removed)}." if removed else ""
    return DiagnosisSection.of("robustness", f"{len(clean):,} texts: {summary}.", table, columns, no_effect=no_effect), hypothesis


def _loses_accuracy(clean: ScoredExamples, after: Sequence[ScoredExamples]) -> str:
    """Return whether a perturbation costs accuracy that matters, each tested at a stricter level (Bonferroni)."""
    losses = [paired_bootstrap(rows.correct, clean.correct, level=1 - 0.05 / len(after)) for rows in after]
    if any(loss.high < 0 and loss.estimate <= -MIN_EFFECT for loss in losses):
        return YES
    return NO if all(loss.low > -2 * MIN_EFFECT for loss in losses) else UNCLEAR


def label_error_section(rows: ScoredExamples, held_out: str) -> tuple[DiagnosisSection, Hypothesis]:
    """List rows whose label the classifier confidently contradicts. held_out: why the rows count as not trained on."""
    labels, classes = rows.examples.require_labels(), rows.examples.classes
    probabilities = metrics.softmax(rows.logits)
    errors = find_label_errors(probabilities, labels)
    table = [
        (
            int(rows.examples.rows[i]),
            classes[labels[i]],
            classes[k],
            float(probabilities[i, labels[i]]),
            float(probabilities[i, k]),
            excerpt(rows.examples.texts[i]),
        )
        for i, k in zip(errors.positions[: 2 * MAX_SHOWN], errors.suggested, strict=False)
    ]
    count, share = len(errors.positions), len(errors.positions) / len(rows)
    corrected = (int(rows.correct.sum()) + count) / len(rows)
    pairs = Counter(f"{classes[labels[i]]} → {classes[k]}" for i, k in zip(errors.positions, errors.suggested, strict=True))
    frequent = ", ".join(f"{pair} {n}" for pair, n in pairs.most_common(3))
    evidence = f"{count} of {len(rows):,} labels ({share:.1%}) are suspected" + (f", most often {frequent}" if pairs else "")
    if count:
        evidence += f"; if all of these labels were wrong, the accuracy would be {corrected:.4f}"
    section = DiagnosisSection.of("label errors", f"{evidence}.", table, held_out=held_out, shown=2 * MAX_SHOWN)
    return section, Hypothesis("label errors", REVIEW if count else NO, evidence)


def duplicate_section(
    rows: ScoredExamples, train: Examples, pairs: Sequence[DuplicatePair], min_share: float
) -> tuple[DiagnosisSection, Hypothesis]:
    """Count the rows that are in the training rows, and compare the accuracy with and without them."""
    examples = rows.examples
    copied = np.zeros(len(rows), dtype=bool)
    copied[[pair.test for pair in pairs]] = True
    closest = sorted(pairs, key=lambda pair: (-pair.share, pair.test))[:MAX_SHOWN]
    table = [(int(examples.rows[p.test]), int(train.rows[p.train]), p.share, excerpt(examples.texts[p.test])) for p in closest]
    count = (
        f"{len(pairs)} of {len(rows):,} rows ({len(pairs) / len(rows):.2%}) share {min_share:.0%} or more of their five-word "
        f"sequences with a training row"
    )
    name = "duplicates: copies of training rows raise the accuracy"
    if examples.labels is None or not pairs or copied.all():
        hypothesis = Hypothesis(name, NO if not pairs else UNCLEAR, count)
    else:
        correct = rows.correct
        difference = difference_of_proportions(_correct_of_total(correct[copied]), _correct_of_total(correct[~copied]))
        without = wilson(*_correct_of_total(correct[~copied]))
        evidence = (
            f"{count}; accuracy {correct.mean():.4f} with them, {without.estimate:.4f} without (95 % CI {format_interval(without)})"
        )
        supported = YES if difference.low > 0 else NO if difference.high * copied.sum() / len(rows) < 0.005 else UNCLEAR
        labels, train_labels = examples.require_labels(), train.require_labels()
        contrary = sum(bool(labels[pair.test] != train_labels[pair.train]) for pair in pairs)
        evidence += f"; {contrary} of them have another label in training" if contrary else ""
        hypothesis = Hypothesis(name, supported, evidence)
    return DiagnosisSection.of("duplicates", f"{hypothesis.evidence}.", table, shown=MAX_SHOWN), hypothesis


def format_interval(interval: Interval) -> str:
    """Return `0.861 to 0.877`."""
    return f"{interval.low:.3f} to {interval.high:.3f}".replace("-", "−")


def format_difference(interval: Interval, level: str = "95") -> str:
    """Return `−0.079 (95 % CI −0.093 to −0.065)`. level: of the interval, in percent."""
    return f"{interval.estimate:+.3f} ({level} % CI {interval.low:+.3f} to {interval.high:+.3f})".replace("-", "−")


def excerpt(text: str, max_length: int = 100) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= max_length else f"{line[: max_length - 1]}…"


def _correct_of_total(correct: npt.NDArray[np.bool_]) -> tuple[int, int]:
    return int(correct.sum()), len(correct)
