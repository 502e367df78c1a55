"""CSV by Arrow, block by block: well-formed files are read as the csv module reads them, and others are left to it."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest

from loralab.data import arrow_csv
from loralab.data.arrow_csv import Unusual, read_blocks
from loralab.data.delimited import MAX_FIELD, Dialect
from loralab.data.types import ArrowColumns, Notice
from loralab.errors import LoralabError

NAMES = ("text", "label")
COMMA = Dialect(",")


def read(
    path: Path, content: str | bytes, dialect: Dialect = COMMA, header: bool = False, encoding: str = "utf-8"
) -> list[list[str]]:
    """Return the rows that Arrow reads."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    tables = [*read_blocks(path, dialect, encoding, NAMES, header, [])]
    return [[row["text"], row["label"]] for table in tables for row in table.to_pylist()]


def is_left(path: Path, content: str | bytes, dialect: Dialect = COMMA, encoding: str = "utf-8") -> bool:
    try:
        read(path, content, dialect, encoding=encoding)
    except Unusual:
        return True
    return False


def well_formed(stream: random.Random, end: str) -> str:
    """Return a CSV file of two columns, with quotes, line breaks in quotes and empty fields."""
    fields = [
        "a",
        "",
        "long text",
        "é 日本",
        '"x"',
        '""',
        '"a ""b"" c"',
        f'"two{end}lines"',
        f'"{end}{end}"',
        '","',
        '"""q"""',
        "NA",
    ]
    return "".join(f"{stream.choice(fields)},{stream.choice(fields)}{end}" for _ in range(stream.randrange(1, 30)))


@pytest.mark.parametrize("block", [1, 3, 16, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_well_formed_files_are_read_whatever_the_size_of_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, end: str
) -> None:
    monkeypatch.setattr(arrow_csv, "BLOCK", block)
    stream = random.Random(block)
    for _ in range(8):
        content = well_formed(stream, end)
        expected = [*csv.reader(io.StringIO(content, newline=""), strict=True)]
        assert read(tmp_path / "rows.csv", content) == expected
        assert read(tmp_path / "rows.csv", content, header=True) == expected[1:]
        if content[-3:] not in ('""\n',) and not content.endswith(f",{end}"):
            assert read(tmp_path / "rows.csv", content.removesuffix(end)) == expected


@pytest.mark.parametrize("block", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    "content",
    [
        *("a,b\n\nc,d\n", "\na,b\n", "a,b\r\n\r\nc,d\r\n", "a,b\n\r\nc,d\n"),  # blank lines
        *('a "b",c\n', 'a,"b"c\n', 'a,"b" \n', 'a, "b"\n', 'a"b,c\n', 'a"\n,b\n'),  # quotes within a field
        *('a,"b\n', 'a,"b""\n', 'a,b\n"c,d\n'),  # a quote that is never closed
        *("a\rb,c\n", "a,b\rc,d\r", 'a,"b\rc"\n'),  # a carriage return alone
        *("a,b,c\n", "a\n", "a,b\nc\n", "a,b\nc,d,e\n"),  # other numbers of fields
    ],
)
def test_other_files_are_left_to_the_csv_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, block: int) -> None:
    monkeypatch.setattr(arrow_csv, "BLOCK", block)
    assert is_left(tmp_path / "rows.csv", content)


@pytest.mark.parametrize(
    "dialect",
    [Dialect(None), Dialect(",", quotes=False), Dialect(",", skip_spaces=True), Dialect(",", skip_lines=1), Dialect("§")],
)
def test_other_dialects_are_left_to_the_csv_module(tmp_path: Path, dialect: Dialect) -> None:
    assert is_left(tmp_path / "rows.csv", "a,b\n", dialect)


def test_other_encodings_and_single_columns_are_left(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    assert is_left(path, "a,b\n", encoding="cp1252")
    assert read(path, b"\xef\xbb\xbfa,b\n", encoding="utf-8-sig") == [["a", "b"]]
    assert read(path, "a;b\n", Dialect(";")) == [["a", "b"]]
    assert read(path, "") == []
    with pytest.raises(Unusual):
        next(read_blocks(path, COMMA, "utf-8", ("text",), False, []))


@pytest.mark.parametrize("block", [1000, 1 << 20])
def test_records_may_be_as_long_as_a_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(arrow_csv, "BLOCK", block)
    monkeypatch.setattr(arrow_csv, "MAX_FIELD", 5000)
    for before in ("", "a,b\n" * 700):
        assert read(tmp_path / "rows.csv", f"{before}{'x' * 4996},yz\n")[-1] == ["x" * 4996, "yz"]
        assert is_left(tmp_path / "rows.csv", f"{before}{'x' * 4997},yz\n")
        assert is_left(tmp_path / "rows.csv", f"{before}{'x' * 5001},yz")
    assert MAX_FIELD == 1 << 20


@pytest.mark.parametrize("block", [3, 1 << 20])
@pytest.mark.parametrize(("content", "breaks"), [("a,b\n", 0), ('a,"b\nc"\n', 1), ('"\n\n",b\nc,"\nd"\n', 3)])
def test_line_breaks_within_quotes_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, breaks: int, block: int
) -> None:
    monkeypatch.setattr(arrow_csv, "BLOCK", block)
    (tmp_path / "rows.csv").write_text(content, encoding="utf-8")
    notices: list[Notice] = []
    assert sum(len(table) for table in read_blocks(tmp_path / "rows.csv", COMMA, "utf-8", NAMES, False, notices)) > 0
    assert [notice.message.split()[0] for notice in notices] == ([str(breaks)] if breaks else [])


def test_a_file_that_is_no_longer_utf8_is_named_when_its_texts_are_used(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"caf\xe9,a\nb,c\n")
    with pytest.raises(Unusual):
        next(read_blocks(tmp_path / "rows.csv", COMMA, "utf-8", NAMES, False, []))
    (table,) = read_blocks(tmp_path / "rows.csv", COMMA, "utf-8", NAMES, False, [], checked=True)
    with pytest.raises(LoralabError, match="changed while it was read"):
        ArrowColumns(table)["text"]
