"""Training runs that the page starts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tiny import topics

from loralab.errors import LoralabError
from loralab.serve.page.labelled_file import LabelledFile, LabelledRow
from loralab.serve.page.training_jobs import TrainingJob

pytestmark = pytest.mark.slow


def labelled(folder: Path, rows: list[tuple[str, str]]) -> Path:
    file = LabelledFile(folder / "labelled.csv")
    for number, (text, label) in enumerate(rows):
        file.append(LabelledRow(text, label, number, "", "2026-01-01T00:00:00+00:00"))
    return file.path


def wait(job: TrainingJob) -> None:
    end = time.monotonic() + 120
    while job.running or not (job.loaded or job.problem):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    rows = labelled(tmp_path, [(text, "same") for text, _ in topics(3)])
    job = TrainingJob(rows, tmp_path / "runs", "first", lambda folder, name: None)
    wait(job)
    state = job.state()
    assert state["status"] == "failed"
    assert "class" in state["problem"]
    assert "Traceback" not in state["problem"]


def test_a_complete_run_is_loaded_and_a_copy_of_its_rows_stays(tmp_path: Path) -> None:
    rows = labelled(tmp_path, topics(8))
    loaded = []

    def load(folder: Path, name: str) -> None:
        loaded.append((folder, name))
        raise LoralabError("no memory")

    job = TrainingJob(rows, tmp_path / "runs", "first", load)
    wait(job)
    rows.unlink()
    state = job.state()
    assert loaded == [(tmp_path / "runs" / "first", "first")]
    assert (state["status"], state["problem"], state["loaded"]) == ("finished", "no memory", False)
    assert state["test_rows"] > 0
    assert job.rows.is_file(), "the run is diagnosed on it"


def test_a_run_can_be_stopped(tmp_path: Path) -> None:
    job = TrainingJob(labelled(tmp_path, topics(8)), tmp_path / "runs", "first", lambda folder, name: None)
    job.stop()
    wait(job)
    assert job.state()["status"] == "stopped"
    assert not job.running
