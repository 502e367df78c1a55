"""Remarks on splits: classes with few rows, and texts that two parts share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from loralab.data.split_remarks import split_remarks
from loralab.data.splits import Splits
from loralab.data.types import Examples

CLASSES = ("a", "b", "c")
LONG = "the courier left the parcel with a neighbour who opened it by mistake and sent it back a week later without a word"


def part(counts: Sequence[int], texts: Sequence[str] = (), name: str = "row", first: int = 0) -> Examples:
    labels = np.repeat(np.arange(len(counts)), counts)
    own = [*texts, *(f"{name} {i}" for i in range(len(labels) - len(texts)))]
    return Examples(own, labels, np.arange(first, first + len(labels)), CLASSES[: len(counts)])


def remarks(train: Examples, validation: Examples | None, test: Examples) -> list[str]:
    return split_remarks(Splits(train, validation, test))


def test_parts_with_enough_rows_need_no_remark() -> None:
    assert remarks(part([9, 9]), part([3, 3], name="v"), part([3, 3], name="t")) == []


@pytest.mark.parametrize(
    ("validation", "test", "expected"),
    [
        ([3, 3, 0], [3, 3, 3], "no validation row of 1 class, which its macro F1 leaves out: c"),
        ([3, 0, 0], [3, 3, 3], "no validation row of 2 classes, which its macro F1 leaves out: b, c"),
        ([3, 3, 3], [3, 0, 3], "no test row of 1 class, which its macro F1 leaves out: b"),
        ([3, 3, 0], [3, 3, 0], "classes with training rows only, which therefore have no scores: c 9 (training rows)"),
        (
            [3, 1, 3],
            [2, 5, 3],
            "classes with few validation or test rows, whose scores are rough: a 9 + 3 + 2, b 9 + 1 + 5 "
            "(training + validation + test rows)",
        ),
    ],
)
def test_classes_without_rows_or_with_few_are_counted(validation: list[int], test: list[int], expected: str) -> None:
    assert expected in remarks(part([9, 9, 9]), part(validation, name="v"), part(test, name="t"))


def test_without_validation_rows_the_test_rows_count() -> None:
    assert remarks(part([9, 9]), None, part([3, 1], name="t")) == [
        "classes with few test rows, whose scores are rough: b 9 + 1 (training + test rows)"
    ]


def test_a_long_list_of_classes_ends() -> None:
    classes = tuple(f"c{i}" for i in range(40))
    many = [Examples([f"{n} {i}" for i in range(40)], np.arange(40), np.arange(40), classes) for n in "xyz"]
    assert "and 32 more classes" in " ".join(remarks(many[0], many[1], many[2]))


def test_texts_in_two_parts_are_counted_without_case_and_white_space() -> None:
    train, test = part([9, 9], ["Oil  up", "b"]), part([3, 3], ["oil up", "OIL\tUP ", "c"], "t")
    assert remarks(train, None, test) == ["2 of 6 test texts are also training texts: test scores will be too high"]


def test_shared_texts_of_every_pair_of_parts_are_reported() -> None:
    train, validation, test = part([9, 9], ["x", "y"]), part([3, 3], ["x", "z"], "v"), part([3, 3], ["y", "z"], "t")
    assert remarks(train, validation, test) == [
        "1 of 6 validation texts are also training texts: validation scores will be too high",
        "1 of 6 test texts are also training texts: test scores will be too high",
        "1 of 6 test texts are also validation texts: test scores may be too high",
    ]


def test_near_duplicates_are_counted_apart_with_an_example() -> None:
    train = part([9, 9], ["other", LONG], first=100)
    test = part([3, 3], [LONG, LONG.upper(), LONG.replace("parcel", "box"), LONG + "!"], "t", first=200)
    assert remarks(train, None, test) == [
        "2 of 6 test texts are also training texts: test scores will be too high",
        "2 of 6 test texts nearly equal training texts, such as test row 202 and training row 101: test scores will be too high",
    ]


def test_empty_texts_are_no_duplicates() -> None:
    found = remarks(part([9, 9], ["", " "]), None, part([3, 3], ["", "\t"], "t"))
    assert not any("also" in remark or "nearly" in remark for remark in found)
