"""One training task, and the ways to train it that are compared: loralab, and HF Trainer + peft in two configurations.

hf-default: fp32, padded to 128, the checkpoint's dropout, as published projects train. hf-tuned: the fastest settings of HF Trainer
+ peft: bf16 autocast, rows grouped by length, no dropout in the frozen encoder, eager attention on a CPU. All have the same LoRA,
head (the architecture's own, on the first token), optimizer, schedule and batch size of 16. A larger batch would be a different
optimization.
"""

from __future__ import annotations

import argparse
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
from torch import nn

from benchmarks import measure
from loralab import load_config
from loralab.config import DataConfig, LoraConfig, ModelConfig, TrainConfig
from loralab.data import batches
from loralab.data.batches import ModelInputs
from loralab.data.sources import load_source, read_examples
from loralab.data.tokenize import encode, load_tokenizer
from loralab.data.types import Encoded, Examples, Ints
from loralab.model import device
from loralab.model.architectures import Dimensions
from loralab.model.build import build_model
from loralab.model.bundle import load_bundle
from loralab.model.checkpoints import BaseCheckpoint, resolve_base
from loralab.model.dropout import Dropout
from loralab.model.interface import ClassifierModel
from loralab.pipeline import run_training
from loralab.training import prefix_cache, trainer
from loralab.training.callbacks import Event, StepEnd
from loralab.training.loss import Loss
from loralab.training.optimizers import build_optimizer
from loralab.training.scoring import logits_of
from loralab.training.trainer import Callbacks, Objective, Trainer, TrainingData

BATCH, RANK, ALPHA, DROPOUT, RATE, LONGEST = 16, 8, 16, 0.1, 5e-4, 128
TARGETS = ("query", "value")
CHECKED_ROWS, CHECKED_STEPS, CHECKED_RATE, BF16_NOISE = 16, 20, 2e-3, 0.01


@dataclass(frozen=True)
class Task:
    """An encoder, and tokenized rows. classes: their number; test: rows for the accuracy, or None."""

    base: BaseCheckpoint
    rows: Encoded
    classes: int
    test: Encoded | None = None

    @property
    def mean_tokens(self) -> float:
        return float(self.rows.lengths.mean())


@dataclass(frozen=True)
class Outcome:
    """One training. seconds: of the loop, and of filling the feature cache; losses: by step, or their mean.

    computed: computed tokens, padding included, over real tokens.
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
    """Sample rows of --data, and read --test if `scored`."""
    base = resolve_base(options.base)
    tokenizer = load_tokenizer(base.folder, LONGEST)

    def tokens(examples: Examples) -> Encoded:
        return encode(examples, tokenizer=tokenizer, clean=(), pad_id=base.dims.pad_id)

    source = load_source(DataConfig(source=str(options.data)))
    test = None
    if scored:
        test = tokens(read_examples(Path(options.test), DataConfig(), source.classes)[0])
    return Task(base, tokens(draw(source.train, rows)), len(source.train.classes), test)


def draw(examples: Examples, rows: int) -> Examples:
    """Return a fixed random sample of `rows` rows, or all if there are fewer."""
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
    """Train with loralab. top: adapt only the highest layers; cache: `disk` keeps the hidden states below them in `folder`."""
    layers = None if top is None else f"top{top}"
    model = build_model(
        task.base,
        task.classes,
        ModelConfig(pooling="cls", head="default", dropout=0.1),
        tuning="lora",
        lora=LoraConfig(rank=RANK, alpha=ALPHA, dropout=DROPOUT, targets=TARGETS, layers=layers),
        init_seed=seed,
        dropout_seed=seed,
    )
    where = device.move_to_device(model, "auto")
    config = TrainConfig(epochs=epochs, batch_size=BATCH, learning_rate=RATE)
    with _counted_tokens(padded=not where.kernels) as computed:
        began = time.perf_counter()
        plan = prefix_cache.plan(model, [task.rows], place=cache, limit=1e12, epochs=epochs, folder=folder, identity=str(where))
        losses = fit_losses(model, plan.add_hidden_states(model, task.rows), config, seed)
        seconds = time.perf_counter() - began
    padding = sum(computed) / (epochs * int(task.rows.lengths.sum()))
    accuracy = None
    if task.test is not None:
        accuracy = float((logits_of(model, task.test).argmax(axis=1) == task.test.labels).mean())
    return Outcome(seconds, epochs * len(task.rows), losses, padding, accuracy)


def fit_losses(model: ClassifierModel, rows: Encoded, config: TrainConfig, seed: int = 0) -> list[float]:
    """Train without validation rows, and return the loss of every step."""
    losses: list[float] = []

    def record(event: Event) -> None:
        if isinstance(event, StepEnd):
            losses.append(event.loss)

    objective = Objective(Loss(), lambda logits, labels: {})
    data = TrainingData(rows, shuffle_seed=seed)
    Trainer(model, build_optimizer(model, config), data, objective, config, Callbacks([record])).fit()
    return losses


def theirs(task: Task, *, tuned: bool, epochs: int = 1, steps: int = -1, seed: int = 0) -> Outcome:
    """Train with HF Trainer + peft. steps: stop after this number, if that is enough to measure the rate."""
    import transformers
    from transformers import PrinterCallback, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        began = ended = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.ended = time.perf_counter()

    torch.manual_seed(seed)
    model = peft_model(task, tuned=tuned)
    computed = _count_tokens(model)
    items = [{"input_ids": tokens, "labels": int(label)} for tokens, label in zip(*_lists(task.rows), strict=True)]

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        inputs = _pad([item["input_ids"] for item in batch], task.rows.pad_id, None if tuned else LONGEST)
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
            bf16=tuned,
            train_sampling_strategy="group_by_length" if tuned else "random",
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
    accuracy = _their_accuracy(model, task.test, tuned) if task.test is not None else None
    return Outcome(clock.ended - clock.began, samples, [result.training_loss], padding, accuracy)


def peft_model(task: Task, *, tuned: bool, dropout: float = DROPOUT) -> Any:
    """Return Transformers' classifier with peft's adapters."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(task.base.folder, num_labels=task.classes)
    if tuned:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        config.classifier_dropout = dropout
    eager = tuned and not torch.cuda.is_available()  # on a CPU the fused kernel is slower at news length
    attention = {"attn_implementation": "eager"} if eager else {}
    model = AutoModelForSequenceClassification.from_pretrained(task.base.folder, config=config, **attention)
    lora = LoraConfig(task_type="SEQ_CLS", r=RANK, lora_alpha=ALPHA, lora_dropout=dropout, target_modules=[*TARGETS])
    return get_peft_model(model, lora)


