"""Fast reading of well-formed CSV by Arrow. Anything unusual is left to `loralab.data.delimited`, which reads and explains it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from loralab.data.delimited import MAX_FIELD, Dialect
from loralab.data.text_files import BLOCK, open_bytes
from loralab.data.types import Notice, count_of

if TYPE_CHECKING:
    import pyarrow

_QUOTE, _LINE, _RETURN = b'"\n\r'
_MARK = b"\xef\xbb\xbf"


class Unusual(Exception):
    """The next rows are not ones that Arrow reads as Python's strict csv reader does."""


def read_blocks(
    path: Path, dialect: Dialect, encoding: str, names: Sequence[str], header: bool, notices: list[Notice]
) -> Iterator[pyarrow.Table]:
    """Yield the rows of a file, block by block, and note line breaks within quotes.

    It takes UTF-8 of at least two columns in which every double quote opens a field, closes one, or is doubled within one, without
    blank lines, and with records of at most MAX_FIELD bytes. Raises Unusual at a block with others.
    """
    plain = encoding in ("utf-8", "utf-8-sig") and dialect.quotes and not dialect.skip_spaces and not dialect.skip_lines
    if not plain or len(names) < 2 or dialect.delimiter is None or not dialect.delimiter.isascii():
        raise Unusual
    scan = _Scan.of(dialect.delimiter)
    with open_bytes(path) as file:
        block, pending, skip = file.read(BLOCK).removeprefix(_MARK), b"", int(header)
        while block:
            following = file.read(BLOCK)
            end = scan.last_line_end(block, following[0] if following else _LINE)
            if not following:
                end = len(block)
            if end:
                yield _parse(pending + block[:end], dialect.delimiter, names, skip)
                skip = 0
            pending = block[end:] if end else pending + block
            block = following
    if scan.inside:
        raise Unusual
    if scan.breaks:
        breaks = count_of(scan.breaks, "line break within double quotes belongs", "line breaks within double quotes belong")
        notices.append(Notice(f"{breaks} to the texts"))


def _parse(content: bytes, delimiter: str, names: Sequence[str], skip: int) -> pyarrow.Table:
    import pyarrow
    from pyarrow import csv

    text = pyarrow.string()
    try:
        return csv.read_csv(
            pyarrow.BufferReader(content),
            csv.ReadOptions(column_names=[*names], skip_rows_after_names=skip, block_size=len(content) + 1, use_threads=False),
            csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False),
            csv.ConvertOptions(
                column_types=dict.fromkeys(names, text), strings_can_be_null=False, quoted_strings_can_be_null=False
            ),
        )
    except pyarrow.ArrowInvalid as error:  # fields missing or too many
        raise Unusual from error


@dataclass
class _Scan:
    """What has been seen of a file.

    bounds: the bytes that may stand beside a quote. block, following: the bytes at hand, and the one after them. inside: whether a
    quote is open; breaks: line breaks within quotes; length: bytes of the record so far; tail: the last two bytes.
    """

    bounds: npt.NDArray[np.bool_]
    block: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))
    following: int = _LINE
    inside: int = 0
    breaks: int = 0
    length: int = 0
    tail: bytes = b"\n"

    @classmethod
    def of(cls, delimiter: str) -> _Scan:
        bounds = np.zeros(256, dtype=bool)
        bounds[[ord(delimiter), _LINE, _RETURN, _QUOTE]] = True
        return cls(bounds)

    def last_line_end(self, block: bytes, following: int) -> int:
        """Return the position after the last record that ends in a block, 0 if none does. Raises Unusual."""
        self.block, self.following = np.frombuffer(block, dtype=np.uint8), following
        quotes, lines = np.flatnonzero(self.block == _QUOTE), np.flatnonzero(self.block == _LINE)
        opening, closing = quotes[self.inside :: 2], quotes[1 - self.inside :: 2]
        if not self.bounds[self._beside(opening, -1)].all() or not self.bounds[self._beside(closing, 1)].all():
            raise Unusual
        within = (np.searchsorted(quotes, lines) + self.inside) % 2 == 1
        ends = lines[~within]
        previous = self._beside(ends, -1)
        blank = (previous == _LINE) | ((previous == _RETURN) & (self._beside(ends, -2) == _LINE))
        lengths = np.diff(ends, prepend=-1 - self.length, append=len(block))
        if blank.any() or lengths.max() > MAX_FIELD:
            raise Unusual
        if b"\r" in block and (self._beside(np.flatnonzero(self.block == _RETURN), 1) != _LINE).any():
            raise Unusual
        self.breaks += int(within.sum())
        self.inside = (self.inside + len(quotes)) % 2
        self.length, self.tail = int(lengths[-1]) - 1, (self.tail + block)[-2:] if len(block) < 2 else block[-2:]
        return int(ends[-1]) + 1 if len(ends) else 0

    def _beside(self, positions: npt.NDArray[np.intp], offset: int) -> npt.NDArray[np.uint8]:
        """Return the bytes at `offset` from positions, also those beyond the block."""
        wanted = positions + offset
        values = self.block[np.clip(wanted, 0, len(self.block) - 1)]
        values[wanted >= len(self.block)] = self.following
        for i in range(1, 3):
            values[wanted == -i] = self.tail[-i] if len(self.tail) >= i else _LINE
        return values
