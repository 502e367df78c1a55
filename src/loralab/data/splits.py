"""Training, validation and test rows of one run: given files, stratified splits, limits, shots, row numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loralab.config import DataConfig
from loralab.config.paths import local_path
from loralab.data.folders import Parts
from loralab.data.group_split import check_groups
from loralab.data.hold_out import Amount, allocate, hold_out, sample_classes
from loralab.data.row_weights import check_positive
from loralab.data.sources import ReadFile, Source, load_source
from loralab.data.types import Examples, Ints
from loralab.errors import LoralabError

DEFAULT_TEST, DEFAULT_VALIDATION = 0.2, 0.1
"""The defaults of `data.test` and `data.validation` for sources without such rows."""


@dataclass(frozen=True)
class Splits:
    """The rows of one run. validation, test: None without such rows. augmented: rows made from the training rows.

    notices: what was decided while splitting.
    """

    train: Examples
    validation: Examples | None
    test: Examples | None
    augmented: Examples | None = None
    notices: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    def fingerprints(self) -> dict[str, dict[str, int | str]]:
        """Return the number of rows and the fingerprint of each split."""
        return {name: {"count": len(rows), "fingerprint": rows.fingerprint()} for name, rows in self.parts().items()}

    def parts(self) -> dict[str, Examples]:
        """Return the splits that have rows, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test, "augmented": self.augmented}
        return {name: rows for name, rows in parts.items() if rows is not None}

    def merged(self) -> Splits:
        """Return the splits with the augmented rows appended to the training rows."""
        return self if self.augmented is None else replace(self, train=self.train.join(self.augmented), augmented=None)


def load_splits(data: DataConfig, rows: Parts | None = None, read: ReadFile | None = None) -> tuple[Splits, Source]:
    """Read `data.source`, or `rows` in memory, and split it. Other rows must have the classes of the training rows.

    read: as in `load_source`.
    """
    source = load_source(data, rows, read)
    return split(source.train, data, test=source.test, validation=source.validation), source


def split(source: Examples, data: DataConfig, *, test: Examples | None = None, validation: Examples | None = None) -> Splits:
    """Split labelled rows. Hold out `data.test` and `data.validation` of them, stratified, unless `test` or `validation` is given.

    Rows are held out before `data.train_indices`, `data.shots_per_class` and the limits apply: runs that differ in these share
    their test and validation rows. 0 holds out none. Raises LoralabError if a split is too small or a class has no training row
    left.
    """
    # One stream per purpose: a limit on one split must not change the rows of another.
    test_stream, validation_stream, train_stream, test_limit_stream = np.random.default_rng(data.split_seed).spawn(4)
    if data.sample_seed is not None:
        train_stream = np.random.default_rng([data.split_seed, data.sample_seed])
    rest, notices = np.arange(len(source)), list[str]()
    _check_setting(source, data, given=test is not None and validation is not None)
    keep = np.ones(len(source.classes), dtype=np.int64)
    if test is None and data.test != 0:
        amount = _amount(data.test, "data.test", DEFAULT_TEST)
        validated = validation is None and data.validation != 0
        held_out = hold_out(source, rest, amount, test_stream, keep + validated)
        if not len(held_out.rows):
            raise LoralabError(
                "no row can be held out for the test, because each class has one row: add rows, give a file with data.test=FILE, "
                "or train without a test with data.test=0"
            )
        rest, notices, test = held_out.rest, [*held_out.notices], source.take(held_out.rows)
        if source.groups is None:  # a class that is too small for three parts stays in training as a whole
            keep = np.where(np.isin(np.arange(len(keep)), test.require_labels()), 1, len(source))
    if validation is None:
        held_out = hold_out(source, rest, _amount(data.validation, "data.validation", DEFAULT_VALIDATION), validation_stream, keep)
        rest, notices, validation = held_out.rest, [*notices, *held_out.notices], source.take(held_out.rows)
    if data.train_indices is not None:
        rest = _select(rest, read_indices(local_path(data.train_indices)))
    train = source.take(rest)
    if data.shots_per_class is not None:
        train = train.take(_sample_shots(train, data.shots_per_class, train_stream))
    train = _limit(train, data.max_train_samples, train_stream, "data.max_train_samples")
    if test is not None:
        test = _limit(test, data.max_test_samples, test_limit_stream, "data.max_test_samples")
    for i, rows in enumerate(np.bincount(train.require_labels(), minlength=len(source.classes))):
        if not rows:
            raise LoralabError(_no_training_rows(source.classes[i], data))
    if train.weights is not None:
        check_positive(train.weights, "data.weight, training rows")
    # The held-out rows are scored without weights, and their fingerprints are those of a run without weights.
    if test is None:
        notices = [*notices, "no test rows (data.test=0): the run has no test scores"]
    else:
        test = replace(test, weights=None)
    validation = replace(validation, weights=None) if len(validation) else None
    return Splits(train, validation, test, notices=tuple(notices))


