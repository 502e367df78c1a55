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

from loralab.data.batches import collate, make_microbatches, partition_by_length, training_steps
from loralab.data.types import Encoded, Ints
from loralab.errors import LoralabError, RunFailed
from loralab.model.dropout import mask_stream
from loralab.training import parallel
from loralab.training.callbacks import Allocating, EarlyStopping, EvalEnd, Event, Listener, StepEnd
from loralab.training.checkpoint import Checkpoint, pack, unpack
from loralab.training.distributed import ALONE, Distributed
from loralab.training.loss import Loss
from loralab.training.schedule import count_steps, multiplier, warmup_steps
from loralab.training.scoring import logits_among, run_batch

SMALL = 1 << 20
"""Trained parameters for which no second thread is woken: one steps over 1 M in 0.8 ms, two in 0.6 (docs/log.md)."""

Score = Callable[[npt.NDArray[np.float32], Ints], Mapping[str, float]]


@dataclass(frozen=True)
class Optimisation:
    """How to train: the settings of the same names (see `loralab.config.loading.TrainConfig`); B learns at `loraplus_lr_ratio` times A's rate."""

    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 16
    max_tokens_per_microbatch: int = 8192
    learning_rate: float = 1e-3
    head_learning_rate: float | None = None
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup: float = 0.06
    eval_steps: int | None = None
    max_grad_norm: float = 1.0
    loraplus_lr_ratio: float = 1.0

    @classmethod
    def names(cls) -> set[str]:
        """The names of these settings."""
        return {field.name for field in fields(cls)}


@dataclass(frozen=True)
class FitResult:
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


@dataclass(frozen=True)
class MicroBatch:
    """What one pass takes of a step: its number in it, the examples, and the mass of the whole step's labels."""

    number: int
    positions: Ints
    normalizer: Tensor


Gradients = tuple[float, Sequence[Tensor | None]]
"""A part's share of the step's loss, and the gradients of all that is trained."""


