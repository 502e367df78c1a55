"""All formats give the same columns, and damaged files an error with the row or line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from loralab.config import DataConfig
from loralab.data.readers import MAX_FIELD, open_table, read_chunks
from loralab.data.sources import read_raw
from loralab.data.types import CHUNK, ArrowColumns
from loralab.errors import LoralabError

PICKLES = Path(__file__).parent / "pickles"
TEXTS = ["plain", 'He said "no", twice', "two\nlines", "tab\there", "Köln, 東京 🙂", "", "  spaces  ", "a;b\\c'd", "#39;"]
LABELS = ["World", "Sports", "World", "Sci/Tech", "a,b", "World", 'q"q', "World", "x y"]
CLASS_NAMES = ("World", "Sports", "Business", "Sci/Tech")


def columns(path: Path) -> dict[str, list[Any]]:
    whole: dict[str, list[Any]] = {}
    for chunk in read_chunks(path):
        for name, values in chunk.columns.items():
            whole.setdefault(name, []).extend(values)
    return whole


def message(path: Path) -> str:
    with pytest.raises(LoralabError) as error:
        list(read_chunks(path))
    text = str(error.value)
    assert path.name.split(".")[0] in text
    return text


def put(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def separated(delimiter: str, end: str = "\n", quoting: Any = csv.QUOTE_MINIMAL) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(["text", "label"])
    writer.writerows(zip(TEXTS, LABELS, strict=True))
    return buffer.getvalue()


def json_lines() -> str:
    return "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in zip(TEXTS, LABELS, strict=True))


def features() -> dict[bytes, bytes]:
    """The schema metadata that `datasets` writes."""
    kinds = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": list(CLASS_NAMES), "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": kinds}}).encode()}


def saved_folder(folder: Path, parts: list[pyarrow.Table]) -> Path:
    """What `Dataset.save_to_disk` writes: Arrow streams, listed in state.json."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{len(parts):05d}.arrow" for i in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        with pyarrow.OSFile(str(folder / name), "wb") as file, pyarrow.ipc.new_stream(file, part.schema) as stream:
            stream.write_table(part)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


KINDS: dict[str, Callable[[], str]] = {
    "csv": lambda: separated(","),
    "CSV": lambda: separated(","),
    "tsv": lambda: separated("\t"),
    "jsonl": json_lines,
    "ndjson": json_lines,
}


@pytest.mark.parametrize("ending", [*KINDS, *(f"{kind}.gz" for kind in KINDS)])
def test_text_formats_round_trip(tmp_path: Path, ending: str) -> None:
    path = put(tmp_path / f"rows.{ending}", KINDS[ending.removesuffix(".gz")]())
    assert columns(path) == {"text": TEXTS, "label": LABELS}


@pytest.mark.parametrize(
    ("end", "quoting"),
    [("\r\n", csv.QUOTE_MINIMAL), ("\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_ALL)],
    ids=["crlf", "quoted", "both"],
)
def test_csv_dialects_are_equal(tmp_path: Path, end: str, quoting: int) -> None:
    assert columns(put(tmp_path / "rows.csv", separated(",", end, quoting))) == {"text": TEXTS, "label": LABELS}


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "csv.gz"])
def test_byte_order_mark_is_not_part_of_the_first_name(tmp_path: Path, ending: str) -> None:
    path = put(tmp_path / f"rows.{ending}", b"\xef\xbb\xbf" + KINDS[ending.removesuffix(".gz")]().encode())
    assert list(columns(path)) == ["text", "label"]


