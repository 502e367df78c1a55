"""JSON, Excel, fastText, Arrow and zip files, and the exports of annotation tools."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pandas
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from loralab.config import DataConfig
from loralab.data.formats import stem_of, suffix_of
from loralab.data.labels import label_texts
from loralab.data.sources import RawExamples, read_raw
from loralab.errors import LoralabError

TEXTS = ["leaks, no 1", 'says "hi"', "two\nlines", "Köln 東京"]
LABELS = ["neg", "pos", "neg", "pos"]
RECORDS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
FRAME = pandas.DataFrame(RECORDS)


def read(path: Path) -> RawExamples:
    return read_raw(path, DataConfig(), need="required")


def labels(raw: RawExamples) -> list[str | None]:
    return label_texts(raw.labels, raw.where)


def refused(path: Path) -> str:
    with pytest.raises(LoralabError) as error:
        labels(read(path))
    return str(error.value)


def dump(content: Any) -> Callable[[Path], Any]:
    return lambda path: path.write_text(json.dumps(content), encoding="utf-8")


def packed(name: str, content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("__MACOSX/._rows.csv", b"clutter")
            archive.writestr(name, content)

    return write


def parquet_bytes() -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pandas(FRAME), sink)
    return sink.getvalue().to_pybytes()


def workbook(path: Path, *sheets: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for i, rows in enumerate(sheets):
        sheet = book.create_sheet(f"Sheet {i + 1}")
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


CSV = FRAME.to_csv(index=False).encode()
LINES = FRAME.to_json(orient="records", lines=True).encode()
FILES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "json records": ("a.json", dump(RECORDS)),
    "json in data": ("a.json", dump({"version": 1, "data": RECORDS})),
    "json in rows": ("a.json", dump({"rows": RECORDS})),
    "json lines in .json": ("a.json", lambda path: path.write_bytes(LINES)),
    "json pretty": ("a.json", lambda path: path.write_text(json.dumps(RECORDS, indent=2))),
    "json columns": ("a.json", dump({"text": TEXTS, "label": LABELS})),
    "json without suffix": ("a", dump(RECORDS)),
    "json of UTF-16": ("a.json", lambda path: path.write_text(json.dumps(RECORDS, ensure_ascii=False), encoding="utf-16")),
    **{
        f"pandas {orient}": ("a.json", lambda path, orient=orient: FRAME.to_json(path, orient=orient))  # type: ignore[misc]
        for orient in ("columns", "index", "split", "table", "records")
    },
    "excel": ("a.xlsx", lambda path: FRAME.to_excel(path, index=False)),
    "excel with an index": ("a.xlsx", lambda path: FRAME.to_excel(path)),
    "excel called csv": (
        "a.csv",
        lambda path: FRAME.to_excel(path.with_suffix(".xlsx"), index=False) or path.with_suffix(".xlsx").rename(path),
    ),
    "feather": ("a.feather", lambda path: pyarrow.feather.write_feather(FRAME, path)),
    "zip of csv": ("a.zip", packed("rows.csv", CSV)),
    "zip of csv in a folder": ("a.csv.zip", packed("archive/rows.csv", CSV)),
    "zip called csv": ("a.csv", packed("rows.csv", CSV)),
    "zip of jsonl": ("a.zip", packed("rows.jsonl", LINES)),
    "zip of parquet": ("a.zip", packed("rows.parquet", parquet_bytes())),
    "gzip called csv": ("a.csv", lambda path: path.write_bytes(gzip.compress(CSV))),
    "bzip2": ("a.csv.bz2", lambda path: path.write_bytes(bz2.compress(CSV))),
    "xz": ("a.jsonl.xz", lambda path: path.write_bytes(lzma.compress(LINES))),
    "parquet called csv": ("a.csv", lambda path: path.write_bytes(parquet_bytes())),
    "brackets and spaces": ("[old] a b.csv", lambda path: path.write_bytes(CSV)),
    "other scripts": ("данные.csv", lambda path: path.write_bytes(CSV)),
}


@pytest.mark.parametrize("case", FILES)
def test_every_format_gives_the_same_rows(tmp_path: Path, case: str) -> None:
    name, write = FILES[case]
    write(tmp_path / name)
    raw = read(tmp_path / name)
    assert (raw.texts, labels(raw), raw.columns.text, raw.columns.label) == (TEXTS, LABELS, ("text",), "label")


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("a.json", dump({"train": RECORDS, "test": RECORDS}), "several tables (train, test)"),
        ("a.json", dump({"a": 1, "b": 2}), "name the text and the label column"),
        ("a.json", dump([1, 2]), "row 0: an int, not an object"),
        ("a.json", dump("text"), "holds a str"),
        ("a.json", lambda path: path.write_text('[{"text": '), "line 1: not JSON"),
        ("a.json", dump([]), "is empty"),
        (
            "a.zip",
            lambda path: packed("x.csv", CSV)(path) or zipfile.ZipFile(path, "a").writestr("y.csv", CSV),
            "2 files (x.csv, y.csv)",
        ),
        ("a.xlsx", lambda path: path.write_bytes(b"PK\x03\x04"), "cannot be read as an Excel workbook"),
        (
            "a.xlsx",
            lambda path: workbook(path, [["text", "label"], ["a", "x"]], [["text"], ["b"]]),
            "2 sheets with rows ('Sheet 1', 'Sheet 2'): name one, such as ",
        ),
        ("a.xlsx", lambda path: workbook(path, []), "0 sheets with rows (none)"),
    ],
)
def test_other_contents_are_refused_in_one_message(tmp_path: Path, name: str, write: Callable[[Path], Any], expected: str) -> None:
    write(tmp_path / name)
    assert expected in refused(tmp_path / name)


def test_cells_of_a_workbook_keep_their_values(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", [["text", "label"], [None, None], ["fine", 1], [7, 2.0], [None, 1], ["x", None]], [])
    raw = read(path)
    assert (raw.texts, labels(raw)) == (["fine", "7", "", "x"], ["1", "2", "1", None])


def test_keys_may_be_missing_and_a_misspelt_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "a", "label": "x"}\n{"text": "b", "label": "y", "meta": {"by": 1}}\n{"Text": "c", "label": "x"}\n{"label": "y"}\n'
    )
    raw = read(path)
    assert (raw.texts, labels(raw)) == (["a", "b", "", ""], ["x", "y", "x", "y"])
    assert any("'Text' occurs in 1 row" in str(notice) for notice in raw.notices)


@pytest.mark.parametrize(
    ("name", "suffix", "stem"),
    [
        ("train.csv", ".csv", "train"),
        ("Train.CSV.GZ", ".csv", "Train"),
        ("a.b.jsonl.xz", ".jsonl", "a.b"),
        ("rows.csv.zip", ".csv", "rows"),
        ("rows.zip", ".zip", "rows"),
        ("rows.gz", ".gz", "rows"),
        (".gz", "", ".gz"),
        ("rows.tar.bz2", ".tar", "rows.tar"),
        ("rows", "", "rows"),
        ("rows.txt", ".txt", "rows"),
        (".csv", "", ".csv"),
    ],
)
def test_suffixes_and_stems(name: str, suffix: str, stem: str) -> None:
    assert (suffix_of(Path(name)), stem_of(Path(name))) == (suffix, stem)
