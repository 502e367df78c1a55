"""An experiment's rows: points over seeds, comparisons and the power law, against numbers worked out by hand."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from invented import edit
from invented_lab import answer, invent_lab, over_seeds

from loralab.errors import LoralabError
from loralab.report.experiments.kinds import read
from loralab.report.experiments.rows import ACCURACY, VALIDATION, comparison_table, key, labels, point_table, trial_table, write_csv
from loralab.report.experiments.tables import Score, curves, read_lab
from loralab.report.experiments.words import efficiency, law_table
from loralab.stats import wilson
from loralab.storage import run_folder
from loralab.storage.experiment_folder import EXPERIMENT, TRIALS

T2 = 4.302652729911275
"""The t quantile of 95 % with two degrees of freedom, from a printed table."""


def test_a_point_is_its_seeds_with_mean_deviation_and_t_interval(tmp_path: Path) -> None:
    lab = read_lab(
        invent_lab(tmp_path / "x", "grid", over_seeds([({"lora.rank": 4}, [0.80, 0.82, 0.84]), ({"lora.rank": 8}, [0.9])]))
    )
    four, eight = lab.points
    found = four.summary(ACCURACY)
    assert found
    assert (found.n, found.mean) == (3, pytest.approx(0.82))
    assert found.sd == pytest.approx(0.02)
    assert found.t == pytest.approx((0.82 - T2 * 0.02 / math.sqrt(3), 0.82, 0.82 + T2 * 0.02 / math.sqrt(3)))
    assert four.mean(Score("validation")) == pytest.approx(0.87)
    assert four.by_seed(Score(name="macro_f1")) == {1: pytest.approx(0.79), 2: pytest.approx(0.81), 3: pytest.approx(0.83)}
    assert (lab.fewest_seeds, lab.seeds, lab.axes) == (1, (1, 2, 3), {"lora.rank": (4, 8)})
    row = point_table(lab, ACCURACY).rows[1]
    assert row[:5] == (8, 1, 0.9, None, None)
    assert wilson(36, 40) in row, "0.9 of 40 test rows"
    assert [eight.mean_of(name) for name in ("seconds", "trainable")] == [12.5, 100]


def test_settings_are_chosen_on_validation_rows_and_effects_measured_on_test_rows(tmp_path: Path) -> None:
    points = over_seeds([({"lora.rank": 4}, [0.8]), ({"lora.rank": 8}, [0.9])])
    decides = {kind: read(invent_lab(tmp_path / kind, kind, points)).score for kind in ("grid", "ablation", "layers", "unheard of")}
    assert decides == {"grid": VALIDATION, "ablation": VALIDATION, "layers": ACCURACY, "unheard of": ACCURACY}
    edit(next((tmp_path / "grid").glob("trials/*")) / run_folder.SCORES, validation={})
    assert read(tmp_path / "grid").score == ACCURACY


def test_comparisons_are_paired_by_seed_and_corrected_together(tmp_path: Path) -> None:
    """Differences of 1, 2, 3 points: t = 2 sqrt 3, on 2 degrees p = 1 - t / sqrt(t² + 2); of -2, 2, 3: mean 1, deviation sqrt 7."""
    points = [({"recipe": "a"}, [0.5, 0.5, 0.5]), ({"recipe": "b"}, [0.51, 0.52, 0.53]), ({"recipe": "c"}, [0.48, 0.52, 0.53])]
    reading = read(invent_lab(tmp_path / "x", "seeds", over_seeds(points)))
    b, c = reading.comparisons
    t_b, t_c = 2 * math.sqrt(3), math.sqrt(3) / math.sqrt(7)
    p_b, p_c = (1 - t / math.sqrt(t * t + 2) for t in (t_b, t_c))
    assert [each.point.factors["recipe"] for each in (b, c)] == ["b", "c"]
    assert {each.against.factors["recipe"] for each in (b, c)} == {"a"}
    assert b.found.difference == pytest.approx(0.02)
    assert b.found.interval == pytest.approx((0.02 - T2 * 0.01 / math.sqrt(3), 0.02, 0.02 + T2 * 0.01 / math.sqrt(3)))
    assert (b.found.p, b.p) == (pytest.approx(p_b), pytest.approx(2 * p_b))
    assert (c.found.p, c.p) == (pytest.approx(p_c), pytest.approx(max(2 * p_b, p_c)))
    assert not b.clear
    table = comparison_table(reading.comparisons, reading.score)
    assert table.rows[0][table.columns.index("p: permutation")] == 0.25, "2 of the 8 ways to flip three signs"


def test_rows_are_compared_by_mcnemar_where_both_trials_predicted_them(tmp_path: Path) -> None:
    """5 rows that only b gets right, 1 that only a does: mid-p = 2 (1 + 6 / 2) / 64 = 0.125, doubled for two tests."""
    folder = invent_lab(tmp_path / "x", "seeds", over_seeds([({"recipe": "a"}, [0.8, 0.8]), ({"recipe": "b"}, [0.9, 0.9])]))
    for seed, gained in ((1, 5), (2, 0)):
        answer(folder, {"recipe": "a", "seed": seed}, [True] * 21 + [False] * 19)
        answer(folder, {"recipe": "b", "seed": seed}, [True] * 20 + [False] + [True] * gained + [False] * (19 - gained))
    first, second = read(folder).row_tests
    assert (first.seed, first.rows, first.found.only_a, first.found.only_b) == (1, 40, 5, 1)
    assert (first.found.p, first.p) == (pytest.approx(0.125), pytest.approx(0.25))
    assert first.found.interval.estimate == pytest.approx(4 / 40)
    assert (second.found.only_a, second.found.only_b) == (0, 1)
    edit(folder / TRIALS / "recipe-b_seed-2" / run_folder.ENVIRONMENT, rows={"test": {"count": 40, "fingerprint": "other"}})
    assert [test.seed for test in read(folder).row_tests] == [1], "other test rows are not compared"
    assert not read_lab(folder).same_test_rows


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
        ("few-shot", [{"data.shots_per_class": n} for n in (10, 1, 5)], [(2, 1), (0, 2)]),
        ("grid", [{"lora.rank": 2}, {"lora.rank": 4}, {"lora.rank": 8}], [(0, 1), (2, 1)]),
        ("compare", [{"run": "a"}, {"run": "b"}, {"run": "c"}], [(1, 0), (2, 0)]),
    ],
)
def test_each_kind_compares_with_what_it_asks_about(
    tmp_path: Path, kind: str, points: list[dict[str, object]], expected: list[tuple[int, int]]
) -> None:
    accuracies = [0.5, 0.7, 0.6, 0.65]
    folder = invent_lab(tmp_path / "x", kind, over_seeds([(p, [a, a + 0.01]) for p, a in zip(points, accuracies, strict=False)]))  # type: ignore[misc]
    reading = read(folder)
    found = [(each.point.factors, each.against.factors) for each in reading.comparisons]
    assert found == [(points[i], points[j]) for i, j in expected]


def test_trials_that_failed_or_wait_have_their_line(tmp_path: Path) -> None:
    done, failed, waiting = ({"lora.rank": rank, "seed": 1} for rank in (4, 8, 16))
    folder = invent_lab(tmp_path / "x", "grid", [(done, 0.8)], failed=[failed], waiting=[waiting])
    lab = read_lab(folder)
    assert [trial.state for trial in lab.trials] == ["complete", "failed", "not begun"]
    assert (len(lab.points), len(lab.complete)) == (1, 1)
    with (tmp_path / "trials.csv").open("w", encoding="utf-8", newline="") as file:
        write_csv(trial_table(lab), file)
    with (tmp_path / "trials.csv").open(encoding="utf-8", newline="") as file:
        good, bad, later = csv.DictReader(file)
    assert list(good)[:5] == ["trial", "lora.rank", "seed", "state", "test_loss"]
    assert (good["test_accuracy"], good["validation_accuracy"]) == ("0.8", "0.8500000000000001")
    assert (good["trainable"], good["seconds"], good["training_rows"]) == ("100", "12.5", "640")
    assert (bad["lora.rank"], bad["test_accuracy"], bad["failure"]) == ("8", "", "CUDA is out of memory")
    assert (later["state"], later["seconds"]) == ("not begun", "")


def test_intervals_have_two_columns_in_a_file(tmp_path: Path) -> None:
    lab = read_lab(invent_lab(tmp_path / "x", "seeds", over_seeds([({}, [0.8, 0.9])])))
    with (tmp_path / "points.csv").open("w+", encoding="utf-8", newline="") as file:
        write_csv(point_table(lab, ACCURACY), file)
        file.seek(0)
        (row,) = csv.DictReader(file)
    assert float(row["t interval low"]) + float(row["t interval high"]) == pytest.approx(1.7)
    assert float(row["of the test rows low"]) == pytest.approx(wilson(34, 40).low)


def test_the_law_of_exact_errors_is_found_and_checked(tmp_path: Path) -> None:
    """error = 0.1 + 2 rows^-0.5; a doubling takes off 1 point where 2 (1 - 2^-0.5) rows^-0.5 = 0.01, at 3,431 rows."""
    sizes = (25, 100, 400, 1600)
    trials = over_seeds([({"data.max_train_samples": n}, [0.9 - 2 * n**-0.5 + luck for luck in (-0.001, 0, 0.001)]) for n in sizes])
    reading = read(invent_lab(tmp_path / "x", "scaling", trials))
    law = reading.law
    assert law
    assert (law.fitted.a, law.fitted.b, law.fitted.c) == (
        pytest.approx(2, rel=0.01),
        pytest.approx(0.5, rel=0.01),
        pytest.approx(0.1, abs=0.002),
    )
    assert law.diminishing == pytest.approx((2 * (1 - 2**-0.5) / 0.01) ** 2, rel=0.03)
    assert law.checked
    assert law.checked.predicted == pytest.approx(0.15, abs=0.003)
    values = {row[0]: row[1] for row in law_table(law).rows}
    assert values["error predicted at 3,200 rows"] == pytest.approx(0.1 + 2 * 3200**-0.5, abs=0.002)
    table = efficiency(reading)
    assert table
    last = dict(zip(table.columns, table.rows[-1], strict=True))
    assert last["gain since the size before"] == pytest.approx(0.05)
    assert last["gain per 100 rows"] == pytest.approx(0.05 / 12)
    assert (table.rows[1][3], last["share of the largest's"]) == (pytest.approx(0.7 / 0.85), 1)


def test_curves_hold_only_the_steps_that_all_seeds_evaluated(tmp_path: Path) -> None:
    folder = invent_lab(tmp_path / "x", "grid", over_seeds([({"lora.rank": 4}, [0.8, 0.9])]))
    log = folder / TRIALS / "rank-4_seed-2" / run_folder.LOG
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if '"step": 20' not in line))
    steps, scores = curves(read_lab(folder).points[0].trials)
    assert steps == [10, 30, 40]
    np.testing.assert_allclose(scores, [[0.7, 0.8 - 1 / 30, 0.775], [0.8, 0.9 - 1 / 30, 0.875]])


def test_labels_leave_out_what_all_points_share(tmp_path: Path) -> None:
    lab = read_lab(invent_lab(tmp_path / "x", "grid", over_seeds([({"lora.rank": r, "lora.alpha": 16}, [0.8]) for r in (4, 8)])))
    assert (labels(lab.points), key(lab.points)) == (["4", "8"], "Labels: rank. ")
    runs_ = [({"recipe": name, "lora.rank": rank}, [0.8]) for name, rank in (("a", 4), ("b", 8))]
    compared = read_lab(invent_lab(tmp_path / "z", "compare", over_seeds(runs_)))
    assert (labels(compared.points), key(compared.points)) == (["a", "b"], "Labels: recipe. ")
    mixed = read_lab(invent_lab(tmp_path / "y", "ablation", over_seeds([({}, [0.8]), ({"lora.rank": 4}, [0.8])])))
    assert point_table(mixed, ACCURACY).columns[0] == "point"
    assert [row[0] for row in point_table(mixed, ACCURACY).rows] == ["the recipe's own settings", "rank 4"]
    assert (labels(mixed.points), key(mixed.points)) == (["the recipe's own settings", "rank 4"], "")


def test_damaged_files_are_said_by_name(tmp_path: Path) -> None:
    folder = invent_lab(tmp_path / "x", "grid", over_seeds([({"lora.rank": 4}, [0.8])]))
    edit(folder / TRIALS / "rank-4_seed-1" / run_folder.SCORES, steps=None)
    with pytest.raises(LoralabError, match=r"rank-4_seed-1 is damaged .*steps"):
        read(folder)
    (folder / EXPERIMENT).write_text("{}", encoding="utf-8")
    with pytest.raises(LoralabError, match=r"experiment\.json is damaged"):
        read(folder)
