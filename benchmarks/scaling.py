"""Training time as rows, tokens, width and rank grow, one at a time: seconds, and the exponent of the growth.

    python -m benchmarks.scaling [--axes rows tokens width rank] [--repeats 3]

Six-layer encoders with random weights and random texts of equal length, so nothing is padding. The middle of each axis has
minilm's size. An exponent of 1 is linear growth; the exponent of rows should not be higher.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from benchmarks import measure, ways
from loralab.config import LoraConfig, TrainConfig
from loralab.data.types import Encoded
from loralab.model import device
from loralab.model.architectures import Dimensions
from loralab.model.encoder import EncoderClassifier

LAYERS, HEAD_WIDTH, VOCABULARY, CLASSES = 6, 32, 30_522, 4
MOST_GROWTH = 1.1  # exponent of rows


@dataclass(frozen=True)
class Size:
    """One point: rows, tokens per row, width of the encoder, rank of the adapters."""

    rows: int = 480
    tokens: int = 54
    width: int = 384
    rank: int = 8


POINTS = {
    "rows": (500, 1000, 2000, 4000),
    "tokens": (16, 32, 64, 128),
    "width": (128, 256, 384, 768),
    "rank": (1, 4, 16, 64),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--axes", nargs="+", choices=POINTS, default=[*POINTS])
    parser.add_argument("--rows", type=int, default=480, help="rows while another axis grows")
    parser.add_argument("--most-rows", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)


def run(options: argparse.Namespace) -> measure.Report:
    points = {**POINTS, "rows": tuple(options.most_rows * part // 8 for part in (1, 2, 4, 8))}
    sizes = {
        f"{axis} {point}": replace(Size(rows=options.rows), **{axis: point}) for axis in options.axes for point in points[axis]
    }
    values = measure.alternate(
        {name: partial(seconds_of, size) for name, size in sizes.items()},
        options.repeats,
        lambda seconds: f"{seconds:7.2f} s",
    )
    report = measure.Report("seconds", values)
    rate = ways.rate_of_products()
    floors = {
        name: ways.floor_flops(dimensions(size.width), size.tokens) * size.rows / report.medians[name] / rate
        for name, size in sizes.items()
    }
    per_unit = {
        f"{axis} {point}": 1000 * report.medians[f"{axis} {point}"] / point for axis in options.axes for point in points[axis]
    }
    grown = {
        f"exponent of {axis}": exponent(points[axis], [report.medians[f"{axis} {point}"] for point in points[axis]])
        for axis in options.axes
    }
    over = grown.get("exponent of rows", 1.0)
    remarks = [f"training time grows with rows to the power {over:.2f}, not linearly"] if over > MOST_GROWTH else []
    return replace(report, columns={"ms per unit": per_unit, "share of floor": floors}, facts=grown, remarks=remarks)


def seconds_of(size: Size) -> float:
    """Train one epoch of random texts with adapters on all layers of a random encoder."""
    generator = torch.Generator().manual_seed(0)
    model = EncoderClassifier(dimensions(size.width), CLASSES, pooling="cls", head="default", dropout=0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.02, generator=generator)
    model.head.init_weights(generator)
    model.attach_lora(LoraConfig(rank=size.rank, alpha=2 * size.rank, targets=ways.TARGETS), generator)
    device.move_to_device(model, "auto")
    random = np.random.default_rng(0)
    rows = Encoded(
        random.integers(1, VOCABULARY, size.rows * size.tokens, dtype=np.int32),
        np.arange(size.rows + 1, dtype=np.int64) * size.tokens,
        random.integers(0, CLASSES, size.rows),
        pad_id=0,
    )
    began = time.perf_counter()
    ways.fit_losses(model, rows, TrainConfig(epochs=1, batch_size=ways.BATCH, learning_rate=ways.RATE))
    return time.perf_counter() - began


def dimensions(width: int) -> Dimensions:
    """Return BERT's shape at a width: a feed-forward layer of four times the width, and heads of width 32, as in minilm."""
    return Dimensions("bert", LAYERS, width, width // HEAD_WIDTH, 4 * width, VOCABULARY, 512, 2, width)


def exponent(sizes: tuple[int, ...], costs: list[float]) -> float:
    """Return the k of cost ~ size^k, by least squares on logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


BENCHMARK = measure.Benchmark("scaling", __doc__ or "", add_options, run, {"rows": 16, "most_rows": 64, "repeats": 0})

if __name__ == "__main__":
    BENCHMARK.main()
