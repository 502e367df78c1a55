"""Data files → column chunks, one reader per format. Values are neither interpreted nor dropped."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from loralab.data.safe_pickle import read_pickle
from loralab.data.types import ColumnChunk
from loralab.errors import LoralabError
from loralab.storage.files import csv_field_limit

if TYPE_CHECKING:
    import pyarrow

CHUNK = 8192
"""Rows per chunk: the memory that streaming a large file takes."""
MAX_FIELD = 1 << 20
"""Most characters of a CSV field or a JSON line. A longer one means a damaged file, such as an unclosed quote."""
PUBLISHED = ("label", "title", "description")
"""Columns of the published AG News files, which have no header."""
PUBLISHED_CLASSES = "classes.txt"


def read_chunks(path: Path) -> Iterator[ColumnChunk]:
    """Yield a file's rows in chunks of columns. The suffix decides the format; a folder is a saved `datasets` dataset.

    Raises LoralabError for a missing, empty, unknown or damaged file, with the row or line if there is one.
    """
    if not path.exists():
        raise LoralabError(f"there is no file {path}")
    if path.is_dir():
        yield from _read_saved_dataset(path)
        return
    if path.stat().st_size == 0:
        raise LoralabError(f"{path} is empty")
    reader = _READERS.get(_format_suffix(path))
    if reader is None:
        raise LoralabError(f"{path}: unknown file format; readable: {', '.join(_READERS)}, all but .parquet also as .gz")
    yield from reader(path)


def class_file(path: Path) -> tuple[str, ...] | None:
    """Return the class names of the published layout: the lines of classes.txt in the same folder. None without one."""
    file = path.parent / PUBLISHED_CLASSES
    if not file.is_file() or file.stat().st_size > MAX_FIELD:
        return None
    try:
        return tuple(line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise LoralabError(f"{file} is not UTF-8: save it as UTF-8") from error


def _format_suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]


@contextmanager
def _open_text(path: Path) -> Iterator[IO[str]]:
    """Open a text file, gzipped or not, as UTF-8 with or without a byte order mark. Read errors become LoralabErrors."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as raw:
            yield io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
    except UnicodeDecodeError as error:
        raise LoralabError(f"{path} is not UTF-8 (byte {error.start} of a block): save it as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise LoralabError(f"cannot read {path}: {error}") from error


def _read_csv(path: Path) -> Iterator[ColumnChunk]:
    with csv_field_limit(MAX_FIELD), _open_text(path) as file:
        reader = csv.reader(file, delimiter="\t" if _format_suffix(path) == ".tsv" else ",", strict=True)
        try:
            first = next(filter(None, reader), None)
            if first is None:
                raise LoralabError(f"{path} is empty")
            published = _is_published(first, path)
            names = list(PUBLISHED[: len(first)]) if published else [name.strip() for name in first]
            if len(set(names)) < len(names):
                raise LoralabError(f"{path}: two columns have the same name in the header: {', '.join(names)}")
            rows: list[list[str]] = [first] if published else []
            read = 0
            for row in reader:
                if len(row) != len(names):
                    if not row:
                        continue  # CSV readers skip blank lines
                    raise LoralabError(
                        f"{path}: row {read + len(rows)} (line {reader.line_num}) has {len(row)} fields, not {len(names)}: "
                        f"put texts with commas, tabs or line breaks into double quotes"
                    )
                rows.append(row)
                if len(rows) == CHUNK:
                    yield _columns(names, rows)
                    read, rows = read + CHUNK, []
            if rows or read == 0:
                yield _columns(names, rows)
        except csv.Error as error:
            raise LoralabError(f"{path}, line {reader.line_num}: {error}; is a quote never closed?") from error


def _is_published(first: list[str], path: Path) -> bool:
    """Whether the file has no header: the first row starts with a class number, and the other fields are not column names."""
    return len(first) in (2, 3) and first[0].strip().isdigit() and (class_file(path) is not None or len(first[-1]) > 30)


def _columns(names: Sequence[str], rows: Sequence[Sequence[object]]) -> ColumnChunk:
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in names]
    return ColumnChunk(dict(zip(names, columns, strict=True)), {})


def _read_jsonl(path: Path) -> Iterator[ColumnChunk]:
    with _open_text(path) as file:
        names: list[str] = []
        rows: list[dict[str, Any]] = []
        number = 0
        while line := file.readline(MAX_FIELD + 1):
            number += 1
            if len(line) > MAX_FIELD:
                raise LoralabError(f"{path}, line {number}: longer than {MAX_FIELD} characters; write one row per line")
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise LoralabError(f"{path}, line {number}: not JSON: {error}; write one object per line") from error
            if not isinstance(row, dict):
                raise LoralabError(
                    f'{path}, line {number}: a {type(row).__name__}, not an object such as {{"text": ..., "label": ...}}'
                )
            names = names or list(row)
            if unknown := set(row) - set(names):
                raise LoralabError(
                    f"{path}, line {number}: key {sorted(unknown)[0]!r} is not in the first row ({', '.join(names)})"
                )
            rows.append(row)
            if len(rows) == CHUNK:
                yield _columns(names, [[r.get(name) for name in names] for r in rows])
                rows = []
        if not names:
            raise LoralabError(f"{path} is empty")
        if rows:
            yield _columns(names, [[r.get(name) for name in names] for r in rows])


def _read_parquet(path: Path) -> Iterator[ColumnChunk]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if len(set(columns)) < len(columns):
                raise LoralabError(f"{path}: two columns have the same name: {', '.join(columns)}")
            names = _feature_names(file.schema_arrow.metadata)
            for batch in file.iter_batches(batch_size=CHUNK):
                yield _from_arrow(batch, names)
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise LoralabError(f"{path} cannot be read as Parquet: {error}") from error


def _read_saved_dataset(folder: Path) -> Iterator[ColumnChunk]:
    """Read a `Dataset.save_to_disk` folder: the Arrow streams that state.json lists."""
    import pyarrow

    state = folder / "state.json"
    if not state.is_file():
        raise LoralabError(f"{folder} is a folder without data: neither state.json of a saved dataset nor train.csv")
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


def _read_pickle(path: Path) -> Iterator[ColumnChunk]:
    yield read_pickle(path)


_READERS: dict[str, Callable[[Path], Iterator[ColumnChunk]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
    ".pkl": _read_pickle,
    ".pickle": _read_pickle,
}
