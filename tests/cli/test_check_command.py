"""What `loralab check` prints, its exit codes, and its page."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import done, invoke
from tiny import topics, write_csv


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and lines that are not wrapped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    return tmp_path


def test_it_prints_how_a_file_is_read_and_each_problem_with_its_fix() -> None:
    rows = [(text.replace("'", ""), label.upper() if i % 5 == 0 else label) for i, (text, label) in enumerate(topics(30))]
    rows[3] = ("", rows[3][1])
    Path("rows.csv").write_text("text;label\n" + "".join(f"{text};{label}\n" for text, label in rows), encoding="utf-8")
    before = Path("rows.csv").read_bytes()
    out = done("check", "rows.csv")
    for part in (
        "csv, delimiter ';', encoding utf-8, a header",
        "text: text (by name), label: label (by name)",
        "120; tokens of minilm per text: median",
        "86 train, 10 validation, 24 test",
        "'Sports', 'SPORTS'",
        "note        columns are divided by semicolons (;)",
        "warning     1 text is empty: row 3 (line 5)",
        "fix: fill in or remove",
    ):
        assert part in out, part
    assert Path("rows.csv").read_bytes() == before


def test_a_file_without_problems() -> None:
    out = done("check", "sample")
    assert out.count("no problems") == 2
    assert "refuses" not in out


def test_exit_code_and_last_line_of_a_refusal() -> None:
    write_csv(Path("one.csv"), [(text, "same") for text, _ in topics(5)])
    answer = invoke("check", "one.csv")
    assert answer.code == 2
    assert "error       one.csv has only one class (same)" in answer.out
    assert answer.out.endswith("loralab train refuses this data: 1 error\n")
    assert invoke("check", "one.csv", "--json").code == 2


@pytest.mark.parametrize("setting", ["train.monitor=f1:spamm", "train.class_weights={x: 2}", "data.descriptions={a: [b], c: [d]}"])
def test_settings_that_name_classes_are_checked(setting: str) -> None:
    write_csv(Path("rows.csv"), topics(12))
    extra = ["train.head_init=descriptions"] if "descriptions" in setting else []
    assert invoke("check", "rows.csv", setting, *extra).code == 2


def test_a_proposed_fix_works_when_pasted() -> None:
    texts = [(f"{text} Tom &amp; Jerry", label) for text, label in topics(20)]
    rows = [(f"a{i}", text, label) for i, (text, label) in enumerate(texts)]
    write_csv(Path("rows.csv"), rows, ("id", "the text", "label"))
    (report,) = json.loads(done("check", "rows.csv", "data.text=id", "--json"))
    (fix,) = [finding["fix"] for finding in report["findings"] if "ids" in finding["message"]]
    (report,) = json.loads(done("check", "rows.csv", *shlex.split(fix), "--json"))
    assert report["columns"]["text"] == ["the text"]
    (clean,) = [finding["fix"].split()[0] for finding in report["findings"] if "escaped" in finding["message"]]
    (report,) = json.loads(done("check", "rows.csv", *shlex.split(fix), clean, "--json"))
    assert "escaped" not in json.dumps(report["findings"])


@pytest.mark.parametrize(
    "names",
    [("No", "no", "yes"), ("Very good", "very good", "bad"), ("Home, garden", "home, garden", "R&D"), ("it's", "It's", "[x]")],
)
def test_the_setting_that_keeps_spellings_apart_works_when_pasted(names: tuple[str, ...]) -> None:
    write_csv(Path("rows.csv"), [(text, names[i % 3]) for i, (text, _) in enumerate(topics(12))])
    (report,) = json.loads(done("check", "rows.csv", "--json"))
    (finding,) = [finding for finding in report["findings"] if "spellings of one class" in finding["message"]]
    assert len(report["classes"]) == 2
    assert len(finding["rows"]) == 16
    (setting,) = shlex.split(finding["fix"].removesuffix(" keeps them apart"))
    (report,) = json.loads(done("check", "rows.csv", setting, "--json"))
    assert {*report["classes"]} == {*names}


def test_settings_of_the_file_count() -> None:
    write_csv(Path("rows.csv"), [(text + " word" * 40, label) for text, label in topics(12)])
    assert "longer than" not in done("check", "rows.csv")
    assert "longer than data.max_length=16" in done("check", "rows.csv", "data.max_length=16")
    Path("rows.yaml").write_text("data: {source: rows.csv, max_length: 16}\n", encoding="utf-8")
    assert "longer than data.max_length=16" in done("check", "rows.yaml")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("rows.jsonl", "jsonl, encoding utf-8"),
        ("rows.tsv", "csv, delimiter tab, encoding utf-8, a header"),
        ("rows.parquet", "parquet"),
    ],
)
def test_every_format_is_described(name: str, read: str) -> None:
    import pandas

    table = pandas.DataFrame(topics(12), columns=["text", "label"])
    if name.endswith("parquet"):
        table.to_parquet(name)
    elif name.endswith("tsv"):
        table.to_csv(name, sep="\t", index=False)
    else:
        table.to_json(name, orient="records", lines=True)
    assert f"read        {read}\n" in done("check", name)


def test_a_refusal_names_the_setting_to_write() -> None:
    rows = [(f"a{i}", text, str(i % 2), str(i % 3 % 2)) for i, (text, _) in enumerate(topics(12))]
    write_csv(Path("rows.csv"), rows, ("id", "comment_text", "toxic", "insult"))
    answer = invoke("check", "rows.csv", "--json")
    (error,) = [finding for finding in json.loads(answer.out)[0]["findings"] if finding["severity"] == "error"]
    assert (answer.code, error["fix"]) == (2, "data.label=toxic")
    assert invoke("check", "rows.csv", error["fix"]).code == 0


def test_json_has_everything() -> None:
    write_csv(Path("rows.csv"), topics(12))
    (report,) = json.loads(done("check", "rows.csv", "--json"))
    assert {"part", "path", "rows", "reading", "columns", "detected", "classes", "values", "lengths", "splits", "notices"} <= {
        *report
    }
    assert {"findings", "examples", "duplicates", "suspicious"} <= {*report}
    assert report["lengths"]["unit"] == "tokens"
    assert {name: sum(rows.values()) for name, rows in report["splits"].items()} == {"train": 34, "validation": 4, "test": 10}


def test_the_page_is_written_once() -> None:
    write_csv(Path("rows.csv"), topics(12))
    assert "page        page.html" in done("check", "rows.csv", "--html", "page.html")
    answer = invoke("check", "rows.csv", "--html", "page.html")
    assert (answer.code, "--overwrite" in answer.err) == (2, True)
    done("check", "rows.csv", "--html", "page.html", "--overwrite", "--json")
    assert "gone" in invoke("check", "rows.csv", "--html", "gone/page.html").err


def test_markup_in_texts_and_names_is_printed_as_it_is() -> None:
    rows = [(f"{text} [/INST] &amp;", f"[red]{label}[/x]") for text, label in topics(12)]
    write_csv(Path("rows.csv"), rows, ("[bold]text", "label"))
    out = done("check", "rows.csv")
    for part in ("[/INST] &amp;", "[red]World[/x]", "[bold]text"):
        assert part in out


def test_a_pipe_is_read_once_and_named() -> None:
    write_csv(Path("rows.csv"), [*topics(12), ("", "World")])
    command = f"{shlex.quote(sys.executable)} -m loralab check {{}}"
    for pipe in ("/dev/stdin < <(cat rows.csv)", "<(cat rows.csv)", "rows.csv --test <(cat rows.csv)"):
        answer = subprocess.run(["bash", "-c", command.format(pipe)], capture_output=True, text=True, timeout=120)
        assert (answer.returncode, answer.stderr) == (0, ""), pipe
        assert "row 48 (line 50)" in answer.stdout
        assert "/dev/" in answer.stdout
        assert "/tmp" not in answer.stdout


@pytest.mark.parametrize(
    "content", ["great phone\nbroken on arrival\nfine\n", "", "text;a,label\nx;1,2\n", "a\x00b", "текст\n"], ids=repr
)
def test_a_refusal_is_one_json_document_too(content: str) -> None:
    Path("one.csv").write_bytes(content.encode("koi8_r"))
    answer = invoke("check", "one.csv", "--json")
    assert answer.code == 2
    document = json.loads(answer.out)
    if isinstance(document, dict):
        assert answer.err == f"loralab: {document['error']}\n"
        assert "one.csv" in document["error"]
    assert json.loads(invoke("evaluate", "nowhere", "--file", "one.csv", "--json").out)["error"]


def test_a_column_in_brackets_is_proposed_as_a_setting_that_works() -> None:
    write_csv(Path("rows.csv"), topics(12), ("[text]", "label"))
    error = invoke("check", "rows.csv", "data.text=[text]").err
    (setting,) = shlex.split(error.split("write ")[1].split("; columns")[0])
    assert invoke("check", "rows.csv", setting, "--json").out.count('"[text]"') == 1


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "/tmp/x", "a\\b"])
@pytest.mark.parametrize("command", ["train", "search"])
def test_a_name_is_no_path(name: str, command: str) -> None:
    write_csv(Path("rows.csv"), topics(12))
    answer = invoke(command, "rows.csv", "train.max_steps=1", "--name", name)
    assert answer.code == 2
    assert f"the name {name!r} is a path" in answer.err
    assert not Path("runs").exists()
