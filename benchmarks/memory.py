"""Memory: the most that a whole process holds, classifying a file and training, as rows and steps grow.

    python -m benchmarks.memory [--rows 10000 100000] [--train-rows 2000 20000] [--steps 50 500] [--data FILE]

Files of so many rows are made by repeating the data's texts. Peaks are the resident memory of processes of their own; one may grow
by 200 MB at most from the first number to the last, or the benchmark fails. The bound's own size: `--rows 10000 1000000`.
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
from loralab.data.sources import load_source
from loralab.data.types import Examples

MOST_GROWTH = 200.0  # MB
_HIGH_WATER = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000], help="rows classified")
    parser.add_argument("--train-rows", type=int, nargs="+", default=[2_000, 20_000], help="rows to train on, for the least steps")
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 500], help="steps trained, on the fewest rows")


def run(options: argparse.Namespace) -> measure.Report:
    source = load_source(options.data).train
    few, short = min(options.train_rows), min(options.steps)
    measured = cache(peak_of)  # the smallest training is the first of two series
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
            found = []
            for size in sorted(sizes):
                found.append(measured(tuple(command(size))))
                peaks[f"{what} {size:,}"] = found[-1]
                print(f"{what} {size:,}: {found[-1]:.0f} MB", flush=True)
            facts[f"growth of {what}, MB"] = growth = found[-1] - found[0]
            if growth > MOST_GROWTH:
                failures.append(f"{what}: memory grows by {growth:.0f} MB, where {MOST_GROWTH:.0f} are allowed")
    return measure.Report("peak MB", {what: [peak] for what, peak in peaks.items()}, (), {}, facts, failures)


def write_rows(path: Path, examples: Examples, rows: int) -> Path:
    """Write so many labelled rows: the examples, again and again."""
    labels = examples.require_labels()
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        every = itertools.cycle(range(len(examples)))
        table.writerows((examples.texts[i], examples.classes[labels[i]]) for i in itertools.islice(every, rows))
    return path


def peak_of(command: Sequence[str]) -> float:
    """The most resident memory, in MB of 10⁶ bytes, of one loralab process. A command that fails ends the benchmark.

    The kernel's own high-water mark, where it tells one: what a parent learns at the end (ru_maxrss) begins with the parent's size.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, "-m", "loralab", *command], stdout=said, stderr=subprocess.STDOUT)
        watched, peak = psutil.Process(process.pid), 0
        while process.poll() is None:
            try:
                peak = max(peak, _resident(watched))
            except (psutil.Error, OSError):
                break
            time.sleep(0.02)
        if process.wait():
            said.seek(0)
            raise SystemExit(f"loralab {' '.join(command)} ended with {process.returncode}:\n{said.read().decode()}")
    return peak / 1e6


def _resident(process: psutil.Process) -> int:
    """Bytes: the high-water mark where the kernel tells one, else what is held now."""
    status = Path(f"/proc/{process.pid}/status")
    marked = _HIGH_WATER.search(status.read_text(encoding="utf-8")) if status.is_file() else None
    return int(marked[1]) * 1024 if marked else int(process.memory_info().rss)


BENCHMARK = measure.Benchmark("memory", __doc__ or "", add_options, run, {"rows": [200, 400], "train_rows": [600], "steps": [2, 4]})

if __name__ == "__main__":
    BENCHMARK.main()
