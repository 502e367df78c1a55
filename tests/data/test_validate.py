"""`loralab check` reports every problem with its rows and a fix, and nothing for valid data."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from loralab.cli.main import app
from loralab.config import DataConfig
from loralab.data.sources import Columns
from loralab.data.validate import MAX_WORDS, MIN_CLASS_ROWS, DataReport, Finding, check_source
from loralab.errors import LoralabError

Row = tuple[str, str]


def good(each: int = 12, classes: Sequence[str] = ("World", "Sports")) -> list[Row]:
    return [(f"text {i} of {name}", name) for i in range(each) for name in classes]


def put(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("text", "label"))
        table.writerows(rows)
    return path


def check(tmp_path: Path, rows: Sequence[Row], test: Sequence[Row] | None = None) -> list[DataReport]:
    path = put(tmp_path / "rows.csv", rows)
    return check_source(str(path), test=str(put(tmp_path / "other.csv", test)) if test is not None else None)


def only(report: DataReport) -> Finding:
    (finding,) = report.findings
    assert finding.fix
    return finding


def test_sample_has_no_problems() -> None:
    reports = check_source("sample")
    assert [report.rows for report in reports] == [800, 400]
    for report, each in zip(reports, (200, 100), strict=True):
        assert report.findings == ()
        assert report.classes == dict.fromkeys(("Business", "Sci/Tech", "Sports", "World"), each)
        assert report.columns == Columns(("title", "description"), "label")
        assert report.words[2] <= 60


def test_contents_are_counted(tmp_path: Path) -> None:
    rows = [*good(10), *((f"{'word ' * 19}{i}", "World") for i in range(2)), ("one", "Sports")]
    (report,) = check(tmp_path, rows)
    assert report.path == tmp_path / "rows.csv"
    assert report.rows == 23
    assert report.classes == {"Sports": 11, "World": 12}
    assert report.words == (4, 18, 20)  # 20 texts of 4 words, 2 of 20, 1 of 1; the 95th percentile is at position 20.9 of 0-22
    assert report.findings == ()


def test_missing_texts(tmp_path: Path) -> None:
    rows = good()
    rows[3], rows[20] = ("", "World"), ("  \n ", "Sports")
    finding = only(check(tmp_path, rows)[0])
    assert (finding.what, finding.rows) == ("no text", (3, 20))
    assert "empty texts" in finding.fix


def test_missing_labels(tmp_path: Path) -> None:
    rows = good()
    rows[0], rows[23] = ("a text", ""), ("b text", "  ")
    report = check(tmp_path, rows)[0]
    finding = only(report)
    assert (finding.what, finding.rows) == ("no label", (0, 23))
    assert "refuses" in finding.fix
    assert report.classes == {"Sports": 11, "World": 11}


def test_one_class_only(tmp_path: Path) -> None:
    finding = only(check(tmp_path, good(classes=("World",)))[0])
    assert finding.what == "only one class (World)"
    assert "at least two" in finding.fix


@pytest.mark.parametrize(("typed", "meant"), [("Sport", "Sports"), ("sports", "Sports"), ("SPORTS", "Sports"), ("Worlds", "World")])
def test_labels_that_look_like_another(tmp_path: Path, typed: str, meant: str) -> None:
    rows = good(15)
    rows[5], rows[8] = ("x", typed), ("y", typed)
    finding = only(check(tmp_path, rows)[0])
    assert (finding.what, finding.rows) == (f"label {typed!r} looks like {meant!r}", (5, 8))
    assert repr(meant) in finding.fix


def test_numbers_are_not_misspelt_numbers(tmp_path: Path) -> None:
    rows = [(f"text {i}", str(1000000 + i % 2)) for i in range(24)] + [(f"more {i}", "1000000") for i in range(5)]
    assert check(tmp_path, rows)[0].findings == ()


def test_classes_with_too_few_rows(tmp_path: Path) -> None:
    rows = [
        *good(),
        *((f"rare {i}", "Weather") for i in range(MIN_CLASS_ROWS - 1)),
        *((f"enough {i}", "Business") for i in range(MIN_CLASS_ROWS)),
    ]
    finding = only(check(tmp_path, rows)[0])
    assert (finding.what, finding.rows) == (
        f"class 'Weather' has {MIN_CLASS_ROWS - 1} rows",
        tuple(range(24, 24 + MIN_CLASS_ROWS - 1)),
    )
    assert f"at least {MIN_CLASS_ROWS}" in finding.fix


def test_repeats_name_the_later_rows(tmp_path: Path) -> None:
    rows = [*good(), ("Oil  UP again", "World"), ("oil up\nagain", "World"), ("OIL UP AGAIN", "World")]
    finding = only(check(tmp_path, rows)[0])
    assert (finding.what, finding.rows) == ("repeats an earlier row", (25, 26))
    assert "remove" in finding.fix


def test_conflicting_labels_name_every_row(tmp_path: Path) -> None:
    rows = [("oil up", "Sports"), *good(), ("Oil up", "World")]
    finding = only(check(tmp_path, rows)[0])
    assert (finding.what, finding.rows) == ("same text with different labels", (0, 25))
    assert "decide" in finding.fix


def test_empty_texts_are_not_duplicates(tmp_path: Path) -> None:
    rows = [*good(), ("", "World"), ("", "Sports"), (" ", "World")]
    assert only(check(tmp_path, rows)[0]).what == "no text"


def test_long_texts(tmp_path: Path) -> None:
    rows = [*good(), ("word " * MAX_WORDS, "World"), ("wort " * (MAX_WORDS + 1), "World")]
    finding = only(check(tmp_path, rows)[0])
    assert finding.what.startswith(f"over {MAX_WORDS} words")
    assert finding.rows == (25,)
    assert "data.max_length=256" in finding.fix


def test_texts_shared_with_the_test_rows(tmp_path: Path) -> None:
    test = [(f"test {i} {name}", name) for i in range(12) for name in ("World", "Sports")]
    test[4] = ("TEXT 3  of World", "World")
    train, other = check(tmp_path, good(), test)
    assert train.findings == ()
    finding = only(other)
    assert (finding.what, finding.rows) == ("text is also in the training rows", (4,))
    assert "remove" in finding.fix


def test_labels_that_only_the_test_rows_have(tmp_path: Path) -> None:
    test = [(f"test {i} {name}", name) for i in range(12) for name in ("World", "Weather")]
    finding = only(check(tmp_path, good(), test)[1])
    assert (finding.what, finding.rows) == ("label 'Weather' is not in the training rows", tuple(range(1, 24, 2)))
    assert finding.fix


def test_both_files_of_a_folder_are_checked(tmp_path: Path) -> None:
    put(tmp_path / "train.csv", good())
    put(tmp_path / "test.csv", [("text 0 of World", "World"), *((f"t {i}", "World") for i in range(11)), *good()[1:24:2]])
    reports = check_source(str(tmp_path))
    assert [report.path.name for report in reports] == ["train.csv", "test.csv"]
    assert only(reports[1]).rows == (0, *range(12, 24))


def test_several_problems_are_all_reported(tmp_path: Path) -> None:
    rows = [*good(), ("", "World"), ("x", ""), ("y", "Sport"), ("z", "Weather"), *good()[:1], ("text 1 of World", "Sports")]
    whats = [finding.what for finding in check(tmp_path, rows)[0].findings]
    for part in ("no text", "no label", "'Sport' looks like 'Sports'", "'Weather' has 1 row", "repeats", "different labels"):
        assert any(part in what for what in whats), part
    assert len(whats) == 6


def test_unlabelled_files_are_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "".join(f"text {i}\n" for i in range(5)) + "text 2\n")
    (report,) = check_source(str(path))
    assert report.classes == {}
    assert report.columns == Columns(("text",), None)
    assert (only(report).what, only(report).rows) == ("repeats an earlier row", (5,))


def test_class_names_stored_in_the_file_are_used(tmp_path: Path) -> None:
    features = {"label": {"names": ["World", "Sports", "Weather"], "_type": "ClassLabel"}}
    labels = [0, 1] * 12 + [2]
    table = pyarrow.table({"text": [f"text {i}" for i in range(25)], "label": labels})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    (report,) = check_source(str(tmp_path / "rows.parquet"))
    assert report.classes == {"World": 12, "Sports": 12, "Weather": 1}
    assert "'Weather'" in only(report).what


def test_unreadable_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match="no file or folder"):
        check_source(str(tmp_path / "gone.csv"))
    with pytest.raises(LoralabError, match="there is no file"):
        check(tmp_path, good()) and check_source(str(tmp_path / "rows.csv"), test=str(tmp_path / "gone.csv"))
    with pytest.raises(LoralabError, match="has no column 'body'"):
        check_source(str(tmp_path / "rows.csv"), DataConfig(text=["body"]))


@pytest.mark.timeout(10)
def test_a_number_column_as_labels_is_checked_fast(tmp_path: Path) -> None:
    rows = [(f"text {i}", f"{i * 0.37:.4f}") for i in range(12_000)]
    began = time.perf_counter()
    (report,) = check(tmp_path, rows)
    assert time.perf_counter() - began < 3
    assert report.findings


def test_the_command_prints_rows_and_fixes(tmp_path: Path) -> None:
    rows = good()
    rows[3] = ("", "World")
    path = put(tmp_path / "rows.csv", rows)
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 0, result.output
    assert "no text: row 3" in result.output
    assert "fix: fill in or remove" in result.output
    assert "24" in result.output
    result = CliRunner().invoke(app, ["check", str(path), "--json"])
    (report,) = json.loads(result.output)
    fix = "fill in or remove; training keeps them as empty texts"
    assert report["findings"] == [{"what": "no text", "rows": [3], "fix": fix, "severity": "warning"}]
    assert path.read_bytes() == put(tmp_path / "again.csv", rows).read_bytes()  # the file is unchanged


def test_the_command_reports_no_problems() -> None:
    result = CliRunner().invoke(app, ["check", "sample"])
    assert result.exit_code == 0
    assert result.output.count("no problems") == 2


def test_how_a_file_is_read_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [f"it’s {i};{('no', 'No', 'yes', 'no')[i % 4]}\n" for i in range(60)]
    path.write_text("text;label\n" + "".join(rows), encoding="cp1252")
    (report,) = check_source(str(path))
    assert report.reading == {"format": "csv", "delimiter": ";", "header": True, "encoding": "cp1252"}
    said = " ".join(map(str, report.notices))
    for part in ("read as cp1252", "divided by semicolons", "spellings of one class"):
        assert part in said
    assert report.classes == {"no": 45, "yes": 15}
    assert report.values["no"] == ["no", "No"]
    assert report.examples["yes"] == ["it’s 2", "it’s 6", "it’s 10"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Oil #39;s high", "escaped characters"),
        ("a quot;word quot;", "escaped characters"),
        ("lt;b gt; bold", "escaped characters"),
        ("fish &amp; chips", "escaped characters"),
        ("itâ€™s late", "text that was decoded twice"),
        ("cafÃ© au lait", "text that was decoded twice"),
    ],
)
def test_damaged_texts_are_found_with_an_example(tmp_path: Path, text: str, what: str) -> None:
    rows = good()
    rows[5] = (text, "Sports")
    (report,) = check(tmp_path, rows)
    (finding,) = report.findings
    assert (finding.rows, what in finding.what) == ((5,), True)
    assert text[:4] in finding.what


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"validation": 0.001}, "data.validation=0.001 holds out 0"),
        ({"test": 23.0}, "data.test=23 holds out 23"),
        ({"shots_per_class": 50}, "data.shots_per_class=50"),
    ],
)
def test_what_training_refuses_is_an_error_here(tmp_path: Path, settings: dict[str, object], expected: str) -> None:
    path = put(tmp_path / "rows.csv", good())
    (report,) = check_source(str(path), DataConfig(**settings))  # type: ignore[arg-type]
    assert report.refused
    assert expected in report.findings[0].what


def test_every_part_of_a_folder_is_checked(tmp_path: Path) -> None:
    for part in ("train", "validation", "test"):
        put(tmp_path / f"{part}.csv", [(f"{part} {text}", label) for text, label in good()])
    put(tmp_path / "extra.csv", good())
    reports = check_source(str(tmp_path))
    assert [report.path.stem for report in reports] == ["train", "validation", "test"]
    assert "not used: extra.csv" in " ".join(map(str, reports[0].notices))


def test_the_page_holds_everything_escaped(tmp_path: Path) -> None:
    rows = [*good(), ("<script>alert(1)</script> &amp;", "World"), ("", "Sports")]
    path, page = put(tmp_path / "rows.csv", rows), tmp_path / "page.html"
    result = CliRunner().invoke(app, ["check", str(path), "--html", str(page)])
    assert result.exit_code == 0, result.output
    html = page.read_text(encoding="utf-8")
    for part in ("How it is read", "Problems", "Classes", "Examples", "Rows per class", "Length of the texts", "no text"):
        assert part in html
    assert "<script>alert" not in html
    assert "exists" in str(CliRunner().invoke(app, ["check", str(path), "--html", str(page)]).exception)
