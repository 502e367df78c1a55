"""An experiment's tables: configurations over seeds, comparisons, the power law, against hand-computed numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from fake_experiment import answer, make_experiment, over_seeds
from fake_run import edit

from loralab.errors import LoralabError
from loralab.report.experiments.experiment_data import ACCURACY, VALIDATION, Score, read_experiment_data, validation_curves
from loralab.report.experiments.profiles import analyze_experiment
from loralab.report.experiments.result_tables import (
    comparison_table,
    label_legend,
    point_labels,
    point_table,
    power_law_table,
    sample_efficiency_table,
    trial_table,
    write_csv,
)
from loralab.stats import difference, mean_interval, moderate, wilson
from loralab.storage import run_folder
from loralab.storage.experiment_folder import EXPERIMENT, TRIALS


def test_a_point_is_its_seeds_with_mean_deviation_and_interval(tmp_path: Path) -> None:
    data = read_experiment_data(
        make_experiment(tmp_path / "x", "grid", over_seeds([({"lora.rank": 4}, [0.80, 0.82, 0.84]), ({"lora.rank": 8}, [0.9])]))
    )
    four, eight = data.points
    assert (four.mean(ACCURACY), four.std(ACCURACY)) == (pytest.approx(0.82), pytest.approx(0.02))
    assert four.interval == mean_interval([np.arange(400) < n for n in (320, 328, 336)])
    assert (four.new_seeds, eight.new_seeds, eight.std(ACCURACY)) == (True, False, None)
    assert four.mean(Score("validation")) == pytest.approx(0.87)
    assert four.by_seed(Score(name="macro_f1")) == {1: pytest.approx(0.79), 2: pytest.approx(0.81), 3: pytest.approx(0.83)}
    assert (data.seeds, data.axes) == ((1, 2, 3), {"lora.rank": (4, 8)})
    table = point_table(data, ACCURACY)
    row = dict(zip(table.columns, table.rows[1], strict=True))
    assert (row["lora.rank"], row["seeds"], row["test accuracy"], row["std"]) == (8, 1, 0.9, None)
    assert row["95 % CI"] == pytest.approx(wilson(360, 400), abs=1e-9)
    assert [eight.mean_fact(name) for name in ("seconds", "trainable")] == [12.5, 100]


def test_settings_are_chosen_on_validation_rows_and_effects_measured_on_test_rows(tmp_path: Path) -> None:
    points = over_seeds([({"lora.rank": 4}, [0.8]), ({"lora.rank": 8}, [0.9])])
    decides = {
        kind: analyze_experiment(make_experiment(tmp_path / kind, kind, points)).score
        for kind in ("grid", "ablation", "layers", "unheard of")
    }
    assert decides == {"grid": VALIDATION, "ablation": VALIDATION, "layers": ACCURACY, "unheard of": ACCURACY}
    edit(next((tmp_path / "grid").glob("trials/*")) / run_folder.SCORES, validation={})
    assert analyze_experiment(tmp_path / "grid").score == ACCURACY


def test_comparisons_are_paired_by_seed_and_adjusted_together(tmp_path: Path) -> None:
    points = [({"recipe": "a"}, [0.5, 0.5, 0.5]), ({"recipe": "b"}, [0.51, 0.52, 0.53]), ({"recipe": "c"}, [0.48, 0.52, 0.53])]
    analysis = analyze_experiment(make_experiment(tmp_path / "x", "seeds", over_seeds(points)))
    b, c = analysis.comparisons
    assert [comparison.point.factors["recipe"] for comparison in (b, c)] == ["b", "c"]
    assert {comparison.baseline.factors["recipe"] for comparison in (b, c)} == {"a"}
    rows = np.arange(400)
    others = ((204, 208, 212), (192, 208, 212))
    expected, _ = moderate([difference([rows < n for n in ns], [rows < 200] * 3, paired=True) for ns in others])
    assert (b.test, b.family) == (expected, 2)
    assert (b.test.value, b.p) == (pytest.approx(0.02), expected.p(2))
    assert b.interval == expected.interval(2)
    table = comparison_table(analysis.comparisons)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["difference"], row["p"], row["seeds"]) == (pytest.approx(0.02), b.p, "3, paired")


def test_fewer_than_three_shared_seeds_are_not_paired(tmp_path: Path) -> None:
    trials = [({"recipe": "a", "seed": seed}, 0.80 + seed / 200) for seed in range(1, 6)]
    trials += [({"recipe": "b", "seed": seed}, 0.70 + seed / 200) for seed in range(5, 10)]
    (comparison,) = analyze_experiment(make_experiment(tmp_path / "x", "seeds", trials)).comparisons
    assert (comparison.test.paired, comparison.test.seeds, comparison.test.new_seeds) == (False, (5, 5), True)
    assert comparison.test.value == pytest.approx(0.735 - 0.815)
    assert comparison.significant


def test_other_test_rows_are_not_compared(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "x", "seeds", over_seeds([({"recipe": "a"}, [0.8, 0.8]), ({"recipe": "b"}, [0.9, 0.9])]))
    answer(folder, {"recipe": "a", "seed": 1}, [True] * 100 + [False] * 300)
    (comparison,) = analyze_experiment(folder).comparisons
    assert comparison.test.value == pytest.approx(0.9 - (0.8 + 0.25) / 2), "from the predictions"
    edit(folder / TRIALS / "recipe-b_seed-2" / run_folder.ENVIRONMENT, rows={"test": {"count": 400, "fingerprint": "other"}})
    assert analyze_experiment(folder).comparisons == ()
    assert not read_experiment_data(folder).same_test_rows


@pytest.mark.parametrize(
    ("kind", "points", "expected"),
    [
        ("ablation", [{}, {"lora.rank": 2}, {"lora.alpha": "2r"}], [(1, 0), (2, 0)]),
        ("layers", [{"lora.layers": "top1"}, {"lora.layers": "all"}, {"lora.layers": "top2"}], [(0, 1), (2, 1)]),
        (
            "augmentation",
            [{"technique": "none", "ratio": 0}, {"technique": "swap", "ratio": 0.25}, {"technique": "swap", "ratio": 0.5}],
            [(1, 0), (2, 0)],
        ),
        (
            "active",
            [{"strategy": s, "labels": n} for n in (100, 500) for s in ("random", "entropy")],
            [(1, 0), (3, 2)],
        ),
        ("few-shot", [{"data.shots_per_class": n} for n in (10, 1, 5)], [(1, 0), (2, 0)]),
        ("grid", [{"lora.rank": 2}, {"lora.rank": 4}, {"lora.rank": 8}], [(0, 1), (2, 1)]),
        ("compare", [{"run": "a"}, {"run": "b"}, {"run": "c"}], [(1, 0), (2, 0)]),
    ],
)
def test_each_kind_has_its_baselines(
    tmp_path: Path, kind: str, points: list[dict[str, object]], expected: list[tuple[int, int]]
) -> None:
    accuracies = [0.5, 0.7, 0.6, 0.65]
    folder = make_experiment(
        tmp_path / "x", kind, over_seeds([(p, [a, a + 0.01]) for p, a in zip(points, accuracies, strict=False)])
    )  # type: ignore[misc]
    analysis = analyze_experiment(folder)
    found = [(each.point.factors, each.baseline.factors) for each in analysis.comparisons]
    assert found == [(points[i], points[j]) for i, j in expected]


def test_failed_and_waiting_trials_have_a_row(tmp_path: Path) -> None:
    done, failed, waiting = ({"lora.rank": rank, "seed": 1} for rank in (4, 8, 16))
    folder = make_experiment(tmp_path / "x", "grid", [(done, 0.8)], failed=[failed], waiting=[waiting])
    data = read_experiment_data(folder)
    assert [trial.state for trial in data.trials] == ["complete", "failed", "not started"]
    assert (len(data.points), len(data.complete)) == (1, 1)
    with (tmp_path / "trials.csv").open("w", encoding="utf-8", newline="") as file:
        write_csv(trial_table(data), file)
    with (tmp_path / "trials.csv").open(encoding="utf-8", newline="") as file:
        good, bad, later = csv.DictReader(file)
    assert list(good)[:5] == ["trial", "lora.rank", "seed", "state", "test_loss"]
    assert (good["test_accuracy"], good["validation_accuracy"]) == ("0.8", "0.8500000000000001")
    assert (good["trainable"], good["seconds"], good["training_rows"]) == ("100", "12.5", "640")
    assert (bad["lora.rank"], bad["test_accuracy"], bad["failure"]) == ("8", "", "CUDA is out of memory")
    assert (later["state"], later["seconds"]) == ("not started", "")


def test_intervals_have_two_columns_in_a_file(tmp_path: Path) -> None:
    data = read_experiment_data(make_experiment(tmp_path / "x", "seeds", over_seeds([({}, [0.8, 0.9])])))
    with (tmp_path / "points.csv").open("w+", encoding="utf-8", newline="") as file:
        write_csv(point_table(data, ACCURACY), file)
        file.seek(0)
        (row,) = csv.DictReader(file)
    low, _, high = mean_interval([np.arange(400) < 320, np.arange(400) < 360])
    assert (float(row["95 % CI low"]), float(row["95 % CI high"])) == pytest.approx((low, high))


def test_the_power_law_of_exact_errors_is_recovered(tmp_path: Path) -> None:
    """error = 0.1 + 2 rows^-0.5; a doubling takes off 1 point where 2 (1 - 2^-0.5) rows^-0.5 = 0.01, at 3,431 rows."""
    sizes = (25, 100, 400, 1600)
    trials = over_seeds([({"data.max_train_samples": n}, [0.9 - 2 * n**-0.5 + luck for luck in (-0.001, 0, 0.001)]) for n in sizes])
    analysis = analyze_experiment(make_experiment(tmp_path / "x", "scaling", trials))
    law = analysis.scaling_law
    assert law
    assert (law.law.a, law.law.b, law.law.c) == (
        pytest.approx(2, rel=0.01),
        pytest.approx(0.5, rel=0.01),
        pytest.approx(0.1, abs=0.002),
    )
    assert law.diminishing == pytest.approx((2 * (1 - 2**-0.5) / 0.01) ** 2, rel=0.03)
    assert law.checked
    assert law.checked.predicted == pytest.approx(0.15, abs=0.003)
    values = {row[0]: row[1] for row in power_law_table(law).rows}
    assert values["predicted error at 3,200 rows"] == pytest.approx(0.1 + 2 * 3200**-0.5, abs=0.002)
    table = sample_efficiency_table(analysis)
    assert table
    last = dict(zip(table.columns, table.rows[-1], strict=True))
    assert last["gain over the previous size"] == pytest.approx(0.05)
    assert last["gain per 100 rows"] == pytest.approx(0.05 / 12)
    assert (table.rows[1][3], last["share of the largest size"]) == (pytest.approx(0.7 / 0.85), 1)


def test_curves_hold_only_the_steps_that_all_seeds_evaluated(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "x", "grid", over_seeds([({"lora.rank": 4}, [0.8, 0.9])]))
    log = folder / TRIALS / "rank-4_seed-2" / run_folder.LOG
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if '"step": 20' not in line))
    steps, scores = validation_curves(read_experiment_data(folder).points[0].trials)
    assert steps == [10, 30, 40]
    np.testing.assert_allclose(scores, [[0.7, 0.8 - 1 / 30, 0.775], [0.8, 0.9 - 1 / 30, 0.875]])


def test_labels_leave_out_what_all_points_share(tmp_path: Path) -> None:
    data = read_experiment_data(
        make_experiment(tmp_path / "x", "grid", over_seeds([({"lora.rank": r, "lora.alpha": 16}, [0.8]) for r in (4, 8)]))
    )
    assert (point_labels(data.points), label_legend(data.points)) == (["4", "8"], "Labels: rank. ")
    runs_ = [({"recipe": name, "lora.rank": rank}, [0.8]) for name, rank in (("a", 4), ("b", 8))]
    compared = read_experiment_data(make_experiment(tmp_path / "z", "compare", over_seeds(runs_)))
    assert (point_labels(compared.points), label_legend(compared.points)) == (["a", "b"], "Labels: recipe. ")
    mixed = read_experiment_data(make_experiment(tmp_path / "y", "ablation", over_seeds([({}, [0.8]), ({"lora.rank": 4}, [0.8])])))
    assert point_table(mixed, ACCURACY).columns[0] == "configuration"
    assert [row[0] for row in point_table(mixed, ACCURACY).rows] == ["recipe defaults", "rank 4"]
    assert (point_labels(mixed.points), label_legend(mixed.points)) == (["recipe defaults", "rank 4"], "")


def test_errors_name_the_damaged_file(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "x", "grid", over_seeds([({"lora.rank": 4}, [0.8])]))
    edit(folder / TRIALS / "rank-4_seed-1" / run_folder.SCORES, steps=None)
    with pytest.raises(LoralabError, match=r"rank-4_seed-1 is damaged .*steps"):
        analyze_experiment(folder)
    (folder / EXPERIMENT).write_text("{}", encoding="utf-8")
    with pytest.raises(LoralabError, match=r"experiment\.json is damaged"):
        analyze_experiment(folder)
