"""Drift as sections of a diagnosis: what differs from the training rows, by how much, and whether it matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np

from loralab.data.types import Examples
from loralab.diagnostics import drift
from loralab.diagnostics.sections import NO, UNCLEAR, YES, Cell, DiagnosisSection, Hypothesis, ScoredExamples, format_difference
from loralab.stats import bonferroni_bound, difference_of_proportions

ALPHA = 0.01
"""With five measures at this level, one table in twenty has a false alarm."""
SMALL, LARGE = 0.1, 0.3
"""Effects below the first are negligible, from the second on large: Cohen's conventions (1988) for V, our choice for D."""
SHARE_SMALL, SHARE_LARGE = 0.02, 0.1
"""The same for the excess over the null's median: bits of divergence, and the share of unseen words."""
MAX_WORDS = 10
NEGLIGIBLE, NOT_SIGNIFICANT, MODERATE, LARGE_EFFECT = "negligible", "not significant", "moderate", "large"


def drift_sections(train: Examples, rows: ScoredExamples, own: ScoredExamples | None) -> tuple[list[DiagnosisSection], Hypothesis]:
    """Compare `rows` with the training rows, and their confidences with those on the run's `own` test rows where given."""
    texts = rows.examples.texts
    vocabulary = drift.compare_vocabulary(train.texts, texts)
    train_words, words = (np.array([len(text.split()) for text in side]) for side in (train.texts, texts))
    lengths = drift.kolmogorov_smirnov(train_words, words)
    medians = f"medians {np.median(train_words):.0f}, {np.median(words):.0f} words"
    table: list[tuple[Cell, ...]] = [
        _null_row("word frequencies: divergence in bits", vocabulary.divergence),
        _null_row("unseen words: share of all words", vocabulary.unseen),
        _test_row("length: distance D (Kolmogorov-Smirnov)", lengths, medians),
    ]
    evidence = []
    if rows.examples.labels is not None:
        classes = drift.compare_classes(train.require_labels(), rows.examples.labels, len(train.classes))
        table.append(_test_row("class shares: V (Cramér)", classes, _largest_shift(train, rows.examples)))
        evidence += _accuracy_from_class_shares(rows, own)
    if own is not None:
        confidences = drift.kolmogorov_smirnov(own.confidence, rows.confidence)
        means = f"means {own.confidence.mean():.3f} (test rows), {rows.confidence.mean():.3f}"
        table.append(_test_row("confidence: distance D (Kolmogorov-Smirnov)", confidences, means))
    relevant = [str(row[0]).split(":")[0] for row in table if row[-1] not in (NEGLIGIBLE, NOT_SIGNIFICANT)]
    differing = f"different in {', '.join(relevant)}" if relevant else "no relevant difference"
    unseen_effect = _unseen_word_effect(train, rows) if rows.examples.labels is not None else ""
    supported = YES if any(row[-1] == LARGE_EFFECT for row in table) else UNCLEAR if relevant else NO
    measures = DiagnosisSection.of("drift", f"Compared with the training rows: {differing}. {unseen_effect}".strip(), table)
    hypothesis = Hypothesis("drift: the rows differ from the training rows", supported, "; ".join([differing, *evidence]))
    return [measures, _word_section(train.texts, texts)], hypothesis


def rate_excess(comparison: drift.NullComparison) -> str:
    """Rate a word measure by its p-value and its excess over the null's median."""
    return _rate(comparison.value - comparison.median, comparison.p, SHARE_SMALL, SHARE_LARGE)


def _rate(effect: float, p: float, small: float, large: float) -> str:
    if p > ALPHA:
        return NOT_SIGNIFICANT
    return NEGLIGIBLE if effect < small else MODERATE if effect < large else LARGE_EFFECT


def _null_row(name: str, comparison: drift.NullComparison) -> tuple[Cell, ...]:
    reference = f"{comparison.median:.3f}, up to {comparison.upper:.3f}"
    return name, comparison.value, reference, comparison.p, rate_excess(comparison)


def _test_row(name: str, test: drift.TestResult, reference: str) -> tuple[Cell, ...]:
    return name, test.effect, reference, test.p, _rate(test.effect, test.p, SMALL, LARGE)


def _word_section(train: Sequence[str], texts: Sequence[str]) -> DiagnosisSection:
    ranked = drift.rank_words(*(drift.count_words("\n".join(side)) for side in (train, texts)))
    threshold = bonferroni_bound(len(ranked))
    here = [word for word in ranked[:MAX_WORDS] if word.z > threshold]
    there = [word for word in ranked[::-1][:MAX_WORDS] if word.z < -threshold]
    more_here, more_there = (", ".join(word.word for word in side) or "none" for side in (here, there))
    return DiagnosisSection.of(
        "words",
        f"More frequent in these rows: {more_here}. More frequent in the training rows: {more_there}.",
        map(astuple, (*here, *there)),
        threshold=threshold,
    )


def _accuracy_from_class_shares(rows: ScoredExamples, own: ScoredExamples | None) -> list[str]:
    """Predict the accuracy from the class shares alone: the test rows' recall of each class, weighted by these rows' shares."""
    if own is None:
        return []
    labels, own_labels = rows.examples.require_labels(), own.examples.require_labels()
    shares = np.bincount(labels, minlength=len(rows.examples.classes)) / len(labels)
    recalls = [own.correct[own_labels == k].mean() if (own_labels == k).any() else None for k in range(len(shares))]
    if any(recall is None and share for recall, share in zip(recalls, shares, strict=True)):
        return []
    expected = sum(share * recall for share, recall in zip(shares, recalls, strict=True) if recall is not None)
    return [f"class shares alone would give accuracy {expected:.4f}; on the test rows it is {own.correct.mean():.4f}"]


def _unseen_word_effect(train: Examples, rows: ScoredExamples) -> str:
    """Compare the accuracy on rows above the median share of unseen words with that on the others."""
    known = drift.count_words("\n".join(train.texts))
    counts = [drift.count_words(text) for text in rows.examples.texts]
    shares = np.array([sum(n for word, n in words.items() if word not in known) / max(1, words.total()) for words in counts])
    many = shares > np.median(shares)
    if not many.any() or many.all():
        return ""
    correct = rows.correct
    change = difference_of_proportions((int(correct[many].sum()), int(many.sum())), (int(correct[~many].sum()), int((~many).sum())))
    accuracies = (
        f"accuracy {correct[many].mean():.3f}, the others {correct[~many].mean():.3f}, difference {format_difference(change)}"
    )
    return f"Rows with more unseen words than the median: {accuracies}{'' if change.high < 0 else '; not significant'}."


def _largest_shift(train: Examples, rows: Examples) -> str:
    """Name the class whose share changed most."""
    before, after = (np.bincount(side.require_labels(), minlength=len(train.classes)) / len(side) for side in (train, rows))
    k = int(np.abs(before - after).argmax())
    return f"largest: {train.classes[k]}, {before[k]:.1%} to {after[k]:.1%}"
