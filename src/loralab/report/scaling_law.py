"""The power law of an experiment's errors by training rows, as figures, tables and findings show it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loralab import stats
from loralab.errors import LoralabError

SMALL_GAIN = 0.01
"""Returns diminish when doubling the rows reduces the error by less than this."""
RESAMPLES = 2000
MAX_EXTRAPOLATION = 4
"""The law is drawn up to this multiple of the largest number of rows."""


@dataclass(frozen=True)
class ScalingLaw:
    """rows, errors: one value per run. at: rows of the predictions, twice and four times the largest size first.

    intervals, checked: for new test rows and new seeds; None with too few seeds at a size. checked: the law fitted without the
    largest size. diminishing: rows from which doubling gains less than `SMALL_GAIN`.
    """

    rows: tuple[float, ...]
    errors: tuple[float, ...]
    law: stats.PowerLaw
    intervals: stats.LawIntervals | None
    checked: stats.HoldOut | None
    at: tuple[float, ...]
    diminishing: float


def fit_scaling_law(groups: Mapping[float, npt.NDArray[np.bool_]]) -> ScalingLaw | None:
    """Fit the law to training rows → correct predictions, (seeds, test rows). Return None for too few sizes."""
    sizes = sorted(groups)
    rows = tuple(size for size in sizes for _ in groups[size])
    errors = tuple(float(1 - correct.mean()) for size in sizes for correct in groups[size])
    try:
        law = stats.fit_power_law(rows, errors)
    except (LoralabError, ValueError):
        return None
    last = float(MAX_EXTRAPOLATION * max(rows))
    at = (2.0 * max(rows), last, *np.geomspace(min(rows), last, 25).tolist())
    intervals: stats.LawIntervals | None = None
    checked: stats.HoldOut | None = None
    if min(map(len, groups.values())) >= stats.FEWEST_SEEDS:
        draws = 1 - stats.resampled_means([groups[size] for size in sizes], RESAMPLES)
        intervals = stats.law_intervals(rows, errors, draws, at=at, gain=SMALL_GAIN)
        with suppress(LoralabError):
            checked = stats.hold_out_last(rows, errors, draws)
    return ScalingLaw(rows, errors, law, intervals, checked, at, stats.diminishing(law, gain=SMALL_GAIN))
