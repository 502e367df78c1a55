"""A number of random faults, the same in every run; `make faults N=1000` injects more."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from fault_arena import Arena, open_arena
from fault_cases import draw_cases, run_case

COUNT, SEED = int(os.environ.get("LORALAB_FAULTS", "60")), int(os.environ.get("LORALAB_FAULTS_SEED", "0"))
COMMANDS = ("train", "cached", "resume", "overwrite", "experiment", "predict", "labels", "feedback", "serve")
"""Without those that take seconds each, which `make faults` disturbs too."""


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    with open_arena(COMMANDS) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.timeout(60 + 5 * COUNT)
def test_no_fault_loses_a_result_or_ends_in_a_traceback(arena: Arena) -> None:
    outcomes = [run_case(arena, case) for case in draw_cases(arena, COUNT, SEED)]
    failures = [f"make faults CASE={outcome.case}: {outcome.state}: {outcome.detail}" for outcome in outcomes if not outcome.passed]
    assert not failures, "\n".join(failures)
    assert sum(outcome.hit for outcome in outcomes) > COUNT // 2
