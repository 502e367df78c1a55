"""Column chunks, labelled texts and tokenized texts: the values that the data modules exchange."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from loralab.errors import LoralabError

if TYPE_CHECKING:
    import pyarrow

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Severity = Literal["note", "warning", "error"]
CHUNK = 8192
"""Rows per chunk: the memory that streaming a large file takes."""
MAX_LISTED = 8
"""Most rows or names that a message lists."""
Hidden = npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Notice:
    """A decision about the data, or a problem.

    rows: its row numbers in the file, from 0. fix: what to write or do about it. severity: note, a decision; warning, probably a
    problem; error, training refuses the data.
    """

    message: str
    rows: tuple[int, ...] = ()
    fix: str = ""
    severity: Severity = "note"

    def __str__(self) -> str:
        where = f" ({list_rows(self.rows)})" if self.rows else ""
        return f"{self.message}{where}" + (f"; {self.fix}" if self.fix else "")


def count_of(number: int, noun: str, plural: str = "") -> str:
    """Return `1 row` or `1,234 rows`. plural: the noun's plural, if it does not end in s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def list_rows(rows: Sequence[int]) -> str:
    """Return `row 3`, or `rows 3, 4, ... and 12 more`."""
    shown = ", ".join(map(str, rows[:MAX_LISTED]))
    more = f" and {len(rows) - MAX_LISTED:,} more" if len(rows) > MAX_LISTED else ""
    return f"row {shown}" if len(rows) == 1 else f"rows {shown}{more}"


@dataclass(frozen=True, eq=False)
class MemoryTable:
    """A table in memory, which is read like a Parquet file. name: what messages call it; notices: what making it decided."""

    name: str
    table: pyarrow.Table
    notices: tuple[Notice, ...] = ()

    def __str__(self) -> str:
        return self.name


TablePlace = Path | MemoryTable
"""Where rows are: in a file, or in memory."""


class ArrowColumns(Mapping[str, list[object]]):
    """Columns of an Arrow table. A column becomes Python objects when it is used, which takes as long as reading it."""

    def __init__(self, table: pyarrow.Table) -> None:
        self.table = table
        self._lists: dict[str, list[object]] = {}

    def __getitem__(self, name: str) -> list[object]:
        if name not in self._lists:
            try:
                self._lists[name] = self.table.column(name).to_pylist()
            except UnicodeDecodeError as error:
                raise LoralabError(
                    f"a file changed while it was read, and is no longer UTF-8 ({error}): repeat the command"
                ) from error
        return self._lists[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.column_names)

    def __len__(self) -> int:
        return len(self.table.column_names)


