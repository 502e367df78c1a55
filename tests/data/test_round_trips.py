"""Random tables, written by every usual writer: what is read back is exactly what was written, or a LoralabError."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
import polars
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl.utils.exceptions import IllegalCharacterError

from loralab.config import DataConfig
from loralab.data.labels import label_text
from loralab.data.sources import keep_labelled, read_raw, training_classes
from loralab.errors import LoralabError

EXAMPLES = int(os.environ.get("LORALAB_ROUND_TRIPS", "1500"))
"""Random tables of one test run: the same ones each time, so that no change fails for a case it did not meet before.
`LORALAB_ROUND_TRIPS=20000` tries other ones; that is the number of a release."""
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1")
SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Table:
    """Texts and their labels; a label of None is missing."""

    texts: list[str]
    labels: list[Any]
    names: tuple[str, str]


TEXT = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=30),
    st.text(st.sampled_from("ab ,;|\t\"'\n\r-=é€“#@{}[]:"), min_size=1, max_size=25),
    st.sampled_from(
        [
            "text",
            "label",
            "id",
            "1",
            "nan",
            "None",
            "0.5",
            "true",
            "a\n\nb",
            '"quoted"',
            '"',
            'say "hi", she',
            "sep=;",
            "__label__x y",
            '{"a": 1}',
        ]
    ),
)
LABELS = st.one_of(
    st.lists(st.sampled_from(["neg", "pos", "neutral"]), min_size=1, max_size=12),
    st.lists(st.integers(-2, 12), min_size=1, max_size=12),
    st.lists(st.booleans(), min_size=1, max_size=12),
    st.lists(st.sampled_from([1.0, 2.0, 2.5, 3.0]), min_size=1, max_size=12),
    st.lists(st.sampled_from(["1", "2.0", "10", "1.50"]), min_size=1, max_size=12),
    st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "c, d", 'e "f"', "None", "nan"])), min_size=1, max_size=12),
    st.lists(TEXT.map(str.strip).filter(bool), min_size=1, max_size=12),
)
NAMES = st.sampled_from([("text", "label"), ("label", "text"), ("Review, full", "stars"), ("title", "class"), ("a b", "y")])


@st.composite
def tables(draw: st.DrawFn) -> Table:
    labels = draw(LABELS)
    texts = draw(st.lists(TEXT, min_size=len(labels), max_size=len(labels)))
    return Table(texts, labels, draw(NAMES))


def columns_of(table: Table) -> dict[str, Sequence[Any]]:
    """Return the columns in file order. The names `label, text` have the labels first."""
    first, second = table.names
    return {first: table.labels, second: table.texts} if first == "label" else {first: table.texts, second: table.labels}


def text_column(table: Table) -> str:
    return table.names[1] if table.names[0] == "label" else table.names[0]


def as_csv(table: Table, separator: str, quoting: int, end: str) -> str:
    if any("\r" in text for text in table.texts):
        quoting = csv.QUOTE_ALL  # before Python 3.13 a carriage return alone is written without quotes
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=separator, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    columns = columns_of(table)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return buffer.getvalue()


def is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def expected_labels(table: Table, typed: bool) -> list[str | None]:
    """Return the labels as the file says them. typed: whether the format keeps types."""
    labels = [label_text(label) for label in table.labels]
    return labels if typed else [label_text("" if label is None else str(label)) for label in table.labels]


def check(path: Path, table: Table, labels: Sequence[str | None]) -> None:
    """Read a training file and compare texts, rows and labels with what was written; a LoralabError is fine."""
    data = DataConfig(source=str(path))
    try:
        raw = read_raw(path, data, need="required")
        texts, table_of_classes, _ = training_classes(raw)
        examples, _ = keep_labelled(raw, texts, table_of_classes, strict=False)
    except LoralabError:
        return
    assert raw.columns.text == (text_column(table),)
    assert [*raw.texts] == table.texts
    if all(label.startswith("[") and label.endswith("]") for label in labels if label):
        return  # lists, as CSV files write them, are unwrapped, and `[]` is no label
    labelled = [row for row, label in enumerate(labels) if label is not None]
    if examples.rows.tolist() != labelled:  # -1 may hide labels
        assert {labels[row] for row in labelled} == {"-1"}
        return
    for row, index in zip(labelled, examples.require_labels(), strict=True):
        assert table_of_classes.match(str(labels[row])) == index, (labels[row], table_of_classes)


OPTIONS = settings(
    max_examples=EXAMPLES,
    derandomize="LORALAB_ROUND_TRIPS" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@OPTIONS
@given(
    table=tables(),
    separator=st.sampled_from(SEPARATORS),
    encoding=st.sampled_from(ENCODINGS),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n"]),
    suffix=st.sampled_from([".csv", ".tsv", ".txt", ""]),
)
def test_csv(folder: Path, table: Table, separator: str, encoding: str, quoting: int, end: str, suffix: str) -> None:
    text = as_csv(table, separator, quoting, end)
    try:
        content = text.encode(encoding)
    except UnicodeEncodeError:
        return
    if encoding in ("cp1252", "latin-1") and is_utf8(content) and not content.isascii():
        return  # bytes that are valid UTF-8 are UTF-8: no reader could know better
    (folder / f"rows{suffix}").write_bytes(content)
    check(folder / f"rows{suffix}", table, expected_labels(table, typed=False))


def frame(table: Table) -> pandas.DataFrame:
    return pandas.DataFrame({name: pandas.Series([*values], dtype=object) for name, values in columns_of(table).items()})


def arrow(table: Table) -> pyarrow.Table:
    return pyarrow.table({name: [*values] for name, values in columns_of(table).items()})


def records(table: Table) -> list[dict[str, Any]]:
    columns = columns_of(table)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def write_pandas_csv(path: Path, table: Table) -> None:
    frame(table).to_csv(
        path, index=False, quoting=csv.QUOTE_ALL if any("\r" in text for text in table.texts) else csv.QUOTE_MINIMAL
    )


def write_excel(path: Path, table: Table) -> None:
    if any("\r" in str(value) for values in columns_of(table).values() for value in values):
        raise ValueError("XML has no carriage returns")
    frame(table).to_excel(path, index=False)


def write_datasets(path: Path, table: Table) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({name: [*values] for name, values in columns_of(table).items()}).to_parquet(path)


def write_polars_csv(path: Path, table: Table) -> None:
    polars.DataFrame({name: [*values] for name, values in columns_of(table).items()}).write_csv(path)


WRITERS: dict[str, tuple[str, bool, Callable[[Path, Table], Any]]] = {
    "pandas-csv": ("csv", False, write_pandas_csv),
    "pandas-json": ("json", True, lambda path, table: frame(table).to_json(path, orient="records")),
    "pandas-jsonl": ("jsonl", True, lambda path, table: frame(table).to_json(path, orient="records", lines=True)),
    "pandas-pickle": ("pkl", True, lambda path, table: frame(table).to_pickle(path)),
    "polars-csv": ("csv", False, write_polars_csv),
    "polars-jsonl": (
        "jsonl",
        True,
        lambda path, table: polars.DataFrame(records(table), infer_schema_length=None).write_ndjson(path),
    ),
    "polars-parquet": (
        "parquet",
        True,
        lambda path, table: polars.DataFrame(records(table), infer_schema_length=None).write_parquet(path),
    ),
    "pyarrow-csv": ("csv", False, lambda path, table: pyarrow.csv.write_csv(arrow(table), path)),
    "pyarrow-parquet": ("parquet", True, lambda path, table: pyarrow.parquet.write_table(arrow(table), path)),
    "json": ("json", True, lambda path, table: path.write_text(json.dumps(records(table)), encoding="utf-8")),
    "json-lines": (
        "jsonl",
        True,
        lambda path, table: path.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in records(table)), encoding="utf-8"
        ),
    ),
    "datasets": ("parquet", True, write_datasets),
    "excel": ("xlsx", True, write_excel),
}
"""Writer → suffix, whether the format keeps types, and the function."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("writer", WRITERS)
@settings(OPTIONS, max_examples=max(20, EXAMPLES // 10))
@given(table=tables())
def test_other_writers(folder: Path, writer: str, table: Table) -> None:
    suffix, typed, write = WRITERS[writer]
    path = folder / f"rows.{suffix}"
    try:
        write(path, table)
    except (ValueError, TypeError, pyarrow.ArrowException, polars.exceptions.PolarsError, IllegalCharacterError):
        return  # the writer cannot write this table
    check(path, table, expected_labels(table, typed))
