"""Zip archives, packed binary files, and contents that the suffix does not tell."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import threading
import zipfile
from pathlib import Path
from typing import Any

import pandas
import pyarrow.feather
import pytest

from loralab.config import DataConfig
from loralab.data.archives import data_members
from loralab.data.sources import load_source, read_raw
from loralab.errors import LoralabError

FRAME = pandas.DataFrame({"text": [f"number, {i}" for i in range(6)], "label": ["neg", "pos"] * 3})


def buffered(write: Any) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


CSV = FRAME.to_csv(index=False).encode()
CONTENTS: dict[str, bytes] = {
    "csv": CSV,
    "tsv": FRAME.to_csv(index=False, sep="\t").encode(),
    "json": FRAME.to_json(orient="records").encode(),
    "jsonl": FRAME.to_json(orient="records", lines=True).encode(),
    "parquet": buffered(FRAME.to_parquet),
    "pkl": pickle.dumps(FRAME),
    "feather": buffered(lambda file: pyarrow.feather.write_feather(FRAME, file)),
    "xlsx": buffered(lambda file: FRAME.to_excel(file, index=False)),
    "txt": "".join(f"__label__{row.label} {row.text}\n" for row in FRAME.itertuples()).encode(),
}


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def check(path: Path) -> None:
    raw = read_raw(path, DataConfig(), need="required")
    assert (raw.texts, [*map(str, raw.labels)]) == ([*FRAME["text"]], [*FRAME["label"]])


def refused(path: Path) -> str:
    with pytest.raises(LoralabError) as error:
        read_raw(path, DataConfig(), need="required")
    return str(error.value)


@pytest.mark.parametrize("kind", CONTENTS)
def test_every_format_is_read_from_a_zip_archive(tmp_path: Path, kind: str) -> None:
    check(zipped(tmp_path / "a.zip", **{f"folder/rows.{kind}": CONTENTS[kind]}))
    check(zipped(tmp_path / f"rows.{kind}.zip", **{f"rows.{kind}": CONTENTS[kind]}))


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_every_format_is_read_packed(tmp_path: Path, kind: str, pack: Any) -> None:
    suffix = {gzip.compress: "gz", bz2.compress: "bz2", lzma.compress: "xz"}[pack]
    path = tmp_path / f"rows.{kind}.{suffix}"
    path.write_bytes(pack(CONTENTS[kind]))
    check(path)


@pytest.mark.parametrize("kind", ["parquet", "pkl", "feather", "xlsx"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.json", "rows.txt", "rows", "rows.dat"])
def test_binary_formats_are_recognised_by_their_content(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(CONTENTS[kind])
    check(tmp_path / name)


@pytest.mark.parametrize("content", [zipped, gzip.compress], ids=["zip", "gzip"])
def test_packed_files_called_csv_are_read(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "fake.csv"
    if content is zipped:
        zipped(path, **{"ok.csv": CSV})
    else:
        path.write_bytes(content(CSV))
    check(path)


def test_what_is_no_data_is_no_member(tmp_path: Path) -> None:
    clutter = {"README.md": b"x", "LICENSE": b"y", "__MACOSX/._rows.csv": b"z", ".DS_Store": b"", "notes.txt": b"by us"}
    check(zipped(tmp_path / "a.zip", **{"rows.csv": CSV}, **clutter))


def test_several_members_are_refused_with_paths_that_work(tmp_path: Path) -> None:
    path = zipped(tmp_path / "my data.zip", **{"one.csv": CSV, "in/two.jsonl": CONTENTS["jsonl"], "book.xlsx": CONTENTS["xlsx"]})
    assert f"3 files (one.csv, in/two.jsonl, book.xlsx): name one, such as '{path}/one.csv'" in refused(path)
    for name in ("one.csv", "in/two.jsonl", "book.xlsx", "book.xlsx/Sheet1"):
        check(path / name)
    assert "no file two.csv but 3 files" in refused(path / "two.csv")


@pytest.mark.parametrize(
    "names", [("train.csv", "test.csv"), ("x/train.csv", "x/test.csv"), ("Train-0.csv", "Train-1.csv", "Test.csv")]
)
def test_members_called_by_parts_are_the_parts(tmp_path: Path, names: tuple[str, ...]) -> None:
    source = load_source(DataConfig(source=str(zipped(tmp_path / "a.zip", **dict.fromkeys(names, CSV)))))
    assert len(source.train) == 6 * (len(names) - 1)
    assert source.test is not None
    assert len(source.test) == 6


def test_messages_name_the_archive_not_a_temporary_file(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", **{"rows.csv": b"text,label\na,b\nc\n"})
    message = refused(path)
    assert message.startswith(f"{path}: row 1 (line 3)")
    assert "/tmp/tmp" not in message.replace(str(tmp_path), "")


def test_a_file_of_one_table_has_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    assert f"name the file itself, {tmp_path / 'a.csv'}" in refused(tmp_path / "a.csv" / "train")


def test_a_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(CSV))
    writer.start()
    check(pipe)
    writer.join()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.zip", zipped, "0 files (nothing)"),
        ("a.zip", b"PK\x03\x04" + bytes(50), "damaged zip archive"),
        ("a.csv", b"\x28\xb5\x2f\xfd\x00\x01", "packed by zstd"),
        ("a.csv", b"<!DOCTYPE html><html><body>log in</body></html>", "a web page, not the data"),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        ("a.db", b"SQLite format 3\x00" + bytes(99), "an SQLite database"),
        ("a.csv", b"%PDF-1.7\n\x00", "a PDF document"),
        ("a.feather", b"ARROW1xx", "cannot be read as an Arrow or Feather file"),
        ("a.bin", bytes(range(256)), "unknown file format"),
    ],
)
def test_other_contents_are_refused_with_what_to_do(tmp_path: Path, name: str, content: Any, expected: str) -> None:
    path = tmp_path / name
    if content is zipped:
        zipped(path)
    else:
        path.write_bytes(content)
    assert expected in refused(path)


def test_an_archive_in_an_archive_is_refused(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "in.zip", **{"rows.csv": CSV}).read_bytes()
    assert "unpack it" in refused(zipped(tmp_path / "a.zip", **{"in.zip": inner}))


@pytest.mark.parametrize(
    ("names", "members"),
    [
        (["a.csv", "README.txt", "__MACOSX/a.csv", ".b.csv", "c/.d.csv"], ["a.csv"]),
        (["README.txt", "a.md"], ["README.txt"]),
        (["a.md", "b"], ["a.md", "b"]),
        (["x/b.jsonl", "x/a.csv.gz", "x/"], ["x/b.jsonl", "x/a.csv.gz"]),
        ([], []),
    ],
)
def test_members_that_hold_data(tmp_path: Path, names: list[str], members: list[str]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "x")
        assert data_members(archive) == members
