"""Rows held out of training: stratified by class, by whole groups, or the latest."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loralab.data.types import Examples, Ints, list_rows
from loralab.errors import LoralabError


@dataclass(frozen=True)
class Amount:
    """How many rows to hold out: a fraction below 1, or a number. setting: its name; default: nobody asked for this amount."""

    value: float
    setting: str
    default: bool = False

    def rows(self, of: int) -> int:
        """Return the number of rows. Raises LoralabError for a number that is none."""
        if not 0 <= self.value < float("inf"):
            raise LoralabError(f"{self.setting}={self.value:g}: give a fraction below 1, a number of rows, or a file")
        return round(self.value * of) if self.value < 1 else int(self.value)


def stratified(labels: Ints, size: int, random: np.random.Generator) -> Ints:
    """Sample `size` positions without replacement, proportionally by class (largest remainders); ascending order."""
    return _sample(labels, _proportional(np.bincount(labels), size), random)


def hold_out(source: Examples, rest: Ints, amount: Amount, random: np.random.Generator, keep: int) -> tuple[Ints, Ints, list[str]]:
    """Divide positions into (remaining, held out), and return the decisions taken.

    With groups, whole groups are held out; with times, the latest rows. Otherwise classes keep their proportions, and each class
    with more than `keep` rows has a row held out. A default amount grows if there are more such classes than rows. Raises
    LoralabError if an amount that somebody asked for cannot do that, with one that can.
    """
    size = amount.rows(len(rest))
    if not amount.value:
        return rest, rest[:0], []
    if source.times is not None:
        return _latest(source.times, rest, size, amount)
    if source.groups is not None:
        return _whole_groups(source, rest, size, amount, random)
    labels = source.require_labels()[rest]
    counts = np.bincount(labels, minlength=len(source.classes))
    able, spare = counts > keep, np.maximum(counts - 1, 0)
    needed, most = int(able.sum()), int(spare.sum())
    notices = []
    if not needed <= size <= most or not size:
        if not amount.default:
            advice = f": {amount.setting}={needed} to {amount.setting}={most} would do" if 0 < needed <= most else ""
            raise LoralabError(
                f"{amount.setting}={amount.value:g} holds out {size} of {len(rest)} rows; both sides need at least {needed} rows, "
                f"one per class{advice}"
            )
        if needed != size:
            name = amount.setting.removeprefix("data.")
            notices.append(f"{amount.setting}: {needed} {name} rows instead of {size}, one for each class that has enough rows")
        size = needed
    sizes = np.minimum(np.maximum(_proportional(counts, size), able), spare)
    while (surplus := int(sizes.sum()) - size) > 0:  # the classes with the most rows make room
        sizes[np.argmax(np.where(sizes > able, sizes, 0))] -= 1
    for _ in range(-surplus):
        sizes[np.argmax(spare - sizes)] += 1
    held_out = rest[_sample(labels, sizes, random)]
    return np.setdiff1d(rest, held_out), held_out, notices


def _proportional(counts: Ints, size: int) -> Ints:
    """Divide `size` rows among the classes (largest remainders)."""
    exact = counts * size / counts.sum()
    sizes = np.floor(exact).astype(np.int64)
    for i in np.argsort(-(exact - sizes), kind="stable")[: size - int(sizes.sum())]:
        sizes[i] += 1
    divided: Ints = sizes
    return divided


def _sample(labels: Ints, sizes: Ints, random: np.random.Generator) -> Ints:
    """Sample so many positions of each class; ascending order."""
    chosen = [random.permutation(np.flatnonzero(labels == i))[:size] for i, size in enumerate(sizes)]
    positions: Ints = np.sort(np.concatenate(chosen))
    return positions


def _whole_groups(
    source: Examples, rest: Ints, size: int, amount: Amount, random: np.random.Generator
) -> tuple[Ints, Ints, list[str]]:
    """Hold out whole groups, as stratified as they allow (scikit-learn's StratifiedGroupKFold)."""
    from sklearn.model_selection import StratifiedGroupKFold

    assert source.groups is not None
    names = [source.groups[i] for i in rest]
    if missing := [int(source.rows[i]) for i, name in zip(rest, names, strict=True) if name is None or name == ""]:
        raise LoralabError(f"data.group: {list_rows(missing)} have no group: fill it in, or leave data.group out")
    numbers = {name: i for i, name in enumerate(dict.fromkeys(map(str, names)))}
    folds = max(2, round(len(rest) / size))
    if len(numbers) < folds:
        raise LoralabError(
            f"{amount.setting}={amount.value:g} holds out one row in {folds}, and there are {len(numbers)} groups: "
            f"write {amount.setting}={1 / max(2, len(numbers)):.2g} or more"
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=int(random.integers(2**31)))
    groups = np.array([numbers[str(name)] for name in names])
    remaining, held_out = next(splitter.split(rest, source.require_labels()[rest], groups))
    count = len({*groups[held_out].tolist()})
    part = amount.setting.removeprefix("data.")
    return rest[remaining], rest[held_out], [f"{part}: {len(held_out)} rows of {count} of {len(numbers)} groups of data.group"]


def _latest(times: Sequence[object], rest: Ints, size: int, amount: Amount) -> tuple[Ints, Ints, list[str]]:
    """Hold out the latest rows. Rows of one time stay together."""
    keys = parse_times([times[i] for i in rest], rest.tolist())
    boundary = np.sort(keys)[-min(size, len(keys))]
    late = keys >= boundary
    if late.all():
        raise LoralabError(f"data.time: all rows are of one time, so {amount.setting}={amount.value:g} leaves no earlier ones")
    first = times[int(rest[np.flatnonzero(late)[np.argmin(keys[late])]])]
    part = amount.setting.removeprefix("data.")
    return rest[~late], rest[late], [f"{part}: the {int(late.sum())} latest rows by data.time, from {first}"]


def parse_times(values: Sequence[object], rows: Sequence[int]) -> np.ndarray:
    """Return times as numbers that sort like them, float64[n]: numbers, dates, or texts in ISO 8601.

    rows: their row numbers, for messages. Raises LoralabError for a value that is no time, and for numbers beside dates.
    """
    keys, numeric, unreadable = [], set(), []
    for row, value in zip(rows, values, strict=True):
        try:
            keys.append(_time(value))
            numeric.add(not isinstance(value, datetime.date) and str(value).replace(".", "", 1).lstrip("-").isdecimal())
        except ValueError:
            unreadable.append(row)
    if unreadable:
        example = values[[*rows].index(unreadable[0])]
        raise LoralabError(
            f"data.time: {example!r} in {list_rows(unreadable)} is not a time: write ISO 8601, such as 2026-11-27 or "
            f"2026-11-27T20:30, or numbers"
        )
    if len(numeric) > 1:
        raise LoralabError("data.time holds numbers and dates: write one kind")
    return np.array(keys, dtype=np.float64)


def _time(value: object) -> float:
    if isinstance(value, bool) or value is None:
        raise ValueError
    if isinstance(value, (int, float)):
        if value != value:
            raise ValueError
        return float(value)
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime.combine(value, datetime.time())
    if not isinstance(value, datetime.datetime):
        text = str(value).strip()
        try:
            return float(text)
        except ValueError:
            value = datetime.datetime.fromisoformat(text)
    if value.tzinfo is None:
        value = value.replace(tzinfo=datetime.UTC)
    return value.timestamp()
