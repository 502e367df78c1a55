"""Sealed files: JSON with its own SHA-256 and those of other files, so that a damaged or exchanged file is named, never used.

A sealed object ends with three keys: `format` (the number of its format), `files` (size and SHA-256 of other files, by name) and
`sha256` (of everything else in it). A file without any of them was written before checksums: it is read unchecked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loralab.errors import LoralabError
from loralab.safe_files import exists, open_file
from loralab.storage.files import read_json_object, write_json

FORMAT = 2
"""The format of run folders and models. 1: without checksums."""
_FORMAT_KEY, _FILES, _DIGEST = "format_version", "files", "sha256"
_PIECE = 1 << 22


@dataclass(frozen=True)
class FileRecord:
    """A file as it was written. size: in bytes."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Return the record of a file on the disk. Raises LoralabError unless it is a regular file; OSError."""
        digest, size = hashlib.sha256(), 0
        with open_file(path) as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                size += len(piece)
        return cls(size, digest.hexdigest())

    @classmethod
    def of_bytes(cls, content: bytes) -> FileRecord:
        """Return the record of a file with this content."""
        return cls(len(content), hashlib.sha256(content).hexdigest())


Records = Mapping[str, FileRecord]


@dataclass(frozen=True)
class Sealed:
    """A sealed object. content: without the keys of the seal; sha256: its identity, empty for a file without checksums."""

    content: dict[str, Any]
    files: Records = field(default_factory=dict)
    sha256: str = ""


def record_files(folder: Path, names: Iterable[str]) -> dict[str, FileRecord]:
    """Return the records of those files that the folder has, by name. Raises OSError and LoralabError as `FileRecord.of`."""
    return {name: FileRecord.of(folder / name) for name in names if exists(folder / name)}


def seal(content: Mapping[str, Any], files: Records, *, format_key: str = _FORMAT_KEY, format: int = FORMAT) -> dict[str, Any]:
    """Return the object as JSON values, with its format, the records of other files, and its own SHA-256 as last keys."""
    listed = {name: {"size": record.size, "sha256": record.sha256} for name, record in sorted(files.items())}
    whole = {**json.loads(json.dumps(content)), format_key: format, _FILES: listed}
    return {**whole, _DIGEST: _digest(whole)}


def write_sealed(path: Path, content: Mapping[str, Any], files: Records | None = None) -> None:
    """Write a sealed JSON object atomically. Raises RunFailed if the disk refuses it."""
    write_json(path, seal(content, files or {}))


def read_sealed(path: Path, advice: str, *, format_key: str = _FORMAT_KEY, format: int = FORMAT) -> Sealed:
    """Read a sealed JSON object. Raises LoralabError, ending with `advice`, if it is missing, damaged, or of a later format."""
    content = read_json_object(path, advice)
    return unseal(content, path, advice, format_key=format_key, format=format)


def unseal(content: Mapping[str, Any], path: Path, advice: str, *, format_key: str = _FORMAT_KEY, format: int = FORMAT) -> Sealed:
    """Check the seal of an object that was read from `path`. Raises LoralabError as `read_sealed`."""
    whole = dict(content)
    number = whole.get(format_key, 1)
    if isinstance(number, int) and not isinstance(number, bool) and number > format:
        raise LoralabError(
            f"{path} was written by a newer loralab (format {number}; this one reads up to {format}): upgrade loralab"
        )
    if number == 1 and not {_FILES, _DIGEST} & whole.keys():
        whole.pop(format_key, None)
        return Sealed(whole)
    digest = whole.pop(_DIGEST, None)
    try:
        if number != format or digest != _digest(whole):
            raise LoralabError(f"{path} is damaged: its content does not match the SHA-256 in it; {advice}")
        files = {_check_name(name): FileRecord(int(own["size"]), str(own["sha256"])) for name, own in whole.pop(_FILES).items()}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise LoralabError(f"{path} is damaged ({error!r}): {advice}") from error
    del whole[format_key]
    return Sealed(whole, files, str(digest))


def _check_name(name: str) -> str:
    """Return the name of a file inside a folder. Raises ValueError for a path that may lead outside."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or name.startswith("/") or "\\" in name or ":" in name or ".." in parts:
        raise ValueError(f"{name!r} is not a file of the folder")
    return name


def check_file_record(path: Path, name: str, files: Records, owner: Path, advice: str) -> None:
    """Raise LoralabError unless `path` is the file that `owner` recorded under `name`. Nothing is checked without records."""
    if not files:
        return
    record = files.get(name)
    if record is None:
        if exists(path):
            raise LoralabError(f"{path} does not belong to {owner.parent}: {owner.name} does not list it; remove it, or {advice}")
        return
    try:
        size = open_size(path)
        present = FileRecord.of(path) if size == record.size else None
    except FileNotFoundError as error:
        raise LoralabError(f"{path} is missing: {owner.name} lists it; {advice}") from error
    except OSError as error:
        raise LoralabError(f"cannot read {path}: {error.strerror or error}; {advice}") from error
    if present is None:
        raise LoralabError(f"{path} is damaged: it has {size:,} bytes, and was written with {record.size:,}; {advice}")
    if present != record:
        raise LoralabError(f"{path} is damaged: its SHA-256 differs from the one in {owner.name}; {advice}")


def open_size(path: Path) -> int:
    """Return the size of a regular file in bytes. Raises OSError, and LoralabError for anything but a regular file."""
    with open_file(path) as file:
        return file.seek(0, 2)


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of an object's canonical JSON: sorted keys, no spaces, numbers as Python writes them."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
