"""Run folders: made, refused, replaced; files and folders that appear whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import stat
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from loralab.config import Config
from loralab.errors import LoralabError, RunFailed
from loralab.storage import run_folder, temporaries
from loralab.storage.files import atomic_folder, atomic_write, write_json
from loralab.training.callbacks import EvalEnd, StepEnd

CONFIG = Config(seed=7)
STEP = StepEnd(1, 10, 0.1, 1.5, 1e-3, 2.0, 16, 0.5)
FACTS = {"device": "cpu", "rows": {"train": {"rows": 3}}}


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything under a folder, hidden files included."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"), key=str)
    }


def foreign(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    return folder


def fail_writing(target: Path, error: type[BaseException]) -> None:
    with atomic_write(target) as file:
        file.write("half of the n")
        file.flush()
        raise error


def fail_filling(target: Path, error: type[BaseException]) -> None:
    with atomic_folder(target) as folder:
        (folder / "new.txt").write_text("half")
        raise error


def full_disk(*arguments: Any, **more: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Making, refusing, replacing


def test_a_new_run_holds_its_settings(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path / "runs" / "deep" / "a", CONFIG, FACTS, overwrite=False)
    assert tree(run.folder).keys() == {"config.yaml", "environment.json", "data.json"}
    assert run_folder.read_config(run.folder) == CONFIG
    assert run.model == run.folder / "model"


@pytest.mark.parametrize(("complete", "state"), [(True, "complete"), (False, "not complete")])
def test_an_existing_run_is_refused_and_left_as_it_is(tmp_path: Path, complete: bool, state: str) -> None:
    run = run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    run.log(STEP)
    if complete:
        run.write_scores({"scores": {}})
    before = tree(tmp_path)
    with pytest.raises(LoralabError, match=rf"exists \({state}\).*--name.*--overwrite") as caught:
        run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    assert caught.value.exit_code == 2
    assert tree(tmp_path) == before


def test_overwrite_replaces_a_run_and_nothing_else(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    run.log(STEP)
    run.write_scores({})
    other = run_folder.create(tmp_path / "b", CONFIG, FACTS, overwrite=False)
    run_folder.create(tmp_path / "a", Config(seed=8), FACTS, overwrite=True)
    assert tree(run.folder).keys() == {"config.yaml", "environment.json", "data.json"}
    assert run_folder.read_config(run.folder).seed == 8
    assert run_folder.read_config(other.folder).seed == 7


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_never_deleted(tmp_path: Path, overwrite: bool) -> None:
    folder = foreign(tmp_path / "thesis")
    before = tree(tmp_path)
    for act in (lambda: run_folder.check_available(folder, overwrite), lambda: run_folder.create(folder, CONFIG, FACTS, overwrite)):
        with pytest.raises(LoralabError, match=r"is not a run: choose another --name or --runs"):
            act()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("text", ["project: thesis\nauthors: [me]\n", "", "not: [yaml", "- 1\n"])
def test_a_foreign_folder_that_has_a_config_yaml_of_its_own_is_never_deleted(tmp_path: Path, text: str) -> None:
    folder = foreign(tmp_path / "thesis")
    (folder / "config.yaml").write_text(text)
    before = tree(tmp_path)
    with pytest.raises(LoralabError):
        run_folder.create(folder, CONFIG, FACTS, overwrite=True)
    assert tree(tmp_path) == before


def test_an_empty_folder_is_free(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    run_folder.check_available(tmp_path / "a", overwrite=False)
    assert run_folder.read_config(run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False).folder) == CONFIG


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_runs_place_is_never_deleted(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(LoralabError, match="is not a run"):
        run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite)
    assert (tmp_path / "a").read_text() == "mine"


def test_a_run_reached_by_a_link_is_not_emptied(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    (tmp_path / "link").symlink_to(run.folder, target_is_directory=True)
    before = tree(run.folder)
    with pytest.raises(LoralabError):
        run_folder.create(tmp_path / "link", CONFIG, FACTS, overwrite=True)
    assert tree(run.folder) == before


def test_runs_below_a_file_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LoralabError, match="is not writable: choose another --runs"):
        run_folder.check_available(tmp_path / "file" / "a", overwrite=False)
    with pytest.raises(LoralabError):
        run_folder.create(tmp_path / "file" / "deep" / "a", CONFIG, FACTS, overwrite=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_while_making_a_run_is_the_runs_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(RunFailed, match="No space left") as caught:
        run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    assert caught.value.exit_code == 1


# Writing


def test_an_atomic_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_write(target) as file:
        file.write("Läden\r\n")
        file.flush()
        assert not target.exists()
    assert target.read_bytes() == "Läden\r\n".encode()
    assert list(tmp_path.iterdir()) == [target]


def test_an_atomic_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with atomic_write(tmp_path / "a.txt"):
        pass
    with atomic_folder(tmp_path / "b"):
        pass
    (tmp_path / "folder").mkdir()
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == stat.S_IMODE((tmp_path / "folder").stat().st_mode)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_exception_in_the_middle_leaves_the_old_file_whole(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error):
        fail_writing(target, error)
    assert tree(tmp_path) == {"a.txt": b"old"}


def test_an_exception_in_the_middle_leaves_no_new_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_writing(tmp_path / "a.txt", RuntimeError)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("call", ["replace", "fsync", "chmod"])
def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    target = tmp_path / "scores.json"
    write_json(target, {"old": 1})
    before = tree(tmp_path)
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(RunFailed, match=r"cannot write .*scores.json: No space left on device"):
        write_json(target, {"new": 2})
    assert tree(tmp_path) == before


def test_an_atomic_folder_takes_the_old_ones_place_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with atomic_folder(target) as folder:
        assert list(folder.iterdir()) == []
        (folder / "new.txt").write_text("new")
        assert (target / "old.txt").exists()
    assert tree(tmp_path) == {"model": None, "model/new.txt": b"new"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("existing", [True, False])
def test_an_exception_in_the_middle_leaves_the_old_folder_whole(tmp_path: Path, error: type[BaseException], existing: bool) -> None:
    target = tmp_path / "model"
    if existing:
        target.mkdir()
        (target / "old.txt").write_text("old")
    before = tree(tmp_path)
    with pytest.raises(error):
        fail_filling(target, error)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("call", ["replace", "chmod"])
def test_a_full_disk_leaves_the_old_folder_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old.txt").write_text("old")
    before = tree(tmp_path)
    monkeypatch.setattr(temporaries, "_exchange", lambda new, old: False)
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(RunFailed, match="previously saved files are unaffected"), atomic_folder(target) as folder:
        (folder / "new.txt").write_text("new")
    assert tree(tmp_path) == before


def test_a_folder_that_cannot_be_swapped_in_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old folder may be moved aside; only the move of the new one fails."""
    target = tmp_path / "model"
    target.mkdir()
    (target / "old.txt").write_text("old")
    before, replace, moved = tree(tmp_path), os.replace, []

    def failing(source: Any, destination: Any) -> None:
        if (Path(source) / "new.txt").exists() and not moved:
            moved.append(source)
            full_disk()
        replace(source, destination)

    monkeypatch.setattr(temporaries, "_exchange", lambda new, old: False)
    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(RunFailed), atomic_folder(target) as folder:
        (folder / "new.txt").write_text("new")
    assert moved
    assert tree(tmp_path) == before


