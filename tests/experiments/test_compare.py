"""Finished runs as an experiment: names, recipes, factors, refusals."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from loralab.config import Config, load_config
from loralab.errors import LoralabError
from loralab.experiments.compare import ComparisonPlan, plan_comparison, short_names
from loralab.experiments.run import run_experiment
from loralab.experiments.spec import find_kind
from loralab.storage import run_folder
from loralab.storage.experiment_folder import ExperimentSpec, Trial, TrialRecord, read_experiment, trial_folder, write_experiment

KIND = find_kind("compare")
ROWS = {"test": {"count": 10, "fingerprint": "same"}}


@pytest.fixture
def finished(tmp_path: Path) -> Callable[..., str]:
    """Make the run folder of a finished run, as far as a comparison reads it."""

    def make(name: str, *settings: str, rows: object = ROWS) -> str:
        config = load_config("quickstart", settings)
        folder = tmp_path / "runs" / name
        run_folder.create(folder, config, {"rows": rows}, overwrite=False).write_scores(
            {"scores": {"accuracy": 0.5}, "fingerprint": "old"}
        )
        return str(folder)

    return make


def factors(plan: ComparisonPlan) -> dict[str, dict[str, object]]:
    return {name: dict(each) for name, each in plan.factors.items()}


def test_runs_that_differ_by_seed_are_one_recipe(finished: Callable[..., str]) -> None:
    folders = [
        finished(f"{name}-s{seed}", f"seed={seed}", f"lora.rank={rank}") for name, rank in (("a", 4), ("b", 8)) for seed in (1, 2)
    ]
    plan = plan_comparison(KIND, folders)
    assert factors(plan) == {
        "a-s1": {"recipe": "a", "lora.rank": 4, "seed": 1},
        "a-s2": {"recipe": "a", "lora.rank": 4, "seed": 2},
        "b-s1": {"recipe": "b", "lora.rank": 8, "seed": 1},
        "b-s2": {"recipe": "b", "lora.rank": 8, "seed": 2},
    }
    assert plan.spec.varied == {"recipe": ["a", "b"], "lora.rank": [4, 8], "seed": [1, 2]}


def test_speed_settings_and_the_seeds_own_samples_do_not_distinguish_recipes(finished: Callable[..., str]) -> None:
    folders = [finished(f"x{i}", f"seed={i}", f"data.sample_seed={i}", f"train.threads={i}", f"name=x{i}") for i in (1, 2)]
    assert [each["recipe"] for each in factors(plan_comparison(KIND, folders)).values()] == ["x1", "x1"]
    other = finished("y", "seed=3", "data.sample_seed=4")
    assert factors(plan_comparison(KIND, [*folders, other]))["y"]["data.sample_seed"] == 4


def test_lists_and_mappings_become_text(finished: Callable[..., str]) -> None:
    folders = [finished("a", "lora.targets=query,value"), finished("b", "lora.targets=value", "train.class_weights={World: 2.0}")]
    told = factors(plan_comparison(KIND, folders))
    assert (told["a"]["lora.targets"], told["b"]["lora.targets"]) == ("query+value", "value")
    assert (told["a"]["train.class_weights"], told["b"]["train.class_weights"]) == (None, "{'World': 2.0}")


def test_recipes_of_one_stem_keep_their_run_names(finished: Callable[..., str]) -> None:
    told = factors(plan_comparison(KIND, [finished("a-s1", "lora.rank=2"), finished("a-s2", "lora.rank=4")]))
    assert [each["recipe"] for each in told.values()] == ["a", "a-s2"]


def test_recipe_names_are_unique(finished: Callable[..., str]) -> None:
    folders = [finished("a-s42"), finished("a", "lora.rank=2"), finished("news20", "lora.rank=4")]
    told = factors(plan_comparison(KIND, folders))
    assert [each["recipe"] for each in told.values()] == ["a", "a-2", "news20"]


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["r/a", "r/b"], ["a", "b"]),
        (["r/x/a", "r/y/a", "r/y/b"], ["x_a", "y_a", "y_b"]),
        (["r/e/trials/seed-1", "r/f/trials/seed-1"], ["e_seed-1", "f_seed-1"]),
    ],
)
def test_names_are_as_short_as_uniqueness_allows(folders: list[str], names: list[str]) -> None:
    assert [*short_names([Path(folder) for folder in folders])] == names


def test_names_that_stay_ambiguous_are_numbered() -> None:
    folders = [Path("/x/a_b"), Path("/x_a/b"), Path("/y/a_b"), Path("/y_a/b")]
    assert [*short_names(folders)] == ["x_a_b-1", "x_a_b-2", "y_a_b-3", "y_a_b-4"]


def test_an_experiment_stands_for_its_complete_trials(finished: Callable[..., str], tmp_path: Path) -> None:
    for name in ("e/trials/seed-1", "e/trials/seed-2", "e/trials/seed-3"):
        finished(name, f"seed={name[-1]}", "lora.rank=2")
    (tmp_path / "runs/e/trials/seed-3" / run_folder.SCORES).unlink()
    entries = [TrialRecord.of(Trial(f"seed-{i}", Config(), {"seed": i}), "failed" if i == 2 else None) for i in (1, 2, 3)]
    write_experiment(tmp_path / "runs/e", ExperimentSpec("seeds", "?", ("r",), (), {}), entries)
    plan = plan_comparison(KIND, [str(tmp_path / "runs/e"), finished("b")])
    assert [*plan.runs] == ["e_seed-1", "b"]
    assert [factors["recipe"] for factors in plan.factors.values()] == ["e", "b"]


def test_runs_are_referenced_in_place_and_nothing_is_run(finished: Callable[..., str], tmp_path: Path) -> None:
    folders = [finished("a", "lora.rank=2"), finished("b")]
    target = tmp_path / "runs" / "compare"
    with mock.patch("loralab.pipeline.run_training", side_effect=AssertionError):
        summary = run_experiment(plan_comparison(KIND, folders), target)
    assert [outcome.skipped for outcome in summary.outcomes] == [True, True]
    entries = read_experiment(target).records
    assert [entry.run for entry in entries] == ["../a", "../b"]
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "runs", moved)
    assert [run_folder.read_config(trial_folder(moved / "compare", entry)).lora.rank for entry in entries] == [2, 16]
    assert not (moved / "compare" / "trials").exists()


def test_runs_that_cannot_be_compared_are_refused(finished: Callable[..., str], tmp_path: Path) -> None:
    a = finished("a", "lora.rank=2")
    begun = tmp_path / "runs" / "begun"
    run_folder.create(begun, Config(), {"rows": ROWS}, overwrite=False)
    elsewhere = finished("elsewhere", rows={"test": {"count": 10, "fingerprint": "other"}})
    silent = finished("silent", rows=None)
    twin = finished("twin", "lora.rank=2")
    empty = tmp_path / "runs" / "empty"
    write_experiment(empty, ExperimentSpec("seeds", "?", ("r",), (), {}), [])
    for folders, message in (
        ([a], "needs at least two runs"),
        ([a, a], "is given twice"),
        ([a, twin], "a and twin have the same settings and seed"),
        ([a, begun], "not complete"),
        ([a, tmp_path], "is not a run"),
        ([a, elsewhere], "a and elsewhere were tested on different rows"),
        ([a, silent], "has no record of its test rows"),
        ([a, empty], "no trial of .* is complete"),
    ):
        with pytest.raises(LoralabError, match=message):
            plan_comparison(KIND, [str(folder) for folder in folders])
    with pytest.raises(LoralabError, match=re.escape("compare varies nothing else")):
        plan_comparison(KIND, [a], (), {"lora.rank": ("2",)})
    with pytest.raises(LoralabError, match="leave out settings and --seeds"):
        plan_comparison(KIND, [a], (), {}, (1,))


def test_other_runs_are_another_experiment(finished: Callable[..., str], tmp_path: Path) -> None:
    folders = [finished(name, f"lora.rank={i}") for i, name in enumerate("abc", 1)]
    run_experiment(plan_comparison(KIND, folders[:2]), tmp_path / "e")
    with pytest.raises(LoralabError, match="holds another experiment"):
        run_experiment(plan_comparison(KIND, folders), tmp_path / "e")
    run_experiment(plan_comparison(KIND, folders), tmp_path / "e", overwrite=True)
    assert len(json.loads((tmp_path / "e" / "experiment.json").read_text())["trials"]) == 3
    assert all(Path(folder).is_dir() for folder in folders)
