"""Delimiters, quotes and headers are found from the file; what has two readings is refused with the setting for each."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from loralab.config import DataConfig
from loralab.data.readers import Table, open_table
from loralab.errors import LoralabError

ROWS = [(f"leaks, no {i}" if i % 2 else f"lovely {i}", ("neg", "pos")[i % 2]) for i in range(20)]


def put(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def read(path: Path, **settings: Any) -> tuple[dict[str, list[object]], Table]:
    table = open_table(path, DataConfig(**settings))
    columns: dict[str, list[object]] = {}
    for chunk in table.chunks:
        for name, values in chunk.columns.items():
            columns.setdefault(name, []).extend(values)
    return columns, table


def refused(path: Path, **settings: Any) -> str:
    with pytest.raises(LoralabError) as error:
        read(path, **settings)
    return str(error.value)


def pasted(message: str, name: str) -> list[dict[str, Any]]:
    """Return the settings of `data` that a message proposes for one name, ready to be tried."""
    values = [word.partition("=")[2] for word in message.split() if word.startswith(f"data.{name}=")]
    return [{name: {"true": True, "false": False}.get(value, value)} for value in values]


# Delimiters


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ""])
@pytest.mark.parametrize(("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_another_delimiter_is_found_and_said(tmp_path: Path, suffix: str, delimiter: str, name: str) -> None:
    lines = ["text" + delimiter + "label", *(f"{text}{delimiter}{label}" for text, label in ROWS)]
    columns, table = read(put(tmp_path / f"rows{suffix}", "\n".join(lines) + "\n"))
    assert columns == {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
    said = any(name in str(notice) for notice in table.notices)
    assert said == ((suffix, delimiter) != (".tsv", "\t"))
    assert table.facts["delimiter"] == delimiter


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('text;label\n"leaks, no 1";neg\n"lovely";pos\n', ["leaks, no 1", "lovely"]),
        ('text, label\n"leaks, no 1", "neg"\n"lovely", "pos"\n', ["leaks, no 1", "lovely"]),
        ('text;label\n"a; b";neg\nc;pos\n', ["a; b", "c"]),
        ("sep=,\ntext,label\nleaks,neg\nlovely,pos\n", ["leaks", "lovely"]),
        ("sep=;\r\ntext;label\r\nleaks, one;neg\r\nlovely;pos\r\n", ["leaks, one", "lovely"]),
        ("id;text\n1;leaks 1\n2;leaks 2\n", ["leaks 1", "leaks 2"]),
        ("text,label,,\nleaks,neg,,\nlovely,pos,,\n", ["leaks", "lovely"]),
        ("text,label\nleaks,neg,,,\nlovely,pos,,,\n", ["leaks", "lovely"]),
        ("\n\ntext,label\n\nleaks,neg\n\nlovely,pos\n\n", ["leaks", "lovely"]),
        ("text\rleaks\rlovely\r", ["leaks", "lovely"]),
    ],
)
def test_files_of_spreadsheets_are_read(tmp_path: Path, content: str, texts: list[str]) -> None:
    assert read(put(tmp_path / "rows.csv", content))[0]["text"] == texts


def test_a_delimiter_setting_wins(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.csv", "text;a,label\nx;b,1\ny;c,2\n")
    assert [*read(path)[0]] == ["text;a", "label"]
    assert [*read(path, delimiter=";", header=True)[0]] == ["text", "a,label"]
    assert [*read(put(tmp_path / "t.csv", "text\tlabel\na\tb\n"), delimiter="tab")[0]] == ["text", "label"]


def test_texts_with_commas_and_no_other_column_are_one_text_per_line(tmp_path: Path) -> None:
    columns, table = read(put(tmp_path / "rows.csv", "text\nhello, world\nplain\na, b, c\n"))
    assert columns == {"text": ["hello, world", "plain", "a, b, c"]}
    assert "each line is one text" in str(table.notices[0])


def test_a_ragged_row_is_named_with_its_fields(tmp_path: Path) -> None:
    message = refused(put(tmp_path / "rows.csv", "text,label\nfine,pos\nleaks, no,neg\nok,pos\n"))
    assert "row 1 (line 3) has 3 fields, not 2 ('leaks', ' no', 'neg')" in message


def test_a_repeated_header_is_said(tmp_path: Path) -> None:
    _, table = read(put(tmp_path / "rows.csv", "text,label\na,x\ntext,label\nb,y\n"))
    assert [notice.rows for notice in table.notices] == [(1,)]


# Quotes


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('text\tlabel\n"Hello" she said\tpos\nfine\tneg\n', ['"Hello" she said', "fine"]),
        ('label\ttext\nham\tsee you\nspam\t"free" entry now\n', ["see you", '"free" entry now']),
        ('text\tlabel\n5" nail "new"\tpos\nfine\tneg\n', ['5" nail "new"', "fine"]),
        ('text\tlabel\n"a\tb"\tpos\nfine\tneg\n', ["a\tb", "fine"]),
        ('text\tlabel\n"say ""hi"""\tpos\nfine\tneg\n', ['say "hi"', "fine"]),
        ('text\tlabel\n"two\nlines"\tpos\nfine\tneg\n', ["two\nlines", "fine"]),
    ],
)
def test_quotes_in_tsv_enclose_fields_only_where_they_do(tmp_path: Path, content: str, texts: list[str]) -> None:
    assert read(put(tmp_path / "rows.tsv", content))[0]["text"] == texts


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ('text\tlabel\n"opening quote\tpos\nplain row\tneg\nclosing quote"\tpos\n', "lines 2-4"),
        ('label\ttext\npos\tfine\npos\t"open\nneg\tmid\nneg\tclose"\npos\tend\n', "lines 3-5"),
        ("text\tlabel\n" + "a\tx\n" * 30_000 + '"open\tx\nclose"\ty\n', "lines 30002-30003"),
    ],
)
def test_quotes_with_two_readings_are_refused_with_both(tmp_path: Path, content: str, lines: str) -> None:
    path = put(tmp_path / "rows.tsv", content)
    message = refused(path)
    assert f"{lines} are one row" in message
    enclosed, characters = pasted(message, "quotes")
    merged = len(read(path, **enclosed)[0]["text"])
    assert len(read(path, **characters)[0]["text"]) == content.count("\n") - 1 > merged


