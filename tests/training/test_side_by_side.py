"""Passes at once: in order, in threads of their own, and with the results of one after another."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from workbench import network, rows, same, train, trained

from loralab.model.encoder import EncoderClassifier
from loralab.training import parallel, trainer
from loralab.training.checkpoint import Checkpoint
from loralab.training.scoring import logits_of


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_results_come_in_the_order_of_the_parts_and_threads_share_the_cores() -> None:
    together = threading.Barrier(2)

    def work(part: int) -> tuple[int, int, str]:
        together.wait(10)  # passes only where two are at work at once
        return part, torch.get_num_threads(), threading.current_thread().name.partition("_")[0]

    assert list(parallel.parallel_map(work, range(6), 2)) == [(part, 1, "loralab") for part in range(6)]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("parts", "hands"), [([7], 2), ([7, 8], 1), ([], 2)])
def test_one_at_a_time_is_this_threads_own_work(parts: list[int], hands: int) -> None:
    here = threading.get_ident()
    found = parallel.parallel_map(lambda part: (part, threading.get_ident(), torch.get_num_threads()), parts, hands)
    assert list(found) == [(part, here, 2) for part in parts]


def test_an_error_in_a_pass_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        list(parallel.parallel_map(lambda part: 1 // part, [1, 0, 2], 2))


def test_a_forked_process_has_threads_of_its_own() -> None:
    assert list(parallel.parallel_map(abs, [-1, 2], 2)) == [1, 2]
    child = os.fork()
    if child == 0:
        os._exit(list(parallel.parallel_map(abs, [-1, 2], 2)) != [1, 2])
    assert os.waitpid(child, 0)[1] == 0


def test_only_networks_that_threads_may_share_are_shared(tiny: Path) -> None:
    assert parallel.num_workers(network(tiny), 100) == 2
    assert parallel.num_workers(nn.Linear(1, 1), 100) == 1


@pytest.mark.parametrize(("texts", "least", "hands"), [(16, 8, 2), (15, 8, 1), (1, 8, 1), (4, 2, 2), (100, 2, 2)])
def test_few_texts_are_not_divided(tiny: Path, monkeypatch: pytest.MonkeyPatch, texts: int, least: int, hands: int) -> None:
    monkeypatch.setattr(EncoderClassifier, "texts_at_least", least)
    assert parallel.num_workers(network(tiny), texts) == hands


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_training_side_by_side_is_training(tiny: Path, monkeypatch: pytest.MonkeyPatch, dropout: float) -> None:
    """Equal to one pass after another but for the order of sums, and where masks are drawn bit for bit equal to itself."""
    found = []
    for threads, least in ((1, 8), (2, 4), (2, 4)):
        torch.set_num_threads(threads)
        monkeypatch.setattr(EncoderClassifier, "texts_at_least", least)
        net = network(tiny, dropout=dropout)
        train(net, rows(tiny, 8), batch_size=8, epochs=2.0)
        found.append(trained(net))
    assert same(found[1], found[2])
    assert not same(found[0], found[1])
    if not dropout:
        for name, weight in found[0].items():
            torch.testing.assert_close(found[1][name], weight, rtol=0, atol=1e-4)


@pytest.mark.parametrize("small", [True, False])
def test_an_optimiser_of_few_weights_wakes_no_other_threads(tiny: Path, monkeypatch: pytest.MonkeyPatch, small: bool) -> None:
    monkeypatch.setattr(trainer, "SMALL", 1 << 20 if small else 1)
    seen: list[int] = []
    step = torch.optim.AdamW.step

    def look(self: torch.optim.AdamW) -> None:
        seen.append(torch.get_num_threads())
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", look)
    train(network(tiny), rows(tiny, 8))
    assert set(seen) == {1 if small else 2}
    assert torch.get_num_threads() == 2


def test_the_threads_are_as_they_were_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), parallel.one_thread(when=True):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2


def test_a_resumed_run_takes_the_masks_of_one_that_never_stopped(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EncoderClassifier, "texts_at_least", 4)
    kept: list[Checkpoint] = []
    whole, resumed = network(tiny, dropout=0.3), network(tiny, dropout=0.3)
    train(whole, rows(tiny, 8), rows(tiny, 2), batch_size=8, epochs=2.0, eval_steps=3, keep=kept.append)
    train(resumed, rows(tiny, 8), rows(tiny, 2), batch_size=8, epochs=2.0, eval_steps=3, resume=kept[0])
    assert same(trained(whole), trained(resumed))


def test_scoring_side_by_side_is_scoring(tiny: Path) -> None:
    net, data = network(tiny), rows(tiny, 20)
    together = logits_of(net, data, max_tokens_per_microbatch=64)
    torch.set_num_threads(1)
    np.testing.assert_allclose(together, logits_of(net, data, max_tokens_per_microbatch=64), rtol=0, atol=1e-6)
    assert all(parameter.grad is None for parameter in net.parameters())
