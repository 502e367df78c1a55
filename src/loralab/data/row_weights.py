"""Row weights: how much each training row counts in the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from loralab.data.labels import cell_text
from loralab.data.types import Floats, Notice, list_rows
from loralab.errors import LoralabError


def parse_weights(values: Sequence[object], rows: Sequence[int], where: str) -> Floats:
    """Return weights as float64[n]. rows: their row numbers, where: their file and column, both for messages.

    Raises LoralabError for a missing weight, for one that is not a finite number of at least 0, and if all are 0.
    """
    if missing := [row for value, row in zip(values, rows, strict=True) if cell_text(value) is None]:
        have = "has" if len(missing) == 1 else "have"
        raise LoralabError(f"{where}: {list_rows(missing)} {have} no weight: fill it in, or leave data.weight out")
    weights = [_number(value) for value in values]
    if invalid := [i for i, weight in enumerate(weights) if weight is None]:
        listed = list_rows([rows[i] for i in invalid])
        raise LoralabError(
            f"{where}: {str(values[invalid[0]])[:60]!r} in {listed} is not a weight: write finite numbers of at least 0, or leave "
            "data.weight out"
        )
    parsed = np.array(weights, dtype=np.float64)
    check_positive(parsed, where)
    return parsed


def check_positive(weights: Floats, where: str) -> None:
    """Raise LoralabError if no weight is above 0: there is nothing to train on."""
    if not weights.any():
        raise LoralabError(f"{where}: the weights of all {len(weights):,} rows are 0: give some a weight above 0")


def weight_notice(column: str, weights: Floats) -> Notice:
    """Return the notice on the weights of a file's rows: their column and range."""
    return Notice(f"row weights: column {column!r}, from {weights.min():g} to {weights.max():g}")


def scale_weights(weights: Floats | None) -> Floats | None:
    """Return weights with mean 1. None for equal weights: such a run computes exactly what a run without weights does."""
    if weights is None or weights.min() == weights.max():
        return None
    largest = weights / weights.max()  # the sum of huge weights would overflow
    scaled: Floats = largest / largest.mean()
    return scaled


def _number(value: object) -> float | None:
    try:
        number = float(value if isinstance(value, int | float) else str(value))
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None
