"""Which format a file has: by its first bytes, its suffix or its text."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loralab.data.text_files import open_bytes
from loralab.errors import LoralabError

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".feather": "arrow",
    ".arrow": "arrow",
    ".zip": "zip",
}
"""Suffix → format. Files with other suffixes are read by their content."""
PACKED = (".gz", ".bz2", ".xz")
TEXT_SUFFIXES = (".txt", ".text", ".data", ".dat")
"""Suffixes that say nothing about the format."""
BINARY = ("parquet", "arrow", "pickle", "xlsx")
"""Formats whose readers need an unpacked file."""
FASTTEXT = "__label__"
_METADATA = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")
_MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow", b"FEA1": "arrow"}
_REFUSED = {
    b"\xd0\xcf\x11\xe0": "an old Office file (.xls): save it as .xlsx or .csv",
    b"\x28\xb5\x2f\xfd": "packed by zstd: unpack it with unzstd",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"SQLite format 3": "an SQLite database: export its table as CSV",
    b"\x89HDF": "an HDF5 file: save its table as CSV or Parquet",
    b"%PDF": "a PDF document: save its table as CSV",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: fetch it with `git lfs pull`",
    b"<!doctype html": "a web page, not the data: download the file itself",
    b"<html": "a web page, not the data: download the file itself",
}
_OFFICE = {
    "xl/workbook.bin": "a binary Excel workbook (.xlsb): save it as .xlsx or .csv",
    "word/document.xml": "a Word document: save its table as .xlsx or .csv",
    "content.xml": "an OpenDocument file (.ods): save it as .xlsx or .csv",
}


def suffix_of(path: Path) -> str:
    """Return the suffix of the format, without that of a compression: `.csv` for `train.csv.gz`."""
    name = path.name.lower()
    for packed in (*PACKED, ".zip"):
        if name.endswith(packed) and "." in name.removesuffix(packed).lstrip("."):
            name = name.removesuffix(packed)
    return Path(name).suffix


def stem_of(path: Path) -> str:
    """Return the name of a file without its suffixes: `train` for `train.csv.gz`."""
    name = path.name
    for suffix in (*PACKED, ".zip", *SUFFIXES, *TEXT_SUFFIXES):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            name = name[: -len(suffix)]
    return name


def data_files(folder: Path) -> list[Path]:
    """Return the files of a folder whose suffix is that of a data file, in order."""
    known = {*SUFFIXES, *TEXT_SUFFIXES, *PACKED}
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith((".", "~$", "__")))
    return [file for file in files if suffix_of(file) in known and file.name not in _METADATA]


def file_format(path: Path) -> str:
    """Return the name of a file's format: by its first bytes if these tell it, else by its suffix, else by its text.

    Raises LoralabError for an empty file and for formats that are not read, with what to do.
    """
    if path.is_dir():
        return "dataset"
    if path.stat().st_size == 0:
        raise LoralabError(f"{path} is empty")
    if zipfile.is_zipfile(path) and (name := _zip_format(path)):
        return name
    with open_bytes(path) as file:
        start = file.read(4096)
    if start.startswith(b"PK") and suffix_of(path) == ".zip":
        raise LoralabError(f"{path} is a damaged zip archive: copy or download it again")
    if name := _binary_format(start):
        return name
    if reason := next((reason for magic, reason in _REFUSED.items() if start.lower().startswith(magic.lower())), ""):
        raise LoralabError(f"{path} is {reason}")
    suffix, begin = suffix_of(path), start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if suffix not in SUFFIXES and suffix not in (*PACKED, "", *TEXT_SUFFIXES) and b"\x00" in start:
        raise LoralabError(f"{path}: unknown file format; readable: {', '.join(SUFFIXES)}, text also as .gz, .bz2 and .xz")
    if re.match(rb"__label__[^\s,;|]+\s|[^\r\n]*\s__label__[^\s,;|]+[ \t]*[\r\n]", begin):
        return "fasttext"
    if SUFFIXES.get(suffix, "csv") in ("csv", "zip"):
        return "json" if _looks_like_json(begin, guess=suffix not in SUFFIXES) else "csv"
    return SUFFIXES[suffix]


def _binary_format(start: bytes) -> str:
    """Return the format that the first bytes tell."""
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if start.startswith(b"PK\x03\x04"):
        return "xlsx"  # packed once more, or damaged: reading it tells
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive. What its damage raises while it is read, such as NotImplementedError, becomes a LoralabError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except LoralabError:
        raise
    except Exception as error:  # zipfile and its decompressors have no error in common
        raise LoralabError(f"cannot unpack {path}: {error or type(error).__name__}; is it damaged, or encrypted?") from error


def _zip_format(path: Path) -> str:
    """Return the format of a zip archive by its members. Raises LoralabError for other documents of offices."""
    with path.open("rb") as file:
        if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
            return ""  # an archive behind other content, such as a Parquet file that holds one
    with open_archive(path) as archive:
        names = {*archive.namelist()}
    if "xl/workbook.xml" in names:
        return "xlsx"
    if reason := next((reason for name, reason in _OFFICE.items() if name in names), ""):
        raise LoralabError(f"{path} is {reason}")
    return "zip"


def _looks_like_json(begin: bytes, guess: bool) -> bool:
    """Whether a text begins like JSON. guess: whether nothing else tells the format; else the first line must be an object."""
    if guess and re.match(rb'\[\s*[\[{"]|\{\s*"', begin):
        return True
    try:
        row = json.loads(begin.splitlines()[0]) if begin.startswith(b"{") else None
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and len(row) > 1
