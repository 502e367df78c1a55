"""Data files → column chunks, one reader per format. Values are neither interpreted nor dropped."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loralab.config import DataConfig
from loralab.config.paths import local_path, similar_file
from loralab.data.arrow_csv import is_well_formed, read_columns
from loralab.data.columns import USUAL_NAMES
from loralab.data.delimited import MAX_FIELD, Dialect, detect_dialect, first_records, has_header, read_records
from loralab.data.safe_pickle import read_pickle
from loralab.data.text_files import detect_encoding, open_bytes, open_text
from loralab.data.types import ColumnChunk, Notice
from loralab.errors import LoralabError

if TYPE_CHECKING:
    import pyarrow

CHUNK = 8192
"""Rows per chunk: the memory that streaming a large file takes."""
PUBLISHED = ("label", "title", "description")
"""Columns of the published AG News files, which have no header."""
PUBLISHED_CLASSES = "classes.txt"
PACKED = (".gz", ".bz2", ".xz", ".zip")


@dataclass
class Table:
    """A data file that is being read. `notices` and `facts` (delimiter, header, encoding) are complete when `chunks` ends."""

    path: Path
    format: str
    chunks: Iterator[ColumnChunk] = field(default_factory=lambda: iter(()))
    notices: list[Notice] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


Reader = Callable[[Path, DataConfig, Table, Collection[str]], Iterator[ColumnChunk]]
"""Reads a file. The last argument names columns that the run or the user knows."""


def open_table(path: Path, data: DataConfig | None = None, known: Collection[str] = ()) -> Table:
    """Open a data file, or a folder with a saved `datasets` dataset.

    data: `data.delimiter`, `data.header`, `data.encoding` and `data.quotes` say how to read delimited text. known: columns that a
    run or the user knows; a first line with one of them is a header. Raises LoralabError for a missing, empty, unknown or damaged
    file, here or while the chunks are read, with the row or line if there is one.
    """
    data = data or DataConfig()
    path = local_path(path)
    if not path.exists():
        raise LoralabError(f"there is no file {path}{similar_file(path)}")
    table = Table(path, file_format(path))
    known = {*known, *(data.text or ()), *filter(None, (data.label,))}
    table.chunks = _read(table, data, known)
    return table


def read_chunks(path: Path, data: DataConfig | None = None) -> Iterator[ColumnChunk]:
    """Yield the rows of a file in chunks of columns. Arguments and errors as in `open_table`."""
    yield from open_table(path, data).chunks


def file_format(path: Path) -> str:
    """Return the name of a file's format: by its first bytes if these tell it, else by its suffix, else by its text."""
    if path.is_dir():
        return "dataset"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = suffixes[-2] if suffixes[-1:] and suffixes[-1] in PACKED and len(suffixes) > 1 else (suffixes or [""])[-1]
    if not path.is_file():
        return _SUFFIXES.get(suffix, "csv")  # a pipe can be read only once
    if path.stat().st_size == 0:
        raise LoralabError(f"{path} is empty")
    with open_bytes(path) as file:
        start = file.read(4096)
    if start.startswith(b"PAR1"):
        return "parquet"
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if suffix and suffix not in (*PACKED, ".txt", ".data", ".dat", ".text") and b"\x00" in start:
        raise LoralabError(f"{path}: unknown file format; readable: {', '.join(_SUFFIXES)}, text also as .gz, .bz2, .xz and .zip")
    begin = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    return "jsonl" if begin.startswith(b"{") else "csv"


def class_file(path: Path) -> tuple[str, ...] | None:
    """Return the class names of the published layout: the lines of classes.txt in the same folder. None without one."""
    file = path.parent / PUBLISHED_CLASSES
    if not file.is_file() or file.stat().st_size > MAX_FIELD:
        return None
    try:
        return tuple(line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise LoralabError(f"{file} is not UTF-8: save it as UTF-8") from error


def _read(table: Table, data: DataConfig, known: Collection[str]) -> Iterator[ColumnChunk]:
    with _regular(table.path) as path:
        yield from _READERS[table.format](path, data, table, known)


@contextmanager
def _regular(path: Path) -> Iterator[Path]:
    """Yield the path of a file that can be read more than once: a pipe is copied to a temporary file."""
    if path.is_file() or path.is_dir():
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=path.suffix) as copy:
        with path.open("rb") as pipe:
            while block := pipe.read(1 << 20):
                copy.write(block)
        copy.flush()
        if not os.path.getsize(copy.name):
            raise LoralabError(f"{path} is empty")
        yield Path(copy.name)


def _read_delimited(path: Path, data: DataConfig, table: Table, known: Collection[str]) -> Iterator[ColumnChunk]:
    encoding = detect_encoding(path, data.encoding)
    default = "\t" if ".tsv" in path.suffixes or ".tab" in path.suffixes else ","
    dialect, notices = detect_dialect(path, encoding.name, default=default, delimiter=delimiter(data.delimiter), quotes=data.quotes)
    table.notices += [*filter(None, (encoding.notice,)), *notices]
    sample = first_records(path, encoding.name, dialect)
    if not sample:
        raise LoralabError(f"{path} is empty")
    header, names = _header(path, sample, data, table, known)
    table.facts |= {"delimiter": dialect.delimiter, "header": header, "encoding": encoding.name}
    repeated: list[int] = []
    done = 0
    for chunk in _delimited_chunks(path, encoding.name, dialect, names, table):
        columns = [*chunk.columns.values()]
        if header and len(names) > 1 and names[0] in columns[0]:
            repeated += [done + row for row, values in enumerate(zip(*columns, strict=True)) if [*values] == names]
        done += len(columns[0])
        yield chunk
    if repeated:
        table.notices.append(Notice("the header is repeated as a row: were files joined?", tuple(repeated), severity="warning"))


