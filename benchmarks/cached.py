"""Training speed with the feature cache, top layers only, against HF Trainer + peft on all layers.

    python -m benchmarks.cached [--rows 2400] [--epochs 3] [--top 3] [--repeats 3] [--steps 30] [--data FILE]

Ways, with one LoRA setting: all, adapters on every layer; top, adapters on the top layers, no cache; cached, the same with the
feature cache, including the time to fill it; reused, the same with the cache of an earlier run; hf-tuned and hf-default (see
ways.py) for --steps steps, which are enough to measure the rate. The losses of top, cached and reused must agree.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks import measure, ways
from benchmarks.ways import Outcome
from loralab.model.architectures import Dimensions

TOLERANCE = 0.02  # on the mean loss of all steps, in bf16


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=2400)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30, help="steps of hf-tuned and hf-default")


def run(options: argparse.Namespace) -> measure.Report:
    task = ways.load_task(options, options.rows)
    epochs, top = options.epochs, options.top
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def cached() -> Outcome:
            for file in folder.iterdir():
                file.unlink()
            return ways.ours(task, epochs=epochs, top=top, cache="disk", folder=folder)

        outcomes = measure.alternate(
            {
                "all": lambda: ways.ours(task, epochs=epochs),
                "top": lambda: ways.ours(task, epochs=epochs, top=top),
                "cached": cached,
                "reused": lambda: ways.ours(task, epochs=epochs, top=top, cache="disk", folder=folder),  # the file of `cached`
                "hf-tuned": lambda: ways.theirs(task, tuned=True, epochs=epochs, steps=options.steps),
                "hf-default": lambda: ways.theirs(task, tuned=False, epochs=epochs, steps=options.steps),
            },
            options.repeats,
            Outcome.show,
        )
    rate = ways.rate_of_products()
    values = {way: [outcome.rate for outcome in rounds] for way, rounds in outcomes.items()}
    columns = ways.summary_of(outcomes)
    assert isinstance(task.base.dims, Dimensions)
    columns["share of floor"] = {
        way: statistics.median(values[way])
        * ways.floor_flops(task.base.dims, task.mean_tokens, top=adapted, epochs=epochs, cache=cache)
        / rate
        for way, adapted, cache in (("all", None, "off"), ("top", top, "off"), ("cached", top, "built"), ("reused", top, "found"))
    }
    worst = max(abs(columns["loss"][way] - columns["loss"]["top"]) for way in ("cached", "reused"))
    failures = [] if worst <= TOLERANCE else [f"the losses with and without the cache differ by {worst:.3g}"]
    facts = {"rows": len(task.rows), "epochs": epochs, "adapted layers": top, "products, TFLOP/s": rate / 1e12}
    remarks = [f"losses of hf-tuned and hf-default are of {options.steps} steps only"]
    return measure.Report("samples/s", values, ("hf-default", "hf-tuned", "top"), columns, facts, failures, remarks)


BENCHMARK = measure.Benchmark(
    "cached", __doc__ or "", add_options, run, {"rows": 32, "epochs": 2, "top": 2, "repeats": 0, "steps": 2}
)

if __name__ == "__main__":
    BENCHMARK.main()
