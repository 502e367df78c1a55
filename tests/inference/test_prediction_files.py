"""Predictions keep the ids and columns of the file, and say what was decided about its rows."""

from __future__ import annotations

import csv
import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import make_checkpoint

from loralab import Classifier, LoralabError, load_config
from loralab.config import DataConfig
from loralab.data import readers
from loralab.inference.prediction_files import OutputFormat, cell_text, is_formula, read_input
from loralab.pipeline import run_training

IDS = ["0", "009", "1180000000000000123", "a-b", "-7", "1e5", "ü/1"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = tmp_path_factory.mktemp("ids")
    words = ("goal", "profit", "chip")
    rows = [f"{i},{word} {i},{k}" for i in range(20) for k, word in enumerate(words, 1)]
    (folder / "stars.csv").write_text("key,text,stars\n" + "\n".join(rows) + "\n")
    settings = [f"model.base={make_checkpoint(folder / 'bert')}", "train.max_steps=2", "data.id=key"]
    return Classifier.load(run_training(load_config(folder / "stars.csv", settings), folder=folder).folder)


def put(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [*csv.reader(file)]


def predict(classifier: Classifier, path: Path, **options: Any) -> tuple[list[list[str]], list[str]]:
    out = path.parent / "out"
    data = options.pop("data", None)
    report = classifier.predict_file(path, out, data, format=OutputFormat(**options))
    return table(out), [str(notice) for notice in report.notices]


# --- ids -----------------------------------------------------------------------------------------------------------


def id_csv(path: Path) -> Path:
    return put(path.with_suffix(".csv"), "id,text", *(f"{name},text {i}" for i, name in enumerate(IDS)))


def id_jsonl(path: Path) -> Path:
    return put(path.with_suffix(".jsonl"), *(json.dumps({"text": f"text {i}", "id": name}) for i, name in enumerate(IDS)))


def id_parquet(path: Path) -> Path:
    pd.DataFrame({"text": [f"text {i}" for i in range(len(IDS))], "id": IDS}).to_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def id_pickle(path: Path) -> Path:
    path.with_suffix(".pkl").write_bytes(pickle.dumps([{"id": name, "text": f"text {i}"} for i, name in enumerate(IDS)]))
    return path.with_suffix(".pkl")


@pytest.mark.parametrize("write", [id_csv, id_jsonl, id_parquet, id_pickle])
@pytest.mark.parametrize("chunk", [2, 8192])
def test_ids_are_written_as_they_are_in_the_file(
    classifier: Classifier, tmp_path: Path, write: Any, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CHUNK", chunk)
    lines, _ = predict(classifier, write(tmp_path / "in"))
    assert lines[0][:4] == ["id", "text", "label", "confidence"]
    assert [line[0] for line in lines[1:]] == IDS
    assert [line[1] for line in lines[1:]] == [f"text {i}" for i in range(len(IDS))]
    out = tmp_path / "out.jsonl"
    classifier.predict_file(write(tmp_path / "in"), out, format="jsonl")
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == IDS


def test_large_numbers_stay_whole_as_ids(classifier: Classifier, tmp_path: Path) -> None:
    ids = [1180000000000000123, 1180000000000000124]
    pd.DataFrame({"text": ["a", "b"], "id": ids}).to_parquet(tmp_path / "in.parquet")
    lines, _ = predict(classifier, tmp_path / "in.parquet")
    assert [line[0] for line in lines[1:]] == [str(number) for number in ids]
    classifier.predict_file(tmp_path / "in.parquet", tmp_path / "out.jsonl", format="jsonl")
    assert [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == ids


@pytest.mark.parametrize(
    ("header", "asked", "column"),
    [
        ("id,text,other", None, "id"),
        ("PassengerId,text,other", None, "PassengerId"),
        ("key,text,other", None, "key"),  # the run's id column
        ("key,text,id", None, "key"),
        ("name,text,other", "other", "other"),
        ("id,text,other", "other", "other"),
    ],
)
def test_the_id_column_is_the_asked_one_else_the_runs_else_one_named_so(
    classifier: Classifier, tmp_path: Path, header: str, asked: str | None, column: str
) -> None:
    path = put(tmp_path / "in.csv", header, "i1,goal,x1", "i2,chip,x2")
    lines, _ = predict(classifier, path, data=DataConfig(id=asked))
    expected = [row[header.split(",").index(column)] for row in (["i1", "goal", "x1"], ["i2", "chip", "x2"])]
    assert (lines[0][0], [line[0] for line in lines[1:]]) == (column, expected)


def test_rows_without_an_id_column_are_numbered(classifier: Classifier, tmp_path: Path) -> None:
    lines, _ = predict(classifier, put(tmp_path / "in.csv", "text,other", "goal,x", "chip,y"))
    assert lines[0] == ["id", "text", "label", "confidence", "p(1)", "p(2)", "p(3)"]
    assert [line[0] for line in lines[1:]] == ["0", "1"]


def test_an_unknown_id_column_is_refused_with_the_nearest(classifier: Classifier, tmp_path: Path) -> None:
    path = put(tmp_path / "in.csv", "text,other", "goal,x", "chip,y")
    with pytest.raises(LoralabError, match=r"no column 'othre' \(data.id\); did you mean 'other'"):
        predict(classifier, path, data=DataConfig(id="othre"))


# --- columns -------------------------------------------------------------------------------------------------------


def test_kept_columns_come_first_in_their_order(classifier: Classifier, tmp_path: Path) -> None:
    path = put(tmp_path / "in.csv", "label,text,id,empty", "x,goal,7,", '"a, b",chip,8,')
    lines, notices = predict(classifier, path, keep_columns=True)
    assert lines[0] == ["label", "text", "id", "empty", "predicted", "confidence", "p(1)", "p(2)", "p(3)"]
    assert [line[:4] for line in lines[1:]] == [["x", "goal", "7", ""], ["a, b", "chip", "8", ""]]
    assert [line[4] for line in lines[1:]] == classifier.predict(["goal", "chip"]).labels
    assert notices == []


def test_names_that_the_file_has_already_are_not_reused(classifier: Classifier, tmp_path: Path) -> None:
    path = put(tmp_path / "in.csv", "text,predicted,predicted_2,confidence,p(1)", "goal,a,b,c,d", "chip,a,b,c,d")
    lines, notices = predict(classifier, path, keep_columns=True)
    assert lines[0][5:] == ["predicted_3", "confidence_2", "p(1)_2", "p(2)", "p(3)"]
    assert len({*lines[0]}) == len(lines[0])
    assert lines[1][:5] == ["goal", "a", "b", "c", "d"]
    assert "'predicted' is 'predicted_3'" in notices[0]
    lines, _ = predict(classifier, put(tmp_path / "in.csv", "label,text", "7,goal"), data=DataConfig(id="label"))
    assert lines[0][:4] == ["label", "text", "label_2", "confidence"]


def test_json_lines_keep_the_keys_and_types_of_every_row(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CHUNK", 1)
    rows = [{"text": "goal", "n": 1.5, "tags": ["a"]}, {"text": "chip", "late": True, "=f": "=1+1"}]
    path = put(tmp_path / "in.jsonl", *map(json.dumps, rows))
    classifier.predict_file(path, tmp_path / "out", format=OutputFormat("jsonl", keep_columns=True))
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    for line, row in zip(lines, rows, strict=True):
        assert line | row == line
        assert {"predicted", "confidence", "probabilities"} <= {*line}
    with pytest.raises(LoralabError, match=r"'late' first occurs after row 0.*--format jsonl"):
        predict(classifier, path, keep_columns=True)
    assert predict(classifier, path)[0][0][:2] == ["id", "text"]


def test_values_of_any_kind_are_cells(classifier: Classifier, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"text": ["goal", "chip"], "n": [1.5, np.nan], "day": pd.to_datetime(["2024-01-02", None]), "l": [[1], None]}
    )
    frame.to_parquet(tmp_path / "in.parquet")
    lines, _ = predict(classifier, tmp_path / "in.parquet", keep_columns=True)
    assert lines[1][:4] == ["goal", "1.5", "2024-01-02 00:00:00", "[1]"]
    assert lines[2][:4] == ["chip", "", "", ""]
    assert cell_text("\ud800") == "?"
    classifier.predict_file(tmp_path / "in.parquet", tmp_path / "out", format=OutputFormat("jsonl", keep_columns=True))
    assert json.loads((tmp_path / "out").read_text().splitlines()[1])["n"] is None


# --- formulas ------------------------------------------------------------------------------------------------------

FORMULAS = ["=1+1", "+1 555", "-good", "@SUM(A1)", "\tcmd", "=cmd|' /C calc'!A0", "-2+3"]
HARMLESS = ["good = bad", "-5", "+3.5", "a-b", " =1", "'=1", "", "-1e5", "e=mc"]


@pytest.mark.parametrize("text", [*FORMULAS, "\rcmd", "-", "=", "--5", "+x"])
def test_cells_that_a_spreadsheet_runs_are_known(text: str) -> None:
    assert is_formula(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_other_cells_are_left_alone(text: str) -> None:
    assert not is_formula(text)


@pytest.mark.parametrize("keep", [False, True])
def test_formulas_are_neutralized_counted_and_kept_with_raw(classifier: Classifier, tmp_path: Path, keep: bool) -> None:
    texts = [*FORMULAS, "plain", "good = bad"]
    path = tmp_path / "in.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "id"], *([text, f"-x{i}"] for i, text in enumerate(texts))])
    data = DataConfig(header=True)
    lines, notices = predict(classifier, path, keep_columns=keep, data=data)
    column = lines[0].index("text")
    assert [line[column] for line in lines[1:]] == [f"'{text}" if text in FORMULAS else text for text in texts]
    assert [line[1 - column] for line in lines[1:]] == [f"-x{i}" for i in range(len(texts))]  # an id of one word is harmless
    assert notices[-1].startswith(f"{len(FORMULAS)} cells begin like a spreadsheet formula")
    assert notices[-1].endswith("; --raw writes such cells unchanged")
    lines, notices = predict(classifier, path, keep_columns=keep, raw=True, data=data)
    assert [line[column] for line in lines[1:]] == texts
    assert not any("formula" in notice for notice in notices)
    classifier.predict_file(path, tmp_path / "out", data, format=OutputFormat("jsonl", keep_columns=keep))
    assert [json.loads(line)["text"] for line in (tmp_path / "out").read_text().splitlines()] == texts


def test_column_names_and_ids_with_formulas_are_neutralized_too(classifier: Classifier, tmp_path: Path) -> None:
    lines, notices = predict(classifier, put(tmp_path / "in.csv", "id,text,=x", "=1+1,goal,a", "2,chip,@b"), keep_columns=True)
    assert lines[0][:3] == ["id", "text", "'=x"]
    assert [line[:3] for line in lines[1:]] == [["'=1+1", "goal", "a"], ["2", "chip", "'@b"]]
    assert notices[0].startswith("3 cells begin")


# --- what is said --------------------------------------------------------------------------------------------------


def test_rows_without_text_are_counted_with_their_numbers(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CHUNK", 2)
    rows: list[dict[str, Any]] = [{"text": text} for text in ("goal", "", "chip", "   ", "\u200b\t")]
    path = put(tmp_path / "in.jsonl", *map(json.dumps, [*rows, {"text": None}, {"other": 1}, {"text": "profit"}]))
    _, notices = predict(classifier, path)
    (blank,) = [notice for notice in notices if "without text," in notice]
    assert blank == "4 rows without text, classified as an empty text, whatever the confidence (rows 1, 3, 5, 6)"
    assert predict(classifier, put(tmp_path / "in.csv", "text,n", "goal,1", "chip,2"))[1] == []


def test_texts_that_cleaning_empties_are_counted(tmp_path: Path, topics_csv: Path, tiny: Path) -> None:
    settings = [f"model.base={tiny}", "train.max_steps=1", "data.clean=urls,html,whitespace"]
    classifier = Classifier.load(run_training(load_config(topics_csv, settings), folder=tmp_path).folder)
    path = put(tmp_path / "in.csv", "id,text", "a,goal", "b,https://example.org", "c,<br>", "d,")
    _, notices = predict(classifier, path)
    assert [notice.partition(",")[0] for notice in notices] == ["1 row without text", "2 rows without text after cleaning"]
    assert "(rows 1, 2)" in notices[1]
    assert [str(notice) for notice in classifier.text_notices(["goal", ""])] == [
        "1 row without text, classified as an empty text, whatever the confidence (row 1)"
    ]
    labelled = put(tmp_path / "labelled.csv", "text,label", "goal,Sports", ",World")
    assert any("without text" in str(notice) for notice in classifier.evaluate_file(labelled).notices)


def test_the_report_says_how_the_file_was_read(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes("id;text\n1;café\n2;größe\n".encode("cp1252"))
    report = classifier.predict_file(path, tmp_path / "out.csv")
    assert (report.rows, str(report.columns)) == (2, "text: text, id: id")
    assert report.facts["format"] == "csv"
    assert report.facts["delimiter"] == ";"
    assert any("cp1252" in str(notice) for notice in report.notices)
    assert [line[1] for line in table(tmp_path / "out.csv")[1:]] == ["café", "größe"]


def test_options_that_do_not_go_together_are_refused(classifier: Classifier, tmp_path: Path) -> None:
    path = put(tmp_path / "in.csv", "id,text", "1,goal")
    with pytest.raises(LoralabError, match="a submission has two columns"):
        predict(classifier, path, name="submission", keep_columns=True)
    with pytest.raises(LoralabError, match="apply to submissions, not to jsonl"):
        predict(classifier, path, name="jsonl", label_values="raw")
    with pytest.raises(LoralabError, match="apply to submissions, not to csv"):
        predict(classifier, path, template=path)


# --- reading -------------------------------------------------------------------------------------------------------


def streamed(path: Path, **data: Any) -> list[list[str]]:
    return [[*rows.texts] for rows in read_input(path, DataConfig(**data)).rows]


def test_streamed_texts_equal_read_texts(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.csv", "title,body,y", *(f"title {i},body {i},x" for i in range(20_000)))
    chunks = streamed(path)
    assert len(chunks) > 1
    assert [text for chunk in chunks for text in chunk] == [f"title {i} body {i}" for i in range(20_000)]
    assert [text for chunk in streamed(path, text=["body"]) for text in chunk][7] == "body 7"
    assert [rows.first for rows in read_input(path, DataConfig()).rows] == [sum(map(len, chunks[:i])) for i in range(len(chunks))]


@pytest.mark.slow
def test_streaming_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(rows: int) -> tuple[int, int]:
        path = tmp_path / f"{rows}.csv"
        with path.open("w", encoding="utf-8") as file:
            file.write("text,label\n")
            file.writelines(f"row {i} {'word ' * 30},x\n" for i in range(rows))
        tracemalloc.start()
        try:
            read = sum(len(rows.texts) for rows in read_input(path, DataConfig()).rows)
            return read, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    (few, small), (many, large) = peak(30_000), peak(300_000)
    assert (few, many) == (30_000, 300_000)
    assert large < 20e6  # the file is 50 MB
    assert large < 1.5 * small
