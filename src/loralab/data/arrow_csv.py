"""Fast reading of well-formed CSV by Arrow. Anything unusual is left to `loralab.data.delimited`, which reads and explains it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loralab.data.delimited import MAX_FIELD, Dialect
from loralab.data.text_files import BLOCK, open_bytes
from loralab.data.types import Notice

_QUOTE, _LINE, _RETURN = b'"\n\r'


def is_well_formed(path: Path, dialect: Dialect, encoding: str, notices: list[Notice]) -> bool:
    """Return whether Arrow reads a file as Python's strict csv reader does, and note line breaks within quotes.

    It does for UTF-8 in which every double quote opens a field, closes one, or is doubled within one, without blank lines, and with
    records of at most MAX_FIELD bytes.
    """
    plain = encoding in ("utf-8", "utf-8-sig") and dialect.quotes and not dialect.skip_spaces and not dialect.skip_lines
    if not plain or dialect.delimiter is None or not dialect.delimiter.isascii():
        return False
    bounds = np.zeros(256, dtype=bool)
    bounds[[ord(dialect.delimiter), _LINE, _RETURN, _QUOTE]] = True
    scan = _Scan(bounds)
    with open_bytes(path) as file:
        block = file.read(BLOCK)
        if encoding == "utf-8-sig":
            block = block.removeprefix(b"\xef\xbb\xbf")
        while block:
            following = file.read(BLOCK)
            if not scan.accepts(np.frombuffer(block, dtype=np.uint8), following[0] if following else _LINE):
                return False
            block = following
    if scan.breaks:
        notices.append(Notice(f"{scan.breaks:,} line breaks within double quotes belong to their texts"))
    return not scan.inside


@dataclass
class _Scan:
    """What has been seen of a file. inside: whether a quote is open; breaks: line breaks within quotes; length: of this record."""

    bounds: npt.NDArray[np.bool_]
    inside: int = 0
    breaks: int = 0
    length: int = 0
    tail: bytes = b"\n"

    def accepts(self, block: npt.NDArray[np.uint8], following: int) -> bool:
        """Look at the next bytes. Return False for bytes that Arrow could read otherwise than the csv module."""
        before = np.concatenate([np.frombuffer(self.tail[-2:].rjust(2, b"\n"), dtype=np.uint8), block])
        after = np.append(block[1:], np.uint8(following))
        quotes = np.flatnonzero(block == _QUOTE)
        opening, closing = quotes[self.inside :: 2], quotes[1 - self.inside :: 2]
        if not self.bounds[before[opening + 1]].all() or not self.bounds[after[closing]].all():
            return False
        lines = np.flatnonzero(block == _LINE)
        within = (np.searchsorted(quotes, lines) + self.inside) % 2 == 1
        ends = lines[~within]
        previous = before[ends + 1]
        blank = (previous == _LINE) | ((previous == _RETURN) & (before[ends] == _LINE))
        lengths = np.diff(ends, prepend=-1 - self.length, append=len(block))
        if blank.any() or lengths.max() > MAX_FIELD or (after[np.flatnonzero(block == _RETURN)] != _LINE).any():
            return False
        self.breaks += int(within.sum())
        self.inside = (self.inside + len(quotes)) % 2
        self.length = int(lengths[-1])
        self.tail = block[-2:].tobytes()
        return True


def read_columns(path: Path, dialect: Dialect, names: Sequence[str], header: bool, rows: int) -> Iterator[dict[str, list[object]]]:
    """Yield the columns of a well-formed file in chunks of at most `rows`. Raises pyarrow.ArrowInvalid at a ragged row."""
    import pyarrow
    from pyarrow import csv

    with open_bytes(path) as file:
        reader = csv.open_csv(
            file,
            read_options=csv.ReadOptions(column_names=[*names], skip_rows_after_names=int(header), block_size=2 * MAX_FIELD),
            parse_options=csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True, ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pyarrow.string()), strings_can_be_null=False, quoted_strings_can_be_null=False
            ),
        )
        for batch in reader:
            for start in range(0, batch.num_rows, rows):
                columns = batch.slice(start, rows).columns
                yield {name: column.to_pylist() for name, column in zip(names, columns, strict=True)}
