"""Delimited text, such as CSV: find delimiter, quotes and header from the file, then read it in chunks."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from loralab.data.limits import MAX_TEXT
from loralab.data.text_files import open_text
from loralab.data.types import MAX_LISTED, Notice, count_of
from loralab.errors import LoralabError
from loralab.storage.files import csv_field_limit

MAX_FIELD = MAX_TEXT
"""Most characters of a field. A longer one means a damaged file, such as an unclosed quote."""
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
SAMPLE_CHARACTERS, SAMPLE_ROWS = 1 << 20, 1000
"""The beginning of a file from which its delimiter and header are found."""
_SEP_LINE = re.compile(r"sep=(.)\r?\n")
"""The first line by which spreadsheets state the delimiter."""
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


class Records(Protocol):
    """Records of fields, and the number of lines read so far."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


@dataclass(frozen=True)
class Dialect:
    """How fields are divided. delimiter: None if each line is one text. quotes: whether double quotes enclose fields.

    skip_spaces: whether spaces after a delimiter are no part of the field. skip_lines: lines before the first record. newline: what
    ends a line; LF may follow CR.
    """

    delimiter: str | None
    quotes: bool = True
    skip_spaces: bool = False
    skip_lines: int = 0
    newline: str = "\n"

    @property
    def name(self) -> str:
        """The delimiter in words."""
        return "line" if self.delimiter is None else DELIMITERS.get(self.delimiter, repr(self.delimiter))

    def records(self, lines: Iterable[str]) -> Records:
        """Return the records of the lines. Line breaks within quotes belong to their field."""
        lines = islice(lines, self.skip_lines, None)
        if self.delimiter is None:
            return _Lines(lines)
        options: dict[str, Any] = {"delimiter": self.delimiter, "skipinitialspace": self.skip_spaces, "strict": True}
        return csv.reader(lines, quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE, **options)


