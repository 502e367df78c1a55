"""What an experiment's report claims: nothing under three seeds, and no more than the statistics support."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_experiment import Factors, make_experiment, over_seeds
from fake_run import edit

from loralab.report.experiments.findings import findings, headline, question_facts
from loralab.report.experiments.profiles import analyze_experiment
from loralab.stats import wilson
from loralab.storage import run_folder

CLAIM = re.compile(r"better by|worse by|are significant|reaches|not significantly worse")


def text_of(folder: Path) -> str:
    return "\n".join(findings(analyze_experiment(folder)))


def seeds(tmp_path: Path, *points: tuple[Factors, list[float]], kind: str = "seeds") -> Path:
    return make_experiment(tmp_path / "x", kind, over_seeds(points))


@pytest.mark.parametrize("kind", ["seeds", "grid", "layers", "few-shot", "active", "scaling"])
@pytest.mark.parametrize("n", [1, 2])
def test_under_three_seeds_nothing_is_claimed(tmp_path: Path, kind: str, n: int) -> None:
    points = [({"lora.layers": "top1", "labels": 100}, [0.5, 0.501][:n]), ({"lora.layers": "all", "labels": 500}, [0.9, 0.902][:n])]
    folder = seeds(tmp_path, *points, kind=kind)
    words = text_of(folder)
    assert not CLAIM.search(words), words
    assert f"{n} seed{'' if n == 1 else 's'} per configuration: too few for any claim" in words
    assert "often misses" not in words
    assert "too few for any claim" in headline(analyze_experiment(folder))[1]
    assert not any(each.significant for each in analyze_experiment(folder).comparisons)
    assert "interval" not in words.replace("Intervals over seeds do not", "").replace("too few seeds for an interval", "")


def test_with_three_seeds_a_large_difference_is_claimed(tmp_path: Path) -> None:
    words = text_of(seeds(tmp_path, ({"recipe": "a"}, [0.5, 0.51, 0.52]), ({"recipe": "b"}, [0.9, 0.911, 0.919])))
    assert "Recipe b vs. recipe a: better by 40.00 points" in words
    assert re.search(r"With 3 seeds, .* misses a true difference below \d+\.\d\d points", words)


def test_a_difference_that_is_not_significant_is_named(tmp_path: Path) -> None:
    words = text_of(seeds(tmp_path, ({"recipe": "a"}, [0.80, 0.85, 0.90]), ({"recipe": "b"}, [0.85, 0.84, 0.91])))
    assert not CLAIM.search(words)
    assert "The difference from recipe a is not significant (Holm-adjusted p ≥ 0.05): recipe b." in words


def test_one_recipe_has_its_mean_and_spread(tmp_path: Path) -> None:
    words = findings(analyze_experiment(seeds(tmp_path, ({}, [0.80, 0.82, 0.84]))))
    assert words[0] == (
        "Mean test accuracy: 82.00 % (95 % CI 77.03 to 86.97, 3 seeds). Standard deviation between seeds: 2.00 points; "
        "range: 80.00 % to 84.00 %."
    )


def test_one_recipe_with_two_seeds_has_a_mean_and_no_interval(tmp_path: Path) -> None:
    words = findings(analyze_experiment(seeds(tmp_path, ({}, [0.80, 0.82]))))
    assert words[0] == ("2 seeds per configuration: too few for any claim (at least 3 are needed). Mean test accuracy: 81.00 %.")


def test_the_sampling_error_of_the_test_rows_is_stated_once(tmp_path: Path) -> None:
    words = text_of(seeds(tmp_path, ({}, [0.8, 0.8, 0.8])))
    low, _, high = wilson(32, 40)
    assert f"sampling error alone puts a test accuracy of 80.00 % at {100 * low:.2f} to {100 * high:.2f} (95 % CI, Wilson)" in words
    assert words.count("Wilson") == 1


def test_a_choice_on_validation_rows_has_its_test_score(tmp_path: Path) -> None:
    points = [({"lora.rank": r}, [0.5 + r / 100, 0.51 + r / 100, 0.52 + r / 100]) for r in (2, 4, 8)]
    words = findings(analyze_experiment(seeds(tmp_path, *points, kind="grid")))
    assert words[0].startswith("Highest mean validation accuracy: rank 8, 64.00 %")
    assert words[0].endswith("Its mean test accuracy: 59.00 %.")
    assert "chose it from 3 configurations" in words[1]


def test_ties_are_all_named(tmp_path: Path) -> None:
    words = text_of(seeds(tmp_path, *[({"lora.rank": r}, [0.5, 0.6, 0.7]) for r in (2, 4, 8)], kind="grid"))
    assert "Tied with it: rank 4; rank 8." in words


def test_fewer_layers_have_their_savings_and_possible_loss(tmp_path: Path) -> None:
    found_by = {"top1": [0.5, 0.51, 0.52], "top2": [0.79, 0.81, 0.8], "all": [0.8, 0.8, 0.81]}
    points = [({"lora.layers": name}, values) for name, values in found_by.items()]
    folder = seeds(tmp_path, *points, kind="layers")
    for path in folder.glob("trials/*all*"):
        edit(path / run_folder.SCORES, counts={"base": 1000, "adapter": 360, "head": 40, "trainable": 400}, seconds=50)
    words = text_of(folder)
    cheapest = (
        "Layers top2 is the cheapest choice that is not significantly worse than layers all: 100 vs. 400 trainable parameters"
    )
    assert cheapest in words


def test_an_incomplete_experiment_says_so(tmp_path: Path) -> None:
    factors = [{"lora.rank": r, "seed": 1} for r in (2, 4, 8)]
    folder = make_experiment(tmp_path / "x", "grid", [(factors[0], 0.8)], failed=[factors[1]], waiting=[factors[2]])
    assert "1 of 3 trials have a result (1 failed): the experiment is not complete." in text_of(folder)
    nothing = make_experiment(tmp_path / "y", "grid", [], waiting=factors)
    assert findings(analyze_experiment(nothing)) == [
        "0 of 3 trials have a result: the experiment is not complete.",
        "No trial has a result yet.",
    ]
    assert headline(analyze_experiment(nothing)) == ("No trial has a result yet.", "")


def test_question_varied_and_fixed_settings(tmp_path: Path) -> None:
    folder = seeds(tmp_path, ({"lora.rank": 2}, [0.8, 0.8]), ({"lora.rank": 4}, [0.8, 0.8]))
    assert question_facts(analyze_experiment(folder).data) == {
        "Question": ["Which?"],
        "Recipe": ["quickstart"],
        "Varied": ["lora.rank: 2, 4", "seed: 1, 2"],
        "Fixed": ["train.epochs=3", "everything else: recipe defaults"],
        "Test rows": ["the same 40 in every run"],
    }
    edit(next(folder.glob("trials/*")) / run_folder.ENVIRONMENT, rows={"test": {"count": 40, "fingerprint": "another"}})
    assert question_facts(analyze_experiment(folder).data)["Test rows"] == ["differ between runs: test scores are not comparable"]


def test_the_law_is_checked_at_its_last_size(tmp_path: Path) -> None:
    def words(last: float) -> str:
        sizes = {25: 0.5, 100: 0.7, 400: 0.8, 1600: last}
        points = [({"data.max_train_samples": n}, [a - 0.001, a, a + 0.001]) for n, a in sizes.items()]
        return text_of(make_experiment(tmp_path / str(last), "scaling", over_seeds(points)))

    assert "no evidence against the law" in words(0.85)
    assert "less than seeds explain. Do not rely on its predictions." in words(0.95)
    assert "more than seeds explain. Do not rely on its predictions." in words(0.75)


def test_few_sizes_make_no_law(tmp_path: Path) -> None:
    words = text_of(seeds(tmp_path, *[({"data.max_train_samples": n}, [0.5, 0.6, 0.7]) for n in (50, 100)], kind="scaling"))
    assert "Too few sizes for a power law" in words


def test_the_smallest_size_near_the_largest_is_named(tmp_path: Path) -> None:
    points = [({"data.shots_per_class": n}, [a - 0.01, a, a + 0.01]) for n, a in ((1, 0.5), (10, 0.86), (50, 0.89), (100, 0.9))]
    words = text_of(seeds(tmp_path, *points, kind="few-shot"))
    assert "Shots per class 10 (640 training rows) reaches 95.56 % of the mean test accuracy at the largest size." in words
    assert "Shots per class 50 (640 training rows) reaches" not in words
    two = [(factors, values[:2]) for factors, values in points]
    assert "reaches" not in text_of(make_experiment(tmp_path / "two", "few-shot", over_seeds(two)))


def test_zero_accuracy_has_no_size_near_the_largest(tmp_path: Path) -> None:
    zeros = [({"data.shots_per_class": n}, [0.0] * 3) for n in (1, 10)]
    assert "reaches" not in text_of(make_experiment(tmp_path / "x", "few-shot", over_seeds(zeros)))
