"""Groups held out as a whole, such as all rows of an author."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from loralab.data.labels import cell_text
from loralab.data.types import Examples, Ints, list_rows
from loralab.errors import LoralabError

MAX_CANDIDATES = 16
"""Groups compared to find the next: more cost time and favour groups that are like all rows."""


def check_groups(source: Examples) -> None:
    """Raise LoralabError for rows without a group."""
    missing = [int(row) for row, name in zip(source.rows, source.groups or (), strict=False) if cell_text(name) is None]
    if missing:
        raise LoralabError(f"data.group: {list_rows(missing)} have no group: fill it in, or leave data.group out")


def choose_groups(labels: Ints, groups: Ints, size: int, random: np.random.Generator, keep: Ints, grow: bool) -> Ints:
    """Return the numbers of the groups to hold out, with about `size` rows and the classes in proportion. Empty if none can be.

    groups: int64[n], numbered from 0. keep: groups of each class that should remain; one always does. grow: exceed `size` where
    classes would have no row otherwise.

    Greedy, in random order: a group is taken if it brings the rows of its classes nearer to their share (the criterion of
    scikit-learn's StratifiedGroupKFold, as a sum of squares). First each class gets the best of its groups, the classes with
    the fewest groups first.
    """
    for kept in (keep, np.minimum(keep, 1)):
        selection = _Selection.of(labels, groups, size, kept)
        order = random.permutation(len(selection.members)).tolist()
        selection.cover_classes(order, grow)
        selection.fill(order)
        selection.approach()
        if selection.taken:
            break
    return np.array(sorted(selection.taken), dtype=np.int64)


@dataclass
class _Selection:
    """Groups taken so far. members: (class, rows) pairs by group; rows: rows by group; allocated: rows taken by class.

    target, counts: the rows that each class should have taken, and that it has; left: groups left by class; missing: rows still
    to be taken. Plain lists: most groups have rows of a class or two, for which arrays are slow.
    """

    members: list[list[tuple[int, int]]]
    rows: list[int]
    target: list[float]
    counts: list[int]
    allocated: list[int]
    left: list[int]
    keep: list[int]
    missing: int
    taken: set[int]

    @classmethod
    def of(cls, labels: Ints, groups: Ints, size: int, keep: Ints) -> _Selection:
        counts = np.bincount(labels, minlength=len(keep))
        members: list[list[tuple[int, int]]] = [[] for _ in range(int(groups.max()) + 1)]
        pairs, rows = np.unique(groups * len(keep) + labels, return_counts=True)
        for pair, own in zip(pairs.tolist(), rows.tolist(), strict=True):
            members[pair // len(keep)].append((pair % len(keep), own))
        left = np.bincount(pairs % len(keep), minlength=len(keep)).tolist()
        target = (counts * size / len(labels)).tolist()
        allocated = [0] * len(keep)
        return cls(members, np.bincount(groups).tolist(), target, counts.tolist(), allocated, left, keep.tolist(), size, set())

    def cost(self, group: int) -> float:
        """Return, per row of a group, how much taking it raises the squared distance from the classes' shares."""
        parts = (rows * (rows + 2 * (self.allocated[i] - self.target[i])) / self.counts[i] for i, rows in self.members[group])
        return sum(parts) / self.rows[group]

    def can_spare(self, group: int) -> bool:
        return group not in self.taken and all(self.left[i] > self.keep[i] for i, _ in self.members[group])

    def fits(self, group: int) -> bool:
        return self.rows[group] <= self.missing and self.can_spare(group)

    def take(self, group: int) -> None:
        for i, rows in self.members[group]:
            self.allocated[i] += rows
            self.left[i] -= 1
        self.missing -= self.rows[group]
        self.taken.add(group)

    def cover_classes(self, order: Sequence[int], grow: bool) -> None:
        """Take a group of each class that has one to spare."""
        owners: list[list[int]] = [[] for _ in self.left]
        for group in order:
            for i, _ in self.members[group]:
                owners[i].append(group)
        for i in sorted(range(len(owners)), key=self.left.__getitem__):
            if not self.allocated[i]:
                able = filter(self.can_spare if grow else self.fits, owners[i])
                best = min(islice(able, MAX_CANDIDATES), key=self.cost, default=None)
                if best is not None:
                    self.take(best)

    def fill(self, order: Sequence[int]) -> None:
        """Take groups that fit: of the next few the one that helps most."""
        waiting, pool = iter(order), list[int]()
        while self.missing > 0:
            pool = [group for group in pool if self.fits(group)]
            pool += islice(filter(self.fits, waiting), MAX_CANDIDATES - len(pool))
            best = min(pool, key=self.cost, default=None)
            if best is None:
                break
            if self.cost(best) < 0:
                self.take(best)
            else:
                pool = []

    def approach(self) -> None:
        """Take one more group if that brings the number of rows nearer to what is asked for, or if there is none yet."""
        able = filter(self.can_spare, range(len(self.members)))
        best = min(able, key=lambda group: (abs(self.rows[group] - self.missing), self.cost(group)), default=None)
        if best is not None and (not self.taken or abs(self.rows[best] - self.missing) < self.missing):
            self.take(best)


def shared_groups(first: Examples, second: Examples) -> tuple[int, int]:
    """Return how many groups both parts have, and the rows of `second` in them."""
    names = {cell_text(name) for name in first.groups or ()} - {None}
    shared = [name for name in map(cell_text, second.groups or ()) if name in names]
    return len({*shared}), len(shared)
