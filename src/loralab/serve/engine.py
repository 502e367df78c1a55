"""Worker threads that classify the texts of all requests in batches."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from loralab.inference.shared_layers import Logits, SharedModel, StateCache, TextOfModel, Tokens, logits_of_texts
from loralab.serve.queue import Entry, Job, QueueFull, TextQueue

__all__ = ["BatchDone", "Engine", "QueueFull"]
_log = logging.getLogger(__name__)
SMOOTHING = 0.1
"""Weight of the last batch in the moving average of the speed."""


@dataclass(frozen=True)
class BatchDone:
    """What a worker has computed. seconds: of the batch."""

    texts: int
    tokens: int
    seconds: float


class Engine:
    """Classifies texts with any of several models, which may share layers.

    workers: threads, each with its share of the cores. max_batch_tokens: tokens per batch. max_queue: texts that may wait.
    state_cache: bytes for states that models have in common.
    """

    def __init__(
        self,
        workers: int,
        *,
        max_batch_tokens: int,
        max_queue: int,
        state_cache: int = 0,
        on_batch: Callable[[BatchDone], None] = lambda batch: None,
    ) -> None:
        self.queue = TextQueue(max_queue)
        self.max_batch_tokens = max_batch_tokens
        self.on_batch = on_batch
        self.states = StateCache(state_cache)
        self.tokens_per_second = 0.0
        self._cores, self._busy = workers, 0
        self._lock = threading.Lock()
        self._locks: dict[int, threading.Lock] = {}  # of models that threads cannot share, by their identity
        self._threads = [threading.Thread(target=self._work, name=f"loralab-{i}", daemon=True) for i in range(workers)]
        for thread in self._threads:
            thread.start()

    async def logits(self, model: SharedModel, tokens: Sequence[Tokens]) -> Logits:
        """Return the logits (n, classes) of tokenized texts. Cancel the task to drop what still waits. Raises QueueFull."""
        if not tokens:
            return np.zeros((0, model.model.classes), dtype=np.float32)
        job = Job(model, tokens, asyncio.get_running_loop().create_future())
        self.queue.put(job)
        try:
            return await job.future
        finally:
            job.cancelled = not job.future.done() or job.future.cancelled()

    @property
    def wait_seconds(self) -> float:
        """The time until a new text is computed, from the tokens that wait and the speed so far."""
        return self.queue.tokens / self.tokens_per_second if self.tokens_per_second else 0.0

    def close(self, timeout: float | None = None) -> None:
        """Finish what waits and end the workers."""
        self.queue.close()
        for thread in self._threads:
            thread.join(timeout)

    def _work(self) -> None:
        import torch

        while (batch := self.queue.next_batch(self.max_batch_tokens)) is not None:
            with self._lock:
                self._busy += 1
                torch.set_num_threads(max(1, self._cores // self._busy))  # of this thread: two busy workers have one core each
            start = time.perf_counter()
            try:
                _settle(self._compute(batch))
            except Exception as error:  # a worker must live on, whatever a text does to it
                _log.exception("a batch failed")
                jobs = {entry.job for entry in batch}
                for job in jobs:
                    job.cancelled = True
                _settle(jobs, error)
            finally:
                with self._lock:
                    self._busy -= 1
            self._note(batch, time.perf_counter() - start)

    def _compute(self, batch: Sequence[Entry]) -> list[Job]:
        """Compute the logits of a batch, and return the jobs that are complete now."""
        texts = [TextOfModel(entry.job.model, entry.job.tokens[entry.index]) for entry in batch]
        unsafe = {id(text.model.model) for text in texts if not text.model.model.thread_safe}
        locks = [self._locks.setdefault(key, threading.Lock()) for key in sorted(unsafe)]
        for lock in locks:
            lock.acquire()
        try:
            results = logits_of_texts(texts, self.states)
        finally:
            for lock in locks:
                lock.release()
        for entry, logits in zip(batch, results, strict=True):
            entry.job.logits[entry.index] = logits
        return [job for job in {entry.job: None for entry in batch} if job.complete and not job.cancelled]

    def _note(self, batch: Sequence[Entry], seconds: float) -> None:
        tokens = sum(entry.size for entry in batch)
        with self._lock:
            speed = tokens / seconds * len(self._threads)
            weight = SMOOTHING if self.tokens_per_second else 1.0
            self.tokens_per_second += weight * (speed - self.tokens_per_second)
        self.on_batch(BatchDone(len(batch), tokens, seconds))


def _settle(jobs: Iterable[Job], error: Exception | None = None) -> None:
    """Set the results of jobs, or an error, in their event loops: in one call each, because every call wakes the loop up."""
    loops: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        loops.setdefault(job.future.get_loop(), []).append(job)
    for loop, its_jobs in loops.items():
        loop.call_soon_threadsafe(_set_results, its_jobs, error)


def _set_results(jobs: Sequence[Job], error: Exception | None) -> None:
    for job in jobs:
        if job.future.done():  # cancelled
            continue
        if error is None:
            job.future.set_result(job.rows())
        else:
            job.future.set_exception(error)
