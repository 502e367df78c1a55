"""predictions.csv → confusion matrix, calibration and the most confident errors; read once, in pieces."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loralab.metrics import CALIBRATION_BINS, CalibrationBin, calibration_bins, calibration_totals
from loralab.safe_files import MAX_LINE_CHARACTERS, MAX_PREDICTIONS_BYTES, check_file, exists
from loralab.storage import run_folder, run_predictions

MAX_ERRORS, CHUNK_ROWS = 12, 4096


@dataclass(frozen=True)
class Misclassification:
    """A misclassified test row. `confidence` is the probability of the predicted class."""

    row: str
    true: str
    predicted: str
    confidence: float
    text: str


@dataclass(frozen=True)
class ClassPair:
    """Rows of one class predicted as another; `share` of the true class's rows."""

    true: str
    predicted: str
    rows: int
    share: float


@dataclass(frozen=True)
class PredictionSummary:
    """All test rows in short. confusion: (classes, classes), true by predicted. top_errors: the most confident ones, in order.

    uncalibrated, calibrated: the filled confidence bins without (empty for a file without logits) and with the temperature.
    """

    rows: int
    classes: tuple[str, ...]
    confusion: npt.NDArray[np.int64]
    uncalibrated: tuple[CalibrationBin, ...]
    calibrated: tuple[CalibrationBin, ...]
    top_errors: tuple[Misclassification, ...]

    @property
    def errors(self) -> int:
        """The number of misclassified rows."""
        return self.rows - int(np.trace(self.confusion))

    def class_pairs(self, max_pairs: int = 10) -> list[ClassPair]:
        """Return the most frequent confusions, most rows first."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:max_pairs]
        cells = [divmod(int(cell), len(self.classes)) for cell in order]
        names, true = self.classes, self.confusion.sum(axis=1)
        return [ClassPair(names[i], names[j], int(wrong[i, j]), float(wrong[i, j] / true[i])) for i, j in cells if wrong[i, j]]


def read_predictions(folder: Path, classes: Sequence[str]) -> PredictionSummary | None:
    """Summarise a run's predictions.csv, read in pieces; None for a run without one. Raises LoralabError for a damaged file."""
    with run_predictions.prediction_errors(folder):
        file = run_predictions.open_predictions(folder)
        if file is None:
            return None
        with file:
            return _summarise(file, tuple(classes))


def read_correct(folder: Path) -> npt.NDArray[np.bool_] | None:
    """Return whether each test row was classified correctly, (rows,), in the file's order; None for a run without predictions.

    Raises LoralabError for a damaged file.
    """
    run_folder.check_recorded(folder, run_folder.PREDICTIONS)
    path = folder / run_folder.PREDICTIONS
    if not exists(path):
        return None
    from pyarrow import compute, csv, string  # an experiment has many such files: Arrow reads two columns eight times as fast

    columns = {"true": string(), "predicted": string()}
    with run_predictions.prediction_errors(folder):
        table = csv.read_csv(
            check_file(path, MAX_PREDICTIONS_BYTES),
            read_options=csv.ReadOptions(block_size=min(2 * MAX_LINE_CHARACTERS, 1 << 25)),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(include_columns=[*columns], column_types=columns),
        )
        # Arrow's own to_numpy imports pandas
        return np.array(compute.equal(table["true"], table["predicted"]).to_pylist(), dtype=bool)


def _summarise(file: Iterable[str], classes: tuple[str, ...]) -> PredictionSummary:
    index = {name: i for i, name in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    uncalibrated, calibrated = np.zeros((2, 3, CALIBRATION_BINS))
    top_errors: list[tuple[float, int, Misclassification]] = []
    count = 0
    for rows in _read_chunks(file):
        true = np.array([index[row["true"]] for row in rows])
        predicted = np.array([index[row["predicted"]] for row in rows])
        confidence = np.array([float(row["confidence"]) for row in rows])
        np.add.at(confusion, (true, predicted), 1)
        calibrated += calibration_totals(confidence, true == predicted)
        if all(f"logit:{name}" in rows[0] for name in classes):
            logits = np.array([[float(row[f"logit:{name}"]) for name in classes] for row in rows])
            raw = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
            uncalibrated += calibration_totals(raw, true == predicted)
        for i in np.flatnonzero(true != predicted):
            row = rows[i]
            error = Misclassification(row["row"], row["true"], row["predicted"], float(confidence[i]), row["text"])
            keep = heapq.heappush if len(top_errors) < MAX_ERRORS else heapq.heappushpop
            keep(top_errors, (error.confidence, -count - int(i), error))  # ties: the earlier row
        count += len(rows)
    ordered = tuple(error for _, _, error in sorted(top_errors, key=lambda item: item[:2], reverse=True))
    return PredictionSummary(count, classes, confusion, calibration_bins(uncalibrated), calibration_bins(calibrated), ordered)


def _read_chunks(file: Iterable[str]) -> Iterator[list[dict[str, str]]]:
    reader = run_predictions.prediction_rows(file)
    while chunk := list(itertools.islice(reader, CHUNK_ROWS)):
        yield chunk
