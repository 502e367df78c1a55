"""Training all layers: loralab against HF Trainer + peft, the same rows, batch, LoRA and optimiser.

    python -m benchmarks.training [--data FILE --test FILE] [--rows 480] [--repeats 5] [--accuracy-seeds 3 [--accuracy-reference]]

Ways: see ways.py. Each round trains one epoch from the same start in each way; what is timed is the loop, not the set-up. Before
it, our engine takes the same steps as a plain loop over Transformers + peft, and the losses must agree within bf16's rounding.
--accuracy-seeds trains whole runs too, ours and the fair way's, and scores them on --test.
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
    parser.add_argument("--accuracy-seeds", type=int, default=0, help="whole runs of each way, scored on --test")
    parser.add_argument("--accuracy-reference", action="store_true", help="the reference's too; takes minutes each")
    parser.add_argument("--accuracy-rows", type=int, default=2400)
    parser.add_argument("--accuracy-epochs", type=int, default=3)


def run(options: argparse.Namespace) -> measure.Report:
    if options.accuracy_seeds and not options.test:
        raise SystemExit("--accuracy-seeds wants --test FILE, rows to score")
    task = ways.load_task(options, options.rows)
    difference = ways.difference_of_losses(task)
    outcomes = measure.alternate(
        {
            "loralab": lambda: ways.ours(task),
            "fair": lambda: ways.theirs(task, fair=True),
            "reference": lambda: ways.theirs(task, fair=False),
        },
        options.repeats,
        Outcome.show,
    )
    rate = ways.rate_of_products()
    values = {way: [outcome.rate for outcome in found] for way, found in outcomes.items()}
    assert isinstance(task.base.dims, Dimensions)
    floor = ways.floor_flops(task.base.dims, task.mean_tokens)
    columns = {
        **ways.summary_of(outcomes),
        "share of floor": {way: statistics.median(found) * floor / rate for way, found in values.items()},
    }
    facts: dict[str, Any] = {
        "rows": len(task.rows),
        "mean tokens": task.mean_tokens,
        "real tokens/s": statistics.median(values["loralab"]) * task.mean_tokens,
        "products, TFLOP/s": rate / 1e12,
        "floor, GFLOP a sample": floor / 1e9,
        "largest difference of a step's loss from the plain path's": difference,
    }
    failures = [] if difference <= ways.BF16_NOISE else [f"losses differ by {difference:.3g} from the plain path's"]
    if options.accuracy_seeds:
        accuracies = accuracy_of_seeds(options)
        columns["accuracy"] = {way: statistics.mean(found) for way, found in accuracies.items()}
        facts["accuracy by seed"] = accuracies
        facts["loralab's accuracy less the fair way's"] = columns["accuracy"]["loralab"] - columns["accuracy"]["fair"]
    return measure.Report("samples/s", values, ("reference", "fair"), columns, facts, failures)


def accuracy_of_seeds(options: argparse.Namespace) -> dict[str, list[float]]:
    """Train whole runs with the seeds 0, 1, ... in each way, and return their accuracies on the test rows."""
    task, epochs = ways.load_task(options, options.accuracy_rows, scored=True), options.accuracy_epochs
    chosen: dict[str, Callable[[Task, int], Outcome]] = {
        "loralab": lambda task, seed: ways.ours(task, epochs=epochs, seed=seed),
        "fair": lambda task, seed: ways.theirs(task, fair=True, epochs=epochs, seed=seed),
    }
    if options.accuracy_reference:
        chosen["reference"] = lambda task, seed: ways.theirs(task, fair=False, epochs=epochs, seed=seed)
    found: dict[str, list[float]] = {way: [] for way in chosen}
    for seed in range(options.accuracy_seeds):
        for way, train in chosen.items():
            outcome = train(task, seed)
            assert outcome.accuracy is not None
            found[way].append(outcome.accuracy)
            print(f"seed {seed} {way:<9} {outcome.show()}", flush=True)
    return found


QUICK = {"rows": 32, "repeats": 0, "accuracy_rows": 32, "accuracy_epochs": 1}
BENCHMARK = measure.Benchmark("training", __doc__ or "", add_options, run, QUICK)

if __name__ == "__main__":
    BENCHMARK.main()
