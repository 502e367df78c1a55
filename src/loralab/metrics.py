"""Scores of logits against labels, calibration, temperature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loralab.errors import LoralabError, suggest

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]

_OVERALL = ("loss", "accuracy", "macro_f1", "macro_f1_all", "balance", "mcc", "kappa", "ece", "brier")
_PER_CLASS = ("precision", "recall", "f1")
CALIBRATION_BINS = 15
MAX_LISTED = 8


def scores(logits: Logits, labels: Labels, classes: Sequence[str], names: Sequence[str] = ()) -> dict[str, float]:
    """Return all scores by name: loss, ece, brier, accuracy, macro_f1, macro_f1_all, balance, mcc, kappa, and per class precision:,
    recall:, f1:, true:, predicted:.

    logits: (n, classes); labels: (n,). `loss` is the mean cross entropy, whatever loss was trained; mcc is Matthews' correlation of
    several classes (Gorodkin 2004), kappa Cohen's (1960), both 0 where they are undefined. The precision of a class without
    predictions is 0. A class without rows has no precision:, recall: and f1:. macro_f1 is the mean F1 of the classes that have
    rows; macro_f1_all counts a class without rows as 0, as scikit-learn does if all classes are its `labels`. balance is the
    category balance: the lowest F1 of a class that has rows over the highest, min(f1) / max(f1). names: of which each `balance:A/B`
    is added, the same ratio of two classes, if both have rows.
    """
    # Not by scikit-learn, whose import takes a second or two.
    guesses, rows = logits.argmax(axis=1), len(labels)
    true, predicted, right = (np.bincount(x, minlength=len(classes)) for x in (labels, guesses, labels[guesses == labels]))
    precision, recall = right / np.maximum(predicted, 1), right / np.maximum(true, 1)
    f1, present, correct = 2 * right / np.maximum(true + predicted, 1), true > 0, int(right.sum())
    by_chance = int(true @ predicted)  # the rows that would be right, times `rows`
    beyond, spread = correct * rows - by_chance, (rows**2 - int(true @ true)) * (rows**2 - int(predicted @ predicted))
    result = {
        **probability_scores(logits, labels),
        "accuracy": correct / rows,
        "macro_f1": float(f1[present].mean()),
        "macro_f1_all": float(f1.mean()),
        "mcc": beyond / math.sqrt(spread) if spread else 0.0,
        "kappa": beyond / (rows**2 - by_chance) if rows**2 > by_chance else 0.0,
    }
    for i, name in enumerate(classes):
        if present[i]:
            result |= {f"precision:{name}": float(precision[i]), f"recall:{name}": float(recall[i]), f"f1:{name}": float(f1[i])}
        result |= {f"true:{name}": float(true[i]), f"predicted:{name}": float(predicted[i])}
    result["balance"] = balance(result, [name for i, name in enumerate(classes) if present[i]])
    for name in names:
        pair = balance_pair(name, classes)
        if pair and all(f"f1:{member}" in result for member in pair):
            result[name] = balance(result, pair)
    return result


def absent_classes(scores: Mapping[str, float], classes: Sequence[str]) -> list[str]:
    """Return the classes without a row behind the scores. They have no F1, and macro_f1 leaves them out."""
    return [name for name in classes if not scores[f"true:{name}"]]


NO_TEST_ROWS = "no test rows (data.test=0)"
"""What stands in place of the test scores of a run without test rows."""


def macro_remark(scores: Mapping[str, float], classes: Sequence[str], rows: str = "test row") -> str:
    """Return which classes macro F1 leaves out, and its value over all classes; empty if every class has rows."""
    absent = absent_classes(scores, classes)
    if not absent:
        return ""
    has = "has" if len(absent) == 1 else "have"
    listed = ", ".join(absent[:MAX_LISTED]) + (f" and {len(absent) - MAX_LISTED:,} more" if len(absent) > MAX_LISTED else "")
    return (
        f"macro F1 over {len(classes) - len(absent):,} of {len(classes):,} classes; {listed} {has} no {rows}; "
        f"over all classes, these as 0: {scores['macro_f1_all']:.4f}"
    )


def probability_scores(logits: Logits, labels: Labels, temperature: float = 1.0) -> dict[str, float]:
    """Return the scores of the probabilities: loss (nats), ece, brier."""
    log_p = log_softmax(logits, temperature)
    probabilities = np.exp(log_p)
    return {
        "loss": float(-log_p[np.arange(len(labels)), labels].mean()),
        "ece": expected_calibration_error(probabilities, labels),
        "brier": brier(probabilities, labels),
    }


def softmax(logits: Logits, temperature: float = 1.0) -> Probabilities:
    """Return the probabilities (n, classes) float64 of logits (n, classes) divided by `temperature`."""
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: Probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def log_softmax(logits: Logits, temperature: float = 1.0) -> Probabilities:
    """Return the logarithms of `softmax`, which are finite where it is 0."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    logarithms: Probabilities = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return logarithms


