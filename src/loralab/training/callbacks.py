"""Training events, callbacks and early stopping."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class StepEnd:
    """One optimizer step.

    loss: training loss of the step; learning_rate: of the adapters; gradient_norm: before clipping; samples: trained so far;
    seconds: since the start of training; gpu_mb: peak GPU memory of this process in MB of 10⁶ bytes, None on other devices.
    """

    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    samples: int
    seconds: float
    gpu_mb: float | None = None


@dataclass(frozen=True)
class EvalEnd:
    """One evaluation on the validation rows.

    improved: the weights are the best so far by `train.monitor`.
    memory: process_mb and gpu_mb (None without a GPU) of the main process; `process_mb:1`, `gpu_mb:1`, ... of the others.
    temperature: fitted on the validation rows.
    """

    step: int
    epoch: float
    scores: Mapping[str, float]
    improved: bool
    seconds: float
    memory: Mapping[str, float | None] = field(default_factory=dict)
    temperature: float | None = None


@dataclass(frozen=True)
class CacheProgress:
    """The feature cache has the hidden states of `done` of `tokens` tokens. Sent before the first step."""

    done: int
    tokens: int


Event = StepEnd | EvalEnd | CacheProgress
Listener = Callable[[Event], object]
"""Receives every event. Returning True after a step or an evaluation stops training."""


class Callback:
    """Hooks of a run from Python: override those that you need.

    `on_step_end` and `on_evaluate` stop training by returning True: the run is then complete, with the best weights so far.
    """

    def on_step_end(self, event: StepEnd) -> bool | None:
        """Run after every optimizer step."""

    def on_evaluate(self, event: EvalEnd) -> bool | None:
        """Run after every evaluation on the validation rows."""

    def on_train_end(self, folder: Path) -> None:
        """Run once the run in `folder` is complete."""


def listener_of(callback: Callback) -> Listener:
    """Return a listener that calls a callback's hooks; an object needs only the hooks that it has."""

    def listen(event: Event) -> object:
        name = "on_step_end" if isinstance(event, StepEnd) else "on_evaluate" if isinstance(event, EvalEnd) else ""
        hook = getattr(callback, name, None) if name else None
        return None if hook is None else hook(event)

    return listen


LOWER_IS_BETTER = ("loss", "ece", "brier")
"""The scores of `loralab.metrics` that are errors."""


@dataclass
class EarlyStopping:
    """Track the best value of one score. Lower is better for loss, ece and brier, higher for every other score."""

    monitor: str
    patience: int | None = None
    min_delta: float = 0.0
    best: float | None = field(default=None, init=False)
    waited: int = field(default=0, init=False)

    def improved(self, scores: Mapping[str, float]) -> bool:
        """Record an evaluation. Return True if it exceeds the best by more than `min_delta`."""
        score = scores[self.monitor] * (-1 if self.monitor in LOWER_IS_BETTER else 1)
        if not math.isnan(score) and (self.best is None or score > self.best + self.min_delta):
            self.best, self.waited = score, 0
            return True
        self.waited += 1
        return False

    @property
    def exhausted(self) -> bool:
        """True after `patience` evaluations in a row without improvement."""
        return self.patience is not None and self.waited >= self.patience

    def state(self) -> dict[str, float | int | None]:
        """Return the state for a checkpoint."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, best: float | None, waited: int) -> None:
        """Set the state from a checkpoint."""
        self.best, self.waited = best, waited
