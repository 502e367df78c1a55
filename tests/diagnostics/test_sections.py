"""Sections of a diagnosis: each verdict on predictions made for it."""

from __future__ import annotations

import numpy as np
import pytest

from loralab import metrics
from loralab.data.types import Examples
from loralab.diagnostics.calibration import calibration_sections, chance_calibration_error
from loralab.diagnostics.duplicates import DuplicatePair
from loralab.diagnostics.sections import (
    NO,
    REVIEW,
    UNCLEAR,
    YES,
    ScoredExamples,
    duplicate_section,
    label_error_section,
    robustness_section,
    summary_section,
)

CLASSES = ("a", "b", "c")


def answers(n: int, accuracy: float, seed: int = 0, labelled: bool = True, confidence: float = 0.8) -> ScoredExamples:
    """n rows whose share `accuracy` is answered rightly, each answer with probability `confidence`."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n)
    given = np.where(np.arange(n) < round(accuracy * n), labels, (labels + 1) % 3)
    logits = np.full((n, 3), np.log((1 - confidence) / 2), dtype=np.float32)
    logits[np.arange(n), given] = np.log(confidence)
    return ScoredExamples(
        Examples([f"text {i}" for i in range(n)], labels if labelled else None, np.arange(n) + 1000, CLASSES), logits
    )


def calibrated(n: int, seed: int, sharpen: float = 1.0) -> ScoredExamples:
    """Labels drawn from the probabilities themselves; `sharpen` then makes the answers surer than they may be."""
    random = np.random.default_rng(seed)
    logits = (2 * random.normal(size=(n, 3))).astype(np.float32)
    labels = (random.random((n, 1)) > metrics.softmax(logits).cumsum(axis=1)[:, :-1]).sum(axis=1)
    return ScoredExamples(Examples(["text"] * n, labels, np.arange(n), CLASSES), (sharpen * logits).astype(np.float32))


def test_perfect_calibration_is_within_chance_in_nineteen_of_twenty() -> None:
    verdicts = [calibration_sections(calibrated(400, seed), None)[1].supported for seed in range(60)]
    assert 0 <= verdicts.count(YES) <= 8
    mean, upper = chance_calibration_error(metrics.softmax(calibrated(400, 0).logits))
    found = [metrics.expected_calibration_error(metrics.softmax(r.logits), r.examples.require_labels()) for r in map(lambda s: calibrated(400, s), range(40))]  # fmt: skip # noqa: C417, E501
    assert mean == pytest.approx(np.mean(found), abs=0.006)
    assert upper > mean


def test_overconfidence_is_detected_and_the_temperature_removes_it() -> None:
    rows = calibrated(1000, 0, sharpen=2.5)
    (table, _), hypothesis = calibration_sections(rows, None)
    assert (hypothesis.supported, table.columns) == (YES, ("measure", "without temperature"))
    assert "overconfident" in hypothesis.evidence
    (table, diagram), hypothesis = calibration_sections(rows, 2.5)
    assert hypothesis.supported == NO
    measures = {row[0]: row[1:] for row in table.rows}
    before, after = (metrics.softmax(rows.logits, t) for t in (1.0, 2.5))
    labels = rows.examples.require_labels()
    assert measures["calibration error (ECE)"] == tuple(metrics.expected_calibration_error(p, labels) for p in (before, after))
    assert measures["Brier score"] == tuple(metrics.brier(p, labels) for p in (before, after))
    assert measures["loss"][0] == pytest.approx(metrics.scores(rows.logits, labels, CLASSES)["loss"])
    assert measures["accuracy"][0] == measures["accuracy"][1]
    assert sum(int(row[1]) for row in diagram.rows) == len(rows)
    assert "underconfident" in calibration_sections(calibrated(1000, 0, sharpen=0.4), None)[1].evidence


def test_the_bins_add_up_to_the_calibration_error() -> None:
    rows = calibrated(500, 3, sharpen=2)
    probabilities, labels = metrics.softmax(rows.logits), rows.examples.require_labels()
    correct = probabilities.argmax(axis=1) == labels
    bins = metrics.calibration_bins(metrics.calibration_totals(probabilities.max(axis=1), correct))
    assert all(b.low < b.confidence <= b.high for b in bins)
    total = sum(abs(b.confidence * b.rows - b.correct) for b in bins) / 500
    assert total == pytest.approx(metrics.expected_calibration_error(probabilities, labels))


def perturbed(clean: ScoredExamples, share: float) -> np.ndarray:
    """Logits with the first so many answers turned to the next class: wrong where the answer was right."""
    logits = clean.logits.copy()
    turned = round(share * len(clean))
    logits[:turned] = np.roll(logits[:turned], 1, axis=1)
    return logits


@pytest.mark.parametrize(("share", "n", "verdict"), [(0.1, 1000, YES), (0.0, 1000, NO), (0.01, 100, UNCLEAR), (0.012, 3000, YES)])
def test_lost_accuracy_supports_missing_robustness(share: float, n: int, verdict: str) -> None:
    clean = answers(n, 1.0)
    section, hypothesis = robustness_section(
        clean, {"typos": perturbed(clean, share), "upper case": clean.logits, "first half": perturbed(clean, 0.5)}
    )
    assert hypothesis.supported == verdict
    rows = {row[0]: row[1:] for row in section.rows}
    assert rows["typos"][:2] == pytest.approx((1 - share, -share))
    assert rows["typos"][3] == pytest.approx(share)
    assert rows["first half"][1] == pytest.approx(-0.5)  # shown, and no fragility
    assert "upper case" in str(section.note)
    assert ("typos" in str(section.note)) == (share == 0)


def test_without_labels_only_changed_predictions_are_reported() -> None:
    clean = answers(200, 1.0, labelled=False)
    section, hypothesis = robustness_section(clean, {"typos": perturbed(clean, 0.25), "first half": perturbed(clean, 0.5)})
    assert section.rows == (("typos", 0.25), ("first half", 0.5))
    assert (hypothesis.supported, "25.0%" in hypothesis.evidence) == (UNCLEAR, True)


@pytest.mark.parametrize(("copied_right", "verdict"), [(100, YES), (55, UNCLEAR), (0, NO)])
def test_copies_with_higher_accuracy_support_duplicates(copied_right: int, verdict: str) -> None:
    """500 rows, half of the other 400 right; 100 copies."""
    labels = np.zeros(500, dtype=np.int64)
    logits = np.zeros((500, 3), dtype=np.float32)
    right = np.concatenate([np.arange(copied_right), np.arange(100, 300)])
    logits[:, 1], logits[right, 0] = 1, 2
    rows = ScoredExamples(Examples(["text"] * 500, labels, np.arange(500), CLASSES), logits)
    train = Examples(["text"] * 100, np.repeat([0, 2], [97, 3]), np.arange(100) + 7, CLASSES)
    section, hypothesis = duplicate_section(rows, train, [DuplicatePair(i, i, 0.5 + i / 1000) for i in range(100)], 0.5)
    assert hypothesis.supported == verdict
    assert f"{(copied_right + 200) / 500:.4f} with them, 0.5000" in hypothesis.evidence
    assert "3 of them have another label" in hypothesis.evidence
    assert section.rows[0][:3] == (99, 106, pytest.approx(0.599))
    assert duplicate_section(rows, train, [], 0.5)[1].supported == NO


def test_suspected_label_errors_have_row_numbers() -> None:
    rows = answers(100, 0.97, confidence=0.9)
    section, hypothesis = label_error_section(rows, "held out")
    assert hypothesis.supported == REVIEW
    assert sorted(row[0] for row in section.rows) == [1097, 1098, 1099]
    assert "3 of 100 labels (3.0%)" in hypothesis.evidence
    assert "if all of these labels were wrong, the accuracy would be 1.0000" in hypothesis.evidence
    first = section.rows[0]
    assert first[1:3] == (CLASSES[rows.examples.require_labels()[first[0] - 1000]], CLASSES[rows.predicted[first[0] - 1000]])
    assert first[3:5] == pytest.approx((0.05, 0.9), abs=1e-6)
    assert label_error_section(answers(100, 1.0), "held out")[1].supported == NO


@pytest.mark.parametrize(
    ("accuracy", "word"),
    [(0.80, "The difference, −0.150 (95 % CI "), (0.94, "is not significant"), (1.0, "+0.065), is significant")],
)
def test_the_first_section_compares_with_the_runs_own_test_rows(accuracy: float, word: str) -> None:
    _, hypothesis = label_error_section(answers(50, 1.0), "held out")
    section = summary_section(answers(400, accuracy), answers(1000, 0.95), "new.csv", [hypothesis])
    assert word in section.summary
    assert "No hypothesis is supported" in section.summary
    assert section.rows == ((hypothesis.name, hypothesis.supported, hypothesis.evidence),)
