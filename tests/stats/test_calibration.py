"""`make calibrate` in small: no claim or interval is wrong much more often than stated."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.calibration import Rate, differences, measure, stored


@pytest.mark.slow
def test_claims_and_intervals_keep_their_rates() -> None:
    rates = measure(100, seed=1)
    assert len(rates) > 50
    wrong = [rate.row for rate in rates if not _close(rate)]
    assert not wrong, wrong


def test_stored_predictions_are_three_recipes_of_ten_seeds() -> None:
    accuracies = {name: correct.mean() for name, correct in stored().items()}
    assert {correct.shape for correct in stored().values()} == {(10, 3800)}
    assert all(0.85 < accuracy < 0.88 for accuracy in accuracies.values()), accuracies


def test_a_test_over_seeds_alone_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.stats import ttest_1samp

    from loralab import stats

    class OverSeeds:
        def __init__(self, a: np.ndarray, b: np.ndarray) -> None:
            self.differences = np.round(a.mean(axis=1) - b.mean(axis=1), 12)

        def p(self) -> float:
            return float(ttest_1samp(self.differences, 0).pvalue) if np.ptp(self.differences) else 1.0

    monkeypatch.setattr(stats, "difference", lambda a, b, paired: OverSeeds(a, b))
    rates = [
        rate for rate in differences(np.random.default_rng(0), 300) if "same seeds" in rate.claim and "10 seeds" in rate.situation
    ]
    assert sum(not _close(rate) for rate in rates) > len(rates) / 2


def _close(rate: Rate) -> bool:
    """3 points and 3.5 standard errors of the simulation. A claim made too seldom and an interval too wide are no errors."""
    slack = 0.03 + 3.5 * math.sqrt(rate.nominal * (1 - rate.nominal) / rate.experiments)
    return rate.measured <= rate.nominal + slack if rate.nominal < 0.5 else rate.measured >= rate.nominal - slack
