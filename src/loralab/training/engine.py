"""The only training loop. The network, the rows and the settings arrive as arguments; events go out to listeners."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor, nn

from loralab.data.batches import cut_into_passes, deal, training_steps
from loralab.data.values import Encoded, Ints
from loralab.errors import LoralabError, RunFailed
from loralab.model.dropout import Turn, turn
from loralab.training import side_by_side
from loralab.training.callbacks import Allocating, EvalDone, Event, Listener, StepDone, Watch
from loralab.training.checkpoint import Checkpoint, pack, unpack
from loralab.training.loss import Loss
from loralab.training.replay import Replay, cuda_graphs
from loralab.training.resident import Rows
from loralab.training.schedule import count_steps, multiplier, warmup_steps
from loralab.training.scoring import forward, logits_among
from loralab.training.together import ALONE, World

SMALL = 1 << 20
"""Trained parameters for which no second thread is woken: one steps over 1 M in 0.8 ms, two in 0.6 (docs/log.md)."""

Score = Callable[[npt.NDArray[np.float32], Ints], Mapping[str, float]]


@dataclass(frozen=True)
class Optimisation:
    """How to train: the settings of the same names (see `loralab.config.TrainConfig`); B learns at `plus_ratio` times A's rate."""

    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 16
    tokens_per_pass: int = 8192
    learning_rate: float = 1e-3
    head_learning_rate: float | None = None
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup: float = 0.06
    eval_every: int | None = None
    clip_norm: float = 1.0
    plus_ratio: float = 1.0
    cuda_graphs: bool = True

    @classmethod
    def names(cls) -> set[str]:
        """The names of these settings."""
        return {field.name for field in fields(cls)}


@dataclass(frozen=True)
class Fit:
    """What training came to. The network holds the weights of `best_step`, or the last ones where nothing was evaluated."""

    steps: int
    best_step: int
    scores: Mapping[str, float]
    samples: int
    train_seconds: float
    stopped_early: bool
    interrupted: bool

    @property
    def samples_per_second(self) -> float:
        """Training throughput, evaluations not counted."""
        return self.samples / self.train_seconds if self.train_seconds else 0.0


def fit(
    network: nn.Module,
    train: Encoded,
    validation: Encoded | None,
    *,
    loss: Loss,
    score: Score,
    watch: Watch,
    seed: int,
    optimisation: Optimisation,
    listeners: Sequence[Listener] = (),
    resume: Checkpoint | None = None,
    keep: Callable[[Checkpoint], None] = lambda checkpoint: None,
    world: World = ALONE,
) -> Fit:
    """Train what requires a gradient, keep the best weights by `watch`, and stop early when it says so.

    Batches are drawn from `seed` alone; on a CPU, equal arguments give equal weights, bit for bit. `keep` is given the state
    after every evaluation, and `resume` goes on from such a state as if training had never stopped. Ctrl-C ends training
    with the best weights so far. Raises RunFailed when the loss is no longer finite.

    With a `world` of several processes all call this with equal arguments, each takes its share of every step, and all come to
    the same weights; `listeners` and `keep` are called in the first one alone.
    """
    return Loop(network, train, validation, loss, score, watch, seed, optimisation, listeners, resume, keep, world).run()


@dataclass(frozen=True)
class Part:
    """What one pass takes of a step: its number in it, the examples, and the mass of the whole step's labels."""

    number: int
    positions: Ints
    mass: Tensor


Found = tuple[float, Sequence[Tensor | None]]
"""A part's share of the step's loss, and the gradients of all that is trained."""


