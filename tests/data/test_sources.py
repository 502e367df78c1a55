"""Detection of columns, labels of every type, whole sources, and errors with row numbers."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from loralab.config import DataConfig
from loralab.data.check import check_source
from loralab.data.columns import Columns, find_columns
from loralab.data.folders import find_parts
from loralab.data.labels import class_indices, label_text
from loralab.data.sources import (
    RawExamples,
    Source,
    keep_labelled,
    load_source,
    missing_texts,
    number_notices,
    read_examples,
    read_raw,
    training_classes,
)
from loralab.data.types import Examples, Notice, list_rows
from loralab.errors import LoralabError

AG_NEWS = ("World", "Sports", "Business", "Sci/Tech")
SHARED = Path(__file__).parents[2].parent / "shared" / "ag_news"
HERE = Path("news.csv")


def put(path: Path, header: Sequence[str], *rows: Sequence[object]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)
    return path


def parquet(path: Path, names: Sequence[str] = (), **values: Any) -> Path:
    """Write a Parquet file. With `names`, its column `label` is a ClassLabel in the metadata of `datasets`."""
    table = pyarrow.table(values)
    if names:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, path)
    return path


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(LoralabError) as error:
        call()
    return str(error.value)


def detect(*names: str, text: Sequence[str] | None = None, label: str | None = None, need: bool = True) -> Columns:
    data = DataConfig(text=text and [*text], label=label)
    columns, _ = find_columns({name: [] for name in names}, HERE, data, labels="required" if need else "named")
    return columns


def read(
    path: Path, *, text: Sequence[str] | None = None, label: str | None = None, classes: Sequence[str] = (), strict: bool = False
) -> tuple[Examples, Columns]:
    """Read a training file on its own."""
    data = DataConfig(text=text and [*text], label=label, classes=[*classes], strict=strict)
    raw = read_raw(path, data, need="required")
    labels, table, _ = training_classes(raw, data.classes)
    return keep_labelled(raw, labels, table, data.strict)[0], raw.columns


def source_of(source: str, classes: Sequence[str] = ()) -> Source:
    return load_source(DataConfig(source=source, classes=[*classes]))


def labels_of(values: Sequence[object], names: Sequence[str] = ()) -> tuple[list[int], tuple[str, ...]]:
    """Return the class indices and the class names of the values of column `label` of HERE."""
    raw = RawExamples(HERE, ["t"] * len(values), [*values], (), Columns(("text",), "label"))
    labels, table, _ = training_classes(raw, names)
    return class_indices(labels, table, raw.where).tolist(), table.names


# Columns


@pytest.mark.parametrize(
    ("names", "text", "label"),
    [
        (("text", "label"), ("text",), "label"),
        (("label", "text"), ("text",), "label"),
        (("Text", "LABEL"), ("Text",), "LABEL"),
        (("id", "sentence", "category"), ("sentence",), "category"),
        (("review", "stars", "date"), ("review",), "stars"),
        (("title", "description", "label"), ("title", "description"), "label"),
        (("title", "body", "y"), ("title", "body"), "y"),
        (("title", "text", "class"), ("title", "text"), "class"),
        (("title", "label"), ("title",), "label"),
        (("Title", "Description", "Class"), ("Title", "Description"), "Class"),
        (("headline", "topic"), ("headline",), "topic"),
        (("tweet", "sentiment", "user"), ("tweet",), "sentiment"),
        (("whatever", "label"), ("whatever",), "label"),  # the only other column
        (("class", "label", "text"), ("text",), "label"),  # `label` has priority over `class`
    ],
)
def test_columns_are_detected_by_name(names: tuple[str, ...], text: tuple[str, ...], label: str) -> None:
    columns = detect(*names)
    assert (columns.text, columns.label) == (text, label)


def test_named_columns_are_used() -> None:
    assert detect("a", "b", "c", text=["c", "a"], label="b") == Columns(("c", "a"), "b")
    assert detect("text", "label", "c", text=["c"], label="text") == Columns(("c",), "text")
    assert detect("text", "label", "c", label="c") == Columns(("text",), "c")


def test_blanks_around_named_columns_are_ignored_unless_they_are_part_of_the_name() -> None:
    assert detect("title", "body", "label", text=["title", " body "]).text == ("title", "body")
    assert detect("title", " body", "label", text=["title", " body"]).text == ("title", " body")
    assert detect("title", "body", "label", text=["title", " "]).text == ("title",)


def test_a_label_column_is_not_needed_to_predict() -> None:
    assert detect("text", "date", need=False) == Columns(("text",), None)
    assert detect("anything", need=False) == Columns(("anything",), None)
    assert detect("text", "label", need=False).label == "label"


def test_the_error_names_the_columns_and_settings_that_work() -> None:
    message = refused(lambda: detect("subject", "when", "grade"))
    assert message.startswith(
        "news.csv has columns subject, when, grade: name the text and the label column, for example data.text="
    )
    assert "data.text=" in message
    assert "data.label=" in message
    settings = dict(part.split("=") for part in message.split("for example ")[1].split())
    columns = detect("subject", "when", "grade", text=settings["data.text"].split(","), label=settings["data.label"])
    assert columns.label not in columns.text


def test_the_error_asks_only_for_missing_columns() -> None:
    message = refused(lambda: detect("subject", "when", "label"))
    assert "name the text column" in message
    assert "data.label" not in message
    message = refused(lambda: detect("text", "when", "grade"))
    assert "has no label column" in message
    assert "data.text" not in message


def test_the_error_asks_for_no_label_if_none_is_needed() -> None:
    message = refused(lambda: detect("subject", "when", need=False))
    assert "text column" in message
    assert "label" not in message


@pytest.mark.parametrize(
    ("text", "label", "wrong", "meant"), [(["titel"], None, "titel", "title"), (None, "lable", "lable", "label")]
)
def test_a_misspelt_column_gets_a_suggestion(text: list[str] | None, label: str | None, wrong: str, meant: str) -> None:
    message = refused(lambda: detect("title", "body", "label", text=text, label=label))
    setting = "data.text" if text else "data.label"
    assert message == f"news.csv has no column {wrong!r} ({setting}); did you mean {meant!r}?; columns: title, body, label"


def test_text_columns_are_joined_by_a_space_without_missing_ones(tmp_path: Path) -> None:
    path = put(
        tmp_path / "a.csv",
        ("title", "body", "y"),
        ("Oil", "up", "b"),
        ("", "only body", "b"),
        ("only title", "", "c"),
        ("", "", "c"),
    )
    examples, columns = read(path)
    assert columns == Columns(("title", "body"), "y")
    assert examples.texts == ["Oil up", "only body", "only title", ""]
    assert read(path, text=["body", "title"])[0].texts[0] == "up Oil"
    assert read(path, text=["body"])[0].texts[0] == "up"


# Labels

NAMES = ("one", "two", "three")
LABELS: dict[str, list[Any]] = {
    "names": ["two", "three", "one", "two"],
    "from-0": [1, 2, 0, 1],
    "from-1": [2, 3, 1, 2],
    "floats": [1.0, 2.0, 0.0, 1.0],
    "floats-from-1": [2.0, 3.0, 1.0, 2.0],
    "digits": ["1", "2", "0", "1"],
    "digits-from-1": ["2", "3", "1", "2"],
    "spaced": [" two", "three ", "one", "two"],
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "pkl"])
def test_labels_of_every_type_give_the_same_classes(tmp_path: Path, kind: str, ending: str) -> None:
    values, path = LABELS[kind], tmp_path / f"rows.{ending}"
    if ending == "csv":
        whole = [int(value) if isinstance(value, float) else value for value in values]
        put(path, ("text", "label"), *((f"t{i}", value) for i, value in enumerate(whole)))
    elif ending == "jsonl":
        path.write_text("".join(json.dumps({"text": "t", "label": value}) + "\n" for value in values))
    elif ending == "parquet":
        parquet(path, text=["t"] * 4, label=values)
    else:
        path.write_bytes(pickle.dumps({"text": ["t"] * 4, "label": values}))
    examples, columns = read(path, classes=NAMES)
    assert columns.label == "label"
    assert examples.classes == NAMES
    assert examples.require_labels().tolist() == [1, 2, 0, 1]
    assert examples.require_labels().dtype == np.int64
    assert examples.rows.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("values", "classes", "labels"),
    [
        (["b", "a", "c", "a"], ("a", "b", "c"), [1, 0, 2, 0]),
        ([2, 10, 1, 2], ("1", "2", "10"), [1, 2, 0, 1]),  # by value, not alphabetically
        (["2", "10", "1"], ("1", "2", "10"), [1, 2, 0]),
        ([1.0, 5.0, 3.0], ("1", "3", "5"), [0, 2, 1]),
        ([0, 1, 1], ("0", "1"), [0, 1, 1]),
        ([-1, 1, 0], ("-1", "0", "1"), [0, 2, 1]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        ([0.5, 1.5], ("0.5", "1.5"), [0, 1]),
        ([1, "1", 1.0, 2], ("1", "2"), [0, 0, 0, 1]),
        (["1", "x"], ("1", "x"), [0, 1]),
        (["Zebra", "apple"], ("Zebra", "apple"), [0, 1]),
    ],
)
def test_classes_without_names_are_sorted(values: list[Any], classes: tuple[str, ...], labels: list[int]) -> None:
    assert labels_of(values) == (labels, classes)


def test_numbers_count_from_one_only_if_the_largest_is_the_number_of_classes() -> None:
    assert labels_of([1, 2, 3], NAMES)[0] == [0, 1, 2]
    assert labels_of([0, 1, 2], NAMES)[0] == [0, 1, 2]
    assert "could count from 0 or from 1" in refused(lambda: labels_of([1, 2], NAMES))
    message = refused(lambda: labels_of([0, 1, 3], NAMES))
    assert "label '3' in row 2" in message


def test_numbers_that_are_class_names_are_names() -> None:
    assert labels_of([1, 5, 3], ("1", "3", "5"))[0] == [0, 2, 1]


def test_class_names_in_parquet_are_kept(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", ("World", "Sports", "Business"), text=["a", "b", "c", "d"], label=[2, 0, 1, 2])
    examples, _ = read(path)
    assert examples.classes == ("World", "Sports", "Business")
    assert examples.require_labels().tolist() == [2, 0, 1, 2]


def test_class_names_in_parquet_apply_if_the_first_or_last_class_is_missing(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", AG_NEWS, text=["a", "b"], label=[1, 2])
    examples, _ = read(path)
    assert (examples.classes, examples.require_labels().tolist()) == (("Sports", "Business"), [0, 1])


def test_class_names_of_the_file_are_mapped_to_the_known_order(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", ("Sports", "World"), text=["a", "b", "c"], label=[0, 1, 0])
    examples, _ = read(path, classes=("World", "Business", "Sports"))
    assert examples.classes == ("World", "Sports")  # no row is Business
    assert examples.require_labels().tolist() == [1, 0, 1]
    message = refused(lambda: read(path, classes=("World", "Sport")))
    assert "label 'Sports' in rows 0, 2 is not a class; did you mean 'Sport'?" in message


def test_floats_written_as_text_are_the_same_numbers(tmp_path: Path) -> None:
    # pandas writes a column of whole numbers that has a gap as 1.0, 2.0
    path = put(tmp_path / "a.csv", ("text", "label"), ("a", "1.0"), ("b", "3.0"), ("c", "2.0"))
    assert read(path, classes=NAMES)[0].require_labels().tolist() == [0, 2, 1]


def test_booleans_of_jsonl_are_two_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": true}\n{"text": "b", "label": false}\n')
    examples, _ = read(path)
    assert (examples.classes, examples.require_labels().tolist()) == (("False", "True"), [1, 0])


@pytest.mark.parametrize("gap", [None, float("nan"), "", "  "])
def test_missing_labels_have_no_class(gap: object) -> None:
    assert labels_of(["a", gap, "b", gap]) == ([0, -1, 1, -1], ("a", "b"))


def test_rows_without_a_label_are_left_out_or_refused_with_strict(tmp_path: Path) -> None:
    comma = put(tmp_path / "a.csv", ("text", "label"), ("a", "x"), ("b", ""), ("c", "y"))
    arrow = parquet(tmp_path / "a.parquet", text=["a", "b", "c"], label=[0, None, 1])
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"text": "a", "label": 1}\n{"text": "b"}\n{"text": "c", "label": 0}\n')
    for path in (comma, arrow, lines):
        examples, _ = read(path)
        assert (examples.texts, examples.rows.tolist()) == (["a", "c"], [0, 2])
        assert "column 'label': row 1 have no label" in refused(partial(read, path, strict=True))


def test_unknown_labels_are_refused_with_rows_and_a_suggestion() -> None:
    message = refused(lambda: labels_of(["World", "Sport", "Business", "Sport"], AG_NEWS))
    assert message == (
        "news.csv, column 'label': label 'Sport' in rows 1, 3 is not a class; did you mean 'Sports'?; "
        "classes: World, Sports, Business, Sci/Tech"
    )


def test_long_lists_of_rows_are_shortened() -> None:
    assert list_rows([4]) == "row 4"
    assert list_rows([4, 7]) == "rows 4, 7"
    assert list_rows(range(8)) == "rows 0, 1, 2, 3, 4, 5, 6, 7"
    assert list_rows(range(100, 110)) == "rows 100, 101, 102, 103, 104, 105, 106, 107 and 2 more"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (3, "3"),
        (3.0, "3.0"),
        ("3", "3"),
        (" 3 ", "3"),
        (None, None),
        (float("nan"), None),
        ("", None),
        (True, "True"),
        (2.5, "2.5"),
        ("a b", "a b"),
        (["a"], "a"),
        ([], None),
        ({"label": "a"}, "a"),
        ({"a": 0.0, "b": 1.0}, "b"),
        (np.array(["a"]), "a"),
    ],
)
def test_label_text(value: object, key: str | None) -> None:
    assert label_text(value) == key


# Texts and rows


def test_missing_texts_become_empty(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    lines.write_text(
        '{"text": null, "label": "x"}\n{"text": "b", "label": "y"}\n{"text": NaN, "label": "x"}\n{"text": "  ", "label": "y"}\n'
    )
    examples, _ = read(lines)
    assert examples.texts == ["", "b", "", "  "]
    assert missing_texts(examples) == [0, 2, 3]
    arrow = parquet(tmp_path / "a.parquet", text=["a", None], label=["x", "y"])
    assert read(arrow)[0].texts == ["a", ""]
    assert missing_texts(examples.take(np.array([1, 2]))) == [2]  # row numbers of the file


def test_numbers_as_texts_are_read_as_text(tmp_path: Path) -> None:
    assert read(parquet(tmp_path / "a.parquet", text=[1, 2], label=["x", "y"]))[0].texts == ["1", "2"]


def test_unlabelled_file_has_no_labels(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", ("id", "text"), (1, "a"), (2, "b"))
    raw = read_raw(path, DataConfig())
    assert (raw.texts, raw.labels, raw.columns) == (["a", "b"], [], Columns(("text",), None, "id"))
    assert "has no label column" in refused(lambda: read(path))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_without_rows_is_reported(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "csv":
        put(path, ("text", "label"))
    else:
        parquet(path, text=pyarrow.array([], "string"), label=pyarrow.array([], "string"))
    assert refused(lambda: read(path)).endswith("has no rows")


def test_raw_labels_are_unchanged(tmp_path: Path) -> None:
    raw = read_raw(parquet(tmp_path / "a.parquet", ("n", "p"), text=["a", None], label=[1, None]), DataConfig())
    assert (raw.texts, raw.labels, raw.class_names, raw.columns) == (["a", ""], [1, None], ("n", "p"), Columns(("text",), "label"))


# Whole sources


def two_classes(path: Path) -> Path:
    return put(path, ("text", "label"), ("a", "x"), ("b", "y"), ("c", "x"))


def test_a_file_is_a_source_without_test_rows(tmp_path: Path) -> None:
    source = source_of(str(two_classes(tmp_path / "rows.csv")))
    assert source.test is None
    assert source.train.classes == ("x", "y")
    assert source.columns == Columns(("text",), "label")


@pytest.mark.parametrize(
    "names", [("train.csv", "test.csv"), ("train.tsv", "test.csv"), ("train.jsonl", "test.jsonl"), ("train.csv", None)]
)
def test_a_folder_has_train_and_test_parts(tmp_path: Path, names: tuple[str, str | None]) -> None:
    for name in filter(None, names):
        if name.endswith("jsonl"):
            (tmp_path / name).write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
        elif name.endswith("tsv"):
            (tmp_path / name).write_text("text\tlabel\na\tx\nb\ty\n")
        else:
            two_classes(tmp_path / name)
    parts = find_parts(str(tmp_path))
    assert parts.train == (tmp_path / names[0],)
    assert parts.test == ((tmp_path / names[1],) if names[1] else ())
    source = source_of(str(tmp_path))
    assert (source.test is None) == (names[1] is None)


def test_published_layout_folder(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(AG_NEWS) + "\n")
    (tmp_path / "train.csv").write_text("".join(f'"{i}","Title {i}","Words, of {i}"\n' for i in (3, 1, 4, 2, 3)))
    (tmp_path / "test.csv").write_text("".join(f'"{i}","Other {i}","Words of {i}"\n' for i in (4, 2)))
    source = source_of(str(tmp_path))
    assert source.columns == Columns(("title", "description"), "label")
    assert source.train.classes == AG_NEWS
    assert source.train.texts[0] == "Title 3 Words, of 3"
    assert source.train.require_labels().tolist() == [2, 0, 3, 1, 2]
    assert source.test is not None
    assert source.test.require_labels().tolist() == [3, 1]
    assert source.test.classes == AG_NEWS


def test_published_layout_counts_from_one_even_if_the_last_class_is_missing(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(AG_NEWS) + "\n")
    (tmp_path / "train.csv").write_text("".join(f'"{i}","Title","Words"\n' for i in (1, 2, 3, 4)))
    (tmp_path / "test.csv").write_text("".join(f'"{i}","Other","Words"\n' for i in (1, 3, 2)))
    assert read(tmp_path / "test.csv")[0].require_labels().tolist() == [0, 2, 1]
    test = source_of(str(tmp_path)).test
    assert test is not None
    assert test.require_labels().tolist() == [0, 2, 1]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/ag_news")
def test_real_ag_news_reads_alike_in_both_layouts() -> None:
    plain, _ = read(SHARED / "test.csv", classes=AG_NEWS)
    published, columns = read(SHARED / "ag_news_csv" / "test.csv")
    assert columns == Columns(("title", "description"), "label")
    assert published.classes == AG_NEWS
    assert published.require_labels().tolist() == plain.require_labels().tolist()
    assert [text.split() for text in published.texts] == [text.split() for text in plain.texts]
    unlabelled = read_raw(SHARED / "test_unlabelled.pkl", DataConfig())
    assert (unlabelled.labels, unlabelled.columns) == ([], Columns(("text",), None))
    assert unlabelled.texts == plain.texts


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_saved_dataset_dict_folder(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    train = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1]}, features=kinds)
    test = datasets.Dataset.from_dict({"text": ["d"], "label": [1]}, features=kinds)
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "both")
    source = source_of(str(tmp_path / "both"))
    assert source.train.classes == ("no", "yes")
    assert source.train.require_labels().tolist() == [1, 0, 1]
    assert source.test is not None
    assert (source.test.texts, source.test.require_labels().tolist()) == (["d"], [1])
    train.save_to_disk(tmp_path / "one")
    assert source_of(str(tmp_path / "one")).test is None
    assert source_of(str(tmp_path / "one")).train.texts == ["a", "b", "c"]


def test_saved_folders_of_train_and_test(tmp_path: Path) -> None:
    for name, labels in (("train", [1, 0, 1]), ("test", [0])):
        folder = tmp_path / name
        folder.mkdir()
        features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
        table = pyarrow.table({"text": ["t"] * len(labels), "label": labels})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        with pyarrow.OSFile(str(folder / "data.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    source = source_of(str(tmp_path))
    assert source.train.classes == ("no", "yes")
    assert source.train.require_labels().tolist() == [1, 0, 1]
    assert source.test is not None
    assert source.test.require_labels().tolist() == [0]


def test_test_file_uses_the_training_classes(tmp_path: Path) -> None:
    put(tmp_path / "train.csv", ("text", "label"), ("a", "World"), ("b", "Sports"), ("c", "Business"))
    put(tmp_path / "test.csv", ("text", "label"), ("a", "Sports"))
    source = source_of(str(tmp_path))
    assert source.train.classes == ("Business", "Sports", "World")
    assert source.test is not None
    assert source.test.classes == source.train.classes
    assert source.test.require_labels().tolist() == [1]


def test_unknown_labels_in_the_test_file_are_refused_with_rows_and_a_suggestion(tmp_path: Path) -> None:
    put(tmp_path / "train.csv", ("text", "label"), ("a", "World"), ("b", "Sports"))
    put(tmp_path / "test.csv", ("text", "label"), ("a", "World"), ("b", "Sport"), ("c", "World"), ("d", "Sport"))
    message = refused(lambda: source_of(str(tmp_path)))
    assert (
        "test.csv, column 'label': label 'Sport' in rows 1, 3 is not a class; did you mean 'Sports'?; classes: Sports, World"
        in message
    )


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.csv", ("text", "label"), ("a", "x"), ("b", "x"))
    message = refused(lambda: source_of(str(path)))
    assert "only one class (x)" in message
    assert "at least two" in message


def test_data_classes_name_numeric_labels(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.csv", ("text", "label"), *((f"t{i}", i % 4) for i in range(8)))
    train = source_of(str(path), classes=AG_NEWS).train
    assert (train.classes, train.require_labels().tolist()) == (AG_NEWS, [0, 1, 2, 3] * 2)
    message = refused(lambda: source_of(str(path), classes=AG_NEWS[:3]))  # 0 to 3 are four classes
    assert "is not a class" in message
    assert "classes: World, Sports, Business" in message


def test_a_missing_source_and_an_empty_folder_are_reported(tmp_path: Path) -> None:
    message = refused(lambda: source_of(str(tmp_path / "gone.csv")))
    assert "there is no file or folder" in message
    assert "data sets by name: sample, ag_news" in message
    assert "no training part" in refused(lambda: source_of(str(tmp_path)))
    (tmp_path / "test.csv").write_text("text,label\na,b\n")
    assert "no training part" in refused(lambda: source_of(str(tmp_path)))


def test_sample_needs_no_download() -> None:
    source = source_of("sample")
    assert source.train.classes == AG_NEWS
    assert source.columns == Columns(("title", "description"), "label")
    assert source.test is not None
    assert source.test.classes == AG_NEWS


def test_hub_data_without_a_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    message = refused(lambda: source_of("ag_news"))
    for word in ("ConnectionError", "data.source=sample", "data.source=FOLDER", "classes.txt"):
        assert word in message


def test_hub_data_has_its_class_names_and_test_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def fetch(repository: str, repo_type: str, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert (repository, repo_type) == ("fancyzhx/ag_news", "dataset")
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        (tmp_path / "data").mkdir(exist_ok=True)
        for name in allow_patterns:
            labels = [0, 1, 2, 3] if "train" in name else [3, 0]
            parquet(tmp_path / name, AG_NEWS, text=[f"{name} {i}" for i in labels], label=labels)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    source = source_of("ag_news")
    assert source.train.classes == AG_NEWS
    assert source.test is not None
    assert source.test.require_labels().tolist() == [3, 0]
    assert source.test.texts[0] == "data/test-00000-of-00001.parquet 3"


def test_numbers_that_could_count_from_zero_or_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "part.csv"
    path.write_text("text,label\na,1\nb,3\nc,2\n")
    message = refused(lambda: read(path, classes=AG_NEWS))
    assert "from 0 or from 1" in message
    assert "labels 1, 2, 3 of 4 classes" in message
    path.write_text("text,label\na,1\nb,4\nc,2\n")
    assert read(path, classes=AG_NEWS)[0].require_labels().tolist() == [0, 2, 1]  # no row is Business
    path.write_text("text,label\na,1\nb,0\nc,2\n")
    assert read(path, classes=AG_NEWS)[0].require_labels().tolist() == [1, 0, 2]


def test_lone_surrogates_become_question_marks(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "cut \\ud83d", "label": "a\\ud83d"}\n{"text": "whole \\ud83d\\ude00", "label": "b"}\n')
    examples = read(path)[0]
    assert (examples.texts, examples.classes) == (["cut ?", "whole 😀"], ("a?", "b"))


# Values


def test_fingerprint_depends_on_texts_labels_and_class_names() -> None:
    def make(texts: Sequence[str] = ("a", "b"), labels: Sequence[int] = (0, 1), classes: tuple[str, ...] = ("x", "y")) -> str:
        return Examples(texts, np.array(labels), np.arange(len(texts)), classes).fingerprint()

    assert make() == make()
    others = [make(texts=("a", "c")), make(texts=("b", "a")), make(texts=("ab", "")), make(labels=(1, 0)), make(classes=("x", "z"))]
    assert len({make(), *others}) == 6
    assert len(make(texts=("\ud800", "b"))) == 16


def test_training_and_check_note_the_same_likely_mistakes(tmp_path: Path) -> None:
    rows = [(f"leaks {i}", label) for i in range(20) for label in ("a", "b", "a|b")] + [
        (word, "a") for word in ("nan", "NaN", "n/a ")
    ]
    path = put(tmp_path / "news.csv", ("text", "label"), *rows)
    other = put(tmp_path / "test.csv", ("text", "label"), ("fine", "a"), ("null", "b"))
    data = DataConfig(source=str(path), test=str(other))
    notices = load_source(data).notices
    several = next(notice for notice in notices["train"] if "several in one: a|b" in notice.message)
    words = next(notice for notice in notices["train"] if "read like missing values" in notice.message)
    assert several.rows == tuple(range(2, 60, 3))
    assert words.message.endswith("1 'nan', 1 'NaN', 1 'n/a'")
    assert words.rows == (60, 61, 62)
    (elsewhere,) = (notice for notice in notices["test"] if "read like missing values" in notice.message)
    assert elsewhere.rows == (1,)
    train, test = check_source(data)
    assert [train.findings.count(notice) for notice in (several, words)] == [1, 1]
    assert sum("read like missing values" in finding.message for finding in test.findings) == 1


def test_numbers_read_by_the_order_of_classes_are_noted() -> None:
    assert number_notices({"2": "b c", "1": "a"}) == [Notice("numbers are read by the order of data.classes: 1 as 'a', 2 as 'b c'")]
    assert number_notices({}) == []


def test_a_labelled_file_is_read_with_known_classes(tmp_path: Path) -> None:
    training = put(tmp_path / "train.csv", ("body", "kind"), ("one text", "a"), ("two texts", "b"), ("three", "a"))
    source = load_source(DataConfig(source=str(training), text="body", label="kind"))
    assert source.contract.rows == {"a": 2, "b": 1}
    assert source.contract.values == {"a": ("a",), "b": ("b",)}
    assert (source.contract.format, source.contract.delimiter, source.contract.header) == ("csv", ",", True)
    other = put(tmp_path / "other.csv", ("body", "kind", "x"), ("four", "B", "1"), ("five", "", "2"), ("six", "a", "3"))
    examples, raw = read_examples(other, DataConfig(), source.classes, source.contract)
    assert (examples.texts, examples.labels.tolist(), examples.rows.tolist()) == (["four", "six"], [1, 0], [0, 2])  # type: ignore[union-attr]
    assert raw.texts == ["four", "five", "six"]
    assert [notice.message[:22] for notice in raw.notices] == ["labels are read by the", "1 of 3 rows has no lab"]
    assert raw.sample["x"] == ["1", "2", "3"]
    assert "have no label" in refused(partial(read_examples, other, DataConfig(strict=True), source.classes, source.contract))
    numbered = put(tmp_path / "numbers.csv", ("body", "kind"), ("four", "1"), ("five", "0"))
    examples, raw = read_examples(numbered, DataConfig(classes=("a", "b")), source.classes, source.contract)
    assert examples.labels.tolist() == [1, 0]  # type: ignore[union-attr]
    assert any("by the order of data.classes" in notice.message for notice in raw.notices)
    without = put(tmp_path / "empty.csv", ("body", "kind"), ("four", ""), ("five", ""))
    error = refused(partial(read_examples, without, DataConfig(), source.classes, source.contract))
    assert error == f"{without}, column 'kind': no row has a label"


def test_labels_are_found_by_content_only_where_they_are_wanted(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.csv", ("text", "other"), *((f"some text {i}", "xy"[i % 2]) for i in range(8)))
    assert read_raw(path, DataConfig()).columns.label is None
    assert read_raw(path, DataConfig(), need="wanted").columns.label == "other"
    assert read_raw(path, DataConfig(), need="required").labels == ["x", "y"] * 4
