"""Limits on data files, so that a few hostile bytes cost neither gigabytes nor hours. `docs/explanation/security.md` lists them."""

from __future__ import annotations

import io
import os
from typing import IO, Any

from loralab.errors import LoralabError

MAX_ROWS = 50_000_000
"""Most rows of a file. A Parquet or Arrow file of a few bytes can declare more."""
MAX_COLUMNS = 4096
"""Most columns of a table: each key of a JSON object is one, in every row."""
MAX_TEXT = 1 << 20
"""Most characters of a text, a field of delimited text or a line of JSON Lines. A longer one usually means an unclosed quote."""
MAX_NESTING = 100
"""Most levels of lists and objects in JSON."""
MAX_WORKBOOK = 1 << 30
"""Most bytes of an unpacked Excel workbook, whose texts openpyxl holds in memory."""
MAX_SHEET_ROWS, MAX_SHEET_COLUMNS = 1 << 20, 1 << 14
"""Excel's own limits. A sheet can skip to any row."""
UNPACKED_GB, UNPACKED_SETTING = 8.0, "LORALAB_MAX_UNPACKED_GB"
"""Most GB (10⁹ bytes) of an unpacked file, or an Arrow table in memory, and the environment variable that sets another limit."""
_BLOCK = 1 << 20


def max_unpacked() -> int:
    """Return the most bytes that a compressed file may unpack to. Raises LoralabError for a variable that is no number."""
    text = os.environ.get(UNPACKED_SETTING, "")
    try:
        gigabytes = float(text or UNPACKED_GB)
        return int(gigabytes * 1e9)
    except (ValueError, OverflowError):
        raise LoralabError(f"{UNPACKED_SETTING}={text!r} is not a number of gigabytes, such as {UNPACKED_GB:g}") from None


def too_large(where: object, limit: int) -> LoralabError:
    """Return the error for a file that unpacks to more than `limit` bytes."""
    return LoralabError(
        f"{where} unpacks to more than {limit / 1e9:g} GB: unpack it and read the file itself, or set {UNPACKED_SETTING} to a "
        f"larger number if you trust it"
    )


def check_size(rows: int, columns: int, where: object) -> None:
    """Raise LoralabError for a table of more than MAX_ROWS rows or MAX_COLUMNS columns."""
    if rows > MAX_ROWS:
        raise LoralabError(f"{where} has more than {MAX_ROWS:,} rows: split it, or train on a sample of its rows")
    if columns > MAX_COLUMNS:
        raise LoralabError(f"{where} has more than {MAX_COLUMNS:,} columns: keep those of texts and labels")


class BoundedReader(io.RawIOBase):
    """A decompressed stream that raises LoralabError behind `limit` bytes."""

    def __init__(self, stream: IO[bytes], where: object) -> None:
        self.stream: Any = stream
        self.where, self.limit = where, max_unpacked()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position: int = self.stream.seek(offset, whence)
        return position

    def readinto(self, buffer: Any) -> int:
        count: int = self.stream.readinto(buffer)
        if self.stream.tell() > self.limit:
            raise too_large(self.where, self.limit)
        return count


def copy_bounded(source: IO[bytes], target: IO[bytes], where: object) -> None:
    """Copy a decompressed stream to a file. Raises LoralabError if it is longer than `max_unpacked`."""
    left = limit = max_unpacked()
    while block := source.read(_BLOCK):
        left -= len(block)
        if left < 0:
            raise too_large(where, limit)
        target.write(block)
