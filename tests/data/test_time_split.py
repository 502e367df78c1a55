"""The latest rows are the test, those before them validation; times are read in one way or refused."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.config import DataConfig
from loralab.data.split_remarks import split_remarks
from loralab.data.splits import Splits, split
from loralab.data.time_split import parse_times
from loralab.data.types import Examples
from loralab.errors import LoralabError


def examples(times: Sequence[object], first: int = 0) -> Examples:
    labels = np.arange(len(times)) % 2
    rows = np.arange(first, first + len(times))
    return Examples([f"text {i}" for i in rows], labels, rows, ("a", "b"), times=times)


def divide(times: Sequence[object], **settings: Any) -> Splits:
    return split(examples(times), DataConfig(time="date", **settings))


def times_of(parts: Splits) -> dict[str, list[str]]:
    return {name: [str(time) for time in part.times] for name, part in parts.parts().items() if part.times}


DAYS = [f"2026-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(100)]


def test_the_latest_rows_are_the_test_and_those_before_them_validation() -> None:
    parts = divide(DAYS)
    times = times_of(parts)
    assert max(times["train"]) < min(times["validation"])
    assert max(times["validation"]) < min(times["test"])
    remarks = split_remarks(parts)
    first, last, before = min(times["test"]), max(times["test"]), max(times["validation"])
    assert any(f"the latest {len(parts.test)} rows by data.time, {first} to {last}, after {before}" in remark for remark in remarks)
    assert any(remark.startswith("validation: the") for remark in remarks)


def test_the_seed_does_not_change_the_latest_rows() -> None:
    assert divide(DAYS, split_seed=1).fingerprints() == divide(DAYS, split_seed=2).fingerprints()


def test_rows_of_one_time_stay_together_and_the_nearest_boundary_is_taken() -> None:
    years = [2024] * 10 + [2025] * 50 + [2026] * 15
    parts = divide(years, validation=0.0)
    assert set(times_of(parts)["test"]) == {"2026"}
    assert any("test: the latest 15 rows by data.time, 2026, after 2025" in remark for remark in split_remarks(parts))
    parts = divide([1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3], test=1.0, validation=0.0)
    assert len(parts.test) == 6
    assert any("test: the latest 6 rows instead of 1 by data.time, 3, after 2" in remark for remark in split_remarks(parts))


def test_too_few_times_are_said_or_refused() -> None:
    parts = divide([1, 1, 1, 1, 2, 2])
    assert parts.validation is None
    assert "data.validation: no validation rows, because all 4 rows left are of one time, 1" in split_remarks(parts)
    with pytest.raises(LoralabError, match=r"all 10 rows left are of one time, 1; leave data\.time out"):
        divide([1] * 10)
    with pytest.raises(LoralabError, match=r"write data\.validation=0, or leave data\.time out"):
        divide([1, 1, 1, 1, 2, 2], validation=0.2)


def test_a_class_of_the_latest_rows_alone_is_refused_with_the_reason() -> None:
    source = examples(range(20))
    late = Examples(source.texts, (np.arange(20) > 17).astype(np.int64), source.rows, source.classes, times=source.times)
    with pytest.raises(LoralabError, match=r"no training row is left of class 'b': its rows are among the latest by data\.time"):
        split(late, DataConfig(time="date"))


def test_given_files_that_are_not_later_are_said() -> None:
    parts = split(examples(range(20)), DataConfig(time="date", validation=0.0), test=examples([18, 19, 20, 21]))
    assert "2 of 4 test rows are not later (data.time) than the last training row" in split_remarks(parts)


@pytest.mark.parametrize(
    ("values", "order"),
    [
        (["2026-01-02", "2025-12-31", "2026-01-01T12:00"], [1, 2, 0]),
        (["2026/1/2".replace("/1/2", "/01/02"), "2025.12.31 10:00"], [1, 0]),
        ([10, 9, 100], [1, 0, 2]),
        (["10", "9", "100.5", "1e1"], [1, 0, 3, 2]),
        ([datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 1, 5)], [1, 0]),
        ([pd.Timestamp("2026-01-02"), pd.Timestamp("2026-01-01T00:00:00.000001")], [1, 0]),
        ([np.datetime64("2026-01-02"), np.datetime64("2026-01-01T05:00")], [1, 0]),
        (["2026-01-01T00:00:00+02:00", "2025-12-31T23:00:00Z"], [0, 1]),
        (["1969-12-31", "1850-01-01"], [1, 0]),
        ([" 2026-01-02 ", "2026-01-01"], [1, 0]),
        (["20260102", "20251231"], [1, 0]),
    ],
)
def test_times_are_ordered_by_what_they_say(values: list[Any], order: list[int]) -> None:
    assert np.argsort(parse_times(values, range(len(values)))[0], kind="stable").tolist() == order


def test_times_with_and_without_a_zone_are_said() -> None:
    assert parse_times(["2026-01-01T01:00", "2026-01-01T01:30+01:00"], [0, 1])[0].argmin() == 1
    remarks = split_remarks(divide([*DAYS[:50], *(f"{day}T10:00+01:00" for day in DAYS[50:])]))
    assert "data.time: times without a time zone are read as UTC, like the others" in remarks


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2026-01-01", "yesterday", "x"], "'yesterday' in rows 11, 12 is not a time: write ISO 8601"),
        (["01/02/2026", "2026-01-01"], "'01/02/2026' in row 10"),
        (["2026-13-01"], "'2026-13-01' in row 10"),
        (["2026-01-01", "5"], "numbers (5 in row 11) and dates (2026-01-01 in row 10)"),
        (["inf", "1"], "'inf' in row 10"),
        ([True], "'True' in row 10"),
        ([1.0, float("nan")], "row 11 has no time: fill it in"),
        (["2026-01-01", None, "", "soon"], "rows 11, 12 have no time"),
        ([pd.NaT, pd.Timestamp("2026-01-01")], "row 10 has no time"),
    ],
)
def test_values_that_are_no_time_are_named(values: list[Any], expected: str) -> None:
    with pytest.raises(LoralabError) as error:
        parse_times(values, range(10, 10 + len(values)))
    assert expected in str(error.value)


def test_row_numbers_are_those_of_the_file() -> None:
    source = examples(["2026-01-01", "soon", "2026-01-02"], first=40)
    with pytest.raises(LoralabError, match="'soon' in row 41"):
        split(source, DataConfig(time="date"))
