"""The learning rate as a function of the step."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from loralab.training.schedule import count_steps, multiplier, warmup_remarks, warmup_steps

TOTAL, WARMUP = 200, 20


def curve(schedule: str, total: int = TOTAL, warmup: int = WARMUP) -> list[float]:
    return [multiplier(step, total, warmup, schedule) for step in range(total)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_it_rises_linearly_to_one_in_the_warm_up(schedule: str) -> None:
    rates = curve(schedule)
    assert rates[:WARMUP] == pytest.approx([(step + 1) / WARMUP for step in range(WARMUP)])
    assert rates[WARMUP - 1] == 1.0
    assert rates[WARMUP] == 1.0


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_it_falls_to_zero_after_the_warm_up(schedule: str) -> None:
    rates = curve(schedule)
    assert all(later < earlier for earlier, later in pairwise(rates[WARMUP:]))
    assert 0 < rates[-1] < 0.01
    assert multiplier(TOTAL, TOTAL, WARMUP, schedule) == pytest.approx(0, abs=1e-12)


def test_constant_stays_at_one() -> None:
    assert set(curve("constant")[WARMUP:]) == {1.0}


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_cosine_and_linear_have_their_shapes(share: float) -> None:
    step = WARMUP + round(share * (TOTAL - WARMUP))
    progress = (step - WARMUP) / (TOTAL - WARMUP)
    assert multiplier(step, TOTAL, WARMUP, "linear") == pytest.approx(1 - progress)
    assert multiplier(step, TOTAL, WARMUP, "cosine") == pytest.approx((1 + math.cos(math.pi * progress)) / 2)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_without_warm_up_it_starts_at_one(schedule: str) -> None:
    assert multiplier(0, TOTAL, 0, schedule) == 1.0


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_a_run_shorter_than_its_warm_up_only_rises(schedule: str) -> None:
    rates = curve(schedule, total=10, warmup=100)
    assert rates == pytest.approx([(step + 1) / 100 for step in range(10)])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("total", [1, 2])
def test_the_shortest_runs_start_with_the_full_rate(schedule: str, total: int) -> None:
    assert multiplier(0, total, warmup_steps(0.06, total), schedule) == 1.0


@pytest.mark.parametrize(("warmup", "total", "steps"), [(0.0, 99, 0), (0.06, 100, 6), (0.5, 7, 4), (1, 99, 1), (100.0, 1200, 100)])
def test_below_one_is_a_fraction_and_above_it_steps(warmup: float, total: int, steps: int) -> None:
    assert warmup_steps(warmup, total) == steps


@pytest.mark.parametrize(
    ("rows", "epochs", "most", "steps"),
    [(32, 3, None, 6), (33, 1, None, 3), (33, 2.5, None, 8), (160, 0.3, None, 3), (160, 3, 7, 7), (16, 1, 7, 1), (16, 0, 7, 0)],
)
def test_the_last_batch_of_an_epoch_may_be_smaller(rows: int, epochs: float, most: int | None, steps: int) -> None:
    assert count_steps(rows, 16, epochs, most) == steps


def test_a_warm_up_that_never_reaches_its_peak_is_noted() -> None:
    assert warmup_remarks(0.06, 100) == warmup_remarks(1.0, 100) == warmup_remarks(50.0, 100) == []
    (remark,) = warmup_remarks(500.0, 36)
    assert "takes all 36 steps, so the learning rate reaches only 7% of its peak" in remark
    (remark,) = warmup_remarks(36.0, 36)
    assert "reaches its peak in the last step" in remark
    (remark,) = warmup_remarks(2.5, 100)
    assert remark == "train.warmup=2.5: that is 2 steps; values below 1 are a fraction of all steps"