def test_line_breaks_inside_quotes_stay_as_they_are(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.csv", 'text,label\r\n"a\r\nb\rc\nd",1\r\n')
    assert columns(path) == {"text": ["a\r\nb\rc\nd"], "label": ["1"]}


def test_last_row_needs_no_line_end(tmp_path: Path) -> None:
    assert columns(put(tmp_path / "rows.csv", "text,label\na,1\nb,2"))["text"] == ["a", "b"]
    assert columns(put(tmp_path / "rows.jsonl", '{"text": "a"}\n{"text": "b"}'))["text"] == ["a", "b"]


def test_blank_lines_are_skipped(tmp_path: Path) -> None:
    assert columns(put(tmp_path / "rows.csv", "text,label\n\na,1\n\r\n\nb,2\n\n"))["text"] == ["a", "b"]
    assert columns(put(tmp_path / "rows.jsonl", '\n{"text": "a"}\n  \n{"text": "b"}\n\n'))["text"] == ["a", "b"]


def test_blank_lines_before_the_header_are_skipped(tmp_path: Path) -> None:
    assert columns(put(tmp_path / "rows.csv", "\n\ntext,label\na,1\n")) == {"text": ["a"], "label": ["1"]}


def test_header_names_are_stripped(tmp_path: Path) -> None:
    assert list(columns(put(tmp_path / "rows.csv", "text , label\na,1\n"))) == ["text", "label"]


def test_values_of_jsonl_keep_their_type(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.jsonl", '{"text": "a", "label": 1}\n{"text": null, "label": 2.5}\n{"label": true}\n')
    assert columns(path) == {"text": ["a", None, None], "label": [1, 2.5, True]}


@pytest.mark.parametrize("rows", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_chunks_have_every_row_once_in_order(tmp_path: Path, ending: str, rows: int) -> None:
    texts = [f"text {i}" for i in range(rows)]
    path = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    elif ending == "csv":
        put(path, "text\n" + "\n".join(texts))
    else:
        put(path, "\n".join(json.dumps({"text": text}) for text in texts))
    chunks = [chunk.columns["text"] for chunk in read_chunks(path)]
    assert [text for chunk in chunks for text in chunk] == texts
    assert max(map(len, chunks)) <= CHUNK


def test_parquet_round_trips_with_class_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pyarrow.table({"text": ["a", None, "c"], "label": [0, 3, None]})
    pyarrow.parquet.write_table(table, path)
    (plain,) = read_chunks(path)
    assert plain.columns == {"text": ["a", None, "c"], "label": [0, 3, None]}
    assert plain.class_names == {}
    pyarrow.parquet.write_table(table.replace_schema_metadata(features()), path)
    (named,) = read_chunks(path)
    assert named.columns == plain.columns
    assert named.class_names == {"label": CLASS_NAMES}


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": null}', b'{"info": {"features": [1]}}'])
def test_invalid_parquet_metadata_is_ignored(tmp_path: Path, metadata: bytes) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}).replace_schema_metadata({b"huggingface": metadata}), path)
    (chunk,) = read_chunks(path)
    assert (chunk.columns, chunk.class_names) == ({"text": ["a"]}, {})


def test_dictionary_columns_of_parquet_become_their_values(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array(["x", "y", "x"]).dictionary_encode()}), path)
    assert columns(path) == {"text": ["x", "y", "x"]}


def test_saved_folder_of_several_shards_is_read_in_order(tmp_path: Path) -> None:
    parts = [
        pyarrow.table({"text": [f"{part}.{i}" for i in range(3)], "label": [0, 1, 3]}).replace_schema_metadata(features())
        for part in range(3)
    ]
    folder = saved_folder(tmp_path / "saved", parts)
    assert columns(folder) == {"text": [f"{part}.{i}" for part in range(3) for i in range(3)], "label": [0, 1, 3] * 3}
    assert {names for chunk in read_chunks(folder) for names in chunk.class_names.values()} == {CLASS_NAMES}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_folder_saved_by_datasets_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(CLASS_NAMES))})
    made = datasets.Dataset.from_dict({"text": TEXTS, "label": [0, 1, 2, 3, 0, 1, 2, 3, 0]}, features=kinds)
    shuffled = made.shuffle(seed=3)
    for name, dataset, shards in (("whole", made, 1), ("shuffled", shuffled, 1), ("shards", made, 3)):
        dataset.save_to_disk(tmp_path / name, num_shards=shards)
        assert columns(tmp_path / name) == {"text": list(dataset["text"]), "label": list(dataset["label"])}
        assert next(read_chunks(tmp_path / name)).class_names == {"label": CLASS_NAMES}
    made.to_parquet(tmp_path / "made.parquet")
    assert columns(tmp_path / "made.parquet")["text"] == TEXTS
    assert next(read_chunks(tmp_path / "made.parquet")).class_names == {"label": CLASS_NAMES}


@pytest.mark.parametrize("ending", ["pkl", "pickle", "pkl.gz"])
@pytest.mark.parametrize(
    "content",
    [{"text": TEXTS, "label": LABELS}, [{"text": t, "label": y} for t, y in zip(TEXTS, LABELS, strict=True)]],
    ids=["dict", "rows"],
)
def test_read_chunks_reads_pickles(tmp_path: Path, ending: str, content: object) -> None:
    assert columns(put(tmp_path / f"rows.{ending}", pickle.dumps(content))) == {"text": TEXTS, "label": LABELS}


