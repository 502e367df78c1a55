"""JSON documents and JSON Lines → records: lists of objects, and tables as pandas and `datasets` write them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import IO, Any

import numpy as np

from loralab.data import limits
from loralab.data.columns import USUAL_NAMES, list_names
from loralab.data.delimited import is_usual
from loralab.errors import LoralabError, suggest

MAX_LINE = limits.MAX_TEXT
"""Most characters of a line of JSON Lines. A longer one means a file with everything in one line."""
_BLOCK = 1 << 20
_LEVELS = np.zeros(256, dtype=np.int8)
"""By how much each byte changes the depth of nesting."""
_LEVELS[[*b"[{"]], _LEVELS[[*b"]}"]] = 1, -1
_SPACE = re.compile(r"\s*")
EXAMPLE = '{"text": ..., "label": ...}'


@dataclass(frozen=True)
class JsonTable:
    """Rows of a JSON document: objects, or lists of values without column names. read_as: what was taken for the rows."""

    rows: Sequence[Any]
    read_as: str = ""


def json_lines(file: IO[str], where: object) -> Iterator[dict[str, Any]]:
    """Yield the objects of JSON Lines. Raises LoralabError with the line for one that is none."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise LoralabError(f"{where}, line {number}: longer than {MAX_LINE} characters; write one row per line")
        if not line.strip():
            continue
        try:
            row = as_record(_parse(line))
        except (ValueError, RecursionError) as error:
            raise LoralabError(f"{where}, line {number}: not JSON: {error}; write one object per line") from error
        if not isinstance(row, dict):
            raise LoralabError(f"{where}, line {number}: {_kind(row)}, not an object such as {EXAMPLE}")
        yield row


def is_json_lines(file: IO[str], single: bool = False) -> bool:
    """Whether the first line that is not blank is an object. single: whether it may be the only line. Moves the file's position."""
    line = next((line for line in iter(lambda: file.readline(MAX_LINE + 1), "") if line.strip()), "")
    try:
        first = as_record(_parse(line))
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and (single or any(line.strip() for line in iter(lambda: file.readline(MAX_LINE), "")))


def read_content(file: IO[str], where: object, lines: bool = False) -> Any:
    """Return the value of a JSON document, the list of its values if it holds several.

    lines: whether it is called JSON Lines, so that an error names the first line that is none. Raises LoralabError with the line.
    """
    try:
        values = _values(file.read(), where)
    except LoralabError:
        if lines:
            file.seek(0)
            for _ in json_lines(file, where):
                pass
        raise
    return values[0] if len(values) == 1 else values


def _values(text: str, where: object) -> list[Any]:
    """Return the JSON values of a text, usually one."""
    if _is_deep(text):
        raise LoralabError(f"{where}: JSON of more than {limits.MAX_NESTING} levels: write a list of objects such as {EXAMPLE}")
    decoder = json.JSONDecoder(object_pairs_hook=_unique_keys)
    values = list[Any]()
    position = _skip_space(text, 0)
    while position < len(text):
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise LoralabError(f"{where}, line {error.lineno}: not JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise LoralabError(f"{where} is not JSON: {error}") from error
        values.append(value)
        position = _skip_space(text, end)
    return values


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _is_deep(text: str) -> bool:
    """Whether lists and objects are nested deeper than MAX_NESTING: what reads such values would exhaust Python's stack."""
    if text.count("[") + text.count("{") <= limits.MAX_NESTING:
        return False
    content = np.frombuffer(text.replace("\\\\", "").replace('\\"', "").encode("utf-8", "replace"), dtype=np.uint8)
    depth = quotes = 0
    for start in range(0, len(content), _BLOCK):
        block = content[start : start + _BLOCK]
        inside = (np.cumsum(block == ord('"'), dtype=np.int32) + quotes) % 2
        levels = np.cumsum(np.where(inside, 0, _LEVELS[block]), dtype=np.int32) + depth
        if levels.max() > limits.MAX_NESTING:
            return True
        depth, quotes = int(levels[-1]), int(inside[-1])
    return False


def _parse(line: str) -> Any:
    if _is_deep(line):
        raise ValueError(f"more than {limits.MAX_NESTING} levels of lists and objects")
    return json.loads(line, object_pairs_hook=_unique_keys)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object. Raises ValueError if a key occurs twice: the json module would keep the last value alone."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} occurs twice in an object")
    return row


