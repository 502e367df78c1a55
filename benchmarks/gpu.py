"""Training speed on a GPU: an encoder of roberta-base's shape, rows of news length, against HF Trainer + peft in bf16.

    python -m benchmarks.gpu [--rows 120000] [--epochs 3] [--sample 48000] [--steps 200] [--repeats 1] [--data FILE]

Weights and tokens are random, lengths are those of the data's texts, repeated. It measures speed only, in under 8 minutes. Ways, on
--sample rows: loralab; cached, adapters on the top half with the feature cache, including the time to fill it; hf-tuned (see
ways.py) for --steps steps. Then --rows are trained for --epochs, once. Losses of 20 steps must agree with a plain loop over
Transformers. Without a GPU it runs on the CPU; `--quick` shows that it works.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks import measure, ways
from benchmarks.ways import Outcome, Task
from loralab.config import DataConfig
from loralab.data.sources import load_source
from loralab.data.types import Encoded
from loralab.model.architectures import KNOWN, Dimensions
from loralab.model.checkpoints import resolve_base

SHAPE, CLASSES = "roberta-base", 4
TINY = Dimensions("roberta", 2, 32, 4, 64, 500, 514, 1, 32, 1, 1e-5)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=120_000, help="rows of the whole run at the end; 0: no such run")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of the whole run, and of the cached way")
    parser.add_argument("--sample", type=int, default=48_000, help="rows of loralab's ways, for one epoch")
    parser.add_argument("--steps", type=int, default=200, help="steps of hf-tuned")
    parser.add_argument("--repeats", type=int, default=1)


def run(options: argparse.Namespace) -> measure.Report:
    dims = TINY if options.quick else KNOWN[SHAPE]
    assert isinstance(dims, Dimensions)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = Task(resolve_base(str(make_base(folder / "base", dims))), random_rows(options.data, options.sample, dims), CLASSES)
        difference = ways.difference_of_losses(task)

        def cached() -> Outcome:
            with tempfile.TemporaryDirectory() as cache_folder:
                return ways.ours(task, epochs=options.epochs, top=dims.layers // 2, cache="disk", folder=Path(cache_folder))

        outcomes = measure.alternate(
            {
                "loralab": lambda: ways.ours(task),
                "cached": cached,
                "hf-tuned": lambda: ways.theirs(task, tuned=True, steps=options.steps),
            },
            options.repeats,
            Outcome.show,
        )
        facts: dict[str, float | None] = {
            "mean tokens": task.mean_tokens,
            "largest difference of a step's loss from the plain loop": difference,
        }
        facts |= whole(replace(task, rows=repeated(task.rows, options.rows)), options.epochs) if options.rows else {}
    values = {way: [outcome.rate for outcome in rounds] for way, rounds in outcomes.items()}
    report = measure.Report("samples/s", values, ("hf-tuned",), ways.summary_of(outcomes))
    rate = ways.rate_of_products()
    floor = ways.floor_flops(dims, task.mean_tokens) / rate
    facts |= {
        "products, TFLOP/s": rate / 1e12,
        "loralab's share of the floor": report.medians["loralab"] * floor,
        "GPU memory at most, GB": torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None,
    }
    failures = [] if difference <= ways.BF16_NOISE else [f"a step's loss differs by {difference:.3g} from the plain loop's"]
    remarks = [] if torch.cuda.is_available() else ["there is no GPU: these figures are of a CPU"]
    return replace(report, facts=facts, failures=failures, remarks=remarks)


def make_base(folder: Path, dims: Dimensions) -> Path:
    """Write a checkpoint of random weights that loralab and Transformers can load."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=dims.vocabulary,
        hidden_size=dims.width,
        num_hidden_layers=dims.layers,
        num_attention_heads=dims.heads,
        intermediate_size=dims.ffn_width,
        max_position_embeddings=dims.positions,
        type_vocab_size=1,
        layer_norm_eps=dims.norm_eps,
        num_labels=CLASSES,
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


def random_rows(data: str, count: int, dims: Dimensions) -> Encoded:
    """Return random tokens. A row has 1.1 times as many as a text of the data has words and marks, and two special tokens."""
    texts = load_source(DataConfig(source=str(data))).train.texts
    lengths = np.array([min(128, 2 + round(1.1 * len(re.findall(r"\w+|[^\w\s]", text)))) for text in texts], dtype=np.int64)
    random = np.random.default_rng(0)
    lengths = np.resize(random.permutation(lengths), count)
    tokens = random.integers(5, dims.vocabulary, lengths.sum(), dtype=np.int32)
    return Encoded(tokens, np.append(0, np.cumsum(lengths)), random.integers(0, CLASSES, count), pad_id=1)


def take(rows: Encoded, count: int) -> Encoded:
    """Return the first `count` rows."""
    assert rows.labels is not None
    starts = rows.starts[: count + 1]
    return Encoded(rows.tokens[: starts[-1]], starts, rows.labels[:count], rows.pad_id)


def repeated(rows: Encoded, count: int) -> Encoded:
    """Return `count` rows: the rows, repeated."""
    assert rows.labels is not None
    times = -(-count // len(rows))
    lengths = np.tile(rows.lengths, times)
    return take(
        Encoded(np.tile(rows.tokens, times), np.append(0, np.cumsum(lengths)), np.tile(rows.labels, times), rows.pad_id), count
    )


def whole(task: Task, epochs: int) -> dict[str, float]:
    """Train the whole run. Return its seconds, with and without loading."""
    began = time.perf_counter()
    outcome = ways.ours(task, epochs=epochs)
    name = f"{epochs} x {len(task.rows):,} rows"
    return {f"{name}, seconds of training": outcome.seconds, f"{name}, with loading": time.perf_counter() - began}


QUICK = {"rows": 64, "epochs": 2, "sample": 64, "steps": 2, "repeats": 0}
BENCHMARK = measure.Benchmark("gpu", __doc__ or "", add_options, run, QUICK)

if __name__ == "__main__":
    BENCHMARK.main()
