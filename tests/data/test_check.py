"""`loralab check` reports what training decides or refuses, with rows, lines and fixes, and nothing for valid data."""

from __future__ import annotations

import csv
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from tiny import make_checkpoint

from loralab.config import DataConfig, ModelConfig
from loralab.data import readers, sources
from loralab.data.check import check_source
from loralab.data.columns import Columns
from loralab.data.data_report import DataReport
from loralab.data.splits import load_splits
from loralab.data.types import Notice
from loralab.errors import LoralabError

Row = tuple[str, ...]


def good(each: int = 15, classes: Sequence[str] = ("World", "Sports")) -> list[Row]:
    return [(f"a {word} text of {name} number {i}", name) for i, word in enumerate(WORDS[:each]) for name in classes]


LETTERS = "aeiou"
WORDS = tuple(f"{first}{vowel}{last}" for first in "bdfg" for vowel, last in zip(LETTERS, "lmnrt", strict=True))


def put(path: Path, rows: Sequence[Row], header: Row = ("text", "label")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)
    return path


def check(tmp_path: Path, rows: Sequence[Row], test: Sequence[Row] | None = None, **settings: Any) -> list[DataReport]:
    path = put(tmp_path / "rows.csv", rows)
    if test is not None:
        settings["test"] = str(put(tmp_path / "other.csv", test))
    return check_source(DataConfig(**{"source": str(path), "clean": (), **settings}))


def own(report: DataReport) -> list[Notice]:
    """Return the findings that are not about the small number of rows."""
    return [finding for finding in report.findings if not finding.message.startswith(("classes with", "no validation row"))]


def only(report: DataReport) -> Notice:
    (finding,) = own(report)
    assert finding.fix
    return finding


def test_sample_has_no_problems() -> None:
    reports = check_source(DataConfig(source="sample", clean=()))
    assert [(report.part, report.rows) for report in reports] == [("train", 800), ("test", 400)]
    for report, each in zip(reports, (200, 100), strict=True):
        assert (report.findings, report.refused) == ((), False)
        assert report.classes == dict.fromkeys(("Business", "Sci/Tech", "Sports", "World"), each)
        assert report.columns == Columns(("title", "description"), "label")
        assert report.detected == {"text": "by name", "label": "by name"}
        facts = report.lengths.summary()
        assert (facts["unit"], facts["base"], facts["limit"]) == ("tokens", "minilm", 128)
        assert 30 < facts["median"] < facts["p95"] < facts["max"] <= 128
    assert {part: sum(rows.values()) for part, rows in reports[0].splits.items()} == {"train": 720, "validation": 80, "test": 400}


def test_contents_are_counted(tmp_path: Path) -> None:
    (report,) = check(tmp_path, [*good(10), ("one", "Sports")])
    assert (report.path, report.rows, report.part) == (tmp_path / "rows.csv", 21, "train")
    assert report.classes == {"Sports": 11, "World": 10}
    assert report.lengths.counts[-1] == 3  # [CLS] one [SEP]
    assert report.examples["World"] == [
        "a bal text of World number 0",
        "a bem text of World number 1",
        "a bin text of World number 2",
    ]


def test_missing_texts_and_labels_have_rows_and_lines(tmp_path: Path) -> None:
    rows = good()
    rows[3], rows[20], rows[21] = ("", "World"), ("  \n ", "Sports"), ("a text", " ")
    (report,) = check(tmp_path, rows)
    texts, labels = own(report)
    assert (texts.message, texts.rows) == ("2 texts are empty", (3, 20))
    assert (labels.message, labels.rows) == ("1 of 30 rows has no label and is left out", (21,))
    assert (report.lines_of(texts.rows), report.lines_of(labels.rows)) == ([5, 22], [24])  # row 20 has two lines
    assert (report.classes, report.refused) == ({"Sports": 14, "World": 15}, False)
    assert check(tmp_path, rows, strict=True)[0].refused


