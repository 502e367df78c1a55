"""The training loop. Model, optimizer, rows and settings are arguments; progress goes to the listeners as events."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from loralab import metrics
from loralab.config import TrainConfig
from loralab.data.batches import collate, epoch_batches, make_microbatches, partition_by_length
from loralab.data.types import Encoded, Ints
from loralab.errors import LoralabError, RunFailed
from loralab.model.dropout import mask_stream
from loralab.model.interface import ClassifierModel
from loralab.training import parallel
from loralab.training.callbacks import EarlyStopping, EvalEnd, Event, Listener, StepEnd
from loralab.training.checkpoint import Checkpoint, pack_training_state, unpack_training_state
from loralab.training.distributed import ALONE, Distributed
from loralab.training.loss import Loss
from loralab.training.process import memory_in_use, peak_gpu_mb, state_mb
from loralab.training.schedule import count_steps, multiplier, warmup_steps
from loralab.training.scoring import distributed_logits, run_batch

SINGLE_THREAD_PARAMETERS = 1 << 20
"""Below this number of trained parameters the optimizer uses one thread: for 1 M it takes 0.8 ms, on two 0.6 (docs/lab)."""

Score = Callable[[npt.NDArray[np.float32], Ints], Mapping[str, float]]
Gradients = tuple[float, Sequence[Tensor | None]]
"""A micro-batch's share of the batch's loss, and the gradients of the trained parameters."""


@dataclass(frozen=True)
class TrainingData:
    """Tokenized, labelled rows. shuffle_seed: decides the batches of every epoch."""

    train: Encoded
    validation: Encoded | None = None
    shuffle_seed: int = 0


@dataclass(frozen=True)
class Objective:
    """loss: minimized on the training rows. score(logits, labels): scores on the validation rows, of which one is monitored."""

    loss: Loss
    score: Score


@dataclass(frozen=True)
class Callbacks:
    """Called in the main process: listeners with every event, save_checkpoint with the state after every evaluation."""

    listeners: Sequence[Listener] = ()
    save_checkpoint: Callable[[Checkpoint], None] = lambda checkpoint: None


NO_CALLBACKS = Callbacks()


@dataclass(frozen=True)
class FitResult:
    """The outcome of training. The model has the weights of `best_step`, or the last ones if nothing was evaluated.

    scores, temperature: of the best evaluation. train_seconds: of the steps; evaluation_seconds: of evaluations and checkpoints,
    both also of the runs that this one resumes. step_seconds: the median step of this process, None without a step.
    gradient_mb, optimizer_mb: size of the gradients and of the optimizer's state in MB of 10⁶ bytes. stopped_early: before the last
    step, by `train.patience` or, stopped_by_callback, because a listener asked for it.
    """

    steps: int
    best_step: int
    scores: Mapping[str, float]
    temperature: float | None
    samples: int
    train_seconds: float
    evaluation_seconds: float
    step_seconds: float | None
    gradient_mb: float
    optimizer_mb: float
    stopped_early: bool
    interrupted: bool
    stopped_by_callback: bool = False

    @property
    def samples_per_second(self) -> float:
        """Training throughput without evaluations."""
        return self.samples / self.train_seconds if self.train_seconds else 0.0


@dataclass(frozen=True)
class MicroBatch:
    """What one forward and backward pass sees. number: its position in the batch; normalizer: of the whole batch's loss."""

    number: int
    positions: Ints
    normalizer: Tensor


