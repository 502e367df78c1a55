"""Parallel micro-batches: results in order, a thread each, and the results of sequential ones."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from workbench import make_model, rows, same, train, trained

from loralab.model.encoder import EncoderClassifier
from loralab.training import parallel, trainer
from loralab.training.checkpoint import Checkpoint
from loralab.training.scoring import logits_of


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_results_are_in_order_and_workers_share_the_threads() -> None:
    together = threading.Barrier(2)

    def work(part: int) -> tuple[int, int, str]:
        together.wait(10)  # returns only if two run at the same time
        return part, torch.get_num_threads(), threading.current_thread().name.partition("_")[0]

    assert list(parallel.parallel_map(work, range(6), 2)) == [(part, 1, "loralab") for part in range(6)]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("items", "workers"), [([7], 2), ([7, 8], 1), ([], 2)])
def test_one_worker_is_the_calling_thread(items: list[int], workers: int) -> None:
    here = threading.get_ident()
    results = parallel.parallel_map(lambda item: (item, threading.get_ident(), torch.get_num_threads()), items, workers)
    assert list(results) == [(item, here, 2) for item in items]


def test_an_error_in_a_worker_is_raised_in_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(parallel.parallel_map(lambda part: 1 // part, [1, 0, 2], 2))


def test_a_forked_process_has_threads_of_its_own() -> None:
    assert list(parallel.parallel_map(abs, [-1, 2], 2)) == [1, 2]
    child = os.fork()
    if child == 0:
        os._exit(list(parallel.parallel_map(abs, [-1, 2], 2)) != [1, 2])
    assert os.waitpid(child, 0)[1] == 0


def test_a_model_that_threads_cannot_share_has_one_worker(tiny: Path) -> None:
    assert parallel.num_workers(make_model(tiny), 100) == 2
    assert parallel.num_workers(make_model(tiny, variant="dora"), 100) == 1


@pytest.mark.parametrize(("texts", "least", "workers"), [(16, 8, 2), (15, 8, 1), (1, 8, 1), (4, 2, 2), (100, 2, 2)])
def test_few_texts_are_not_divided(tiny: Path, monkeypatch: pytest.MonkeyPatch, texts: int, least: int, workers: int) -> None:
    monkeypatch.setattr(EncoderClassifier, "min_texts_per_worker", least)
    assert parallel.num_workers(make_model(tiny), texts) == workers


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_parallel_training_equals_sequential_training(tiny: Path, monkeypatch: pytest.MonkeyPatch, dropout: float) -> None:
    """Equal to sequential micro-batches except for the order of sums, and bit for bit repeatable."""
    outcomes = []
    for threads, least in ((1, 8), (2, 4), (2, 4)):
        torch.set_num_threads(threads)
        monkeypatch.setattr(EncoderClassifier, "min_texts_per_worker", least)
        model = make_model(tiny, dropout=dropout)
        train(model, rows(tiny, 8), batch_size=8, epochs=2.0)
        outcomes.append(trained(model))
    assert same(outcomes[1], outcomes[2])
    assert not same(outcomes[0], outcomes[1])
    if not dropout:
        for name, weight in outcomes[0].items():
            torch.testing.assert_close(outcomes[1][name], weight, rtol=0, atol=1e-4)


@pytest.mark.parametrize("small", [True, False])
def test_few_parameters_are_updated_by_one_thread(tiny: Path, monkeypatch: pytest.MonkeyPatch, small: bool) -> None:
    monkeypatch.setattr(trainer, "SINGLE_THREAD_PARAMETERS", 1 << 20 if small else 1)
    seen: list[int] = []
    step = torch.optim.AdamW.step

    def look(self: torch.optim.AdamW) -> None:
        seen.append(torch.get_num_threads())
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", look)
    train(make_model(tiny), rows(tiny, 8))
    assert set(seen) == {1 if small else 2}
    assert torch.get_num_threads() == 2


def test_the_threads_are_as_they_were_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), parallel.one_thread(when=True):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2


def test_a_resumed_run_has_the_masks_of_an_uninterrupted_one(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EncoderClassifier, "min_texts_per_worker", 4)
    checkpoints: list[Checkpoint] = []
    whole, resumed = make_model(tiny, dropout=0.3), make_model(tiny, dropout=0.3)
    train(whole, rows(tiny, 8), rows(tiny, 2), batch_size=8, epochs=2.0, eval_steps=3, save_checkpoint=checkpoints.append)
    train(resumed, rows(tiny, 8), rows(tiny, 2), batch_size=8, epochs=2.0, eval_steps=3, resume=checkpoints[0])
    assert same(trained(whole), trained(resumed))


def test_parallel_scoring_equals_sequential_scoring(tiny: Path) -> None:
    model, data = make_model(tiny), rows(tiny, 20)
    together = logits_of(model, data, max_tokens_per_microbatch=64)
    torch.set_num_threads(1)
    np.testing.assert_allclose(together, logits_of(model, data, max_tokens_per_microbatch=64), rtol=0, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())