class Trainer:
    """Train what requires a gradient, keep the best weights by `watch`, and stop early when it says so.

    Batches are drawn from `seed` alone; on a CPU, equal arguments give equal weights, bit for bit. `keep` receives the state
    after every evaluation, and `resume` continues from such a state as if training had never stopped. Ctrl-C ends training
    with the best weights so far. Raises RunFailed when the loss is no longer finite.

    With a `world` of several processes all call this with equal arguments, each takes its share of every step, and all reach
    the same weights; `listeners` and `keep` are called in the main process only.
    """

    def __init__(
        self,
        network: nn.Module,
        train: Encoded,
        validation: Encoded | None,
        loss: Loss,
        score: Score,
        watch: EarlyStopping,
        seed: int,
        optimisation: Optimisation,
        listeners: Sequence[Listener] = (),
        resume: Checkpoint | None = None,
        keep: Callable[[Checkpoint], None] = lambda checkpoint: None,
        world: Distributed = ALONE,
    ) -> None:
        self.network, self.train, self.validation = network, train, validation
        self.score, self.watch, self.listeners, self.keep = score, watch, listeners, keep
        self.settings, self.world = optimisation, world
        self.random = np.random.default_rng(seed)
        self.device = next(network.parameters()).device
        self.loss = loss.to(self.device)
        self.trained = [p for p in network.parameters() if p.requires_grad]
        self.small = sum(p.numel() for p in self.trained) < SMALL
        self.allocation: Allocating | None = getattr(network, "allocation", None)
        self.optimizer = _optimizer(network, optimisation)
        half = getattr(network, "compute_dtype", None) == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)  # fp16 alone needs its gradients scaled
        self.base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.steps_per_epoch = math.ceil(len(train) / optimisation.batch_size)
        self.total = count_steps(len(train), optimisation.batch_size, optimisation.epochs, optimisation.max_steps)
        self.warmup = warmup_steps(optimisation.warmup, self.total)
        self.step = self.samples = self.best_step = 0
        self.scores: Mapping[str, float] = {}
        self.best: list[Tensor] | None = None
        self.began = time.perf_counter()
        self.evaluation_seconds = 0.0
        world.broadcast(self.trained)
        if resume is not None:
            self.restore(resume)

    def run(self) -> FitResult:
        try:
            for positions in self.steps():
                parts, hands = self.make_microbatches(positions)
                self.optimizer_step(positions, parallel.parallel_map(self.gradients, parts, hands))
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

    def end(self, interrupted: bool = False) -> FitResult:
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
        return FitResult(self.step, self.best_step, self.scores, self.samples, seconds, stopped, interrupted)

    def _all_steps(self) -> Iterator[Ints]:
        """The examples of every step, epoch after epoch, to the last step."""
        number = 0
        while number < self.total:
            for positions in training_steps(self.train.lengths, self.settings.batch_size, self.random)[: self.total - number]:
                number += 1
                if number > self.step:  # a resumed run draws the steps it has taken again, and passes over them
                    yield positions

    def make_microbatches(self, positions: Ints) -> tuple[list[MicroBatch], int]:
        """Return this process's passes of a step, and how many of them may run at once."""
        mass = self.loss.normalizer(self.labels(positions))
        mine = self.world.share(positions, self.train.lengths)
        hands = parallel.num_workers(self.network, len(mine))
        passes = (
            part
            for hand in partition_by_length(mine, self.train.lengths, hands)
            for part in make_microbatches(hand, self.train.lengths, self.settings.max_tokens_per_microbatch)
        )
        return [MicroBatch(number, part, mass) for number, part in enumerate(passes)], hands

    def gradients(self, part: MicroBatch) -> Gradients:
        """Return the loss of one micro-batch and the gradients of what is trained."""
        batch = collate(self.train, part.positions)
        with mask_stream(self.step, self.world.rank, part.number):
            loss = self.loss(run_batch(self.network, batch, self.device), self.labels(part.positions)) / part.normalizer
            gradients = torch.autograd.grad(self.scaler.scale(loss), self.trained, allow_unused=True)
        return float(loss.detach()), gradients

    def labels(self, positions: Ints) -> Tensor:
        """The labels of training rows, where the network computes."""
        assert self.train.labels is not None
        return torch.from_numpy(self.train.labels[positions]).to(self.device)

    def optimizer_step(self, positions: Ints, passes: Iterable[Gradients]) -> None:
        """One optimiser step from what its passes found: other processes' passes, clipping, AdamW."""
        rate = multiplier(self.step, self.total, self.warmup, self.settings.schedule)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * rate
        total = 0.0
        for loss, gradients in passes:
            self._add(gradients)
            total += loss
        total = self.world.all_reduce(total, self.trained)
        if not math.isfinite(total):
            raise RunFailed(f"the loss is {total} at step {self.step + 1}: lower train.learning_rate, or use train.precision=fp32")
        if self.allocation is not None:
            self.scaler.scale(self.allocation.penalty()).backward()  # type: ignore[no-untyped-call]
        with parallel.one_thread(when=self.small):
            norm = self._optimise()
        if self.allocation is not None:
            self.allocation.after_step(self.step + 1, self.total)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.samples += len(positions)
        self._tell(
            StepEnd(self.step, self.total, self._epoch(), total, self.base_rates[0] * rate, norm, self.samples, self._seconds())
        )

    def _optimise(self) -> float:
        """Clip and let AdamW step; return the gradient's norm before."""
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained, self.settings.max_grad_norm, foreach=True))
        if not math.isfinite(norm) and not (self.scaler.is_enabled() and self.scaler.get_scale() > 1):
            raise RunFailed(f"the gradient is {norm} at step {self.step + 1}: lower train.learning_rate")
        self.scaler.step(self.optimizer)  # in fp16 a step whose gradient overflowed is left out, and the next one scaled by half
        return norm

    def _add(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def _evaluation_due(self) -> bool:
        every = self.settings.eval_steps or self.steps_per_epoch
        return self.step % every == 0 or self.step == self.total

    def _evaluate(self) -> None:
        """Score the validation rows and keep the weights when they are the best so far."""
        if self.validation is None or self.validation.labels is None:
            return
        began = time.perf_counter()
        logits = logits_among(self.world, self.network, self.validation)
        scores = self.world.run_on_main(self.score, logits, self.validation.labels)
        improved = self.watch.improved(scores)
        if improved:
            self.best = [parameter.detach().clone() for parameter in self.trained]
            self.best_step, self.scores = self.step, scores
        self.evaluation_seconds += time.perf_counter() - began
        self._tell(EvalEnd(self.step, self._epoch(), scores, improved, self._seconds(), memory_in_use(self.device)))
        if self.step and self.world.is_main:
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
        for listener in self.listeners if self.world.is_main else ():
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
            plus = settings.loraplus_lr_ratio if ".adapters." in name and name.endswith(".b") else 1.0
            rate = head_rate if name.startswith("head.") else settings.learning_rate * plus
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: item[0][0] != settings.learning_rate)  # the first group's rate is reported
    return torch.optim.AdamW(
        [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in ordered], fused=True
    )
