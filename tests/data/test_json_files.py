"""JSON of every usual shape gives the same rows; shapes of two readings are refused with a path or spelling that works."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from loralab.config import DataConfig
from loralab.data.json_files import MAX_LINE, is_json_lines, json_lines, read_content
from loralab.data.readers import read_chunks
from loralab.data.sources import load_source, read_raw
from loralab.errors import LoralabError

ROWS = [{"text": f"{'leaks' if i % 2 else 'lovely, says'} no {i}", "label": "neg" if i % 2 else "pos"} for i in range(6)]
TEXTS, LABELS = [row["text"] for row in ROWS], [row["label"] for row in ROWS]
PAIRS = [[row["text"], row["label"]] for row in ROWS]
FRAME = pandas.DataFrame(ROWS)
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def put(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def refused(path: Path, **settings: Any) -> str:
    with pytest.raises(LoralabError) as error:
        read_raw(path, DataConfig(**settings), need="required")
    return str(error.value)


SHAPES: dict[str, tuple[str, Any]] = {
    "lines in .json": ("a.json", LINES),
    "lines after blank ones": ("a.json", "\n \n" + LINES),
    "lines without an end": ("a.json", LINES.rstrip("\n")),
    "lines in .csv": ("a.csv", LINES),
    "lines in .txt": ("a.txt", LINES),
    "array in .jsonl": ("a.jsonl", ROWS),
    "pretty array in .jsonl": ("a.jsonl", json.dumps(ROWS, indent=2)),
    "array without suffix": ("a", ROWS),
    "objects over several lines": ("a.json", "\n".join(json.dumps(row, indent=2) for row in ROWS)),
    "objects over several lines in .jsonl": ("a.jsonl", "\n".join(json.dumps(row, indent=2) for row in ROWS)),
    "objects side by side": ("a.json", " ".join(map(json.dumps, ROWS))),
    "in data": ("a.json", {"version": 1, "data": ROWS}),
    "in examples": ("a.json", {"about": {"by": "us"}, "examples": ROWS, "errors": []}),
    "columns": ("a.json", {"text": TEXTS, "label": LABELS}),
    "columns in data": ("a.json", {"data": {"text": TEXTS, "label": LABELS}}),
    "columns of lists": ("a.json", {"text": TEXTS, "tokens": [[1, 2]] * 6, "tags": [[3]] * 6, "label": LABELS}),
    "rows with names beside": ("a.json", {"columns": ["text", "label"], "rows": PAIRS, "total": 6}),
    "arrays with names": ("a.json", [["text", "label"], *PAIRS]),
    "arrays without names": ("a.json", PAIRS),
    "arrays in lines": ("a.jsonl", "".join(json.dumps(pair) + "\n" for pair in PAIRS)),
    **{
        f"pandas {orient}": ("a.json", FRAME.to_json(orient=orient))
        for orient in ("records", "columns", "index", "split", "table", "values")
    },  # type: ignore[call-overload]
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_rows(tmp_path: Path, shape: str) -> None:
    raw = read_raw(put(tmp_path, *SHAPES[shape]), DataConfig(), need="required")
    assert (raw.texts, raw.labels) == (TEXTS, LABELS)


@pytest.mark.parametrize("orient", ["columns", "index", "split", "table"])
def test_row_names_of_pandas_are_kept_as_a_column(tmp_path: Path, orient: Any) -> None:
    frame = FRAME.set_index(pandas.Index([f"doc{i}" for i in range(6)]))
    (chunk,) = read_chunks(put(tmp_path, "a.json", frame.to_json(orient=orient)))
    assert chunk.columns == {"index": [f"doc{i}" for i in range(6)], "text": TEXTS, "label": LABELS}


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("orient", ["columns", "index", "split", "records", "table"])
def test_short_tables_are_read_by_their_shape(tmp_path: Path, orient: Any, rows: int) -> None:
    (chunk,) = read_chunks(put(tmp_path, "a.json", FRAME[:rows].to_json(orient=orient)))
    assert (chunk.columns["text"], chunk.columns["label"]) == (TEXTS[:rows], LABELS[:rows])


@pytest.mark.parametrize("orient", ["columns", "index", "split", "records"])
def test_columns_of_any_name_are_told_from_rows(tmp_path: Path, orient: Any) -> None:
    frame = FRAME.rename(columns={"text": "Utterance (raw)", "label": "Kind"})
    (chunk,) = read_chunks(put(tmp_path, "a.json", frame.to_json(orient=orient)))
    assert chunk.columns == {"Utterance (raw)": TEXTS, "Kind": LABELS}


def test_rows_may_lack_keys(tmp_path: Path) -> None:
    path = put(tmp_path, "a.json", [{"text": "a", "label": 1}, {"label": None, "text": "b"}, {"text": "c", "by": "me"}])
    (chunk,) = read_chunks(path)
    assert chunk.columns == {"text": ["a", "b", "c"], "label": [1, None, None], "by": [None, None, "me"]}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"text": "a", "text": "b"}\n', "line 1: not JSON: key 'text' occurs twice"),
        ("a.json", '[{"text": "a", "label": 1, "label": 2}]', "key 'label' occurs twice"),
        ("a.json", '[{"text": "a"},\n{"text": b}]', "line 2: not JSON"),
        ("a.jsonl", '{"text": "a"\n{"text": "b"}\n', "line 1: not JSON"),
        ("a.json", [ROWS[0], 3], "row 1: an int, not an object"),
        ("a.json", [["a", "x"], ["b"]], "row 1: 1 values, not 2"),
        ("a.json", {"text": TEXTS, "label": LABELS[:3]}, "differ in length (text 6, label 3)"),
        ("a.json", {"neg": TEXTS[:3], "pos": TEXTS[3:]}, "may be columns, or the texts of one class each"),
        ("a.json", {"a": {"x": 1}, "b": {"x": 2}}, "may be rows or columns"),
        ("a.json", {"columns": ["text"], "data": [["a", "b"]]}, "do not have the 1 values"),
        ("a.json", {}, "holds an object with the keys"),
        ("a.json", 3, "holds an int"),
        ("a.json", "text,label\na,b\n", "line 1: not JSON"),
    ],
)
def test_other_shapes_are_refused(tmp_path: Path, name: str, content: Any, expected: str) -> None:
    assert expected in refused(put(tmp_path, name, content))


@pytest.mark.parametrize(
    "tables",
    [
        {"train": ROWS, "test": ROWS[:2]},
        {"train": PAIRS, "test": PAIRS[:2], "oos": PAIRS[:1]},
        {"train": {"text": TEXTS, "label": LABELS}, "test": {"text": TEXTS[:2], "label": LABELS[:2]}},
    ],
)
def test_tables_called_by_parts_are_the_parts(tmp_path: Path, tables: dict[str, Any]) -> None:
    path = put(tmp_path, "a.json", tables)
    source = load_source(DataConfig(source=str(path)))
    assert source.train.texts == TEXTS
    assert source.test is not None
    assert source.test.texts == TEXTS[:2]
    said = " ".join(str(notice) for notices in source.notices.values() for notice in notices)
    assert ("not used: oos" in said) == ("oos" in tables)
    assert "several tables (train, test" in refused(path)
    assert read_raw(path / "train", DataConfig()).texts == TEXTS  # the path that the message proposes
    assert "did you mean 'train'" in refused(path / "tran")


def test_tables_of_other_names_are_refused_with_a_path_that_works(tmp_path: Path) -> None:
    path = put(tmp_path, "my data.json", {"de": ROWS, "en": ROWS[:4]})
    with pytest.raises(LoralabError) as error:
        load_source(DataConfig(source=str(path)))
    assert f"data.source='{path}/de'" in str(error.value)
    assert len(load_source(DataConfig(source=f"{path}/de")).train) == 6


def test_lists_by_class_are_columns_if_the_user_names_one(tmp_path: Path) -> None:
    path = put(tmp_path, "a.json", {"frage": TEXTS, "art": LABELS})
    assert "may be columns" in refused(path)
    assert read_raw(path, DataConfig(text=["frage"], label="art")).labels == LABELS


def content_of(text: str, lines: bool | None = None) -> Any:
    return read_content(io.StringIO(text), "x.json", *([] if lines is None else [lines]))


def test_documents_and_lines_are_read_with_the_line_of_an_error() -> None:
    assert content_of(" [1, 2]\n ") == [1, 2]
    assert content_of('{"a": 1}\n[2]\n 3') == [{"a": 1}, [2], 3]
    assert content_of("") == []
    with pytest.raises(LoralabError, match=r"x\.json, line 2: not JSON: Expecting value"):
        content_of('{"a": 1}\nx')
    with pytest.raises(LoralabError, match=r"x\.json, line 3: not JSON: Expecting value"):
        content_of('{"a": 1}\n{"a":\n}\n')
    with pytest.raises(LoralabError, match=r"x\.json, line 2: not JSON.*write one object per line"):
        content_of('{"a": 1}\n{"a":\n}\n', True)
    with pytest.raises(LoralabError, match=r"x\.json is not JSON: key 'a' occurs twice"):
        content_of('[{"a": 1, "b": 2, "a": 3}]')


def test_json_lines_are_objects_with_the_line_of_an_error() -> None:
    def rows(text: str) -> list[Any]:
        return [*json_lines(io.StringIO(text), "x.jsonl")]

    assert rows('{"a": 1}\n\n  \n["t", {"cats": {}}]\n{}') == [{"a": 1}, {"text": "t", "cats": {}}, {}]
    for text, message in (
        ('{}\n\n["t", 1]', "line 3: a list, not an object"),
        ('{}\n"t"', "line 2: a str, not"),
        ("3", "line 1: an int, not"),
        ('{}\n{"a": 1, "a": 2}', "line 2: not JSON: key 'a' occurs twice"),
        ("{}\n{", "line 2: not JSON: "),
    ):
        with pytest.raises(LoralabError, match=f"x.jsonl, {message}"):
            rows(text)
    fits = '{"a":"' + "x" * (MAX_LINE - 8) + '"}'
    assert len(fits) == MAX_LINE
    assert len(rows(fits)) == 1
    with pytest.raises(LoralabError, match=f"line 2: longer than {MAX_LINE} characters"):
        rows("{}\n" + fits + "\n")


@pytest.mark.parametrize(
    ("text", "several", "single"),
    [
        ('{"a": 1}\n{"a": 2}', True, True),
        ('\n\n{"a": 1}\n\n', False, True),
        ('{"a": 1}', False, True),
        ('["t", {}]\n["u", {}]', True, True),
        ("[1]\n[2]", False, False),
        ("{\n}", False, False),
        ("", False, False),
        ("x", False, False),
    ],
)
def test_json_lines_are_told_from_documents(text: str, several: bool, single: bool) -> None:
    assert (is_json_lines(io.StringIO(text)), is_json_lines(io.StringIO(text), single=True)) == (several, single)


def test_lists_of_texts_and_columns_are_rows(tmp_path: Path) -> None:
    assert read_raw(put(tmp_path, "a.json", ["one", "two"]), DataConfig()).texts == ["one", "two"]
    assert next(read_chunks(put(tmp_path, "b.json", ["one", "two"]))).columns == {"text": ["one", "two"]}
    columns = {"text": ["a", "b"], "label": [1, 2], "x": [None, {}]}
    assert next(read_chunks(put(tmp_path, "c.json", columns))).columns == columns
    assert "differ in length (text 2, label 1)" in refused(put(tmp_path, "d.json", {"text": ["a", "b"], "label": [1]}))
