"""Files that the page's users send: kept in a temporary folder under names of the server's own."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

from loralab.config import DataConfig
from loralab.data.readers import open_table
from loralab.data.types import ColumnChunk, Notice, list_rows
from loralab.errors import LoralabError
from loralab.inference.prediction_files import cell_text, read_input
from loralab.serve.settings import ServerSettings
from loralab.storage.data_contract import DataContract
from loralab.storage.files import TemporaryFolder, write_errors
from loralab.tables import clip

EXTENSIONS = (".csv", ".tsv", ".tab", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".feather", ".arrow", ".xlsx", ".xlsm")
SAMPLE_ROWS, SAMPLE_CHARACTERS = 5, 200
MAX_FILES = 16
SECONDS_KEPT = 3600.0
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")


@dataclass(frozen=True)
class Upload:
    """A file. data: how it is read; rows: how many; notices: decisions of the reader."""

    id: str
    path: Path
    data: DataConfig
    columns: tuple[str, ...]
    sample: list[list[str]]
    rows: int
    notices: tuple[Notice, ...]
    time: float = field(default_factory=time.monotonic)

    def preview(self, contract: DataContract | None = None) -> dict[str, Any]:
        """Return columns, sample rows, and the text columns as a model's data contract has them, or as they are detected."""
        text: tuple[str, ...] = ()
        notices, problem = [*self.notices], ""
        try:
            source = read_input(self.path, self.data, contract)
            text = source.columns.text if source.columns else ()
            notices += source.notices
        except LoralabError:
            problem = "Which column has the texts is not clear. Choose it."
        return {
            "id": self.id,
            "columns": [*self.columns],
            "sample": self.sample,
            "rows": self.rows,
            "text": [*text],
            "problem": problem,
            "notices": [f"{notice.message} ({list_rows(notice.rows)})" if notice.rows else notice.message for notice in notices],
        }

    def read_as(self, text: list[str]) -> DataConfig:
        """Return how to read the file with these text columns. Raises LoralabError for a column that it does not have."""
        if not text or not {*text} <= {*self.columns}:
            raise LoralabError(f"choose one or more text columns: {', '.join(self.columns)}")
        return self.data.model_copy(update={"text": tuple(text)})


class Uploads:
    """The files of all users, at most MAX_FILES, each for an hour."""

    def __init__(self, settings: ServerSettings) -> None:
        self.max_unpacked = 10 * settings.max_upload
        self._folder = TemporaryFolder()
        self._files: dict[str, Upload] = {}
        self._lock = threading.Lock()

    def add(self, content: bytes, extension: str) -> Upload:
        """Write and inspect a file. Raises LoralabError for one that cannot be read, and when there are too many."""
        if extension not in EXTENSIONS:
            raise LoralabError(f"files like this are not read here; readable: {', '.join(EXTENSIONS)}")
        self._check_packing(content)
        self.remove_old()
        if len(self._files) >= MAX_FILES:
            raise LoralabError(f"the server keeps at most {MAX_FILES} files: remove one, or wait until an hour has passed")
        name = secrets.token_hex(8)
        path = self._folder.path / f"{name}{extension}"
        with write_errors(path):
            path.write_bytes(content)
        try:
            upload = _inspect(name, path)
        except LoralabError as error:
            path.unlink(missing_ok=True)
            raise LoralabError(str(error).replace(str(path), "the file")) from error
        with self._lock:
            self._files[name] = upload
        return upload

    def get(self, name: str) -> Upload | None:
        """Return a file by its id; None for an unknown one."""
        return self._files.get(name)

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        with self._lock:
            upload = self._files.pop(name, None)
        if upload is not None:
            upload.path.unlink(missing_ok=True)

    def remove_old(self) -> None:
        """Delete the files of more than an hour ago."""
        for upload in [*self._files.values()]:
            if time.monotonic() - upload.time > SECONDS_KEPT:
                self.remove(upload.id)

    def close(self) -> None:
        """Delete all files, and their folder: a signal may end the process without finalizers."""
        self._files.clear()
        shutil.rmtree(self._folder.path, ignore_errors=True)

    def _check_packing(self, content: bytes) -> None:
        """Raise LoralabError for packed files, a few bytes of which may be gigabytes. Workbooks are packed, within a limit."""
        if content.startswith(_PACKED):
            raise LoralabError("the file is compressed: unpack it first")
        if content.startswith(b"PK"):
            try:
                with zipfile.ZipFile(BytesIO(content)) as archive:
                    unpacked = sum(member.file_size for member in archive.infolist())
                    workbook = any(member.filename.startswith("xl/") for member in archive.infolist())
            except zipfile.BadZipFile as error:
                raise LoralabError("the file is damaged: save it again") from error
            if not workbook:
                raise LoralabError("the file is an archive: unpack it first")
            if unpacked > self.max_unpacked:
                raise LoralabError("the workbook is too large: save its table as CSV")


def _inspect(name: str, path: Path) -> Upload:
    """Read a file once: columns, first rows, number of rows, notices."""
    try:
        return _read_whole(name, path, DataConfig())
    except LoralabError as unclear:
        try:  # the first line may be a header or a row: on the page it is a header, and the user sees it
            return _read_whole(name, path, DataConfig(header=True))
        except LoralabError:
            raise unclear from None


def _read_whole(name: str, path: Path, data: DataConfig) -> Upload:
    table = open_table(path, data)
    first = next(table.chunks, None)
    if first is None or first.rows == 0:
        raise LoralabError(f"{path} has no rows")
    chunks: Iterator[ColumnChunk] = chain((first,), table.chunks)
    rows, columns = 0, dict.fromkeys(first.columns)
    for chunk in chunks:
        rows += chunk.rows
        columns |= dict.fromkeys(chunk.columns)
    sample = [
        [clip(cell_text(value), SAMPLE_CHARACTERS) for value in row]
        for row in zip(*(first.columns[column][:SAMPLE_ROWS] for column in first.columns), strict=True)
    ]
    return Upload(name, path, data, tuple(columns), sample, rows, tuple(table.notices))
