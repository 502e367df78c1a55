"""Rows held out of training: how many, stratified by class, by whole groups, or the latest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loralab.data.group_split import choose_groups
from loralab.data.labels import cell_text
from loralab.data.time_split import choose_latest
from loralab.data.types import Examples, Ints, count_of
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

    def refuse(self, size: int, of: int, least: int, most: int, reason: str = "") -> LoralabError:
        """Return the error for an amount that does not work, with amounts that do."""
        asked = f"holds out {size} of {of} rows" if size <= of else f"asks for {size} rows of {of}"
        values = f"{self.setting}={least}" if least == most else f"{self.setting}={least} to {self.setting}={most}"
        advice = f"; {values} would do" if least <= most else ""
        return LoralabError(f"{self.setting}={self.value:g} {asked}{reason}{advice}")


@dataclass(frozen=True)
class HeldOut:
    """Positions that remain and that are held out, ascending, and the decisions taken."""

    rest: Ints
    rows: Ints
    notices: tuple[str, ...] = ()


def stratified(labels: Ints, size: int, random: np.random.Generator) -> Ints:
    """Sample `size` positions without replacement, proportionally by class (largest remainders); ascending order."""
    return sample_classes(labels, _proportional(np.bincount(labels), size), random)


def sample_classes(labels: Ints, sizes: Ints, random: np.random.Generator) -> Ints:
    """Sample so many positions of each class without replacement; ascending order."""
    chosen = [random.permutation(np.flatnonzero(labels == i))[:size] for i, size in enumerate(sizes)]
    positions: Ints = np.sort(np.concatenate(chosen))
    return positions


def allocate(counts: Ints, size: int, least: Ints, most: Ints) -> Ints:
    """Divide `size` rows among the classes in proportion to their rows, with `least` to `most` rows of each."""
    sizes = np.minimum(np.maximum(_proportional(counts, size), least), most)
    while (surplus := int(sizes.sum()) - size) > 0:  # the classes with the most rows make room
        sizes[np.argmax(np.where(sizes > least, sizes, 0))] -= 1
    for _ in range(-surplus):
        sizes[np.argmax(most - sizes)] += 1
    return sizes


def hold_out(source: Examples, rest: Ints, amount: Amount, random: np.random.Generator, keep: Ints) -> HeldOut:
    """Divide the positions `rest`. keep: rows of each class that should remain, so that classes with more have a row held out.

    With times, the latest rows are held out; with groups, whole groups; else classes keep their proportions. A default amount
    grows to one row of each class. Raises LoralabError if an amount that somebody asked for cannot do that, with one that can.
    """
    size = amount.rows(len(rest))
    if not amount.value:
        return HeldOut(rest, rest[:0])
    if source.times is not None or source.groups is not None:
        size = max(1, size) if amount.default else size
        if not 0 < size < len(rest):
            raise amount.refuse(size, len(rest), 1, len(rest) - 1)
    if source.times is not None:
        return _latest(source, rest, size, amount)
    labels = source.require_labels()[rest]
    if source.groups is not None:
        return _whole_groups(source, rest, size, amount, random, keep)
    sizes, notices = _class_sizes(np.bincount(labels, minlength=len(source.classes)), size, amount, keep)
    held_out = rest[sample_classes(labels, sizes, random)]
    return HeldOut(np.setdiff1d(rest, held_out), held_out, notices)


def _class_sizes(counts: Ints, size: int, amount: Amount, keep: Ints) -> tuple[Ints, tuple[str, ...]]:
    """Return the rows of each class to hold out, and the decisions taken."""
    spare = np.maximum(counts - keep, 0)
    least = np.minimum(spare, 1)
    needed = int(least.sum())
    if size > spare.sum() or not needed:
        spare = np.maximum(counts - 1, 0)  # classes with two rows have to give one
    most, rows = int(spare.sum()), int(counts.sum())
    part = amount.setting.removeprefix("data.")
    if not amount.default:
        if not max(1, needed) <= size <= most:
            reason = f", but {needed} classes have enough rows for one" if 0 <= size < needed else ", but each class keeps one"
            raise amount.refuse(size, rows, max(1, needed), most, reason if 0 < size <= rows else "")
        return allocate(counts, size, least, spare), ()
    wanted, size = size, min(max(1, size, needed), most)
    if not size:
        return spare, (f"{amount.setting}: no {part} rows, because no class has a row to spare",)
    reason = "one for each class that has enough rows" if size == needed else "as many as the classes can spare"
    notice = f"{amount.setting}: {_rows(size, wanted, part)}, {reason}"
    return allocate(counts, size, least, spare), () if size == max(1, wanted) else (notice,)


def _proportional(counts: Ints, size: int) -> Ints:
    """Divide `size` rows among the classes (largest remainders)."""
    exact = counts * size / counts.sum()
    sizes = np.floor(exact).astype(np.int64)
    for i in np.argsort(-(exact - sizes), kind="stable")[: size - int(sizes.sum())]:
        sizes[i] += 1
    divided: Ints = sizes
    return divided


def _whole_groups(source: Examples, rest: Ints, size: int, amount: Amount, random: np.random.Generator, keep: Ints) -> HeldOut:
    """Hold out whole groups: the number of rows is as near to `size` as they allow."""
    assert source.groups is not None
    numbers: dict[str | None, int] = {}
    groups = np.empty(len(rest), dtype=np.int64)
    for i, position in enumerate(rest):
        groups[i] = numbers.setdefault(cell_text(source.groups[position]), len(numbers))
    part = amount.setting.removeprefix("data.")
    chosen = choose_groups(source.require_labels()[rest], groups, size, random, keep, grow=amount.default)
    if not len(chosen):
        reason = f"each of the {len(numbers)} groups left has the only rows of a class" if len(numbers) > 1 else "one group is left"
        return _hold_out_none(rest, amount, "data.group", reason)
    selected = np.isin(groups, chosen)
    count = int(selected.sum())
    notice = f"{part}: {_rows(count, size)}, {len(chosen)} of {len(numbers)} groups of data.group"
    return HeldOut(rest[~selected], rest[selected], (notice,))


def _latest(source: Examples, rest: Ints, size: int, amount: Amount) -> HeldOut:
    """Hold out the latest rows. Rows of one time stay together."""
    assert source.times is not None
    times, part = [source.times[i] for i in rest], amount.setting.removeprefix("data.")
    latest = choose_latest(times, source.rows[rest].tolist(), size)
    if latest is None:
        return _hold_out_none(rest, amount, "data.time", f"all {len(rest)} rows left are of one time, {times[0]}")
    late, (before, first, last), mixed = latest
    count, span = int(late.sum()), first if first == last else f"{first} to {last}"
    notice = f"{part}: the latest {_rows(count, size)} by data.time, {span}, after {before}"
    zones = ("data.time: times without a time zone are read as UTC, like the others",) if mixed else ()
    return HeldOut(rest[~late], rest[late], (notice, *zones))


def _rows(count: int, wanted: int, part: str = "") -> str:
    """Return `20 test rows`, or `20 test rows instead of 24`."""
    rows = count_of(count, f"{part} row".strip())
    return rows if count == wanted else f"{rows} instead of {wanted}"


def _hold_out_none(rest: Ints, amount: Amount, setting: str, reason: str) -> HeldOut:
    """Do without validation rows, unless somebody asked for them. Raises LoralabError then, and for test rows."""
    part = amount.setting.removeprefix("data.")
    if amount.default and part == "validation":
        return HeldOut(rest, rest[:0], (f"{amount.setting}: no validation rows, because {reason}",))
    fix = f"leave {setting} out" if part == "test" else f"write data.validation=0, or leave {setting} out"
    raise LoralabError(f"{setting}: there can be no {part} rows, because {reason}; {fix}")
