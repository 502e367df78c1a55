"""Rows on the device: laid out as `gather` lays them out, whatever they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from workbench import network, rows, same, train, trained

from loralab.data.values import Encoded
from loralab.training import prefix_cache
from loralab.training.resident import Rows
from loralab.training.scoring import logits_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("kept", [None, np.float32, np.float16, np.uint16])
def test_settled_rows_are_laid_out_as_they_would_be(tiny: Path, kept: type | None) -> None:
    data = rows(tiny, 10)
    if kept:
        states = np.random.default_rng(0).normal(size=(len(data.tokens), 8))
        hidden = states.astype(kept) if kept != np.uint16 else (states.astype(np.float32).view(np.uint32) >> 16).astype(kept)
        hidden.flags.writeable = False  # as a file's pages are
        data = Encoded(data.tokens, data.starts, data.labels, data.pad_id, hidden, 1)
    plain, settled = Rows(data, CPU), Rows(data, CPU)
    assert plain.resident is None  # nothing is gained by a second copy in the same memory
    settled.settle()
    longest = np.argsort(-data.lengths)
    for positions in (np.array([3]), np.arange(len(data)), longest[:4], longest[-5:], np.array([len(data) - 1, 0])):
        for expected, found in zip(plain.at(positions), settled.at(positions), strict=True):
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)


@pytest.mark.parametrize("cached", [False, True])
def test_training_on_settled_rows_is_training(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool) -> None:
    begin = Rows.__init__

    def settled(rows: Rows, *given: Any) -> None:
        begin(rows, *given)
        rows.settle()

    found = []
    for settle in (False, True):
        net, data = network(tiny, dropout=0.3, layers="top1"), rows(tiny, 10)
        if cached:
            plan = prefix_cache.plan(net, [data], setting="memory", limit=1e9, epochs=2, folder=tmp_path, identity="cpu")
            data = plan.keep(net, data)
        if settle:
            monkeypatch.setattr(Rows, "__init__", settled)
        train(net, data)
        found.append(trained(net))
        assert logits_of(net, data).shape == (len(data), 4)
    assert same(*found)