def as_record(row: Any) -> Any:
    """Return spaCy's pair of a text and its annotation as one object, anything else as it is."""
    if isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and isinstance(row[1], dict):
        return {"text": row[0], **row[1]}
    return row


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def tables_in(content: Any) -> dict[str, Any]:
    """Return the tables of an object that holds several, such as {"train": [...], "test": [...]}; {} for one table."""
    if not isinstance(content, dict) or _named_rows(content) is not None:
        return {}
    tables = {key: value for key, value in content.items() if _is_table(value)}
    are_columns = len(tables) < len(content) and _same_lengths(content)  # some of them with lists or objects as values
    return tables if len(tables) > 1 and not are_columns else {}


def table_in(content: Any, name: str, where: object) -> Any:
    """Return a table of an object by its name. Raises LoralabError if there is none."""
    tables = tables_in(content)
    if name not in tables:
        raise LoralabError(
            f"{where}: the file has no table {name!r}{suggest(name, tables)}; it has {list_names([*tables]) or 'one'}"
        )
    return tables[name]


def _is_table(value: Any) -> bool:
    """Whether a value is a list of rows, or columns of equal length."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(row, (dict, list)) for row in value)
    return isinstance(value, dict) and bool(value) and all(isinstance(column, list) for column in value.values())


def read_document(content: Any, where: object, known: Collection[str] = ()) -> JsonTable:
    """Return the rows of a JSON document. known: column names that the user or the run knows.

    Raises LoralabError for a document of another shape, and for one with two readings.
    """
    if isinstance(content, list):
        return JsonTable(_rows(content, where))
    if not isinstance(content, dict):
        raise LoralabError(f"{where} holds {_kind(content)}, not a list of objects such as {EXAMPLE}")
    if (rows := _named_rows(content)) is not None:
        return _split_table(content, rows, where)
    if tables := tables_in(content):
        names = [*tables]
        raise LoralabError(f"{where} has several tables ({list_names(names)}): name one, such as {quote(f'{where}/{names[0]}')}")
    tables = {key: value for key, value in content.items() if _is_table(value)}
    if len(tables) == 1 and not _same_lengths(content):
        ((name, table),) = tables.items()
        rows = _rows(table, where) if isinstance(table, list) else _columns(table, where, known).rows
        return JsonTable(rows, f"the rows are in {name!r}")
    if content and all(isinstance(value, list) for value in content.values()):
        return _columns(content, where, known)
    if content and all(isinstance(value, dict) for value in content.values()):
        return _nested(content, where, known)
    if content and not any(isinstance(value, list) for value in content.values()):
        return JsonTable([content])
    raise LoralabError(f"{where} holds an object with the keys {list_names([*content])}: write a list of objects such as {EXAMPLE}")


def _named_rows(content: Mapping[str, Any]) -> Sequence[Any] | None:
    """Return the lists of values in an object that names their columns in `columns`; None without such lists."""
    if not isinstance(content.get("columns"), list):
        return None
    lists = [
        value
        for key, value in content.items()
        if key != "index" and isinstance(value, list) and _is_table(value) and isinstance(value[0], list)
    ]
    return lists[0] if len(lists) == 1 else None


def _same_lengths(content: Mapping[str, Any]) -> bool:
    """Whether an object holds several lists of one length: columns, one of them with lists or objects as values."""
    lengths = [len(value) if isinstance(value, list) else -1 for value in content.values()]
    return len(lengths) > 1 and lengths[0] >= 0 and len({*lengths}) == 1


def _rows(values: Sequence[Any], where: object) -> Sequence[Any]:
    """Return rows of one kind: objects, texts as objects, or lists of values of one length."""
    rows = [as_record(value) for value in values]
    if rows and all(isinstance(row, str) for row in rows):
        return [{"text": row} for row in rows]
    width = len(rows[0]) if rows and isinstance(rows[0], list) else None
    for i, row in enumerate(rows):
        if not isinstance(row, dict if width is None else list):
            raise LoralabError(f"{where}, row {i}: {_kind(row)}, not an object such as {EXAMPLE}")
        if width is not None and len(row) != width:
            raise LoralabError(f"{where}, row {i}: {len(row)} values, not {width}: write objects such as {EXAMPLE}")
    return rows


def _split_table(content: Mapping[str, Any], rows: Sequence[Any], where: object) -> JsonTable:
    """Return the rows of pandas' orient="split": names in `columns`, values in another list."""
    names, index = content["columns"], content.get("index")
    if not all(isinstance(row, list) and len(row) == len(names) for row in rows):
        raise LoralabError(f"{where}: the rows do not have the {len(names)} values that 'columns' names")
    records = [dict(zip(map(str, names), row, strict=True)) for row in rows]
    keys = index if isinstance(index, list) and len(index) == len(rows) else range(len(rows))
    return JsonTable(
        _with_index(records, keys), "the names of the columns are in 'columns', as pandas writes them with orient='split'"
    )


