"""Texts with their right labels, appended to a CSV that `loralab train` reads."""

from __future__ import annotations

import csv
import io
import os
import threading
from pathlib import Path
from typing import IO

from loralab.errors import LoralabError
from loralab.storage.files import file_lock, write_errors
from loralab.tables import csv_writer

HEADER = ("text", "label", "model", "predicted", "time")


class FeedbackFile:
    """A CSV with the columns text, label, model, predicted, time. Rows are on disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def append(self, text: str, label: str, model: str, predicted: str, time: str) -> None:
        """Append a row. Raises RunFailed if the disk refuses it, and LoralabError for a file with other columns.

        A row that a crash cut off is completed by a line break, so that it damages no other.
        """
        with self._lock, write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self.path.with_name(f".{self.path.name}.lock")
            with file_lock(lock), self.path.open("a+b") as file:
                rows = [(text, label, model, predicted, time)]
                beginning = self._end_of_last_row(file)
                if beginning is None:
                    beginning, rows = "", [HEADER, *rows]
                lines = io.StringIO()
                csv_writer(lines).writerows(rows)
                file.write((beginning + lines.getvalue()).encode("utf-8", "replace"))
                file.flush()
                os.fsync(file.fileno())

    def _end_of_last_row(self, file: IO[bytes]) -> str | None:
        """Return None for an empty file, else what ends its last row. Raises LoralabError for another header."""
        file.seek(0)
        header = file.readline().decode("utf-8", "replace")
        if not header:
            return None
        if next(csv.reader([header]), []) != [*HEADER]:
            raise LoralabError(f"{self.path} has other columns than {', '.join(HEADER)}: choose another --feedback file")
        file.seek(file.seek(0, os.SEEK_END) - 1)
        return "" if file.read(1) == b"\n" else "\n"
