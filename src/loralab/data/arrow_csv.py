"""Fast reading of well-formed CSV by Arrow. Anything unusual is left to `loralab.data.delimited`, which reads and explains it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from loralab.data.delimited import MAX_FIELD, Dialect
from loralab.data.text_files import one_ahead, open_bytes
from loralab.data.types import Notice, count_of

if TYPE_CHECKING:
    import pyarrow

_QUOTE, _LINE, _RETURN = b'"\n\r'
_MARK = b"\xef\xbb\xbf"
BLOCK = 2 << 20
"""Bytes that are parsed at once."""
_TAIL = 1 << 15
"""Bytes at the end of a block where the end of its last record is looked for first."""

Bytes = npt.NDArray[np.uint8]


class Unusual(Exception):
    """The next rows are not ones that Arrow reads as Python's strict csv reader does."""


def read_blocks(
    path: Path, dialect: Dialect, encoding: str, names: Sequence[str], header: bool, notices: list[Notice], checked: bool = False
) -> Iterator[pyarrow.Table]:
    """Yield the rows of a file, block by block, and note line breaks within quotes.

    It takes UTF-8 of at least two columns in which every double quote opens a field, closes one, or is doubled within one, without
    blank lines, and with records of at most MAX_FIELD bytes. Raises Unusual at a block with others. A thread reads and checks
    the next block while one is parsed. checked: the whole file is known to be UTF-8, so Arrow need not check it again.
    """
    plain = encoding in ("utf-8", "utf-8-sig") and dialect.quotes and not dialect.skip_spaces and not dialect.skip_lines
    if not plain or len(names) < 2 or dialect.delimiter is None or not dialect.delimiter.isascii():
        raise Unusual
    breaks, skip = 0, int(header)
    for block, within in one_ahead(_checked_blocks(path, dialect.delimiter)):
        yield _parse(block, dialect.delimiter, names, skip, checked)
        skip = 0
        breaks += within
    if breaks:
        broken = count_of(breaks, "line break within double quotes belongs", "line breaks within double quotes belong")
        notices.append(Notice(f"{broken} to the texts"))


def _checked_blocks(path: Path, delimiter: str) -> Iterator[tuple[Bytes, int]]:
    """Yield blocks of whole records and the line breaks within their quotes. Raises Unusual."""
    with open_bytes(path) as file:
        for block in _whole_records(file):
            yield block, _breaks_within_quotes(block, delimiter)


def _whole_records(file: IO[bytes]) -> Iterator[Bytes]:
    """Yield the bytes of a file in blocks that end where a record does, if every quote opens or closes a field."""
    pending = np.frombuffer(file.read(len(_MARK)).removeprefix(_MARK), dtype=np.uint8)
    while True:
        block = np.empty(len(pending) + BLOCK, dtype=np.uint8)
        block[: len(pending)] = pending
        size = file.readinto(block[len(pending) :].data)  # type: ignore[attr-defined]
        block = block[: len(pending) + size]
        if not size:
            if len(block):
                yield block
            return
        end = _last_record_end(block)
        if end:
            yield block[:end]
        pending = block[end:]
        if len(pending) > MAX_FIELD:
            raise Unusual


def _last_record_end(block: Bytes) -> int:
    """Return the position after the last line end that an even number of quotes precedes, 0 without one."""
    quotes = block == _QUOTE
    for start in (max(0, len(block) - _TAIL), 0):
        lines = np.flatnonzero(block[start:] == _LINE)
        before = np.count_nonzero(quotes[:start]) + np.cumsum(quotes[start:])[lines]
        outside = lines[before % 2 == 0]
        if len(outside):
            return start + int(outside[-1]) + 1
    return 0


def _parse(block: Bytes, delimiter: str, names: Sequence[str], skip: int, checked: bool) -> pyarrow.Table:
    """Return the rows of whole records without the first `skip`. Raises Unusual."""
    import pyarrow
    from pyarrow import csv

    text = pyarrow.string()
    try:
        return csv.read_csv(
            pyarrow.BufferReader(pyarrow.py_buffer(block)),
            csv.ReadOptions(column_names=[*names], skip_rows_after_names=skip, block_size=len(block) + 1, use_threads=False),
            csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False),
            csv.ConvertOptions(
                check_utf8=not checked,
                column_types=dict.fromkeys(names, text),
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
    except pyarrow.ArrowInvalid as error:  # fields missing or too many
        raise Unusual from error


def _breaks_within_quotes(block: Bytes, delimiter: str) -> int:
    """Check whole records, and count the line ends that belong to a field. Raises Unusual."""
    quotes, lines = _positions(block == _QUOTE), _positions(block == _LINE)
    bound = np.zeros(256, dtype=np.bool_)
    bound[[ord(delimiter), _LINE, _RETURN, _QUOTE]] = True
    before, after = _beside(block, quotes[::2], -1), _beside(block, quotes[1::2], 1)
    if len(quotes) % 2 or not bound[before].all() or not bound[after].all():
        raise Unusual
    within = np.searchsorted(quotes, lines) % 2 == 1
    ends = lines[~within]
    previous = _beside(block, ends, -1)
    blank = (previous == _LINE) | ((previous == _RETURN) & (_beside(block, ends, -2) == _LINE))
    if blank.any() or np.diff(ends, prepend=-1, append=len(block)).max() > MAX_FIELD:
        raise Unusual
    returns = block == _RETURN
    if returns[-1] or (returns[:-1] > (block[1:] == _LINE)).any():
        raise Unusual
    return int(within.sum())


def _positions(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return where a sparse mask is true: `np.flatnonzero` in half its time, by looking at eight bytes at once."""
    whole = len(mask) // 8 * 8
    words = mask[:whole].view(np.uint64)
    places = np.flatnonzero(words != 0)
    within = np.flatnonzero(words.take(places).view(np.bool_))
    return np.concatenate([places.take(within >> 3) * 8 + (within & 7), whole + np.flatnonzero(mask[whole:])])


def _beside(block: Bytes, positions: npt.NDArray[np.intp], offset: int) -> Bytes:
    """Return the bytes at `offset` from positions; a line end where that is outside the block."""
    wanted = positions + offset
    values = block.take(wanted, mode="clip")
    values[(wanted < 0) | (wanted >= len(block))] = _LINE
    return values