@pytest.mark.parametrize(
    ("name", "write", "line"),
    [
        ("rows.jsonl", lambda rows: "\n" + "".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in rows), 5),
        ("rows.tsv", lambda rows: "text\tlabel\n\n" + "".join(f"{t}\t{n}\n" for t, n in rows), 6),
        ("rows.csv", lambda rows: "sep=;\ntext;label\n" + "".join(f"{t};{n}\n" for t, n in rows), 6),
    ],
)
def test_lines_are_those_of_the_file(tmp_path: Path, name: str, write: Any, line: int) -> None:
    rows = good()
    rows[3] = ("", "World")
    (tmp_path / name).write_text(write(rows), encoding="utf-8")
    (report,) = check_source(DataConfig(source=str(tmp_path / name), clean=()))
    (finding,) = [finding for finding in report.findings if finding.rows]
    assert report.lines_of(finding.rows) == [line]
    assert [found["lines"] for found in report.as_dict()["findings"] if found["rows"]] == [[line]]


@pytest.mark.parametrize(
    "text", ['{"text": ["a", "", "c", "d"],\n "label":\n ["x", "y", "x", "y"]\n}', '[\n{"text": ""}, {"text": "b"}\n]']
)
def test_lines_of_a_json_document_are_not_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_text(text, encoding="utf-8")
    (report,) = check_source(DataConfig(source=str(tmp_path / "rows.json"), clean=()))
    assert report.lines is None
    assert any("empty" in finding.message for finding in report.findings)


