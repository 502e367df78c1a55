"""What the tests of the engine share: a tiny network, tokenized rows, and a `fit` with every argument filled in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CLASSES, topics

from loralab import metrics
from loralab.data.tokenize import encode, load_tokenizer
from loralab.data.types import Encoded, Examples
from loralab.model.build import Lora, build_network
from loralab.model.checkpoints import resolve_base
from loralab.model.encoder import EncoderClassifier
from loralab.training.callbacks import EarlyStopping, EvalEnd, Event, Listener, StepEnd
from loralab.training.checkpoint import Checkpoint
from loralab.training.distributed import ALONE, Distributed
from loralab.training.loss import Loss
from loralab.training.trainer import FitResult, Optimisation, Trainer

ALL_SCORES = partial(metrics.scores, classes=CLASSES)


def network(
    folder: Path,
    *,
    tuning: str = "lora",
    dropout: float = 0.0,
    seed: int = 0,
    head: str = "default",
    freeze: str | None = None,
    **lora: Any,
) -> EncoderClassifier:
    """A network on a tiny checkpoint; `dropout` is both the head's and the adapters'."""
    return build_network(
        resolve_base(str(folder)),
        len(CLASSES),
        pooling="cls",
        head=head,
        dropout=dropout,
        tuning=tuning,
        lora=Lora(**{"rank": 4, "alpha": 8.0, "dropout": dropout, **lora}),
        freeze=freeze,
        init_seed=seed,
        dropout_seed=seed + 1,
    )


def rows(folder: Path, per_class: int = 10, seed: int = 0) -> Encoded:
    """Tokenized texts of four classes, `per_class` of each."""
    found = topics(per_class, seed)
    labels = np.array([CLASSES.index(name) for _, name in found], dtype=np.int64)
    examples = Examples([text for text, _ in found], labels, np.arange(len(found)), CLASSES)
    return encode(examples, tokenizer=load_tokenizer(folder, 64), clean=(), pad_id=resolve_base(str(folder)).dims.pad_id)


def train(
    net: torch.nn.Module,
    data: Encoded,
    validation: Encoded | None = None,
    *,
    loss: Loss | None = None,
    score: Any = ALL_SCORES,
    watch: EarlyStopping | None = None,
    seed: int = 0,
    listeners: Sequence[Listener] = (),
    resume: Checkpoint | None = None,
    keep: Callable[[Checkpoint], None] = lambda checkpoint: None,
    world: Distributed = ALONE,
    **settings: Any,
) -> FitResult:
    try:
        return Trainer(
            net,
            data,
            validation,
            loss=loss or Loss(),
            score=score,
            watch=watch or EarlyStopping("loss"),
            seed=seed,
            optimisation=Optimisation(**{"batch_size": 8, "epochs": 2.0, "learning_rate": 5e-3, **settings}),
            listeners=listeners,
            resume=resume,
            keep=keep,
            world=world,
        ).run()
    except KeyboardInterrupt:  # pytest would end the whole session
        pytest.fail("an interruption escaped from the engine")


def trained(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of what requires a gradient."""
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters() if parameter.requires_grad}


def weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of everything."""
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    """Equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def changed(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@dataclass
class Recorder:
    """A listener that keeps every event, and the weights of `net` at every evaluation."""

    net: torch.nn.Module | None = None
    events: list[Event] = field(default_factory=list)
    snapshots: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if self.net is not None and isinstance(event, EvalEnd):
            self.snapshots[event.step] = trained(self.net)

    @property
    def steps(self) -> list[StepEnd]:
        return [event for event in self.events if isinstance(event, StepEnd)]

    @property
    def evaluations(self) -> list[EvalEnd]:
        return [event for event in self.events if isinstance(event, EvalEnd)]


def script(*losses: float) -> Any:
    """A score function that answers with these losses, one an evaluation, whatever the logits are."""
    left: Iterator[float] = iter(losses)
    return lambda logits, labels: {"loss": next(left)}
