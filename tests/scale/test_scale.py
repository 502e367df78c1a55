"""Large numbers: runs in a folder, trials in a journal, rows in a file, requests to a server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from tiny import topics

from loralab import load_config
from loralab.experiments.space import make_space, parse_over
from loralab.experiments.study import SearchSettings, Study
from loralab.pipeline import run_training
from loralab.serve.page.run_listing import RunListing
from tests.serve.servers import serving

pytestmark = [pytest.mark.slow, pytest.mark.timed]
RUNS, LIST_SECONDS = 10_000, 4.0
"""Processor seconds: about 2 on a machine whose cores are shared."""
TRIALS = int(os.environ.get("LORALAB_SCALE_TRIALS", "100"))
ROWS = int(os.environ.get("LORALAB_SCALE_ROWS", "10000"))
SERVE_SECONDS = float(os.environ.get("LORALAB_SCALE_SERVE_SECONDS", "20"))
MAX_MB, MAX_GROWTH_MB, MAX_SERVER_MB = 1500, 60, 1000


@pytest.fixture(scope="module")
def run(tiny: Path, topics_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = load_config("quickstart", [f"model.base={tiny}", f"data.source={topics_csv}", "train.epochs=1"])
    return run_training(config, folder=tmp_path_factory.mktemp("runs")).folder


def test_ten_thousand_runs_are_listed_in_a_few_seconds(run: Path, tmp_path: Path) -> None:
    for number in range(RUNS):
        folder = tmp_path / f"run-{number:05d}"
        folder.mkdir()
        for name in ("config.yaml", "scores.json"):
            shutil.copy(run / name, folder / name)
    start = time.process_time()
    rows = RunListing(tmp_path).rows({})
    seconds = time.process_time() - start
    print(f"{len(rows)} runs in {seconds:.2f} processor seconds")
    assert len(rows) == RUNS
    assert {row["status"] for row in rows} == {"complete"}
    assert seconds < LIST_SECONDS


def test_a_trial_of_a_long_search_costs_little_more_than_the_first(tmp_path: Path) -> None:
    """A trial is claimed, reported twice and finished; the median of the last tenth against that of the first."""
    pytest.importorskip("optuna")
    space = make_space(load_config("quickstart"), parse_over(["train.learning_rate=1e-5..1e-1:log", "lora.rank=2,4,8,16"]))
    study = Study(SearchSettings(space, ("accuracy",), "random", "median", TRIALS, 0), tmp_path, "search")
    seconds = []
    for number in range(TRIALS):
        start = time.perf_counter()
        trial = study.claim(lambda points: (1, None))
        assert trial is not None
        for evaluation in (1, 2):
            study.should_prune(trial.number, evaluation, number / TRIALS)
        study.finish(trial.number, "complete", values=[number / TRIALS])
        seconds.append(time.perf_counter() - start)
    tenth = TRIALS // 10
    first, last = (sorted(part)[tenth // 2] for part in (seconds[:tenth], seconds[-tenth:]))
    print(f"{TRIALS} trials: {first * 1e3:.1f} ms for one of the first, {last * 1e3:.1f} ms for one of the last")
    assert last < 0.5


def peak_mb(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Run `loralab ARGUMENTS`; return its peak resident memory in MB, sampled, and its seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    start, peak = time.perf_counter(), 0.0
    with (folder / "output").open("w") as output:
        process = subprocess.Popen([sys.executable, "-m", "loralab", *arguments], stdout=output, stderr=output, env=environment)
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss / 1e6)
            except psutil.Error:
                break
            time.sleep(0.05)
    assert process.wait() == 0, (folder / "output").read_text()
    return peak, time.perf_counter() - start


@pytest.mark.timeout(1800)
def test_many_rows_are_checked_trained_and_predicted_in_bounded_memory(run: Path, tiny: Path, tmp_path: Path) -> None:
    sample = topics(250)
    data = tmp_path / "rows.csv"
    with data.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for number in range(ROWS):
            text, label = sample[number % len(sample)]
            file.write(f'"{text} number {number}",{label}\n')
    settings = [f"model.base={tiny}", "train.epochs=1", "train.batch_size=256", "data.max_length=32", "train.eval_steps=1000"]
    commands = {
        "check": ["check", str(data)],
        "train": ["train", str(data), *settings, "data.test=2000", "--runs", str(tmp_path), "--name", "big", "--no-report"],
        "predict": ["predict", str(run), "--file", str(data), "--out", str(tmp_path / "out.csv")],
    }
    for name, arguments in commands.items():
        peak, seconds = peak_mb(arguments, tmp_path)
        print(f"{name} {ROWS} rows: {seconds:.0f} s, {peak:.0f} MB")
        assert peak < MAX_MB + ROWS * 1.5e-3, name
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        assert sum(1 for _ in file) == ROWS + 1


@pytest.mark.timeout(4000)
def test_a_server_does_not_grow(run: Path) -> None:
    """Texts of changing lengths, and errors: memory after half of the time, with all buffers made, against that at the end."""
    with serving(str(run)) as server:
        process, start, early, requests = psutil.Process(server.process.pid), time.monotonic(), 0.0, 0
        with httpx.Client(base_url=server.address) as client:
            while (elapsed := time.monotonic() - start) < SERVE_SECONDS:
                texts = [f"a merger of banks {requests} " * (1 + (requests + i) % 20) for i in range(1 + requests % 7)]
                assert client.post("/v1/classify", json={"input": texts}).status_code == 200
                if requests % 10 == 0:
                    assert client.post("/v1/classify", json={"input": 1}).status_code in (400, 422)
                requests += 1
                if not early and elapsed > SERVE_SECONDS / 2:
                    early = process.memory_info().rss / 1e6
        growth = process.memory_info().rss / 1e6 - early
    print(f"{requests} requests in {SERVE_SECONDS:.0f} s: {early:.0f} MB after half, {growth:+.1f} MB until the end")
    assert growth < MAX_GROWTH_MB
    assert early < MAX_SERVER_MB, "the checkpoint is too small for the kernels, and oneDNN keeps something for each size"
