"""Data files → column chunks, one reader per format. Values are neither interpreted nor dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Any

from loralab.config import DataConfig
from loralab.config.paths import local_path, similar_file, split_path
from loralab.config.schema import DELIMITER_NAMES
from loralab.data.annotation_exports import read_exports
from loralab.data.archives import data_members, unpacked
from loralab.data.arrow_csv import Unusual, read_blocks
from loralab.data.arrow_files import read_arrow, read_memory, read_parquet, read_saved_dataset
from loralab.data.columns import USUAL_NAMES, list_names
from loralab.data.delimited import MAX_FIELD, Dialect, detect_dialect, first_records, has_header, read_records
from loralab.data.fasttext_files import PREFIX, read_fasttext
from loralab.data.formats import data_files, file_format, open_archive
from loralab.data.json_files import is_json_lines, json_lines, read_content, read_document, table_in, tables_in
from loralab.data.limits import check_size
from loralab.data.safe_pickle import read_pickle
from loralab.data.spreadsheets import filled_sheets, read_sheet
from loralab.data.text_files import detect_encoding, is_packed, open_text
from loralab.data.types import CHUNK, ArrowColumns, ColumnChunk, MemoryTable, Notice, TablePlace
from loralab.errors import LoralabError

PUBLISHED = ("label", "title", "description")
"""Columns of the published AG News files, which have no header."""
PUBLISHED_CLASSES = "classes.txt"
ARROW_FORMATS = ("parquet", "arrow", "dataset")
"""Formats whose label columns may store class names as `datasets` does."""


@dataclass
class Table:
    """A data file that is being read. `notices` and `facts` (delimiter, header, encoding) are complete when `chunks` ends.

    inner: the table in the file that the path names, such as a sheet of a workbook.
    """

    path: TablePlace
    format: str
    chunks: Iterator[ColumnChunk] = field(default_factory=lambda: iter(()))
    notices: list[Notice] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    inner: str = ""


Reader = Callable[[Path, DataConfig, Table, Collection[str]], Iterator[ColumnChunk]]
"""Reads a file. The last argument names columns that the run or the user knows."""


def open_table(path: TablePlace, data: DataConfig | None = None, known: Collection[str] = ()) -> Table:
    """Open a data file, a folder with a saved `datasets` dataset, a table in a file, such as `book.xlsx/Sheet2`, or one in memory.

    data: `data.delimiter`, `data.header`, `data.encoding` and `data.quotes` say how to read delimited text. known: columns that a
    run or the user knows; a first line with one of them is a header. Raises LoralabError for a missing, empty, unknown or damaged
    file, here or while the chunks are read, with the row or line if there is one.
    """
    data = data or DataConfig()
    if isinstance(path, MemoryTable):
        return Table(path, "parquet", read_memory(path), [*path.notices])
    path = local_path(path)
    if not split_path(path)[0].exists():
        raise LoralabError(f"there is no file {path}{similar_file(path)}")
    if path.is_dir() and not (path / "state.json").is_file():
        raise LoralabError(f"{path} is a folder and no saved dataset{_name_a_file(path)}")
    table = Table(path, "")
    known = {*known, *(data.text or ()), *filter(None, (data.label,))}
    table.chunks = _read(path, table, data, known)
    return table


def read_chunks(path: Path, data: DataConfig | None = None) -> Iterator[ColumnChunk]:
    """Yield the rows of a file in chunks of columns. Arguments and errors as in `open_table`."""
    yield from open_table(path, data).chunks


def class_file(path: Path) -> tuple[str, ...] | None:
    """Return the class names of the published layout: the lines of classes.txt in the same folder. None without one."""
    file = path.parent / PUBLISHED_CLASSES
    if not file.is_file() or file.stat().st_size > MAX_FIELD:
        return None
    try:
        return tuple(line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise LoralabError(f"{file} is not UTF-8: save it as UTF-8") from error


def _read(location: Path, table: Table, data: DataConfig, known: Collection[str]) -> Iterator[ColumnChunk]:
    with unpacked(location) as (path, table.inner):
        table.format = file_format(path)
        if table.inner and table.format not in ("json", "xlsx"):
            raise LoralabError(f"{location}: the file holds one table: name the file itself, {location.parent}")
        rows = 0
        for chunk in read_exports(_READERS[table.format](path, data, table, known), table.notices):
            rows += chunk.rows
            if not chunk.columns:
                raise LoralabError(f"{location} has no columns")
            check_size(rows, len(chunk.columns), location)
            yield chunk


def _read_delimited(path: Path, data: DataConfig, table: Table, known: Collection[str]) -> Iterator[ColumnChunk]:
    encoding = _encoding(path, data, table)
    default = "\t" if ".tsv" in path.suffixes or ".tab" in path.suffixes else ","
    dialect, notices = detect_dialect(path, encoding, default=default, delimiter=delimiter(data.delimiter), quotes=data.quotes)
    table.notices += notices
    sample = first_records(path, encoding, dialect)
    if not sample:
        raise LoralabError(f"{path} is empty")
    header, names = _header(path, sample, data, table, known)
    table.facts = {"delimiter": dialect.delimiter, "header": header, **table.facts}
    repeated: list[int] = []
    done = 0
    for chunk in _delimited_chunks(path, encoding, dialect, names, table, checked=data.encoding is None and encoding == "utf-8"):
        if header and len(names) > 1:
            repeated += [done + row for row in chunk.rows_equal(names)]
        done += chunk.rows
        yield chunk
    if repeated:
        table.notices.append(Notice("the header is repeated as a row: were files joined?", tuple(repeated), severity="warning"))


def _delimited_chunks(
    path: Path, encoding: str, dialect: Dialect, names: Sequence[str], table: Table, *, checked: bool
) -> Iterator[ColumnChunk]:
    """Yield the rows below the header: by Arrow if it reads the file like the csv module, which reads what is left."""
    header, done = bool(table.facts["header"]), 0
    with suppress(Unusual):
        for rows in read_blocks(path, dialect, encoding, names, header, table.notices, checked):
            for start in range(0, len(rows), CHUNK):
                yield ColumnChunk(ArrowColumns(rows.slice(start, CHUNK)))
            done += len(rows)
        if done:
            return
    records = read_records(path, encoding, dialect, len(names), header, table.notices)
    yield _columns(names, list(islice(records, done, done + CHUNK)))
    while more := list(islice(records, CHUNK)):
        yield _columns(names, more)


def delimiter(name: str | None) -> str | None:
    """Return the character that `data.delimiter` names."""
    return DELIMITER_NAMES.get(name or "", name)


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
    if header is None and any(field.startswith(PREFIX) for field in first):
        header = False
    if header is None:
        header = has_header(sample, USUAL_NAMES, known)
    if header and data.header is None and known and has_header(sample, USUAL_NAMES, ()) is False:
        table.notices.append(
            Notice(
                "the first line has the names of columns that are asked for, but looks like a row",
                fix="data.header=false reads it as one",
            )
        )
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


def from_records(records: Iterator[dict[str, Any]], table: Table) -> Iterator[ColumnChunk]:
    """Yield objects as columns. A key that a row does not have is a missing value."""
    names = Counter[str]()
    while rows := list(islice(records, CHUNK)):
        for row in rows:
            names.update([*row])
        check_size(0, len(names), table.path)
        yield ColumnChunk({name: [row.get(name) for row in rows] for name in names})
    if not names:
        raise LoralabError(f"{table.path} is empty")
    spellings = Counter(name.strip().casefold() for name in names)
    for name, count in names.items():
        if spellings[name.strip().casefold()] > 1 and count < max(names.values()):
            table.notices.append(Notice(f"key {name!r} occurs in {count} rows beside another spelling of it", severity="warning"))


def _read_json(path: Path, data: DataConfig, table: Table, known: Collection[str]) -> Iterator[ColumnChunk]:
    """Read JSON Lines, or a JSON document of any shape, whatever the suffix says."""
    with open_text(path, _encoding(path, data, table)) as file:
        lines = not table.inner and is_json_lines(file, single=table.format == "jsonl")
        file.seek(0)
        if lines:
            yield from from_records(json_lines(file, table.path), table)
            return
        content = read_content(file, table.path, lines=table.format == "jsonl")
        if table.inner:
            content = table_in(content, table.inner, table.path)
        document = read_document(content, table.path, known)
    if document.read_as:
        table.notices.append(Notice(document.read_as))
    if document.rows and isinstance(document.rows[0], list):
        yield from _from_rows(path, document.rows, data, table, known)
    else:
        yield from from_records(iter(document.rows), table)


def _encoding(path: Path, data: DataConfig, table: Table) -> str:
    """Return the encoding of a text file, noted in the table."""
    encoding = detect_encoding(path, data.encoding)
    table.notices += filter(None, (encoding.notice,))
    table.facts["encoding"] = encoding.name
    return encoding.name


def _read_fasttext(path: Path, data: DataConfig, table: Table, known: Collection[str]) -> Iterator[ColumnChunk]:
    with open_text(path, _encoding(path, data, table), newline="\n") as file:
        yield from read_fasttext(file, table.path)
    table.notices.append(Notice(f"read as fastText lines: words that begin with {PREFIX} are labels"))


def _read_excel(path: Path, data: DataConfig, table: Table, known: Collection[str]) -> Iterator[ColumnChunk]:
    rows = read_sheet(path, Path(str(table.path)), table.inner, table.notices)
    yield from _from_rows(path, rows, data, table, known)


def _from_rows(
    path: Path, rows: Sequence[Sequence[object]], data: DataConfig, table: Table, known: Collection[str]
) -> Iterator[ColumnChunk]:
    """Yield rows of values of any type; the first may name the columns."""
    sample = [["" if cell is None else str(cell) for cell in row] for row in rows[:200]]
    header, names = _header(path, sample, data, table, known)
    table.facts["header"] = header
    yield _columns(names, rows[header : CHUNK + header])
    for start in range(CHUNK + header, len(rows), CHUNK):
        yield _columns(names, rows[start : start + CHUNK])


_READERS: dict[str, Reader] = {
    "csv": _read_delimited,
    "json": _read_json,
    "jsonl": _read_json,
    "fasttext": _read_fasttext,
    "xlsx": _read_excel,
    "arrow": lambda path, *_: read_arrow(path),
    "parquet": lambda path, *_: read_parquet(path),
    "pickle": lambda path, *_: iter((read_pickle(path),)),
    "dataset": lambda path, *_: read_saved_dataset(path),
}
"""Format → reader."""


def inner_tables(path: Path) -> list[str]:
    """Return the names of the tables in a file, if it has several: data files of a zip archive, sheets, tables of a JSON object."""
    names: list[str] = []
    if path.is_file() and not is_packed(path):
        kind = file_format(path)
        if kind == "zip":
            with open_archive(path) as archive:
                names = data_members(archive)
        elif kind == "xlsx":
            names = filled_sheets(path)
        elif kind == "json":
            names = _json_tables(path)
    return names if len(names) > 1 else []


def _json_tables(path: Path) -> list[str]:
    with suppress(LoralabError), open_text(path, detect_encoding(path).name) as file:  # reading it names what is wrong
        if not is_json_lines(file):
            file.seek(0)
            return [*tables_in(read_content(file, path))]
    return []


def _name_a_file(folder: Path) -> str:
    """Return the advice to name one of the files of a folder."""
    inner = [entry for entry in sorted(folder.iterdir()) if (entry / "state.json").is_file()]
    names = [str(path) for path in (*data_files(folder), *inner)]
    example = next((name for name in names if "test" in Path(name).name.casefold()), names[0] if names else "")
    return f": name what to read, such as {quote(example)}; it holds {list_names(names)}" if names else "; it holds no data file"