def test_read_chunks_reads_pickled_libraries() -> None:
    frame = columns(PICKLES / "pandas-2.2.3-objects-5.pkl")
    (dataset,) = read_chunks(PICKLES / "datasets-5.2.0-memory-5.pkl")
    assert dataset.columns == frame
    assert frame["label"] == [0, 2, 1, 0, 2, 1]
    assert dataset.class_names == {"label": ("rain", "sun", "wind")}


# Published AG News layout


PUBLISHED_ROWS = '"3","Oil up","Prices rose, again"\n"4","New phone","A ""smart"" one"\n"1","Vote","In two\nlines"\n'


def test_published_layout_has_no_header(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    for name in ("train.csv", "test.csv"):
        read = columns(put(tmp_path / name, PUBLISHED_ROWS))
        assert read == {
            "label": ["3", "4", "1"],
            "title": ["Oil up", "New phone", "Vote"],
            "description": ["Prices rose, again", 'A "smart" one', "In two\nlines"],
        }


def test_published_layout_is_recognized_by_long_texts_without_a_class_file(tmp_path: Path) -> None:
    row = "2,Cup final,A description that is clearly longer than the name of a column\n"
    assert columns(put(tmp_path / "train.csv", row * 2))["label"] == ["2", "2"]


def test_a_header_of_words_is_a_header_even_with_a_class_file(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert columns(put(tmp_path / "train.csv", "label,title,description\n1,t,d\n")) == {
        "label": ["1"],
        "title": ["t"],
        "description": ["d"],
    }


def test_a_damaged_class_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"Musique\nCin\xe9ma\n")
    path = put(tmp_path / "train.csv", PUBLISHED_ROWS)
    with pytest.raises(LoralabError, match=r"classes\.txt.*UTF-8"):
        list(read_chunks(path))


# Bad files


def test_missing_file_is_reported(tmp_path: Path) -> None:
    assert message(tmp_path / "nothing.csv").startswith("there is no file")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "pkl", "xyz"])
def test_empty_file_is_reported(tmp_path: Path, ending: str) -> None:
    assert message(put(tmp_path / f"void.{ending}", "")).endswith("is empty")


@pytest.mark.parametrize("ending", ["csv.gz", "tsv.gz", "jsonl.gz"])
def test_empty_gzip_is_reported(tmp_path: Path, ending: str) -> None:
    assert message(put(tmp_path / f"void.{ending}", "")).endswith("is empty")


def test_blank_jsonl_is_empty(tmp_path: Path) -> None:
    assert message(put(tmp_path / "blank.jsonl", "\n \n")).endswith("is empty")


def test_header_alone_has_columns_and_no_rows(tmp_path: Path) -> None:
    assert columns(put(tmp_path / "header.csv", "text,label\n")) == {"text": [], "label": []}


@pytest.mark.parametrize("name", ["rows.doc", "rows", "rows.txt", "rows.csv.gz", "rows.txt.gz", ".csv"])
def test_text_is_read_whatever_the_suffix(tmp_path: Path, name: str) -> None:
    assert columns(put(tmp_path / name, "text,label\na,b\n")) == {"text": ["a"], "label": ["b"]}


