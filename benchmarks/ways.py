"""One training task, and the ways to train it that are compared: loralab's engine, and HF Trainer + peft twice.

`reference`: fp32, padded to 128, dropout as the checkpoint has it: how the published projects train. `fair`: the best that HF
Trainer + peft does: bf16 autocast, rows grouped by length, no dropout in the frozen encoder, eager attention on a processor. All
have the same LoRA, the same head (the architecture's own, on the first token), optimiser, schedule and batch of 16: a larger batch
would be another optimisation.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from loralab.training.resident import Rows
from torch import nn

from benchmarks import measure
from loralab import load_config, run_training
from loralab.config import LoraConfig, ModelConfig
from loralab.data.sources import load_source, read_examples
from loralab.data.tokenize import encode, load_tokenizer
from loralab.data.types import Encoded, Examples, Ints
from loralab.model import device
from loralab.model.architectures import Dimensions
from loralab.model.build import build_model
from loralab.model.bundle import load_bundle
from loralab.model.checkpoints import BaseCheckpoint, resolve_base
from loralab.model.dropout import Dropout
from loralab.training import prefix_cache
from loralab.training.callbacks import EarlyStopping, Event, StepEnd
from loralab.training.loss import Loss
from loralab.training.scoring import logits_of
from loralab.training.trainer import Optimisation, Trainer

BATCH, RANK, ALPHA, DROPOUT, RATE, LONGEST = 16, 8, 16, 0.1, 5e-4, 128
TARGETS = ("query", "value")
CHECKED_ROWS, CHECKED_STEPS, CHECKED_RATE, BF16_NOISE = 16, 20, 2e-3, 0.01


@dataclass(frozen=True)
class Task:
    """What is trained: tokenized rows of so many classes, on an encoder. `test`: rows to score, where accuracy is asked for."""

    base: BaseCheckpoint
    rows: Encoded
    classes: int
    test: Encoded | None = None

    @property
    def mean_tokens(self) -> float:
        return float(self.rows.lengths.mean())


@dataclass(frozen=True)
class Outcome:
    """One training: seconds of its loop (with the cache's building, where it has one), samples, losses by step where known.

    computed: tokens that went through the network, padding included, over real ones; NaN where they were not counted.
    """

    seconds: float
    samples: int
    losses: Sequence[float]
    computed: float
    accuracy: float | None = None

    @property
    def rate(self) -> float:
        return self.samples / self.seconds

    def show(self) -> str:
        return f"{self.rate:8.1f} samples/s" + (f", accuracy {self.accuracy:.4f}" if self.accuracy is not None else "")


def load_task(options: argparse.Namespace, rows: int, *, scored: bool = False) -> Task:
    """Draw so many rows of --data, and read --test where trainings are to be scored."""
    base = resolve_base(options.base)
    tokenizer = load_tokenizer(base.folder, LONGEST)

    def tokens(examples: Examples) -> Encoded:
        return encode(examples, tokenizer=tokenizer, clean=(), pad_id=base.dims.pad_id)

    train = load_source(options.data).train
    test = None
    if scored:
        test = tokens(read_examples(Path(options.test), classes=train.classes, need_labels=True)[0])
    return Task(base, tokens(draw(train, rows)), len(train.classes), test)


def draw(examples: Examples, rows: int) -> Examples:
    """So many rows, always the same, or all where there are fewer."""
    return examples.take(np.random.default_rng(0).permutation(len(examples))[:rows])


def ours(
    task: Task,
    *,
    epochs: int = 1,
    top: int | None = None,
    cache: str = "off",
    folder: Path = Path(),
    seed: int = 0,
) -> Outcome:
    """Train by loralab's engine. top: only the highest layers; cache: `disk` keeps what lies below them in `folder`."""
    network = build_model(
        task.base,
        task.classes,
        ModelConfig(pooling="cls", head="default", dropout=0.1),
        tuning="lora",
        lora=LoraConfig(rank=RANK, alpha=ALPHA, dropout=DROPOUT, targets=TARGETS, layers=None if top is None else f"top{top}"),
        init_seed=seed,
        dropout_seed=seed,
    )
    where = device.move_to_device(network, "auto")
    settings = Optimisation(epochs, None, BATCH, learning_rate=RATE)
    with _counted_gathers(padded=not where.kernels) as computed:
        began = time.perf_counter()
        plan = prefix_cache.plan(network, [task.rows], setting=cache, limit=1e12, epochs=epochs, folder=folder, identity=str(where))
        losses = fit_losses(network, plan.keep(network, task.rows), settings, seed)
        seconds = time.perf_counter() - began
    padding = sum(computed) / (epochs * int(task.rows.lengths.sum()))
    accuracy = None
    if task.test is not None:
        accuracy = float((logits_of(network, task.test).argmax(axis=1) == task.test.labels).mean())
    return Outcome(seconds, epochs * len(task.rows), losses, padding, accuracy)


def fit_losses(network: nn.Module, rows: Encoded, optimisation: Optimisation, seed: int = 0) -> list[float]:
    """Train by the engine, without validation rows, and return the loss of every step."""
    losses: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepEnd):
            losses.append(event.loss)

    Trainer(
        network,
        rows,
        None,
        loss=Loss(),
        score=lambda logits, labels: {},
        watch=EarlyStopping("loss"),
        seed=seed,
        optimisation=optimisation,
        listeners=[listen],
    ).run()
    return losses


