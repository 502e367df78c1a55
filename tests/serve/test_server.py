"""`loralab serve` as a process on loopback: start, load, slow and greedy clients, a watched folder, and the end."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from servers import serving
from tiny import topics

from benchmarks.load import run_load
from loralab import Classifier

pytestmark = pytest.mark.slow
TEXTS = [text for text, _ in topics(20, 3)]


def connect(address: str) -> socket.socket:
    parts = urlsplit(address)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=30)


def test_the_ready_line_the_log_and_a_graceful_end(served_runs: Path) -> None:
    with serving(str(served_runs / "news"), "first=" + str(served_runs / "tone")) as server:
        with httpx.Client(base_url=server.address, timeout=30) as client:
            assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["news", "first"]
            assert client.post("/v1/classify", json={"input": ["one secret text", "two"]}).status_code == 200
            answers: list[int] = []
            late = threading.Thread(
                target=lambda: answers.append(client.post("/v1/classify", json={"input": TEXTS * 12}).status_code)
            )
            late.start()
            time.sleep(0.05)
            assert server.end() == -signal.SIGTERM
            late.join(30)
        assert answers == [200], "an accepted request is finished"
        entry = server.requests()[1]
        assert (entry["path"], entry["status"], entry["rows"], entry["model"]) == ("/v1/classify", 200, 2, "news")
        assert "secret" not in server.log(), "texts are not logged"


def test_texts_are_logged_when_asked_and_options_come_from_the_environment(served_runs: Path) -> None:
    environment = {"LORALAB_LOG_TEXTS": "true", "LORALAB_MAX_ROWS": "3"}
    with serving(str(served_runs / "news"), **environment) as server:
        assert httpx.post(server.address + "/v1/classify", json={"input": ["a visible text"]}).status_code == 200
        assert httpx.post(server.address + "/v1/classify", json={"input": ["x"] * 4}).status_code == 413
        assert server.requests()[0]["texts"] == ["a visible text"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "there is nothing to serve"),
        (("{runs}/news", "news={runs}/tone"), "two models would be named 'news'"),
        (("{runs}/missing",), "there is no run"),
        (("{runs}/news", "--api-keys", "{runs}/no-keys"), "cannot read the API keys"),
        (("{runs}/news", "--port", "99999"), "65535"),
    ],
)
def test_a_server_that_cannot_start_says_why(served_runs: Path, arguments: tuple[str, ...], message: str) -> None:
    command = [sys.executable, "-m", "loralab", "serve", *(argument.format(runs=served_runs) for argument in arguments)]
    ended = subprocess.run([*command, "--host", "127.0.0.1"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_used_port_is_said_before_models_are_loaded(served_runs: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "loralab", "serve", str(served_runs / "news"), "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr


def test_many_clients_get_the_offline_answers(served_runs: Path) -> None:
    offline = Classifier.load(served_runs / "news").predict(TEXTS)
    bodies = [json.dumps({"input": text}).encode() for text in TEXTS]
    with serving(str(served_runs / "news")) as server:
        load = asyncio.run(run_load([server.address + "/v1/classify"], bodies, clients=64, seconds=5, keep=True))
    assert not load.errors
    assert set(load.statuses) == {200}
    assert len(load.answers) > 500
    for number, _, content in load.answers:
        entry = json.loads(content)["data"][0]
        assert entry["label"] == offline.labels[number]
        np.testing.assert_allclose(entry["probs"], offline.probabilities[number], atol=1e-3)


def test_overload_is_refused_and_leaves_no_trace(served_runs: Path) -> None:
    body = [json.dumps({"input": TEXTS[:40]}).encode()]
    with serving(str(served_runs / "news"), "--max-queue", "30", "--workers", "1") as server:
        url = [server.address + "/v1/classify"]
        load = asyncio.run(run_load(url, body, clients=40, seconds=3))
        assert set(load.statuses) == {200, 429}
        assert not load.errors
        time.sleep(2)
        assert asyncio.run(run_load(url, body, clients=1, seconds=1)).statuses.keys() == {200}


def test_a_watched_folder_is_followed(served_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(served_runs / "news", tmp_path / "news")

    def names(address: str) -> list[str]:
        return [model["id"] for model in httpx.get(address + "/v1/models").json()["data"]]

    def wait_for(address: str, expected: list[str]) -> None:
        deadline = time.monotonic() + 20
        while names(address) != expected and time.monotonic() < deadline:
            time.sleep(0.2)
        assert names(address) == expected

    with serving("--watch", str(tmp_path)) as server:
        assert names(server.address) == ["news"]
        shutil.copytree(served_runs / "tone", tmp_path / "tone")
        wait_for(server.address, ["news", "tone"])
        shutil.rmtree(tmp_path / "news")
        wait_for(server.address, ["tone"])


def test_slow_and_greedy_clients_are_cut_off_and_others_served(served_runs: Path) -> None:
    head = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with serving(str(served_runs / "news"), "--max-connections", "50") as server:
        huge = connect(server.address)
        with suppress(OSError), huge:  # the server closes the connection while we send
            huge.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 40_000)
            assert b" 431 " in huge.recv(100)
        large = connect(server.address)
        large.sendall(head + b"Content-Length: 100000000\r\n\r\n")
        assert b" 413 " in large.recv(1000)
        slow, begun = connect(server.address), connect(server.address)
        slow.sendall(head + b"Content-Length: 100\r\n\r\n{")
        begun.sendall(b"GET /health HTTP/1.1\r\nHo")
        silent = [connect(server.address) for _ in range(45)]
        assert httpx.post(server.address + "/v1/classify", json={"input": "x"}).status_code == 200
        assert b" 408 " in begun.recv(1000), "headers that do not end"
        assert b" 408 " in slow.recv(1000), "a body that does not end"
        silent += [connect(server.address) for _ in range(100)]
        assert httpx.post(server.address + "/v1/classify", json={"input": "x"}).status_code == 200, "silent connections make room"
        for connection in (*silent, slow, begun, large):
            connection.close()


def test_pipelined_and_repeated_requests_on_one_connection(served_runs: Path) -> None:
    body = b'{"input": "goal"}'
    request = (
        b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body
    with serving(str(served_runs / "news")) as server, connect(server.address) as connection:
        connection.sendall(request * 3)
        received = b""
        while received.count(b'"usage"') < 3:
            data = connection.recv(65536)
            assert data, received
            received += data
        assert received.count(b"HTTP/1.1 200") == 3


def test_the_texts_of_a_client_that_leaves_are_dropped(served_runs: Path) -> None:
    body = json.dumps({"input": TEXTS * 12}).encode()
    request = (
        b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body
    with serving(str(served_runs / "news"), "--workers", "1", "--max-batch-tokens", "1") as server:  # a text per batch: slow
        connection = connect(server.address)
        connection.sendall(request)
        deadline = time.monotonic() + 30
        while server.metrics()["loralab_queue_texts"] == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        connection.close()
        while server.metrics()["loralab_dropped_texts"] == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        metrics = server.metrics()
    assert metrics["loralab_dropped_texts"] > 0
    assert metrics["loralab_queue_texts"] == 0
    assert metrics['loralab_requests_total{route="/v1/classify",status="499"}'] == 1
