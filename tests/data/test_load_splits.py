"""The splits that the data settings give, remarks about them, and class descriptions as texts."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loralab.config import load_config
from loralab.data.columns import Columns
from loralab.data.prompt import description_texts
from loralab.data.sources import Source
from loralab.data.split_remarks import split_remarks
from loralab.data.splits import Splits, load_splits
from loralab.data.types import Examples
from loralab.errors import LoralabError

Row = tuple[str, str]


def put(path: Path, rows: Sequence[Row], header: Sequence[str] = ("text", "label")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)
    return path


def rows(each: int = 50, prefix: str = "text", classes: Sequence[str] = ("World", "Sports")) -> list[Row]:
    return [(f"{prefix} {i} {name}", name) for i in range(each) for name in classes]


def load(source: str | Path, *overrides: str) -> tuple[Splits, Source]:
    """Load the splits of a config, as the pipeline does."""
    config = load_config("quickstart", [f"data.source={source}", *overrides])
    return load_splits(config.data)


def sizes(splits: Splits) -> dict[str, int]:
    return {name: len(part) for name, part in splits.parts().items()}


def refused(*arguments: Any) -> str:
    with pytest.raises(LoralabError) as error:
        load(*arguments)
    return str(error.value)


def test_the_sample_keeps_its_own_test_rows() -> None:
    splits, columns = load("sample")
    assert sizes(splits) == {"train": 720, "validation": 80, "test": 400}
    assert columns.columns == Columns(("title", "description"), "label")
    assert splits.test.rows.tolist() == list(range(400))
    assert split_remarks(splits) == []


def test_a_fifth_is_held_out_from_a_file_without_test_rows(tmp_path: Path) -> None:
    splits, _ = load(put(tmp_path / "a.csv", rows()))
    assert sizes(splits) == {"train": 72, "validation": 8, "test": 20}
    for part in splits.parts().values():
        counts = np.bincount(part.require_labels())
        assert counts[0] == counts[1]


def test_settings_reach_the_split(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", rows())
    splits, _ = load(path, "data.test=0.3", "data.validation=10", "data.max_train_samples=20", "data.max_test_samples=8")
    assert sizes(splits) == {"train": 20, "validation": 10, "test": 8}
    assert sizes(load(path, "data.shots_per_class=3")[0])["train"] == 6
    assert sizes(load(path, "data.validation=0")[0]) == {"train": 80, "test": 20}
    one, same, other = (load(path, f"data.split_seed={seed}")[0] for seed in (1, 1, 2))
    assert one.test.rows.tolist() == same.test.rows.tolist() != other.test.rows.tolist()


def test_split_does_not_depend_on_the_seed_of_the_run(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", rows())
    assert load(path, "seed=1")[0].test.rows.tolist() == load(path, "seed=2")[0].test.rows.tolist()


def test_columns_and_classes_follow_the_settings(tmp_path: Path) -> None:
    numbered = [(f"text {i}", str(i % 3)) for i in range(60)]
    path = put(tmp_path / "a.csv", numbered, ("subject", "grade"))
    splits, columns = load(path, "data.text=subject", "data.label=grade", "data.classes=low,middle,high")
    assert columns.columns == Columns(("subject",), "grade")
    assert splits.train.classes == splits.test.classes == ("low", "middle", "high")


def test_given_files_use_the_training_classes(tmp_path: Path) -> None:
    train = put(tmp_path / "a.csv", rows(20, classes=("World", "Sports", "Business")))
    test = put(tmp_path / "b.csv", [("x", "Sports"), ("y", "Sports")])
    validation = put(tmp_path / "c.csv", [("v", "World"), ("w", "Sports")])
    splits, _ = load(train, f"data.test={test}", f"data.validation={validation}")
    assert sizes(splits) == {"train": 60, "validation": 2, "test": 2}
    assert splits.train.classes == ("Business", "Sports", "World")
    assert splits.test.require_labels().tolist() == [1, 1]
    assert splits.validation is not None
    assert splits.validation.require_labels().tolist() == [2, 1]


def test_data_test_replaces_the_test_rows_of_the_source(tmp_path: Path) -> None:
    put(tmp_path / "train.csv", rows(20))
    put(tmp_path / "test.csv", rows(5, "default"))
    other = put(tmp_path / "other.csv", rows(3, "other"))
    assert len(load(tmp_path)[0].test) == 10
    assert list(load(tmp_path, f"data.test={other}")[0].test.texts) == [text for text, _ in rows(3, "other")]
    held_out = load(tmp_path, "data.test=0.25")[0]
    assert sizes(held_out) == {"train": 27, "validation": 3, "test": 10}
    assert all(text.startswith("text") for text in held_out.test.texts)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_unknown_labels_in_a_file_are_refused_with_rows_and_a_suggestion(tmp_path: Path, part: str) -> None:
    train = put(tmp_path / "a.csv", rows())
    other = put(tmp_path / "b.csv", [("x", "Sports"), ("y", "Sport"), ("z", "Sport")])
    message = refused(train, f"data.{part}={other}")
    assert "b.csv, column 'label': label 'Sport' in rows 1, 2 is not a class; did you mean 'Sports'?" in message
    assert "classes: Sports, World" in message


@pytest.mark.parametrize("part", ["test", "validation", "train_indices"])
def test_missing_files_are_named(tmp_path: Path, part: str) -> None:
    assert "gone.csv" in refused(put(tmp_path / "a.csv", rows()), f"data.{part}={tmp_path / 'gone.csv'}")


def test_unlabelled_files_are_refused(tmp_path: Path) -> None:
    train = put(tmp_path / "a.csv", rows())
    test = put(tmp_path / "b.csv", [("x", "1")], ("text", "date"))
    assert "has no labels" in refused(train, f"data.test={test}")


def test_index_file_selects_training_rows(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", rows())
    whole = load(path)[0].train.rows
    chosen = tmp_path / "rows.txt"
    chosen.write_text("5\n0\n2\n1\n")
    splits, _ = load(path, f"data.train_indices={chosen}")
    assert splits.train.rows.tolist() == whole[[0, 1, 2, 5]].tolist()
    chosen.write_text("5\n72\n")
    assert "row 72; the training rows are 0-71" in refused(path, f"data.train_indices={chosen}")


def test_remarks_count_missing_and_shared_texts() -> None:
    def part(*texts: str, first: int = 0) -> Examples:
        return Examples(texts, np.zeros(len(texts), dtype=np.int64), np.arange(first, first + len(texts)), ("x",))

    splits = Splits(part("a", "", " ", "Oil up", first=10), None, part("b", "oil  UP", "\t"))
    remarks = split_remarks(splits)
    assert remarks[0] == "2 training rows have no text, such as row 11; they are kept as empty texts"
    assert remarks[1] == "1 test rows have no text, such as row 2; they are kept as empty texts"
    assert len(remarks) == 3
    assert "of 3 test texts are also training texts" in remarks[2]


def test_empty_texts_do_not_count_as_shared() -> None:
    def part(*texts: str) -> Examples:
        return Examples(texts, np.zeros(len(texts), dtype=np.int64), np.arange(len(texts)), ("x", "y"))

    remarks = split_remarks(Splits(part("a", ""), None, part("b", "")))
    assert [remark for remark in remarks if "training texts" in remark] == []


def test_descriptions_become_labelled_texts_in_class_order() -> None:
    described = description_texts(("a", "b"), {"b": ("x {y}",), "a": ("z", "z2")}, "On {}.")
    assert (described.texts, described.require_labels().tolist()) == (["On z.", "On z2.", "On x {y}."], [0, 0, 1])
    plain = description_texts(("a", "b"), None, "{}")
    assert (plain.texts, plain.require_labels().tolist(), plain.classes) == (["a", "b"], [0, 1], ("a", "b"))


def test_descriptions_must_match_the_classes() -> None:
    with pytest.raises(LoralabError, match="class 'Sports' has none"):
        description_texts(("World", "Sports"), {"World": ("war",), "Sports": ()}, "{}")
    with pytest.raises(LoralabError, match="'Sport' is not a class; did you mean 'Sports'"):
        description_texts(("World", "Sports"), {"World": ("war",), "Sport": ("goals",)}, "{}")


def grouped(path: Path, columns: Sequence[str] = ("text", "label", "author")) -> Path:
    lines = [(f"text {i}", "ab"[i % 2], f"author {i // 2 % 10}")[: len(columns)] for i in range(60)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *lines])
    return path


def test_a_test_file_may_lack_the_group_column_and_that_is_said(tmp_path: Path) -> None:
    train, test = grouped(tmp_path / "a.csv"), grouped(tmp_path / "b.csv", ("text", "label"))
    splits, source = load(train, "data.group=author", f"data.test={test}")
    assert splits.validation is not None
    assert not {*(splits.train.groups or ())} & {*(splits.validation.groups or ())}
    assert any("b.csv has no column 'author' (data.group)" in str(notice) for notice in source.notices["test"])
    assert "has no column 'autor' (data.group); did you mean 'author'?" in refused(train, "data.group=autor")


def test_one_column_holds_the_groups(tmp_path: Path) -> None:
    train = grouped(tmp_path / "a.csv")
    assert load(train, "data.group= author ")[0].train.groups is not None
    assert "data.group=author,label names 2 columns" in refused(train, "data.group=author,label")
