"""Temporary files and folders beside their target: locked while a process writes them, removed once their process has died.

They are named `.TARGET.XXXXXXXX.unfinished`. `.TARGET.XXXXXXXX.replaced` is the folder that a new one replaces, where the system
cannot exchange two folders at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

UNFINISHED, REPLACED = ".unfinished", ".replaced"
_NAME = re.compile(r"\.(?P<target>.+)\.[a-z0-9_]{8}\.(unfinished|replaced)", re.DOTALL)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def temporary(target: Path, *, folder: bool) -> Iterator[Path]:
    """Yield a new empty file or folder beside `target`, locked for this process, and remove it if it still has its name.

    First removes what killed processes left of the same target. Raises OSError.
    """
    sweep(target)
    path, handle = _create(target, folder)
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(path, ignore_errors=True) if folder else path.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _create(target: Path, folder: bool) -> tuple[Path, int | None]:
    """Return a new temporary with its lock. Another process may sweep it before it is locked: then make another."""
    prefix = f".{target.name}."
    while True:
        handle: int | None = None
        if folder:
            path = Path(tempfile.mkdtemp(UNFINISHED, prefix, target.parent))
            if fcntl is not None:
                handle = os.open(path, os.O_RDONLY)
        else:
            handle, name = tempfile.mkstemp(UNFINISHED, prefix, target.parent)
            path = Path(name)
        if fcntl is None or handle is None:
            if handle is not None:
                os.close(handle)  # Windows replaces no open file
            return path, None
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists():
            return path, handle
        os.close(handle)


def sweep(target: Path) -> list[Path]:
    """Remove the temporaries of `target` whose process has died, and put a folder back that lost its name; return their paths."""
    removed = []
    with contextlib.suppress(OSError):
        for path in sorted(target.parent.iterdir()) if target.parent.is_dir() else ():
            match = _NAME.fullmatch(path.name)
            if match and match["target"] == target.name and remove_if_dead(path):
                removed.append(path)
    return removed


def is_temporary(path: Path) -> bool:
    """Return whether a path has the name of a temporary."""
    return _NAME.fullmatch(path.name) is not None


def remove_if_dead(path: Path) -> bool:
    """Remove a temporary unless a process has it locked; put a replaced folder back if its target is gone.

    Return whether it lost its name. Without file locks nothing is known about its process, and it stays.
    """
    match = _NAME.fullmatch(path.name)
    if match is None or fcntl is None or path.is_symlink():
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        target = path.with_name(match["target"])
        if path.name.endswith(REPLACED) and not os.path.lexists(target):
            os.replace(path, target)
            _log.warning("%s was being replaced when its process was killed: the earlier one is back in its place", target)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
        return not os.path.lexists(path)
    except OSError:  # locked, or read-only
        return False
    finally:
        os.close(handle)


@contextlib.contextmanager
def lock_folder(folder: Path, seconds: float = 0.0) -> Iterator[bool]:
    """Lock a folder among processes. The lock is no file, and ends with its process.

    Yields False, without the lock, if another process still holds it after `seconds`; True where there are no file locks.
    """
    if fcntl is None:
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + seconds
        while not (free := _lock(handle)) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield free
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Return whether an open file is locked now, or cannot be."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def restore(target: Path) -> None:
    """Put a folder back whose process was killed while it replaced it. Costs nothing while the folder exists."""
    if not os.path.lexists(target):
        sweep(target)


def replace_folder(new: Path, target: Path) -> None:
    """Give a folder the place of `target`, which may exist, and remove the earlier one. Raises OSError, with `target` unchanged.

    Linux exchanges both at once, so that a killed process leaves one of them whole under the name. Elsewhere the earlier one is
    moved aside first; `restore` puts it back if the process was killed before the new one was in place.
    """
    if not os.path.lexists(target):
        os.replace(new, target)
    elif _exchange(new, target):
        shutil.rmtree(new, ignore_errors=True)
    else:
        _move_aside(new, target)


def _move_aside(new: Path, target: Path) -> None:
    old = new.with_name(new.name.removesuffix(UNFINISHED) + REPLACED)
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            handle = os.open(target, os.O_RDONLY)
            stack.callback(os.close, handle)
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.replace(target, old)
        try:
            os.replace(new, target)
        except BaseException:
            os.replace(old, target)
            raise
        if old.is_symlink() or not old.is_dir():
            old.unlink()
        else:
            shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders at once, and return whether the system can (Linux, on most file systems)."""
    if second.is_symlink():
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM):
        raise OSError(number, os.strerror(number), str(second))
    return False
