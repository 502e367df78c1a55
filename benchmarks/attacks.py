"""Clients that mean harm: python -m benchmarks.attacks ADDRESS KIND --seconds 10. Kinds: see ATTACKS."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


class Target:
    """The attacked server. end: when to stop."""

    def __init__(self, address: str, seconds: float) -> None:
        parts = urlsplit(address)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.end = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)


async def slow_bodies(target: Target) -> None:
    """Declare a body and send a byte per second."""
    _, writer = await target.connect()
    writer.write(HEAD + b"Content-Length: 1000\r\n\r\n{")
    while not target.over:
        await asyncio.sleep(1)
        writer.write(b" ")
        await writer.drain()


async def half_open(target: Target) -> None:
    """Connect and send half a request line."""
    reader, writer = await target.connect()
    writer.write(b"POST /v1/cl")
    while not target.over and await asyncio.wait_for(reader.read(1), timeout=max(0.1, target.end - time.monotonic())):
        pass


async def many_connections(target: Target) -> None:
    """Connect, say nothing, and stay."""
    reader, _ = await target.connect()
    await asyncio.wait_for(reader.read(1), timeout=max(0.1, target.end - time.monotonic()))


async def huge_headers(target: Target) -> None:
    """Send headers without an end."""
    _, writer = await target.connect()
    writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    while not target.over:
        writer.write(b"X-Long: " + b"x" * 10_000 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def deep_json(target: Target) -> None:
    """Send a body of a million opening brackets."""
    body = b'{"input":' + b"[" * 1_000_000
    reader, writer = await target.connect()
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await reader.read(65536)
    await asyncio.sleep(0.2)


async def large_bodies(target: Target) -> None:
    """Send 100 MB in chunks, whatever the server answers."""
    _, writer = await target.connect()
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(100):
        writer.write(b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")
        await writer.drain()
    await asyncio.sleep(0.2)


ATTACKS: dict[str, tuple[Callable[[Target], Awaitable[None]], int]] = {
    "slow bodies": (slow_bodies, 200),
    "half-open sockets": (half_open, 1000),
    "10,000 connections": (many_connections, 10_000),
    "huge headers": (huge_headers, 20),
    "deep JSON": (deep_json, 4),
    "100 MB bodies": (large_bodies, 4),
}
"""Name → what one attacker does, and how many there are. An attacker that is thrown out comes back after a while."""


async def attack(address: str, kind: str, seconds: float) -> None:
    target = Target(address, seconds)
    one, count = ATTACKS[kind]

    async def attacker(number: int) -> None:
        await asyncio.sleep(min(5.0, number / 2000))  # 10,000 connections take five seconds to arrive
        while not target.over:
            with contextlib.suppress(OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                await one(target)
            await asyncio.sleep(5.0 if count > 100 else 0.1)

    tasks = [asyncio.ensure_future(attacker(number)) for number in range(count)]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("kind", choices=[*ATTACKS])
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(attack(options.address, options.kind, options.seconds))


if __name__ == "__main__":
    main()