def test_writing_below_a_file_is_the_runs_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    run = run_folder.RunFolder(tmp_path / "file")
    for act in (lambda: run.log(STEP), lambda: run.write_scores({}), lambda: run.save_checkpoint(Broken(OSError(28, "full")))):
        with pytest.raises(RunFailed, match="cannot write"):
            act()
    with pytest.raises(RunFailed), atomic_folder(run.model):
        pass
    assert tree(tmp_path) == {"file": b"mine"}


class Broken:
    """A checkpoint that cannot be saved."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def save(self, path: Path) -> None:
        raise self.error


def log(run: run_folder.RunFolder, *steps: int) -> None:
    for step in steps:
        run.log(dataclasses.replace(STEP, step=step))


def logged(run: run_folder.RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_each_event_is_on_the_disk_when_it_is_logged(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    for step in range(1, 4):
        log(run, step)
        assert [entry["step"] for entry in logged(run)] == list(range(1, step + 1))
    run.log(EvalEnd(3, 1.0, {"f1:Läden": 0.5}, True, 0.7))
    first, last = logged(run)[0], logged(run)[-1]
    assert first.pop("crc32")
    assert first == {"event": "StepEnd", **dataclasses.asdict(STEP)}
    assert last.pop("crc32")
    assert last == {
        "event": "EvalEnd",
        "temperature": None,
        "step": 3,
        "epoch": 1.0,
        "scores": {"f1:Läden": 0.5},
        "improved": True,
        "seconds": 0.7,
        "memory": {},
    }


def test_a_log_is_rewound_to_a_step_and_a_line_cut_off_is_dropped(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    run.rewind_log(5)
    assert not (run.folder / "log.jsonl").exists()
    log(run, 1, 2, 3, 4)
    run.rewind_log(3)
    assert [entry["step"] for entry in logged(run)] == [1, 2, 3]
    with (run.folder / "log.jsonl").open("a") as file:
        file.write('{"event": "StepEnd", "st')
    run.rewind_log(9)
    assert [entry["step"] for entry in logged(run)] == [1, 2, 3]
    run.rewind_log(0)
    assert logged(run) == []


def test_the_environment_says_versions_machine_and_facts(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    found = json.loads((run.folder / "environment.json").read_text(encoding="utf-8"))
    for package in ("loralab", "torch", "tokenizers", "safetensors", "numpy"):
        assert found["versions"][package] == version(package)
    assert found["machine"]["cores"] == os.cpu_count()
    assert (found["device"], found["rows"]) == (FACTS["device"], FACTS["rows"])


# Going on


def test_a_run_that_was_stopped_is_reopened_with_everything_in_it(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    log(run, 1)
    before = tree(tmp_path)
    run_folder.check_available(run.folder, overwrite=False, resume=True)
    assert run_folder.reopen(run.folder, CONFIG, FACTS) == run
    assert run_folder.reopen(run.folder, CONFIG.override("name=other"), FACTS) == run
    assert tree(tmp_path) == before


def test_only_a_run_that_has_not_ended_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match=r"there is no run .* to resume"):
        run_folder.check_available(tmp_path / "a", overwrite=False, resume=True)
    with pytest.raises(LoralabError, match=r"there is no run .* to resume"):
        run_folder.reopen(foreign(tmp_path / "thesis"), CONFIG, FACTS)
    run = run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    run.write_scores({})
    with pytest.raises(LoralabError, match="is complete, so it cannot be resumed"):
        run_folder.check_available(run.folder, overwrite=False, resume=True)
    with pytest.raises(LoralabError, match="is complete"):
        run_folder.reopen(run.folder, CONFIG, FACTS)


def test_a_run_is_not_resumed_with_other_settings_or_on_other_data(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    before = tree(tmp_path)
    with pytest.raises(LoralabError, match=r"started with other settings(.|\n)*seed: 7 → 8"):
        run_folder.reopen(run.folder, Config(seed=8), FACTS)
    with pytest.raises(LoralabError, match=r"cannot be resumed to the same result: rows was .*3.* is .*4"):
        run_folder.reopen(run.folder, CONFIG, {**FACTS, "rows": {"train": {"rows": 4}}})
    assert tree(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b'{"rows": ', b"\xff\xfe", b"[1]"])
def test_a_damaged_environment_is_told(tmp_path: Path, content: bytes) -> None:
    run = run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    (run.folder / "environment.json").write_bytes(content)
    with pytest.raises(LoralabError, match=r"environment\.json"):
        run_folder.reopen(run.folder, CONFIG, FACTS)


def test_scores_complete_a_run_and_end_its_checkpoint(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    run.checkpoint.write_bytes(b"state")
    run.write_scores({"scores": {}})
    assert not run.checkpoint.exists()
    assert (run.folder / "scores.json").exists()


def test_a_checkpoint_stays_where_the_scores_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    run.checkpoint.write_bytes(b"state")
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(RunFailed):
        run.write_scores({"scores": {}})
    assert run.checkpoint.read_bytes() == b"state"


# Reading


def test_scores_come_back(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    run.write_scores({"scores": {"accuracy": 0.9, "f1:Läden": 0.1}})
    assert run_folder.read_scores(run.folder) == {"scores": {"accuracy": 0.9, "f1:Läden": 0.1}}


@pytest.mark.parametrize("content", [None, b"", b'{"scores": ', b"\xff\xfe\x00", b"[1, 2]", b"null", b'"text"'])
def test_missing_or_damaged_scores_are_told(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "scores.json").write_bytes(content)
    with pytest.raises(LoralabError, match=r"scores\.json") as caught:
        run_folder.read_scores(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", [None, b"seed: [", b"- 1", b"sede: 1", b"seed: x", b"\xff\xfe"])
def test_missing_or_damaged_settings_are_told(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(LoralabError, match=r"config\.yaml"):
        run_folder.read_config(tmp_path)


def test_the_model_of_a_run_is_found_and_a_bundle_is_its_own(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path / "a", CONFIG, FACTS, overwrite=False)
    with pytest.raises(LoralabError, match="has no trained model yet"):
        run_folder.model_folder(run.folder)
    run.model.mkdir()
    assert run_folder.model_folder(run.folder) == run.model
    assert run_folder.model_folder(run.model) == run.model
    for missing in (tmp_path / "nowhere", run.folder / "config.yaml"):
        with pytest.raises(LoralabError, match="there is no run"):
            run_folder.model_folder(missing)


@pytest.mark.parametrize("change", ["changed", "deleted", "added"])
def test_a_run_resumes_only_with_the_rows_that_it_keeps(tmp_path: Path, change: str) -> None:
    def write_rows(folder: Path) -> None:
        folder.mkdir()
        (folder / "train.parquet").write_bytes(b"rows")

    run = run_folder.create(tmp_path / "run", Config(), {}, overwrite=False, write_rows=write_rows).folder
    run_folder.check_resumable(run)
    name = "test.parquet" if change == "added" else "train.parquet"
    if change == "deleted":
        (run / "rows" / name).unlink()
    else:
        (run / "rows" / name).write_bytes(b"ROWS")
    with pytest.raises(LoralabError, match=name):
        run_folder.check_resumable(run)
