"""Runs a function on one input and reports what no input may cause: other errors than LoralabError, code, files, long waits."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loralab.errors import LoralabError

MAX_SECONDS = 2.0
"""Processor time that an input of a few kilobytes may take."""
MAX_MEGABYTES = 256.0
"""Memory by which the process may grow for it."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PROGRAMS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen", "pty.spawn")
_NETWORK = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "urllib.Request", "webbrowser.open")
_CODE = ("code.__new__", "ctypes.dlopen", "ctypes.dlsym", "marshal.load", "marshal.loads", "pickle.find_class")
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.symlink", "os.link", "os.truncate", "shutil.rmtree")


@dataclass(frozen=True)
class Problem:
    """What an input caused. place: the error's type and the line of the package that raised it: the same for the same fault."""

    place: str
    detail: str


class Guard:
    """Watches one process by an audit hook, which cannot be removed: make one for each process.

    scratch: the folder in which files may be written.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch.resolve()
        self.armed = False
        self.events: list[str] = []
        sys.addaudithook(self._audit)

    @contextlib.contextmanager
    def watching(self) -> Iterator[list[str]]:
        """Yield the forbidden events of the block, in any thread."""
        self.events, self.armed = [], True
        try:
            yield self.events
        finally:
            self.armed = False

    def run(self, function: Callable[[bytes], object], data: bytes) -> Problem | None:
        """Return the problem that an input caused; None if there was none."""
        memory, start = _peak_megabytes(), time.process_time()
        with self.watching() as events:
            try:
                function(data)
            except LoralabError:
                pass
            except BaseException as error:  # also SystemExit, and the panics of Rust libraries
                if isinstance(error, KeyboardInterrupt):
                    raise
                return Problem(_place(error), "".join(traceback.format_exception(error)))
        seconds, grown = time.process_time() - start, _peak_megabytes() - memory
        if events:
            return Problem(events[0].split("(")[0], "; ".join(events[:5]))
        if seconds > MAX_SECONDS:
            return Problem("time", f"{seconds:.1f} s")
        if grown > MAX_MEGABYTES:
            return Problem("memory", f"{grown:.0f} MB more")
        return None

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes) and isinstance(flags, int) and flags & _WRITES and not self._inside(path):
                self.events.append(f"{event}({path!r} for writing)")
        elif event in _CHANGES:
            folder = arguments[1] if event in ("os.remove", "os.rmdir") and arguments[1] >= 0 else None
            if isinstance(arguments[0], str | bytes) and not self._inside(arguments[0], folder):
                self.events.append(f"{event}{arguments!r:.200}")
        elif event == "exec":
            name = getattr(arguments[0], "co_filename", "")
            if not name.startswith("<frozen") and not os.path.isabs(name) and not _in_import():
                self.events.append(f"{event}({name!r})")
        elif event.startswith((*_PROGRAMS, *_NETWORK, *_CODE)) and not _in_import():
            self.events.append(f"{event}{arguments!r:.200}")

    def _inside(self, path: str | bytes, folder: int | None = None) -> bool:
        """Whether a path is in the scratch folder. folder: the descriptor of an open folder that the path is relative to."""
        if folder is not None and not os.path.isdir("/proc/self/fd"):
            return True  # only Linux tells
        start = os.getcwd() if folder is None else os.readlink(f"/proc/self/fd/{folder}")
        target = Path(os.path.normpath(os.path.join(start, os.fsdecode(path))))
        return target.is_relative_to(self.scratch) or target == Path(os.devnull)


def _in_import() -> bool:
    """Whether a module of an installed package is being imported, which is code of its own, such as a dataclass."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _peak_megabytes() -> float:
    if sys.platform == "win32":
        return 0.0  # not measured
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)


def _place(error: BaseException) -> str:
    """Return the error's type, and the last line of the package in its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/loralab/" in frame.filename.replace(os.sep, "/")] or frames[-1:]
    return f"{type(error).__name__} in {Path(own[-1].filename).name}:{own[-1].lineno} {own[-1].name}"
