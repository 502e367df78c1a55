"""Cold start: the time of whole processes, against `import torch` alone.

    python -m benchmarks.cold_start [--repeats 7] [--rows 64] [--data FILE]

`loralab predict` loads a run and classifies one text; pipeline does the same with transformers.pipeline and the merged export.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import measure, ways
from loralab.inference.export import export_run

TEXT = "Oil slips below 50 dollars as stocks of crude rise"
PIPELINE = """
from transformers import PreTrainedTokenizerFast, pipeline
tokenizer = PreTrainedTokenizerFast(tokenizer_file={folder!r} + "/tokenizer.json")
print(pipeline("text-classification", model={folder!r}, tokenizer=tokenizer)({text!r}))
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rows", type=int, default=64, help="training rows of the run")


def run(options: argparse.Namespace) -> measure.Report:
    with tempfile.TemporaryDirectory() as name:
        run_folder = ways.trained_run(options, Path(name), options.rows)
        merged = export_run(run_folder, "merged").folder
        commands = {
            "import torch": ["-c", "import torch"],
            "loralab --help": ["-m", "loralab", "--help"],
            "loralab predict": ["-m", "loralab", "predict", str(run_folder), "--input", TEXT],
            "pipeline": ["-c", PIPELINE.format(folder=str(merged), text=TEXT)],
        }
        values = measure.alternate(
            {way: partial(seconds_of, command) for way, command in commands.items()},
            options.repeats,
            lambda seconds: f"{seconds:7.2f} s",
        )
    return measure.Report("seconds", values, ("import torch",))


def seconds_of(command: Sequence[str]) -> float:
    """Return the time of one Python process. A failed command ends the benchmark."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return seconds


BENCHMARK = measure.Benchmark("cold-start", __doc__ or "", add_options, run, {"rows": 32, "repeats": 0})

if __name__ == "__main__":
    BENCHMARK.main()
