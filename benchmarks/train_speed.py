"""Training speed: loralab against HF Trainer + peft, the same rows, batch size and LoRA, alternating in one run.

    python -m benchmarks.train_speed [--rows 480] [--repeats 5] [--data FILE_OR_sample] [--json FILE]

Three ways: `loralab`; `reference`, HF Trainer + peft in fp32 padded to 128, as the published projects train; `fair`, HF Trainer +
peft with bf16 autocast, rows grouped by length, eager attention and no dropout in the frozen encoder. Each repeat trains one epoch
from the same start in each way; what is timed is the loop, not the set-up. Every way ends with its mean training loss, which
must agree. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch

from loralab.data.batches import cut_into_passes, padding_factor, training_steps
from loralab.data.encode import encode, load_tokenizer
from loralab.data.sources import load_source
from loralab.data.values import Encoded
from loralab.model import device
from loralab.model.backbone import Dimensions
from loralab.model.build import Lora, build_network
from loralab.model.storage import Base, resolve_base
from loralab.training.callbacks import Event, StepDone, Watch
from loralab.training.engine import Optimisation, fit
from loralab.training.loss import Loss

BATCH, RANK, ALPHA, DROPOUT, RATE = 16, 8, 16, 0.1, 5e-4


@dataclass(frozen=True)
class Outcome:
    """One timed epoch."""

    seconds: float
    loss: float


def ours(base: Base, rows: Encoded, classes: int) -> Outcome:
    """One epoch of loralab's engine, with the same LoRA dropout as the others."""
    lora = Lora(RANK, ALPHA, DROPOUT, ("query", "value"))
    network = build_network(
        base, classes, pooling="cls", head="own", dropout=0.1, tuning="lora", lora=lora, init_seed=0, dropout_seed=0
    )
    device.place(network, "auto")
    losses: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            losses.append(event.loss)

    result = fit(
        network,
        rows,
        None,
        loss=Loss(),
        score=lambda logits, labels: {},
        watch=Watch("loss"),
        seed=0,
        optimisation=Optimisation(epochs=1, batch_size=BATCH, learning_rate=RATE),
        listeners=[listen],
    )
    return Outcome(result.train_seconds, statistics.mean(losses))


def theirs(base: Base, rows: Encoded, classes: int, fair: bool) -> Outcome:
    """One epoch of HF Trainer + peft."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        began = ended = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.ended = time.perf_counter()

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(base.folder, num_labels=classes)
    if fair:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    model = AutoModelForSequenceClassification.from_pretrained(
        base.folder, config=config, **({"attn_implementation": "eager"} if fair else {})
    )
    adapted = get_peft_model(
        model, LoraConfig(task_type="SEQ_CLS", r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules=["query", "value"])
    )
    labels = rows.labels
    assert labels is not None
    texts = [rows.tokens[rows.starts[i] : rows.starts[i + 1]].tolist() for i in range(len(rows))]
    items = [{"input_ids": text, "labels": int(label)} for text, label in zip(texts, labels, strict=True)]

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(item["input_ids"]) for item in batch) if fair else 128
        tokens = torch.full((len(batch), width), base.dims.pad_id)
        mask = torch.zeros(len(batch), width, dtype=torch.long)
        for i, item in enumerate(batch):
            tokens[i, : len(item["input_ids"])] = torch.tensor(item["input_ids"])
            mask[i, : len(item["input_ids"])] = 1
        return {"input_ids": tokens, "attention_mask": mask, "labels": torch.tensor([item["labels"] for item in batch])}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=RATE,
            use_cpu=not torch.cuda.is_available(),
            bf16=fair,
            train_sampling_strategy="group_by_length" if fair else "random",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            seed=0,
        )
        clock = Clock()
        trainer = Trainer(adapted, arguments, collate, items, callbacks=[clock])  # type: ignore[arg-type]
        result = trainer.train()
    return Outcome(clock.ended - clock.began, result.training_loss)


def gemm_rate(dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Measured FLOP/s of the encoder's own product, (864, 384) by (384, 1536)."""
    x, weight = torch.randn(864, 384, dtype=dtype), torch.randn(384, 1536, dtype=dtype)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        x @ weight
        done += 1
    return done * 2 * 864 * 384 * 1536 / (time.perf_counter() - began)


def floor_flops(dims: Dimensions, tokens: float) -> float:
    """Matrix FLOPs that one training sample needs at least, all layers adapted: forward, and backward for activations."""
    d, s, layers = dims.width, tokens, dims.layers
    forward, backward = 24 * d * d * s + 4 * d * s * s, 24 * d * d * s + 8 * d * s * s
    return layers * forward + (layers - 1) * backward + backward - 6 * d * d * s - 2 * d * s * s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=480, help="rows an epoch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", default="sample", help="sample, or a labelled file")
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()

    base = resolve_base("minilm")
    source = load_source(arguments.data).train
    source = source.take(np.random.default_rng(0).permutation(len(source))[: arguments.rows])
    rows = encode(source, tokenizer=load_tokenizer(base.folder, 128), clean=(), pad_id=base.dims.pad_id)
    classes = len(source.classes)
    ways: dict[str, Callable[[], Outcome]] = {
        "loralab": lambda: ours(base, rows, classes),
        "fair": lambda: theirs(base, rows, classes, fair=True),
        "reference": lambda: theirs(base, rows, classes, fair=False),
    }
    found: dict[str, list[Outcome]] = {name: [] for name in ways}
    for repeat in range(arguments.repeats + 1):
        for name, way in ways.items():
            outcome = way()
            if repeat:  # the first round warms up
                found[name].append(outcome)
                print(f"{repeat}/{arguments.repeats} {name:<10} {len(rows) / outcome.seconds:7.1f} samples/s", flush=True)

    lengths = rows.lengths
    passes = [p for step in training_steps(lengths, BATCH, np.random.default_rng(0)) for p in cut_into_passes(step, lengths, 8192)]
    rate = gemm_rate(torch.bfloat16 if device.fast_in_bf16(device.choose_device()) else torch.float32)
    speeds = {name: [len(rows) / outcome.seconds for outcome in outcomes] for name, outcomes in found.items()}
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    result = {
        "machine": {"platform": platform.platform(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "rows": len(rows),
        "batch": BATCH,
        "mean_tokens": float(lengths.mean()),
        "padding_factor": padding_factor(lengths, passes),
        "gemm_tflops": rate / 1e12,
        "share_of_floor": medians["loralab"] * floor_flops(base.dims, float(lengths.mean())) / rate,
        "samples_per_second": medians,
        "spread": {name: [min(values), max(values)] for name, values in speeds.items()},
        "mean_training_loss": {name: statistics.mean(o.loss for o in outcomes) for name, outcomes in found.items()},
        "times_reference": medians["loralab"] / medians["reference"],
        "times_fair": medians["loralab"] / medians["fair"],
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