class Trainer:
    """Train the parameters that require gradients, keep the best weights, and stop early.

    Equal arguments give equal weights, bit for bit on a CPU: batches depend on the data's seed alone, dropout on the model's.
    With several processes all call this with equal arguments. Each computes its share of every batch, and all reach the same
    weights.
    """

    def __init__(
        self,
        model: ClassifierModel,
        optimizer: torch.optim.Optimizer,
        data: TrainingData,
        objective: Objective,
        config: TrainConfig,
        callbacks: Callbacks = NO_CALLBACKS,
        distributed: Distributed = ALONE,
    ) -> None:
        self.model, self.optimizer, self.config = model, optimizer, config
        self.train_rows, self.validation_rows = data.train, data.validation
        self.loss, self.score = objective.loss.to(model.device), objective.score
        self.callbacks, self.distributed = callbacks, distributed
        self.device = model.device
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.few_parameters = sum(parameter.numel() for parameter in self.trained) < SINGLE_THREAD_PARAMETERS
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=model.compute_dtype == torch.float16)
        self.random = np.random.default_rng(data.shuffle_seed)
        self.early_stopping = EarlyStopping(config.monitor, config.patience, config.min_delta)
        self.base_rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.steps_per_epoch = math.ceil(len(data.train) / config.batch_size)
        self.total = count_steps(len(data.train), config.batch_size, config.epochs, config.max_steps)
        self.warmup = warmup_steps(config.warmup, self.total)
        self.step = self.samples = self.best_step = 0
        self.scores: Mapping[str, float] = {}
        self.temperature: float | None = None
        self.best: list[Tensor] | None = None
        self.evaluation_seconds = 0.0
        self.stop_asked = self.stopping = False
        self.step_times: list[float] = []
        self.started = time.perf_counter()
        distributed.broadcast(self.trained)

    def fit(self) -> FitResult:
        """Train until the last step, early stopping or Ctrl-C, and give the model its best weights.

        Raises RunFailed if the loss or the gradient is not finite.
        """
        interrupted = False
        self.model.train()
        try:
            for batch in self.batches():
                if self.early_stopping.exhausted or self.stopping:
                    break
                started = time.perf_counter()
                microbatches, workers = self.make_microbatches(batch)
                self.optimizer_step(len(batch), parallel.parallel_map(self.gradients, microbatches, workers))
                self.step_times.append(time.perf_counter() - started)
                if self.evaluation_due() or self.stopping:
                    self.evaluate()
            if self.total == 0:
                self.evaluate()
        except KeyboardInterrupt:
            interrupted = True
        return self.finish(interrupted)

    def batches(self) -> Iterator[Ints]:
        """Yield the row positions of every batch, epoch after epoch, up to the last step."""
        number = 0
        while number < self.total:
            epoch = epoch_batches(self.train_rows.lengths, self.config.batch_size, self.random)
            for batch in epoch[: self.total - number]:
                number += 1
                if number > self.step:  # a resumed run shuffles all epochs again and skips the steps it has taken
                    yield batch

    def make_microbatches(self, batch: Ints) -> tuple[list[MicroBatch], int]:
        """Divide this process's share of a batch. Return the micro-batches and the number of workers to compute them."""
        lengths, max_tokens = self.train_rows.lengths, self.config.max_tokens_per_microbatch
        normalizer = self.loss.normalizer(self.labels(batch))
        share = self.distributed.share(batch, lengths)
        workers = parallel.num_workers(self.model, len(share))
        positions = (
            microbatch
            for part in partition_by_length(share, lengths, workers)
            for microbatch in make_microbatches(part, lengths, max_tokens)
        )
        return [MicroBatch(number, microbatch, normalizer) for number, microbatch in enumerate(positions)], workers

    def gradients(self, microbatch: MicroBatch) -> Gradients:
        """Return the loss of one micro-batch and the gradients of the trained parameters."""
        batch = collate(self.train_rows, microbatch.positions)
        with mask_stream(self.step, self.distributed.rank, microbatch.number):
            logits = run_batch(self.model, batch, self.device)
            labels, weights = self.labels(microbatch.positions), self.row_weights(microbatch.positions)
            loss = self.loss(logits, labels, weights) / microbatch.normalizer
            gradients = torch.autograd.grad(self.scaler.scale(loss), self.trained, allow_unused=True)
        return float(loss.detach()), gradients

    def optimizer_step(self, samples: int, microbatches: Iterable[Gradients]) -> None:
        """Sum the gradients of the micro-batches and of all processes, clip them, and update the weights."""
        factor = multiplier(self.step, self.total, self.warmup, self.config.schedule)
        for group, base_rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base_rate * factor
        loss = 0.0
        for microbatch_loss, gradients in microbatches:
            self._accumulate(gradients)
            loss += microbatch_loss
        loss = self.distributed.all_reduce(loss, self.trained)
        if not math.isfinite(loss):
            raise RunFailed(f"the loss is {loss} at step {self.step + 1}: lower train.learning_rate, or use train.precision=fp32")
        allocation = self.model.allocation
        if allocation is not None:
            self.scaler.scale(allocation.penalty()).backward()  # type: ignore[no-untyped-call]
        with parallel.one_thread(when=self.few_parameters):
            norm = self._update_weights()
        if allocation is not None:
            allocation.after_step(self.step + 1, self.total)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.samples += samples
        rate, memory = self.base_rates[0] * factor, peak_gpu_mb(self.device)
        self._notify(StepEnd(self.step, self.total, self._epoch(), loss, rate, norm, self.samples, self._seconds(), memory))

    def evaluation_due(self) -> bool:
        """Return whether the step just taken is followed by an evaluation."""
        return self.step % (self.config.eval_steps or self.steps_per_epoch) == 0 or self.step == self.total

    def evaluate(self) -> None:
        """Score the validation rows, keep the weights if they are the best so far, and save a checkpoint."""
        if self.validation_rows is None or self.validation_rows.labels is None:
            return
        started = time.perf_counter()
        logits = distributed_logits(self.distributed, self.model, self.validation_rows)
        scores = self.distributed.run_on_main(self.score, logits, self.validation_rows.labels)
        temperature = self.distributed.run_on_main(metrics.fit_temperature, logits, self.validation_rows.labels)
        improved = self.early_stopping.improved(scores)
        if improved:
            self.best = [parameter.detach().clone() for parameter in self.trained]
            self.best_step, self.scores, self.temperature = self.step, scores, temperature
        scored = time.perf_counter()
        self.evaluation_seconds += scored - started
        memory = memory_in_use(self.device, self.distributed)
        self._notify(EvalEnd(self.step, self._epoch(), scores, improved, self._seconds(), memory, temperature))
        self.stopping = self.distributed.run_on_main(lambda: self.stop_asked)
        if self.step and self.distributed.is_main:
            self.callbacks.save_checkpoint(self.checkpoint())
        self.evaluation_seconds += time.perf_counter() - scored

    def finish(self, interrupted: bool) -> FitResult:
        """Copy the best weights into the model and return the result."""
        seconds = self._seconds() - self.evaluation_seconds
        if self.best is not None:
            with torch.no_grad():
                for parameter, best in zip(self.trained, self.best, strict=True):
                    parameter.copy_(best)
        else:
            self.best_step = self.step
        self.model.eval()
        return FitResult(
            steps=self.step,
            best_step=self.best_step,
            scores=self.scores,
            temperature=self.temperature,
            samples=self.samples,
            train_seconds=seconds,
            evaluation_seconds=self.evaluation_seconds,
            step_seconds=statistics.median(self.step_times) if self.step_times else None,
            gradient_mb=sum(parameter.nbytes for parameter in self.trained) / 1e6 if self.total else 0.0,
            optimizer_mb=state_mb(self.optimizer),
            stopped_early=not interrupted and self.step < self.total,
            interrupted=interrupted,
            stopped_by_callback=not interrupted and self.step < self.total and self.stopping,
        )

    def release(self) -> None:
        """Free the optimizer's state and the copy of the best weights, which the model has by now."""
        self.optimizer.state.clear()
        self.best = None

    def labels(self, positions: Ints) -> Tensor:
        """Return the labels of training rows on the model's device."""
        assert self.train_rows.labels is not None
        return torch.from_numpy(self.train_rows.labels[positions]).to(self.device)

    def row_weights(self, positions: Ints) -> Tensor | None:
        """Return the weights of training rows on the model's device, in fp32; None if all rows count the same."""
        weights = self.train_rows.weights
        return None if weights is None else torch.from_numpy(weights[positions]).to(self.device, torch.float32)

    def checkpoint(self) -> Checkpoint:
        """Return the state after the current step. Batches and dropout masks are functions of the step and need no state."""
        tensors = pack_training_state(self.trained, self.optimizer, self.best)
        if self.model.allocation is not None:
            tensors |= {f"allocation.{name}": tensor.cpu() for name, tensor in self.model.allocation.state().items()}
        values = {name: getattr(self, name) for name in _CHECKPOINT_VALUES}
        states = {"early_stopping": self.early_stopping.state(), "scaler": self.scaler.state_dict()}
        return Checkpoint(tensors, {**values, **states, "seconds": self._seconds()})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint. Raises LoralabError if it is of another model."""
        values, prefix = checkpoint.values, "allocation."
        try:
            if self.model.allocation is not None:
                ranks = {key.removeprefix(prefix): value for key, value in checkpoint.tensors.items() if key.startswith(prefix)}
                self.model.allocation.restore(ranks)
            self.best = unpack_training_state(checkpoint.tensors, self.trained, self.optimizer)
            for name in _CHECKPOINT_VALUES:
                setattr(self, name, values[name])
            self.early_stopping.restore(**values["early_stopping"])
            self.scaler.load_state_dict(values["scaler"])
            self.started -= values["seconds"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise LoralabError(f"the checkpoint is not of this run ({error!r}): start again with --overwrite") from error

    def _accumulate(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def _update_weights(self) -> float:
        """Clip the gradients and step the optimizer. Return the norm before clipping."""
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained, self.config.max_grad_norm, foreach=True))
        if not math.isfinite(norm) and not (self.scaler.is_enabled() and self.scaler.get_scale() > 1):
            raise RunFailed(f"the gradient is {norm} at step {self.step + 1}: lower train.learning_rate")
        self.scaler.step(self.optimizer)  # in fp16 it skips a step whose gradient overflowed; the scale is then halved
        return norm

    def _epoch(self) -> float:
        return self.step / self.steps_per_epoch

    def _seconds(self) -> float:
        return time.perf_counter() - self.started

    def _notify(self, event: Event) -> None:
        for listener in self.callbacks.listeners if self.distributed.is_main else ():
            self.stop_asked |= listener(event) is True
        if self.distributed.size == 1:  # several processes agree at the next evaluation
            self.stopping = self.stop_asked


_CHECKPOINT_VALUES = ("step", "samples", "best_step", "scores", "temperature", "evaluation_seconds")
