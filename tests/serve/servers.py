"""Servers as processes on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx


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
