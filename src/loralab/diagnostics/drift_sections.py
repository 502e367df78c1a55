"""Drift as tables and plain words: what differs between training and these rows, by how much, and whether it matters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loralab.data.types import Examples
from loralab.diagnostics import drift
from loralab.diagnostics.sections import NO, UNSURE, YES, Cell, DiagnosisSection, Hypothesis, ScoredExamples, signed
from loralab.stats import beyond_chance, difference_of_shares

SIGNIFICANT = 0.01
"""Five measures are taken: at 0.01 each, one false alarm in twenty tables."""
SMALL, LARGE = 0.1, 0.3
"""Effects under the first hardly matter, from the second on they likely do: Cohen's conventions (1988) for V, ours for D."""
SHARE_SMALL, SHARE_LARGE = 0.02, 0.1
"""The same for what lies above normal: bits of divergence, and the share of words never seen in training."""
SHOWN_WORDS = 10
_TINY, _BY_CHANCE = "there, but too small to matter", "not to be told from chance"


def compare(train: Examples, rows: ScoredExamples, own: ScoredExamples | None) -> tuple[list[DiagnosisSection], Hypothesis]:
    """Compare `rows` with the training rows, and their confidences with those on the run's `own` test rows where there are any."""
    texts = rows.examples.texts
    vocabulary = drift.compare_vocabulary(train.texts, texts)
    before, now = (np.array([len(text.split()) for text in each]) for each in (train.texts, texts))
    lengths = drift.kolmogorov_smirnov(before, now)
    divergence, unseen = vocabulary.divergence, vocabulary.unseen
    table: list[tuple[Cell, ...]] = [
        (
            "words: divergence, bits",
            divergence.value,
            f"{divergence.normal:.3f}, to {divergence.upper:.3f}",
            divergence.p,
            _above(divergence),
        ),
        ("words never seen in training", unseen.value, f"{unseen.normal:.3f}, to {unseen.upper:.3f}", unseen.p, _above(unseen)),
        (
            "length: KS distance D",
            lengths.effect,
            f"medians {np.median(before):.0f}, {np.median(now):.0f} words",
            lengths.p,
            _read(lengths),
        ),
    ]
    evidence = []
    if rows.examples.labels is not None:
        found = drift.compare_classes(train.require_labels(), rows.examples.labels, len(train.classes))
        table.append(("classes: Cramér's V", found.effect, _shares(train, rows.examples), found.p, _read(found)))
        evidence += _prior_explains(rows, own)
    if own is not None:
        found = drift.kolmogorov_smirnov(own.confidence, rows.confidence)
        means = f"means {own.confidence.mean():.3f}, {rows.confidence.mean():.3f} against the test rows"
        table.append(("confidence: KS distance D", found.effect, means, found.p, _read(found)))
    matters = [str(row[0]).split(":")[0] for row in table if row[-1] not in (_TINY, _BY_CHANCE)]
    differing = f"different in {', '.join(matters)}" if matters else "no difference that matters"
    said = f"Against the training rows: {differing}"
    link = _unseen_words_cost(train, rows) if rows.examples.labels is not None else ""
    supported = YES if any(str(row[-1]).startswith("large") for row in table) else UNSURE if matters else NO
    measures = DiagnosisSection(
        "Drift",
        f"{said}. {link}".strip(),
        ("measure", "value", "normal, or both sides", "p", "reading"),
        tuple(table),
        "Normal: the median and 95th percentile when all texts are divided at random into sides of these sizes. Under 0.1 D and V "
        "hardly matter, from 0.3 they likely do; words by what lies above normal, 0.02 and 0.1. Drift alone is no proof that it "
        "caused mistakes.",
    )
    return [measures, _words(train.texts, texts)], Hypothesis(
        "drift: the rows are not like the training rows", supported, "; ".join([differing, *evidence])
    )


def _words(train: Sequence[str], texts: Sequence[str]) -> DiagnosisSection:
    found = drift.over_represented(drift.count_all_words(train), drift.count_all_words(texts))
    certain = beyond_chance(len(found))
    here = [word for word in found[:SHOWN_WORDS] if word.z > certain]
    there = [word for word in found[::-1][:SHOWN_WORDS] if word.z < -certain]
    rows = [(word.word, word.first, word.second, word.z) for word in (*here, *there)]
    names = ", ".join(word.word for word in here) or "no word"
    return DiagnosisSection(
        "Words that tell the two apart",
        f"More frequent in these rows: {names}. In the training rows: {', '.join(word.word for word in there) or 'no word'}.",
        ("word", "per 1,000 in training", "per 1,000 in these rows", "z"),
        tuple(rows),
        f"Log-odds with an informative Dirichlet prior (Monroe et al. 2008). Shown is what lies beyond |z| = {certain:.1f}, which "
        f"chance alone reaches in one table of twenty; a word that comes in bursts reaches it sooner.",
    )


def _prior_explains(rows: ScoredExamples, own: ScoredExamples | None) -> list[str]:
    """What the classes' shares alone would make of the accuracy: the test rows' recall of each class, weighed by these shares."""
    if own is None:
        return []
    labels, there = rows.examples.require_labels(), own.examples.require_labels()
    shares = np.bincount(labels, minlength=len(rows.examples.classes)) / len(labels)
    recalls = [own.right[there == k].mean() if (there == k).any() else None for k in range(len(shares))]
    if any(recall is None and share for recall, share in zip(recalls, shares, strict=True)):
        return []
    expected = sum(share * recall for share, recall in zip(shares, recalls, strict=True) if recall is not None)
    return [f"by its classes' shares alone the accuracy would be {expected:.4f}, on the test rows it is {own.right.mean():.4f}"]


def _unseen_words_cost(train: Examples, rows: ScoredExamples) -> str:
    """Compare the accuracy on the rows with more unseen words than the middle row with that on the others."""
    known = drift.count_all_words(train.texts)
    counted = [drift.count_words(text) for text in rows.examples.texts]
    shares = np.array([sum(n for w, n in words.items() if w not in known) / max(1, words.total()) for words in counted])
    many = shares > np.median(shares)
    if not many.any() or many.all():
        return ""
    right = rows.right
    change = difference_of_shares((int(right[many].sum()), int(many.sum())), (int(right[~many].sum()), int((~many).sum())))
    where = (
        f"Rows with more unseen words than the middle row: accuracy {right[many].mean():.3f}, the others {right[~many].mean():.3f}"
    )
    return f"{where}, difference {signed(change)}{'' if change.high < 0 else ', so unseen words are not shown to cost any'}."


def _shares(train: Examples, rows: Examples) -> str:
    """The class whose share moved most."""
    a, b = (np.bincount(each.require_labels(), minlength=len(train.classes)) / len(each) for each in (train, rows))
    k = int(np.abs(a - b).argmax())
    return f"most: {train.classes[k]}, {a[k]:.1%} to {b[k]:.1%}"


def _above(found: drift.NullComparison) -> str:
    return _reading(found.value - found.normal, found.p, SHARE_SMALL, SHARE_LARGE)


def _read(found: drift.TestResult) -> str:
    return _reading(found.effect, found.p, SMALL, LARGE)


def _reading(effect: float, p: float, small: float, large: float) -> str:
    if p > SIGNIFICANT:
        return _BY_CHANCE
    return _TINY if effect < small else "moderate: may matter" if effect < large else "large: likely to matter"