def _check_setting(source: Examples, data: DataConfig, given: bool) -> None:
    if source.groups is not None and source.times is not None:
        raise LoralabError("data.group and data.time are both set: leave one out, to split by times or to keep groups together")
    if source.groups is not None and not given:
        check_groups(source)


def _no_training_rows(name: str, data: DataConfig) -> str:
    if data.train_indices is not None:
        reason = f"{data.train_indices} (data.train_indices) has none of it"
    elif data.time is not None:
        reason = "its rows are among the latest by data.time; leave data.time out, or hold out fewer rows"
    else:
        reason = "add rows of it"
    return f"no training row is left of class {name!r}: {reason}"


def _amount(value: float | str | None, setting: str, default: float) -> Amount:
    return Amount(default, setting, default=True) if value is None else Amount(float(value), setting)


def read_indices(path: Path) -> list[int]:
    """Read row numbers, one per line. Raises LoralabError for an unreadable file and names the first invalid entry."""
    try:
        entries = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise LoralabError(f"data.train_indices: cannot read {path}: {error}") from error
    for number, entry in enumerate(entries, 1):
        if not entry.isdecimal() or len(entry) > 18:
            raise LoralabError(f"data.train_indices: {path}, entry {number}: {entry!r} is not a row number")
    return [int(entry) for entry in entries]


def _limit(rows: Examples, size: int | None, random: np.random.Generator, setting: str) -> Examples:
    """Sample rows, classes in proportion, with a row of each class."""
    if size is None or size >= len(rows):
        return rows
    labels = rows.require_labels()
    counts = np.bincount(labels, minlength=len(rows.classes))
    least = np.minimum(counts, 1)
    if size < least.sum():
        if setting == "data.max_train_samples":
            raise LoralabError(f"{setting}={size}: each of {least.sum()} classes needs a row; {setting}={least.sum()} would do")
        least[:] = 0
    return rows.take(sample_classes(labels, allocate(counts, size, least, counts), random))


def _sample_shots(train: Examples, shots: int, random: np.random.Generator) -> Ints:
    labels = train.require_labels()
    chosen = []
    for i, name in enumerate(train.classes):
        positions = np.flatnonzero(labels == i)
        if len(positions) < shots:
            most = int(np.bincount(labels, minlength=len(train.classes)).min())
            rows = f"class {name!r} has {len(positions)} training rows"
            raise LoralabError(
                f"data.shots_per_class={shots}: {rows}" + (f"; data.shots_per_class={most} would do" if most else "")
            )
        chosen.append(random.permutation(positions)[:shots])
    sample: Ints = np.sort(np.concatenate(chosen))
    return sample


def _select(rest: Ints, indices: list[int]) -> Ints:
    if not indices or max(indices) >= len(rest):
        invalid = next((f"row {i}" for i in indices if i >= len(rest)), "no row")
        raise LoralabError(f"data.train_indices: {invalid}; the training rows are 0-{len(rest) - 1}")
    if len(set(indices)) < len(indices):
        raise LoralabError("data.train_indices names a row twice")
    selected: Ints = rest[np.asarray(sorted(indices))]
    return selected
