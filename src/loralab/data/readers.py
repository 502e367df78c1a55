"""Files → chunks of columns, one reader a format. Values stay as the file has them; nothing is interpreted or dropped here."""

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

from loralab.data.safe_pickle import Table, read_pickle
from loralab.errors import LoralabError

if TYPE_CHECKING:
    import pyarrow

CHUNK = 8192
"""Rows a chunk: what is held in memory while a large file streams."""
MAX_FIELD = 1 << 20
"""Characters of one CSV field or JSON line; more is a broken file (a quote never closed), not a text."""
PUBLISHED = ("label", "title", "description")
"""Columns of the published AG News layout, which has no header."""
PUBLISHED_CLASSES = "classes.txt"


def read_chunks(path: Path) -> Iterator[Table]:
    """Yield a file's rows as chunks of columns. The format is told by the ending; a saved `datasets` folder is one too.

    Raises LoralabError for a missing, empty, unknown or damaged file, naming the row where there is one.
    """
    if not path.exists():
        raise LoralabError(f"there is no file {path}")
    if path.is_dir():
        yield from _read_saved_dataset(path)
        return
    if path.stat().st_size == 0:
        raise LoralabError(f"{path} is empty")
    reader = _READERS.get(_ending(path))
    if reader is None:
        raise LoralabError(f"{path}: unknown kind of file; readable: {', '.join(_READERS)}, each but .parquet also as .gz")
    yield from reader(path)


def class_file(path: Path) -> tuple[str, ...] | None:
    """Class names of the published layout: the lines of a classes.txt beside the file."""
    names = path.parent / PUBLISHED_CLASSES
    if not names.is_file() or names.stat().st_size > MAX_FIELD:
        return None
    try:
        return tuple(line.strip() for line in names.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise LoralabError(f"{names} is not UTF-8: save it as UTF-8") from error


def _ending(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]


@contextmanager
def _open_text(path: Path) -> Iterator[IO[str]]:
    """Open a text file, gzipped or not, as UTF-8 with or without its mark; damage becomes a LoralabError."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as raw:
            yield io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
    except UnicodeDecodeError as error:
        raise LoralabError(f"{path} is not UTF-8 (byte {error.start} of a block): save it as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise LoralabError(f"cannot read {path}: {error}") from error


def _read_csv(path: Path) -> Iterator[Table]:
    csv.field_size_limit(MAX_FIELD)
    with _open_text(path) as file:
        reader = csv.reader(file, delimiter="\t" if _ending(path) == ".tsv" else ",", strict=True)
        try:
            first = next(filter(None, reader), None)
            if first is None:
                raise LoralabError(f"{path} is empty")
            published = _is_published(first, path)
            names = list(PUBLISHED[: len(first)]) if published else [name.strip() for name in first]
            if len(set(names)) < len(names):
                raise LoralabError(f"{path}: two columns have one name in the header: {', '.join(names)}")
            rows: list[list[str]] = [first] if published else []
            read = 0
            for row in reader:
                if len(row) != len(names):
                    if not row:
                        continue  # a blank line is not a row to any CSV reader
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
    """No header: the first field of the first row is a class number, and the others are no column names."""
    return len(first) in (2, 3) and first[0].strip().isdigit() and (class_file(path) is not None or len(first[-1]) > 30)


def _columns(names: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in names]
    return Table(dict(zip(names, columns, strict=True)), {})


def _read_jsonl(path: Path) -> Iterator[Table]:
    with _open_text(path) as file:
        names: list[str] = []
        rows: list[dict[str, Any]] = []
        number = 0
        while line := file.readline(MAX_FIELD + 1):
            number += 1
            if len(line) > MAX_FIELD:
                raise LoralabError(f"{path}, line {number}: longer than {MAX_FIELD} characters; JSON Lines holds one row a line")
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise LoralabError(f"{path}, line {number}: not JSON: {error}; write one object a line") from error
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


def _read_parquet(path: Path) -> Iterator[Table]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if len(set(columns)) < len(columns):
                raise LoralabError(f"{path}: two columns have one name: {', '.join(columns)}")
            names = _feature_names(file.schema_arrow.metadata)
            for batch in file.iter_batches(batch_size=CHUNK):
                yield _from_arrow(batch, names)
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise LoralabError(f"{path} cannot be read as Parquet: {error}") from error


def _read_saved_dataset(folder: Path) -> Iterator[Table]:
    """A `Dataset.save_to_disk` folder: Arrow streams listed in state.json."""
    import pyarrow

    state = folder / "state.json"
    if not state.is_file():
        raise LoralabError(f"{folder} is a folder without data: no state.json of a saved dataset, no train.csv or the like")
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


def _from_arrow(batch: pyarrow.RecordBatch, names: dict[str, tuple[str, ...]]) -> Table:
    return Table({name: batch.column(i).to_pylist() for i, name in enumerate(batch.schema.names)}, names)


def _feature_names(metadata: dict[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Names of ClassLabel columns, which `datasets` keeps in the schema's metadata."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: tuple(f["names"]) for name, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _read_pickle(path: Path) -> Iterator[Table]:
    yield read_pickle(path)


_READERS: dict[str, Callable[[Path], Iterator[Table]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
    ".pkl": _read_pickle,
    ".pickle": _read_pickle,
}