@dataclass(frozen=True)
class CalibrationBin:
    """Rows whose confidence lies in (low, high]: how many, how many are correct, and their mean confidence."""

    low: float
    high: float
    rows: int
    correct: int
    confidence: float

    @property
    def accuracy(self) -> float:
        """The share of correct rows."""
        return self.correct / self.rows


def calibration_totals(confidence: Probabilities, correct: npt.NDArray[np.bool_]) -> Probabilities:
    """Return rows, summed confidence and correct rows of each equal-width bin, (3, bins). Totals of separate rows add up."""
    number = _bin_number(confidence, CALIBRATION_BINS)
    weights = (np.ones(len(confidence)), confidence, correct)
    return np.stack([np.bincount(number, weights=column, minlength=CALIBRATION_BINS) for column in weights])


def calibration_bins(totals: Probabilities) -> tuple[CalibrationBin, ...]:
    """Return the bins that hold rows, lowest confidence first, from `calibration_totals` (Guo et al. 2017, figure 1)."""
    return tuple(
        CalibrationBin(i / CALIBRATION_BINS, (i + 1) / CALIBRATION_BINS, int(rows), int(correct), confidence / rows)
        for i, (rows, confidence, correct) in enumerate(totals.T.tolist())
        if rows
    )


def expected_calibration_error(probabilities: Probabilities, labels: Labels, bins: int = CALIBRATION_BINS) -> float:
    """Mean distance of confidence from accuracy over equal-width bins of confidence, weighted by rows (Guo et al. 2017)."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    gap = np.bincount(_bin_number(confidence, bins), weights=confidence - correct)
    return float(np.abs(gap).sum() / len(labels))


def _bin_number(confidence: Probabilities, bins: int) -> Labels:
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def brier(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean squared error of the probabilities, summed over classes: 0 to 2 (Brier 1950)."""
    own = probabilities[np.arange(len(labels)), labels]
    return float(((probabilities**2).sum(axis=1) - 2 * own + 1).mean())


FEWEST_TEMPERATURE_ROWS = 20
"""Below this number of validation rows no temperature is fitted."""
_PRIOR_DEVIATION = 0.25
"""Of log T. Over 100 draws of 4 to 400 validation rows of 20 models it was the only one of 1, 0.5, 0.35, 0.25 and no prior whose
mean loss was never above that of T = 1."""


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """Return the temperature that makes the probabilities of logits / temperature fit the labels (Guo et al. 2017).

    It maximises likelihood times a normal prior of log T around 0, which keeps T near 1 until there are rows to say otherwise: the
    likelihood alone has its maximum at T = 0 where all rows are right. 1 for fewer than `FEWEST_TEMPERATURE_ROWS` rows. Fit it on
    validation rows only. It changes the confidence of predictions, not the predictions.
    """
    if len(labels) < FEWEST_TEMPERATURE_ROWS:
        return 1.0
    own = logits[np.arange(len(labels)), labels].astype(np.float64)
    low, high = math.log(0.05), math.log(20.0)
    for _ in range(50):  # bisection of the objective's slope in log T
        log_t = (low + high) / 2
        mean = (softmax(logits, math.exp(log_t)) * logits).sum(axis=1)
        slope = (own - mean).sum() / math.exp(log_t) + log_t / _PRIOR_DEVIATION**2
        low, high = (log_t, high) if slope < 0 else (low, log_t)
    return math.exp(log_t)


