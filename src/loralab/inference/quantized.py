"""Decide on labelled rows whether 8-bit weights cost accuracy: McNemar's test and intervals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loralab.data.splits import load_splits
from loralab.errors import LoralabError
from loralab.stats import Interval, mcnemar, wilson
from loralab.storage import run_folder, run_predictions

MAX_ROWS, LEVEL = 2000, 0.05
SMALL_LOSS = 0.02
"""A loss of accuracy that is mentioned if the rows cannot exclude it."""


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with their classes, as numbers. split: the run's split that they come from."""

    texts: list[str]
    labels: npt.NDArray[np.int64]
    split: str


@dataclass(frozen=True)
class AccuracyComparison:
    """Accuracy before and after quantization, on the same rows, with 95 % intervals (Wilson; paired bootstrap for the difference).

    lost, gained: rows that only the original, or only the quantized model classifies correctly. p: McNemar's mid-p test.
    """

    split: str
    rows: int
    original: Interval
    quantized: Interval
    difference: Interval
    lost: int
    gained: int
    p: float

    @property
    def worse(self) -> bool:
        """Whether the test shows a loss of accuracy."""
        return self.lost > self.gained and self.p < LEVEL

    @property
    def caution(self) -> str:
        """What the rows cannot exclude, if it matters: with no row lost of n, a loss of 3 / n (the rule of three)."""
        bound = max(-self.difference.low, 3 / self.rows)
        return f"{self.rows:,} rows cannot exclude a loss of accuracy of {100 * bound:.1f} points" if bound > SMALL_LOSS else ""

    def __str__(self) -> str:
        low, difference, high = (100 * value for value in self.difference)
        return (
            f"accuracy {self.quantized.estimate:.1%} in 8 bits against {self.original.estimate:.1%} on {self.rows:,} {self.split} "
            f"rows: {difference:+.2f} points (95 % CI {low:+.2f} to {high:+.2f}; McNemar p = {self.p:.3f}, {self.lost} lost and "
            f"{self.gained} gained)"
        )


def labelled_texts(run: Path, classes: tuple[str, ...]) -> LabelledTexts | None:
    """Return the run's validation rows; its test rows if there are none or their file has moved; None without either."""
    try:
        splits, _ = load_splits(run_folder.read_config(run).data)
        rows = splits.validation
        if rows is not None and len(rows) and rows.classes == classes:
            labels = np.asarray(rows.require_labels()[:MAX_ROWS], dtype=np.int64)
            return LabelledTexts(list(rows.texts[:MAX_ROWS]), labels, "validation")
    except LoralabError:
        pass
    texts, truths = run_predictions.read_test_texts(run, MAX_ROWS)
    if not texts:
        return None
    return LabelledTexts(texts, np.array([classes.index(truth) for truth in truths], dtype=np.int64), "test")


def compare_accuracy(
    rows: LabelledTexts, original: npt.NDArray[np.float32], quantized: npt.NDArray[np.float32]
) -> AccuracyComparison:
    """Compare the logits (n, classes) of both models with the classes."""
    before, after = (logits.argmax(axis=1) == rows.labels for logits in (original, quantized))
    test, n = mcnemar(after, before), len(rows.labels)
    intervals = wilson(int(before.sum()), n), wilson(int(after.sum()), n)
    return AccuracyComparison(rows.split, n, *intervals, test.interval, test.only_b, test.only_a, test.p)
