"""Runs to serve, and servers on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny import make_checkpoint, topics, write_csv

from loralab import load_config
from loralab.pipeline import run_training

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


@pytest.fixture(scope="session")
def served_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `news` and `tone`, which adapt the top layer of one random encoder, and `pairs` of two columns."""
    folder = tmp_path_factory.mktemp("served")
    base = make_checkpoint(folder / "bert")
    data = write_csv(folder / "topics.csv", topics(20))
    rows = [(text.partition(" ")[0], text.partition(" ")[2], label) for text, label in topics(20)]
    pairs = write_csv(folder / "pairs.csv", rows, header=("title", "body", "label"))  # type: ignore[arg-type]
    common = (f"model.base={base}", "train.epochs=3", "train.learning_rate=0.02", "lora.layers=top1", "train.precision=fp32")
    for name, source, settings in (("news", data, ()), ("tone", data, ("seed=5",)), ("pairs", pairs, ())):
        run_training(load_config(source, [*common, *settings]), folder=folder / "runs", name=name)
    return folder / "runs"


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start `loralab serve` on a free port and yield its address and its process. It is ended by SIGTERM."""
    command = [sys.executable, "-m", "loralab", "serve", *arguments, "--port", "0"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            process.kill()
            raise AssertionError(f"the server did not start: {line}{process.communicate()[1]}")
        yield line.split()[1], process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise


def log_lines(stderr: str) -> list[dict[str, object]]:
    """Return the structured entries of a server's log."""
    return [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