def temperature_remark(temperature: float, rows: int) -> str:
    """Return what was done to the probabilities, as a sentence. rows: the number of validation rows."""
    if rows < FEWEST_TEMPERATURE_ROWS:
        return f"Probabilities are not calibrated: that needs {FEWEST_TEMPERATURE_ROWS} validation rows, and there are {rows}."
    return (
        f"Temperature {temperature:.3f}, fitted on {rows:,} validation rows, calibrates the probabilities. It changes no predicted "
        "class."
    )


def balance(scores: Mapping[str, float], classes: Sequence[str]) -> float:
    """Return the category balance of some classes: their lowest F1 over their highest, min(f1) / max(f1), from 0 to 1.

    1 is balanced: the model classifies all of them equally well, or equally badly. It is also 1 if every F1 is 0.
    """
    values = [scores[f"f1:{name}"] for name in classes]
    return min(values) / max(values) if any(values) else 1.0


def balance_pair(name: str, classes: Sequence[str]) -> tuple[str, str] | None:
    """Return the two class names of `balance:A/B` or `balance:A-B`, which may contain / and -, else None."""
    kind, _, rest = name.partition(":")
    if kind != "balance":
        return None
    return next(((a, b) for a in classes for b in classes if a != b and _plain(rest) == _plain(f"{a}/{b}")), None)


def check_monitor(
    name: str, classes: Sequence[str], counts: Mapping[str, int] | None = None, setting: str = "train.monitor"
) -> None:
    """Raise LoralabError if a `setting` is not a score, with the valid names, or is one of a class without validation rows.

    counts: the number of validation rows by class, if known.
    """
    valid = _valid_scores(classes)
    pair = balance_pair(name, classes)
    if name in valid or pair:
        needed = pair or [c for c in classes for kind in _PER_CLASS if name == f"{kind}:{c}"]
        if counts is not None and (absent := [c for c in needed if not counts.get(c)]):
            raise LoralabError(
                f"{setting}={name}: no validation row is {' or '.join(absent)}, so this score is undefined: "
                f"write {setting}=macro_f1, or give validation rows of it in a file with data.validation=FILE"
            )
        return
    listed = ", ".join((*_OVERALL, *(f"{kind}:NAME" for kind in _PER_CLASS), "balance:NAME/NAME"))
    raise LoralabError(
        f"{setting}: there is no score {name!r}{suggest(name, valid)}; valid: {listed} with NAME of {', '.join(classes)}"
    )


def tracked_scores(monitor: str, track: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """Return the monitored score and those of `train.track`, once each.

    A text of `track` may hold several names with commas between them; a class name may contain commas too. A name that is no score
    stays as it is, for `check_monitor` to refuse.
    """
    return tuple(dict.fromkeys((monitor, *(name for text in track for name in _split_names(text, classes)))))


def _split_names(text: str, classes: Sequence[str]) -> list[str]:
    """Split `text` at commas into names, each as long as it can be."""
    parts, names = text.split(","), []
    valid = {*_valid_scores(classes)}
    while parts:
        ends = range(len(parts), 0, -1)
        joined = {end: ",".join(parts[:end]).strip() for end in ends}
        end = next((end for end in ends if joined[end] in valid or balance_pair(joined[end], classes)), 1)
        names += [joined[end]] if joined[end] else []
        del parts[:end]
    return names


def _valid_scores(classes: Sequence[str]) -> list[str]:
    return [*_OVERALL, *(f"{kind}:{name}" for kind in _PER_CLASS for name in classes)]


def table(scores: Mapping[str, float], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row per class: class, precision, recall, f1, true, predicted. The first three are None without a true row."""
    kinds = (*_PER_CLASS, "true", "predicted")
    return [{"class": name, **{kind: scores.get(f"{kind}:{name}") for kind in kinds}} for name in classes]


def _plain(name: str) -> str:
    """In `balance:A/B`, `Sci-Tech` and `Sci/Tech` are the same name, as in the published reports."""
    return name.replace("/", "-").casefold()
