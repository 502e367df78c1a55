"""A load generator for HTTP servers: many clients in one process, with as little work per request as possible.

    python -m benchmarks.load BODIES.jsonl URL [URL ...] --clients 64 --seconds 10 [--rate 500]

Clients are spread over the URLs. Each client keeps one connection and sends its next request when the last is answered (a closed
loop), or all clients together send at a fixed rate (an open loop), which does not slow down with the server. Prints JSON: latencies
in seconds, statuses, answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit


@dataclass
class Load:
    """What clients saw.

    started: seconds since the beginning, of each answered request. answers: (number of the request's body, status, body).
    """

    latencies: list[float] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    answers: list[tuple[int, int, str]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class Connection:
    """One keep-alive connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port, self.path = parts.hostname or "127.0.0.1", parts.port or 80, parts.path
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def post(self, body: bytes, headers: str = "") -> tuple[int, bytes]:
        """Send a JSON body and return the status and body of the answer."""
        if self.writer is None or self.writer.is_closing():
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        assert self.reader is not None
        head = f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Type: application/json\r\n{headers}"
        self.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        status, lower = int(answer[9:12]), answer.lower()
        if b"transfer-encoding: chunked" in lower:
            content = await self._chunks()
        else:
            content = await self.reader.readexactly(int(lower.split(b"content-length:")[1].split(b"\r\n")[0]))
        if b"connection: close" in lower:
            self.close()
        return status, content

    async def _chunks(self) -> bytes:
        assert self.reader is not None
        content = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            content += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return content

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


async def run_load(
    urls: Sequence[str], bodies: Sequence[bytes], *, clients: int, seconds: float, rate: float | None = None, keep: bool = False
) -> Load:
    """Send bodies in turn for so long. rate: requests per second of an open loop. keep: keep all answers."""
    load, start, number = Load(), time.perf_counter(), 0

    async def request(connection: Connection, i: int) -> None:
        began = time.perf_counter()
        try:
            status, content = await connection.post(bodies[i % len(bodies)])
        except (OSError, asyncio.IncompleteReadError) as error:
            load.errors[type(error).__name__] += 1
            connection.close()
            return
        load.latencies.append(time.perf_counter() - began)
        load.started.append(began - start)
        load.statuses[status] += 1
        if keep:
            load.answers.append((i % len(bodies), status, content.decode()))

    async def client(i: int) -> None:
        nonlocal number
        connection = Connection(urls[i % len(urls)])
        while time.perf_counter() - start < seconds:
            number += 1
            await request(connection, number - 1)
        connection.close()

    if rate is None:
        await asyncio.gather(*(client(i) for i in range(clients)))
    else:
        free = [Connection(urls[i % len(urls)]) for i in range(clients)]
        tasks: set[asyncio.Task[None]] = set()

        async def send(i: int) -> None:
            connection = free.pop() if free else Connection(urls[i % len(urls)])
            await request(connection, i)
            free.append(connection)

        for i in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, start + i / rate - time.perf_counter()))
            task = asyncio.ensure_future(send(i))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        for connection in free:
            connection.close()
    load.seconds = time.perf_counter() - start
    return load


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bodies", type=Path)
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--keep", action="store_true", help="print all answers too")
    options = parser.parse_args()
    bodies = options.bodies.read_bytes().splitlines()
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    load = run(
        run_load(options.urls, bodies, clients=options.clients, seconds=options.seconds, rate=options.rate, keep=options.keep)
    )
    json.dump(vars(load), sys.stdout)


if __name__ == "__main__":
    main()
