"""Files: atomic writes, locks, CSV limits."""

from __future__ import annotations

import csv
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from loralab.errors import LoralabError, RunFailed
from loralab.storage.files import atomic_folder, atomic_write, csv_field_limit, file_lock, read_json_object, write_json


def test_an_error_of_reading_is_not_reported_as_one_of_writing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "target"):
        (tmp_path / "missing.json").read_text()
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_writing_names_the_target(tmp_path: Path) -> None:
    with (
        pytest.raises(RunFailed, match=r"cannot write .*target: No such file or directory; previously"),
        atomic_folder(tmp_path / "target") as new,
    ):
        (new / "missing" / "file").write_text("x")
    with pytest.raises(RunFailed, match=r"cannot write .*target: No space left"), atomic_folder(tmp_path / "target"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(TypeError), atomic_write(path) as file:
        file.writelines(["new", 1])  # type: ignore[list-item]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_json_object_is_read_back_and_anything_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    assert read_json_object(path, "train again") == {"a": 1}
    for damaged in ("[1]", "{", ""):
        path.write_text(damaged)
        with pytest.raises(LoralabError, match=r"cannot read .*a\.json .*: train again"):
            read_json_object(path, "train again")


def test_a_lock_excludes_threads_and_processes_and_ends_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        f"import pathlib, sys, time\nfrom loralab.storage.files import file_lock\n"
        f"with file_lock(pathlib.Path({str(path)!r})):\n    print('locked', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    with file_lock(path, wait=False) as acquired:
        assert not acquired
    holder.kill()
    holder.communicate()
    with file_lock(path, wait=False) as acquired:
        assert acquired
        seen: list[bool] = []

        def other() -> None:
            with file_lock(path, wait=False) as also:
                seen.append(also)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert seen == [False]


def test_the_limit_of_csv_fields_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\n" + "x" * 200_000 + "\n")
    before = csv.field_size_limit()
    with csv_field_limit(1 << 20), csv_field_limit(1 << 18), path.open(newline="") as file:
        assert len(list(csv.reader(file))[1][0]) == 200_000
    assert csv.field_size_limit() == before
