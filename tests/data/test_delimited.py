"""Delimiters, quotes and headers are found from the file; what has two readings is refused with the setting for each."""

from __future__ import annotations

import csv
import io
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from loralab.config import DataConfig
from loralab.data.delimited import Dialect, first_records, has_header, is_usual, read_records
from loralab.data.readers import Table, open_table, read_chunks
from loralab.data.types import CHUNK, Notice
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


@pytest.mark.parametrize(("first", "second"), [(";", "\t"), ("\t", ";"), ("|", "\t"), (";", "|")])
def test_each_proposed_delimiter_reads_a_file_that_two_divide(tmp_path: Path, first: str, second: str) -> None:
    path = put(tmp_path / "rows.csv", "".join(f"text {i}{first}x{second}{i % 2}\n" for i in range(9)))
    with pytest.raises(LoralabError) as error:
        next(read_chunks(path))
    settings = re.findall(r"data\.delimiter=(\S+)", str(error.value))
    assert len(settings) == 2
    widths = [len(next(read_chunks(path, DataConfig(delimiter=setting, header=False))).columns) for setting in settings]
    assert widths == [2, 2]
    names = {"\t": "tabs", ";": "semicolons (;)", "|": "vertical bars (|)"}
    assert str(error.value).startswith(f"{path}: ")
    assert names[first] in str(error.value)
    assert names[second] in str(error.value)


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        ("a b,x\n", []),
        ("a b,x\n\nc d,y\n", ["1 blank line skipped: line 3"]),
        ("\n" * 9 + "a b,x\n", ["9 blank lines skipped: line 2, 3, 4, 5, 6, 7, 8, 9, ..."]),
        ("\n" * 8 + "a b,x\n\n\n", ["8 blank lines skipped: line 2, 3, 4, 5, 6, 7, 8, 9"]),
        ('"a\nb",x\n\n', ["1 row spans several lines, within double quotes"]),
        ('"a\nb",x\n"c\nd","\n\n"\n,\n', ["2 rows span several lines, within double quotes"]),
        ("a b,x,\nc d,y\n", ["empty fields after the last column skipped in 1 row"]),
        ("a b,x,\nc d,y,,\n", ["empty fields after the last column skipped in 2 rows"]),
    ],
)
def test_what_is_skipped_is_noted(tmp_path: Path, content: str, messages: list[str]) -> None:
    path = put(tmp_path / "rows.csv", "text,label\n" + content)
    notices: list[Notice] = []
    records = [*read_records(path, "utf-8", Dialect(","), 2, True, notices)]
    assert [notice.message for notice in notices] == messages
    expected = [row[:2] for row in csv.reader(io.StringIO(content, newline="")) if row]
    assert records == expected
    assert [notice.severity for notice in notices] == ["warning" if "blank" in message else "note" for message in messages]


@pytest.mark.parametrize(
    ("content", "dialect", "place"),
    [
        ("a,b\nc,d,e\n", Dialect(","), r"row 1 \(line 2\) has 3 fields, not 2 \('c', 'd', 'e'\)"),
        ("a,b\n\nc\n", Dialect(","), r"row 1 \(line 3\) has 1 field, not 2 \('c'\)"),
        ("sep=;\na;b\n" + "x;" * 5 + "y\n", Dialect(";", skip_lines=1), r"row 1 \(line 3\) has 6 fields, not 2 .*'x', \.\.\.\)"),
        ('a|"b\nc|d|e\n', Dialect("|", quotes=False), r"row 1 \(line 2\) has 3 fields, not 2.*data\.quotes=true"),
        ('a,b\nc,"d', Dialect(","), r", line 2: unexpected end of data.*data\.quotes=false"),
        ('sep=,\na,b\nc,"d"x\n', Dialect(",", skip_lines=1), r", line 3: "),
        ("a,b\nc\rd,e\n", Dialect(","), r", line 2: a carriage return within a field"),
    ],
)
def test_damaged_records_are_named_by_row_and_line(tmp_path: Path, content: str, dialect: Dialect, place: str) -> None:
    path = put(tmp_path / "rows.csv", content)
    with pytest.raises(LoralabError, match=place) as error:
        [*read_records(path, "utf-8", dialect, 2, False, [])]
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "usual"),
    [
        *(("text", True), ("Text ", True), ("review_text", True), ("reviewText", True), ("Review Text", True), ("text2", True)),
        *(("my text", False), ("context", False), ("", False), ("text of row", False), ("_", False), ("TEXT-1", True)),
    ],
)
def test_usual_names(name: str, usual: bool) -> None:
    assert is_usual(name, {"text", "review"}) == usual


