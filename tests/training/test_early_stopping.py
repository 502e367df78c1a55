"""Early stopping, and the choice of the best weights."""

from __future__ import annotations

import math

import pytest

from loralab.training.callbacks import EarlyStopping


def improvements(stopping: EarlyStopping, *values: float) -> list[bool]:
    return [stopping.improved({stopping.monitor: value, "other": -value}) for value in values]


def test_a_lower_loss_is_better() -> None:
    stopping = EarlyStopping("loss")
    assert improvements(stopping, 0.9, 0.7, 0.8, 0.6) == [True, True, False, True]


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "f1:loss", "balance:a/b"])
def test_a_higher_score_of_any_other_name_is_better(name: str) -> None:
    assert improvements(EarlyStopping(name), 0.5, 0.4, 0.6) == [True, False, True]


def test_an_equal_score_is_not_better() -> None:
    assert improvements(EarlyStopping("accuracy"), 0.5, 0.5) == [True, False]


@pytest.mark.parametrize(("name", "values"), [("accuracy", (0.500, 0.505, 0.509, 0.511)), ("loss", (0.500, 0.495, 0.491, 0.489))])
def test_better_means_by_more_than_min_delta_over_the_best(name: str, values: tuple[float, ...]) -> None:
    assert improvements(EarlyStopping(name, min_delta=0.01), *values) == [True, False, False, True]


def test_exhausted_after_patience_evaluations_in_a_row() -> None:
    stopping = EarlyStopping("accuracy", patience=2)
    states = []
    for value in (0.5, 0.4, 0.6, 0.6, 0.5):
        stopping.improved({"accuracy": value})
        states.append(stopping.exhausted)
    assert states == [False, False, False, False, True]


def test_without_patience_it_never_ends() -> None:
    stopping = EarlyStopping("accuracy")
    improvements(stopping, 0.9, *[0.1] * 50)
    assert not stopping.exhausted


def test_a_missing_score_raises() -> None:
    with pytest.raises(KeyError):
        EarlyStopping("accuracy").improved({"loss": 1.0})


@pytest.mark.parametrize("name", ["loss", "accuracy"])
def test_nan_is_never_the_best_score(name: str) -> None:
    assert improvements(EarlyStopping(name), math.nan, 0.5, math.nan) == [False, True, False]