def _delimited_chunks(path: Path, encoding: str, dialect: Dialect, names: Sequence[str], table: Table) -> Iterator[ColumnChunk]:
    """Yield the rows below the header: by Arrow if it reads the file like the csv module, which reads what is left."""
    import pyarrow

    header, done, breaks = bool(table.facts["header"]), 0, list[Notice]()
    if len(names) > 1 and is_well_formed(path, dialect, encoding, breaks):
        with suppress(pyarrow.ArrowInvalid):  # fields missing or too many
            for columns in read_columns(path, dialect, names, header, CHUNK):
                yield ColumnChunk(columns)
                done += len(columns[names[0]])
            if done:
                table.notices += breaks
                return
    records = read_records(path, encoding, dialect, len(names), header, table.notices)
    yield _columns(names, list(islice(records, done, done + CHUNK)))
    while rows := list(islice(records, CHUNK)):
        yield _columns(names, rows)


def delimiter(name: str | None) -> str | None:
    """Return the character that `data.delimiter` names."""
    return {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}.get(name or "", name)


def _header(
    path: Path, sample: Sequence[Sequence[str]], data: DataConfig, table: Table, known: Collection[str]
) -> tuple[bool, list[str]]:
    """Return whether the file has a header, and the names of its columns. Raises LoralabError if that is not clear."""
    first = sample[0]
    if data.header is None and _is_published(first, path):
        table.notices.append(
            Notice("no header: the columns are those of the published AG News files, label, title and description")
        )
        return False, list(PUBLISHED[: len(first)])
    header = data.header
    if (
        header is None
        and path.suffix == ".txt"
        and len(first) == 1
        and not {first[0].strip().casefold()} & (USUAL_NAMES | {*known})
    ):
        header = False
    if header is None and any(name.startswith("column") and name[6:].isdecimal() and name not in first for name in known):
        header = False
    if header is None:
        header = has_header(sample, USUAL_NAMES, known)
    if header is None:
        line = ", ".join(map(repr, first[:4]))
        raise LoralabError(
            f"{path}: the first line, {line}, may name the columns or be the first row: write data.header=true or data.header=false"
        )
    numbered = [f"column{i + 1}" for i in range(len(first))] if len(first) > 1 else ["text"]
    if not header:
        if data.header is None:
            named = f"columns are called {', '.join(numbered)}" if len(first) > 1 else "each line is a text"
            table.notices.append(
                Notice(f"the first line is a row, not a header: {named}", fix="data.header=true reads it as the header")
            )
        return False, numbered
    names = [name.strip() or numbered[i] for i, name in enumerate(first)]
    if len({*names}) < len(names):
        raise LoralabError(f"{path}: two columns have the same name in the header: {', '.join(names)}")
    return True, names


def _is_published(first: Sequence[str], path: Path) -> bool:
    """Whether the file has no header: the first row starts with a class number, and the other fields are not column names."""
    return len(first) in (2, 3) and first[0].strip().isdigit() and (class_file(path) is not None or len(first[-1]) > 30)


def _columns(names: Sequence[str], rows: Sequence[Sequence[object]]) -> ColumnChunk:
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in names]
    return ColumnChunk(dict(zip(names, columns, strict=True)), {})


def from_records(records: Iterator[Mapping[str, Any]], table: Table) -> Iterator[ColumnChunk]:
    """Yield mappings as columns. A key that a row does not have is a missing value."""
    names: dict[str, int] = {}
    while rows := list(islice(records, CHUNK)):
        for row in rows:
            for key in row:
                names[key] = names.get(key, 0) + 1
        yield ColumnChunk({name: [row.get(name) for row in rows] for name in names})
    by_spelling = Counter(name.strip().casefold() for name in names)
    for name, count in names.items():
        if by_spelling[name.strip().casefold()] > 1 and count < max(names.values()):
            table.notices.append(Notice(f"key {name!r} occurs in {count} rows beside another spelling of it", severity="warning"))


def _read_jsonl(path: Path, data: DataConfig, table: Table, known: Collection[str]) -> Iterator[ColumnChunk]:
    encoding = detect_encoding(path, data.encoding)
    table.notices += filter(None, (encoding.notice,))
    table.facts["encoding"] = encoding.name
    with open_text(path, encoding.name) as file:
        records = _json_lines(path, file.readline)
        first = next(records, None)
        if first is None:
            raise LoralabError(f"{path} is empty")
        yield from from_records(chain((first,), records), table)


def _json_lines(path: Path, readline: Callable[[int], str]) -> Iterator[dict[str, Any]]:
    number = 0
    while line := readline(MAX_FIELD + 1):
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
        yield row


def _read_parquet(path: Path, data: DataConfig, table: Table, known: Collection[str]) -> Iterator[ColumnChunk]:
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


def _read_saved_dataset(folder: Path, data: DataConfig, table: Table, known: Collection[str]) -> Iterator[ColumnChunk]:
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


def _read_pickle(path: Path, data: DataConfig, table: Table, known: Collection[str]) -> Iterator[ColumnChunk]:
    yield read_pickle(path)


_READERS: dict[str, Reader] = {
    "csv": _read_delimited,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "pickle": _read_pickle,
    "dataset": _read_saved_dataset,
}
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pkl": "pickle",
    ".pickle": "pickle",
}
"""Suffix → format. Other files are read by their content."""
