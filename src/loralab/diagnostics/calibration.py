"""Calibration: accuracy against confidence, and the calibration error that chance alone explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from loralab import metrics
from loralab.diagnostics.sections import (
    MIN_EFFECT,
    NO,
    YES,
    DiagnosisSection,
    Hypothesis,
    ScoredExamples,
    format_difference,
    format_interval,
)
from loralab.stats import paired_bootstrap, wilson

_LEVEL = 0.975
_NO_TEMPERATURE = "This run has no temperature, which would calibrate its confidences."
_NOTE = (
    "The temperature divides the logits: it changes the confidences, not the predicted classes. Brier score: mean squared error of "
    "the probabilities. Loss: cross entropy. Lower is better for both."
)
_ERROR, _CHANCE = "calibration error (ECE)", "calibration error by chance, at most (97.5th percentile)"


def calibration_sections(rows: ScoredExamples, temperature: float | None) -> tuple[list[DiagnosisSection], Hypothesis]:
    """Compare confidence with accuracy, without and with the run's temperature (None for a run without one)."""
    labels, correct = rows.examples.require_labels(), rows.correct
    temperatures = [1.0] if temperature is None else [1.0, temperature]
    probabilities = [metrics.softmax(rows.logits, t) for t in temperatures]
    of_label = np.arange(len(labels)), labels
    measures = {
        _ERROR: [metrics.expected_calibration_error(p, labels) for p in probabilities],
        _CHANCE: [chance_calibration_error(p)[1] for p in probabilities],
        "Brier score": [metrics.brier(p, labels) for p in probabilities],
        "loss": [float(-np.log(np.maximum(p[of_label], 1e-300)).mean()) for p in probabilities],
        "mean confidence": [float(p.max(axis=1).mean()) for p in probabilities],
        "accuracy": [float(correct.mean())] * len(probabilities),
    }
    names = ["without temperature", *([] if temperature is None else [f"with temperature {temperature:.3f}"])]
    readings = [_interpret(p, correct, measures, i) for i, p in enumerate(probabilities)]
    table = DiagnosisSection(
        "Calibration",
        " ".join(f"{name.capitalize()}: {text}." for name, (_, text) in zip(names, readings, strict=True)),
        ("measure", *names),
        tuple((name, *values) for name, values in measures.items()),
        _NO_TEMPERATURE if temperature is None else _NOTE,
    )
    bins = metrics.calibration_bins(metrics.calibration_totals(probabilities[-1].max(axis=1), correct))
    diagram = DiagnosisSection.of(
        "reliability",
        f"Rows grouped by confidence, {names[-1]}. Where the interval contains the mean confidence, the model is calibrated.",
        ((f"{b.low:.2f}-{b.high:.2f}", b.rows, b.confidence, b.accuracy, format_interval(wilson(b.correct, b.rows))) for b in bins),
    )
    prefix = f"{names[-1]}: " if temperature is not None else ""
    evidence = f"{prefix}{readings[-1][1]}; this changes no prediction"
    return [table, diagram], Hypothesis("calibration: the confidences are misleading", readings[-1][0], evidence)


def chance_calibration_error(probabilities: metrics.Probabilities, *, rounds: int = 200, seed: int = 0) -> tuple[float, float]:
    """Return mean and 97.5th percentile of the calibration error of perfectly calibrated probabilities on as many rows.

    It is above 0 on finite rows. Labels are drawn from the probabilities (consistency resampling, Bröcker and Smith 2007).
    """
    rng = np.random.default_rng(seed)
    edges = probabilities.cumsum(axis=1)[:, :-1]
    errors = [
        metrics.expected_calibration_error(probabilities, (rng.random((len(edges), 1)) > edges).sum(axis=1)) for _ in range(rounds)
    ]
    return float(np.mean(errors)), float(np.quantile(errors, _LEVEL))


def _interpret(
    probabilities: metrics.Probabilities, correct: npt.NDArray[np.bool_], measures: Mapping[str, Sequence[float]], column: int
) -> tuple[str, str]:
    """Return (supported, text) for one column of the measures.

    Two tests share an error of 5 %: the calibration error against chance, and the mean confidence against the accuracy.
    """
    error, chance = measures[_ERROR][column], measures[_CHANCE][column]
    excess = paired_bootstrap(probabilities.max(axis=1), correct, level=_LEVEL)
    biased = not excess.low <= 0 <= excess.high and abs(excess.estimate) > MIN_EFFECT
    text = (
        f"mean confidence minus accuracy is {format_difference(excess, '97.5')}; the calibration error is {error:.3f}, "
        f"by chance up to {chance:.3f}"
    )
    if error <= max(chance, MIN_EFFECT) and not biased:
        return NO, f"calibrated as far as these rows can show: {text}"
    direction = "overconfident" if excess.low > 0 else "underconfident" if excess.high < 0 else "miscalibrated in some bins"
    return YES, f"{direction}; {text}"
