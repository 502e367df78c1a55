"""Do the probabilities mean what they say? Reliability by bins of confidence, and the error that chance alone would show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loralab.metrics import expected_calibration_error

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BINS = 15


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose confidence lies in (low, high]: how many, how many are right, and their mean confidence."""

    low: float
    high: float
    rows: int
    right: int
    confidence: float


def reliability(probabilities: Floats, labels: Ints, bins: int = BINS) -> list[ReliabilityBin]:
    """Return the bins of equal width that hold rows, from the least confidence up (Guo et al. 2017, figure 1)."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    number = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    found = []
    for i in np.unique(number):
        inside = number == i
        rows, hits = int(inside.sum()), int(right[inside].sum())
        found.append(ReliabilityBin(i / bins, (i + 1) / bins, rows, hits, float(confidence[inside].mean())))
    return found


def error_by_chance(probabilities: Floats, *, rounds: int = 200, seed: int = 0) -> tuple[float, float]:
    """Return mean and 95th percentile of the calibration error that perfect probabilities would show on so few rows.

    Labels are drawn from the probabilities themselves (consistency resampling, Bröcker and Smith 2007): the error is never 0 on
    finite rows, and only what lies above this says anything.
    """
    random = np.random.default_rng(seed)
    edges = probabilities.cumsum(axis=1)[:, :-1]
    errors = [
        expected_calibration_error(probabilities, (random.random((len(edges), 1)) > edges).sum(axis=1), BINS) for _ in range(rounds)
    ]
    return float(np.mean(errors)), float(np.quantile(errors, 0.95))
