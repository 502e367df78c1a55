"""Training, validation and test rows of one run: given files, stratified splits, limits, shots, row numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loralab.config import DataConfig
from loralab.config.paths import local_path
from loralab.data.clean import normalize_text
from loralab.data.columns import list_names
from loralab.data.hold_out import Amount, hold_out, stratified
from loralab.data.sources import Source, load_source, missing_texts
from loralab.data.types import MAX_LISTED, Examples, Ints
from loralab.errors import LoralabError

DEFAULT_TEST, DEFAULT_VALIDATION = 0.2, 0.1
"""The defaults of `data.test` and `data.validation` for sources without such rows."""
MIN_PART_ROWS = 3
"""Fewer validation or test rows of a class are remarked on."""


@dataclass(frozen=True)
class Splits:
    """The rows of one run. validation: None without validation rows. augmented: rows made from the training rows.

    notices: what was decided while splitting.
    """

    train: Examples
    validation: Examples | None
    test: Examples
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


def load_splits(data: DataConfig) -> tuple[Splits, Source]:
    """Read `data.source` and split it. Test and validation files must have the classes of the training rows."""
    source = load_source(data)
    return split(source.train, data, test=source.test, validation=source.validation), source


def split(source: Examples, data: DataConfig, *, test: Examples | None = None, validation: Examples | None = None) -> Splits:
    """Split labelled rows. Hold out `data.test` and `data.validation` of them, stratified, unless `test` or `validation` is given.

    Rows are held out before `data.train_indices`, `data.shots_per_class` and the limits apply: runs that differ in these share
    their test and validation rows. Raises LoralabError if a split is too small or a class has no training row left.
    """
    # One stream per purpose: a limit on one split must not change the rows of another.
    test_stream, validation_stream, train_stream, test_limit_stream = np.random.default_rng(data.split_seed).spawn(4)
    if data.sample_seed is not None:
        train_stream = np.random.default_rng([data.split_seed, data.sample_seed])
    rest, notices = np.arange(len(source)), list[str]()
    validated = validation is None and data.validation != 0
    if test is None:
        amount = _amount(data.test, "data.test", DEFAULT_TEST)
        rest, held_out, decided = hold_out(source, rest, amount, test_stream, keep=2 if validated else 1)
        if not len(held_out):
            raise LoralabError("data.test=0: a run needs test rows; give a fraction, a number of rows, or a file")
        test, notices = source.take(held_out), [*notices, *decided]
    if validation is None:
        amount = _amount(data.validation, "data.validation", DEFAULT_VALIDATION)
        rest, held_out, decided = hold_out(source, rest, amount, validation_stream, keep=1)
        validation, notices = source.take(held_out), [*notices, *decided]
    if data.train_indices is not None:
        rest = _select(rest, read_indices(local_path(data.train_indices)))
    train = source.take(rest)
    if data.shots_per_class is not None:
        train = train.take(_sample_shots(train, data.shots_per_class, train_stream))
    train = _limit(train, data.max_train_samples, train_stream)
    test = _limit(test, data.max_test_samples, test_limit_stream)
    present = set(train.require_labels().tolist())
    if absent := [name for i, name in enumerate(source.classes) if i not in present]:
        raise LoralabError(
            f"no training row is left of class {absent[0]!r}: raise data.max_train_samples or lower data.validation and data.test"
        )
    return Splits(train, validation if len(validation) else None, test, notices=tuple(notices))


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


def count_shared_texts(first: Examples, second: Examples) -> int:
    """Count the texts of `second` that `first` also has, ignoring case and white space. Empty texts do not count."""
    seen = set(map(normalize_text, first.texts))
    return sum(normalize_text(text) in seen for text in second.texts if text.strip())


def split_remarks(splits: Splits) -> list[str]:
    """Report empty texts, and test texts that are also training texts."""
    remarks = [*splits.notices, *_rare_classes(splits)]
    for name, rows in (("training", splits.train), ("test", splits.test)):
        if empty := missing_texts(rows):
            remarks.append(f"{len(empty)} {name} rows have no text, such as row {empty[0]}; they are kept as empty texts")
    if shared := count_shared_texts(splits.train, splits.test):
        remarks.append(f"{shared} of {len(splits.test)} test texts are also training texts: test scores will be too high")
    return remarks


def _rare_classes(splits: Splits) -> list[str]:
    """Report classes without a row, or with few, in a part whose scores depend on them."""
    remarks = []
    counts = {name: np.bincount(rows.require_labels(), minlength=len(rows.classes)) for name, rows in splits.parts().items()}
    for name in ("validation", "test"):
        few = {splits.classes[i]: int(n) for i, n in enumerate(counts.get(name, ())) if n < MIN_PART_ROWS}
        absent = [class_name for class_name, n in few.items() if n == 0]
        if absent:
            kept = ", whose rows are all in training" if all(counts["train"][splits.classes.index(c)] for c in absent) else ""
            remarks.append(f"no {name} row of {len(absent)} class{'es' * (len(absent) > 1)}: {list_names(absent)}{kept}")
        elif few:
            fewest = ", ".join(f"{class_name} {n}" for class_name, n in [*few.items()][:MAX_LISTED])
            more = f" and {len(few) - MAX_LISTED} more classes" if len(few) > MAX_LISTED else ""
            remarks.append(f"few {name} rows per class, so that its scores are rough: {fewest}{more}")
    return remarks


def _limit(rows: Examples, size: int | None, random: np.random.Generator) -> Examples:
    if size is None or size >= len(rows):
        return rows
    return rows.take(stratified(rows.require_labels(), size, random))


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