def test_lines_of_a_workbook_and_of_parquet(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    rows = good()
    rows[3] = ("", "World")
    book = openpyxl.Workbook()
    for row in [("text", "label"), *rows]:
        book.active.append(row)
    book.save(tmp_path / "rows.xlsx")
    texts, labels = zip(*rows, strict=True)
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": labels}), tmp_path / "rows.parquet")
    for name, lines in (("rows.xlsx", [5]), ("rows.parquet", [])):
        (report,) = check_source(DataConfig(source=str(tmp_path / name), clean=()))
        (finding,) = own(report)
        assert (finding.rows, report.lines_of(finding.rows)) == ((3,), lines)


@pytest.mark.parametrize("word", ["nan", "N/A", "NULL", "-", "None"])
def test_words_for_missing_values(tmp_path: Path, word: str) -> None:
    rows = good()
    rows[4], rows[9] = (word, "World"), ("a text", word)
    whats = {finding.message: finding.rows for finding in own(check(tmp_path, rows)[0])}
    assert whats[f"texts that read like missing values: 1 {word!r}"] == (4,)
    assert whats[f"labels that read like missing values are classes: 1 {word!r}"] == (9,)


def test_repeats_name_the_later_rows(tmp_path: Path) -> None:
    rows = [*good(), ("Oil  UP again", "World"), ("oil up\nagain", "World"), ("OIL UP AGAIN", "World")]
    (report,) = check(tmp_path, rows, split_seed=1)
    finding = next(finding for finding in own(report) if finding.rows)
    assert (finding.message, finding.rows) == ("2 rows repeat the text of an earlier row", (31, 32))
    (repeated,) = report.duplicates
    assert (repeated.rows, repeated.labels) == ((30, 31, 32), ("World",))


def test_conflicting_labels_name_every_row(tmp_path: Path) -> None:
    rows = [("oil up", "Sports"), *good(), ("Oil up", "World")]
    (report,) = check(tmp_path, rows)
    finding = next(finding for finding in own(report) if finding.rows)
    assert (finding.message, finding.rows) == ("1 text occurs with different labels", (0, 31))
    assert [(label.row, label.label) for label in report.suspicious] == [(0, "Sports"), (31, "World")]


def test_long_texts_are_measured_in_tokens(tmp_path: Path) -> None:
    rows = [*good(), ("word " * 126, "World"), ("wort " * 60, "World"), ("antidisestablishmentarianism " * 40, "World")]
    (report,) = check(tmp_path, rows)
    finding = only(report)
    assert (finding.rows, finding.message[:25]) == ((32,), "1 of 33 texts are longer ")
    (report,) = check(tmp_path, rows, max_length=16)
    assert only(report).rows == (30, 31, 32)
    needed = int(only(report).fix.partition("=")[2].split()[0])
    assert own(check(tmp_path, rows, max_length=needed)[0]) == []


def test_a_limit_beyond_the_encoder_is_said(tmp_path: Path) -> None:
    (report,) = check(tmp_path, [*good(), ("word " * 600, "World")], max_length=1024)
    assert any("minilm reads 512 tokens" in notice.message for notice in report.notices)
    assert "reads no more than 512 tokens" in only(report).fix


def test_words_are_counted_without_an_encoder(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.csv", good())
    (report,) = check_source(DataConfig(source=str(path)), ModelConfig(base=str(tmp_path)))
    assert (report.lengths.summary()["unit"], report.lengths.summary()["median"]) == ("words", 7)
    assert report.refused


def test_unknown_tokens_and_emptied_texts(tmp_path: Path) -> None:
    rows = [
        (f"ዛሬ ይህ እቃ {text}" * 3, label) for text, label in zip("ሀለሐመሠረሰሸቀበተቸኀነኘአከኸወዐዘዠየደጀገጠጨጰጸ", ("bad", "good") * 15, strict=True)
    ]
    rows[7] = ("https://a.b/7", "good")
    (report,) = check(tmp_path, rows, clean=("urls",))
    found = {finding.message: finding for finding in own(report) if "repeat" not in finding.message}
    unknown = next(finding for what, finding in found.items() if "tokens are unknown to minilm" in what)
    assert unknown.rows == tuple(row for row in range(30) if row != 7)
    assert "xlm-roberta-base" in unknown.fix
    assert found["1 text is empty after cleaning"].rows == (7,)


@pytest.mark.parametrize(
    ("text", "what", "step"),
    [
        ("Oil #39;s high", "escaped characters", "escapes"),
        ("a quot;word quot;", "escaped characters", "escapes"),
        ("lt;b gt; bold", "escaped characters", "escapes"),
        ("fish &amp; chips", "escaped characters", "escapes"),
        (r"caf\u00e9 au lait", "escaped characters", "escapes"),
        ("a <b>bold</b> move", "HTML tags", "html"),
        ("itâ€™s late", "UTF-8 read in another encoding", ""),
        ("cafÃ© au lait", "UTF-8 read in another encoding", ""),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "UTF-8 read in another encoding", ""),
        ("so good ðŸ˜€", "UTF-8 read in another encoding", ""),
    ],
)
def test_damaged_texts_are_found_and_the_fix_works(tmp_path: Path, text: str, what: str, step: str) -> None:
    rows = good()
    rows[5] = (text, "Sports")
    finding = next(finding for finding in own(check(tmp_path, rows)[0]) if what in finding.message)
    assert (finding.rows, finding.message[:11]) == ((5,), "1 text has ")
    assert text[:4] in finding.message
    if step:
        steps = finding.fix.removeprefix("data.clean=").split()[0]
        assert steps == step
        assert not any(what in found.message for found in check(tmp_path, rows, clean=(steps,))[0].findings)


@pytest.mark.parametrize(
    "text", ["MENÜ–Karte", "un “café”—noir", "a; b; c", "I <3 this", "C:\\new\\temp", "Ça va? Très bien", "naïve É…", "5 < 6 > 4"]
)
def test_sound_texts_are_not_damaged(tmp_path: Path, text: str) -> None:
    rows = good()
    rows[5] = (text, "Sports")
    assert own(check(tmp_path, rows)[0]) == []


@pytest.mark.parametrize("make", [str, "a{}".format, "0f3c-{}".format, "https://x.y/{}".format])
def test_ids_are_not_texts(tmp_path: Path, make: Any) -> None:
    rows = [(make(i), text, label) for i, (text, label) in enumerate(good())]
    path = put(tmp_path / "rows.csv", rows, ("id", "comment", "label"))
    (report,) = check_source(DataConfig(source=str(path), text=["id"], clean=()))
    finding = only(report)
    assert "look like ids" in finding.message
    assert finding.fix == "data.text=comment"


def test_several_columns_of_zero_and_one(tmp_path: Path) -> None:
    rows = [(text, str(i % 2), str(i % 3 % 2), "0" if i % 5 else "1") for i, (text, _) in enumerate(good())]
    path = put(tmp_path / "rows.csv", rows, ("text", "toxic", "insult", "bad words"))
    (report,) = check_source(DataConfig(source=str(path), label="toxic", clean=()))
    finding = only(report)
    assert "insult, 'bad words' are 0 or 1 as well" in finding.message
    assert "data.label=insult" in finding.fix


def test_shared_texts_name_exact_and_near_ones(tmp_path: Path) -> None:
    words = "the cup final went to extra time and was decided by a penalty in the last minute of a long night"
    test = [(f"test {word} row {name}", name) for word in WORDS for name in ("World", "Sports")]
    test[4] = ("A  Bin text of world number 2", "Sports")
    test[6] = (words + " indeed", "World")
    train, other = check(tmp_path, [*good(), (words, "World")], test)
    exact, near = own(other)
    assert (exact.message, exact.rows) == ("1 of the file's 40 texts is also among the training texts, 1 with another label", (4,))
    assert (near.message, near.rows) == (
        "1 of the file's 40 texts nearly equals training texts, such as row 6 and training row 30",
        (6,),
    )
    assert "test texts are also training texts" in str(train.findings)


def test_unknown_labels_of_a_test_file_are_errors_with_rows(tmp_path: Path) -> None:
    test = [(f"test {word} row {name}", name) for word in WORDS for name in ("World", "Sport")]
    train, other = check(tmp_path, good(), test)
    finding = next(finding for finding in other.findings if finding.severity == "error")
    assert finding.message == "label 'Sport' is not in the training rows; did you mean 'Sports'?"
    assert finding.rows == tuple(range(1, 40, 2))
    assert (other.refused, train.refused) == (True, False)  # once, where the label is
    test = [(f"test {word} row", f"class {word}") for word in WORDS]
    other = check(tmp_path, good(), test)[1]
    errors = [finding for finding in other.findings if finding.severity == "error"]
    assert len(errors) == 9
    assert errors[-1].message == "12 more labels are not in the training rows"


def test_every_part_of_a_folder_is_checked(tmp_path: Path) -> None:
    for part in ("train", "validation", "test"):
        put(tmp_path / f"{part}.csv", [(f"{part} {text}", label) for text, label in good()])
    put(tmp_path / "extra.csv", good())
    reports = check_source(DataConfig(source=str(tmp_path)))
    assert [(report.part, report.path.stem) for report in reports] == [("train",) * 2, ("validation",) * 2, ("test",) * 2]
    assert "not used: extra.csv" in " ".join(map(str, reports[0].notices))
    reports = check_source(DataConfig(source=str(tmp_path), test=0.2))
    assert [report.part for report in reports] == ["train", "validation"]


def test_a_test_file_without_labels_is_no_error(tmp_path: Path) -> None:
    put(tmp_path / "train.csv", good())
    put(tmp_path / "test.csv", [(text,) for text, _ in good()], ("text",))
    reports = check_source(DataConfig(source=str(tmp_path), clean=()))
    assert not any(report.refused for report in reports)
    assert any("no labels" in finding.message for finding in reports[1].findings)
    assert reports[1].classes == {}


def test_how_a_file_is_read_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "text;label\n" + "".join(f"it’s {WORDS[i % 20]} {i};{('no', 'No', 'yes')[i % 3]}\n" for i in range(60)), encoding="cp1252"
    )
    (report,) = check_source(DataConfig(source=str(path)))
    assert report.reading == {"format": "csv", "delimiter": ";", "header": True, "encoding": "cp1252"}
    assert "divided by semicolons" in str(report.notices)
    assert "read as cp1252" in str(report.findings)
    assert "spellings of one class: 'No' (20), 'no' (20)" in str(report.findings)
    assert report.classes == {"No": 40, "yes": 20}
    assert [*report.values["No"]] == ["No", "no"]
    assert report.reading_settings() == {"delimiter": ";", "encoding": "cp1252"}


