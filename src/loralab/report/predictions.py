"""predictions.csv → what a report shows of it: confusions, calibration, confident mistakes. Read once, row by row."""

from __future__ import annotations

import csv
import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loralab.errors import LoralabError
from loralab.storage import run_folder

BINS, MISTAKES, ROWS_AT_ONCE = 15, 12, 4096
"""Bins as in `metrics.expected_calibration_error`, so that the diagram shows the gaps that number sums up."""
LONGEST_FIELD = 1 << 24

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mistake:
    """One test row that was classified wrong. `confidence` is the probability of the predicted class."""

    row: str
    true: str
    predicted: str
    confidence: float
    text: str


@dataclass(frozen=True)
class CalibrationBin:
    """The rows whose confidence lies in (low, high]: how many, how sure on average, how often right."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class ClassPair:
    """Rows of one class taken for another; `share` of the true class's rows."""

    true: str
    predicted: str
    rows: int
    share: float


@dataclass(frozen=True)
class PredictionSummary:
    """All test rows, summed up. confusion: (classes, classes), true by predicted.

    `before` and `after` the temperature: the filled bins of confidence; `before` is empty where the file has no logits.
    `mistakes`: the most confident, surest first.
    """

    rows: int
    classes: tuple[str, ...]
    confusion: npt.NDArray[np.int64]
    before: tuple[CalibrationBin, ...]
    after: tuple[CalibrationBin, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def errors(self) -> int:
        """Rows classified wrong."""
        return self.rows - int(np.trace(self.confusion))

    def pairs(self, most: int = 10) -> list[ClassPair]:
        """Return the pairs most often confused, most rows first."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        places = [divmod(int(place), len(self.classes)) for place in order]
        true = self.confusion.sum(axis=1)
        return [
            ClassPair(self.classes[i], self.classes[j], int(wrong[i, j]), float(wrong[i, j] / true[i]))
            for i, j in places
            if wrong[i, j]
        ]


def read_predictions(folder: Path, classes: Sequence[str]) -> PredictionSummary | None:
    """Sum up a run's predictions.csv; None where there is none. Raises LoralabError when it is damaged.

    Memory does not grow with the rows: a file of any length is read in pieces.
    """
    path = folder / run_folder.PREDICTIONS
    if not path.is_file():
        return None
    try:
        return _summed_up(path, tuple(classes))
    except (OSError, ValueError, LookupError, csv.Error) as error:
        raise LoralabError(f"cannot read {path} ({error!r}): restore it, or delete it for a report without predictions") from error


def read_right(folder: Path) -> dict[str, bool]:
    """Return each test row of a run by its number: whether it was classified right. Empty without predictions.

    Raises LoralabError when the file is damaged.
    """
    path = folder / run_folder.PREDICTIONS
    if not path.is_file():
        return {}
    try:
        return {row["row"]: row["true"] == row["predicted"] for piece in _pieces(path) for row in piece}
    except (OSError, ValueError, LookupError, csv.Error) as error:
        raise LoralabError(f"cannot read {path} ({error!r}): restore it, or delete it for a report without predictions") from error


def _summed_up(path: Path, classes: tuple[str, ...]) -> PredictionSummary:
    number = {name: i for i, name in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    before, after = _Calibration(), _Calibration()
    mistakes: list[tuple[float, int, Mistake]] = []
    count = 0
    for rows in _pieces(path):
        true = np.array([number[row["true"]] for row in rows])
        predicted = np.array([number[row["predicted"]] for row in rows])
        confidence = np.array([float(row["confidence"]) for row in rows])
        np.add.at(confusion, (true, predicted), 1)
        after.add(confidence, true == predicted)
        if all(f"logit:{name}" in rows[0] for name in classes):
            logits = np.array([[float(row[f"logit:{name}"]) for name in classes] for row in rows])
            before.add(1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1), true == predicted)
        for i in np.flatnonzero(true != predicted):
            row = rows[i]
            mistake = Mistake(row["row"], row["true"], row["predicted"], float(confidence[i]), row["text"])
            keep = heapq.heappush if len(mistakes) < MISTAKES else heapq.heappushpop
            keep(mistakes, (mistake.confidence, -count - int(i), mistake))  # of equals the earlier row
        count += len(rows)
    surest = tuple(mistake for _, _, mistake in sorted(mistakes, key=lambda item: item[:2], reverse=True))
    return PredictionSummary(count, classes, confusion, before.bins(), after.bins(), surest)


def _pieces(path: Path) -> Iterator[list[dict[str, str]]]:
    csv.field_size_limit(LONGEST_FIELD)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        while piece := list(itertools.islice(reader, ROWS_AT_ONCE)):
            yield piece


class _Calibration:
    """Sums over equal-width bins of confidence."""

    def __init__(self) -> None:
        self.sums: Floats = np.zeros((3, BINS))  # rows, confidence, right

    def add(self, confidence: Floats, right: npt.NDArray[np.bool_]) -> None:
        """confidence, right: (n,)."""
        number = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        for row, weights in enumerate((np.ones(len(confidence)), confidence, right)):
            self.sums[row] += np.bincount(number, weights=weights, minlength=BINS)

    def bins(self) -> tuple[CalibrationBin, ...]:
        found = enumerate(self.sums.T.tolist())
        return tuple(CalibrationBin(i / BINS, (i + 1) / BINS, int(n), sure / n, right / n) for i, (n, sure, right) in found if n)
