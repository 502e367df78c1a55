"""Speed of an experiment: eight trials that share a feature cache, against HF Trainer + peft.

    python -m benchmarks.trials [--trials 8] [--rows 960] [--epochs 3] [--top 3] [--repeats 2] [--steps 30] [--data FILE]

The whole of `loralab experiment seeds`: reading, splitting, loading, training, evaluating, testing, saving. Ways: processes, one
trial per core at a time; here, one after another with all threads. Both reuse the feature cache of an earlier trial. The rate is
training samples per second of the whole experiment; a column gives the rate of training alone, summed over parallel trials.
hf-tuned and hf-default (see ways.py): training alone, for --steps steps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure, ways
from loralab.data.splits import load_splits
from loralab.experiments.execute import ExecutionOptions, Where
from loralab.experiments.plans import make_plan
from loralab.experiments.run import run_experiment
from loralab.experiments.spec import find_kind
from loralab.storage import run_folder
from loralab.storage.experiment_folder import trial_folder
from loralab.training.distributed import available_cores


@dataclass(frozen=True)
class Sample:
    """samples: trained; seconds: of everything; training: samples per second in training alone; accuracy: mean on the test rows."""

    samples: int
    seconds: float
    training: float
    accuracy: float | None = None

    @property
    def rate(self) -> float:
        return self.samples / self.seconds

    def show(self) -> str:
        return f"{self.rate:8.1f} samples/s, in training {self.training:.1f}"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--rows", type=int, default=960)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30, help="steps of hf-tuned and hf-default")


def run(options: argparse.Namespace) -> measure.Report:
    task = ways.load_task(options, options.rows)

    def theirs(tuned: bool) -> Sample:
        outcome = ways.theirs(task, tuned=tuned, epochs=options.epochs, steps=options.steps)
        return Sample(outcome.samples, outcome.seconds, outcome.rate)

    with tempfile.TemporaryDirectory() as name, cache_in(Path(name)):
        built = experiment(options, 1, "here")
        outcomes = measure.alternate(
            {
                "processes": lambda: experiment(options, options.trials, "processes"),
                "here": lambda: experiment(options, options.trials, "here"),
                "hf-tuned": lambda: theirs(tuned=True),
                "hf-default": lambda: theirs(tuned=False),
            },
            options.repeats,
            Sample.show,
        )
        cached = sum(file.stat().st_size for file in Path(name).iterdir())
    values = {way: [sample.rate for sample in rounds] for way, rounds in outcomes.items()}
    training = {way: statistics.median(sample.training for sample in rounds) for way, rounds in outcomes.items()}
    columns = {
        "in training": training,
        "× hf-default in training": {way: rate / training["hf-default"] for way, rate in training.items()},
        "accuracy": {way: rounds[0].accuracy for way, rounds in outcomes.items() if rounds[0].accuracy is not None},
    }
    facts = {
        "trials": options.trials,
        "training samples, all trials": outcomes["here"][0].samples,
        "seconds, processes": statistics.median(sample.seconds for sample in outcomes["processes"]),
        "seconds, here": statistics.median(sample.seconds for sample in outcomes["here"]),
        "seconds of the first trial, which fills the cache": built.seconds,
        "cache, MB": cached / 1e6,
    }
    failures = []
    if abs(columns["accuracy"]["processes"] - columns["accuracy"]["here"]) > 0.01:
        failures.append("the trials' accuracies depend on where they run")
    return measure.Report("samples/s", values, ("hf-default", "hf-tuned"), columns, facts, failures)


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Set the cache folder, for child processes too."""
    before = os.environ.get("LORALAB_CACHE")
    os.environ["LORALAB_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["LORALAB_CACHE"]
        if before is not None:
            os.environ["LORALAB_CACHE"] = before


def experiment(options: argparse.Namespace, trials: int, where: Where) -> Sample:
    """Run one setting with `trials` seeds, from reading the data to the test scores."""
    settings = [
        *(
            f"data.source={options.data}",
            f"data.max_train_samples={options.rows}",
            "data.validation=64",
            "data.max_test_samples=256",
        ),
        *([f"data.test={options.test}"] if options.test else []),
        *(f"model.base={options.base}", "model.pooling=cls", "model.head=default", f"lora.layers=top{options.top}"),
        *(f"lora.rank={ways.RANK}", f"lora.alpha={ways.ALPHA}", f"lora.dropout={ways.DROPOUT}", "lora.targets=query,value"),
        *(f"train.epochs={options.epochs}", f"train.batch_size={ways.BATCH}", f"train.learning_rate={ways.RATE}"),
        *("train.head_init=random", "train.label_smoothing=0", "train.feature_cache=disk"),
    ]
    plan = make_plan(find_kind("seeds"), ["quickstart"], settings, {}, range(1, trials + 1))
    rows = len(load_splits(plan.trials[0].config.data)[0].train)  # the data may have fewer than --rows
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        summary = run_experiment(plan, Path(name) / "trials", ExecutionOptions(where))
        seconds = time.perf_counter() - began
        if summary.failures:
            raise SystemExit(f"trials failed: {summary.failures}")
        scores = [run_folder.read_scores(trial_folder(summary.folder, outcome.trial)) for outcome in summary.outcomes]
    at_once = min(available_cores(), trials) if where == "processes" else 1
    return Sample(
        trials * options.epochs * rows,
        seconds,
        at_once * statistics.median(trial["samples_per_second"] for trial in scores),
        statistics.mean(trial["scores"]["accuracy"] for trial in scores),
    )


QUICK = {"trials": 2, "rows": 32, "epochs": 1, "top": 2, "repeats": 0, "steps": 2}
BENCHMARK = measure.Benchmark("trials", __doc__ or "", add_options, run, QUICK)

if __name__ == "__main__":
    BENCHMARK.main()
