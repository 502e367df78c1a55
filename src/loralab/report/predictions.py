"""predictions.csv → confusion matrix, calibration and the most confident errors; read once, in pieces."""

from __future__ import annotations

import csv
import heapq
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loralab.errors import LoralabError
from loralab.metrics import CALIBRATION_BINS, CalibrationBin, calibration_bins, calibration_totals
from loralab.storage import run_folder
from loralab.storage.files import csv_field_limit

MAX_ERRORS, CHUNK_ROWS = 12, 4096
MAX_FIELD_SIZE = 1 << 24


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
    path = folder / run_folder.PREDICTIONS
    if not path.is_file():
        return None
    with _read_errors(path):
        return _summarise(path, tuple(classes))


def read_correct(folder: Path) -> npt.NDArray[np.bool_] | None:
    """Return whether each test row was classified correctly, (rows,), in the file's order; None for a run without predictions.

    Raises LoralabError for a damaged file.
    """
    path = folder / run_folder.PREDICTIONS
    if not path.is_file():
        return None
    from pyarrow import compute, csv, string  # an experiment has many such files: Arrow reads two columns eight times as fast

    columns = {"true": string(), "predicted": string()}
    with _read_errors(path):
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(block_size=2 * MAX_FIELD_SIZE),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(include_columns=[*columns], column_types=columns),
        )
        # Arrow's own to_numpy imports pandas
        return np.array(compute.equal(table["true"], table["predicted"]).to_pylist(), dtype=bool)


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, LookupError, csv.Error) as error:
        raise LoralabError(f"cannot read {path} ({error!r}): restore it, or delete it for a report without predictions") from error


def _summarise(path: Path, classes: tuple[str, ...]) -> PredictionSummary:
    index = {name: i for i, name in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    uncalibrated, calibrated = np.zeros((2, 3, CALIBRATION_BINS))
    top_errors: list[tuple[float, int, Misclassification]] = []
    count = 0
    for rows in _read_chunks(path):
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


def _read_chunks(path: Path) -> Iterator[list[dict[str, str]]]:
    with csv_field_limit(MAX_FIELD_SIZE), path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        while chunk := list(itertools.islice(reader, CHUNK_ROWS)):
            yield chunk
