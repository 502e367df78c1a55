"""Tables in memory → Arrow tables that are read like Parquet files: frames, `datasets`, lists, dictionaries, arrays."""

from __future__ import annotations

import datetime
import json
import numbers
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loralab.data.columns import list_names
from loralab.data.folders import PART_WORDS, Parts
from loralab.data.labels import cell_text
from loralab.data.types import MemoryTable, Notice
from loralab.errors import LoralabError
from loralab.storage.files import write_errors

if TYPE_CHECKING:
    import pyarrow

ACCEPTED = "a DataFrame of pandas or polars, an Arrow table, a Dataset, a dict of columns, a list of dicts, or (texts, labels)"
TEXT, LABEL, WEIGHT = "text", "label", "weight"
"""Columns of texts, labels and row weights that have no names."""
_SCALARS = (str, numbers.Number, bool, np.generic, datetime.date, datetime.time, datetime.timedelta)


def is_path(data: object) -> bool:
    """Return whether data is named, by a path or the name of a source, rather than in memory."""
    return isinstance(data, (str, Path))


def memory_parts(data: object) -> Parts:
    """Return the tables of data in memory: one for training, or training, validation and test tables by name.

    data: see ACCEPTED, or a dictionary or DatasetDict of these by part, such as {"train": ..., "test": ...}. Raises LoralabError
    for anything else, and for parts without training rows.
    """
    if isinstance(data, Parts):
        return data
    if not isinstance(data, Mapping) or not data or not all(map(_is_table, data.values())):
        return Parts((memory_table(data, "the data"),))
    names = {str(name): name for name in data}
    parts = {part: next((names[word] for word in words if word in names), None) for part, words in PART_WORDS.items()}
    if parts["train"] is None:
        raise LoralabError(f"the data has no training part: its keys are {list_names([*names])}; name one of them train")
    tables = {part: (memory_table(data[name], f"the {part} rows"),) for part, name in parts.items() if name is not None}
    others = [name for name, key in names.items() if key not in parts.values()]
    notices = (Notice(f"not used: {list_names(others)} of the data"),) if others else ()
    return Parts(tables["train"], tables.get("validation", ()), tables.get("test", ()), notices)


def memory_table(data: object, name: str) -> MemoryTable:
    """Return one table. name: what messages call it. Raises LoralabError for no table, and for columns of unequal length."""
    import pyarrow

    notices: list[Notice] = []
    if isinstance(data, MemoryTable):
        return data
    if isinstance(data, pyarrow.Table):
        table = data
    elif _is_dataset(data):
        table = _from_dataset(data)
    elif _is_pandas(data):
        table = _from_columns({column: data[column] for column in _unique(list(data.columns), name)}, name, notices)  # type: ignore[index, attr-defined]
    elif hasattr(data, "__arrow_c_stream__"):
        table = pyarrow.table(data)
    else:
        table = _from_columns(_columns(data, name), name, notices)
    if not table.num_columns or not table.num_rows:
        raise LoralabError(f"{name}: there are no rows")
    _unique(table.column_names, name)
    return MemoryTable(name, _stored_types(table), tuple(notices))


def labelled_table(
    texts: Mapping[str, Sequence[object]],
    label: str | None,
    codes: Sequence[int],
    classes: Sequence[str],
    weights: Sequence[float] | None = None,
) -> MemoryTable:
    """Return text columns, class indices and, if given, row weights as one table: the columns of texts, then the others.

    label: the name of the label column, if it has one. The classes are stored as `datasets` stores a ClassLabel, so that no value
    is read as anything else.
    """
    import pyarrow

    columns = {
        name: pyarrow.array([None if cell_text(own) is None else own for own in values], pyarrow.string())
        for name, values in texts.items()
    }
    label = label or _free_name(LABEL, columns)
    columns[label] = pyarrow.array(codes, pyarrow.int64())
    if weights is not None:
        columns[_free_name(WEIGHT, columns)] = pyarrow.array(weights, pyarrow.float64())
    feature = {"info": {"features": {label: {"names": [*classes], "_type": "ClassLabel"}}}}
    table = pyarrow.table(columns).replace_schema_metadata({b"huggingface": json.dumps(feature).encode()})
    return MemoryTable("the rows", table)


def _free_name(name: str, columns: Collection[str]) -> str:
    """Return a name that no column has."""
    return name if name not in columns else _free_name(f"{name}_", columns)


def write_parts(parts: Parts, folder: Path) -> None:
    """Write tables in memory as Parquet files, named after their part, in a new folder."""
    import pyarrow.parquet

    with write_errors(folder):
        folder.mkdir(parents=True)
        for part in PART_WORDS:
            for table in getattr(parts, part):
                pyarrow.parquet.write_table(table.table, folder / f"{part}.parquet")


def read_parts(folder: Path) -> Parts:
    """Return the tables that `write_parts` wrote."""
    import pyarrow.parquet

    files = {part: folder / f"{part}.parquet" for part in PART_WORDS}
    tables = {part: pyarrow.parquet.read_table(file) for part, file in files.items() if file.is_file()}
    stored = {part: (MemoryTable(f"the {part} rows", table),) for part, table in tables.items()}
    return Parts(stored["train"], stored.get("validation", ()), stored.get("test", ()))


