"""Held-out rows: every class that has enough, whole groups, the latest."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from loralab.config import DataConfig
from loralab.data.hold_out import parse_times
from loralab.data.splits import Splits, split, split_remarks
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


@pytest.mark.parametrize("rare", [[1] * 10, [1, 2], [2, 2, 1], [3]])
def test_classes_with_too_few_rows_keep_a_training_row(rare: list[int]) -> None:
    parts = divide(examples([450, 450, *rare]))
    assert min(counts(parts.train)) >= 1
    for i, rows in enumerate(rare, 2):
        assert (rows > 2) <= counts(parts.test)[i] <= max(0, rows - 1)
        assert counts(parts.validation)[i] <= max(0, rows - 1)
    remarks = " ".join(split_remarks(parts))
    assert ("no test row of" in remarks) == (min(rare) < 3)


def test_a_rare_class_is_monitored_from_its_third_row_on() -> None:
    parts = divide(examples([98, 98, 4]))
    assert (counts(parts.validation)[2], counts(parts.test)[2], counts(parts.train)[2]) == (1, 1, 2)
    assert any("few validation rows per class" in remark and "class 2 1" in remark for remark in split_remarks(parts))


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


# Groups


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_divided(seed: int) -> None:
    source = examples([60, 60], groups=[f"author {i % 30}" for i in range(120)])
    parts = divide(source, group="author", split_seed=seed)
    groups = [{str(part.groups[i]) for i in range(len(part))} for part in parts.parts().values() if part.groups]
    assert len(groups) == 3
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert 0.1 < len(parts.test) / len(source) < 0.3
    assert min(counts(parts.test)) > 0
    assert any(f"test: {len(parts.test)} rows of" in remark and "groups of data.group" in remark for remark in split_remarks(parts))
    again = divide(source, group="author", split_seed=seed)
    assert again.test.rows.tolist() == parts.test.rows.tolist()


def test_rows_without_a_group_are_named() -> None:
    with pytest.raises(LoralabError, match=r"data\.group: rows 1, 3 have no group"):
        divide(examples([5, 5], groups=["a", None, "b", "", *"cdefgh"]), group="g")


def test_too_few_groups_are_refused_with_an_amount_that_works() -> None:
    source = examples([30, 30], groups=[i % 3 for i in range(60)])
    with pytest.raises(LoralabError, match=r"there are 3 groups: write data\.test=0\.33"):
        divide(source, group="g")
    divide(source, group="g", test=0.34, validation=0)


# Times


def test_the_latest_rows_are_the_test_and_those_before_them_validation() -> None:
    days = [f"2026-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(100)]
    parts = divide(examples([50, 50], times=days), time="date")
    assert parts.validation is not None
    times = [[str(part.times[i]) for i in range(len(part))] for part in (parts.train, parts.validation, parts.test) if part.times]
    assert max(times[0]) < min(times[1]) <= max(times[1]) < min(times[2])
    assert any(f"latest rows by data.time, from {min(times[2])}" in remark for remark in split_remarks(parts))


@pytest.mark.parametrize(
    ("values", "order"),
    [
        (["2026-01-02", "2025-12-31", "2026-01-01T12:00"], [1, 2, 0]),
        ([10, 9, 100], [1, 0, 2]),
        (["10", "9", "100.5"], [1, 0, 2]),
        ([datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 1, 5)], [1, 0]),
        (["2026-01-01T00:00:00+02:00", "2025-12-31T23:00:00Z"], [0, 1]),
    ],
)
def test_times_are_ordered_by_what_they_say(values: list[Any], order: list[int]) -> None:
    assert np.argsort(parse_times(values, range(len(values)))).tolist() == order


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2026-01-01", "yesterday", None], "'yesterday' in rows 1, 2 is not a time: write ISO 8601"),
        (["01/02/2026", "2026-01-01"], "'01/02/2026' in row 0"),
        (["2026-01-01", "5"], "numbers and dates"),
        ([float("nan")], "nan in row 0"),
    ],
)
def test_values_that_are_no_time_are_named(values: list[Any], expected: str) -> None:
    with pytest.raises(LoralabError) as error:
        parse_times(values, range(len(values)))
    assert expected in str(error.value)


def test_rows_of_one_time_cannot_be_divided() -> None:
    with pytest.raises(LoralabError, match="all rows are of one time"):
        divide(examples([5, 5], times=[1] * 10), time="t")
