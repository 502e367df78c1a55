"""Micro-batches in parallel, one thread each, instead of one after another with all threads inside each matrix product.

Between the products a micro-batch consists of many small operations that a second thread does not speed up. Two micro-batches in
parallel keep two cores busy: 1.1 to 1.2 times the speed on 2 cores (docs/lab).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import torch

from loralab.model.interface import ClassifierModel

T = TypeVar("T")
R = TypeVar("R")


def num_workers(model: ClassifierModel, texts: int) -> int:
    """Return how many threads compute so many texts: up to torch's number, with at least `min_texts_per_worker` texts each.

    1 for a model that threads cannot share, or that computes on another device.
    """
    if not model.thread_safe or model.device.type != "cpu":
        return 1
    return min(torch.get_num_threads(), max(1, texts // model.min_texts_per_worker))


def parallel_map(function: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    """Yield function(item) for every item, in order, computed by `workers` threads that share torch's threads evenly.

    A new thread starts with torch's defaults, so the function itself must disable gradients where needed.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        return map(function, items)
    return _pool(workers, max(1, torch.get_num_threads() // workers)).map(function, items)


@contextmanager
def one_thread(when: bool = True) -> Iterator[None]:
    """Compute on the calling thread alone.

    torch's other threads keep spinning after the small tensors of an optimizer step and take cores from the micro-batches that
    follow: 7 % of a step on 2 cores (docs/lab).
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
def _pool(workers: int, threads: int) -> ThreadPoolExecutor:
    # torch keeps the number of threads per calling thread, so this does not change the caller's.
    return ThreadPoolExecutor(workers, "loralab", initializer=torch.set_num_threads, initargs=(threads,))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
