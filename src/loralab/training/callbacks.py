"""What the engine tells its listeners, and the rule that picks the best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StepEnd:
    """One optimiser step. `loss` is the training loss of this step; `seconds` have passed since training began."""

    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    samples: int
    seconds: float


@dataclass(frozen=True)
class EvalEnd:
    """One evaluation on the validation rows. `improved`: these are the best weights so far by `monitor`.

    memory: process_mb, and gpu_mb or None.
    """

    step: int
    epoch: float
    scores: Mapping[str, float]
    improved: bool
    seconds: float
    memory: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class CacheProgress:
    """The hidden states of `done` of `tokens` tokens are kept by now: work before the first step."""

    done: int
    tokens: int


Event = StepEnd | EvalEnd | CacheProgress
Listener = Callable[[Event], None]

LOWER_IS_BETTER = ("loss", "ece", "brier")
"""Of the scores in `loralab.metrics`."""


class Allocating(Protocol):
    """What AdaLoRA does to training: a network has it as `allocation`, or None there (`loralab.model.hf.peft_methods.Allocation`)."""

    def penalty(self) -> Tensor:
        """What is added to the loss of a step."""

    def after_step(self, step: int, steps: int) -> None:
        """Take and give ranks after step `step` of `steps`, while the gradients are still there."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""


@dataclass
class EarlyStopping:
    """Early stopping on one score: lower is better for loss, ece and brier, higher for every other."""

    monitor: str
    patience: int | None = None
    min_delta: float = 0.0
    best: float | None = field(default=None, init=False)
    waited: int = field(default=0, init=False)

    def improved(self, scores: Mapping[str, float]) -> bool:
        """Take note of an evaluation; True when it is better than the best by more than `min_delta`."""
        score = scores[self.monitor] * (-1 if self.monitor in LOWER_IS_BETTER else 1)
        if not math.isnan(score) and (self.best is None or score > self.best + self.min_delta):
            self.best, self.waited = score, 0
            return True
        self.waited += 1
        return False

    def state(self) -> dict[str, float | int | None]:
        """What a checkpoint keeps of it."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, best: float | None, waited: int) -> None:
        """Go on from a checkpoint."""
        self.best, self.waited = best, waited

    @property
    def exhausted(self) -> bool:
        """True when `patience` evaluations in a row were not better."""
        return self.patience is not None and self.waited >= self.patience
