"""Helpers of the training tests: a tiny model, tokenized rows, and `train` with a default for every argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from tiny import CLASSES, topics

from loralab import metrics
from loralab.config import LoraConfig, ModelConfig, TrainConfig
from loralab.data.tokenize import encode, load_tokenizer
from loralab.data.types import Encoded, Examples
from loralab.model.build import build_model
from loralab.model.checkpoints import resolve_base
from loralab.model.encoder import EncoderClassifier
from loralab.training.callbacks import EvalEnd, Event, Listener, StepEnd
from loralab.training.checkpoint import Checkpoint
from loralab.training.distributed import ALONE, Distributed
from loralab.training.loss import Loss
from loralab.training.optimizers import build_optimizer
from loralab.training.trainer import Callbacks, FitResult, Objective, Trainer, TrainingData

ALL_SCORES = partial(metrics.scores, classes=CLASSES)


def make_model(
    folder: Path,
    *,
    tuning: str = "lora",
    dropout: float = 0.0,
    seed: int = 0,
    head: Any = "default",
    freeze: str | None = None,
    **lora: Any,
) -> EncoderClassifier:
    """Return a model on a tiny checkpoint. dropout: of the head and the adapters."""
    model = build_model(
        resolve_base(str(folder)),
        len(CLASSES),
        ModelConfig(pooling="cls", head=head, dropout=dropout, freeze=freeze),
        tuning=tuning,
        lora=LoraConfig(**{"rank": 4, "alpha": 8.0, "dropout": dropout, **lora}),
        init_seed=seed,
        dropout_seed=seed + 1,
    )
    return cast(EncoderClassifier, model)


def rows(folder: Path, per_class: int = 10, seed: int = 0) -> Encoded:
    """Return tokenized texts of four classes, `per_class` of each."""
    pairs = topics(per_class, seed)
    labels = np.array([CLASSES.index(name) for _, name in pairs], dtype=np.int64)
    examples = Examples([text for text, _ in pairs], labels, np.arange(len(pairs)), CLASSES)
    return encode(examples, tokenizer=load_tokenizer(folder, 64), clean=(), pad_id=resolve_base(str(folder)).dims.pad_id)


def make_trainer(
    model: Any,
    data: Encoded,
    validation: Encoded | None = None,
    *,
    loss: Loss | None = None,
    score: Any = ALL_SCORES,
    seed: int = 0,
    listeners: Sequence[Listener] = (),
    save_checkpoint: Callable[[Checkpoint], None] = lambda checkpoint: None,
    distributed: Distributed = ALONE,
    loraplus_lr_ratio: float = 1.0,
    **settings: Any,
) -> Trainer:
    config = TrainConfig(**{"batch_size": 8, "epochs": 2.0, "learning_rate": 5e-3, **settings})
    return Trainer(
        model,
        build_optimizer(model, config, loraplus_lr_ratio),
        TrainingData(data, validation, seed),
        Objective(loss or Loss(), score),
        config,
        Callbacks(listeners, save_checkpoint),
        distributed,
    )


def train(
    model: Any, data: Encoded, validation: Encoded | None = None, *, resume: Checkpoint | None = None, **arguments: Any
) -> FitResult:
    trainer = make_trainer(model, data, validation, **arguments)
    if resume is not None:
        trainer.restore(resume)
    try:
        return trainer.fit()
    except KeyboardInterrupt:  # pytest would end the whole session
        pytest.fail("an interruption escaped from the trainer")


def trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of what requires a gradient."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad}


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of everything."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    """Equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def changed(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@dataclass
class Recorder:
    """A listener that records every event, and the weights of `model` at every evaluation."""

    model: torch.nn.Module | None = None
    events: list[Event] = field(default_factory=list)
    snapshots: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if self.model is not None and isinstance(event, EvalEnd):
            self.snapshots[event.step] = trained(self.model)

    @property
    def steps(self) -> list[StepEnd]:
        return [event for event in self.events if isinstance(event, StepEnd)]

    @property
    def evaluations(self) -> list[EvalEnd]:
        return [event for event in self.events if isinstance(event, EvalEnd)]


def script(*losses: float) -> Any:
    """Return a score function with a fixed loss for every evaluation."""
    left: Iterator[float] = iter(losses)
    return lambda logits, labels: {"loss": next(left)}
