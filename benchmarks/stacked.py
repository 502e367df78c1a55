"""What training several seeds in one pass saves: one seed alone, all one after another, and all together, alternating in one run.

    python -m benchmarks.stacked [--seeds 4] [--rows 800] [--epochs 1] [--repeats 3] [--dropout 0.1] [--rectangle yes|no]
                                 [--data FILE_OR_sample] [--base minilm] [--json FILE]

Networks are made and rows tokenized before the clock starts; nothing is evaluated. Losses of `separate` and `together` must agree,
and the run fails where they do not. `--rectangle` lays passes out as a GPU or a processor wants them (`model.stacked`), whatever
this is. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from loralab.data.encode import encode, load_tokenizer
from loralab.data.sources import load_source
from loralab.data.values import Encoded
from loralab.model import device
from loralab.model.build import Lora, build_network
from loralab.model.storage import Base, resolve_base
from loralab.training.callbacks import Event, StepDone, Watch
from loralab.training.engine import Fit, Loop, Optimisation
from loralab.training.loss import Loss
from loralab.training.stacked import fit_stacked

WAYS = ("one", "separate", "together")
TOLERANCE = 0.02  # on the mean loss of all steps, in bf16


@dataclass(frozen=True)
class Outcome:
    """One timed way: seconds, and the mean loss over all steps of its seeds."""

    seconds: float
    loss: float


def run(way: str, base: Base, rows: Encoded, classes: int, options: argparse.Namespace) -> Outcome:
    losses: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            losses.append(event.loss)

    loops = []
    for seed in range(1 if way == "one" else options.seeds):
        lora = Lora(8, 16, options.dropout, ("query", "value"))
        network = build_network(
            base, classes, pooling="auto", head="auto", dropout=0.1, tuning="lora", lora=lora, init_seed=seed, dropout_seed=seed
        )
        device.place(network, "auto")
        settings = Optimisation(epochs=options.epochs, batch_size=16, learning_rate=5e-4)
        loops.append(Loop(network, rows, None, Loss(), lambda logits, labels: {}, Watch("loss"), seed, settings, [listen]))
    began = time.perf_counter()
    if way == "together":
        rectangle = None if options.rectangle is None else options.rectangle == "yes"
        assert all(isinstance(fit, Fit) for fit in fit_stacked(loops, rectangle=rectangle))
    else:
        for loop in loops:
            loop.run()
    return Outcome(time.perf_counter() - began, statistics.mean(losses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--seeds", 4), ("--rows", 800), ("--epochs", 1), ("--repeats", 3)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--rectangle", choices=("yes", "no"))
    parser.add_argument("--data", default="sample")
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    base = resolve_base(options.base)
    examples = load_source(options.data, text=None, label=None, classes=()).train
    examples = examples.take(np.random.default_rng(0).permutation(len(examples))[: options.rows])
    rows = encode(examples, tokenizer=load_tokenizer(base.folder, 128), clean=(), pad_id=base.dims.pad_id)
    outcomes: dict[str, list[Outcome]] = {way: [] for way in WAYS}
    for repeat in range(options.repeats):
        for way in WAYS:
            outcomes[way].append(run(way, base, rows, len(examples.classes), options))
            print(f"{repeat + 1}/{options.repeats} {way:<9}{outcomes[way][-1].seconds:8.1f} s", flush=True)
    seconds = {way: statistics.median(outcome.seconds for outcome in found) for way, found in outcomes.items()}
    loss = {way: statistics.mean(outcome.loss for outcome in found) for way, found in outcomes.items()}
    print(f"\n{'':<10}{'seconds':>9}{'spread':>14}{'loss':>9}{'to one':>8}{'speed':>8}")
    for way, found in outcomes.items():
        taken = [outcome.seconds for outcome in found]
        spread = f"{min(taken):.1f}-{max(taken):.1f}"
        ratios = f"{seconds[way] / seconds['one']:>8.2f}{seconds['separate'] / seconds[way]:>8.2f}"
        print(f"{way:<10}{seconds[way]:>9.1f}{spread:>14}{loss[way]:>9.4f}{ratios if way != 'one' else ratios[:8]}")
    if options.json:
        options.json.write_text(
            json.dumps({way: [asdict(outcome) for outcome in found] for way, found in outcomes.items()}, indent=2)
        )
    if abs(loss["together"] - loss["separate"]) > TOLERANCE:
        raise SystemExit("the losses of seeds trained together and one by one differ")


if __name__ == "__main__":
    main()
