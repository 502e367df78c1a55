"""Exports of annotation tools: the texts and labels of each, rows without an answer, and annotators who disagree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from loralab.config import DataConfig
from loralab.data.labels import label_texts
from loralab.data.sources import RawExamples, load_source, read_raw
from loralab.errors import LoralabError


def read(path: Path, **settings: Any) -> RawExamples:
    return read_raw(path, DataConfig(**settings), need="required")


def labels(raw: RawExamples) -> list[str | None]:
    return label_texts(raw.labels, raw.where)


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    return path


def notices_of(raw: RawExamples) -> str:
    return " / ".join(map(str, raw.notices))


def refused(path: Path, **settings: Any) -> str:
    with pytest.raises(LoralabError) as error:
        labels(read(path, **settings))
    return str(error.value)


def studio(*choices: list[str], cancelled: bool = False, question: str = "class", **data: Any) -> dict[str, Any]:
    result = [[{"type": "choices", "from_name": question, "value": {"choices": own}}] for own in choices]
    annotations = [{"result": one, "was_cancelled": cancelled} for one in result]
    return {"id": 1, "data": data or {"review": "leaks"}, "annotations": annotations, "predictions": []}


def flat_studio(task: int, text: str, choice: Any, **more: Any) -> dict[str, Any]:
    times = {"created_at": "2024-05-01", "updated_at": "2024-05-01", "lead_time": 1.5 + task}
    return {"id": task, "text": text, "sentiment": choice, "annotator": 1, "annotation_id": task, **times, **more}


def argilla(*answers: tuple[str, str]) -> dict[str, Any]:
    return {"fields": {"text": "leaks"}, "responses": {"label": [{"value": value, "status": status} for value, status in answers]}}


EXPORTS: dict[str, tuple[str, list[Any], list[str | None]]] = {
    "spaCy pairs": (
        "spaCy",
        [["leaks", {"cats": {"POS": 0.0, "NEG": 1.0}}], ["lovely", {"cats": {"POS": 1.0, "NEG": 0.0}}]],
        ["NEG", "POS"],
    ),
    "spaCy shares": (
        "spaCy",
        [{"text": "a", "cats": {"P": 0.9, "N": 0.1}}, {"text": "b", "cats": {"P": 0.2, "N": 0.8}}],
        ["P", "N"],
    ),
    "spaCy truth values": (
        "spaCy",
        [["a", {"cats": {"P": True, "N": False}}], ["b", {"cats": {"P": False, "N": False}}]],
        ["P", None],
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
    "Prodigy numbers": (
        "Prodigy",
        [{"text": "a", "accept": [1], "answer": "accept"}, {"text": "b", "accept": [0], "answer": "accept"}],
        ["1", "0"],
    ),
    "Prodigy choice ignored": (
        "Prodigy",
        [{"text": "a", "accept": ["X"], "answer": "ignore"}, {"text": "b", "accept": ["Y"], "answer": "accept"}],
        [None, "Y"],
    ),
    "doccano annotations": (
        "doccano",
        [
            {"id": 1, "text": "a", "annotations": [{"label": 4, "user": 1}, {"label": 4, "user": 2}]},
            {"id": 2, "text": "b", "annotations": [{"label": 5, "user": 1}]},
            {"id": 3, "text": "c", "annotations": []},
        ],
        ["4", "5", None],
    ),
    "doccano": ("doccano", [{"id": 1, "data": "a", "label": ["X"]}, {"id": 2, "data": "b", "label": []}], ["X", None]),
    "doccano labels": ("doccano", [{"id": 1, "text": "a", "labels": ["X"]}, {"id": 2, "text": "b", "labels": ["Y"]}], ["X", "Y"]),
    "Label Studio": (
        "Label Studio",
        [studio(["X"]), studio(["Y"], ["Y"]), studio(["X"], cancelled=True), studio()],
        ["X", "Y", None, None],
    ),
    "Label Studio of older versions": (
        "Label Studio",
        [
            {"id": 1, "data": {"text": "a"}, "completions": [{"result": [{"from_name": "s", "value": {"choices": ["X"]}}]}]},
            {"id": 2, "data": {"text": "b"}, "completions": []},
        ],
        ["X", None],
    ),
    "Label Studio data with a label": ("Label Studio", [studio(["X"], question="label", text="a", label="old")], ["X"]),
    "Label Studio text of any name": (
        "Label Studio",
        [studio(["X"], question="kind", utterance="a", number=1), studio(["Y"], question="kind", utterance="b", number=2)],
        ["X", "Y"],
    ),
    "Label Studio JSON_MIN": ("Label Studio", [flat_studio(1, "a", "X"), flat_studio(2, "b", {"choices": ["Y"]})], ["X", "Y"]),
    "Label Studio JSON_MIN of two annotators": ("Label Studio", [flat_studio(1, "a", "X"), flat_studio(1, "a", "X")], ["X", "X"]),
    "Argilla of several annotators": ("Argilla", [argilla(("X", "submitted"), ("X", "submitted"))], ["X"]),
    "Argilla with suggestions": (
        "Argilla",
        [
            {
                "fields": {"review": "a"},
                "responses": {"kind": [{"value": "X", "user_id": "u"}]},
                "suggestions": {"kind": {"value": "Z"}},
            },
            {"fields": {"review": "b"}, "responses": {}, "suggestions": {"kind": {"value": "Z"}}},
        ],
        ["X", None],
    ),
    "Argilla feedback": (
        "Argilla",
        [
            {
                "fields": {"text": "a"},
                "responses": [{"values": {"label": {"value": "X"}}, "status": "submitted"}],
                "suggestions": [],
            },
            {"fields": {"text": "b"}, "responses": [{"values": None, "status": "discarded"}], "suggestions": []},
        ],
        ["X", None],
    ),
    "Argilla feedback of the hub": (
        "Argilla",
        [
            {"text": "a", "label": [{"user_id": "u", "value": "X", "status": "submitted"}], "label-suggestion": None},
            {"text": "b", "label": [{"user_id": "u", "value": "Y", "status": "draft"}], "label-suggestion": "Z"},
        ],
        ["X", None],
    ),
    "Argilla 1 discarded": (
        "Argilla",
        [
            {"text": "a", "annotation": "X", "prediction": None, "status": "Validated"},
            {"text": "b", "annotation": "X", "prediction": None, "status": "Discarded"},
        ],
        ["X", None],
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
    raw = read(lines(tmp_path / f"export{suffix}", rows))
    assert labels(raw) == expected
    assert len(raw.texts) == len(rows)
    assert all(raw.texts)
    assert f"read as an export of {tool}" in str(raw.notices[0])


def test_rejected_rows_are_left_out_of_training_and_counted(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": "XY"[i % 2], "answer": ("accept", "accept", "reject")[i % 3]} for i in range(30)]
    path = lines(tmp_path / "p.jsonl", rows)
    source = load_source(DataConfig(source=str(path)))
    assert source.train.rows.tolist() == [i for i in range(30) if i % 3 != 2]
    notices = " ".join(map(str, source.notices["train"]))
    assert "column 'answer': 10 of 30 rows are not accepted (rejected)" in notices
    assert "10 of 30 rows have no label and are left out" in notices
    with pytest.raises(LoralabError, match=r"data\.strict=true"):
        load_source(DataConfig(source=str(path), strict=True))


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (studio(["X"], ["Y"]), "['X', 'Y']"),
        (studio(["X", "Y"]), "['X', 'Y']"),
        (argilla(("X", "submitted"), ("Y", "submitted")), "['X', 'Y']"),
        ({"text": "a", "cats": {"X": 1, "Y": 1}}, "['X', 'Y']"),
        ({"text": "a", "accept": ["X", "Y"], "answer": "accept"}, "['X', 'Y']"),
        ({"data": "a", "label": ["X", "Y"]}, "['X', 'Y']"),
        ({"data": "a", "label": [[0, 1, "X"]]}, "[0, 1, 'X']"),
        (flat_studio(1, "a", {"choices": ["X", "Y"]}), "['X', 'Y']"),
    ],
)
def test_several_labels_are_refused_with_rows(tmp_path: Path, row: dict[str, Any], named: str) -> None:
    message = refused(lines(tmp_path / "a.json", [row, row]))
    assert "several labels in rows 0, 1, such as" in message
    assert named in message
    assert len(read_raw(tmp_path / "a.json", DataConfig()).texts) == 2  # they can be classified


def test_rows_of_one_task_are_compared(tmp_path: Path) -> None:
    rows = [flat_studio(1, "a", "X"), flat_studio(1, "a", "X"), flat_studio(2, "b", "X"), flat_studio(2, "b", "Y")]
    path = lines(tmp_path / "a.json", rows)
    assert "several labels in rows 2, 3" in refused(path)
    assert "2 rows are further annotations of a task: their texts are repeated (rows 1, 3)" in notices_of(read(path))


def test_of_several_questions_the_user_names_one(tmp_path: Path) -> None:
    rows = [studio(["X"], text="a"), studio(["Y"], text="b")]
    for row, level in zip(rows, ("high", "low"), strict=True):
        row["annotations"][0]["result"].append({"from_name": "urgency", "type": "choices", "value": {"choices": [level]}})
    path = lines(tmp_path / "a.json", rows)
    assert labels(read(path, label="urgency")) == ["high", "low"]
    assert "labels of 'class', 'urgency'; data.label=NAME reads another one" in notices_of(read(path))


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a", "label": "X", "answer": "yes"},
        {"text": "a", "answer": "accept", "stars": 3},
        {"text": "a", "label": "X", "data": "other"},
        {"text": "a", "label": ["X"]},
    ],
)
def test_other_tables_are_no_exports(tmp_path: Path, row: dict[str, Any]) -> None:
    assert "export" not in notices_of(read_raw(lines(tmp_path / "a.jsonl", [row, row]), DataConfig()))


def test_the_user_may_take_the_answers_for_labels(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "X", "answer": "accept"}, {"text": "b", "label": "X", "answer": "reject"}]
    assert labels(read(lines(tmp_path / "a.jsonl", rows), label="answer")) == ["accept", "reject"]


FRAME = pandas.DataFrame({"text": list("abcd"), "label": ["X", "Y", "X", "Y"], "answer": ["accept", "accept", "accept", "ignore"]})


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.csv", lambda path: FRAME.to_csv(path, index=False)),
        ("a.tsv", lambda path: FRAME.to_csv(path, index=False, sep="\t")),
        ("a.parquet", lambda path: FRAME.to_parquet(path)),
        ("a.xlsx", lambda path: FRAME.to_excel(path, index=False)),
        ("a.pkl", lambda path: FRAME.to_pickle(path)),
    ],
)
def test_exports_are_recognised_in_every_format(tmp_path: Path, name: str, write: Callable[[Path], Any]) -> None:
    write(tmp_path / name)
    raw = read(tmp_path / name)
    assert labels(raw) == ["X", "Y", "X", None]
    assert "1 of 4 rows are not accepted (ignored)" in notices_of(raw)


def test_nested_columns_of_parquet_are_read(tmp_path: Path) -> None:
    cats = [{"P": 1.0, "N": 0.0}, {"P": 0.0, "N": 1.0}]
    pandas.DataFrame({"text": ["a", "b"], "cats": cats}).to_parquet(tmp_path / "a.parquet")
    assert labels(read(tmp_path / "a.parquet")) == ["P", "N"]
    pandas.DataFrame({"text": ["a", "b"], "kind.responses": [["P"], None]}).to_parquet(tmp_path / "b.parquet")
    assert labels(read(tmp_path / "b.parquet")) == ["P", None]


def test_long_exports_are_counted_over_all_rows(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": "X", "answer": "accept" if i % 2 else "reject"} for i in range(10_000)]
    raw = read(lines(tmp_path / "a.jsonl", rows))
    assert labels(raw) == [("X" if i % 2 else None) for i in range(10_000)]
    assert "5,000 of 10,000 rows are not accepted" in notices_of(raw)


@pytest.mark.parametrize(
    ("rows", "reasons"),
    [
        ([studio(["X"]), studio(), studio(["X"], cancelled=True)], ["without an annotation", "skipped by an annotator"]),
        (
            [
                {"data": {"text": "a"}, "completions": [{"skipped": True, "result": []}]},
                {"data": {"text": "b"}, "completions": [{"result": [{"from_name": "s", "value": {"rating": 4}}]}]},
            ],
            ["skipped by an annotator"],
        ),
        ([flat_studio(1, "a", "X"), flat_studio(2, "b", None)], ["without an annotation"]),
        (
            [argilla(("X", "submitted")), argilla(("X", "discarded")), argilla(("X", "draft"))],
            ["discarded", "without a submitted response"],
        ),
        (
            [
                {"text": "a", "label.responses": ["X", "Y"], "label.responses.status": ["submitted", "draft"]},
                {"text": "b", "label.responses": ["Y"], "label.responses.status": ["draft"]},
            ],
            ["without a submitted response"],
        ),
        (
            [
                {"text": "a", "label": [{"value": "X", "status": None}], "label-suggestion": None},
                {"text": "b", "label": [{"value": "Y", "status": "draft"}], "label-suggestion": "Z"},
            ],
            ["without a submitted response"],
        ),
        (
            [
                {"inputs": {"text": "a"}, "annotation": "X", "prediction": None, "status": "Validated"},
                {"inputs": {"text": "b"}, "annotation": None, "prediction": None, "status": "Default"},
                {"inputs": {"text": "c"}, "annotation": "X", "prediction": None, "status": "Discarded"},
            ],
            ["without an annotation", "discarded"],
        ),
        ([{"text": "a", "cats": {"X": 0.5}}, {"text": "b", "cats": {"X": 0.4, "Y": None}}], ["of no category"]),
        ([{"data": "a", "label": ["X"]}, {"data": "b", "label": []}], ["without an annotation"]),
    ],
)
def test_rows_without_a_label_say_why(tmp_path: Path, rows: list[dict[str, Any]], reasons: list[str]) -> None:
    raw = read(lines(tmp_path / "a.json", rows))
    assert [label is None for label in labels(raw)].count(True) == len(reasons)
    unlabelled = [str(notice) for notice in raw.notices if "they have no label" in str(notice)]
    assert [text.partition(" (row")[0] for text in unlabelled] == [
        f"1 of {len(rows)} rows are {reason}: they have no label" for reason in reasons
    ]


def test_records_of_argilla_1_have_their_text_beside_or_below_inputs(tmp_path: Path) -> None:
    rows = [{"text": text, "inputs": {"text": "own"}, "annotation": "X", "prediction": None} for text in (None, "beside")]
    assert [*read(lines(tmp_path / "a.json", rows[:1])).texts] == ["own"]
    assert [*read(lines(tmp_path / "b.json", rows[1:])).texts] == ["beside"]


def test_rows_without_a_label_are_noted_by_their_reason(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": "X", "answer": "accept"},
        {"text": "b", "label": "X", "answer": "reject"},
        {"text": "c", "label": None, "answer": "accept"},
        {"text": "d", "label": "Y", "answer": "ignore"},
        {"text": "e", "accept": ["Y", "Y"], "answer": "accept"},
        {"text": "f", "label": "Y", "answer": None},
    ]
    raw = read(lines(tmp_path / "rows.jsonl", rows))
    assert labels(raw) == ["X", None, None, None, "Y", None]
    noted = [notice for notice in raw.notices if notice.rows]
    assert sorted((notice.rows, notice.severity) for notice in noted) == [((row,), "warning") for row in (1, 2, 3, 5)]
    by_row = {notice.rows[0]: notice.message for notice in noted}
    assert by_row[1].startswith("column 'answer': 1 of 6 rows are not accepted (rejected)")
    assert by_row[2].startswith("1 of 6 rows are without an annotation")
    assert by_row[3].startswith("column 'answer': 1 of 6 rows are not accepted (ignored)")
    assert by_row[5].startswith("1 of 6 rows are not answered")


def test_answers_of_argilla_count_if_they_were_submitted(tmp_path: Path) -> None:
    answer = {"values": {"label": {"value": "X"}}}
    rows = [
        {"fields": {"text": "a"}, "responses": [answer]},
        {"fields": {"text": "b"}, "responses": [{**answer, "status": "draft"}]},
        {"fields": {"text": "c"}, "responses": [{**answer, "status": "submitted"}, {**answer, "status": "discarded"}]},
        {"fields": {"text": "d"}, "responses": [{**answer, "status": "discarded"}]},
        {"fields": {"text": "e"}, "responses": {"label": [{"value": "Y"}]}},
        {"fields": {"text": "f"}, "responses": {"label": [{"value": "Y", "status": "pending"}]}, "status": "discarded"},
        {"fields": {"text": "g"}, "responses": None},
    ]
    raw = read(lines(tmp_path / "rows.jsonl", rows))
    assert labels(raw) == ["X", None, "X", None, "Y", None, None]
    reasons = {notice.message.partition(" rows are ")[2].partition(":")[0]: notice.rows for notice in raw.notices if notice.rows}
    assert reasons == {"without a submitted response": (1, 6), "discarded": (3, 5)}
    flat = [
        {"text": "a", "kind.responses": ["X", "Y"], "kind.responses.status": ["draft", "submitted"]},
        {"text": "b", "kind.responses": ["X", "Y"], "kind.responses.status": ["submitted"]},
        {"text": "c", "kind.responses": None, "kind.responses.status": None},
        {"text": "d", "kind.responses": ["X"], "kind.responses.status": ["discarded"]},
    ]
    raw = read(lines(tmp_path / "flat.jsonl", flat[:1] + flat[2:]))
    assert labels(raw) == ["Y", None, None]
    with pytest.raises(LoralabError, match="several labels in row 1"):
        labels(read(lines(tmp_path / "both.jsonl", flat)))


def test_rows_of_a_task_have_the_labels_of_all_annotators(tmp_path: Path) -> None:
    rows = [
        flat_studio(1, "a", "X"),
        flat_studio(2, "b", "Y"),
        flat_studio(1, "a", "X"),
        flat_studio(3, "c", ""),
        flat_studio(2, "b", ""),
    ]
    raw = read(lines(tmp_path / "rows.jsonl", rows))
    assert labels(raw) == ["X", "Y", "X", None, "Y"]
    (repeated,) = [notice for notice in raw.notices if "further annotations" in notice.message]
    assert (repeated.rows, repeated.severity, repeated.fix) == ((2, 4), "warning", "keep one row per task")
    assert repeated.message.startswith("2 rows are further")


def test_rows_without_labels_still_have_a_label_column(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "X", "answer": "ignore"}, {"text": "b", "label": None, "answer": "accept"}]
    raw = read_raw(lines(tmp_path / "prodigy.jsonl", rows), DataConfig(), need="wanted")
    assert (raw.columns.label, raw.labels) == ("label", [None, None])
    old = [{"text": "a", "inputs": None, "prediction": None, "annotation": "X", "status": "Discarded"}] * 2
    raw = read_raw(lines(tmp_path / "argilla.jsonl", old), DataConfig(), need="wanted")
    assert (raw.columns.label, raw.labels) == ("label", [None, None])
