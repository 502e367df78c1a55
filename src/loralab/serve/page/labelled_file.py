"""A CSV that a person labels row by row: every label is on disk when it is given, and the last ones can be taken back."""

from __future__ import annotations

import csv
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import BinaryIO

from loralab.errors import LoralabError
from loralab.storage.files import csv_field_limit, file_lock, write_errors
from loralab.storage.run_folder import MAX_TEXT_CHARACTERS

HEADER = ("text", "label", "row", "suggested", "time")


@dataclass(frozen=True)
class LabelledRow:
    """A labelled text. row: its number in the pool; suggested: the label that was preselected, if any; time: in ISO 8601."""

    text: str
    label: str
    row: int
    suggested: str
    time: str


class LabelledFile:
    """A CSV with the columns text, label, row, suggested, time, which `loralab train` reads.

    A crash may cut off the last row. It was never confirmed: it is moved to a file that ends in .torn, and can be labelled again.
    Another process may change the file between two calls.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises LoralabError for a damaged file and RunFailed for a disk that refuses it."""
        self.path = path
        self.rows: list[LabelledRow] = []
        self._ends: list[int] = []
        """Where the header and each row end, in bytes."""
        self._size = -1
        self._lock = threading.Lock()
        with self._opened():
            pass

    def append(self, row: LabelledRow) -> None:
        """Append a row. It is on disk when this returns. Raises RunFailed if the disk refuses it."""
        with self._opened() as file:
            file.seek(self._ends[-1] - 1)
            missing = b"" if file.read(1) == b"\n" else b"\n"  # an editor may have left the last line break out
            self._ends.append(self._write(file, missing + _line(astuple(row))))
            self.rows.append(row)

    def undo(self) -> LabelledRow | None:
        """Remove the last row and return it; None if there is none. Raises RunFailed if the disk refuses it."""
        with self._opened() as file:
            if not self.rows:
                return None
            last = self._ends.pop()
            try:
                self._write(file, b"")
            except OSError:
                self._ends.append(last)
                raise
            return self.rows.pop()

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """Lock and open the file, and read it if another process has changed it."""
        with self._lock, write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(self.path.with_name(f".{self.path.name}.lock")), self.path.open("a+b") as created:
                with self.path.open("r+b") as file:
                    if os.fstat(created.fileno()).st_size != self._size:
                        self._read(file)
                    yield file
                self._size = os.fstat(created.fileno()).st_size

    def _write(self, file: BinaryIO, content: bytes) -> int:
        """Replace what follows the last complete row, and return where the file ends."""
        start = self._ends[-1] if self._ends else 0
        file.truncate(start)
        file.seek(start)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(start)
            raise
        return start + len(content)

    def _read(self, file: BinaryIO) -> None:
        content = file.read()
        self.rows, self._ends = [], []
        if not content:
            self._ends.append(self._write(file, _line(HEADER)))
            return
        records, self._ends = _parse(content, self.path)
        if not records or records[0] != [*HEADER]:
            raise LoralabError(f"{self.path} has other columns than {', '.join(HEADER)}: move it")
        self.rows = [LabelledRow(text, label, int(row), suggested, time) for text, label, row, suggested, time in records[1:]]
        if torn := content[self._ends[-1] :]:
            self.path.with_name(f"{self.path.name}.torn").write_bytes(torn)
            self._write(file, b"")


def _line(values: tuple[object, ...]) -> bytes:
    """Return a row. Every field is quoted, because older versions of Python leave a carriage return unquoted."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(values)
    return line.getvalue().encode("utf-8", "replace")


def _parse(content: bytes, path: Path) -> tuple[list[list[str]], list[int]]:
    """Return the complete records and where each ends. Raises LoralabError for a damaged record that is not the last."""
    records: list[list[str]] = []
    ends: list[int] = []
    position = 0

    def lines() -> Iterator[str]:
        nonlocal position
        for line in io.BytesIO(content):
            position += len(line)
            yield line.decode("utf-8", "replace")

    torn = False
    with csv_field_limit(MAX_TEXT_CHARACTERS):
        try:
            for record in csv.reader(lines(), strict=True):
                if len(record) != len(HEADER) or (records and not record[2].isdecimal()):
                    torn = not content.endswith(b"\n")
                    break
                records.append(record)
                ends.append(position)
        except csv.Error:  # a quote that nothing closes, up to the end of the file
            torn = True
    if position < len(content) or (ends[-1:] != [position] and not torn):
        raise LoralabError(f"{path}: row {len(records)} is damaged: it needs {', '.join(HEADER)}; correct the file or move it")
    return records, ends
