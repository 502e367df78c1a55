"""Peak memory of a process that classifies a file, or trains, as rows and steps grow.

    python -m benchmarks.memory [--rows 10000 100000] [--train-rows 2000 20000] [--steps 50 500] [--data FILE]

The files repeat the data's texts. The peaks are the resident memory of separate processes. The benchmark fails if a peak grows by
more than 200 MB from the first number to the last. The published figure is of `--rows 10000 1000000`.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import psutil

from benchmarks import measure, ways
from loralab.config import DataConfig
from loralab.data.sources import load_source
from loralab.data.types import Examples

MOST_GROWTH = 200.0  # MB
_HIGH_WATER = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000], help="rows to classify")
    parser.add_argument(
        "--train-rows", type=int, nargs="+", default=[2_000, 20_000], help="rows to train on, with the fewest steps"
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 500], help="steps to train, on the fewest rows")


def run(options: argparse.Namespace) -> measure.Report:
    source = load_source(DataConfig(source=str(options.data))).train
    few, short = min(options.train_rows), min(options.steps)
    measured = cache(peak_of)  # the smallest training starts two series
    peaks: dict[str, float] = {}
    facts: dict[str, float] = {}
    failures = []

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_folder = ways.trained_run(options, folder, 64)

        def predict(rows: int) -> list[str]:
            file = write_rows(folder / f"{rows}.csv", source, rows)
            out = ["--out", str(folder / "out.csv"), "--overwrite"]
            return ["predict", str(run_folder), "--file", str(file), "--text", "text", *out]

        def train(rows: int, steps: int) -> list[str]:
            file = write_rows(folder / f"{rows}.csv", source, rows)
            settings = [f"model.base={options.base}", f"train.max_steps={steps}", "train.epochs=1000", "train.feature_cache=off"]
            parts = ["data.validation=256", "data.test=256"]
            return ["train", str(file), *settings, *parts, "--runs", str(folder), "--name", "trained", "--no-report", "--overwrite"]

        series = {
            "predict, rows": (options.rows, predict),
            "train, rows": (options.train_rows, lambda rows: train(rows, short)),
            "train, steps": (options.steps, lambda steps: train(few, steps)),
        }
        for what, (sizes, command) in series.items():
            measurements = []
            for size in sorted(sizes):
                measurements.append(measured(tuple(command(size))))
                peaks[f"{what} {size:,}"] = measurements[-1]
                print(f"{what} {size:,}: {measurements[-1]:.0f} MB", flush=True)
            facts[f"growth of {what}, MB"] = growth = measurements[-1] - measurements[0]
            if growth > MOST_GROWTH:
                failures.append(f"{what}: memory grows by {growth:.0f} MB, more than {MOST_GROWTH:.0f}")
    return measure.Report("peak MB", {what: [peak] for what, peak in peaks.items()}, (), {}, facts, failures)


def write_rows(path: Path, examples: Examples, rows: int) -> Path:
    """Write `rows` labelled rows: the examples, repeated."""
    labels = examples.require_labels()
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        every = itertools.cycle(range(len(examples)))
        table.writerows((examples.texts[i], examples.classes[labels[i]]) for i in itertools.islice(every, rows))
    return path


def peak_of(command: Sequence[str]) -> float:
    """Return the peak resident memory of one loralab process in MB of 10⁶ bytes. A failed command ends the benchmark.

    It is the kernel's high-water mark if available: ru_maxrss of a child starts with the parent's size.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([sys.executable, "-m", "loralab", *command], stdout=output, stderr=subprocess.STDOUT)
        watched, peak = psutil.Process(process.pid), 0
        while process.poll() is None:
            try:
                peak = max(peak, _resident(watched))
            except (psutil.Error, OSError):
                break
            time.sleep(0.02)
        if process.wait():
            output.seek(0)
            raise SystemExit(f"loralab {' '.join(command)} ended with {process.returncode}:\n{output.read().decode()}")
    return peak / 1e6


def _resident(process: psutil.Process) -> int:
    """Return bytes: the kernel's high-water mark if available, else the current memory."""
    status = Path(f"/proc/{process.pid}/status")
    marked = _HIGH_WATER.search(status.read_text(encoding="utf-8")) if status.is_file() else None
    return int(marked[1]) * 1024 if marked else int(process.memory_info().rss)


BENCHMARK = measure.Benchmark("memory", __doc__ or "", add_options, run, {"rows": [200, 400], "train_rows": [600], "steps": [2, 4]})

if __name__ == "__main__":
    BENCHMARK.main()
