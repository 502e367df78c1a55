"""ASGI middleware: who may ask, how large and how slow a request may be, and what is logged of it.

Refusals come before anything is parsed. A request's body is read whole, within its limits, and the application is cancelled when
the client goes away.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from loralab.errors import LoralabError
from loralab.serve.service import Service

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Log = dict[str, Any]
Handler = Callable[[bytes, Log], Awaitable[Application]]
"""(body, what the log gets) → the response."""

OPEN_PATHS = frozenset(("/", "/health", "/ready"))
"""Paths that need no key, besides the page's own files."""
PAGE_FILES = "/page/"
UPLOADS = "/api/files"
"""Where the page sends files, which may be larger than other bodies."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
BODY_SECONDS = 20.0
"""A body that takes longer to arrive is refused."""
TYPES = {400: "invalid_request", 401: "authentication", 403: "forbidden", 408: "timeout", 413: "too_large", 415: "media_type"}
CLIENT_GONE = 499
"""nginx's status of a request whose client left before the answer. Only the log and the metrics have it."""
_log = logging.getLogger("loralab.serve.requests")
_errors = logging.getLogger(__name__)


class Keys:
    """API keys, compared in constant time. Only their digests are kept."""

    def __init__(self, path: Path | None) -> None:
        """Read one key per line; lines that start with # are skipped. Raises LoralabError for no key or a short one."""
        self.digests: list[bytes] = []
        if path is None:
            return
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise LoralabError(f"cannot read the API keys in {path}: {error}") from error
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise LoralabError(f"{path} has no API key: write one per line, such as the output of: openssl rand -hex 32")
        if short := [key for key in keys if len(key) < 16]:
            raise LoralabError(f"{path}: the API key that begins with {short[0][:3]!r} has fewer than 16 characters")
        self.digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def allow(self, authorization: str) -> bool:
        """Return whether an Authorization header has one of the keys, or none is needed."""
        if not self.digests:
            return True
        scheme, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self.digests]  # all of them, whichever matches
        return scheme.lower() == "bearer" and any(matches)


class Limits:
    """Wraps an application with the limits of a server's settings."""

    def __init__(self, app: Application, service: Service, direct: Mapping[str, Handler]) -> None:
        """direct: handlers of POST requests by path. The application describes them, but to route them takes it a millisecond."""
        self.app = app
        self.service = service
        self.direct = direct
        self.keys = Keys(service.settings.keys)
        hosts = {*service.settings.allowed_hosts, service.settings.host}
        self.hosts = None if hosts & {"0.0.0.0", "::", "*"} else {*hosts, *LOOPBACK}  # noqa: S104 - compared, not bound

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), CLIENT_GONE

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, noting_send)
        except Exception:
            _errors.exception("a request to %s failed", scope["path"])
            if status == CLIENT_GONE:
                await refuse(noting_send, 500, "the server has an error; its log says more")
        finally:
            self._log(scope, status, time.perf_counter() - start)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path, method = scope["path"], scope["method"]
        refused = self._refusal(path, scope.get("query_string", b""), headers)
        if refused is not None:
            await refuse(send, *refused)
        elif method in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
        else:
            await self._with_body(scope, receive, send, headers)

    def _refusal(self, path: str, query: bytes, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Return the status and message for a request that may not be answered, from its headers alone."""
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self.hosts is not None and name not in self.hosts:
            return 403, f"the host {name!r} is not allowed: start the server with --allowed-host {name}"  # DNS rebinding
        if (origin := headers.get("origin")) not in (None, f"http://{host}", f"https://{host}"):
            return 403, f"requests from pages of {origin} are not allowed"
        if not query.isascii():
            return 400, "the query is not ASCII: encode its characters, as in %C3%A9"
        if path not in OPEN_PATHS and not path.startswith(PAGE_FILES) and not self.keys.allow(headers.get("authorization", "")):
            return 401, "send an API key in the header: Authorization: Bearer KEY"
        return None

    async def _with_body(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str]) -> None:
        """Read the body within its limits, run the application on it, and cancel it when the client goes away."""
        upload = scope["path"].startswith(UPLOADS)
        limit = self.service.settings.max_upload if upload else self.service.settings.max_body
        declared = headers.get("content-length", "0")
        too_large = f"the body is larger than {limit:,} bytes"
        if not declared.isdigit() or int(declared) > limit:
            await refuse(send, 413, too_large)
            return
        has_body = declared != "0" or "transfer-encoding" in headers
        if has_body and not upload and not headers.get("content-type", "").lower().startswith("application/json"):
            await refuse(send, 415, "send JSON, with the header: Content-Type: application/json")
            return
        body, more = bytearray(), True
        seconds = BODY_SECONDS if not upload else 10 * BODY_SECONDS
        try:
            async with asyncio.timeout(seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > limit:
                        await refuse(send, 413, too_large)
                        return
        except TimeoutError:
            await refuse(send, 408, f"the body took longer than {seconds:g} seconds to arrive")
            return
        task, answering = asyncio.current_task(), True

        def cancel(gone: asyncio.Future[Message]) -> None:
            if answering and task is not None:
                task.cancel()

        gone = asyncio.ensure_future(receive())  # returns when the client is gone
        gone.add_done_callback(cancel)
        try:
            await self._run(scope, bytes(body), gone, send)
        except asyncio.CancelledError:
            if not gone.done() or task is None or task.uncancel():
                raise
        finally:
            answering = False
            gone.cancel()

    async def _run(self, scope: Scope, body: bytes, gone: asyncio.Future[Message], send: Send) -> None:
        """Answer a request whose body is complete."""
        handler = self.direct.get(scope["path"]) if scope["method"] == "POST" else None
        if handler is not None:
            scope["loralab.route"] = scope["path"]
            response = await handler(body, scope.setdefault("loralab.log", {}))
        else:
            response = self.app
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await asyncio.shield(gone)

        await response(scope, replay, send)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        # Not the path, or a client could make up any number of metrics.
        route = scope.get("loralab.route") or getattr(scope.get("route"), "path", None) or "other"
        self.service.monitor.note_request(route, status, seconds)
        if _log.isEnabledFor(logging.INFO):
            client = scope.get("client") or ("", 0)
            entry = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "client": client[0],
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "ms": round(1000 * seconds, 1),
                **scope.get("loralab.log", {}),
            }
            _log.info(json.dumps(entry, ensure_ascii=True))


async def refuse(send: Send, status: int, message: str) -> None:
    """Answer with an error and close the connection, so that no unread body follows."""
    error = {"message": message, "type": TYPES.get(status, "error"), "code": status, "param": None}
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *([(b"www-authenticate", b"Bearer")] if status == 401 else []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
