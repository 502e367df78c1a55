"""experiment.json is written and read whole, and nothing that an experiment did not make is deleted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loralab.config import load_config
from loralab.errors import LoralabError
from loralab.experiments.run import merge_specs, open_experiment
from loralab.storage import run_folder
from loralab.storage.experiment_folder import (
    EXPERIMENT,
    TRIALS,
    Experiment,
    ExperimentSpec,
    Trial,
    TrialRecord,
    read_experiment,
    remove_experiment,
    trial_folder,
    write_experiment,
)

CONFIG = load_config("quickstart")
QUESTION = ExperimentSpec("grid", "Which?", ("quickstart",), ("lora.rank=2",), {"train.epochs": [1.0, 2.0], "seed": [1]})
ENTRIES = (
    TrialRecord.of(Trial("epochs-1_seed-1", CONFIG, {"train.epochs": 1.0, "seed": 1})),
    TrialRecord.of(Trial("epochs-2_seed-1", CONFIG, {"train.epochs": 2.0, "seed": 1}), "out of memory"),
    TrialRecord.of(Trial("other", CONFIG, {"recipe": None, "flag": True}, "../other")),
)


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    folder = tmp_path / "new" / "experiment"
    write_experiment(folder, QUESTION, ENTRIES)
    return folder


def test_what_is_written_is_read(experiment: Path) -> None:
    assert read_experiment(experiment) == Experiment(QUESTION, ENTRIES)
    assert [entry.fingerprint for entry in ENTRIES] == [CONFIG.fingerprint()] * 3


def test_a_trial_lies_under_its_name_or_where_it_says(experiment: Path) -> None:
    assert trial_folder(experiment, ENTRIES[0]) == experiment / TRIALS / "epochs-1_seed-1"
    assert trial_folder(experiment, ENTRIES[2]).resolve() == experiment.parent / "other"


def test_a_damaged_file_is_told(experiment: Path) -> None:
    whole = (experiment / EXPERIMENT).read_text(encoding="utf-8")
    content = json.loads(whole)
    del content["trials"][0]["factors"]
    for damaged in (whole[:100], "[]", "{}", json.dumps(content)):
        (experiment / EXPERIMENT).write_text(damaged, encoding="utf-8")
        with pytest.raises(LoralabError, match="is damaged"):
            read_experiment(experiment)


def test_no_experiment_is_told(tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match="is not an experiment"):
        read_experiment(tmp_path)


def test_overwriting_deletes_an_experiment_with_its_trials(experiment: Path) -> None:
    run_folder.create(experiment / TRIALS / "seed-1", CONFIG, {}, overwrite=False)
    remove_experiment(experiment)
    assert not experiment.exists()


@pytest.mark.parametrize("strange", ["notes.txt", f"{TRIALS}/notes.txt", f"{TRIALS}/mine/thesis.tex"])
def test_overwriting_deletes_nothing_that_no_experiment_made(experiment: Path, strange: str) -> None:
    path = experiment / strange
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(LoralabError, match="move it, or choose another --name"):
        open_experiment(QUESTION, experiment, overwrite=True)
    assert path.read_text(encoding="utf-8") == "mine"


def test_a_folder_that_is_no_experiment_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(LoralabError, match="exists and is not an experiment"):
            open_experiment(QUESTION, tmp_path, overwrite)


@pytest.mark.parametrize(
    "other",
    [
        ExperimentSpec("seeds", "Which?", QUESTION.recipes, QUESTION.fixed, {}),
        ExperimentSpec("grid", "Which?", ("distilbert-study",), QUESTION.fixed, {}),
        ExperimentSpec("grid", "Which?", QUESTION.recipes, (), {}),
    ],
    ids=["kind", "recipes", "fixed"],
)
def test_another_question_does_not_go_on_with_an_experiment(experiment: Path, other: ExperimentSpec) -> None:
    with pytest.raises(LoralabError, match="holds another experiment"):
        open_experiment(other, experiment, overwrite=False)


def test_the_points_of_two_calls_are_told_merge_specs() -> None:
    now = ExperimentSpec(
        "grid", "Which?", QUESTION.recipes, QUESTION.fixed, {"train.epochs": [0.5, 2.0], "lora.layers": ["top2"], "seed": [1]}
    )
    assert merge_specs(QUESTION, now).varied == {"train.epochs": [0.5, 1.0, 2.0], "seed": [1], "lora.layers": ["top2"]}
