"""Standard output and error that may be full, closed or read by nobody: what cannot be said is lost, what was asked for is done."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


class SafeStream:
    """A text stream that raises nothing: after its first failure all goes nowhere; a character it does not have becomes a ?."""

    def __init__(self, stream: Any, failure: OSError | None = None) -> None:
        self.stream = stream
        self.failure = failure

    def write(self, text: str) -> int:
        try:
            self._attempt(self.stream.write, text)
        except UnicodeEncodeError as error:  # a terminal that has not every character
            self._attempt(self.stream.write, text.encode(error.encoding, "replace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        self._attempt(self.stream.flush)

    def lost(self) -> str:
        """Why something could not be said; empty where all was, and where a reader such as `head` has had enough."""
        self.flush()
        return "" if self.failure is None or self.failure.errno == errno.EPIPE else str(self.failure.strerror)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _attempt(self, act: Callable[..., object], *given: str) -> None:
        try:
            act(*given)
        except OSError as error:
            self.failure = error
            with contextlib.suppress(OSError):  # what is still in its buffer must find a way out when the process ends
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def safe_stdio() -> Iterator[SafeStream]:
    """Put an Outlet in the place of standard output, which is returned, and of standard error."""
    with contextlib.ExitStack() as stack:
        found = []
        for stream in (sys.stdout, sys.stderr):
            if stream is None:  # it was closed: the next file to be opened would get its number
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                found.append(SafeStream(nowhere, OSError(errno.EBADF, os.strerror(errno.EBADF))))
            else:
                found.append(SafeStream(stream))
        places: Any = (contextlib.redirect_stdout, contextlib.redirect_stderr)
        for place, outlet in zip(places, found, strict=True):
            stack.enter_context(place(outlet))
            stack.callback(outlet.flush)  # Python itself would end with 120 where it cannot
        yield found[0]
