"""scikit-learn's own checks of estimators. They give arrays of numbers, so the estimator under test writes numbers as texts."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data
from tiny import _WORDS, make_checkpoint

from loralab import LoraTextClassifier

pytestmark = pytest.mark.slow


@cache
def base() -> str:
    """Return the folder of a tiny encoder. The checks clone estimators before any fixture runs."""
    folder = Path(tempfile.gettempdir()) / f"loralab-checks-{os.getuid()}" / "bert"
    if not (folder / "config.json").is_file():
        make_checkpoint(folder)
    return str(folder)


class OfNumbers(LoraTextClassifier):
    """Classifies rows of numbers, written as texts."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> OfNumbers:  # type: ignore[override]  # noqa: N803
        self.base_ = base()
        numbers = validate_data(self, X, dtype=np.float64)
        settings = {"model.base": base(), "train.precision": "fp32", **(self.settings or {})}
        own, self.settings = self.settings, settings
        try:
            return super().fit(_texts(numbers), y, sample_weight)  # type: ignore[return-value]
        finally:
            self.settings = own

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        check_is_fitted(self)
        return super().predict_proba(_texts(validate_data(self, X, dtype=np.float64, reset=False)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string, tags.input_tags.one_d_array = True, False, False
        return tags


def _texts(numbers: Any) -> list[str]:
    """Write each number as one of the encoder's words, by its column and its size."""
    words = [word for group in _WORDS.values() for word in group.split()]
    return [" ".join(words[(7 * i + round(2 * value)) % len(words)] for i, value in enumerate(row)) for row in numbers.tolist()]


EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "rows of weight 0 and repeated rows change the batches",
    "check_classifiers_train": "a random encoder of three layers does not reach 83 % on blobs of numbers; on texts it learns",
}
"""Checks that fail, and why."""


@parametrize_with_checks(
    [OfNumbers(epochs=6, rank=2, settings={"train.head_init": "probe"})],
    expected_failed_checks=lambda estimator: EXPECTED,
)
def test_conventions_of_scikit_learn(estimator: OfNumbers, check: Any) -> None:
    check(estimator)
