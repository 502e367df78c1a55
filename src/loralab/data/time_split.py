"""The latest rows by time."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from loralab.data.labels import cell_text
from loralab.data.types import Floats, list_rows
from loralab.errors import LoralabError

_EXAMPLES = "2026-11-27 or 2026-11-27T20:30"


def choose_latest(
    times: Sequence[object], rows: Sequence[int], size: int
) -> tuple[npt.NDArray[np.bool_], tuple[str, str, str], bool] | None:
    """Return which rows are the latest, about `size`, with the last time before them and their first and last time.

    Rows of one time stay together: of the numbers of rows that this allows, the nearest. The third value says whether only some
    times have a time zone. None if all rows are of one time. rows: their row numbers, for messages. Raises LoralabError for
    values that are no times.
    """
    keys, mixed = parse_times(times, rows)
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order])) + 1  # positions in `order` where a later time begins
    if not len(starts):
        return None
    start = int(starts[np.argmin(np.abs(len(keys) - starts - size))])
    late = np.zeros(len(keys), dtype=np.bool_)
    late[order[start:]] = True
    before, first, last = (str(times[int(order[i])]) for i in (start - 1, start, -1))
    return late, (before, first, last), mixed


def parse_times(values: Sequence[object], rows: Sequence[int]) -> tuple[Floats, bool]:
    """Return times as numbers that sort like them: numbers, dates, or texts in ISO 8601. The second: only some have a time zone.

    rows: their row numbers, for messages. Raises LoralabError for a value that is no time, and for numbers beside dates.
    """
    read = [_time(value) for value in values]
    if unreadable := [i for i, time in enumerate(read) if time is None]:
        empty = [i for i in unreadable if cell_text(values[i]) is None]
        named = [rows[i] for i in (empty or unreadable)]
        if empty:
            have = "has" if len(named) == 1 else "have"
            raise LoralabError(f"data.time: {list_rows(named)} {have} no time: fill it in, or leave data.time out")
        raise LoralabError(
            f"data.time: {str(values[unreadable[0]])!r} in {list_rows(named)} is not a time: write ISO 8601, such as {_EXAMPLES}, "
            "or numbers that grow with time; or leave data.time out"
        )
    kinds = [time[0] for time in read if time]
    if "number" in kinds and {*kinds} != {"number"}:
        number, date = kinds.index("number"), next(i for i, kind in enumerate(kinds) if kind != "number")
        raise LoralabError(
            f"data.time holds numbers ({values[number]} in row {rows[number]}) and dates ({values[date]} in row "
            f"{rows[date]}): write one kind, or leave data.time out"
        )
    return np.array([time[1] for time in read if time], dtype=np.float64), len({*kinds}) > 1


def _time(value: object) -> tuple[str, float] | None:
    """Return the kind of a time (number, zone, local) and a number that sorts like it; None if it is no time."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, datetime.date):
        return _date(value)
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return _iso(text)
    return ("number", number) if math.isfinite(number) else None


def _iso(text: str) -> tuple[str, float] | None:
    """Read ISO 8601, also with slashes or dots after the year: 2026/11/27 has one reading, 11/12/2026 has two."""
    if text[:4].isdecimal() and text[4:5] in ("/", "."):
        text = text[:10].replace(text[4], "-") + text[10:]
    try:
        return _date(datetime.datetime.fromisoformat(text))
    except ValueError:
        return None


def _date(value: datetime.date) -> tuple[str, float] | None:
    if value != value:  # pandas' NaT is a datetime, too
        return None
    time = value if isinstance(value, datetime.datetime) else datetime.datetime(value.year, value.month, value.day)
    kind = "local" if time.tzinfo is None else "zone"
    time = time.replace(tzinfo=datetime.UTC) if time.tzinfo is None else time
    # Not timestamp(): years before 1970 and the last microsecond count as well.
    return kind, (time - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) / datetime.timedelta(seconds=1)
