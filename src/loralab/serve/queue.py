"""Texts that wait for a worker: first in, first out, taken in batches of up to a number of tokens.

There is no waiting window: a free worker takes what is there, at once, and under load batches grow by themselves. The policy is
that of text-embeddings-inference (queue.rs) and of Triton's dynamic batcher without delay. Several free workers share what waits.
With several models the oldest text takes those along that wait for its model, because each model's own layers run once per batch.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from loralab.inference.shared_layers import Logits, SharedModel, Tokens


class QueueFull(Exception):
    """The queue holds its most texts."""


@dataclass(eq=False)
class Job:
    """The texts of one request for one model, each with its tokens, and the logits so far.

    future: of an event loop, for the logits of all texts. cancelled: the client is gone, or has waited too long: texts that still
    wait are dropped.
    """

    model: SharedModel
    tokens: Sequence[Tokens]
    future: asyncio.Future[Logits]
    cancelled: bool = False
    logits: dict[int, Logits] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return len(self.logits) == len(self.tokens)

    def rows(self) -> Logits:
        """Return the logits of all texts: (n, classes) fp32."""
        return np.stack([self.logits[i] for i in range(len(self.tokens))])


@dataclass(frozen=True)
class Entry:
    """One text of a job."""

    job: Job
    index: int
    number: int  # in the order of arrival

    @property
    def size(self) -> int:
        return len(self.job.tokens[self.index])


class TextQueue:
    """The waiting texts of all requests. Threads may call every method.

    max_texts: a request is refused while as many texts wait. A request that comes before is taken whole, however large it is.
    """

    def __init__(self, max_texts: int) -> None:
        self.max_texts = max_texts
        self.tokens = 0
        self.dropped = 0
        self._waiting: dict[SharedModel, deque[Entry]] = {}  # none is empty
        self._numbers = itertools.count()
        self._length = 0
        self._idle = 0
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return self._length

    def put(self, job: Job) -> None:
        """Append the texts of a job. Raises QueueFull."""
        with self._changed:
            if self._closed or self._length >= self.max_texts:
                raise QueueFull
            entries = [Entry(job, index, next(self._numbers)) for index in range(len(job.tokens))]
            self._waiting.setdefault(job.model, deque()).extend(entries)
            self._length += len(entries)
            self.tokens += sum(entry.size for entry in entries)
            self._changed.notify(min(len(entries), max(1, self._idle)))

    def next_batch(self, max_tokens: int) -> list[Entry] | None:
        """Wait for texts and take the first ones, up to `max_tokens`, at least one text. None: the queue is closed and empty.

        The oldest text comes first, with those that wait for the same model, then the oldest of the others with those of its model.
        A worker that is not the only free one leaves the others their share.
        """
        with self._changed:
            while True:
                self._idle += 1
                self._changed.wait_for(lambda: self._length or self._closed)
                self._idle -= 1
                if not self._length:
                    return None
                batch = self._take(min(max_tokens, -(-self.tokens // (self._idle + 1))))
                if batch:
                    return batch

    def close(self) -> None:
        """Refuse further texts. Workers finish what waits, and then end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self, max_tokens: int) -> list[Entry]:
        batch: list[Entry] = []
        tokens = 0
        while self._waiting:
            model = min(self._waiting, key=lambda model: self._waiting[model][0].number)
            waiting = self._waiting[model]
            while waiting:
                entry = waiting[0]
                if entry.job.cancelled:
                    self.dropped += 1
                elif batch and tokens + entry.size > max_tokens:
                    return batch
                else:
                    batch.append(entry)
                    tokens += entry.size
                waiting.popleft()
                self._length -= 1
                self.tokens -= entry.size
            del self._waiting[model]
        return batch
