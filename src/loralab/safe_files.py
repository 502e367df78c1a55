"""Open files of a folder that a stranger may have made: regular files of a limited size, never through a symbolic link.

A link could lead to a secret outside the folder, a FIFO never ends, and a device never stops. The folder that the user names may be
a link itself; nothing below it may be. The one exception are snapshots in the Hugging Face cache, whose files are links to its
folder `blobs`.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from loralab.errors import LoralabError

MAX_SETTINGS_BYTES = 64 << 20
"""Largest JSON or YAML file: manifests, settings, scores, tokenizers. The largest tokenizer in use takes 33 MB."""
MAX_LOG_BYTES = 256 << 20
"""Largest log.jsonl: about a million steps."""
MAX_PREDICTIONS_BYTES = 16 << 30
"""Largest predictions.csv. It is read in pieces."""
MAX_LINE_CHARACTERS = 1 << 26
"""Longest line of predictions.csv."""
_BLOBS = "blobs"


def exists(path: Path) -> bool:
    """Return whether a folder has this name, whatever it is: what is not a regular file is refused when it is read."""
    return os.path.lexists(path)


def check_folder(path: Path) -> Path:
    """Return a folder inside a run. Raises LoralabError if it is a symbolic link or not a folder."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise LoralabError(f"{path} {_LINK}")
    if not stat.S_ISDIR(status.st_mode):
        raise LoralabError(f"{path} is not a folder: move it away")
    return path


def check_file(path: Path, limit: int | None = None) -> Path:
    """Return the path to open of a file in a stranger's folder, for a library that opens it itself.

    limit: the largest size in bytes. Raises LoralabError if it is a symbolic link, no regular file or larger; FileNotFoundError if
    it does not exist.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode) and (blob := _hub_blob(path)) is not None:
        path, status = blob, blob.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise LoralabError(f"{path} {_LINK}")
    _check_status(path, status, limit)
    return path


def open_file(path: Path, limit: int | None = None) -> BinaryIO:
    """Open a file in a stranger's folder for reading. Arguments and errors as in `check_file`."""
    checked = check_file(path, limit)
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
    handle = os.open(checked, flags)  # O_NONBLOCK: a FIFO that has just taken the file's place must not hang
    try:
        _check_status(path, os.fstat(handle), limit)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path, limit: int | None = MAX_SETTINGS_BYTES) -> bytes:
    """Read a file in a stranger's folder. Arguments and errors as in `check_file`."""
    with open_file(path, limit) as file:
        return file.read()


def read_text(path: Path, limit: int | None = MAX_SETTINGS_BYTES) -> str:
    """Read a UTF-8 file in a stranger's folder. Errors as in `check_file`, and UnicodeDecodeError."""
    return read_bytes(path, limit).decode("utf-8")


_LINK = "is a symbolic link: loralab reads only regular files inside a run's folder; put the file itself there"


def _check_status(path: Path, status: os.stat_result, limit: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "special file")
        raise LoralabError(f"{path} is a {kind}, not a regular file: remove it, or restore the file from a copy")
    if limit is not None and status.st_size > limit:
        raise LoralabError(
            f"{path} has {status.st_size:,} bytes, more than the {limit:,} that such a file may have: it is damaged; restore it"
        )


_KINDS = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


def _hub_blob(path: Path) -> Path | None:
    """Return the file of a snapshot in the Hugging Face cache: `snapshots/COMMIT/NAME` is a link to `blobs/HASH`."""
    snapshots = path.parent.parent
    if snapshots.name != "snapshots" or not (snapshots.parent / _BLOBS).is_dir() or (snapshots.parent / _BLOBS).is_symlink():
        return None
    blobs, blob = (snapshots.parent / _BLOBS).resolve(), path.parent.resolve() / path.readlink()
    blob = Path(os.path.normpath(blob))
    return blob if blob.parent == blobs and blob.exists() else None
