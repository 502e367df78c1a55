"""Which rows train, validate and test: stratified splits, limits, shots and index files. Pure but for the index file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loralab.data.types import Examples, Ints
from loralab.errors import LoralabError

HELD_OUT_TEST = 0.2
"""Share of a source without test rows of its own that is held out for the test."""


@dataclass(frozen=True)
class Splits:
    """The rows of one run. `validation` is None only where none was asked for; `augmented`: rows made of the training rows."""

    train: Examples
    validation: Examples | None
    test: Examples
    augmented: Examples | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    def fingerprints(self) -> dict[str, dict[str, int | str]]:
        """Rows and fingerprint of each part."""
        return {name: {"count": len(rows), "fingerprint": rows.fingerprint()} for name, rows in self.parts().items()}

    def parts(self) -> dict[str, Examples]:
        """The parts that are there, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test, "augmented": self.augmented}
        return {name: rows for name, rows in parts.items() if rows is not None}

    def merged(self) -> Splits:
        """The same with the augmented rows among the training rows, at their end."""
        return self if self.augmented is None else replace(self, train=self.train.join(self.augmented), augmented=None)


def split(
    source: Examples,
    *,
    test: Examples | float,
    validation: Examples | float,
    seed: int,
    sample_seed: int | None = None,
    max_train_samples: int | None = None,
    max_test_samples: int | None = None,
    shots_per_class: int | None = None,
    indices: Sequence[int] | None = None,
) -> Splits:
    """Divide a labelled source. `test` and `validation` are rows of their own, or what to hold out, classes in proportion:
    a fraction below 1, else a number of rows.

    Held-out rows are taken before the limits, so runs with different limits share them; `sample_seed` draws other training rows
    within the limits and leaves the held-out ones. `indices` are positions among the
    rows left for training. Raises LoralabError when a class is left without training rows or a fraction takes everything.
    """
    # One stream for each draw: a limit on one part must not move the rows of another.
    for_test, for_validation, for_train, for_test_limit = np.random.default_rng(seed).spawn(4)
    if sample_seed is not None:
        for_train = np.random.default_rng([seed, sample_seed])
    rest = np.arange(len(source))
    held = np.zeros(0, dtype=np.int64)
    if isinstance(test, float):
        rest, held = _hold_out(source, rest, test, for_test, "data.test")
        if not len(held):
            raise LoralabError("data.test=0: a run needs test rows; give a fraction, a number of rows, or a file")
    test_rows = source.take(held) if isinstance(test, float) else test
    kept = np.zeros(0, dtype=np.int64)
    if isinstance(validation, float):
        rest, kept = _hold_out(source, rest, validation, for_validation, "data.validation")
    validation_rows = source.take(kept) if isinstance(validation, float) else validation
    if indices is not None:
        rest = _pick(rest, indices)
    train = source.take(rest)
    if shots_per_class is not None:
        train = train.take(_shots(train, shots_per_class, for_train))
    if max_train_samples is not None and max_train_samples < len(train):
        train = train.take(stratified(train.require_labels(), max_train_samples, for_train))
    if max_test_samples is not None and max_test_samples < len(test_rows):
        test_rows = test_rows.take(stratified(test_rows.require_labels(), max_test_samples, for_test_limit))
    present = set(train.require_labels().tolist())
    if absent := [name for i, name in enumerate(source.classes) if i not in present]:
        raise LoralabError(
            f"no training row is left of class {absent[0]!r}: raise data.max_train_samples or lower data.validation and data.test"
        )
    return Splits(train, validation_rows if len(validation_rows) else None, test_rows)


def stratified(labels: Ints, size: int, random: np.random.Generator) -> Ints:
    """Return `size` positions drawn at random, each class in proportion (largest remainders), in ascending order."""
    counts = np.bincount(labels)
    exact = counts * size / len(labels)
    take = np.floor(exact).astype(np.int64)
    for i in np.argsort(-(exact - take), kind="stable")[: size - int(take.sum())]:
        take[i] += 1
    chosen = [random.permutation(np.flatnonzero(labels == i))[: take[i]] for i in range(len(counts))]
    picked: Ints = np.sort(np.concatenate(chosen))
    return picked


def read_indices(path: Path) -> list[int]:
    """Read row numbers, one a line. Raises LoralabError naming the first line that is not one."""
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise LoralabError(f"data.train_indices: cannot read {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.isdecimal() or len(line) > 18:
            raise LoralabError(f"data.train_indices: {path}, entry {number}: {line!r} is not a row number")
    return [int(line) for line in lines]


def overlap(first: Examples, second: Examples) -> int:
    """How many texts of `second` also stand in `first`, spaces and case aside."""
    seen = {" ".join(text.casefold().split()) for text in first.texts}
    return sum(" ".join(text.casefold().split()) in seen for text in second.texts if text.strip())


def _hold_out(source: Examples, rest: Ints, fraction: float, random: np.random.Generator, name: str) -> tuple[Ints, Ints]:
    """Divide positions into (kept, held out), classes in proportion. A number from 1 up is a number of rows."""
    if not 0 <= fraction < float("inf"):
        raise LoralabError(f"{name}={fraction:g}: give a fraction below 1, a number of rows, or a file")
    size = round(fraction * len(rest)) if fraction < 1 else int(fraction)
    few = len(source.classes)
    if fraction > 0 and not few <= size <= len(rest) - few:
        raise LoralabError(f"{name}={fraction:g} holds out {size} of {len(rest)} rows; both sides need {few} or more, one a class")
    held = rest[stratified(source.require_labels()[rest], size, random)] if size else rest[:0]
    return np.setdiff1d(rest, held), held


def _shots(train: Examples, shots: int, random: np.random.Generator) -> Ints:
    labels = train.require_labels()
    chosen = []
    for i, name in enumerate(train.classes):
        rows = np.flatnonzero(labels == i)
        if len(rows) < shots:
            raise LoralabError(f"data.shots_per_class={shots}: class {name!r} has {len(rows)} training rows")
        chosen.append(random.permutation(rows)[:shots])
    picked: Ints = np.sort(np.concatenate(chosen))
    return picked


def _pick(rest: Ints, indices: Sequence[int]) -> Ints:
    if not indices or max(indices) >= len(rest) or min(indices) < 0:
        odd = next((f"row {i}" for i in indices if not 0 <= i < len(rest)), "no row")
        raise LoralabError(f"data.train_indices: {odd}; the training rows are 0-{len(rest) - 1}")
    if len(set(indices)) < len(indices):
        raise LoralabError("data.train_indices names a row twice")
    picked: Ints = rest[np.asarray(sorted(indices))]
    return picked