@pytest.mark.parametrize("content", [b"\x7fELF\x02\x00\x01", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_other_binary_files_are_refused_with_the_readable_formats(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.bin"
    path.write_bytes(content)
    error = message(path)
    for ending in (".csv", ".tsv", ".jsonl", ".parquet", ".pkl", ".gz"):
        assert ending in error


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize(("fields", "count"), [(["only"], 1), (["a", "b", "c"], 3)])
def test_ragged_row_is_named_by_row_and_line(tmp_path: Path, kind: str, fields: list[str], count: int) -> None:
    mark = {"csv": ",", "tsv": "\t"}[kind]
    lines = ["text", "label"], ["x", "1"], ['"two\nlines"', "1"], fields
    error = message(put(tmp_path / f"rows.{kind}", "".join(mark.join(line) + "\n" for line in lines)))
    assert f"row 2 (line 5) has {count} field{'s' * (count > 1)}, not 2" in error
    assert "double quotes" in error


def test_ragged_row_far_down_is_counted_from_the_start(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.csv", "text,label\n" + "a,b\n" * (2 * CHUNK + 5) + "a,b,c\n")
    assert f"row {2 * CHUNK + 5} (line {2 * CHUNK + 7})" in message(path)


def test_ragged_row_without_header_is_counted_from_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert "row 1 (line 2) has 2 fields, not 3" in message(put(tmp_path / "train.csv", "1,t,d\n2,t\n"))


def test_duplicate_names_in_the_header_are_refused(tmp_path: Path) -> None:
    assert "two columns have the same name in the header: text, label, text" in message(
        put(tmp_path / "rows.csv", "text,label,text\na,1,b\n")
    )


def test_duplicate_names_in_parquet_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table([pyarrow.array(["x"]), pyarrow.array(["y"])], names=["text", "text"]), path)
    assert "text" in message(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "csv.gz"])
def test_other_encodings_are_read_and_said(tmp_path: Path, ending: str, encoding: str) -> None:
    texts = ["it’s café" if encoding != "latin-1" else "a café", "plain", "five £"]
    lines = ["text,label", *(f"{text},1" for text in texts)]
    if ending == "jsonl":
        lines = [json.dumps({"text": text, "label": 1}, ensure_ascii=False) for text in texts]
    table = open_table(put(tmp_path / f"rows.{ending}", "".join(line + "\n" for line in lines).encode(encoding)))
    assert [text for chunk in table.chunks for text in chunk.columns["text"]] == texts
    assert bool(table.notices) == (encoding != "utf-8-sig")


@pytest.mark.parametrize(
    ("encoding", "word"),
    [
        ("cp1251", "нефть дешевеет"),
        ("koi8_r", "плохая доставка, очень долго"),
        ("koi8_r", "ok, товар good"),
        ("iso8859_5", "отличный товар"),
        ("cp866", "отличный товар"),
        ("cp1253", "πολύ καλό προϊόν"),
        ("iso8859_2", "źle, polecam każdemu"),
        ("cp1250", "mały świetny towar"),
        ("mac_roman", "très bon café"),
        ("gbk", "这个手机很好用"),
        ("shift_jis", "良い電話です"),
    ],
)
def test_bytes_with_several_readings_are_refused_with_them(tmp_path: Path, encoding: str, word: str) -> None:
    lines = "".join(f'"{word} {i}",{i % 2}\n' for i in range(9))
    path = put(tmp_path / "rows.csv", b"text,label\n" + lines.encode(encoding))
    error = message(path)
    assert word[:4] in error
    names = [part.removeprefix("data.encoding=") for part in error.split() if part.startswith("data.encoding=")]
    texts = {next(read_chunks(path, DataConfig(encoding=name))).columns["text"][0] for name in names}
    assert f"{word} 0" in texts
    assert len(texts) == len(names) > 1


def test_zero_bytes_that_are_not_utf16_are_refused(tmp_path: Path) -> None:
    assert "not a text file" in message(put(tmp_path / "rows.csv", b"text,label\n" + bytes(range(256)) * 9))


def test_legacy_bytes_far_down_are_named_by_line(tmp_path: Path) -> None:
    table = open_table(put(tmp_path / "rows.csv", b"text,label\n" + b"a,b\n" * 300_000 + b"caf\xe9,1\n"))
    assert [chunk.columns["text"][-1] for chunk in table.chunks][-1] == "café"
    assert "line 300002 is not UTF-8" in str(table.notices[0])


def test_reading_leaves_the_field_limit_of_the_csv_module(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = put(tmp_path / "a.csv", "text\n" + "x" * 200_000 + "\n" + "y\n" * CHUNK)
    chunks, others = read_chunks(path), read_chunks(path)
    assert [len(str(next(reader).columns["text"][0])) for reader in (chunks, others)] == [200_000] * 2
    assert csv.field_size_limit() == MAX_FIELD
    del chunks
    assert csv.field_size_limit() == MAX_FIELD  # the other file is still being read
    assert sum(len(chunk.columns["text"]) for chunk in others) == 1
    assert csv.field_size_limit() == before


def test_huge_field_is_refused(tmp_path: Path) -> None:
    fits = put(tmp_path / "fits.csv", "text,label\n" + "a" * (MAX_FIELD - 1) + ",1\n")
    assert len(columns(fits)["text"][0]) == MAX_FIELD - 1
    assert "line 2" in message(put(tmp_path / "huge.csv", "text,label\n" + "a" * (MAX_FIELD + 1) + ",1\n"))
    line = json.dumps({"text": "a" * MAX_FIELD})
    assert "line 2: longer than" in message(put(tmp_path / "huge.jsonl", '{"text": "a"}\n' + line))


@pytest.mark.parametrize(
    "content",
    [
        'text,label\n"never closed,World\nb,Sports\nc,World\n',
        'text,label\na,"World\nb,Sports\nc,World\n',  # the last field contains all later rows
        'label,text\nWorld,first\nSports,"never closed\nWorld,third\nSports,fourth\n',
        'text\none\n"two\nthree\nfour\n',
    ],
    ids=["first-field", "last-field", "text-last", "one-column"],
)
def test_unclosed_quote_does_not_hide_rows(tmp_path: Path, content: str) -> None:
    """Every line has the same number of fields if the quote is a character of its text."""
    path = put(tmp_path / "rows.csv", content)
    table = open_table(path)
    (chunk,) = table.chunks
    assert len(chunk.columns["text"]) == content.count("\n") - 1
    assert [notice.rows for notice in table.notices] == [tuple(i for i, line in enumerate(content.splitlines()[1:]) if '"' in line)]


def test_unclosed_quote_in_a_long_file_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.csv", 'text,label\na,"b\n' + "text,label\n" * (MAX_FIELD // 8))
    assert "is a quote never closed?" in message(path)
    assert sum(len(chunk.columns["text"]) for chunk in read_chunks(path, DataConfig(quotes=False))) == MAX_FIELD // 8 + 1


def test_unclosed_quote_among_quoted_fields_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.csv", 'text,label\n"whole",a\n"never closed,b\nc,a\n')
    assert "is a quote never closed?" in message(path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"text": ', "line 2: not JSON"),
        ("{'text': 'a'}", "line 2: not JSON"),
        ('{"text": "a"} {"text": "b"}', "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("9" * 5000, "line 2: not JSON"),
        ('["a", 1]', "line 2: a list, not an object"),
        ('"a"', "line 2: a str, not an object"),
        ("null", "line 2: a NoneType, not an object"),
    ],
    ids=["half", "python", "two", "deep", "number", "list", "string", "null"],
)
def test_bad_json_line_is_named(tmp_path: Path, line: str, expected: str) -> None:
    path = put(tmp_path / "rows.jsonl", f'{{"text": "a", "label": 1}}\n{line}\n')
    assert expected in message(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: put(path, '{"text": ["a", "b"], "label": 1}\n'),
        lambda path: put(path, '{"text": {"a": 1}, "label": 1}\n'),
        lambda path: pyarrow.parquet.write_table(pyarrow.table({"text": [["a", "b"]]}), path),
        lambda path: pyarrow.parquet.write_table(pyarrow.table({"text": [b"abc"]}), path),
    ],
    ids=["jsonl-list", "jsonl-object", "parquet-list", "parquet-bytes"],
)
def test_nested_cells_are_refused(tmp_path: Path, make: Callable[[Path], Any], request: Any) -> None:
    path = tmp_path / f"rows.{request.node.callspec.id.split('-')[0]}"
    make(path)
    with pytest.raises(LoralabError, match=r"column 'text' holds a"):
        read_raw(path, DataConfig())


def damaged_parquet(path: Path, how: str) -> Path:
    pyarrow.parquet.write_table(pyarrow.table({"text": [f"text number {i}" for i in range(20_000)]}), path)
    data = bytearray(path.read_bytes())
    if how == "cut":
        data = data[: len(data) // 2]
    elif how == "head":
        data[:4] = b"XXXX"
    elif how == "page":
        data[4:400] = bytes(396)
    elif how == "foot":
        data[-8:-4] = struct.pack("<i", 2**30)
    else:
        data = bytearray(b"text,label\na,1\n")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("how", ["cut", "page", "foot", "csv"])
def test_corrupt_parquet_is_reported(tmp_path: Path, how: str) -> None:
    assert "cannot be read as Parquet" in message(damaged_parquet(tmp_path / "rows.parquet", how))


def test_parquet_text_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    ends = pyarrow.py_buffer(struct.pack("<2i", 0, 2))
    wrong = pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, ends, pyarrow.py_buffer(b"d\xff")])
    pyarrow.parquet.write_table(pyarrow.table({"text": wrong}), tmp_path / "rows.parquet")
    message(tmp_path / "rows.parquet")


@pytest.mark.parametrize("ending", ["csv.gz", "jsonl.gz"])
def test_truncated_gzip_is_reported(tmp_path: Path, ending: str) -> None:
    rows = "".join(f"text number {i * i % 9973},{i % 4}\n" for i in range(5000))
    if ending.startswith("jsonl"):
        rows = "".join(json.dumps({"text": line}) + "\n" for line in rows.splitlines())
    whole = gzip.compress(("text,label\n" * ending.startswith("csv") + rows).encode())
    path = tmp_path / f"rows.{ending}"
    for size in (len(whole) - 4, len(whole) - 9, len(whole) // 2, 12):
        path.write_bytes(whole[:size])
        assert "cannot read" in message(path)


def test_gzip_in_name_only_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(b"text,label\na,b\n")
    assert columns(path) == {"text": ["a"], "label": ["b"]}


def test_gzip_with_flipped_bytes_is_reported(tmp_path: Path) -> None:
    rows = "".join(f'"text number {i * i % 9973}",{i % 4}\n' for i in range(5000))
    whole = gzip.compress(("text,label\n" + rows).encode())
    path = tmp_path / "rows.csv.gz"
    for place in range(20, len(whole), len(whole) // 40):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        path.write_bytes(broken)
        message(path)  # a LoralabError, not a zlib.error


def test_folder_without_data_is_reported(tmp_path: Path) -> None:
    assert "is a folder and no saved dataset" in message(tmp_path)


@pytest.mark.parametrize(
    "state",
    [
        "",
        "[1]",
        "{}",
        '{"_data_files": [{}]}',
        '{"_data_files": [{"filename": "gone.arrow"}]}',
        '{"_data_files": [{"filename": 3}]}',
        pytest.param('{"a": ' * 100_000, id="nested"),
    ],
)
def test_damaged_saved_folder_is_reported(tmp_path: Path, state: str) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "state.json").write_text(state)
    assert "cannot be read as a saved dataset" in message(folder)


def test_saved_folder_with_a_cut_shard_is_reported(tmp_path: Path) -> None:
    folder = saved_folder(tmp_path / "saved", [pyarrow.table({"text": [f"text {i}" for i in range(5000)]})])
    (shard,) = folder.glob("*.arrow")
    whole = shard.read_bytes()
    for size in (len(whole) // 2, 100, 3):
        shard.write_bytes(whole[:size])
        assert "cannot be read as a saved dataset" in message(folder)


@pytest.mark.parametrize("name", ["../rows.arrow", "/etc/passwd", "sub/rows.arrow"])
def test_saved_folder_may_not_point_outside(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    assert "points outside its folder" in message(folder)


def test_columns_of_csv_that_are_not_used_stay_arrow_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = Counter[str]()
    convert = ArrowColumns.__getitem__

    def count(columns: ArrowColumns, name: str) -> list[object]:
        converted[name] += 1
        return convert(columns, name)

    monkeypatch.setattr(ArrowColumns, "__getitem__", count)
    path = tmp_path / "wide.csv"
    path.write_text("notes,text,label\n" + "".join(f"n{i},good {i},{i % 2}\n" for i in range(CHUNK * 3)), encoding="utf-8")
    raw = read_raw(path, DataConfig())
    assert (len(raw.texts), raw.texts[-1], raw.labels[-1]) == (CHUNK * 3, f"good {CHUNK * 3 - 1}", "1")
    assert converted["text"] >= 3
    assert converted["notes"] < 3  # the first rows show which columns hold what


def test_a_repeated_header_far_down_a_csv_is_noted_with_its_row(tmp_path: Path) -> None:
    rows = [f"text,b {i}\n" if i % 1000 == 0 else f"good {i},a\n" for i in range(CHUNK + 9)]
    path = tmp_path / "joined.csv"
    path.write_text("text,label\n" + "".join(rows) + "text,label\n", encoding="utf-8")
    table = open_table(path)
    list(table.chunks)
    assert [notice.rows for notice in table.notices if "header is repeated" in notice.message] == [(CHUNK + 9,)]
