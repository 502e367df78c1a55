"""What an experiment's report claims: nothing under three seeds, and no more than the statistics support."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from fake_experiment import Factors, make_experiment, over_seeds
from fake_run import edit

from loralab.report.experiments.findings import findings, headline, question_facts
from loralab.report.experiments.profiles import analyze_experiment
from loralab.report.experiments.reading_notes import reading_notes
from loralab.stats import mean_interval, wilson
from loralab.storage import run_folder
from loralab.storage.experiment_folder import EXPERIMENT


def text_of(folder: Path) -> str:
    return "\n".join(findings(analyze_experiment(folder)))


def seeds(tmp_path: Path, *points: tuple[Factors, list[float]], kind: str = "seeds") -> Path:
    return make_experiment(tmp_path / "x", kind, over_seeds(points))


@pytest.mark.parametrize("kind", ["seeds", "layers", "active"])
@pytest.mark.parametrize("n", [1, 2])
def test_under_three_seeds_a_claim_is_about_these_models(tmp_path: Path, kind: str, n: int) -> None:
    points = [
        ({"lora.layers": "top1", "strategy": "margin"}, [0.5, 0.5][:n]),
        ({"lora.layers": "all", "strategy": "random"}, [0.9, 0.9][:n]),
    ]
    words = text_of(seeds(tmp_path, *points, kind=kind))
    assert " by 40.00 points for these models (95 % CI 3" in words
    assert "intervals and tests allow for other test rows only. Other seeds may change the results" in words or n == 2


def test_with_three_seeds_a_large_difference_is_claimed(tmp_path: Path) -> None:
    words = text_of(seeds(tmp_path, ({"recipe": "a"}, [0.5, 0.51, 0.52]), ({"recipe": "b"}, [0.9, 0.91, 0.92])))
    assert re.search(r"Recipe b vs\. recipe a: better by 40\.00 points \(95 % CI 3\d\.\d\d to 4\d\.\d\d, p < 0\.001\)\.", words)
    assert words.endswith("Intervals and tests allow for other test rows and other seeds.")


def test_seven_answers_are_no_claim(tmp_path: Path) -> None:
    """2, 2 and 3 of 400 rows over three seeds: a paired t-test over the seeds would have p = 0.020."""
    words = text_of(seeds(tmp_path, ({"recipe": "a"}, [0.9, 0.9, 0.9]), ({"recipe": "b"}, [0.905, 0.905, 0.9075])))
    assert "Recipe b vs. recipe a: no significant difference: +0.58 points (95 % CI −" in words


def test_results_that_do_not_depend_on_the_seed_are_decided_by_rows(tmp_path: Path) -> None:
    points = [({"head": "names"}, [0.6825] * 5), ({"head": "descriptions"}, [0.8725] * 5)]
    folder = seeds(tmp_path, *points, kind="zero-shot")
    words, top = text_of(folder), headline(analyze_experiment(folder))
    interval = r"15\.0\d to 22\.8\d"  # Bonett and Price: 77/402 and 1/402 discordant
    assert re.search(rf"Head descriptions vs\. head names: better by 19\.00 points \(95 % CI {interval}, p < 0\.001\)\.", words)
    assert words.endswith("so the seed changes nothing. Intervals and tests allow for other test rows.")
    assert (top.number, top.unit, top.measure) == ("87.3", "%", "Test accuracy with head descriptions (mean of 5 runs).")
    assert top.uncertainty.endswith("adjusted for the choice among 2. Lowest: head names, 68.25 %.")
    edit(folder / EXPERIMENT, kind="seeds")
    top = headline(analyze_experiment(folder))
    assert (top.number, top.unit) == ("+19.00", "points")
    assert top.measure == "Difference in mean test accuracy: head descriptions minus head names."
    assert re.fullmatch(r"95 % CI \+15\.0\d to \+22\.8\d; p < 0\.001\.", top.uncertainty)


def test_active_learning_is_judged_with_all_labels(tmp_path: Path) -> None:
    accuracies = {("random", 20): 0.5, ("random", 40): 0.8, ("margin", 20): 0.6, ("margin", 40): 0.81}
    points = [({"strategy": name, "labels": n}, [a, a, a + 0.01]) for (name, n), a in accuracies.items()]
    top = headline(analyze_experiment(seeds(tmp_path, *points, kind="active")))
    assert top.measure == "Difference in mean test accuracy: strategy margin, 40 labels minus strategy random, 40 labels."


def test_a_zero_shot_experiment_of_one_seed_does_not_blame_the_seed(tmp_path: Path) -> None:
    folder = seeds(tmp_path, ({"head": "names"}, [0.68]), ({"head": "descriptions"}, [0.87]), kind="zero-shot")
    edit(folder / EXPERIMENT, fixed=["train.epochs=0"])
    assert text_of(folder).endswith("so the seed changes nothing. Intervals and tests allow for other test rows.")


def test_one_recipe_has_its_mean_and_spread(tmp_path: Path) -> None:
    words = findings(analyze_experiment(seeds(tmp_path, ({}, [0.80, 0.82, 0.84]))))
    low, mean, high = mean_interval([np.arange(400) < n for n in (320, 328, 336)])
    assert mean == pytest.approx(0.82)
    assert words[:2] == [
        f"Mean test accuracy: 82.00 % (95 % CI {100 * low:.2f} to {100 * high:.2f}).",
        "Between 3 seeds the test accuracy has a standard deviation of 2.00 points and ranges from 80.00 % to 84.00 %.",
    ]
    assert low < wilson(328, 400).low - 0.005, "wider than for one model"
    assert high > wilson(328, 400).high + 0.003


def test_several_comparisons_are_adjusted_together(tmp_path: Path) -> None:
    points = [({"recipe": "a"}, [0.8] * 3), ({"recipe": "b"}, [0.8125] * 3), ({"recipe": "c"}, [0.8175] * 3)]
    words = text_of(seeds(tmp_path, *points))
    assert "None of the 2 differences from recipe a is significant" not in words
    assert "Recipe c vs. recipe a: better by 1.75 points" in words
    assert (
        "1 of 2 differences from recipe a is not significant (p ≥ 0.05, adjusted for 2 comparisons). In points: recipe b (+1.25)."
        in words
    )


def test_a_choice_on_validation_rows_has_its_test_score(tmp_path: Path) -> None:
    points = [({"lora.rank": r}, [0.5 + r / 100, 0.51 + r / 100, 0.52 + r / 100]) for r in (2, 4, 8)]
    analysis = analyze_experiment(seeds(tmp_path, *points, kind="grid"))
    words = findings(analysis)
    assert words[0].startswith("Highest mean validation accuracy: rank 8, with 64.00 %. As the best of 3 this score ")
    assert "Rely on the test accuracy: 59.00 % (95 % CI " in words[0]
    assert words[0].endswith("adjusted for the choice among 3).")
    assert {comparison.family for comparison in analysis.comparisons} == {3}, (
        "each pair of three could have been the best and another"
    )
    top = headline(analysis)
    assert (top.number, top.unit) == ("59.0", "%")
    assert top.measure == "Test accuracy with rank 8 (mean of 3 runs), which has the highest validation accuracy."


def test_an_ablation_counts_the_changes_that_matter(tmp_path: Path) -> None:
    points = [({}, [0.8] * 3), ({"lora.rank": 2}, [0.7] * 3), ({"lora.alpha": 8}, [0.8] * 3)]
    top = headline(analyze_experiment(seeds(tmp_path, *points, kind="ablation")))
    assert (top.number, top.unit) == ("1", "of 2")
    assert top.uncertainty.startswith("The recipe's own test accuracy: 80.00 % (95 % CI 75.")


def test_ties_are_all_named(tmp_path: Path) -> None:
    words = text_of(seeds(tmp_path, *[({"lora.rank": r}, [0.5, 0.6, 0.7]) for r in (2, 4, 8)], kind="grid"))
    assert "Tied with it: rank 4; rank 8. Of tied configurations the one with the fewest trainable parameters is named." in words


def test_of_ties_the_smallest_is_best(tmp_path: Path) -> None:
    folder = seeds(tmp_path, *[({"lora.rank": r}, [0.5, 0.6, 0.7]) for r in (8, 4, 2)], kind="grid")
    for path in folder.glob("trials/rank-4*"):
        edit(path / run_folder.SCORES, counts={"base": 1000, "adapter": 36, "head": 40, "trainable": 40})
    best = analyze_experiment(folder).best
    assert best
    assert best.factors == {"lora.rank": 4}


def test_the_cheapest_choice_within_the_margin_is_recommended(tmp_path: Path) -> None:
    accuracies = {"top1": [0.5, 0.51, 0.52], "top2": [0.8, 0.8, 0.81], "all": [0.8, 0.8, 0.81]}
    points = [({"lora.layers": name}, values) for name, values in accuracies.items()]
    folder = seeds(tmp_path, *points, kind="layers")
    for path in folder.glob("trials/*all*"):
        edit(path / run_folder.SCORES, counts={"base": 1000, "adapter": 360, "head": 40, "trainable": 400}, seconds=50)
    assert (
        "Layers top2 has the fewest trainable parameters of the choices shown to lose less than 1 point against layers all: "
        "100 vs. 400. Difference: +0.00 points (95 % CI −"
    ) in text_of(folder)


def test_what_is_not_shown_to_be_as_good_is_not_recommended(tmp_path: Path) -> None:
    """Lower for all three seeds, by 4 rows: not significantly worse, and not shown to be within the margin."""
    points = [({"lora.layers": "top1"}, [0.79, 0.79, 0.80]), ({"lora.layers": "all"}, [0.8, 0.8, 0.81])]
    folder = seeds(tmp_path, *points, kind="layers")
    for path in folder.glob("trials/*all*"):
        edit(path / run_folder.SCORES, counts={"base": 1000, "adapter": 360, "head": 40, "trainable": 400})
    words = text_of(folder)
    nearest = "The best of them, layers top1, differs by −1.00 points; its 95 % CI reaches down to −1.80."
    assert f"No choice with fewer trainable parameters is shown to lose less than 1 point against layers all. {nearest}" in words


def test_an_incomplete_experiment_says_so(tmp_path: Path) -> None:
    factors = [{"lora.rank": r, "seed": 1} for r in (2, 4, 8)]
    folder = make_experiment(tmp_path / "x", "grid", [(factors[0], 0.8)], failed=[factors[1]], waiting=[factors[2]])
    assert "1 of 3 trials have a result (1 failed): the experiment is not complete." in text_of(folder)
    nothing = make_experiment(tmp_path / "y", "grid", [], waiting=factors)
    assert findings(analyze_experiment(nothing)) == [
        "0 of 3 trials have a result: the experiment is not complete.",
        "No trial has a result yet.",
    ]
    assert headline(analyze_experiment(nothing)).measure == "No trial has a result yet."


def test_question_varied_and_fixed_settings(tmp_path: Path) -> None:
    folder = seeds(tmp_path, ({"lora.rank": 2}, [0.8, 0.8]), ({"lora.rank": 4}, [0.8, 0.8]))
    assert question_facts(analyze_experiment(folder).data) == {
        "Recipe": ["quickstart"],
        "Varied": ["lora.rank: 2, 4", "seed: 1, 2"],
        "Fixed": ["train.epochs=3", "everything else: recipe defaults"],
        "Test rows": ["the same 400 in every run"],
    }
    edit(next(folder.glob("trials/*")) / run_folder.ENVIRONMENT, rows={"test": {"count": 400, "fingerprint": "another"}})
    assert question_facts(analyze_experiment(folder).data)["Test rows"] == ["differ between runs: test scores are not comparable"]


def test_the_law_is_checked_at_its_last_size(tmp_path: Path) -> None:
    def words(last: float) -> str:
        sizes = {25: 0.5, 100: 0.7, 400: 0.8, 1600: last}
        points = [({"data.max_train_samples": n}, [a - 0.001, a, a + 0.001]) for n, a in sizes.items()]
        return text_of(make_experiment(tmp_path / str(last), "scaling", over_seeds(points)))

    assert "The law passes this check, which only notices deviations above about " in words(0.85)
    assert "the law does not hold here. Do not rely on its predictions." in words(0.95)
    assert "the law does not hold here. Do not rely on its predictions." in words(0.75)


def test_diminishing_returns_have_an_interval(tmp_path: Path) -> None:
    points = [
        ({"data.max_train_samples": n}, [a - 0.01, a, a + 0.01]) for n, a in ((25, 0.5), (100, 0.7), (400, 0.8), (1600, 0.85))
    ]
    words = text_of(seeds(tmp_path, *points, kind="scaling"))
    assert re.search(
        r"From [\d,]+ rows \(95 % CI [\d,]+ to \S+\) on, doubling the rows reduces the error by less than 1 point", words
    )


def test_few_sizes_make_no_law(tmp_path: Path) -> None:
    words = text_of(seeds(tmp_path, *[({"data.max_train_samples": n}, [0.5, 0.6, 0.7]) for n in (50, 100)], kind="scaling"))
    assert "There is no power law: it needs three sizes" in words


def test_the_first_size_is_tested_against_the_last(tmp_path: Path) -> None:
    points = [({"data.shots_per_class": n}, [a - 0.01, a, a + 0.01]) for n, a in ((1, 0.5), (10, 0.86), (50, 0.9), (100, 0.9))]
    folder = seeds(tmp_path, *points, kind="few-shot")
    words = text_of(folder)
    assert "From 1 row per class to 100 rows per class the test accuracy changes by +40.00 points (95 % CI +3" in words
    top = headline(analyze_experiment(folder))
    assert (top.number, top.unit) == ("90.0", "%")
    assert top.measure == "Test accuracy with 50 rows per class (mean of 3 runs)."
    assert top.uncertainty.endswith("adjusted for the choice among 4. Lowest: 1 row per class, 50.00 %.")
    edit(folder / EXPERIMENT, kind="scaling")
    top = headline(analyze_experiment(folder))
    assert (top.number, top.unit) == ("+40.00", "points")
    assert top.measure == "Gain in mean test accuracy from 1 row per class to 100 rows per class."


def test_without_predictions_nothing_is_compared(tmp_path: Path) -> None:
    folder = seeds(tmp_path, ({"recipe": "a"}, [0.5] * 3), ({"recipe": "b"}, [0.9] * 3))
    next(folder.glob("trials/recipe-a*/predictions.csv")).unlink()
    words = text_of(folder)
    assert "The configurations are not compared: that needs predictions.csv of every run." in words
    assert "better" not in words


def test_what_would_narrow_the_intervals_is_named(tmp_path: Path) -> None:
    rows_differ = seeds(tmp_path / "rows", ({"recipe": "a"}, [0.8, 0.8, 0.8025]), ({"recipe": "b"}, [0.805] * 3))
    assert text_of(rows_differ).endswith("more test rows would narrow the intervals, more seeds hardly.")
    seeds_differ = seeds(tmp_path / "seeds", ({"recipe": "a"}, [0.8] * 3), ({"recipe": "b"}, [0.7, 0.8, 0.9]))
    assert text_of(seeds_differ).endswith("Most of the uncertainty comes from the seeds: more seeds would narrow the intervals.")


def test_a_search_names_trials_by_number_and_is_complete_with_pruned_ones(tmp_path: Path) -> None:
    trials: list[tuple[Factors, float]] = [({"trial": "0002"}, 0.8), ({"trial": "0010"}, 0.9)]
    folder = make_experiment(tmp_path / "x", "search", trials, waiting=[{"trial": "0011"}])
    assert "2 of 3 trials have a result: the experiment is not complete." in text_of(folder)
    records = json.loads((folder / EXPERIMENT).read_text(encoding="utf-8"))["trials"]
    edit(folder / EXPERIMENT, trials=[*records[:2], records[2] | {"pruned": "pruned at evaluation 1"}])
    words = text_of(folder)
    assert "not complete" not in words
    assert words.startswith("Highest mean validation accuracy: trial 10 (trial 0010), with 95.00 %")
    assert "Trial 2 vs. trial 10: worse by 10.00 points for these models" in words


def test_different_test_rows_are_not_compared_and_the_setting_that_fixes_it_is_named(tmp_path: Path) -> None:
    def other_rows(path: Path) -> None:
        edit(path / run_folder.ENVIRONMENT, rows={"test": {"count": 400, "fingerprint": "another"}})

    points = [({"recipe": "a"}, [0.5] * 3), ({"recipe": "b"}, [0.9] * 3)]
    by_seed = seeds(tmp_path / "seed", *points)
    for path in by_seed.glob("trials/*seed-2"):
        other_rows(path)
    fix = "give all runs the same rows with a test file (data.test), or the same data.split_seed and data.max_test_samples."
    reason = f"the seeds of one configuration were tested on different rows; {fix}"
    assert f"The configurations are not compared: {reason}" in text_of(by_seed)

    by_recipe = seeds(tmp_path / "recipe", *points)
    for path in by_recipe.glob("trials/recipe-b*"):
        other_rows(path)
    words = text_of(by_recipe)
    assert f"The configurations are not compared: the configurations were tested on different rows; {fix}" in words
    assert "Highest" not in words, "scores of different rows have no order"

    some = seeds(tmp_path / "some", *points, ({"recipe": "c"}, [0.7] * 3))
    next(some.glob("trials/recipe-c*seed-2/predictions.csv")).unlink()
    words = text_of(some)
    assert "Recipe b vs. recipe a: better by 40.00 points" in words
    assert "Not compared: recipe c. That needs predictions.csv of every run." in words


def test_terms_are_explained_where_they_occur(tmp_path: Path) -> None:
    points = [({"recipe": name}, [0.5, 0.51, 0.52]) for name in "abc"]
    notes = " ".join(reading_notes(analyze_experiment(seeds(tmp_path / "three", *points))))
    assert all(term in notes for term in ("95 % CI: ", "Points are", "p: ", "Adjusted: "))
    assert "Adjusted" not in " ".join(reading_notes(analyze_experiment(seeds(tmp_path / "two", *points[:2]))))
    one = reading_notes(analyze_experiment(seeds(tmp_path / "one", points[0])))
    assert len(one) == 1
