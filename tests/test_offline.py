"""With sockets blocked, every command without a hub id works, and none tries to connect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import topics, write_csv

TOUR = """
import json, socket, sys

attempts = []

def blocked(*arguments, **named):
    attempts.append(repr(arguments))
    raise OSError("sockets are blocked")

class Blocked(socket.socket):  # a class, because ssl derives from it
    def __init__(self, *arguments, **named):
        blocked(*arguments)

socket.socket = Blocked
socket.create_connection = socket.getaddrinfo = blocked

from loralab.cli.main import main

for command in json.loads(sys.argv[1]):
    sys.argv = ["loralab", *command]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, (command, stop.code)
assert not attempts, attempts
"""


def tour(folder: Path, *commands: list[str]) -> str:
    """Run commands in one process without sockets, hub settings or hub cache."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_"))}
    environment |= {"HF_HOME": str(folder / "empty-cache"), "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        [sys.executable, "-c", TOUR, json.dumps(commands)], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert not (folder / "empty-cache").exists()
    return answer.stdout


@pytest.mark.parametrize(
    "attempt", ["socket.socket()", "socket.create_connection(('localhost', 9))", "import httpx; httpx.get('http://a.b')"]
)
def test_a_suppressed_attempt_to_connect_is_noticed(attempt: str) -> None:
    script = TOUR.replace("for command in", f"try:\n    {attempt}\nexcept Exception:\n    pass\nfor command in")
    answer = subprocess.run([sys.executable, "-c", script, "[]"], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1].startswith("AssertionError: [")


@pytest.mark.slow
def test_whole_tour_on_minilm_and_the_sample(tmp_path: Path) -> None:
    write_csv(tmp_path / "held.csv", topics(5))
    run = "runs/quickstart-s42"
    out = tour(
        tmp_path,
        ["doctor"],
        ["recipes"],
        ["settings"],
        ["check", "sample"],
        ["clean", "Oil #39;s high: lt;b gt;$50 lt;/b gt; see http://example.org"],
        ["describe", "roberta-class-weights"],
        ["budget", "roberta-million-budget", "--max-trainable", "1000000"],
        ["train", "quickstart", "train.max_steps=3", "data.max_test_samples=40", "data.max_train_samples=120"],
        ["describe", run],
        ["predict", run, "--input", "Oil slips below $50", "--input", "Cup final goes to penalties"],
        ["predict", run, "--file", "held.csv", "--out", "submission.csv", "--format", "submission"],
        ["evaluate", run, "--file", "held.csv"],
    )
    assert "888,580" in out
    assert (tmp_path / run / "scores.json").is_file()
    lines = (tmp_path / "submission.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["ID", *map(str, range(20))]


@pytest.mark.slow
def test_whole_tour_on_a_folder_and_a_file(tiny: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "mine.csv", topics(15))
    run = "runs/mine-s42"
    tour(
        tmp_path,
        ["train", "mine.csv", f"model.base={tiny}", "train.max_steps=3"],
        ["train", "mine.csv", f"model.base={tiny}", "train.max_steps=3", "tuning=full", "--name", "full"],
        ["describe", run],
        ["predict", run, "--input", "a goal"],
        ["predict", "runs/full", "--input", "a goal"],
        ["evaluate", run, "--file", "mine.csv", "--json", "--quiet"],
        ["check", "mine.csv", "--json"],
    )
