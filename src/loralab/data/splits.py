"""Training, validation and test rows of one run: given files, stratified splits, limits, shots, row numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loralab.config import DataConfig
from loralab.config.paths import local_path
from loralab.data.clean import normalize_text
from loralab.data.sources import Source, load_source, missing_texts
from loralab.data.types import Examples, Ints
from loralab.errors import LoralabError

DEFAULT_TEST, DEFAULT_VALIDATION = 0.2, 0.1
"""The defaults of `data.test` and `data.validation` for sources without such rows."""


@dataclass(frozen=True)
class Splits:
    """The rows of one run. validation: None without validation rows. augmented: rows made from the training rows."""

    train: Examples
    validation: Examples | None
    test: Examples
    augmented: Examples | None = None

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
    held_out = data.model_copy(update={"validation": DEFAULT_VALIDATION}) if data.validation is None else data
    return split(source.train, held_out, test=source.test, validation=source.validation), source


def split(source: Examples, data: DataConfig, *, test: Examples | None = None, validation: Examples | None = None) -> Splits:
    """Split labelled rows. Hold out `data.test` and `data.validation` of them, stratified, unless `test` or `validation` is given.

    Rows are held out before `data.train_indices`, `data.shots_per_class` and the limits apply: runs that differ in these share
    their test and validation rows. Raises LoralabError if a split is too small or a class has no training row left.
    """
    # One stream per purpose: a limit on one split must not change the rows of another.
    test_stream, validation_stream, train_stream, test_limit_stream = np.random.default_rng(data.split_seed).spawn(4)
    if data.sample_seed is not None:
        train_stream = np.random.default_rng([data.split_seed, data.sample_seed])
    rest = np.arange(len(source))
    if test is None:
        fraction = DEFAULT_TEST if data.test is None else float(data.test)
        rest, held_out = _hold_out(source, rest, fraction, test_stream, "data.test")
        if not len(held_out):
            raise LoralabError("data.test=0: a run needs test rows; give a fraction, a number of rows, or a file")
        test = source.take(held_out)
    if validation is None:
        rest, held_out = _hold_out(source, rest, float(data.validation or 0), validation_stream, "data.validation")
        validation = source.take(held_out)
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
    return Splits(train, validation if len(validation) else None, test)


def stratified(labels: Ints, size: int, random: np.random.Generator) -> Ints:
    """Sample `size` positions without replacement, proportionally by class (largest remainders); ascending order."""
    counts = np.bincount(labels)
    exact = counts * size / len(labels)
    sizes = np.floor(exact).astype(np.int64)
    for i in np.argsort(-(exact - sizes), kind="stable")[: size - int(sizes.sum())]:
        sizes[i] += 1
    chosen = [random.permutation(np.flatnonzero(labels == i))[: sizes[i]] for i in range(len(counts))]
    positions: Ints = np.sort(np.concatenate(chosen))
    return positions


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
    remarks = []
    for name, rows in (("training", splits.train), ("test", splits.test)):
        if empty := missing_texts(rows):
            remarks.append(f"{len(empty)} {name} rows have no text, such as row {empty[0]}; they are kept as empty texts")
    if shared := count_shared_texts(splits.train, splits.test):
        remarks.append(f"{shared} of {len(splits.test)} test texts are also training texts: test scores will be too high")
    return remarks


def _hold_out(source: Examples, rest: Ints, fraction: float, random: np.random.Generator, name: str) -> tuple[Ints, Ints]:
    """Split positions into (remaining, held out), stratified. A `fraction` of 1 or more is a number of rows."""
    if not 0 <= fraction < float("inf"):
        raise LoralabError(f"{name}={fraction:g}: give a fraction below 1, a number of rows, or a file")
    size = round(fraction * len(rest)) if fraction < 1 else int(fraction)
    fewest = len(source.classes)
    if fraction > 0 and not fewest <= size <= len(rest) - fewest:
        raise LoralabError(
            f"{name}={fraction:g} holds out {size} of {len(rest)} rows; both sides need at least {fewest} rows, one per class"
        )
    held_out = rest[stratified(source.require_labels()[rest], size, random)] if size else rest[:0]
    return np.setdiff1d(rest, held_out), held_out


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
            raise LoralabError(f"data.shots_per_class={shots}: class {name!r} has {len(positions)} training rows")
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
