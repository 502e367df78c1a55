"""The application on a real Ray Serve."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from tiny import topics

from loralab import Classifier
from loralab.errors import LoralabError

pytest.importorskip("ray.serve")
from loralab.serve.on_ray import parse_replicas

TEXTS = [text for text, _ in topics(10, 3)]


@pytest.mark.parametrize(("text", "replicas"), [("1", (1, 1)), ("3", (3, 3)), ("1-4", (1, 4))])
def test_replicas(text: str, replicas: tuple[int, int]) -> None:
    assert parse_replicas(text) == replicas


@pytest.mark.parametrize("text", ["0", "4-1", "x", "1-", "-2", "1-2-3", ""])
def test_unusable_replicas(text: str) -> None:
    with pytest.raises(LoralabError, match="--replicas"):
        parse_replicas(text)


@pytest.mark.slow
@pytest.mark.ray
def test_replicas_answer_as_offline(served_runs: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "loralab", "serve", str(served_runs / "news"), "--where", "ray", "--replicas", "2"]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert process.stdout is not None
        assert f"serving http://127.0.0.1:{port}  news  on Ray, 2 replicas" in process.stdout.readline()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client, ThreadPoolExecutor(8) as pool:
            answers = [*pool.map(lambda text: client.post("/v1/classify", json={"input": text}), TEXTS)]
            offline = Classifier.load(served_runs / "news").predict(TEXTS)
            assert {answer.status_code for answer in answers} == {200}, answers[-1].text
            probabilities = [answer.json()["data"][0]["probs"] for answer in answers]
            np.testing.assert_allclose(probabilities, offline.probabilities, atol=1e-3)
            assert client.post("/v1/classify", content=b"{", headers={"content-type": "application/json"}).status_code == 422
            assert client.post("/feedback", json={"text": "goal", "label": "Sports"}).status_code == 201
            assert json.loads(client.get("/ready").text) == {"status": "ready"}
        assert (tmp_path / "feedback.csv").read_text().splitlines()[1].startswith("goal,Sports,news,")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