def theirs(task: Task, *, fair: bool, epochs: int = 1, steps: int = -1, seed: int = 0) -> Outcome:
    """Train by HF Trainer + peft, for so many `steps` of the epochs where that is enough to know the rate."""
    import transformers
    from transformers import PrinterCallback, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        began = ended = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.ended = time.perf_counter()

    torch.manual_seed(seed)
    model = peft_model(task, fair=fair)
    computed = _count_tokens(model)
    items = [{"input_ids": tokens, "labels": int(label)} for tokens, label in zip(*_lists(task.rows), strict=True)]

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        inputs = _pad([item["input_ids"] for item in batch], task.rows.pad_id, None if fair else LONGEST)
        return {**inputs, "labels": torch.tensor([item["labels"] for item in batch])}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=epochs,
            max_steps=steps,
            learning_rate=RATE,
            lr_scheduler_type="cosine",
            warmup_steps=0.06,
            weight_decay=0.01,
            use_cpu=not torch.cuda.is_available(),
            bf16=fair,
            train_sampling_strategy="group_by_length" if fair else "random",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            seed=seed,
        )
        clock = Clock()
        trainer = transformers.Trainer(model, arguments, collate, items, callbacks=[clock])
        trainer.remove_callback(PrinterCallback)
        result = trainer.train()
    samples = min(epochs * len(items), trainer.state.global_step * BATCH)
    padding = computed() / (samples * task.mean_tokens)
    accuracy = _their_accuracy(model, task.test, fair) if task.test is not None else None
    return Outcome(clock.ended - clock.began, samples, [result.training_loss], padding, accuracy)