def _columns(content: Mapping[str, Sequence[Any]], where: object, known: Collection[str]) -> JsonTable:
    """Return the rows of {"text": [...], "label": [...]}. Lists by class name are refused."""
    lengths = {name: len(column) for name, column in content.items()}
    if not any(_is_column(name, known) for name in content):
        raise LoralabError(
            f"{where}: the lists {list_names([*content])} may be columns, or the texts of one class each: "
            f"write a list of objects such as {EXAMPLE}, or name a column with data.text"
        )
    if len({*lengths.values()}) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in [*lengths.items()][:8])
        raise LoralabError(f"{where}: its columns differ in length ({counts}): fill in the missing values")
    rows = zip(*content.values(), strict=True)
    return JsonTable([dict(zip(content, row, strict=True)) for row in rows], "each key is a column")


def _nested(content: Mapping[str, Mapping[str, Any]], where: object, known: Collection[str]) -> JsonTable:
    """Return the rows of pandas' orient="columns", {"text": {"0": ...}}, or orient="index", {"0": {"text": ...}}."""
    inner = [*dict.fromkeys(key for value in content.values() for key in value)]
    outer_names, inner_names = (any(_is_column(name, known) for name in names) for names in (content, inner))
    if outer_names == inner_names:
        outer_names, inner_names = (not all(name.lstrip("-").isdecimal() for name in names) for names in (content, inner))
    if outer_names == inner_names:
        raise LoralabError(
            f"{where}: {list_names([*content])} may be rows or columns: write a list of objects such as {EXAMPLE}, "
            f"or name a column with data.text"
        )
    if outer_names:
        limits.check_size(len(inner), len(content), where)
        if len(inner) * len(content) > 10 * sum(map(len, content.values())) + 1_000_000:
            raise LoralabError(f"{where}: its columns have different keys: write a list of objects such as {EXAMPLE}")
        records = [{name: column.get(key) for name, column in content.items()} for key in inner]
        return JsonTable(_with_index(records, inner), "the table is that of pandas, orient='columns'")
    return JsonTable(
        _with_index([dict(row) for row in content.values()], [*content]), "each key is a row, orient='index' of pandas"
    )


def _is_column(name: str, known: Collection[str]) -> bool:
    return name in known or is_usual(name, USUAL_NAMES)


def _with_index(records: list[dict[str, Any]], keys: Iterable[Any]) -> list[dict[str, Any]]:
    """Return records with their keys as column `index`, unless these only count the rows."""
    keys = [*keys]
    if [str(key) for key in keys] == [str(i) for i in range(len(records))] or any("index" in row for row in records):
        return records
    return [{"index": key, **row} for key, row in zip(keys, records, strict=True)]
