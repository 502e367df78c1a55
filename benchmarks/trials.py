"""Eight trials over one persisted prefix cache, as an experiment runs them, against HF Trainer + peft for each.

    python -m benchmarks.trials [--trials 8] [--rows 960] [--epochs 3] [--top 3] [--repeats 2] [--steps 30] [--data FILE]

`loralab experiment seeds`, whole: reading, splitting, loading, training, evaluating, testing, saving. Ways: `processes`, a trial a
core at a time, and `here`, one after another with all threads; both find the hidden states that one trial before them left.
The rate is of training samples over the whole experiment's seconds; a column gives the engine's own rate, all trials that run
at once together. `fair` and `reference` (see ways.py): training alone, for so many --steps.
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
    """Training samples and all seconds; samples a second in the engine alone; mean accuracy on the test rows."""

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
    parser.add_argument("--steps", type=int, default=30, help="steps of the ways that are not ours")


def run(options: argparse.Namespace) -> measure.Report:
    task = ways.load_task(options, options.rows)

    def theirs(fair: bool) -> Sample:
        outcome = ways.theirs(task, fair=fair, epochs=options.epochs, steps=options.steps)
        return Sample(outcome.samples, outcome.seconds, outcome.rate)

    with tempfile.TemporaryDirectory() as name, cache_in(Path(name)):
        built = experiment(options, 1, "here")
        outcomes = measure.alternate(
            {
                "processes": lambda: experiment(options, options.trials, "processes"),
                "here": lambda: experiment(options, options.trials, "here"),
                "fair": lambda: theirs(fair=True),
                "reference": lambda: theirs(fair=False),
            },
            options.repeats,
            Sample.show,
        )
        kept = sum(file.stat().st_size for file in Path(name).iterdir())
    values = {way: [sample.rate for sample in found] for way, found in outcomes.items()}
    training = {way: statistics.median(sample.training for sample in found) for way, found in outcomes.items()}
    columns = {
        "in training": training,
        "× reference in training": {way: rate / training["reference"] for way, rate in training.items()},
        "accuracy": {way: found[0].accuracy for way, found in outcomes.items() if found[0].accuracy is not None},
    }
    facts = {
        "trials": options.trials,
        "training samples of all": outcomes["here"][0].samples,
        "seconds of all, processes": statistics.median(each.seconds for each in outcomes["processes"]),
        "seconds of all, here": statistics.median(each.seconds for each in outcomes["here"]),
        "seconds of the first trial, which builds the cache": built.seconds,
        "cache, MB": kept / 1e6,
    }
    failures = []
    if abs(columns["accuracy"]["processes"] - columns["accuracy"]["here"]) > 0.01:
        failures.append("the trials' accuracies depend on where they run")
    return measure.Report("samples/s", values, ("reference", "fair"), columns, facts, failures)


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Keep hidden states in `folder`, in processes started here too."""
    before = os.environ.get("LORALAB_CACHE")
    os.environ["LORALAB_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["LORALAB_CACHE"]
        if before is not None:
            os.environ["LORALAB_CACHE"] = before


def experiment(options: argparse.Namespace, trials: int, where: Where) -> Sample:
    """Run so many seeds of one setting, from nothing but the cache."""
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
    rows = len(load_splits(plan.trials[0].config.data)[0].train)  # fewer than asked for, where there are no more
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
        at_once * statistics.median(each["samples_per_second"] for each in scores),
        statistics.mean(each["scores"]["accuracy"] for each in scores),
    )


QUICK = {"trials": 2, "rows": 32, "epochs": 1, "top": 2, "repeats": 0, "steps": 2}
BENCHMARK = measure.Benchmark("trials", __doc__ or "", add_options, run, QUICK)

if __name__ == "__main__":
    BENCHMARK.main()
