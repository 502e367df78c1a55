"""The workers: what may run at the same time, and how many there are."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from loralab.inference.shared_layers import SharedModel
from loralab.serve.engine import Engine
from loralab.serve.settings import ServerSettings


@pytest.mark.parametrize(("thread_safe", "most"), [(False, 1), (True, 2)])
def test_a_model_that_threads_cannot_share_runs_once_at_a_time(
    monkeypatch: pytest.MonkeyPatch, thread_safe: bool, most: int
) -> None:
    running: list[int] = [0]
    highest: list[int] = [0]

    def compute(texts: Any, cache: Any) -> list[Any]:
        running[0] += 1
        highest[0] = max(highest[0], running[0])
        time.sleep(0.05)
        running[0] -= 1
        return [np.zeros(2, np.float32) for _ in texts]

    monkeypatch.setattr("loralab.serve.engine.logits_of_texts", compute)
    model: Any = SimpleNamespace(thread_safe=thread_safe, classes=2)
    before = SharedModel(model, 0)
    after = replace(before)  # another model was loaded meanwhile
    engine = Engine(2, max_batch_tokens=1, max_queue=100)

    async def classify() -> None:
        tokens = [np.zeros(1, np.int32)] * 4
        await asyncio.gather(engine.logits(before, tokens), engine.logits(after, tokens))

    asyncio.run(classify())
    engine.close()
    assert highest[0] == most


def test_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ServerSettings(workers=3).threads == 3
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    assert ServerSettings(workers=3).threads == 3
    assert ServerSettings().threads == os.cpu_count()
