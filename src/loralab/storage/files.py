"""Atomic writes, file locks, JSON and CSV limits: the one copy of each."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from loralab.errors import LoralabError, RunFailed
from loralab.safe_files import read_text
from loralab.storage import temporaries


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError, such as a full or read-only disk, into a RunFailed that names `path`."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error.strerror or error}; previously saved files are unaffected") from error


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[str]]:
    """Open a UTF-8 text file that replaces `path` when the block ends without an error."""
    with temporaries.temporary(path, folder=False) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` when the block ends without an error. Parent folders are created.

    Raises RunFailed if the folder cannot be written. An OSError of the block that has another cause, such as a file that cannot be
    read, passes unchanged.
    """
    with contextlib.ExitStack() as stack:
        with write_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(temporaries.temporary(folder, folder=True))
        try:
            yield temporary
            with write_errors(folder):
                _finish(temporary)
                temporaries.replace_folder(temporary, folder)
        except OSError as error:
            if _is_write_error(error, temporary):
                with write_errors(folder):
                    raise
            raise


def _is_write_error(error: OSError, folder: Path) -> bool:
    """Return whether writing into `folder` failed: the disk is full or read-only, or the error names a file in it."""
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC))
    return full or (isinstance(error.filename, str | os.PathLike) and folder in (path := Path(error.filename), *path.parents))


def _finish(folder: Path) -> None:
    """Apply the umask's permissions (safetensors writes private files) and flush every file to the disk."""
    mask = _umask()
    os.chmod(folder, 0o777 & ~mask)
    for path in (path for path in folder.rglob("*") if not path.is_dir()):
        os.chmod(path, 0o666 & ~mask)
        with path.open("rb+") as file:  # opened for writing: Windows does not flush a read-only handle
            os.fsync(file.fileno())


def size_mb(path: Path) -> float | None:
    """Return the size of a file, or of a folder's files, in MB of 10⁶ bytes; None if there is none."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6 if files else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically. Raises RunFailed if the disk refuses it."""
    with write_errors(path), atomic_write(path) as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def read_json_object(path: Path, advice: str) -> dict[str, Any]:
    """Read a JSON object of a stranger's folder.

    Raises LoralabError, ending with `advice`, if the file is missing, damaged or no regular file, or holds something else.
    """
    try:
        content = json.loads(read_text(path))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise LoralabError(f"cannot read {path} ({error}): {advice}") from error
    return content


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock among threads and processes. The system releases it when its holder dies.

    Yields False, without the lock, if `wait` is False and another holds it. The lock file is deleted at the end: whoever waits for
    it notices (filelock checks that the file still has its name) and locks a new one.
    """
    lock = FileLock(path, timeout=-1 if wait else 0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):  # Windows does not delete open files
            path.unlink()
        lock.release()


_csv_lock = threading.Lock()
_csv_limits: list[int] = []
_csv_default = csv.field_size_limit()


@contextlib.contextmanager
def csv_field_limit(limit: int) -> Iterator[None]:
    """Allow CSV fields of `limit` characters instead of 131,072, and restore the previous limit afterwards.

    The csv module has one limit per process. Of overlapping uses, in threads or generators, the largest applies.
    """
    global _csv_default
    with _csv_lock:
        if not _csv_limits:
            _csv_default = csv.field_size_limit()
        _csv_limits.append(limit)
        csv.field_size_limit(max(_csv_limits))
    try:
        yield
    finally:
        with _csv_lock:
            _csv_limits.remove(limit)
            csv.field_size_limit(max(_csv_limits, default=_csv_default))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class TemporaryFolder:
    """A folder that is deleted with the last object that has it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="loralab-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
