"""uvicorn's HTTP protocol with limits on connections: how many, how long without a request, and how large their headers."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 10.0
"""A connection must have sent the headers of its first request by then."""
MAX_HEADER_BYTES = 32_768
_REFUSALS = {
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    408: b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
}


def limited_protocol(max_connections: int) -> type[HttpToolsProtocol]:
    """Return the protocol class for a server of at most `max_connections` sockets.

    A further connection takes the place of the one that has waited longest without a request; if all have one, it is closed.
    """
    waiting: OrderedDict[LimitedProtocol, None] = OrderedDict()

    class LimitedProtocol(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _header_bytes = 0
        _in_headers = True

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            waiting[self] = None
            self._timer = self.loop.call_later(HEADER_SECONDS, self._refuse, 408)
            if len(self.connections) > max_connections:
                oldest = next(iter(waiting))
                oldest.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            waiting.pop(self, None)
            self._cancel_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._in_headers:
                if not self._header_bytes and self._timer is None:
                    self._timer = self.loop.call_later(HEADER_SECONDS, self._refuse, 408)
                self._header_bytes += len(data)
                # A body may arrive with the last header bytes, so the parser first sees whether the headers are complete.
            super().data_received(data)
            if self._in_headers and self._header_bytes > MAX_HEADER_BYTES:
                self._refuse(431)

        def on_headers_complete(self) -> None:
            self._in_headers, self._header_bytes = False, 0
            waiting.pop(self, None)
            self._cancel_timer()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._in_headers = True
            super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self.transport.is_closing() and not self.pipeline:
                waiting[self] = None

        def _cancel_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _refuse(self, status: int) -> None:
            self._cancel_timer()
            if not self.transport.is_closing():
                self.transport.write(_REFUSALS[status])
                self.transport.close()

    return LimitedProtocol
