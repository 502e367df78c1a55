"""Files whose damage or size once ended in other errors, in gigabytes or in the end of the process are refused in one message."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from loralab.config import DataConfig
from loralab.data import limits
from loralab.data.readers import open_table
from loralab.data.sources import load_source
from loralab.errors import LoralabError


def refused(path: Path) -> str:
    with pytest.raises(LoralabError) as error:
        load_source(DataConfig(source=str(path)))
    return str(error.value)


def archive(path: Path, content: bytes, name: str = "rows.csv") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return path


ROWS = b"text,label\n" + b"some words,a\nother words,b\n" * 100_000
PACKERS: dict[str, Callable[[Path], object]] = {
    "rows.csv.gz": lambda path: path.write_bytes(gzip.compress(ROWS)),
    "rows.csv.bz2": lambda path: path.write_bytes(bz2.compress(ROWS)),
    "rows.csv.xz": lambda path: path.write_bytes(lzma.compress(ROWS)),
    "rows.zip": lambda path: archive(path, ROWS),
    "rows.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps([{"text": "a", "label": "b"}] * 100_000).encode())),
}


@pytest.mark.parametrize("name", PACKERS)
def test_files_that_unpack_to_more_than_the_limit_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    PACKERS[name](path)
    monkeypatch.setenv(limits.UNPACKED_SETTING, "0.001")
    assert "unpacks to more than 0.001 GB" in refused(path)
    monkeypatch.setenv(limits.UNPACKED_SETTING, "1")
    rows = sum(chunk.rows for chunk in open_table(path).chunks)
    assert rows in (100_000, 200_000)


def test_a_limit_that_is_no_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(b"text,label\na,x\nb,y\n"))
    for value in ("much", "inf", "nan"):
        monkeypatch.setenv(limits.UNPACKED_SETTING, value)
        assert f"{limits.UNPACKED_SETTING}='{value}' is not a number of gigabytes" in refused(path)


def test_rows_columns_and_texts_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    monkeypatch.setattr(limits, "MAX_ROWS", 20_000)
    path.write_text('{"text": "a", "label": "b"}\n' * 20_001, encoding="utf-8")
    assert "has more than 20,000 rows" in refused(path)
    path.write_text("\n".join(json.dumps({"text": "a", f"key{i}": 1}) for i in range(5000)), encoding="utf-8")
    assert "has more than 4,096 columns" in refused(path)
    document = tmp_path / "rows.json"
    document.write_text(json.dumps([{"text": "a" * (limits.MAX_TEXT + 1), "label": "x"}]), encoding="utf-8")
    assert "a text of 1,048,577 characters; cut texts to at most 1,048,576" in refused(document)


def test_an_object_of_columns_with_different_keys_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(
        json.dumps({"text": {"a": 1}, **{f"c{i}": {f"k{j}_{i}": 1 for j in range(4)} for i in range(2000)}}), encoding="utf-8"
    )
    assert "its columns have different keys" in refused(path)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_nesting_is_limited_and_brackets_in_texts_do_not_count(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    rows = [{"text": '[[[[ \\" {{{{' * 100, "label": name} for name in ("a", "b") * 3]
    path.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert len(load_source(DataConfig(source=str(path))).train) == 6
    deep = '{"text": "a", "label": ' + '["]", ' * 101 + "1" + "]" * 101 + "}\n"
    path.write_text(f"[{deep}]" if suffix == ".json" else deep * 2, encoding="utf-8")
    assert "more than 100 levels" in refused(path)


def test_columnar_files_that_repeat_a_text_or_declare_rows_take_no_memory(tmp_path: Path) -> None:
    long = "x" * (5 * limits.MAX_TEXT)
    words = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 100_000, pyarrow.int32()), [long])
    table = pyarrow.table({"text": words, "label": ["a", "b"] * 50_000})
    for stored in (True, False):
        parquet.write_table(table, tmp_path / "rows.parquet", compression="zstd", store_schema=stored)
        assert (tmp_path / "rows.parquet").stat().st_size < 20_000
        assert "characters" in refused(tmp_path / "rows.parquet")
    with pyarrow.ipc.new_file(tmp_path / "rows.arrow", table.schema) as file:
        file.write_table(table)
    assert "a text of 5,242,880 characters" in refused(tmp_path / "rows.arrow")
    nothing = pyarrow.table({"text": pyarrow.nulls(10**8)})
    with pyarrow.ipc.new_file(tmp_path / "rows.arrow", nothing.schema) as file:
        file.write_table(nothing)
    assert "has more than 50,000,000 rows" in refused(tmp_path / "rows.arrow")


def test_an_arrow_text_outside_its_buffer_is_refused(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["first", "second"], "label": ["a", "b"]})
    file = io.BytesIO()
    with pyarrow.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    offsets = (0).to_bytes(4, "little") + (5).to_bytes(4, "little") + (11).to_bytes(4, "little")
    assert offsets in file.getvalue()
    damaged = file.getvalue().replace(offsets, offsets[:4] + (0x7FFFFF00).to_bytes(4, "little") + offsets[8:])
    (tmp_path / "rows.arrow").write_bytes(damaged)
    assert "cannot be read as an Arrow or Feather file" in refused(tmp_path / "rows.arrow")


def test_a_table_without_columns_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"a": [1, 2]}).select([]), tmp_path / "rows.parquet")
    assert "has no columns" in refused(tmp_path / "rows.parquet") or "has no rows" in refused(tmp_path / "rows.parquet")


ARCHIVES = {
    "a name that is no text": lambda data: data.replace(b"rows.csv", b"rows\xff\xfe\xfd\xfc"),
    "an unknown method": lambda data: data.replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x08\x00", b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x63\x00"
    ),
    "an encrypted member": lambda data: data.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"),
    "a version of the future": lambda data: data.replace(b"PK\x01\x02\x14\x03\x14\x00", b"PK\x01\x02\x14\x03\xff\x00"),
    "content that ends early": lambda data: data[: data.index(b"PK\x01\x02") - 200] + data[data.index(b"PK\x01\x02") :],
}


@pytest.mark.parametrize("damage", ARCHIVES)
def test_damaged_archives_are_refused(damage: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "rows.zip", ROWS[:100_000])
    data = path.read_bytes()
    path.write_bytes(ARCHIVES[damage](data))
    assert path.read_bytes() != data
    assert "rows.zip" in refused(path)


def workbook(path: Path, sheet: bytes) -> Path:
    import openpyxl

    book, file = openpyxl.Workbook(), io.BytesIO()
    book.save(file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, sheet if name == "xl/worksheets/sheet1.xml" else old.read(name))
    return path


SHEET = b'<?xml version="1.0"?>%s<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">%s<sheetData>%s</sheetData></worksheet>'
LAUGHS = (
    b"<!DOCTYPE x [<!ENTITY a0 'lol'>" + b"".join(b"<!ENTITY a%d '%s'>" % (i + 1, b"&a%d;" % i * 10) for i in range(12)) + b"]>"
)
SHEETS = {
    "an unknown attribute": (
        SHEET % (b"", b'<sheetPr><outlinePr summary="1"/></sheetPr>', b""),
        "cannot be read as an Excel workbook",
    ),
    "entities": (SHEET % (LAUGHS, b"", b'<row r="1"><c t="inlineStr"><is><t>&a12;</t></is></c></row>'), "Excel workbook"),
    "a far row": (SHEET % (b"", b"", b'<row r="2000000000"><c r="A2000000000"><v>1</v></c></row>'), "beyond Excel's limits"),
    "a far column": (SHEET % (b"", b"", b'<row r="1"><c r="ZZZ1"><v>1</v></c></row>'), "beyond Excel's limits"),
}


@pytest.mark.parametrize("name", SHEETS)
def test_hostile_workbooks_are_refused(name: str, tmp_path: Path) -> None:
    content, expected = SHEETS[name]
    assert expected in refused(workbook(tmp_path / "rows.xlsx", content))


def test_a_workbook_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "rows.xlsx", SHEET % (b"", b"", b" " * 100_000))
    monkeypatch.setattr(limits, "MAX_WORKBOOK", 50_000)
    assert "unpacks to more than" in refused(path)
