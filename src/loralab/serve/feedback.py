"""Texts with their right labels, appended to a CSV that `loralab train` reads."""

from __future__ import annotations

import csv
import io
import os
import threading
from pathlib import Path

from loralab.errors import LoralabError
from loralab.storage.files import file_lock, write_errors

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
            with (
                file_lock(self.path.with_name(f".{self.path.name}.lock")),
                self.path.open("a+", encoding="utf-8", newline="") as file,
            ):
                prefix = self._prefix(file)
                line = io.StringIO()
                table = csv.writer(line, lineterminator="\n")
                if prefix is None:
                    table.writerow(HEADER)
                table.writerow((text, label, model, predicted, time))
                file.write((prefix or "") + line.getvalue())
                file.flush()
                os.fsync(file.fileno())

    def _prefix(self, file: io.TextIOWrapper) -> str | None:
        """Return None for an empty file, else what completes its last line. Raises LoralabError for another header."""
        file.seek(0)
        first = file.readline()
        if not first:
            return None
        if next(csv.reader([first]), []) != [*HEADER]:
            raise LoralabError(f"{self.path} has other columns than {', '.join(HEADER)}: choose another --feedback file")
        size = file.buffer.seek(0, os.SEEK_END)
        file.buffer.seek(size - 1)
        return "" if file.buffer.read(1) == b"\n" else "\n"
