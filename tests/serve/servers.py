"""Servers as processes on loopback, and applications in this process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from loralab.serve.app import create_app
from loralab.serve.service import Service
from loralab.serve.settings import ServerSettings


class Client:
    """Calls an application as a web server would."""

    def __init__(self, service: Service, host: str = "127.0.0.1:8000") -> None:
        self.service, self.host = service, host
        self.app = create_app(service.settings, service)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{self.host}") as client:
                return await client.request(method, path, **options)

        return asyncio.run(call())

    def post(self, path: str, content: Any, **options: Any) -> httpx.Response:
        return self.request("POST", path, json=content, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)


def start(settings: ServerSettings) -> Client:
    service = Service(settings)
    service.load()
    return Client(service)


class Server:
    """A running `loralab serve`."""

    def __init__(self, address: str, process: subprocess.Popen[str], log: Path) -> None:
        self.address, self.process, self._log = address, process, log

    def end(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=40)

    def log(self) -> str:
        return self._log.read_text()

    def requests(self) -> list[dict[str, object]]:
        """Return the structured entries of the log."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def metrics(self) -> dict[str, float]:
        lines = httpx.get(self.address + "/metrics").text.splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[Server]:
    """Start `loralab serve` on a free port. It is ended by SIGTERM."""
    command = [sys.executable, "-m", "loralab", "serve", *arguments, "--port", "0"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w") as log:  # a pipe that nobody reads fills up
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=variables, cwd=folder)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "http://" in line, f"the server did not start: {line}{Path(log.name).read_text()}"
            yield Server(line.split()[1], process, Path(log.name))
        finally:
            process.terminate()
            try:
                process.communicate(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise
