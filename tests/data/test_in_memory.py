"""Tables in memory are read as the files they could be written to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from loralab.config import DataConfig
from loralab.data.folders import Parts
from loralab.data.in_memory import labelled_table, memory_parts, memory_table, read_parts, same_parts, write_parts
from loralab.data.sources import load_source, read_raw
from loralab.errors import LoralabError

TEXTS = ["oil rises", "late goal", "naïve 文字 🙂", "", "a,b;c\n'quoted'", "cup won"]
LABELS = ["business", "sport", "business", "sport", "business", "sport"]
COLUMNS = {"text": TEXTS, "label": LABELS, "n": [1, 2, 3, 4, 5, 6]}
MEMORY, TEXT = DataConfig(source="memory"), DataConfig(source="memory", text="text")
TABLES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame(COLUMNS),
    "pandas, objects": lambda: pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in COLUMNS.items()}),
    "pandas, categorical": lambda: pd.DataFrame(COLUMNS).astype({"label": "category"}),
    "pandas, filtered": lambda: pd.concat([pd.DataFrame(COLUMNS)] * 2, ignore_index=True).iloc[:6],
    "polars": lambda: pl.DataFrame(COLUMNS),
    "polars, categorical": lambda: pl.DataFrame(COLUMNS).with_columns(pl.col("label").cast(pl.Categorical)),
    "arrow": lambda: pa.table(COLUMNS),
    "arrow, chunks": lambda: pa.concat_tables([pa.table(COLUMNS).slice(0, 2), pa.table(COLUMNS).slice(2)]),
    "dataset": lambda: datasets.Dataset.from_dict(COLUMNS),
    "dataset, chosen": lambda: datasets.Dataset.from_dict({k: v[::-1] for k, v in COLUMNS.items()}).select([5, 4, 3, 2, 1, 0]),
    "columns": lambda: COLUMNS,
    "arrays": lambda: {name: np.array(values) for name, values in COLUMNS.items()},
    "rows": lambda: [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)],
    "pairs": lambda: list(zip(TEXTS, LABELS, strict=True)),
    "texts and labels": lambda: (TEXTS, np.array(LABELS)),
    "series": lambda: (pd.Series(TEXTS, index=range(10, 16)), pd.Series(LABELS)),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_kind_of_table_gives_the_same_rows(name: str) -> None:
    source = load_source(TEXT, memory_parts(TABLES[name]()))

    assert [*source.train.texts] == TEXTS
    assert source.train.classes == ("business", "sport")
    assert source.train.require_labels().tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("name", TABLES)
def test_what_is_stored_reads_back_as_it_was(name: str, tmp_path: Path) -> None:
    parts = memory_parts({"train": TABLES[name](), "test": TABLES[name]()})
    data = TEXT.model_copy(update={"source": str(tmp_path / "rows")})

    write_parts(parts, tmp_path / "rows")

    memory, stored = load_source(data, parts), load_source(data)
    assert memory.train.fingerprint() == stored.train.fingerprint()
    assert memory.test is not None
    assert stored.test is not None
    assert memory.test.fingerprint() == stored.test.fingerprint()
    assert memory.contract == stored.contract
    assert same_parts(read_parts(tmp_path / "rows"), parts)


def test_parts_take_the_usual_names_and_say_what_is_not_used() -> None:
    splits = datasets.DatasetDict({name: datasets.Dataset.from_dict(COLUMNS) for name in ("train", "dev", "test", "unsupervised")})

    parts = memory_parts(splits)

    assert (len(parts.train), len(parts.validation), len(parts.test)) == (1, 1, 1)
    assert "not used: unsupervised" in str(parts.notices[0])
    assert not same_parts(parts, memory_parts({"train": COLUMNS}))


def test_a_data_set_keeps_its_class_names() -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["sport", "business"])})
    rows = datasets.Dataset.from_dict({"text": TEXTS, "label": [1, 0, 1, 0, 1, 0]}, features=features)

    assert load_source(MEMORY, memory_parts(rows)).train.classes == ("sport", "business")


@pytest.mark.parametrize("names", [["2", "10", "30"], ["-1", "0", "1"], ["10", "1", "0"]])
def test_class_names_that_are_numbers_are_not_taken_for_indices(names: list[str]) -> None:
    table = labelled_table({"text": ["a", "b", "c"]}, None, [0, 1, 2], names)

    source = load_source(TEXT, memory_parts(table))

    assert source.train.classes == tuple(names)
    assert source.train.require_labels().tolist() == [0, 1, 2]


def test_missing_texts_and_labels_are_those_of_a_file() -> None:
    frame = pd.DataFrame({"text": ["a", None, "c", float("nan"), "e"], "label": ["x", "y", None, "x", "y"]})

    source = load_source(MEMORY, memory_parts(frame))

    assert [*source.train.texts] == ["a", "", "", "e"]
    assert any("1 of 5 rows has no label" in str(notice) for notice in source.notices["train"])


def test_labels_of_several_types_are_read_as_texts() -> None:
    source = load_source(MEMORY, memory_parts({"text": ["a", "b", "c"], "label": [1, "one", 1]}))

    assert source.train.classes == ("1", "one")


def test_columns_of_objects_are_left_out_with_a_notice() -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"], "object": [object(), object()]})

    source = load_source(MEMORY, memory_parts(frame))

    assert any("column 'object' is left out: it holds values of type object" in str(own) for own in source.notices["train"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "the data: a int is no table: give a DataFrame"),
        ([], "the data: a list is no table"),
        (["one text", "another"], "the data: a list is no table"),
        ({"text": ["a", "b"], "label": ["x"]}, "the columns have different lengths, text: 2, label: 1"),
        ({"text": "abc", "label": "xyz"}, "column 'text' holds one str, not one value per row"),
        (pd.DataFrame({"text": [], "label": []}), "the data: there are no rows"),
        (pd.DataFrame([["a", "b", "x"]], columns=["text", "text", "label"]), "2 columns are called 'text': rename them"),
        ({"test": COLUMNS}, "the data has no training part: its keys are test"),
        (datasets.Dataset.from_dict(COLUMNS).to_iterable_dataset(), "IterableDataset has no length: load it whole"),
        ({"text": ["a", "b"], "label": ["x", "x"]}, "the data has only one class (x)"),
        ({"text": ["a", "b"], "label": [["x", "y"], ["y"]]}, "several labels in row 0"),
    ],
)
def test_what_is_no_table_is_refused(data: object, message: str) -> None:
    with pytest.raises(LoralabError) as raised:
        load_source(MEMORY, memory_parts(data))

    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        (["a", 1, None, 2.5], ["a", "1", None, "2.5"]),
        (["a\ud800", "b", None, float("nan")], ["a?", "b", None, None]),
        ([True, "x"], ["True", "x"]),
        ([1, 2**70], ["1", str(2**70)]),
        ([1, 2, None], [1, 2, None]),
    ],
)
def test_values_that_no_arrow_type_holds_are_texts(values: list[Any], stored: list[Any]) -> None:
    assert memory_table({"text": values}, "the data").table.column("text").to_pylist() == stored


def test_the_types_are_those_of_a_parquet_file() -> None:
    table = pa.table(
        {
            "text": pa.array(["x", None, "y"], pa.string_view()),
            "label": pa.array(["a", "b", "a"]).dictionary_encode(),
            "number": pa.array([3, 1, 3]).dictionary_encode(),
            "id": [1, 2, 3],
        }
    )
    stored = memory_table(table, "the data").table
    assert stored.to_pydict() == table.to_pydict()
    assert [str(kind) for kind in stored.schema.types] == ["string", "string", "int64", "int64"]


def test_objects_are_named_by_the_type_that_is_none() -> None:
    table = memory_table({"text": ["a", "b", "c"], "object": [None, "x", {1}]}, "the data")
    assert (table.table.column_names, [notice.severity for notice in table.notices]) == (["text"], ["warning"])
    assert "type set" in table.notices[0].message


def test_equal_names_are_refused() -> None:
    with pytest.raises(LoralabError, match="2 columns are called '1': rename them"):
        memory_table(pd.DataFrame({1: ["a"], "1": ["b"]}), "the data")


@pytest.mark.parametrize(
    ("data", "columns"),
    [
        ([("a", 1), ["b", 2]], {"text": ["a", "b"], "label": [1, 2]}),
        ((["a", "b"], [1, 2]), {"text": ["a", "b"], "label": [1, 2]}),
        ([{"text": "a"}, {"text": "b", "label": 1}], {"text": ["a", "b"], "label": [None, 1]}),
    ],
)
def test_rows_and_pairs_become_columns(data: object, columns: dict[str, Any]) -> None:
    assert memory_table(data, "the data").table.to_pydict() == columns


@pytest.mark.parametrize("data", [[("a", 1, 2)], [(1, "a")], [["a"]], ["ab", "cd"], "text", 5, [], [{"a"}], ("ab", "cd")])
def test_other_rows_are_refused(data: object) -> None:
    with pytest.raises(LoralabError, match="is no table"):
        memory_table(data, "the data")


def test_labelled_rows_are_one_table(tmp_path: Path) -> None:
    table = labelled_table({"label": ["x", None], "weight": ["", "y"]}, None, [1, 0], ["no", "yes"], [1, 2])
    assert table.table.to_pydict() == {"label": ["x", None], "weight": [None, "y"], "label_": [1, 0], "weight_": [1.0, 2.0]}
    assert [str(kind) for kind in table.table.schema.types] == ["string", "string", "int64", "double"]
    parts = Parts((table,))
    write_parts(parts, tmp_path / "rows")
    stored = read_parts(tmp_path / "rows")
    assert same_parts(parts, stored)
    assert not same_parts(parts, Parts((table,), test=(table,)))
    raw = read_raw(stored.train, DataConfig(text="label", label="label_"))
    assert (raw.class_names, raw.labels) == (("no", "yes"), [1, 0])
    assert labelled_table({"text": ["x"]}, "kind", [0], ["no"]).table.column_names == ["text", "kind"]
