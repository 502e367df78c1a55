"""Held-out rows: every class that has enough has one, and amounts grow or are refused for that."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loralab.config import DataConfig
from loralab.data.hold_out import Amount, allocate
from loralab.data.split_remarks import split_remarks
from loralab.data.splits import Splits, split
from loralab.data.types import Examples
from loralab.errors import LoralabError


def examples(counts: Sequence[int], **extra: Any) -> Examples:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = np.random.default_rng(0).permutation(len(labels))
    texts = [f"text {i}" for i in range(len(labels))]
    return Examples(texts, labels[order], np.arange(len(labels)), tuple(f"class {i}" for i in range(len(counts))), **extra)


def counts(part: Examples | None) -> list[int]:
    return [] if part is None else np.bincount(part.require_labels(), minlength=len(part.classes)).tolist()


def divide(source: Examples, **settings: Any) -> Splits:
    return split(source, DataConfig(**settings))


@pytest.mark.parametrize(("classes", "rows"), [(40, 8), (77, 6), (20, 5), (150, 10), (80, 5), (3, 3), (5, 4), (2, 3)])
def test_every_class_with_three_rows_is_in_every_part_by_default(classes: int, rows: int) -> None:
    parts = divide(examples([rows] * classes))
    for part in (parts.train, parts.validation, parts.test):
        assert min(counts(part)) >= 1
    assert sum(map(sum, map(counts, (parts.train, parts.validation, parts.test)))) == classes * rows


@pytest.mark.parametrize("rare", [[1] * 10, [1, 2], [2, 2, 1], [3], [2], [1]])
def test_classes_with_too_few_rows_are_in_training_as_a_whole(rare: list[int]) -> None:
    parts = divide(examples([450, 450, *rare]))
    for i, rows in enumerate(rare, 2):
        expected = [rows, 0, 0] if rows < 3 else [1, 1, 1]
        assert [counts(part)[i] for part in (parts.train, parts.validation, parts.test)] == expected
    remarks = " ".join(split_remarks(parts))
    assert ("classes with training rows only" in remarks) == (min(rare) < 3)


def test_two_rows_are_enough_for_two_parts() -> None:
    parts = divide(examples([50, 50, 2]), validation=0.0)
    assert (counts(parts.train)[2], counts(parts.test)[2]) == (1, 1)
    parts = split(examples([50, 50, 2]), DataConfig(), test=examples([5, 5, 1]))
    assert (counts(parts.train)[2], counts(parts.validation)[2]) == (1, 1)


@pytest.mark.parametrize("rows", [[2, 2], [2, 2, 2], [2] * 10, [3, 1], [1, 5], [2, 2, 3]])
def test_very_small_classes_give_a_row_only_if_nothing_else_can(rows: list[int]) -> None:
    parts = divide(examples(rows))
    assert min(counts(parts.train)) >= 1
    assert parts.validation is not None
    assert sum(map(sum, map(counts, (parts.train, parts.validation, parts.test)))) == sum(rows)


def test_without_a_row_to_spare_there_is_no_validation_and_that_is_said() -> None:
    parts = divide(examples([2, 1]))
    assert parts.validation is None
    assert "data.validation: no validation rows, because no class has a row to spare" in split_remarks(parts)
    with pytest.raises(
        LoralabError,
        match=r"each class has one row: add rows, give a file with data\.test=FILE, or train without a test with data\.test=0",
    ):
        divide(examples([1, 1, 1]))


def test_a_rare_class_is_monitored_from_its_third_row_on() -> None:
    parts = divide(examples([98, 98, 4]))
    assert (counts(parts.validation)[2], counts(parts.test)[2], counts(parts.train)[2]) == (1, 1, 2)
    assert any("classes with few validation or test rows" in r and "'class 2' 2 + 1 + 1" in r for r in split_remarks(parts))


def test_a_default_that_grows_is_said() -> None:
    remarks = split_remarks(divide(examples([8] * 40)))
    assert "data.validation: 40 validation rows instead of 26, one for each class that has enough rows" in remarks


@pytest.mark.parametrize(
    ("counts_", "settings", "proposed"),
    [
        ([8] * 40, {"validation": 5.0}, "data.validation=40"),
        ([8] * 40, {"validation": 0.05}, "data.validation=40"),
        ([8] * 40, {"test": 10.0}, "data.test=40"),
        ([5] * 20, {"validation": 79.0}, "data.validation=60"),
        ([20, 20], {"validation": 0.001}, "data.validation=2"),
    ],
)
def test_an_amount_that_cannot_work_is_refused_with_one_that_can(
    counts_: list[int], settings: dict[str, Any], proposed: str
) -> None:
    with pytest.raises(LoralabError) as error:
        divide(examples(counts_), **settings)
    assert proposed in str(error.value)
    name, value = proposed.removeprefix("data.").split("=")
    divide(examples(counts_), **{**settings, name: float(value)})


def test_more_rows_than_there_are_is_said_in_plain_words() -> None:
    with pytest.raises(LoralabError) as error:
        divide(examples([16] * 4), validation=240.0)
    assert str(error.value) == "data.validation=240 asks for 240 rows of 51; data.validation=4 to data.validation=47 would do"


@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=12),
    st.sampled_from([None, 0.0, 0.02, 0.3, 0.7, 1.0, 5.0, 30.0]),
    st.sampled_from([None, 0.02, 0.3, 0.7, 1.0, 5.0, 30.0]),
)
@settings(max_examples=300, deadline=None)
def test_proposed_amounts_work(rows: list[int], validation: float | None, test: float | None) -> None:
    amounts = {"validation": validation, "test": test}
    for _ in range(3):
        try:
            parts = divide(examples(rows), **amounts)
        except LoralabError as error:
            proposed = re.search(r"; data\.(\w+)=(\d+)", str(error))
            if proposed is None:  # no number of rows works
                return
            assert amounts[proposed[1]] != float(proposed[2])
            amounts[proposed[1]] = float(proposed[2])
        else:
            assert min(counts(parts.train)) >= 1
            return
    pytest.fail("the amounts that the errors propose do not work")


# Bit for bit


GOLDEN = {
    "train": "5b9308acf5a151ec",
    "validation": "08532ebc2cd26f17",
    "test": "c171ea79109e5644",
}


def test_splits_of_classes_with_enough_rows_do_not_change() -> None:
    parts = divide(examples([60, 30, 17, 11]), split_seed=3, max_test_samples=18)
    assert {name: str(value["fingerprint"]) for name, value in parts.fingerprints().items()} == GOLDEN


@pytest.mark.parametrize(
    ("counts_", "size", "least", "most", "expected"),
    [
        ([50, 30, 20], 10, [0, 0, 0], [50, 30, 20], [5, 3, 2]),
        ([50, 30, 20], 3, [1, 1, 1], [49, 29, 19], [1, 1, 1]),
        ([90, 5, 5], 10, [1, 1, 1], [90, 5, 5], [8, 1, 1]),
        ([90, 5, 5], 10, [0, 0, 0], [5, 5, 5], [5, 3, 2]),
        ([1, 1, 1], 2, [0, 0, 0], [1, 1, 1], [1, 1, 0]),
        ([10, 10], 20, [1, 1], [10, 10], [10, 10]),
        ([6, 1, 1, 1], 4, [1, 1, 1, 1], [5, 1, 1, 1], [1, 1, 1, 1]),
    ],
)
def test_rows_are_allocated_in_proportion_within_limits(
    counts_: list[int], size: int, least: list[int], most: list[int], expected: list[int]
) -> None:
    assert allocate(*map(np.array, (counts_,)), size, np.array(least), np.array(most)).tolist() == expected


@pytest.mark.parametrize(
    ("value", "of", "rows"), [(0.0, 9, 0), (0.25, 10, 2), (0.35, 10, 4), (0.999, 10, 10), (1.0, 9, 1), (7.0, 9, 7), (20.0, 9, 20)]
)
def test_amounts_are_fractions_or_numbers_of_rows(value: float, of: int, rows: int) -> None:
    assert Amount(value, "data.test").rows(of) == rows


@pytest.mark.parametrize("value", [-1.0, -0.1, float("inf"), float("nan")])
def test_other_amounts_are_refused(value: float) -> None:
    with pytest.raises(LoralabError, match=r"^data\.test="):
        Amount(value, "data.test").rows(9)


@pytest.mark.parametrize(
    ("size", "of", "least", "most", "message"),
    [
        (2, 9, 3, 5, "data.test=2 holds out 2 of 9 rows, why; data.test=3 to data.test=5 would do"),
        (9, 9, 3, 3, "data.test=2 holds out 9 of 9 rows, why; data.test=3 would do"),
        (10, 9, 1, 0, "data.test=2 asks for 10 rows of 9, why"),
    ],
)
def test_refusals_name_amounts_that_work(size: int, of: int, least: int, most: int, message: str) -> None:
    assert str(Amount(2.0, "data.test").refuse(size, of, least, most, ", why")) == message


@pytest.mark.parametrize(
    ("rows", "test", "message"),
    [
        ([5, 5], "1", "holds out 1 of 10 rows, but 2 classes have enough rows for one; data.test=2 to data.test=8 would do"),
        ([5, 5], "9", "holds out 9 of 10 rows, but each class keeps one; data.test=2 to data.test=8 would do"),
        ([5, 5], "10", "holds out 10 of 10 rows, but each class keeps one"),
        ([5, 5], "11", "asks for 11 rows of 10; data.test=2 to data.test=8 would do"),
        ([5, 5], "0.01", "holds out 0 of 10 rows; data.test=2 to data.test=8 would do"),
    ],
)
def test_amounts_that_do_not_work_are_refused_with_those_that_do(rows: list[int], test: str, message: str) -> None:
    with pytest.raises(LoralabError, match=re.escape(message)):
        divide(examples(rows), test=float(test), validation=0)