@dataclass(frozen=True)
class ColumnChunk:
    """Columns of equal length, read from a file.

    class_names: names by column. The values of a `ClassLabel` column of `datasets` are indices into its names; the values of
    a categorical pandas column are the names themselves.
    """

    columns: Mapping[str, list[object]]
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The number of rows."""
        columns = self.columns
        return columns.table.num_rows if isinstance(columns, ArrowColumns) else len(next(iter(columns.values()), ()))

    def rows_equal(self, values: Sequence[object]) -> list[int]:
        """Return the rows that hold exactly these values, one per column."""
        columns = self.columns
        if isinstance(columns, ArrowColumns):
            from pyarrow import compute

            column = columns.table.column(0)
            if compute.index(column, _string_scalar(str(values[0]), column.type)).as_py() < 0:
                return []
        return [row for row, own in enumerate(zip(*columns.values(), strict=True)) if [*own] == [*values]]


def _string_scalar(text: str, kind: pyarrow.DataType) -> pyarrow.Scalar:
    """Return what pyarrow.scalar(text, kind) does, which imports pandas where it is installed: up to a second."""
    import pyarrow

    content = text.encode()
    ends = np.array([0, len(content)], dtype=np.int32)
    return pyarrow.StringArray.from_buffers(1, pyarrow.py_buffer(ends), pyarrow.py_buffer(content)).cast(kind)[0]


@dataclass(frozen=True)
class Examples:
    """n texts in source order.

    labels: int64[n], indices into `classes`, or None if the source has none. rows: int64[n], row numbers in the source,
    counted from 0 without the header. classes: class names in index order. groups, times: what `data.group` and `data.time` name.
    weights: float64[n], those of `data.weight`, not scaled; None except for training rows.
    """

    texts: Sequence[str]
    labels: Ints | None
    rows: Ints
    classes: tuple[str, ...] = ()
    groups: Sequence[object] | None = None
    times: Sequence[object] | None = None
    weights: Floats | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def require_labels(self) -> Ints:
        """Return the labels, int64[n]. Raises ValueError if there are none."""
        if self.labels is None:
            raise ValueError("these examples have no labels")
        return self.labels

    def take(self, positions: Ints) -> Examples:
        """Return the examples at `positions` (not row numbers), in that order."""
        labels = None if self.labels is None else self.labels[positions]
        groups, times = (None if own is None else [own[i] for i in positions] for own in (self.groups, self.times))
        texts, rows = [self.texts[i] for i in positions], self.rows[positions]
        weights = None if self.weights is None else self.weights[positions]
        return Examples(texts, labels, rows, self.classes, groups, times, weights)

    def join(self, others: Examples) -> Examples:
        """Append `others`. Both must have labels and the same classes. Groups, times and weights stay if both have them."""
        labels = np.concatenate([self.require_labels(), others.require_labels()])
        pairs = (self.groups, others.groups), (self.times, others.times)
        groups, times = (None if own is None or more is None else [*own, *more] for own, more in pairs)
        texts, rows = [*self.texts, *others.texts], np.concatenate([self.rows, others.rows])
        both = None if self.weights is None or others.weights is None else (self.weights, others.weights)
        return Examples(texts, labels, rows, self.classes, groups, times, None if both is None else np.concatenate(both))

    def fingerprint(self) -> str:
        """Return 16 hex digits that identify texts, labels, class names and any weights, order included."""
        digest = hashlib.sha256("\x1f".join(self.classes).encode())
        for text in self.texts:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\x1e")
        digest.update(b"" if self.labels is None else self.labels.tobytes())
        digest.update(b"" if self.weights is None else b"weights" + self.weights.tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class TextFacts:
    """What tokenizing did to texts.

    cut: texts longer than the limit; lost: their tokens beyond it. unknown: tokens that the vocabulary does not have. emptied:
    positions of texts that cleaning left empty. special: tokens that no text has, such as [CLS]. longest: tokens of the longest
    text before it is cut.
    """

    cut: int = 0
    lost: int = 0
    unknown: int = 0
    emptied: tuple[int, ...] = ()
    special: int = 0
    longest: int = 0

    def __add__(self, more: TextFacts) -> TextFacts:
        """Return the facts of both, without the positions, which would mix."""
        return TextFacts(
            self.cut + more.cut,
            self.lost + more.lost,
            self.unknown + more.unknown,
            special=self.special + more.special,
            longest=max(self.longest, more.longest),
        )


@dataclass(frozen=True)
class Encoded:
    """n tokenized texts, concatenated. tokens: int32[total]; starts: int64[n + 1]; labels: int64[n] or None.

    weights: float64[n] with mean 1, how much each row counts in the loss; None if all count the same.

    hidden: cached inputs of layer `start`, one vector per token: (total, width) in fp32, fp16, or bf16 stored as uint16
    because NumPy has no bf16.
    """

    tokens: npt.NDArray[np.int32]
    starts: Ints
    labels: Ints | None
    pad_id: int
    hidden: Hidden | None = None
    start: int | None = None
    facts: TextFacts = TextFacts()
    weights: Floats | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def lengths(self) -> Ints:
        """Tokens per text, special tokens included: int64[n]."""
        return np.diff(self.starts)

    @cached_property
    def longest(self) -> int:
        """The largest number of tokens in a text; 0 without texts."""
        return int(self.lengths.max(initial=0))
