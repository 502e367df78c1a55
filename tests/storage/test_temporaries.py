"""Temporary files of killed processes are removed, those of live ones stay, and a run that was being replaced is never lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loralab.config import Config
from loralab.storage import run_folder, temporaries
from loralab.storage.files import atomic_folder, atomic_write, write_json
from loralab.storage.temporaries import lock_folder

KILLED_BETWEEN = """
import os, pathlib, signal, sys
from loralab.storage import files, temporaries
target = pathlib.Path(sys.argv[1])
temporaries._exchange = lambda new, old: False  # a system that cannot exchange two folders
replace, moved = os.replace, []
def killed(source, destination):
    if moved:
        os.kill(os.getpid(), signal.SIGKILL)
    moved.append(source)
    replace(source, destination)
os.replace = killed
with files.atomic_folder(target) as folder:
    (folder / "new.txt").write_text("new")
"""
LOCKING = "import sys; from pathlib import Path; from loralab.storage.temporaries import lock_folder; import time\n"
FILLING = """
import pathlib, sys, time
from loralab.storage.files import atomic_folder
with atomic_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "half.txt").write_text("half")
    print("filling", flush=True)
    time.sleep(60)
"""


def start_filling(target: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", FILLING, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "filling\n"
    return process


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_run_whose_replacement_was_killed_half_way_is_back_at_the_next_command(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_folder.create(tmp_path / "news", Config(seed=7), {}, overwrite=False)
    run.write_scores({"scores": {"accuracy": 0.9}})
    ended = subprocess.run([sys.executable, "-c", KILLED_BETWEEN, str(run.folder)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not run.folder.exists()
    assert run_folder.read_config(run.folder).seed == 7
    assert run_folder.read_scores(run.folder) == {"scores": {"accuracy": 0.9}}
    assert "news was being replaced when its process was killed: the earlier one is back" in caplog.text
    assert names(tmp_path) == {"news"}


def test_linux_replaces_a_folder_without_a_moment_in_which_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "new").touch()
    if not temporaries._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange folders")
    assert names(tmp_path / "a") == {"new"}
    monkeypatch.setattr(os, "replace", None)  # two renames would leave a moment without the folder
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "newer").touch()
    assert names(tmp_path / "a") == {"newer"}
    assert names(tmp_path) == {"a", "b"}


def test_the_next_command_removes_what_a_killed_one_left_of_its_target_and_nothing_else(tmp_path: Path) -> None:
    process = start_filling(tmp_path / "news")
    process.kill()
    process.communicate()
    (left,) = names(tmp_path)
    for other in (".news.settings", ".news.", ".newspaper.abcd1234.unfinished", ".news.abcd1234.unfinished.txt"):
        (tmp_path / other).write_text("a user's own")
    with atomic_write(tmp_path / "news"):
        pass
    assert left not in names(tmp_path)
    assert names(tmp_path) == {
        "news",
        ".news.settings",
        ".news.",
        ".newspaper.abcd1234.unfinished",
        ".news.abcd1234.unfinished.txt",
    }


def test_the_temporaries_of_a_live_process_stay(tmp_path: Path) -> None:
    process = start_filling(tmp_path / "news")
    before = names(tmp_path)
    write_json(tmp_path / "news", {})
    assert temporaries.sweep(tmp_path / "news") == []
    assert names(tmp_path) == before | {"news"}
    with atomic_write(tmp_path / "mine"):  # also those of this process
        assert temporaries.sweep(tmp_path / "mine") == []
    process.kill()
    process.communicate()
    assert len(temporaries.sweep(tmp_path / "news")) == 1
    assert names(tmp_path) == {"news", "mine"}


def test_a_link_with_the_name_of_a_temporary_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").touch()
    (tmp_path / ".news.abcd1234.unfinished").symlink_to(tmp_path / "secret", target_is_directory=True)
    temporaries.sweep(tmp_path / "news")
    assert names(tmp_path / "secret") == {"key"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_a_lock_is_waited_for_a_moment_and_no_longer(tmp_path: Path) -> None:
    code = f"{LOCKING}with lock_folder(Path(sys.argv[1])) as free:\n    print(free, flush=True)\n    time.sleep(float(sys.argv[2]))"

    def holder(seconds: float) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(seconds)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        return process

    with holder(0.3), lock_folder(tmp_path, seconds=20) as free:
        assert free
    with holder(60) as process:
        with lock_folder(tmp_path, seconds=0.1) as free:
            assert not free
        process.kill()
