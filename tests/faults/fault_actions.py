"""What a forked child runs that is no command: it labels rows, or serves and asks itself. See `FaultServer.start`."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from loralab.errors import RunFailed
from loralab.serve.feedback import FeedbackFile
from loralab.serve.page.labelled_file import LabelledFile, LabelledRow
from loralab.serve.run import free_port, run_server
from loralab.serve.settings import ServerSettings

TEXT = '{} {} says "it\'s, well,\nover"'


def append_labels(path: str, name: str, count: str) -> None:
    """Append rows to a labelled file."""
    file = LabelledFile(Path(path))
    confirm(name, count, lambda text: file.append(LabelledRow(text, "World", 0, "", name)))


def append_feedback(path: str, name: str, count: str) -> None:
    """Append rows to a feedback file."""
    file = FeedbackFile(Path(path))
    confirm(name, count, lambda text: file.append(text, "World", "model", "World", ""))


def serve_feedback(path: str, name: str, count: str) -> None:
    """Serve a run until this process's own client has sent its rows to /feedback."""
    first = 20_000 + os.getpid() % 20_000  # of two processes each has its own
    settings = ServerSettings(
        runs={"other": "runs/other"}, port=free_port("127.0.0.1", range(first, first + 1000)), workers=1, feedback=Path(path)
    )
    failures: list[RunFailed] = []

    def send(text: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=20)
        body = json.dumps({"text": text, "label": "World"})
        connection.request("POST", "/feedback", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        if answer.status != 201:
            raise RunFailed(f"{answer.status}: {content}")

    def client() -> None:
        while not answers(settings.port):
            time.sleep(0.01)
        try:
            confirm(name, count, send)
        except RunFailed as failure:
            failures.append(failure)
        except (OSError, http.client.HTTPException):  # the server is shutting down
            pass
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=client, daemon=True).start()
    run_server(settings, quiet=True)
    if failures:
        raise failures[0]


def confirm(name: str, count: str, append: Callable[[str], None]) -> None:
    """Append `count` rows, and print the number of each when it is on disk."""
    for number in range(int(count)):
        append(TEXT.format(name, number))
        print(name, number, flush=True)


def answers(port: int) -> bool:
    """Return whether a server is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
