"""Texts that wait for a worker: first in, first out, taken in batches of up to a number of tokens.

There is no waiting window: a free worker takes what is there, at once, and under load batches grow by themselves. The policy is
that of text-embeddings-inference (queue.rs) and of Triton's dynamic batcher without delay. Several free workers share what waits.
"""

from __future__ import annotations

import asyncio
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

    @property
    def size(self) -> int:
        return len(self.job.tokens[self.index])


class TextQueue:
    """The waiting texts of all requests. Threads may call every method.

    max_texts: a request is refused while as many texts wait. A request that comes before is taken whole, however large it is.
    """

    def __init__(self, max_texts: int) -> None:
        self.max_texts = max_texts
        self.entries: deque[Entry] = deque()
        self.tokens = 0
        self.dropped = 0
        self._idle = 0
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self.entries)

    def put(self, job: Job) -> None:
        """Append the texts of a job. Raises QueueFull."""
        with self._changed:
            if self._closed or len(self.entries) >= self.max_texts:
                raise QueueFull
            entries = [Entry(job, index) for index in range(len(job.tokens))]
            self.entries.extend(entries)
            self.tokens += sum(entry.size for entry in entries)
            self._changed.notify(min(len(entries), max(1, self._idle)))

    def next_batch(self, max_tokens: int) -> list[Entry] | None:
        """Wait for texts and take the first ones, up to `max_tokens`, at least one text. None: the queue is closed and empty.

        A worker that is not the only free one leaves the others their share.
        """
        with self._changed:
            while True:
                self._idle += 1
                self._changed.wait_for(lambda: self.entries or self._closed)
                self._idle -= 1
                if not self.entries:
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
        while self.entries:
            entry = self.entries[0]
            if entry.job.cancelled:
                self.dropped += 1
            elif batch and tokens + entry.size > max_tokens:
                break
            else:
                batch.append(entry)
                tokens += entry.size
            self.entries.popleft()
            self.tokens -= entry.size
        return batch