class _Lines:
    """Each line as a record of one field, with the interface of csv.reader."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines, self.line_num = iter(lines), 0

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        line = next(self.lines).rstrip("\r\n")
        self.line_num += 1
        return [line] if line else []


def read_sample(path: Path, encoding: str) -> tuple[str, bool]:
    """Return the first lines of a file, and whether they are all of it."""
    with open_text(path, encoding) as file:
        sample = file.read(SAMPLE_CHARACTERS)
        complete = not file.read(1)
    return sample if complete else sample[: sample.rfind("\n") + 1] or sample, complete


def detect_dialect(
    path: Path, encoding: str, *, default: str, delimiter: str | None = None, quotes: bool | None = None
) -> tuple[Dialect, list[Notice]]:
    """Return how a file divides its fields, and the decisions taken.

    default: the delimiter of the file's suffix, which wins if every record has the same number of fields. delimiter, quotes: what
    the user says. Raises LoralabError if quotes have two readings that give different rows.
    """
    sample, complete = read_sample(path, encoding)
    newline = "\r" if "\r" in sample and "\n" not in sample else "\n"
    notices = []
    skip = 0
    if stated := _SEP_LINE.match(sample):
        delimiter, skip = delimiter or stated[1], 1
        sample = sample[stated.end() :]
    chosen = delimiter or _choose_delimiter(path, sample, complete, default, newline)
    if chosen is None:
        return Dialect(None, quotes=False, skip_lines=skip, newline=newline), [
            Notice("each line is one text: no delimiter divides all of them")
        ]
    dialect = Dialect(chosen, skip_lines=skip, newline=newline)
    if chosen != default and delimiter is None:
        notices.append(
            Notice(f"columns are divided by {_with_symbol(chosen)}", fix="data.delimiter=CHARACTER reads them otherwise")
        )
    if _spaces_before_quotes(replace(dialect, skip_lines=0), sample, complete):
        dialect = replace(dialect, skip_spaces=True)
        notices.append(Notice("spaces between a delimiter and a quote are skipped"))
    if quotes is not None:
        return replace(dialect, quotes=quotes), notices
    if '"' not in sample and complete:
        return dialect, notices
    literal, notice = _quotes_are_text(path, encoding, dialect, sample, complete)
    return replace(dialect, quotes=not literal), [*notices, *([notice] if notice else [])]


def _with_symbol(delimiter: str) -> str:
    return f"{DELIMITERS[delimiter]}s" if delimiter == "\t" else f"{DELIMITERS.get(delimiter, 'character')}s ({delimiter})"


def _choose_delimiter(path: Path, sample: str, complete: bool, default: str, newline: str) -> str | None:
    """Return the delimiter that gives every record of the sample the same number of fields, at least two; None for one per line."""
    order = [default, *(other for other in DELIMITERS if other != default)]
    for quotes in (True, False):  # a delimiter that leaves no quotes within fields, if there is one
        dialects = {delimiter: Dialect(delimiter, quotes, newline=newline) for delimiter in order}
        widths = {delimiter: _widths(dialect, sample, complete) for delimiter, dialect in dialects.items()}
        fitting = [delimiter for delimiter, counts in widths.items() if len(counts) == 1 and max(counts) > 1]
        if fitting:
            break
    if default in fitting or not fitting:
        if not fitting and set(widths[default]) != {1}:
            return _least_ragged(sample, widths, default)
        return default
    several = [delimiter for delimiter in fitting if max(widths[delimiter]) == max(max(widths[other]) for other in fitting)]
    if len(several) > 1:
        readings = " or ".join(f"data.delimiter={'tab' if d == chr(9) else d}" for d in several)
        raise LoralabError(f"{path}: {' and '.join(map(_with_symbol, several))} both divide every line: write {readings}")
    return several[0]


def _least_ragged(sample: str, widths: dict[str, Counter[int]], default: str) -> str | None:
    """Return the delimiter of the most records of one width; None if the first line has no delimiter and nothing is quoted."""
    first = next((line for line in sample.splitlines() if line.strip()), "")
    if '"' not in sample and not any(delimiter in first for delimiter in DELIMITERS):
        return None
    dividing = {delimiter: counts for delimiter, counts in widths.items() if delimiter in first} or {default: Counter({1: 1})}
    return max(dividing, key=lambda d: max(dividing[d].values(), default=0) / max(1, sum(dividing[d].values())))


def _widths(dialect: Dialect, sample: str, complete: bool) -> Counter[int]:
    """Count the records of the sample by their number of fields, without empty fields beyond those of the first record."""
    dialect = replace(dialect, skip_spaces=f'{dialect.delimiter} "' in sample)
    records = _parse(dialect, sample, complete) or []
    width = len(records[0]) if records else 0
    return Counter(len(row) if any(row[width:]) or len(row) < width else width for row in records)


def _parse(dialect: Dialect, sample: str, complete: bool) -> list[list[str]] | None:
    """Return up to SAMPLE_ROWS records that are not blank; None if quotes are not well formed."""
    records: list[list[str]] = []
    try:
        with csv_field_limit(MAX_FIELD):
            for record in dialect.records(io.StringIO(sample, newline=dialect.newline)):
                if record:
                    records.append(record)
                if len(records) == SAMPLE_ROWS:
                    break
    except csv.Error as error:
        if complete or "unexpected end of data" not in str(error) or not records:
            return None
    return records


def _spaces_before_quotes(dialect: Dialect, sample: str, complete: bool) -> bool:
    """Whether quotes enclose fields after a delimiter and spaces, as in `text, "a, b"`."""
    records = _parse(replace(dialect, skip_spaces=True), sample, complete) if f'{dialect.delimiter} "' in sample else None
    plain = _parse(dialect, sample, complete)
    if records is None or plain is None:
        return records is not None
    return any(field[:1] == " " and _QUOTED.fullmatch(field.strip()) for record in plain for field in record)


def _quotes_are_text(path: Path, encoding: str, dialect: Dialect, sample: str, complete: bool) -> tuple[bool, Notice | None]:
    """Return whether double quotes are characters of the texts, not marks around fields.

    They are if every line has the same number of delimiters, and quotes at the beginning of fields do not enclose them. In
    tab-delimited files, which often hold unquoted texts, the whole file is looked at, in others its beginning unless that is
    damaged.
    """
    quoted = _parse(replace(dialect, skip_lines=0), sample, complete)
    if quoted is not None and dialect.delimiter != "\t":
        return False, None
    literal = replace(dialect, quotes=False)
    with open_text(path, encoding, dialect.newline) as file, csv_field_limit(MAX_FIELD):
        width, stray, enclosed = 0, [], False
        try:
            for line, record in enumerate(filter(None, literal.records(file))):
                width = width or len(record)
                if len(record) != width:
                    return False, None  # only quotes explain the other number of fields
                quoted_fields = [_QUOTED.fullmatch(field) is not None for field in record if field[:1] == '"']
                enclosed = enclosed or any(quoted_fields)
                if not all(quoted_fields):
                    stray.append(line)
        except csv.Error:
            return False, None
    if not stray or (enclosed and quoted is None):
        return False, None  # fields that are enclosed, and some that are not: an error names the line
    if merged := _merged_lines(path, encoding, dialect):
        first, last = merged
        raise LoralabError(
            f"{path}: lines {first}-{last} are one row if double quotes enclose texts, and {last - first + 1} rows if quotes are "
            f"characters of the texts: write data.quotes=true or data.quotes=false"
        )
    message = "double quotes are characters of the texts: they do not enclose fields"
    return True, Notice(message, tuple(max(0, row - 1) for row in stray), fix="data.quotes=true reads them as enclosing fields")


def _merged_lines(path: Path, encoding: str, dialect: Dialect) -> tuple[int, int] | None:
    """Return first and last line of the first record of several lines, if the whole file can be read with enclosing quotes."""
    merged, last = None, 0
    try:
        with open_text(path, encoding, dialect.newline) as file, csv_field_limit(MAX_FIELD):
            reader = dialect.records(file)
            for _ in reader:
                if reader.line_num > last + 1:
                    merged = merged or (last + 1, reader.line_num)
                last = reader.line_num
    except csv.Error:
        return None
    return merged


def first_records(path: Path, encoding: str, dialect: Dialect, count: int = 200) -> list[list[str]]:
    """Return the first records that are not blank, up to one that is damaged."""
    records: list[list[str]] = []
    with suppress(csv.Error), open_text(path, encoding, dialect.newline) as file, csv_field_limit(MAX_FIELD):
        for record in islice(filter(None, dialect.records(file)), count):
            records.append(record)
    return records


def read_records(
    path: Path, encoding: str, dialect: Dialect, width: int, header: bool, notices: list[Notice]
) -> Iterator[list[str]]:
    """Yield the records of `width` fields below the header. Blank lines and empty surplus fields are skipped, and noted.

    Raises LoralabError for a record with another number of fields.
    """
    blank: list[int] = []
    pending: list[int] = []  # blank lines at the end of a file are no decision
    row, spanning, surplus, last = -1 if header else 0, 0, 0, dialect.skip_lines
    with open_text(path, encoding, dialect.newline) as file, csv_field_limit(MAX_FIELD):
        reader = dialect.records(file)
        try:
            for record in reader:
                line, last = last + 1, reader.line_num + dialect.skip_lines
                if not record:
                    pending.append(line)
                    continue
                if pending:
                    blank, pending = blank + pending, []
                spanning += last > line
                if len(record) != width:
                    if any(record[width:]) or len(record) < width:
                        raise LoralabError(f"{path}: row {row} (line {line}) {_ragged(record, width, dialect)}")
                    surplus += 1
                    del record[width:]
                row += 1
                if row > 0 or not header:
                    yield record
        except csv.Error as error:
            problem = f"{error}: is a quote never closed? If quotes are characters of the texts, write data.quotes=false"
            if "new-line character" in str(error):
                problem = "a carriage return within a field: put texts with line breaks into double quotes"
            raise LoralabError(f"{path}, line {reader.line_num + dialect.skip_lines}: {problem}") from error
    if blank:
        lines = ", ".join(map(str, blank[:MAX_LISTED])) + (", ..." if len(blank) > MAX_LISTED else "")
        notices.append(Notice(f"{count_of(len(blank), 'blank line')} skipped: line {lines}", severity="warning"))
    if spanning:
        notices.append(Notice(f"{count_of(spanning, 'row spans', 'rows span')} several lines, within double quotes"))
    if surplus:
        notices.append(Notice(f"empty fields after the last column skipped in {count_of(surplus, 'row')}"))


def _ragged(record: Sequence[str], width: int, dialect: Dialect) -> str:
    fields = ", ".join(repr(field[:30]) for field in record[:4]) + (", ..." if len(record) > 4 else "")
    advice = "put texts with commas, tabs or line breaks into double quotes"
    if not dialect.quotes:
        advice = "with data.quotes=true, double quotes enclose texts"
    counts = f"has {count_of(len(record), 'field')}, not {width}"
    return f"{counts} ({fields}): {advice}, or name another delimiter with data.delimiter"


def has_header(rows: Sequence[Sequence[str]], usual: Collection[str], known: Collection[str] = ()) -> bool | None:
    """Return whether the first record names the columns; None if it could be a row as well.

    usual: words of column names. known: names that the user, or the run, gives the columns.
    """
    first, rest = [field.strip() for field in rows[0]], [row for row in rows[1:] if len(row) >= len(rows[0])]
    columns = [[row[i].strip() for row in rest] for i in range(len(first))]
    repeated = [bool(name) and name in values for name, values in zip(first, columns, strict=True)]
    if len(named := set(first) & set(known)):
        return None if any(repeated) and len(named) < 2 else True
    names = [name for name in first if len(name) <= 40 and is_usual(name, usual)]
    if names:
        return None if any(repeated) and len(names) < 2 else True
    if _numbered(first):
        return True
    if any(repeated) and len(first) > 1:
        return False
    numeric = [bool(values) and all(map(_is_number, values)) for values in columns]
    if any(column and _is_number(name) for column, name in zip(numeric, first, strict=True)):
        return False
    if any(column and not _is_number(name) for column, name in zip(numeric, first, strict=True)):
        return True
    labels = any(len(values) >= 20 and len(set(values)) <= len(values) // 5 for values in columns)
    if len(first) > 1 and labels and all(len(name) <= 40 and len(name.split()) <= 3 for name in first):
        return True  # a class with one row, in the first line, is less likely than a name
    return None


def is_usual(name: str, usual: Collection[str]) -> bool:
    """Whether a column name is a usual one, holds one, as in `review_text`, or consists of them, as in `Review Text`."""
    parts = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip()).casefold()
    words = [word for word in re.split(r"[\W_]+|(?<=\D)(?=\d)", parts) if word]
    within = any(word in usual for word in words) if not re.search(r"\s", parts) else all(word in usual for word in words)
    return bool(words) and (name.casefold() in usual or within)


def _numbered(names: Sequence[str]) -> bool:
    """Whether the names are the numbers that pandas gives columns, perhaps after a nameless index."""
    names = [name for name in names if name]
    return len(names) > 1 and names == [str(i) for i in range(len(names))]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
