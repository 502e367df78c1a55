"""What an experiment's report claims: nothing under three seeds, and no more than the statistics carry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from invented import edit
from invented_lab import Factors, invent_lab, over_seeds

from loralab.report.experiments.kinds import read
from loralab.report.experiments.words import asked, found, headline
from loralab.stats import wilson
from loralab.storage import run_folder

CLAIM = re.compile(r"better by|worse by|differences are clear|reaches|not clearly worse")


def said(folder: Path) -> str:
    return "\n".join(found(read(folder)))


def seeds(tmp_path: Path, *points: tuple[Factors, list[float]], kind: str = "seeds") -> Path:
    return invent_lab(tmp_path / "x", kind, over_seeds(points))


@pytest.mark.parametrize("kind", ["seeds", "grid", "layers", "few-shot", "active", "scaling"])
@pytest.mark.parametrize("n", [1, 2])
def test_under_three_seeds_nothing_is_claimed(tmp_path: Path, kind: str, n: int) -> None:
    points = [({"lora.layers": "top1", "labels": 100}, [0.5, 0.501][:n]), ({"lora.layers": "all", "labels": 500}, [0.9, 0.902][:n])]
    folder = seeds(tmp_path, *points, kind=kind)
    words = said(folder)
    assert not CLAIM.search(words), words
    assert f"{n} seed{'' if n == 1 else 's'} a point: too few for any claim" in words
    assert "would often have been missed" not in words
    assert "too few for any claim" in headline(read(folder))[1]
    assert not any(each.clear for each in read(folder).comparisons)
    assert "interval" not in words.replace("intervals over seeds do not", "")


def test_with_three_seeds_a_large_difference_is_claimed(tmp_path: Path) -> None:
    words = said(seeds(tmp_path, ({"recipe": "a"}, [0.5, 0.51, 0.52]), ({"recipe": "b"}, [0.9, 0.911, 0.919])))
    assert "Recipe b against recipe a: better by 40.00 points" in words
    assert re.search(r"With 3 seeds, a true difference under \d+\.\d\d points", words)


def test_what_may_be_luck_is_called_that(tmp_path: Path) -> None:
    words = said(seeds(tmp_path, ({"recipe": "a"}, [0.80, 0.85, 0.90]), ({"recipe": "b"}, [0.85, 0.84, 0.91])))
    assert not CLAIM.search(words)
    assert "In the one comparison the difference may be luck" in words


def test_one_recipe_is_told_with_its_spread(tmp_path: Path) -> None:
    words = found(read(seeds(tmp_path, ({}, [0.80, 0.82, 0.84]))))
    assert words[0] == (
        "Mean test accuracy 82.00 %, 95 % interval 77.03 to 86.97 over 3 seeds; the deviation from seed to seed is 2.00 points, "
        "the runs lie between 80.00 % and 84.00 %."
    )


def test_one_recipe_with_two_seeds_has_a_mean_and_no_interval(tmp_path: Path) -> None:
    words = found(read(seeds(tmp_path, ({}, [0.80, 0.82]))))
    assert words[0] == "2 seeds a point: too few for any claim (3 at the least). The mean test accuracy is 81.00 %."


def test_luck_of_the_test_rows_is_told_once_beside_that_of_the_seeds(tmp_path: Path) -> None:
    words = said(seeds(tmp_path, ({}, [0.8, 0.8, 0.8])))
    low, _, high = wilson(32, 40)
    assert (
        f"All runs share 40 test rows. By the luck of those rows alone a test accuracy of 80.00 % may stand for {100 * low:.2f}"
        in words
    )
    assert f"to {100 * high:.2f} (Wilson)" in words
    assert words.count("Wilson") == 1


def test_what_the_validation_rows_chose_is_told_with_its_test_score(tmp_path: Path) -> None:
    points = [({"lora.rank": r}, [0.5 + r / 100, 0.51 + r / 100, 0.52 + r / 100]) for r in (2, 4, 8)]
    words = found(read(seeds(tmp_path, *points, kind="grid")))
    assert words[0].startswith("Highest mean validation accuracy: rank 8, 64.00 %")
    assert words[0].endswith("Its mean test accuracy is 59.00 %.")
    assert "picked it from 3 points" in words[1]


def test_points_that_tie_are_all_named(tmp_path: Path) -> None:
    words = said(seeds(tmp_path, *[({"lora.rank": r}, [0.5, 0.6, 0.7]) for r in (2, 4, 8)], kind="grid"))
    assert "The same mean: rank 4; rank 8." in words


def test_fewer_layers_are_told_with_what_they_save_and_may_lose(tmp_path: Path) -> None:
    found_by = {"top1": [0.5, 0.51, 0.52], "top2": [0.79, 0.81, 0.8], "all": [0.8, 0.8, 0.81]}
    points = [({"lora.layers": name}, values) for name, values in found_by.items()]
    folder = seeds(tmp_path, *points, kind="layers")
    for path in folder.glob("trials/*all*"):
        edit(path / run_folder.SCORES, counts={"base": 1000, "adapter": 360, "head": 40, "trainable": 400}, seconds=50)
    words = said(folder)
    assert (
        "Layers top2 is the cheapest that is not clearly worse than layers all: 100 trained parameters and 12 s against 400"
        in words
    )


def test_an_experiment_that_goes_on_or_failed_says_so(tmp_path: Path) -> None:
    factors = [{"lora.rank": r, "seed": 1} for r in (2, 4, 8)]
    folder = invent_lab(tmp_path / "x", "grid", [(factors[0], 0.8)], failed=[factors[1]], waiting=[factors[2]])
    assert "1 of 3 trials have a result (1 failed): the experiment is not complete." in said(folder)
    nothing = invent_lab(tmp_path / "y", "grid", [], waiting=factors)
    assert found(read(nothing)) == ["0 of 3 trials have a result: the experiment is not complete.", "No trial has a result yet."]
    assert headline(read(nothing)) == ("No trial has a result yet.", "")


def test_what_was_varied_and_held_is_told(tmp_path: Path) -> None:
    folder = seeds(tmp_path, ({"lora.rank": 2}, [0.8, 0.8]), ({"lora.rank": 4}, [0.8, 0.8]))
    assert asked(read(folder).tables) == {
        "Asked": ["Which?"],
        "Recipe": ["quickstart"],
        "Varied": ["lora.rank: 2, 4", "seed: 1, 2"],
        "Held": ["train.epochs=3", "all else as the recipe has it"],
        "Test rows": ["the same 40 in every run"],
    }
    edit(next(folder.glob("trials/*")) / run_folder.ENVIRONMENT, rows={"test": {"count": 40, "fingerprint": "another"}})
    assert asked(read(folder).tables)["Test rows"] == ["not the same in all runs: their test scores are of different rows"]


def test_the_law_is_held_to_its_last_size(tmp_path: Path) -> None:
    def words(last: float) -> str:
        sizes = {25: 0.5, 100: 0.7, 400: 0.8, 1600: last}
        points = [({"data.max_train_samples": n}, [a - 0.001, a, a + 0.001]) for n, a in sizes.items()]
        return said(invent_lab(tmp_path / str(last), "scaling", over_seeds(points)))

    assert "nothing speaks against the law" in words(0.85)
    assert "less than seeds explain. Do not trust its predictions." in words(0.95)
    assert "more than seeds explain. Do not trust its predictions." in words(0.75)


def test_few_sizes_make_no_law(tmp_path: Path) -> None:
    words = said(seeds(tmp_path, *[({"data.max_train_samples": n}, [0.5, 0.6, 0.7]) for n in (50, 100)], kind="scaling"))
    assert "too few sizes for a power law" in words


def test_the_size_that_comes_near_the_largest_is_told(tmp_path: Path) -> None:
    points = [({"data.shots_per_class": n}, [a - 0.01, a, a + 0.01]) for n, a in ((1, 0.5), (10, 0.86), (50, 0.89), (100, 0.9))]
    words = said(seeds(tmp_path, *points, kind="few-shot"))
    assert "Shots per class 10, 640 training rows, reaches 95.56 % of the mean test accuracy at the largest size." in words
    assert "Shots per class 50, 640 training rows, reaches" not in words
    two = [(factors, values[:2]) for factors, values in points]
    assert "reaches" not in said(invent_lab(tmp_path / "two", "few-shot", over_seeds(two)))


def test_where_nothing_is_right_no_size_comes_near(tmp_path: Path) -> None:
    zeros = [({"data.shots_per_class": n}, [0.0] * 3) for n in (1, 10)]
    assert "reaches" not in said(invent_lab(tmp_path / "x", "few-shot", over_seeds(zeros)))
