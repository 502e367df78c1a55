"""Parquet, Arrow and Feather files, and saved `datasets` → column chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from loralab.data.limits import MAX_TEXT, check_size
from loralab.data.types import CHUNK, ColumnChunk, MemoryTable, TablePlace
from loralab.errors import LoralabError

if TYPE_CHECKING:
    import pyarrow


_MAX_BATCH = 256 << 20
"""Bytes of a column that are decoded at once."""


def read_arrow(path: Path) -> Iterator[ColumnChunk]:
    import pyarrow

    with _arrow_errors(path, "an Arrow or Feather file"), pyarrow.memory_map(str(path)) as source:
        try:
            file = pyarrow.ipc.open_file(source)
            batches = (file.get_batch(i) for i in range(file.num_record_batches))
        except pyarrow.ArrowInvalid:
            file = batches = pyarrow.ipc.open_stream(source)
        names = _feature_names(file.schema.metadata)
        for batch in batches:
            yield from _from_arrow(batch, names, path)


@contextmanager
def _arrow_errors(path: Path, kind: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise LoralabError(f"{path} cannot be read as {kind}: {error}") from error


def read_parquet(path: Path) -> Iterator[ColumnChunk]:
    import pyarrow.parquet

    with _arrow_errors(path, "Parquet"), pyarrow.parquet.ParquetFile(path) as file:
        columns = file.schema_arrow.names
        if len(set(columns)) < len(columns):
            raise LoralabError(f"{path}: two columns have the same name: {', '.join(columns)}")
        names = _feature_names(file.schema_arrow.metadata)
        check_size(file.metadata.num_rows, len(columns), path)
        for batch in file.iter_batches(batch_size=_safe_batch(file, path)):
            yield from _from_arrow(batch, names, path)


def _safe_batch(file: pyarrow.parquet.ParquetFile, path: Path) -> int:
    """Return how many rows to decode at once. A page of a few bytes can repeat one long text in every row.

    Raises LoralabError for a repeated text of more than MAX_TEXT characters.
    """
    import pyarrow.parquet
    from pyarrow import compute, types

    texts = [field.name for field in file.schema_arrow if types.is_string(field.type) or types.is_large_string(field.type)]
    repeating = pyarrow.parquet.ParquetFile(path, read_dictionary=texts)
    longest = 1
    for group in range(file.num_row_groups if texts else 0):  # not by the columns' metadata: damage there ends the process
        for batch in islice(repeating.iter_batches(1, [group], texts), 1):
            for column in filter(lambda own: types.is_dictionary(own.type), batch.columns):
                longest = max(longest, compute.max(compute.binary_length(column.dictionary)).as_py() or 0)
    if longest > 4 * MAX_TEXT:
        raise LoralabError(f"{path} has a text of more than {MAX_TEXT:,} characters: cut it")
    return min(CHUNK, _MAX_BATCH // longest)


def read_memory(source: MemoryTable) -> Iterator[ColumnChunk]:
    """Read a table in memory as `read_parquet` reads the file that it is stored in."""
    names = _feature_names(source.table.schema.metadata)
    for batch in source.table.to_batches(max_chunksize=CHUNK):
        yield from _from_arrow(batch, names, source)


def read_saved_dataset(folder: Path) -> Iterator[ColumnChunk]:
    """Read a `Dataset.save_to_disk` folder: the Arrow streams that state.json lists."""
    import pyarrow

    state = folder / "state.json"
    try:
        files = [entry["filename"] for entry in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
        for name in files:
            if Path(name).name != name:
                raise LoralabError(f"{state} points outside its folder: {name!r}")
            with pyarrow.memory_map(str(folder / name)) as source, pyarrow.ipc.open_stream(source) as stream:
                names = _feature_names(stream.schema.metadata)
                for batch in stream:
                    yield from _from_arrow(batch, names, folder)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, pyarrow.ArrowException) as error:
        raise LoralabError(f"{folder} cannot be read as a saved dataset: {error!r}") from error


def _from_arrow(batch: pyarrow.RecordBatch, class_names: dict[str, tuple[str, ...]], where: TablePlace) -> Iterator[ColumnChunk]:
    """Yield the rows of a batch in chunks. Raises LoralabError for a batch that is small in the file and huge in memory."""
    batch.validate(full=True)  # else a text of negative length, or outside its buffer, ends the process
    check_size(batch.num_rows, batch.num_columns, where)
    for start in range(0, batch.num_rows, CHUNK):
        rows = batch.slice(start, CHUNK)
        columns = {name: _values(rows.column(i)) for i, name in enumerate(batch.schema.names)}
        yield ColumnChunk(columns, class_names)


def _values(column: pyarrow.Array) -> list[object]:
    """Return the values of a column. Rows that refer to one entry of a dictionary share its value, however many they are."""
    if not hasattr(column, "dictionary"):
        return column.to_pylist()  # type: ignore[no-any-return]
    entries = column.dictionary.to_pylist()
    return [None if index is None else entries[index] for index in column.indices.to_pylist()]


def _feature_names(metadata: dict[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the class names of ClassLabel columns, which `datasets` stores in the schema's metadata."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: tuple(f["names"]) for name, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
