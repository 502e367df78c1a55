"""Parquet, Arrow and Feather files, and saved `datasets` → column chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loralab.data.types import CHUNK, ColumnChunk, MemoryTable
from loralab.errors import LoralabError

if TYPE_CHECKING:
    import pyarrow


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
            yield _from_arrow(batch, names)


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
        for batch in file.iter_batches(batch_size=CHUNK):
            yield _from_arrow(batch, names)


def read_memory(source: MemoryTable) -> Iterator[ColumnChunk]:
    """Read a table in memory as `read_parquet` reads the file that it is stored in."""
    names = _feature_names(source.table.schema.metadata)
    for batch in source.table.to_batches(max_chunksize=CHUNK):
        yield _from_arrow(batch, names)


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
                    yield _from_arrow(batch, names)
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
        raise LoralabError(f"{folder} cannot be read as a saved dataset: {error!r}") from error


def _from_arrow(batch: pyarrow.RecordBatch, class_names: dict[str, tuple[str, ...]]) -> ColumnChunk:
    return ColumnChunk({name: batch.column(i).to_pylist() for i, name in enumerate(batch.schema.names)}, class_names)


def _feature_names(metadata: dict[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the class names of ClassLabel columns, which `datasets` stores in the schema's metadata."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: tuple(f["names"]) for name, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
