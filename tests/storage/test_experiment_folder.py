"""Experiment folders: experiment.json is read as written, and --overwrite deletes only the files of experiments."""

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
SPEC = ExperimentSpec("grid", "Which?", ("quickstart",), ("lora.rank=2",), {"train.epochs": [1.0, 2.0], "seed": [1]})
RECORDS = (
    TrialRecord.of(Trial("epochs-1_seed-1", CONFIG, {"train.epochs": 1.0, "seed": 1})),
    TrialRecord.of(Trial("epochs-2_seed-1", CONFIG, {"train.epochs": 2.0, "seed": 1}), "out of memory"),
    TrialRecord.of(Trial("other", CONFIG, {"recipe": None, "flag": True}, "../other")),
)


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    folder = tmp_path / "new" / "experiment"
    write_experiment(folder, SPEC, RECORDS)
    return folder


def test_an_experiment_is_read_as_written(experiment: Path) -> None:
    assert read_experiment(experiment) == Experiment(SPEC, RECORDS)
    assert [record.fingerprint for record in RECORDS] == [CONFIG.fingerprint()] * 3


def test_a_trial_is_in_the_folder_of_its_name_or_of_its_run(experiment: Path) -> None:
    assert trial_folder(experiment, RECORDS[0]) == experiment / TRIALS / "epochs-1_seed-1"
    assert trial_folder(experiment, RECORDS[2]).resolve() == experiment.parent / "other"


def test_a_damaged_file_is_an_error(experiment: Path) -> None:
    intact = (experiment / EXPERIMENT).read_text(encoding="utf-8")
    content = json.loads(intact)
    del content["trials"][0]["factors"]
    for damaged in (intact[:100], "[]", "{}", json.dumps(content)):
        (experiment / EXPERIMENT).write_text(damaged, encoding="utf-8")
        with pytest.raises(LoralabError, match=r"experiment\.json.*run the experiment again"):
            read_experiment(experiment)


def test_a_missing_experiment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match="is not an experiment"):
        read_experiment(tmp_path)


def test_overwrite_deletes_an_experiment_with_its_trials(experiment: Path) -> None:
    run_folder.create(experiment / TRIALS / "seed-1", CONFIG, {}, overwrite=False)
    remove_experiment(experiment)
    assert not experiment.exists()


@pytest.mark.parametrize("foreign", ["notes.txt", f"{TRIALS}/notes.txt", f"{TRIALS}/mine/thesis.tex"])
def test_overwrite_keeps_files_that_are_not_of_an_experiment(experiment: Path, foreign: str) -> None:
    path = experiment / foreign
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(LoralabError, match="move it, or choose another --name"):
        open_experiment(SPEC, experiment, overwrite=True)
    assert path.read_text(encoding="utf-8") == "mine"


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(LoralabError, match="exists and is not an experiment"):
            open_experiment(SPEC, tmp_path, overwrite)


@pytest.mark.parametrize(
    "other",
    [
        ExperimentSpec("seeds", "Which?", SPEC.recipes, SPEC.fixed, {}),
        ExperimentSpec("grid", "Which?", ("distilbert-study",), SPEC.fixed, {}),
        ExperimentSpec("grid", "Which?", SPEC.recipes, (), {}),
    ],
    ids=["kind", "recipes", "fixed"],
)
def test_an_experiment_with_another_question_is_refused(experiment: Path, other: ExperimentSpec) -> None:
    with pytest.raises(LoralabError, match="holds another experiment"):
        open_experiment(other, experiment, overwrite=False)


def test_the_values_of_two_calls_are_merged() -> None:
    now = ExperimentSpec(
        "grid", "Which?", SPEC.recipes, SPEC.fixed, {"train.epochs": [0.5, 2.0], "lora.layers": ["top2"], "seed": [1]}
    )
    assert merge_specs(SPEC, now).varied == {"train.epochs": [0.5, 1.0, 2.0], "seed": [1], "lora.layers": ["top2"]}