# Headers


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("text,label\na,x\n", ["text", "label"]),
        ("review_text,stars\nleaks,1\n", ["review_text", "stars"]),
        ("Review Text,My Label\nleaks,1\n", ["Review Text", "My Label"]),
        ("commentBody;grade\nleaks;1\n", ["commentBody", "grade"]),
        ("0,1\nleaks 1,neg\nlovely 2,pos\n", ["0", "1"]),
        (",0,1\n0,leaks 1,neg\n1,lovely 2,pos\n", ["column1", "0", "1"]),
        ("Satz,Note\nkaputt,1\nschön,5\n", ["Satz", "Note"]),
        ("v1,v2\n" + "ham,see you soon\nspam,win a prize\n" * 10, ["v1", "v2"]),
        ("text\nx\n", ["text"]),
    ],
)
def test_a_header_is_recognised(tmp_path: Path, content: str, names: list[str]) -> None:
    assert [*read(put(tmp_path / "rows.csv", content))[0]] == names


@pytest.mark.parametrize(
    "content",
    [
        "ham,see you 1\nspam,free entry now 1\nham,see you 2\nspam,free entry now 2\n",
        "1,great phone\n2,broken on arrival\n3,fine\n",
        "great phone,pos\nbroken on arrival,neg\nfine,pos\nnever again,neg\n",
        "good review,1\nbad review,0\nnice,1\n",
        "0.5,fine\n1.5,bad\n",
    ],
)
def test_a_first_line_that_is_a_row_is_read_as_one(tmp_path: Path, content: str) -> None:
    columns, table = read(put(tmp_path / "rows.csv", content))
    assert [*columns] == ["column1", "column2"]
    assert len(columns["column1"]) == content.count("\n")
    assert "the first line is a row" in str(table.notices[-1])


@pytest.mark.parametrize(
    "content",
    ["great phone\nbroken on arrival\nfine\n", "Kommentar\nkaputt\n", "one,two\na,b\n", "text,great\ntext,bad\n"],
)
def test_a_first_line_with_two_readings_is_refused_with_both(tmp_path: Path, content: str) -> None:
    path = put(tmp_path / "rows.csv", content)
    counts = [len(next(iter(read(path, **setting)[0].values()))) for setting in pasted(refused(path), "header")]
    assert counts == [content.count("\n") - 1, content.count("\n")]


def test_a_plain_text_file_has_one_text_per_line_and_no_header(tmp_path: Path) -> None:
    columns, _ = read(put(tmp_path / "texts.txt", "great phone\nbroken, sadly\nfine\n"))
    assert columns == {"text": ["great phone", "broken, sadly", "fine"]}


@pytest.mark.parametrize("known", [("great phone",), ("neg", "the scarf")])
def test_a_first_line_with_a_known_name_is_a_header(tmp_path: Path, known: Sequence[str]) -> None:
    table = open_table(put(tmp_path / "rows.csv", ",".join(known) + "\n" + ",".join("x" for _ in known) + "\n"), None, known)
    assert [*next(table.chunks).columns] == [*known]


def test_a_pipe_is_read(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.csv", "text,label\na,x\nb,y\n")
    code = (
        "import sys; from loralab.data.readers import open_table; from pathlib import Path; "
        "print(*[dict(c.columns) for c in open_table(Path(sys.argv[1])).chunks])"
    )
    command = f"{subprocess.list2cmdline([__import__('sys').executable])} -c '{code}' <(cat {path})"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "['a', 'b']" in result.stdout