@pytest.mark.parametrize(
    ("rows", "known", "header"),
    [
        ([["text", "label"], ["a", "b"]], (), True),
        ([["text", "x"], ["text", "y"]], (), None),
        ([["text", "label"], ["text", "y"]], (), True),
        ([["body", "x"], ["a", "b"]], ("body",), True),
        ([["body", "x"], ["body", "b"]], ("body",), None),
        ([["body", "x"], ["body", "b"]], ("body", "x"), True),
        ([["", "0", "1"], ["a", "b", "c"]], (), True),
        ([["0", "1"], ["a", "b"]], (), True),
        ([["0", "2"], ["a", "b"]], (), None),
        ([["a b", "good"], ["c d", "good"]], (), False),
        ([["good"], ["good"]], (), None),
        ([["a b", "1"], ["c d", "2"]], (), False),
        ([["a b", "q"], ["c d", "2"]], (), True),
        ([["a b", "q"], *[[f"c {i}", "xy"[i % 2]] for i in range(20)]], (), True),
        ([["a b", "q"], *[[f"c {i}", "xy"[i % 2]] for i in range(19)]], (), None),
        ([["a b", "q"], *[[f"c {i}", "vwxyz"[i % 5]] for i in range(20)]], (), None),
        ([["a b c d", "q"], *[[f"c {i}", "xy"[i % 2]] for i in range(20)]], (), None),
        ([["a" * 41, "q"], *[[f"c {i}", "xy"[i % 2]] for i in range(20)]], (), None),
        ([["only"]], (), None),
    ],
)
def test_first_records_that_name_columns(rows: list[list[str]], known: Sequence[str], header: bool | None) -> None:
    assert has_header(rows, {"text", "label"}, known) is header


def test_lines_are_records_of_one_field(tmp_path: Path) -> None:
    records = Dialect(None, quotes=False, skip_lines=1).records(["sep=,\n", "a,b\r\n", "\n", '"c'])
    assert records.line_num == 0
    assert [(record, records.line_num) for record in records] == [(["a,b"], 1), ([], 2), (['"c'], 3)]
    assert [Dialect(d).name for d in (None, ",", "\t", "§")] == ["line", "comma", "tab", "'§'"]
    path = put(tmp_path / "rows.csv", 'a,b\r\n\r\nc,d\r\n"e')
    assert first_records(path, "utf-8", Dialect(",")) == [["a", "b"], ["c", "d"]]
    assert first_records(path, "utf-8", Dialect(","), 1) == [["a", "b"]]
    assert first_records(put(path, "a,b\rc,d\r"), "utf-8", Dialect(",", newline="\r")) == [["a", "b"], ["c", "d"]]


def test_headers_within_later_chunks_are_noted_with_their_rows(tmp_path: Path) -> None:
    rows = [f"text {i},{i % 2}\n" for i in range(2 * CHUNK + 10)]
    rows[3] = rows[CHUNK + 5] = rows[2 * CHUNK + 7] = "text,label\n"
    table = open_table(put(tmp_path / "rows.csv", "text,label\n" + "".join(rows)))
    assert sum(chunk.rows for chunk in table.chunks) == len(rows)
    (notice,) = table.notices
    assert (notice.rows, notice.severity) == ((3, CHUNK + 5, 2 * CHUNK + 7), "warning")
