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
from loralab.data.labels import label_texts
from loralab.data.sources import RawExamples, load_source, read_raw
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


# fastText


@pytest.mark.parametrize("name", ["train.txt", "train.csv", "train.ft", "train"])
def test_fasttext_lines_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("__label__sports The cup final\n\n__label__sci-tech  A new, fast chip\n__label__sports\n")
    raw = read(tmp_path / name)
    assert (raw.texts, labels(raw)) == (["The cup final", "A new, fast chip", ""], ["sports", "sci-tech", "sports"])
    assert "fastText" in str(raw.notices[-1])


def test_several_fasttext_labels_of_a_line_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("__label__a x\n__label__a __label__b y\n")
    assert "several labels in line 2, such as a, b" in refused(tmp_path / "a.txt")


# Annotation tools


def studio(*choices: list[str], cancelled: bool = False) -> dict[str, Any]:
    result = [[{"type": "choices", "from_name": "class", "value": {"choices": own}}] for own in choices]
    return {"id": 1, "data": {"review": "leaks"}, "annotations": [{"result": one, "was_cancelled": cancelled} for one in result]}


def argilla(*answers: tuple[str, str]) -> dict[str, Any]:
    return {"fields": {"text": "leaks"}, "responses": {"label": [{"value": value, "status": status} for value, status in answers]}}


EXPORTS: dict[str, tuple[str, list[Any], list[str | None]]] = {
    "spaCy pairs": (
        "spaCy",
        [["leaks", {"cats": {"POS": 0.0, "NEG": 1.0}}], ["lovely", {"cats": {"POS": 1.0, "NEG": 0.0}}]],
        ["NEG", "POS"],
    ),
    "spaCy records": ("spaCy", [{"text": "a", "cats": {"POS": 1, "NEG": 0}}, {"text": "b", "cats": {}}], ["POS", None]),
    "Prodigy": (
        "Prodigy",
        [
            {"text": "a", "label": "X", "answer": "accept"},
            {"text": "b", "label": "X", "answer": "reject"},
            {"text": "c", "label": "Y", "answer": "ignore"},
        ],
        ["X", None, None],
    ),
    "Prodigy choice": (
        "Prodigy",
        [
            {"text": "a", "accept": ["X"], "options": [{"id": "X"}], "answer": "accept"},
            {"text": "b", "accept": [], "answer": "accept"},
        ],
        ["X", None],
    ),
    "doccano": ("doccano", [{"id": 1, "data": "a", "label": ["X"]}, {"id": 2, "data": "b", "label": []}], ["X", None]),
    "doccano labels": ("doccano", [{"id": 1, "text": "a", "labels": ["X"]}, {"id": 2, "text": "b", "labels": ["Y"]}], ["X", "Y"]),
    "Label Studio": (
        "Label Studio",
        [studio(["X"]), studio(["Y"], ["Y"]), studio(["X"], cancelled=True), studio()],
        ["X", "Y", None, None],
    ),
    "Argilla": (
        "Argilla",
        [argilla(("X", "submitted")), argilla(("X", "submitted"), ("Y", "discarded")), argilla(("X", "draft"))],
        ["X", "X", None],
    ),
    "Argilla 1": (
        "Argilla",
        [{"text": "a", "annotation": "X", "prediction": None}, {"text": "b", "annotation": None, "prediction": None}],
        ["X", None],
    ),
    "Argilla flat": (
        "Argilla",
        [
            {"text": "a", "label.responses": ["X"], "label.responses.status": ["submitted"]},
            {"text": "b", "label.responses": None, "label.responses.status": None},
        ],
        ["X", None],
    ),
}


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("case", EXPORTS)
def test_exports_of_annotation_tools_are_recognised(tmp_path: Path, case: str, suffix: str) -> None:
    tool, rows, expected = EXPORTS[case]
    path = tmp_path / f"export{suffix}"
    path.write_text(json.dumps(rows) if suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    raw = read(path)
    assert labels(raw) == expected
    assert len(raw.texts) == len(rows)
    assert all(raw.texts)
    assert f"read as an export of {tool}" in str(raw.notices[0])


def test_rejected_rows_are_left_out_of_training_and_counted(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": "XY"[i % 2], "answer": ("accept", "accept", "reject")[i % 3]} for i in range(30)]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = load_source(DataConfig(source=str(path)))
    assert len(source.train) == 20
    said = " ".join(map(str, source.notices["train"]))
    assert "column 'answer': 10 of 30 rows are not accepted (rejected)" in said
    assert "10 of 30 rows have no label and are left out" in said


@pytest.mark.parametrize("row", [studio(["X"], ["Y"]), studio(["X", "Y"]), argilla(("X", "submitted"), ("Y", "submitted"))])
def test_disagreeing_annotators_are_refused_with_rows(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([row, row]))
    assert "several labels in rows 0, 1" in refused(path)


def test_keys_may_be_missing_and_a_misspelt_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "a", "label": "x"}\n{"text": "b", "label": "y", "meta": {"by": 1}}\n{"Text": "c", "label": "x"}\n{"label": "y"}\n'
    )
    raw = read(path)
    assert (raw.texts, labels(raw)) == (["a", "b", "", ""], ["x", "y", "x", "y"])
    assert any("'Text' occurs in 1 row" in str(notice) for notice in raw.notices)
