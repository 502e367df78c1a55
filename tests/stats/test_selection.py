"""The interval of the best of several: wider downwards, by as much as the choice follows the error of the mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.calibration import Population
from loralab.stats import Interval, chosen_interval, mean_interval

Tables = list[npt.NDArray[np.bool_]]


def drawn(seed: int, points: int = 12, seeds: int = 3, level: float = 0.5) -> tuple[list[npt.NDArray[np.float64]], Tables]:
    """Return the validation accuracies and the correct test predictions of equal configurations."""
    tables = Population(seed=level).draw(np.random.default_rng(seed), [0.0] * points, seeds, 1200)
    return [table[:, :200].mean(axis=1) for table in tables], [table[:, 200:] for table in tables]


def best_of(scores: list[npt.NDArray[np.float64]] | Tables) -> int:
    return int(np.argmax([values.mean() for values in scores]))


def test_one_configuration_has_the_interval_of_its_mean() -> None:
    _, tests = drawn(0, points=1)
    assert chosen_interval(tests, 0) == mean_interval(tests[0])
    assert chosen_interval(tests, 0, level=0.8) == mean_interval(tests[0], level=0.8)


def test_a_choice_that_does_not_follow_the_error_changes_nothing() -> None:
    _, tests = drawn(0)
    unrelated = [1 - table.mean(axis=1) for table in tests]  # the better a seed is on test rows, the worse on the others
    best = best_of(unrelated)
    assert chosen_interval(tests, best, unrelated) == chosen_interval(tests, best, unrelated, choices=1000)


def test_given_models_chosen_on_other_rows_need_no_adjustment() -> None:
    validation, tests = drawn(0, seeds=1)
    best = best_of(validation)
    assert [*chosen_interval(tests, best, validation)] == pytest.approx([*mean_interval(tests[best])], abs=5e-4)
    assert chosen_interval(tests, best_of(tests)).low < mean_interval(tests[best_of(tests)]).low


def test_more_choices_reach_further_down_and_not_up() -> None:
    _, tests = drawn(3)
    best = best_of(tests)
    few, many = chosen_interval(tests, best), chosen_interval(tests, best, choices=200)
    assert many.low < few.low < mean_interval(tests[best]).low
    assert few.estimate <= many.high <= few.high <= mean_interval(tests[best]).high + 5e-4


@pytest.mark.parametrize("on_test_rows", [False, True])
def test_the_more_configurations_differ_the_less_the_choice_matters(on_test_rows: bool) -> None:
    def effect(step: float) -> float:
        """How much further than with 12 choices the interval reaches down with 1,000, as a share of its width."""
        tables = Population(seed=0.5).draw(np.random.default_rng(4), [-step * i for i in range(12)], 5, 1200)
        tests = [table[:, 200:] for table in tables]
        by = None if on_test_rows else [table[:, :200].mean(axis=1) for table in tables]
        best = best_of(by or tests)
        few, many = (chosen_interval(tests, best, by, choices=choices) for choices in (12, 1000))
        return (few.low - many.low) / (few.high - few.low)

    assert effect(0.5) < 0.5 * effect(0.0)


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_results_without_variation_keep_an_interval(right: float) -> None:
    tests = [np.full((3, 50), right)] * 4
    assert chosen_interval(tests, 0) == mean_interval(tests[0])
    assert chosen_interval(tests, 0, [np.array([0.5, 0.5, 0.5])] * 4) == mean_interval(tests[0])


def test_models_of_different_numbers_of_seeds_are_compared() -> None:
    validation, tests = drawn(5, points=3)
    validation[1], tests[1] = validation[1][:1], tests[1][:1]
    for best in range(3):
        low, mean, high = chosen_interval(tests, best, validation)
        assert 0 < low < mean < high < 1


@pytest.mark.slow
@pytest.mark.parametrize("on_test_rows", [False, True])
def test_the_interval_holds_the_truth_as_often_as_stated_and_a_plain_one_does_not(on_test_rows: bool) -> None:
    def held(interval: Interval) -> bool:
        return interval.low <= Population(seed=0.5).accuracy() <= interval.high

    adjusted = plain = 0
    for seed in range(300):
        validation, tests = drawn(seed, seeds=10)
        best = best_of(tests if on_test_rows else validation)
        adjusted += held(chosen_interval(tests, best, None if on_test_rows else validation))
        plain += held(mean_interval(tests[best]))
    assert 0.92 <= adjusted / 300 <= 0.99
    assert plain / 300 < adjusted / 300 - 0.03