class Loop:
    """The state of one training run; arguments as in `fit`. `run` goes through it alone, `training.stacked` through several."""

    def __init__(
        self,
        network: nn.Module,
        train: Encoded,
        validation: Encoded | None,
        loss: Loss,
        score: Score,
        watch: Watch,
        seed: int,
        optimisation: Optimisation,
        listeners: Sequence[Listener] = (),
        resume: Checkpoint | None = None,
        keep: Callable[[Checkpoint], None] = lambda checkpoint: None,
        world: World = ALONE,
    ) -> None:
        self.network, self.train, self.validation = network, train, validation
        self.score, self.watch, self.listeners, self.keep = score, watch, listeners, keep
        self.settings, self.world = optimisation, world
        self.random = np.random.default_rng(seed)
        self.device = next(network.parameters()).device
        self.rows = Rows(train, self.device)
        self.loss = loss.to(self.device)
        self.trained = [p for p in network.parameters() if p.requires_grad]
        self.small = sum(p.numel() for p in self.trained) < SMALL
        self.allocation: Allocating | None = getattr(network, "allocation", None)
        self.optimizer = _optimizer(network, optimisation)
        half = getattr(network, "compute_dtype", None) == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)  # fp16 alone needs its gradients scaled
        self.replay = Replay(cuda_graphs() if self._can_be_recorded() else None)
        self.base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.steps_per_epoch = math.ceil(len(train) / optimisation.batch_size)
        self.total = count_steps(len(train), optimisation.batch_size, optimisation.epochs, optimisation.max_steps)
        self.warmup = warmup_steps(optimisation.warmup, self.total)
        self.step = self.samples = self.best_step = 0
        self.scores: Mapping[str, float] = {}
        self.best: list[Tensor] | None = None
        self.began = time.perf_counter()
        self.evaluation_seconds = 0.0
        world.copy(self.trained)
        if resume is not None:
            self.restore(resume)

    def _can_be_recorded(self) -> bool:
        """Our own network on a GPU, in a precision whose steps all have the same operations, where it is wanted."""
        ours = hasattr(self.network, "texts_at_least") and not getattr(self.network, "gradient_checkpointing", False)
        return self.settings.cuda_graphs and self.device.type == "cuda" and ours and not self.scaler.is_enabled()

    def run(self) -> Fit:
        try:
            for positions in self.steps():
                parts, hands = self.divide(positions)
                self.take(positions, side_by_side.each(self.gradients, parts, hands))
        except KeyboardInterrupt:
            return self.end(interrupted=True)
        return self.end()

    def steps(self) -> Iterator[Ints]:
        """The examples of every step to be taken; what is due after a step is done before the next one is asked for."""
        self.network.train()
        for positions in self._all_steps():
            if self.watch.exhausted:
                return
            yield positions
            if self._evaluation_due():
                self._evaluate()
        if self.total == 0:
            self._evaluate()

    def end(self, interrupted: bool = False) -> Fit:
        """Give the network its best weights, and tell what training came to."""
        seconds = time.perf_counter() - self.began - self.evaluation_seconds
        if self.best is not None:
            with torch.no_grad():
                for parameter, kept in zip(self.trained, self.best, strict=True):
                    parameter.copy_(kept)
        else:
            self.best_step = self.step
        self.network.eval()
        stopped = not interrupted and self.step < self.total
        return Fit(self.step, self.best_step, self.scores, self.samples, seconds, stopped, interrupted)

    def _all_steps(self) -> Iterator[Ints]:
        """The examples of every step, epoch after epoch, to the last step."""
        number = 0
        while number < self.total:
            for positions in training_steps(self.train.lengths, self.settings.batch_size, self.random)[: self.total - number]:
                number += 1
                if number > self.step:  # a resumed run draws the steps it has taken again, and passes over them
                    yield positions

    def divide(self, positions: Ints) -> tuple[list[Part], int]:
        """Return this process's passes of a step, and how many of them may run at once."""
        mass = self.loss.mass(self.labels(positions))
        mine = self.world.share(positions, self.train.lengths)
        hands = side_by_side.hands(self.network, len(mine))
        passes = (
            part
            for hand in deal(mine, self.train.lengths, hands)
            for part in cut_into_passes(hand, self.train.lengths, self.settings.tokens_per_pass)
        )
        return [Part(number, part, mass) for number, part in enumerate(passes)], hands

    def gradients(self, part: Part) -> Found:
        """What one pass finds."""
        loss, *found = self.replay(self._pass, [self.turn(part)], self.inputs(part))
        assert loss is not None
        return float(loss), found

    def inputs(self, part: Part, width: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a pass computes with: its texts, padded (to `width`), their mask, their labels, and the step's mass."""
        return *self.rows.at(part.positions, width), self.labels(part.positions), part.mass

    def _pass(self, turns: Sequence[Turn], inputs: Sequence[Tensor]) -> list[Tensor | None]:
        """The loss and the gradients of one pass, of tensors alone, so that it can be recorded."""
        texts, mask, labels, mass = inputs
        with turns[0]:
            loss = self.loss(forward(self.network, texts, mask, self.train.start), labels) / mass
            found = torch.autograd.grad(self.scaler.scale(loss), self.trained, allow_unused=True)
        return [loss.detach(), *found]

    def turn(self, part: Part) -> Turn:
        """Where the dropout masks of a pass come from: those of its texts as wide as they are alone, however they come padded."""
        return turn(self.step, self.world.rank, part.number, time=self.rows.width(part.positions))

    def labels(self, positions: Ints) -> Tensor:
        """The labels of training rows, where the network computes."""
        assert self.train.labels is not None
        return torch.from_numpy(self.train.labels[positions]).to(self.device)

    def take(self, positions: Ints, passes: Iterable[Found]) -> None:
        """One optimiser step from what its passes found: other processes' passes, clipping, AdamW."""
        rate = multiplier(self.step, self.total, self.warmup, self.settings.schedule)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * rate
        total = 0.0
        for loss, gradients in passes:
            self._add(gradients)
            total += loss
        total = self.world.add_up(total, self.trained)
        if not math.isfinite(total):
            raise RunFailed(f"the loss is {total} at step {self.step + 1}: lower train.learning_rate, or use train.precision=fp32")
        if self.allocation is not None:
            self.scaler.scale(self.allocation.penalty()).backward()  # type: ignore[no-untyped-call]
        with side_by_side.one_thread(when=self.small):
            norm = self._optimise()
        if self.allocation is not None:
            self.allocation.after_step(self.step + 1, self.total)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.samples += len(positions)
        self._tell(
            StepDone(self.step, self.total, self._epoch(), total, self.base_rates[0] * rate, norm, self.samples, self._seconds())
        )

    def _optimise(self) -> float:
        """Clip and let AdamW step; return the gradient's norm before."""
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained, self.settings.clip_norm, foreach=True))
        if not math.isfinite(norm) and not (self.scaler.is_enabled() and self.scaler.get_scale() > 1):
            raise RunFailed(f"the gradient is {norm} at step {self.step + 1}: lower train.learning_rate")
        self.scaler.step(self.optimizer)  # in fp16 a step whose gradient overflowed is left out, and the next one scaled by half
        return norm

    def _add(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def _evaluation_due(self) -> bool:
        every = self.settings.eval_every or self.steps_per_epoch
        return self.step % every == 0 or self.step == self.total

    def _evaluate(self) -> None:
        """Score the validation rows and keep the weights when they are the best so far."""
        if self.validation is None or self.validation.labels is None:
            return
        began = time.perf_counter()
        logits = logits_among(self.world, self.network, self.validation)
        scores = self.world.once(self.score, logits, self.validation.labels)
        improved = self.watch.improved(scores)
        if improved:
            self.best = [parameter.detach().clone() for parameter in self.trained]
            self.best_step, self.scores = self.step, scores
        self.evaluation_seconds += time.perf_counter() - began
        self._tell(EvalDone(self.step, self._epoch(), scores, improved, self._seconds(), memory_in_use(self.device)))
        if self.step and self.world.first:
            self.keep(self.checkpoint())

    def checkpoint(self) -> Checkpoint:
        """The state after the present step. Rows and dropout masks are drawn anew for each step, so they need none."""
        tensors = pack(self.optimizer, self.trained, self.best)
        if self.allocation is not None:
            tensors |= {f"allocation/{name}": tensor.cpu() for name, tensor in self.allocation.state().items()}
        names = ("step", "samples", "best_step", "scores", "evaluation_seconds")
        values = {name: getattr(self, name) for name in names}
        return Checkpoint(
            tensors, {**values, "watch": self.watch.state(), "scaler": self.scaler.state_dict(), "seconds": self._seconds()}
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a state. Raises LoralabError when it is not of this network."""
        values, tensors = checkpoint.values, dict(checkpoint.tensors)
        try:
            allocation = {name: tensors.pop(name) for name in list(tensors) if name.startswith("allocation/")}
            if self.allocation is not None:
                self.allocation.restore({name.partition("/")[2]: tensor for name, tensor in allocation.items()})
            self.best = unpack(tensors, self.optimizer, self.trained)
            self.step, self.samples, self.best_step = values["step"], values["samples"], values["best_step"]
            self.scores, self.evaluation_seconds = values["scores"], values["evaluation_seconds"]
            self.watch.restore(**values["watch"])
            self.scaler.load_state_dict(values["scaler"])
            self.began -= values["seconds"]
        except (KeyError, TypeError, RuntimeError) as error:
            raise LoralabError(f"the checkpoint is not of this run ({error!r}): start again with --overwrite") from error

    def _epoch(self) -> float:
        return self.step / self.steps_per_epoch

    def _seconds(self) -> float:
        return time.perf_counter() - self.began

    def _tell(self, event: Event) -> None:
        for listener in self.listeners if self.world.first else ():
            listener(event)


def memory_in_use(device: torch.device) -> dict[str, float | None]:
    """What this process holds now and, at its highest, on the GPU: process_mb, gpu_mb (None without one), in MB of 10⁶ bytes."""
    gpu = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None
    return {"process_mb": psutil.Process().memory_info().rss / 1e6, "gpu_mb": gpu}


def _optimizer(network: nn.Module, settings: Optimisation) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019): the head with its own rate, LoRA+'s B with its own, no decay on biases and norms."""
    head_rate = settings.head_learning_rate or settings.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            plus = settings.plus_ratio if ".adapters." in name and name.endswith(".b") else 1.0
            rate = head_rate if name.startswith("head.") else settings.learning_rate * plus
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: item[0][0] != settings.learning_rate)  # the first group's rate is reported
    return torch.optim.AdamW(
        [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in ordered], fused=True
    )
