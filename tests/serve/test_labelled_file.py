"""The file of labels: append, undo, reopen, and what crashes and editors leave behind."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loralab.errors import LoralabError, RunFailed
from loralab.serve.page.labelled_file import HEADER, LabelledFile, LabelledRow

TEXTS = ("plain", 'a "quoted", text', "two\nlines", "carriage\rreturn", "=1+1", "żółw 🐢", " ")


def row(number: int, text: str = "text", label: str = "a") -> LabelledRow:
    return LabelledRow(text, label, number, "", "2026-01-01T00:00:00+00:00")


def filled(path: Path) -> LabelledFile:
    file = LabelledFile(path)
    for number, text in enumerate(TEXTS):
        file.append(row(number, text))
    return file


def test_rows_are_on_disk_and_read_again(tmp_path: Path) -> None:
    file = filled(tmp_path / "labels" / "labelled.csv")
    with file.path.open(encoding="utf-8", newline="") as lines:
        assert [record["text"] for record in csv.DictReader(lines)] == [*TEXTS]
    assert LabelledFile(file.path).rows == file.rows
    assert [path.name for path in file.path.parent.iterdir()] == ["labelled.csv"], "no lock is left behind"


def test_undo_removes_the_last_rows(tmp_path: Path) -> None:
    file = filled(tmp_path / "labelled.csv")
    before = file.path.read_bytes()
    file.append(row(9, "last\none"))
    assert file.undo() == row(9, "last\none")
    assert file.path.read_bytes() == before
    reopened = LabelledFile(file.path)
    assert [reopened.undo() for _ in TEXTS] == [row(n, text) for n, text in reversed([*enumerate(TEXTS)])]
    assert reopened.undo() is None
    assert file.path.read_text(encoding="utf-8") == ",".join(f'"{name}"' for name in HEADER) + "\n"


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_torn_last_row_is_set_aside(tmp_path: Path, cut: int) -> None:
    file = filled(tmp_path / "labelled.csv")
    whole = file.path.read_bytes()
    file.append(row(9, "torn\ntext"))
    torn = file.path.read_bytes()[:-cut]
    file.path.write_bytes(torn)
    reopened = LabelledFile(file.path)
    complete = cut in (1, 28)  # only the line break or the time is missing
    if complete:
        assert reopened.rows[-1].label == "a"
        reopened.undo()
    assert reopened.rows == filled(tmp_path / "other.csv").rows
    assert file.path.read_bytes() == whole
    assert complete or (tmp_path / "labelled.csv.torn").read_bytes() == torn[len(whole) :]
    reopened.append(row(10, "next"))
    assert LabelledFile(file.path).rows[-1] == row(10, "next")


def test_a_missing_last_line_break_is_added(tmp_path: Path) -> None:
    file = filled(tmp_path / "labelled.csv")
    file.path.write_bytes(file.path.read_bytes().removesuffix(b"\n"))
    file.append(row(9))
    assert [labelled.row for labelled in LabelledFile(file.path).rows] == [*range(len(TEXTS)), 9]


def test_the_changes_of_others_are_seen(tmp_path: Path) -> None:
    first, second = LabelledFile(tmp_path / "labelled.csv"), LabelledFile(tmp_path / "labelled.csv")
    first.append(row(1))
    second.append(row(2))
    assert second.rows == [row(1), row(2)]
    assert first.undo() == row(2)


@pytest.mark.parametrize(
    "content", ["a,b\n1,2\n", "text,label,row,suggested,time\nx,y\nx,y,1,,z\n", "text,label,row,suggested,time\nx,y,one,,z\n"]
)
def test_other_and_damaged_files_are_refused_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "labelled.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(LoralabError, match=r"labelled\.csv"):
        LabelledFile(path)
    assert path.read_text(encoding="utf-8") == content


def test_a_failed_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = filled(tmp_path / "labelled.csv")
    before = file.path.read_bytes()

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(RunFailed, match="No space left"):
            file.append(row(9))
    assert file.path.read_bytes() == before
    assert len(file.rows) == len(TEXTS)
    file.append(row(10))
    assert LabelledFile(file.path).rows[-1].row == 10


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=12))
def test_any_texts_in_any_order_of_appends_and_undos(tmp_path: Path, actions: list[str | None]) -> None:
    path = tmp_path / "labelled.csv"
    path.unlink(missing_ok=True)
    file, expected = LabelledFile(path), list[LabelledRow]()
    for number, text in enumerate(actions):
        if text is None:
            assert file.undo() == (expected.pop() if expected else None)
        else:
            file.append(row(number, text))
            expected.append(row(number, text))
    assert LabelledFile(path).rows == expected
