"""The queue of texts: first in, first out, up to a number of tokens, and what happens to those nobody waits for."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralab.serve.queue import Job, QueueFull, TextQueue


def job(*lengths: int, model: Any = None) -> Job:
    return Job(model, [np.zeros(length, dtype=np.int32) for length in lengths], None)  # type: ignore[arg-type]


def taken(queue: TextQueue, max_tokens: int) -> list[int]:
    batch = queue.next_batch(max_tokens)
    assert batch is not None
    return [entry.size for entry in batch]


def test_texts_leave_in_the_order_they_came_up_to_the_tokens() -> None:
    queue = TextQueue(100)
    queue.put(job(3, 4))
    queue.put(job(2, 9, 1))
    assert taken(queue, 9) == [3, 4, 2]
    assert taken(queue, 9) == [9], "a later small text does not overtake a large one"
    assert taken(queue, 9) == [1]
    assert queue.tokens == 0


def test_the_oldest_text_takes_those_of_its_model_along() -> None:
    queue = TextQueue(100)
    for size, model in enumerate("abcabca", 1):
        queue.put(job(size, model=model))
    assert taken(queue, 13) == [1, 4, 7], "the 2 does not fit yet"
    queue.put(job(20, model="a"))
    assert taken(queue, 100) == [2, 5, 3, 6, 20], "a model whose texts have left queues up again"
    assert (len(queue), queue.tokens) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 30)), min_size=1, max_size=40), st.integers(1, 60))
def test_the_oldest_text_of_several_models_is_in_the_next_batch(texts: list[tuple[str, int]], max_tokens: int) -> None:
    queue, waiting = TextQueue(1000), {}
    for number, (model, size) in enumerate(texts):
        one = waiting[number] = job(size, model=model)
        queue.put(one)
    while waiting:
        batch = queue.next_batch(max_tokens)
        assert batch is not None
        assert batch[0].job is waiting[min(waiting)]
        assert len(batch) == 1 or sum(entry.size for entry in batch) <= max_tokens
        for entry in batch:
            del waiting[entry.number]
    assert (len(queue), queue.tokens) == (0, 0)


def test_a_text_longer_than_a_batch_goes_alone() -> None:
    queue = TextQueue(100)
    queue.put(job(50, 1))
    assert taken(queue, 10) == [50]
    assert taken(queue, 10) == [1]


@given(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=12), st.integers(1, 60))
def test_every_text_leaves_once_and_batches_keep_the_limit(jobs: list[list[int]], max_tokens: int) -> None:
    queue = TextQueue(10_000)
    for lengths in jobs:
        queue.put(job(*lengths))
    batches = []
    while len(queue):
        batches.append(taken(queue, max_tokens))
    assert [size for batch in batches for size in batch] == [size for lengths in jobs for size in lengths]
    assert all(len(batch) == 1 or sum(batch) <= max_tokens for batch in batches)
    assert all(sum(batch) + following[0] > max_tokens for batch, following in itertools.pairwise(batches))


def test_cancelled_texts_are_dropped_and_counted() -> None:
    queue = TextQueue(100)
    gone, waiting = job(5, 5), job(2)
    queue.put(gone)
    queue.put(waiting)
    gone.cancelled = True
    assert taken(queue, 100) == [2]
    assert queue.dropped == 2
    assert queue.tokens == 0


def test_a_full_queue_refuses_but_takes_a_large_request_whole() -> None:
    queue = TextQueue(3)
    queue.put(job(*[1] * 50))
    with pytest.raises(QueueFull):
        queue.put(job(1))
    assert len(queue) == 50


def test_free_workers_share_what_waits() -> None:
    queue, batches = TextQueue(100), []
    threads = [threading.Thread(target=lambda: batches.append(taken(queue, 1000))) for _ in range(2)]
    for thread in threads:
        thread.start()
    while queue._idle < 2:
        time.sleep(0.001)
    queue.put(job(5, 5, 5, 5))
    for thread in threads:
        thread.join(5)
    assert sorted(batches) == [[5, 5], [5, 5]]


def test_a_closed_queue_is_emptied_and_then_ends() -> None:
    queue = TextQueue(10)
    queue.put(job(1))
    queue.close()
    with pytest.raises(QueueFull):
        queue.put(job(1))
    assert taken(queue, 10) == [1]
    assert queue.next_batch(10) is None
