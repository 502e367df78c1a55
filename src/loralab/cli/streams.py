"""Standard output and error that tolerate full disks, closed streams and closed pipes, so that a command can finish its work."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from loralab.errors import visible


def say(text: object, end: str = "\n") -> None:
    """Print a line of plain text, with control characters visible: it may hold names and paths of others."""
    print(visible(str(text)), end=end)


class SafeStream:
    """A text stream that never raises OSError. After the first failed write, all output is discarded.

    A character that the stream's encoding does not have becomes a question mark.
    """

    def __init__(self, stream: Any, failure: OSError | None = None) -> None:
        self.stream = stream
        self.failure = failure

    def write(self, text: str) -> int:
        try:
            self._attempt(self.stream.write, text)
        except UnicodeEncodeError as error:
            self._attempt(self.stream.write, text.encode(error.encoding, "replace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        self._attempt(self.stream.flush)

    def write_error(self) -> str:
        """Return why output could not be written; empty without a failure, or if the reader (such as `head`) closed the pipe."""
        self.flush()
        return "" if self.failure is None or self.failure.errno == errno.EPIPE else str(self.failure.strerror)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _attempt(self, operation: Callable[..., object], *arguments: str) -> None:
        try:
            operation(*arguments)
        except OSError as error:
            self.failure = error
            with contextlib.suppress(OSError):  # Python flushes the stream's buffer at exit, which must not fail again
                devnull = os.open(os.devnull, os.O_WRONLY)
                os.dup2(devnull, self.stream.fileno())
                os.close(devnull)


@contextlib.contextmanager
def safe_stdio() -> Iterator[SafeStream]:
    """Replace standard output and error by SafeStreams; yield the one of standard output."""
    with contextlib.ExitStack() as stack:
        streams = []
        for stream in (sys.stdout, sys.stderr):
            if stream is None:  # closed by the caller; the next opened file would get its file descriptor
                devnull = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                streams.append(SafeStream(devnull, OSError(errno.EBADF, os.strerror(errno.EBADF))))
            else:
                streams.append(SafeStream(stream))
        redirects: Any = (contextlib.redirect_stdout, contextlib.redirect_stderr)
        for redirect, stream in zip(redirects, streams, strict=True):
            stack.enter_context(redirect(stream))
            stack.callback(stream.flush)  # a failed flush at exit would end Python with code 120
        yield streams[0]
