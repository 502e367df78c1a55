"""Break something at the k-th file operation of a process: every window between two of them is tried, which random times miss.

A file operation opens a file for writing, renames, deletes, truncates, makes a folder, changes times or modes, or flushes to the
disk, below the command's folder. A fault is a mapping:

    kind    kill, int, int2, term, full, no_size, read_only, clock, remove, change; count only counts
    at      the number of the operation, from 1: the fault happens just before it
    file    remove, change: the data file
    trace   count: the file that gets one line per operation
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.utime", "os.link", "os.symlink"}
MS_RDONLY, MS_REMOUNT = 1, 32
DAY = 86_400.0
FILLER = ".filler"


class Injection:
    """Counts file operations, and acts before one of them."""

    def __init__(self, fault: Mapping[str, Any], folder: Path, hit: int) -> None:
        self.fault, self.folder, self.hit = fault, str(folder), hit
        self.count, self.busy = 0, False
        self.trace = os.open(fault["trace"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if fault["kind"] == "count" else -1

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The hook of `sys.addaudithook`, which Python calls before each operation."""
        if self.busy:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITE_FLAGS and self.inside(path):
                self.operation(f"open {path}")
        elif event in EVENTS and self.inside(arguments[0]):
            self.operation(f"{event} {arguments[0]}")

    def inside(self, path: Any) -> bool:
        """Whether a path is below the command's folder; those relative to an open folder are."""
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        name = os.fsdecode(path)
        return not name.startswith("/") or name.startswith(self.folder)

    def operation(self, name: str) -> None:
        """Count an operation, and act if it is the one."""
        self.count += 1
        self.busy = True
        try:
            if self.trace >= 0:
                os.write(self.trace, f"{name}\n".encode())
            elif self.count == self.fault["at"] or (self.fault["kind"] == "int2" and self.count == self.fault["at"] + 1):
                os.write(self.hit, b"x")
                ACTIONS[self.fault["kind"]](self)
            elif self.fault["kind"] == "read_only" and self.count > self.fault["at"]:
                remount(Path(self.folder), read_only=True)  # refused as long as a file was open for writing
        finally:
            self.busy = False


def kill(injection: Injection) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt(injection: Injection) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def terminate(injection: Injection) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fill(injection: Injection) -> None:
    """Fill the disk, which must be a small one of its own."""
    with (Path(injection.folder) / FILLER).open("wb", buffering=0) as file, contextlib.suppress(OSError):
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def no_size(injection: Injection) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def read_only(injection: Injection) -> None:
    remount(Path(injection.folder), read_only=True)


def step_clock_back(injection: Injection) -> None:
    """From now on Python's clock is a day behind."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() - DAY
    time.time_ns = lambda: now_ns() - int(DAY * 1e9)


def remove_file(injection: Injection) -> None:
    os.unlink(Path(injection.folder) / injection.fault["file"])


def change_file(injection: Injection) -> None:
    append_row(Path(injection.folder) / injection.fault["file"])


def append_row(path: Path) -> None:
    with path.open("a") as file:
        file.write("one more text about the parliament,World\n")


def remount(folder: Path, read_only: bool) -> bool:
    """Make a mounted file system read-only or writable; return whether it could be."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = MS_REMOUNT | (MS_RDONLY if read_only else 0)
    return bool(libc.mount(b"none", os.fsencode(mount_point(folder)), b"tmpfs", ctypes.c_ulong(flags), None) == 0)


def mount_point(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.is_mount())


ACTIONS: dict[str, Callable[[Injection], None]] = {
    "kill": kill,
    "int": interrupt,
    "int2": interrupt,
    "term": terminate,
    "full": fill,
    "no_size": no_size,
    "read_only": read_only,
    "clock": step_clock_back,
    "remove": remove_file,
    "change": change_file,
}


def install(fault: Mapping[str, Any], folder: Path, hit: int) -> None:
    """Let a fault happen in this process. hit: a descriptor that gets a byte when it does."""
    injection = Injection(fault, folder, hit)
    sys.addaudithook(injection.audit)
    fsync = os.fsync

    def counted_fsync(handle: Any) -> None:
        if not injection.busy:
            injection.operation("fsync")
        fsync(handle)

    os.fsync = counted_fsync
