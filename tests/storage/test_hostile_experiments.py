"""Experiment folders that are damaged or a stranger's: what was changed is named, and no run outside is read."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sealing import SEAL

from loralab.config import load_config
from loralab.errors import LoralabError
from loralab.storage import experiment_folder, run_folder
from loralab.storage.experiment_folder import ExperimentSpec, TrialRecord
from loralab.storage.sealed import write_sealed
from loralab.verify import verify

CONFIG = load_config("quickstart")
SPEC = ExperimentSpec("search", "Which?", ("quickstart",), (), {"seed": [1, 2, 3]})
SEARCH = {"objectives": ["accuracy"], "minimised": [], "axes": [], "best": [1], "importance": {}, "trials": []}
FLIPS = int(os.environ.get("LORALAB_FLIPS", "120"))
SEALED_FILES = ["experiment.json", "search.json", "best.yaml", "indices/pool.json", "indices/seed-1.txt"]

CHANGES = [*itertools.product(SEALED_FILES, ("cut", "emptied")), *((name, "exchanged") for name in SEALED_FILES[1:])]


def make_run(folder: Path, accuracy: float) -> str:
    run = run_folder.create(folder, CONFIG, {}, overwrite=False)
    run.write_scores({"scores": {"accuracy": accuracy}})
    return run_folder.run_identity(folder)


def make_experiment(folder: Path, accuracy: float = 0.5, spec: ExperimentSpec = SPEC) -> Path:
    """Write an experiment of two trials in its folder and one outside the folder of experiments."""
    outside = folder.parent.parent / "elsewhere" / folder.name
    runs = {"seed-1": None, "seed-2": None, "other": os.path.relpath(outside, folder)}
    records = []
    for number, (name, run) in enumerate(runs.items()):
        identity = make_run(folder / (run or f"trials/{name}"), accuracy + number / 10)
        records.append(TrialRecord(name, {"seed": number}, CONFIG.fingerprint(), run=run, run_sha256=identity))
    (folder / "indices").mkdir()
    (folder / "indices" / "pool.json").write_text(json.dumps({"rows": accuracy}), encoding="utf-8")
    (folder / "indices" / "seed-1.txt").write_text(f"1\n2\n{int(accuracy * 10)}\n", encoding="utf-8")
    experiment_folder.write_experiment(folder, spec, records)
    (folder / "best.yaml").write_text(f"seed: {int(accuracy * 10)}\n", encoding="utf-8")
    experiment_folder.write_search(folder, spec, {**SEARCH, "best": [accuracy]})
    return folder


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return make_experiment(tmp_path / "runs" / "mine")


def problem(folder: Path) -> str:
    """What `loralab verify` says about the experiment; empty for an intact one."""
    result = verify(folder)[0]
    assert result.kind == "experiment"
    assert result.state == ("damaged" if result.problem else "intact")
    return result.problem


def commands(folder: Path) -> list[Callable[[], object]]:
    """What reads each of the files, beside `verify`."""
    return [
        lambda: experiment_folder.find_runs(folder),
        lambda: experiment_folder.read_search(folder),
        lambda: experiment_folder.check_indices(folder),
    ]


def messages(folder: Path) -> str:
    """The messages of all commands. Any other exception than LoralabError is a failure."""
    texts = []
    for command in commands(folder):
        try:
            command()
        except LoralabError as error:
            texts.append(str(error))
    return " ".join(texts)


def rewrite(folder: Path, **changes: Any) -> None:
    """Change experiment.json as a stranger can, who computes its checksum anew."""
    path = folder / "experiment.json"
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    write_sealed(path, {key: value for key, value in content.items() if key not in SEAL})


def test_an_experiment_as_written_is_intact(experiment: Path) -> None:
    assert problem(experiment) == messages(experiment) == ""
    assert verify(experiment)[0].files == 5  # experiment.json, search.json, best.yaml, two index files


def test_a_flipped_bit_of_an_experiment_is_named(experiment: Path) -> None:
    random_bits = random.Random(7)
    for _ in range(FLIPS):
        name = random_bits.choice(SEALED_FILES)
        path = experiment / name
        intact = path.read_bytes()
        flipped = bytearray(intact)
        flipped[random_bits.randrange(len(flipped))] ^= 1 << random_bits.randrange(8)
        path.write_bytes(flipped)
        try:
            assert Path(name).name in problem(experiment)
            assert Path(name).name in messages(experiment)
        except AssertionError:  # whitespace of JSON: nothing that is read has changed
            assert path.suffix == ".json"
            assert json.loads(flipped) == json.loads(intact)
        path.write_bytes(intact)


@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_a_file_of_an_experiment_that_was_changed_is_named(experiment: Path, name: str, change: str) -> None:
    path = experiment / name
    if change == "exchanged":
        other = ExperimentSpec("search", "Which?", ("another",), (), {})
        shutil.copyfile(make_experiment(experiment.parent / "other", 0.7, other) / name, path)
    else:
        os.truncate(path, path.stat().st_size // 2 if change == "cut" else 0)
    assert Path(name).name in problem(experiment)
    assert Path(name).name in messages(experiment)


@pytest.mark.parametrize("name", [name for name in SEALED_FILES if not name.startswith(("experiment", "search"))])
def test_a_deleted_file_of_an_experiment_is_named(experiment: Path, name: str) -> None:
    (experiment / name).unlink()
    assert f"{Path(name).name} is missing" in problem(experiment)
    assert f"{Path(name).name} is missing" in messages(experiment)


def test_a_search_without_its_results_says_how_to_get_them(experiment: Path) -> None:
    (experiment / "search.json").unlink()
    with pytest.raises(LoralabError, match=r"search\.json.*run the search again"):
        experiment_folder.read_search(experiment)


def test_a_folder_without_experiment_json_is_no_experiment(experiment: Path) -> None:
    (experiment / "experiment.json").unlink()
    with pytest.raises(LoralabError, match=r"it has no experiment\.json"):
        experiment_folder.read_experiment(experiment)


def test_exchanged_trials_are_named(experiment: Path) -> None:
    trials = experiment / "trials"
    for source, target in (("seed-1", "x"), ("seed-2", "seed-1"), ("x", "seed-2")):
        (trials / source).rename(trials / target)
    assert "seed-1 is not the run that" in problem(experiment)
    assert "seed-1 is not the run that" in messages(experiment)


def test_the_experiment_json_of_another_experiment_is_named(experiment: Path) -> None:
    other = make_experiment(experiment.parent / "other", 0.7)
    shutil.copyfile(other / "experiment.json", experiment / "experiment.json")
    assert "seed-1" in messages(experiment)
    assert problem(experiment) != ""


def test_a_lost_trial_is_named_and_one_that_waits_is_not_damage(experiment: Path) -> None:
    shutil.rmtree(experiment / "trials" / "seed-2")
    assert "seed-2 is missing" in problem(experiment)
    records = [*experiment_folder.read_experiment(experiment).records]
    records[1] = TrialRecord("seed-2", {"seed": 1}, CONFIG.fingerprint())
    experiment_folder.write_experiment(experiment, SPEC, records)
    assert verify(experiment)[0].state == "incomplete"


def test_an_experiment_without_checksums_opens_unchecked(experiment: Path) -> None:
    for name in ("experiment.json", "search.json"):
        content = json.loads((experiment / name).read_text(encoding="utf-8"))
        content.pop("experiment", None)
        for record in content["trials"]:
            del record["run_sha256"]
        content["trials"] = content["trials"][:2]
        (experiment / name).write_text(json.dumps({k: v for k, v in content.items() if k not in SEAL}), encoding="utf-8")
    (experiment / "best.yaml").write_text("seed: 9\n", encoding="utf-8")
    assert messages(experiment) == ""
    assert verify(experiment)[0].state == "unchecked"


def test_an_experiment_of_a_later_format_says_upgrade(experiment: Path) -> None:
    path = experiment / "experiment.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"format_version": 3}), encoding="utf-8")
    assert "written by a newer loralab (format 3" in problem(experiment)


@pytest.mark.parametrize(
    "run", ["/etc", "../../elsewhere/mine", "../../../../../../../etc", "trials/../../../elsewhere/mine", "", "a\0b"]
)
def test_a_run_outside_the_folder_of_experiments_is_refused_without_its_identity(experiment: Path, run: str) -> None:
    record = {"name": "x", "factors": {}, "fingerprint": "x", "run": run}
    rewrite(experiment, trials=[record])
    for text in (problem(experiment), messages(experiment)):
        assert f"{experiment / 'experiment.json'}" in text
        assert "is outside" in text or "is damaged" in text


def test_a_run_outside_with_a_guessed_identity_is_refused(experiment: Path) -> None:
    rewrite(
        experiment, trials=[{"name": "x", "factors": {}, "fingerprint": "x", "run": "../../elsewhere/mine", "run_sha256": "0" * 64}]
    )
    assert "is not the run that" in problem(experiment)
    assert "is not the run that" in messages(experiment)


def test_a_run_beside_the_experiment_needs_no_identity(experiment: Path) -> None:
    make_run(experiment.parent / "beside", 0.5)
    rewrite(experiment, trials=[{"name": "x", "factors": {}, "fingerprint": "x", "run": "../beside"}])
    assert experiment_folder.find_runs(experiment) == [experiment / "../beside"]


def test_a_trial_that_links_to_a_run_outside_is_refused(experiment: Path) -> None:
    (experiment / "trials" / "x").symlink_to(experiment.parent.parent / "elsewhere" / "mine", target_is_directory=True)
    rewrite(experiment, trials=[{"name": "x", "factors": {}, "fingerprint": "x"}])
    assert "is outside" in problem(experiment)
    assert "is outside" in messages(experiment)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "/etc", "a\0b", 3, None, ["a"]])
def test_a_trial_needs_the_name_of_one_folder(experiment: Path, name: object) -> None:
    rewrite(experiment, trials=[{"name": name, "factors": {}, "fingerprint": "x"}])
    assert "experiment.json is damaged" in problem(experiment)
    assert "experiment.json is damaged" in messages(experiment)


@pytest.mark.parametrize(
    "changes",
    [
        {"trials": 3},
        {"trials": [3]},
        {"trials": [{}]},
        {"trials": [{"name": "x", "factors": [1], "fingerprint": "x"}]},
        {"trials": [{"name": "x", "factors": {"a": [1]}, "fingerprint": "x"}]},
        {"varied": 1},
        {"varied": {"seed": 1}},
        {"question": ["a"]},
        {"recipes": "quickstart"},
        {"unknown": 1},
    ],
)
def test_values_of_the_wrong_type_end_in_a_message(experiment: Path, changes: dict[str, Any]) -> None:
    rewrite(experiment, **changes)
    assert "experiment.json is damaged" in messages(experiment)


@pytest.mark.parametrize("name", SEALED_FILES)
@pytest.mark.parametrize("kind", ["link", "FIFO", "folder", "giant", "nested"])
def test_what_is_no_regular_file_of_an_experiment_is_refused_at_once(
    experiment: Path, tmp_path: Path, name: str, kind: str
) -> None:
    path = experiment / name
    if kind == "link":
        shutil.move(path, tmp_path / "secret")
        path.symlink_to(tmp_path / "secret")
    elif kind == "giant":
        os.truncate(path, 1 << 40)
    else:
        path.unlink()
        if kind == "FIFO":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.write_text('{"a": ' * 50_000, encoding="utf-8")
    assert path.name in problem(experiment)
    assert path.name in messages(experiment)
