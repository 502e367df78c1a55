"""What the prefix cache saves: the top layers trained with and without it, and all layers, alternating in one run.

    python -m benchmarks.cache_speed [--rows 2400] [--epochs 3] [--top 3] [--repeats 3] [--data FILE_OR_sample] [--json FILE]

Four ways, with one LoRA setting: `all`, adapters on every layer; `top`, on the top layers, the layers below computed anew in
every step; `cached`, the same with their hidden states kept, the time to build them included; `found`, the same with the file of an
earlier run. Losses of the last three must agree, and the run fails where they do not. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
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
from loralab.training import prefix_cache
from loralab.training.callbacks import Event, StepDone, Watch
from loralab.training.engine import Optimisation, fit
from loralab.training.loss import Loss

WAYS = ("all", "top", "cached", "found")
TOLERANCE = 0.02  # on the mean loss of an epoch, in bf16


@dataclass(frozen=True)
class Outcome:
    """One timed run: samples trained a second, the cache's building included, and the mean loss of its last epoch."""

    samples_per_second: float
    loss: float


def run(way: str, base: Base, rows: Encoded, classes: int, epochs: int, top: int, folder: Path) -> Outcome:
    lora = Lora(8, 16, 0.0, ("query", "value"), None if way == "all" else f"top{top}")
    network = build_network(
        base, classes, pooling="auto", head="auto", dropout=0.1, tuning="lora", lora=lora, init_seed=0, dropout_seed=0
    )
    where = device.place(network, "auto")
    losses: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            losses.append(event.loss)

    began = time.perf_counter()
    setting = "disk" if way in ("cached", "found") else "off"
    cache = prefix_cache.plan(network, [rows], setting=setting, limit=1e12, epochs=epochs, folder=folder, identity=str(where))
    kept = cache.keep(network, rows)
    fit(
        network,
        kept,
        None,
        loss=Loss(),
        score=lambda logits, labels: {},
        watch=Watch("loss"),
        seed=0,
        optimisation=Optimisation(epochs=epochs, batch_size=16, learning_rate=5e-4),
        listeners=[listen],
    )
    return Outcome(epochs * len(rows) / (time.perf_counter() - began), statistics.mean(losses[-len(losses) // epochs :]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--rows", 2400), ("--epochs", 3), ("--top", 3), ("--repeats", 3)):
        parser.add_argument(name, type=int, default=default)
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
        with tempfile.TemporaryDirectory() as folder:
            for way in WAYS:  # `found` follows `cached`, and finds its file
                outcomes[way].append(run(way, base, rows, len(examples.classes), options.epochs, options.top, Path(folder)))
                print(f"{repeat + 1}/{options.repeats} {way:<7} {outcomes[way][-1].samples_per_second:7.1f} samples/s", flush=True)
    speed = {way: statistics.median(outcome.samples_per_second for outcome in found) for way, found in outcomes.items()}
    loss = {way: statistics.mean(outcome.loss for outcome in found) for way, found in outcomes.items()}
    print(f"\n{'':<8}{'samples/s':>10}{'spread':>16}{'loss':>9}{'to top':>8}{'to all':>8}")
    for way, found in outcomes.items():
        rates = [outcome.samples_per_second for outcome in found]
        spread = f"{min(rates):.0f}-{max(rates):.0f}"
        ratios = f"{speed[way] / speed['top']:>8.2f}{speed[way] / speed['all']:>8.2f}"
        print(f"{way:<8}{speed[way]:>10.1f}{spread:>16}{loss[way]:>9.4f}{ratios}")
    if options.json:
        options.json.write_text(
            json.dumps({way: [asdict(outcome) for outcome in found] for way, found in outcomes.items()}, indent=2)
        )
    if max(abs(loss[way] - loss["top"]) for way in ("cached", "found")) > TOLERANCE:
        raise SystemExit("the losses with and without the cache differ")


if __name__ == "__main__":
    main()
