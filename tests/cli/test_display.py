"""Progress and results in the terminal, in files and with --json."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import pytest
from rich.console import Console

from loralab.cli import display, training_display
from loralab.cli.training_display import TrainingView
from loralab.config import load_config
from loralab.training.callbacks import CacheProgress, EvalEnd, StepEnd


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    for module in (display, training_display):
        monkeypatch.setattr(module, "console", Console(file=stream, highlight=False))
    return stream


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as its only item."""
    seconds = [0.0]
    timer = partial(display.PlainTimer, lambda: seconds[0])
    for module in (display, training_display):
        monkeypatch.setattr(module, "PlainTimer", timer)
    return seconds


def step(number: int, gpu_mb: float | None = None) -> StepEnd:
    values: dict[str, Any] = {"epoch": number / 100, "loss": 0.5, "learning_rate": 1e-3, "gradient_norm": 1.0}
    return StepEnd(step=number, steps=600, samples=32 * number, seconds=2.0 * number, gpu_mb=gpu_mb, **values)


def test_without_a_terminal_progress_is_a_line_per_minute_and_evaluation(output: io.StringIO, now: list[float]) -> None:
    with TrainingView(load_config()) as view:
        for number in range(1, 101):
            now[0] = 2.0 * number
            view.listen(step(number))
        view.listen(EvalEnd(step=100, epoch=1.0, scores={"loss": 0.4, "accuracy": 0.8}, improved=True, seconds=200.0))
    lines = output.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].split() == ["epoch", "0.3", "step", "30", "of", "600", "loss", "0.500", "16", "samples/s", "19", "min", "left"]
    assert lines[2].split()[3] == "90"
    assert "validation  loss 0.4000  accuracy 0.8000  best yet" in lines[3]


def test_the_line_of_progress_has_the_last_monitored_score(output: io.StringIO, now: list[float]) -> None:
    name, scores = "f1:[bold] 100%", {"loss": 0.4, "accuracy": 0.8}
    with TrainingView(load_config("quickstart", [f"train.monitor={name}"])) as view:
        view.listen(EvalEnd(step=9, epoch=0.1, scores={**scores, name: 0.75}, improved=True, seconds=20.0))
        now[0] = 61.0
        view.listen(step(10))
    evaluation, progress = output.getvalue().splitlines()
    assert f"validation  loss 0.4000  accuracy 0.8000  {name} 0.7500  best yet" in evaluation
    assert f"loss 0.500  validation {name} 0.7500  16 samples/s" in progress


def test_progress_has_gpu_memory_and_the_feature_cache(output: io.StringIO, now: list[float]) -> None:
    with TrainingView(load_config()) as view:
        now[0] = 61.0
        view.listen(CacheProgress(done=1000, tokens=5000))
        now[0] = 125.0
        view.listen(step(10, gpu_mb=2345.6))
    lines = output.getvalue().splitlines()
    assert lines[0] == "feature cache  1,000 of 5,000 tokens"
    assert "GPU 2,346 MB" in lines[1]


def test_counting_without_a_terminal_is_a_line_per_minute(output: io.StringIO, now: list[float]) -> None:
    with display.counting("classifying") as progress:
        for second in range(0, 130, 10):
            now[0] = float(second)
            progress(second * 100)
    assert output.getvalue().splitlines() == ["classifying  6,000 rows", "classifying  12,000 rows"]