def difference_of_losses(task: Task) -> float:
    """Return the largest difference of a step's loss between loralab and a plain loop over Transformers + peft in bf16.

    Both start from the same weights and take the same steps over the same rows, without dropout. They differ by rounding: 0.001 on
    minilm, and 0.027 with an adapter's scale wrong by a tenth. `BF16_NOISE` is in between.
    """
    some = _first(task.rows, CHECKED_ROWS)
    torch.manual_seed(0)
    model = peft_model(task, tuned=True, dropout=0.0).to(device.choose_device())
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        ours, _ = load_bundle(Path(folder), str(task.base.folder))
    for module in ours.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
    device.move_to_device(ours, "auto")
    config = TrainConfig(
        epochs=CHECKED_STEPS, batch_size=len(some), learning_rate=CHECKED_RATE, schedule="constant", warmup=0, weight_decay=0
    )
    losses = fit_losses(ours, some, config)

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
    return max(abs(a - b) for a, b in zip(losses, expected, strict=True))


def floor_flops(
    dims: Dimensions, tokens: float, *, top: int | None = None, epochs: int = 1, cache: str = "off", pooling: str = "cls"
) -> float:
    """Return the least matrix FLOPs of one training sample per epoch: forward, and backward for activations.

    top: number of adapted layers, from the highest; cache: off, built (the layers below are computed in one epoch) or found.
    A layer of width d takes 24 d² s + 4 d s² forward for s tokens, and 24 d² s + 8 d s² backward, without the gradient of its
    input in the lowest adapted layer. With `cls` pooling the highest layer computes one token.
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
    """Return the FLOP/s of matrix products in the precision that loralab chooses on this machine."""
    where = device.choose_device()
    return measure.gemm_rate(device.choose_precision("auto", where), where)


def trained_run(options: argparse.Namespace, folder: Path, rows: int) -> Path:
    """Train a small run with the architecture's own head, so that Transformers can load its merged export.

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
    """Return columns of a report: the mean loss over all steps, and the padding factor."""
    return {
        "loss": {way: statistics.mean(statistics.mean(o.losses) for o in rounds) for way, rounds in outcomes.items()},
        "padding": {way: statistics.mean(o.computed for o in rounds) for way, rounds in outcomes.items()},
    }


@contextmanager
def _counted_tokens(*, padded: bool) -> Iterator[list[int]]:
    """Count the tokens of every micro-batch that the trainer collates. padded: count padding too."""
    counts: list[int] = []
    collate = batches.collate

    def counted(rows: Encoded, positions: Ints) -> ModelInputs:
        batch = collate(rows, positions)
        counts.append(batch.mask.size if padded else int(batch.mask.sum()))
        return batch

    with mock.patch.object(trainer, "collate", counted):
        yield counts


def _count_tokens(model: nn.Module) -> Callable[[], int]:
    """Count the tokens of every forward pass of a Transformers model, with padding. Return a function that returns their sum."""
    counts: list[int] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        counts.append(kwargs["input_ids"].numel())

    handle = model.register_forward_pre_hook(record, with_kwargs=True)

    def count() -> int:
        handle.remove()
        return sum(counts)

    return count


def _lists(rows: Encoded) -> tuple[list[list[int]], list[int]]:
    """Return tokens and label of every row."""
    assert rows.labels is not None
    return [rows.tokens[rows.starts[i] : rows.starts[i + 1]].tolist() for i in range(len(rows))], rows.labels.tolist()


def _first(rows: Encoded, count: int) -> Encoded:
    assert rows.labels is not None
    starts = rows.starts[: count + 1]
    return Encoded(rows.tokens[: starts[-1]], starts, rows.labels[:count], rows.pad_id)


def _pad(texts: list[list[int]], pad_id: int, width: int | None = None) -> dict[str, torch.Tensor]:
    """Pad texts to `width`, or to the longest."""
    width = width or max(map(len, texts))
    tokens = torch.full((len(texts), width), pad_id)
    mask = torch.zeros(len(texts), width, dtype=torch.long)
    for i, text in enumerate(texts):
        tokens[i, : len(text)] = torch.tensor(text)
        mask[i, : len(text)] = 1
    return {"input_ids": tokens, "attention_mask": mask}


def _their_accuracy(model: Any, test: Encoded, tuned: bool) -> float:
    tokens, labels = _lists(test)
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    right = 0
    model.eval()
    with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=tuned):
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            inputs = {name: part.to(model.device) for name, part in _pad([tokens[i] for i in rows], test.pad_id).items()}
            predicted = model(**inputs).logits.argmax(dim=-1).tolist()
            right += sum(labels[i] == label for i, label in zip(rows, predicted, strict=True))
    return right / len(labels)