def same_parts(first: Parts, second: Parts) -> bool:
    """Return whether two sets of tables have the same columns and values in every part."""
    return all([own.table for own in getattr(first, part)] == [own.table for own in getattr(second, part)] for part in PART_WORDS)


def _is_pandas(data: object) -> bool:
    return type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "columns")


def _is_dataset(data: object) -> bool:
    return type(data).__module__.partition(".")[0] == "datasets"


def _is_table(data: object) -> bool:
    """Return whether a value of a dictionary is a table, rather than a column."""
    rows = isinstance(data, list) and bool(data) and (isinstance(data[0], Mapping) or _is_pair(data[0]))
    pair = isinstance(data, tuple) and len(data) == 2 and not any(isinstance(own, str) for own in data)
    arrow = hasattr(data, "column_names") or (hasattr(data, "__arrow_c_stream__") and hasattr(data, "columns"))
    return isinstance(data, (Mapping, MemoryTable)) or rows or pair or arrow or _is_pandas(data) or _is_dataset(data)


def _is_pair(row: object) -> bool:
    """Return whether a row is a text and its label."""
    return isinstance(row, (tuple, list)) and len(row) == 2 and isinstance(row[0], str)


def _from_dataset(data: Any) -> pyarrow.Table:
    """Return the rows of a `datasets.Dataset` in its order, with the names of its classes."""
    if not hasattr(data, "with_format") or not hasattr(data, "__len__"):
        raise LoralabError(f"a {type(data).__name__} has no length: load it whole, as a datasets.Dataset")
    table = data.with_format("arrow")[:]
    features = {name: feature for name, feature in data.features.items() if type(feature).__name__ == "ClassLabel"}
    stored = {"info": {"features": {name: {"names": own.names, "_type": "ClassLabel"} for name, own in features.items()}}}
    return table.replace_schema_metadata({b"huggingface": json.dumps(stored).encode()})


def _columns(data: object, name: str) -> dict[str, Any]:
    """Return the columns of a dictionary, a list of rows, or a pair of texts and labels."""
    if isinstance(data, Mapping):
        return {str(column): values for column, values in data.items()}
    if isinstance(data, tuple) and len(data) == 2 and not any(isinstance(own, str) for own in data):
        return {TEXT: data[0], LABEL: data[1]}
    rows = list(data) if isinstance(data, Iterable) and not isinstance(data, (str, bytes)) else []
    if rows and all(isinstance(row, Mapping) for row in rows):
        keys = dict.fromkeys(str(key) for row in rows for key in row)
        return {key: [row.get(key) for row in rows] for key in keys}
    if rows and all(map(_is_pair, rows)):
        return {TEXT: [row[0] for row in rows], LABEL: [row[1] for row in rows]}
    raise LoralabError(f"{name}: a {type(data).__name__} is no table: give {ACCEPTED}")


def _from_columns(columns: Mapping[Any, Any], name: str, notices: list[Notice]) -> pyarrow.Table:
    """Return columns as a table. Columns of other values than texts, numbers and dates are left out, with a notice."""
    import pyarrow

    arrays = {}
    for column, values in columns.items():
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise LoralabError(f"{name}: column {str(column)!r} holds one {type(values).__name__}, not one value per row")
        array = _array(values)
        if array is None:
            kind = next(type(value).__name__ for value in values if value is not None and not isinstance(value, _SCALARS))
            notices.append(Notice(f"column {str(column)!r} is left out: it holds values of type {kind}", severity="warning"))
        else:
            arrays[str(column)] = array
    lengths = {column: len(array) for column, array in arrays.items()}
    if len({*lengths.values()}) > 1:
        listed = ", ".join(f"{column}: {length:,}" for column, length in lengths.items())
        raise LoralabError(f"{name}: the columns have different lengths, {listed}")
    if len(arrays) < len(columns) - len(notices):
        _unique([str(column) for column in columns], name)
    return pyarrow.table(arrays)


def _array(values: Any) -> pyarrow.Array | None:
    """Return a column as an array; of values of several types as texts, as a CSV file would have them; None for other objects."""
    import pyarrow

    try:
        return _whole(pyarrow.array(values, from_pandas=True))
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError):
        cells = [None if cell_text(value) is None else value for value in values]
        if not all(value is None or isinstance(value, _SCALARS) for value in cells):
            return None
        return pyarrow.array([None if value is None else str(value).encode("utf-8", "replace").decode() for value in cells])


def _stored_types(table: pyarrow.Table) -> pyarrow.Table:
    """Return the table with the types that a Parquet file gives back: categories as their values, views of texts as texts."""
    import pyarrow

    for i, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
        if kind != column.type or str(kind) in ("string_view", "binary_view"):
            texts = pyarrow.string() if "string" in str(kind) else None
            table = table.set_column(i, name, pyarrow.array(column.to_pylist(), texts))
    return table


def _whole(array: Any) -> Any:
    """Return an array in one piece."""
    return array.combine_chunks() if hasattr(array, "combine_chunks") else array


def _unique(names: Sequence[Any], where: str) -> Sequence[Any]:
    """Return the names. Raises LoralabError for two that are equal."""
    texts = [*map(str, names)]
    if repeated := [text for text in dict.fromkeys(texts) if texts.count(text) > 1]:
        raise LoralabError(f"{where}: {texts.count(repeated[0])} columns are called {repeated[0]!r}: rename them")
    return names
