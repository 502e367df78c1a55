"""Passes side by side on a processor's cores, one thread each, rather than one after another with all threads inside each product.

Between the products a pass is many small operations that a second thread does not speed up; two passes at once keep both cores
busy with them (on 2 cores 1.1 to 1.2 times the speed, docs/log.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T")
R = TypeVar("R")


def num_workers(network: nn.Module, texts: int) -> int:
    """How many passes so many texts are dealt into, to run at once: one for each of torch's threads, while they have texts enough.

    Networks say by `texts_at_least` how many are enough, and that threads may share them: ours draw their dropout by
    `model.dropout.turn`. Others, and those that compute elsewhere, take one pass at a time.
    """
    least: int | None = getattr(network, "texts_at_least", None)
    if least is None or next(network.parameters()).device.type != "cpu":
        return 1
    return min(torch.get_num_threads(), max(1, texts // least))


def parallel_map(work: Callable[[T], R], parts: Sequence[T], num_workers: int) -> Iterator[R]:
    """Yield work(part) of every part, in their order, `hands` of them at work at a time, who share torch's threads evenly.

    A thread of its own begins with torch's defaults: `work` itself must turn gradients off.
    """
    num_workers = min(num_workers, len(parts))
    if num_workers <= 1:
        return map(work, parts)
    return _pool(num_workers, max(1, torch.get_num_threads() // num_workers)).map(work, parts)


@contextmanager
def one_thread(when: bool) -> Iterator[None]:
    """Compute on the calling thread alone.

    torch's other threads, once woken for the small tensors of an optimiser, go on spinning into the passes that follow and take
    their cores: 7 % of a step on 2 cores (docs/log.md).
    """
    threads = torch.get_num_threads()
    if when:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if when:
            torch.set_num_threads(threads)


@lru_cache(maxsize=8)
def _pool(num_workers: int, threads: int) -> ThreadPoolExecutor:
    # torch keeps the number of threads for each thread that calls it, so this leaves the caller's as it is.
    return ThreadPoolExecutor(num_workers, "loralab", initializer=torch.set_num_threads, initargs=(threads,))


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
