"""A killed and resumed run ends with the adapter of an uninterrupted one."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from loralab import LoralabError, load_config, pipeline
from loralab.pipeline import open_folder, run_training
from loralab.storage.run_folder import RunFolder
from loralab.training.callbacks import Event, StepEnd

KILLS = int(os.environ.get("LORALAB_KILLS", "2"))
"""Kills of the slow test; 20 were seen to pass (docs/lab)."""
SETTINGS = [
    "train.epochs=4",
    "train.eval_steps=2",
    "train.batch_size=16",
    "train.monitor=accuracy",
    "train.threads=2",  # parallel micro-batches
    "lora.dropout=0.2",
    "data.max_length=32",
]


class Killed(Exception):
    """Represents a process that is killed."""


def _settings(tiny: Path, data: Path, *more: str) -> list[str]:
    return [f"model.base={tiny}", f"data.source={data}", *SETTINGS, *more]


def _weights(folder: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted((folder / "model").glob("*.safetensors")))).hexdigest()


def _steps(folder: Path) -> int:
    """Return the number of steps in a run's log."""
    log = folder / "log.jsonl"
    return log.read_text().count("StepEnd") if log.exists() else 0


@pytest.mark.parametrize("stop_after", [1, 2, 5, 11])
def test_resumed_equals_uninterrupted(tiny: Path, topics_csv: Path, tmp_path: Path, stop_after: int) -> None:
    config = load_config("quickstart", _settings(tiny, topics_csv))
    whole = run_training(config, name="whole", folder=tmp_path)

    def stop(event: Event) -> None:
        if isinstance(event, StepEnd) and event.step == stop_after:
            raise Killed

    with pytest.raises(Killed):
        run_training(config, name="cut", folder=tmp_path, listeners=[stop])
    resumed = run_training(config, name="cut", folder=tmp_path, resume=True)
    assert _weights(tmp_path / "cut") == _weights(tmp_path / "whole")
    assert (resumed.scores, resumed.best_step) == (whole.scores, whole.best_step)
    logs = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("cut", "whole")]
    without_clock = [[{k: v for k, v in entry.items() if k not in ("seconds", "memory", "crc32")} for entry in log] for log in logs]
    assert without_clock[0] == without_clock[1]
    assert not (tmp_path / "cut" / "checkpoint.safetensors").exists()


def test_early_stopping_survives_a_resume(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    config = load_config("quickstart", _settings(tiny, topics_csv, "train.patience=2", "train.learning_rate=1e-6"))
    whole = run_training(config, name="whole", folder=tmp_path)
    assert whole.stopped_early

    def stop(event: Event) -> None:
        if isinstance(event, StepEnd) and event.step == 5:
            raise Killed

    with pytest.raises(Killed):
        run_training(config, name="cut", folder=tmp_path, listeners=[stop])
    assert run_training(config, name="cut", folder=tmp_path, resume=True).steps == whole.steps


def test_changed_settings_or_rows_are_refused(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_bytes(topics_csv.read_bytes())
    config = load_config("quickstart", _settings(tiny, data))

    def stop(event: Event) -> None:
        raise Killed

    with pytest.raises(Killed):
        run_training(config, name="cut", folder=tmp_path, listeners=[stop])
    with pytest.raises(LoralabError, match=r"other settings.*(?s:.*)seed"):
        run_training(config.override("seed=7"), name="cut", folder=tmp_path, resume=True)
    with data.open("a") as file:
        file.write("one more text about the parliament,World\n")
    with pytest.raises(LoralabError, match="rows was"):
        run_training(config, name="cut", folder=tmp_path, resume=True)


def test_a_damaged_checkpoint_and_a_complete_run_are_refused(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    config = load_config("quickstart", _settings(tiny, topics_csv))
    with pytest.raises(LoralabError, match="no run"):
        run_training(config, name="cut", folder=tmp_path, resume=True)

    def stop(event: Event) -> None:
        if isinstance(event, StepEnd) and event.step == 5:
            raise Killed

    with pytest.raises(Killed):
        run_training(config, name="cut", folder=tmp_path, listeners=[stop])
    checkpoint = tmp_path / "cut" / "checkpoint.safetensors"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LoralabError, match="damaged"):
        run_training(config, name="cut", folder=tmp_path, resume=True)
    checkpoint.write_bytes(whole)
    checkpoint.with_name(".checkpoint.safetensors.new").write_bytes(whole[:100])  # an interrupted write: ignored
    run_training(config, name="cut", folder=tmp_path, resume=True)
    with pytest.raises(LoralabError, match="complete"):
        run_training(config, name="cut", folder=tmp_path, resume=True)


@pytest.mark.slow
@pytest.mark.timeout(150 * KILLS)
def test_kill_9_at_random_moments(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    settings = _settings(tiny, topics_csv, "train.epochs=15")
    command = [sys.executable, "-m", "loralab", "train", "quickstart", *settings, "--runs", str(tmp_path)]
    subprocess.run([*command, "--name", "whole"], check=True, capture_output=True)
    steps = _steps(tmp_path / "whole")
    killed = 0
    for i in range(KILLS):
        folder = tmp_path / f"cut{i}"
        arguments = [*command, "--name", folder.name]
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            goal = chance.randrange(steps + 1)  # the last goal is after training
            while process.poll() is None and _steps(folder) < goal:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
        if (folder / "scores.json").exists():
            continue  # it ended before the kill
        killed += 1
        resume = ["--resume"] if (folder / "config.yaml").exists() else []
        done = subprocess.run([*arguments, *resume], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert _weights(folder) == _weights(tmp_path / "whole")
    assert killed >= KILLS * 3 // 4


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs file locks")
def test_two_processes_that_replace_a_run_at_once_do_not_train_in_one_folder(
    tiny: Path, topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second starts when the first has put its folder in place, and has not locked it."""
    settings = _settings(tiny, topics_csv)
    run_training(load_config("quickstart", settings), name="run", folder=tmp_path)
    steps = _steps(tmp_path / "run")
    command = ["train", "quickstart", *settings, "--name", "run", "--runs", str(tmp_path), "--overwrite", "--no-report"]
    processes: list[subprocess.Popen[str]] = []

    def open_and_let_another_start(*arguments: Any) -> RunFolder:
        folder = open_folder(*arguments)
        options: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        options["env"] = {**os.environ, "PYTHONUNBUFFERED": "1"}
        other = subprocess.Popen([sys.executable, "-m", "loralab", *command], **options)
        processes.append(other)
        assert other.stdout is not None
        while "parameters" not in other.stdout.readline():  # of its plan, which it prints before it opens a folder
            assert other.poll() is None
        time.sleep(0.5)
        return folder

    monkeypatch.setattr(pipeline, "open_folder", open_and_let_another_start)
    run_training(load_config("quickstart", settings), name="run", folder=tmp_path, overwrite=True)
    assert "another process is training" in processes[0].communicate(timeout=60)[1]
    assert _steps(tmp_path / "run") == steps
