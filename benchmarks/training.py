"""Training speed, all layers: loralab against HF Trainer + peft with the same rows, batch size, LoRA and optimizer.

    python -m benchmarks.training [--data FILE --test FILE] [--rows 480] [--repeats 5] [--accuracy-seeds 3 [--accuracy-default]]

The ways are described in ways.py. Each round trains one epoch from the same weights in each way. The training loop is timed,
without the set-up. A check before it compares the losses of loralab with those of a plain loop over Transformers + peft; they must
agree within bf16's rounding. --accuracy-seeds also trains whole runs, loralab's and hf-tuned's, and scores them on --test.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks import measure, ways
from benchmarks.ways import Outcome, Task
from loralab.model.architectures import Dimensions


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=480, help="rows of the timed epoch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--accuracy-seeds", type=int, default=0, help="number of whole runs of each way, scored on --test")
    parser.add_argument("--accuracy-default", action="store_true", help="hf-default too; each run takes minutes")
    parser.add_argument("--accuracy-rows", type=int, default=2400)
    parser.add_argument("--accuracy-epochs", type=int, default=3)


def run(options: argparse.Namespace) -> measure.Report:
    if options.accuracy_seeds and not options.test:
        raise SystemExit("--accuracy-seeds needs rows to score: --test FILE")
    task = ways.load_task(options, options.rows)
    difference = ways.difference_of_losses(task)
    outcomes = measure.alternate(
        {
            "loralab": lambda: ways.ours(task),
            "hf-tuned": lambda: ways.theirs(task, tuned=True),
            "hf-default": lambda: ways.theirs(task, tuned=False),
        },
        options.repeats,
        Outcome.show,
    )
    rate = ways.rate_of_products()
    values = {way: [outcome.rate for outcome in rounds] for way, rounds in outcomes.items()}
    assert isinstance(task.base.dims, Dimensions)
    floor = ways.floor_flops(task.base.dims, task.mean_tokens)
    columns = {
        **ways.summary_of(outcomes),
        "share of floor": {way: statistics.median(rates) * floor / rate for way, rates in values.items()},
    }
    facts: dict[str, Any] = {
        "rows": len(task.rows),
        "mean tokens": task.mean_tokens,
        "real tokens/s": statistics.median(values["loralab"]) * task.mean_tokens,
        "products, TFLOP/s": rate / 1e12,
        "floor, GFLOP per sample": floor / 1e9,
        "largest difference of a step's loss from the plain loop's": difference,
    }
    failures = [] if difference <= ways.BF16_NOISE else [f"losses differ by {difference:.3g} from the plain loop's"]
    if options.accuracy_seeds:
        accuracies = accuracy_of_seeds(options)
        columns["accuracy"] = {way: statistics.mean(scores) for way, scores in accuracies.items()}
        facts["accuracy by seed"] = accuracies
        facts["accuracy of loralab minus hf-tuned"] = columns["accuracy"]["loralab"] - columns["accuracy"]["hf-tuned"]
    return measure.Report("samples/s", values, ("hf-default", "hf-tuned"), columns, facts, failures)


def accuracy_of_seeds(options: argparse.Namespace) -> dict[str, list[float]]:
    """Train whole runs with seeds 0, 1, ... in each way. Return their accuracies on the test rows."""
    task, epochs = ways.load_task(options, options.accuracy_rows, scored=True), options.accuracy_epochs
    chosen: dict[str, Callable[[Task, int], Outcome]] = {
        "loralab": lambda task, seed: ways.ours(task, epochs=epochs, seed=seed),
        "hf-tuned": lambda task, seed: ways.theirs(task, tuned=True, epochs=epochs, seed=seed),
    }
    if options.accuracy_default:
        chosen["hf-default"] = lambda task, seed: ways.theirs(task, tuned=False, epochs=epochs, seed=seed)
    accuracies: dict[str, list[float]] = {way: [] for way in chosen}
    for seed in range(options.accuracy_seeds):
        for way, train in chosen.items():
            outcome = train(task, seed)
            assert outcome.accuracy is not None
            accuracies[way].append(outcome.accuracy)
            print(f"seed {seed} {way:<10} {outcome.show()}", flush=True)
    return accuracies


QUICK = {"rows": 32, "repeats": 0, "accuracy_rows": 32, "accuracy_epochs": 1}
BENCHMARK = measure.Benchmark("training", __doc__ or "", add_options, run, QUICK)

if __name__ == "__main__":
    BENCHMARK.main()