def peft_model(task: Task, *, fair: bool, dropout: float = DROPOUT) -> Any:
    """Transformers' classifier with peft's adapters."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(task.base.folder, num_labels=task.classes)
    if fair:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        config.classifier_dropout = dropout
    eager = fair and not torch.cuda.is_available()  # on a processor the fused kernel is slower at news length
    attention = {"attn_implementation": "eager"} if eager else {}
    model = AutoModelForSequenceClassification.from_pretrained(task.base.folder, config=config, **attention)
    lora = LoraConfig(task_type="SEQ_CLS", r=RANK, lora_alpha=ALPHA, lora_dropout=dropout, target_modules=[*TARGETS])
    return get_peft_model(model, lora)


def difference_of_losses(task: Task) -> float:
    """The largest difference of a step's loss between our engine and a plain loop over Transformers + peft in bf16.

    Both start from the same weights and take the same steps, each over the same rows, without dropout: they differ by rounding
    alone. 0.001 was found on minilm, and 0.027 with an adapter's scale wrong by a tenth; `BF16_NOISE` lies between.
    """
    some = _first(task.rows, CHECKED_ROWS)
    torch.manual_seed(0)
    model = peft_model(task, fair=True, dropout=0.0).to(device.choose_device())
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        network, _ = load_bundle(Path(folder), str(task.base.folder))
    for module in network.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
    device.move_to_device(network, "auto")
    steps = Optimisation(CHECKED_STEPS, None, len(some), learning_rate=CHECKED_RATE, schedule="constant", warmup=0, weight_decay=0)
    found = fit_losses(network, some, steps)

    tokens, labels = _lists(some)
    inputs = {name: part.to(model.device) for name, part in _pad(tokens, some.pad_id).items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=CHECKED_RATE, weight_decay=0)
    expected: list[float] = []
    for _ in range(CHECKED_STEPS):
        with torch.autocast(model.device.type, torch.bfloat16):
            loss = model(**inputs, labels=torch.tensor(labels, device=model.device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    return max(abs(a - b) for a, b in zip(found, expected, strict=True))


def floor_flops(
    dims: Dimensions, tokens: float, *, top: int | None = None, epochs: int = 1, cache: str = "off", pooling: str = "cls"
) -> float:
    """Matrix FLOPs that one training sample needs at least in each epoch: forward, and backward for activations.

    top: adapted layers, from the highest; cache: `off`, `built` (what lies below them is computed once in all epochs) or `found`.
    A layer of width d needs 24 d² s + 4 d s² forward for s tokens, and 24 d² s + 8 d s² backward, less the gradient of its
    input in the lowest adapted one; with `cls` pooling one token alone leaves the highest.
    """
    d, s, adapted = dims.width, tokens, dims.layers if top is None else top

    def leave(layer: int) -> float:
        return 1 if pooling == "cls" and layer == dims.layers - 1 else s

    def forward(layer: int) -> float:
        return 20 * d * d * leave(layer) + 4 * d * d * s + 4 * d * s * leave(layer)

    def backward(layer: int) -> float:
        return 20 * d * d * leave(layer) + 4 * d * d * s + 8 * d * s * leave(layer)

    lowest = dims.layers - adapted
    below = sum(map(forward, range(lowest))) * {"off": 1.0, "built": 1 / epochs, "found": 0.0}[cache]
    input_gradient = 2 * d * d * leave(lowest) + 4 * d * d * s + 2 * d * s * leave(lowest)
    above = range(lowest, dims.layers)
    return below + sum(map(forward, above)) + sum(map(backward, above)) - input_gradient


def rate_of_products() -> float:
    """FLOP/s of products in the precision that loralab chooses here."""
    where = device.choose_device()
    return measure.gemm_rate(device.choose_precision("auto", where), where)


def trained_run(options: argparse.Namespace, folder: Path, rows: int) -> Path:
    """Train a small run that all can open: the architecture's own head, so that Transformers knows its merged export.

    It is tested, and its exports are checked, on half as many rows.
    """
    settings = [f"data.source={options.data}", f"model.base={options.base}", "model.pooling=cls", "model.head=default"]
    small = [
        f"data.max_train_samples={rows}",
        f"data.max_test_samples={rows // 2}",
        "train.epochs=2",
        "train.batch_size=16",
        "lora.targets=query,value",
    ]
    return run_training(load_config("quickstart", [*settings, *small]), name="run", folder=folder).folder


def summary_of(outcomes: dict[str, list[Outcome]]) -> dict[str, dict[str, float]]:
    """Columns of a report: the mean loss over all steps, and the padding factor."""
    return {
        "loss": {way: statistics.mean(statistics.mean(o.losses) for o in found) for way, found in outcomes.items()},
        "padding": {
            way: statistics.mean(o.computed for o in found) for way, found in outcomes.items() if not math.isnan(found[0].computed)
        },
    }


@contextmanager
def _counted_gathers(*, padded: bool) -> Iterator[list[int]]:
    """Count the tokens of every pass that our engine gathers, since a recorded pass calls no network; `padded`: with padding."""
    passes: list[int] = []

    def at(rows: Rows, positions: Ints, width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        real = int(rows.encoded.lengths[positions].sum())
        passes.append(len(positions) * (width or rows.width(positions)) if padded else real)
        return gather(rows, positions, width)

    gather = Rows.at
    with mock.patch.object(Rows, "at", at):
        yield passes


def _count_tokens(network: nn.Module) -> Callable[[], int]:
    """Count the tokens of every pass of Transformers' network, padding included; what is returned tells how many there were."""
    passes: list[int] = []

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        passes.append(kwargs["input_ids"].numel())

    handle = network.register_forward_pre_hook(look, with_kwargs=True)

    def count() -> int:
        handle.remove()
        return sum(passes)

    return count


def _lists(rows: Encoded) -> tuple[list[list[int]], list[int]]:
    """Tokens and label of every row."""
    assert rows.labels is not None
    return [rows.tokens[rows.starts[i] : rows.starts[i + 1]].tolist() for i in range(len(rows))], rows.labels.tolist()


def _first(rows: Encoded, count: int) -> Encoded:
    assert rows.labels is not None
    starts = rows.starts[: count + 1]
    return Encoded(rows.tokens[: starts[-1]], starts, rows.labels[:count], rows.pad_id)


def _pad(texts: list[list[int]], pad_id: int, width: int | None = None) -> dict[str, torch.Tensor]:
    """Lay texts out as one rectangle, of the longest's width where none is given."""
    width = width or max(map(len, texts))
    tokens = torch.full((len(texts), width), pad_id)
    mask = torch.zeros(len(texts), width, dtype=torch.long)
    for i, text in enumerate(texts):
        tokens[i, : len(text)] = torch.tensor(text)
        mask[i, : len(text)] = 1
    return {"input_ids": tokens, "attention_mask": mask}


def _their_accuracy(model: Any, test: Encoded, fair: bool) -> float:
    tokens, labels = _lists(test)
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    right = 0
    model.eval()
    with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=fair):
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            inputs = {name: part.to(model.device) for name, part in _pad([tokens[i] for i in rows], test.pad_id).items()}
            found = model(**inputs).logits.argmax(dim=-1).tolist()
            right += sum(labels[i] == each for i, each in zip(rows, found, strict=True))
    return right / len(labels)