def test_a_source_without_test_rows_is_noted_and_not_a_problem(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.csv", good())
    (report,) = check_source(DataConfig(source=str(path), clean=(), test=0.0))
    assert not report.refused
    assert "no test rows (data.test=0): the run has no test scores" in [str(notice) for notice in report.notices]
    assert not any("no test rows" in str(finding) for finding in report.findings)
    assert "test" not in report.splits


@pytest.mark.parametrize(
    "settings",
    [
        {"validation": 0.001},
        {"test": 29.0},
        {"weight": "label"},
        {"shots_per_class": 50},
        {"max_train_samples": 1},
        {"classes": ("World", "Sport")},
        {"clean": ("htlm",)},
        {"augment": ("swop",)},
        {"train_indices": "missing.txt"},
        {"group": "label"},
    ],
)
def test_what_training_refuses_is_an_error_here(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = put(tmp_path / "rows.csv", good())
    (report,) = check_source(DataConfig(**{"source": str(path), "clean": (), **settings}))
    assert report.refused
    assert report.findings[0].severity == "error"
    assert report.findings[0].fix


@pytest.mark.parametrize(
    ("rows", "header"),
    [
        (good(classes=("World",)), ("text", "label")),
        ([(text, text) for text, _ in good()], ("text", "label")),
        ([(text,) for text, _ in good()], ("text",)),
        ([("a", "World"), ("b", "Sports")], ("text", "label")),
        ([(text, "") for text, _ in good()], ("text", "label")),
    ],
)
def test_what_load_splits_refuses_is_never_without_problems(tmp_path: Path, rows: Sequence[Row], header: Row) -> None:
    data = DataConfig(source=str(put(tmp_path / "rows.csv", rows, header)))
    with pytest.raises(LoralabError):
        load_splits(data)
    assert check_source(data)[0].refused


def test_several_labels_in_one_cell(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    records = [{"text": text, "label": [label, "more"] if i == 7 else [label]} for i, (text, label) in enumerate(good())]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    (report,) = check_source(DataConfig(source=str(path)))
    assert report.refused
    assert "several labels in row 7" in report.findings[0].message


def test_what_names_classes_is_verified(tmp_path: Path) -> None:
    def verify(splits: object, table: object) -> None:
        raise LoralabError("train.class_weights: 'x' is not a class")

    path = put(tmp_path / "rows.csv", good())
    assert check_source(DataConfig(source=str(path)), verify=verify)[0].refused


def test_class_names_stored_in_the_file_are_used(tmp_path: Path) -> None:
    features = {"label": {"names": ["World", "Sports", "Weather"], "_type": "ClassLabel"}}
    texts = [text for text, _ in good()]
    table = pyarrow.table({"text": texts, "label": [0, 1] * 15})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    (report,) = check_source(DataConfig(source=str(tmp_path / "rows.parquet")))
    assert report.classes == {"World": 15, "Sports": 15}
    assert report.values == {"World": ["0", "World"], "Sports": ["1", "Sports"]}
    assert "class Weather has no row" in str(report.findings)


def test_unreadable_files_are_errors(tmp_path: Path) -> None:
    path = str(put(tmp_path / "rows.csv", good()))
    with pytest.raises(LoralabError, match="no file or folder"):
        check_source(DataConfig(source=str(tmp_path / "gone.csv")))
    with pytest.raises(LoralabError, match="there is no file"):
        check_source(DataConfig(source=path, test=str(tmp_path / "gone.csv")))
    with pytest.raises(LoralabError, match="has no column 'body'"):
        check_source(DataConfig(source=path, text=["body"]))
    with pytest.raises(LoralabError, match="did you mean 'label'"):
        check_source(DataConfig(source=path, label="lable"))


@pytest.mark.timed
@pytest.mark.timeout(20)
def test_a_number_column_as_labels_is_checked_fast(tmp_path: Path) -> None:
    rows = [(f"text {i}", f"{i * 0.37:.4f}") for i in range(6_000)]
    began = time.perf_counter()
    (report,) = check(tmp_path, rows)
    assert time.perf_counter() - began < 10
    assert "6,000 different labels in 6,000 rows" in str(report.findings)


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counted(path: Path, *arguments: Any) -> readers.Table:
        opened.append(path.name)
        return readers.open_table(path, *arguments)

    monkeypatch.setattr(sources, "open_table", counted)
    reports = check(tmp_path, good(), [("an unknown text", "World"), ("another one", "Sports")])
    assert [report.rows for report in reports] == [30, 2]
    assert opened == ["rows.csv", "other.csv"]


def test_suspicious_labels_have_their_text_and_reason(tmp_path: Path) -> None:
    rows = [*good(), ("a text with the label n/a", "N/A"), ("a text of sport", "Sprots"), ("twice", "World"), ("twice", "Sports")]
    report = check(tmp_path, rows)[0]
    suspicious = {own.row: (own.label, own.text, own.reason) for own in report.suspicious}
    assert suspicious[30] == ("N/A", "a text with the label n/a", "reads like a missing value")
    assert suspicious[31][:2] == ("Sprots", "a text of sport")
    assert "'Sprots' (1 row) looks like 'Sports'" in suspicious[31][2]
    assert suspicious[32] == ("World", "twice", "this text also occurs with another label")
    assert suspicious[33] == ("Sports", "twice", "this text also occurs with another label")
    assert [*suspicious] == [30, 31, 32, 33]
    assert report.examples["World"] == [row[0] for row in good() if row[1] == "World"][:3]
    assert report.duplicates[0].rows == (32, 33)
    assert report.values["Sprots"] == ["Sprots"]
    assert report.detected == {"text": "by name", "label": "by name"}


def test_pipes_are_named_and_not_their_copies(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    content = "text;label\n" + "".join(f"{text};{label}\n" for text, label in [*good(), ("", "World")])
    writer = threading.Thread(target=pipe.write_text, args=(content,))
    writer.start()
    (report,) = check_source(DataConfig(source=str(pipe), clean=()))
    writer.join()
    assert (report.path, report.rows, report.reading["delimiter"]) == (pipe, 31, ";")
    assert any("semicolons" in notice.message for notice in report.notices)
    assert report.lines is not None
    assert report.lines[-1] == 32
    error = "text,other\n" + "a,b\n" * 3
    writer = threading.Thread(target=pipe.write_text, args=(error,))
    writer.start()
    (report,) = check_source(DataConfig(source=str(pipe), clean=()))
    writer.join()
    (refusal,) = [finding for finding in report.findings if finding.severity == "error"]
    assert str(pipe) in refusal.message
    assert "loralab-" not in refusal.message.replace(str(pipe), "")


def test_how_columns_are_detected(tmp_path: Path) -> None:
    rows = [(f"{i}", f"a long text of row {i}", "xy"[i % 2]) for i in range(30)]
    path = put(tmp_path / "rows.csv", rows, ("id", "words", "kind"))
    (report,) = check_source(DataConfig(source=str(path), clean=()))
    assert report.detected == {"text": "by content", "label": "by content", "id": "by name"}
    (report,) = check_source(DataConfig(source=str(path), clean=(), text="words", label="kind", id="id"))
    assert report.detected == {"text": "as data.text says", "label": "as data.label says", "id": "as data.id says"}


def test_a_cased_vocabulary_without_settings_is_remarked_on(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    make_checkpoint(folder)
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join([*words, "Apple"]) + "\n", encoding="utf-8")
    path = put(tmp_path / "rows.csv", good())
    (report,) = check_source(DataConfig(source=str(path), clean=()), ModelConfig(base=str(folder)))
    (remark,) = [finding for finding in report.findings if "capitals" in finding.message]
    assert remark.severity == "warning"
    assert str(folder / "tokenizer_config.json") in remark.message
    assert report.lengths.unit == "tokens"
