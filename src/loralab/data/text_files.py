"""Text files of any encoding, compressed or not."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from loralab.data.alphabets import likely_encodings
from loralab.data.limits import BoundedReader
from loralab.data.types import Notice
from loralab.errors import LoralabError

BLOCK = 1 << 20
"""Bytes read at once; also the most bytes from which an encoding is detected."""
T = TypeVar("T")
_COMPRESSED: Mapping[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks, the longer of two with one beginning first."""
_WESTERN = ("cp1252", "cp1250", "cp1254")
_CANDIDATES = [*_WESTERN, "cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp932", "euc_jp", "gb18030", "big5", "cp949"]
"""Encodings in use before UTF-8, of which one is guessed."""
_ALPHABETS = ("cp1251", "koi8_r", "iso8859_5", "cp866", "cp1253")
"""Encodings of Cyrillic and Greek, which all read each other's bytes as letters."""
_CENTRAL_EUROPEAN = ("iso8859_2", "cp1250")
_SIGN_IN_WORD = re.compile(r"[^\W\d_][¡£¥¦ª¬¯±²³¶¹º¼½¾¿][^\W\d_]")
"""What letters such as š, ł and ą become when Central European bytes are read as cp1252."""
MIN_SURE = 20
"""Letters that are not ASCII from which their alphabet alone says that an encoding is not cp1252."""
_HALF_WIDTH = re.compile(r"[\uff61-\uff9f]")
_HIGH_BYTES = re.compile(rb"[\x80-\xff]+")


@dataclass(frozen=True)
class Encoding:
    """An encoding and the decision that led to it, if there was one to take."""

    name: str
    notice: Notice | None = None


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed if its first bytes say gzip, bzip2 or xz.

    Raises LoralabError for a file that cannot be read, is damaged, or unpacks to more than `limits.max_unpacked`.
    """
    try:
        with path.open("rb") as file:
            start = file.read(6)
        opener = next((opener for magic, opener in _COMPRESSED.items() if start.startswith(magic)), None)
        if opener is not None:
            with opener(path) as unpacked, io.BufferedReader(BoundedReader(unpacked, path), BLOCK) as bounded:
                yield bounded
        else:
            with path.open("rb") as file:
                yield file
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise LoralabError(f"cannot read {path}: {error}") from error


def is_packed(path: Path) -> bool:
    """Whether the first bytes of a file are those of gzip, bzip2 or xz."""
    with path.open("rb") as file:
        return file.read(6).startswith((*_COMPRESSED,))


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items, each from the third on made in a thread while the one before is used."""
    end = object()
    yield from islice(items, 1)
    item = next(items, end)
    if item is end:  # without a thread, because Python waits for ever for one that has no memory to start (gh-140746)
        return
    thread = ThreadPoolExecutor(1, "loralab-read")
    try:
        while item is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
            item = coming.result()
    finally:  # without waiting: the garbage collector closes an abandoned generator in any thread, this one included
        thread.shutdown(wait=False)


@contextmanager
def open_text(path: Path, encoding: str, newline: str = "") -> Iterator[IO[str]]:
    """Open a text file with its line ends as they are. Errors of reading and decoding become LoralabErrors.

    newline: what ends a line; the empty text stands for all three of LF, CR and CR LF.
    """
    with open_bytes(path) as raw:
        try:
            yield io.TextIOWrapper(raw, encoding=encoding, newline=newline)
        except UnicodeError as error:
            raise LoralabError(
                f"{path} is not {encoding} text ({error}): write its encoding, such as data.encoding=cp1252"
            ) from error


def detect_encoding(path: Path, wanted: str | None = None) -> Encoding:
    """Return the encoding of a text file: by its mark, UTF-8, UTF-16 without a mark, or by its bytes.

    The whole file is checked, in blocks. Raises LoralabError for binary files and for bytes with two likely readings.
    """
    if wanted is not None:
        try:
            name = codecs.lookup(wanted).name
        except LookupError as error:
            raise LoralabError(f"data.encoding={wanted}: Python knows no such encoding; usual are utf-8, utf-16, cp1252") from error
        return Encoding("utf-8-sig" if name == "utf-8" else name)
    with open_bytes(path) as raw:
        start = raw.read(BLOCK)
        if name := next((name for mark, name in _MARKS.items() if start.startswith(mark)), ""):
            return Encoding(name, Notice(f"encoding UTF-{name[4:]}, by its byte order mark") if name != "utf-8-sig" else None)
        if b"\x00" in start:
            return _utf16(path, start)
        decoder, position, block = codecs.getincrementaldecoder("utf-8")(), 0, start
        coming = one_ahead(iter(partial(raw.read, BLOCK), b""))
        while True:
            try:
                if not block.isascii() or not block or decoder.getstate()[0]:
                    decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                begin = error.object.rfind(b"\n", 0, error.start) + 1
                line = _line_at(path, position + len(block) - len(error.object) + error.start)
                return _legacy(path, error.object[begin:] + next(coming, b""), line)
            if not block:
                return Encoding("utf-8")
            position += len(block)
            block = next(coming, b"")


def _line_at(path: Path, position: int) -> int:
    """Return the line of a byte. Only bytes that are not UTF-8 are worth counting lines for."""
    with open_bytes(path) as raw:
        blocks = (raw.read(min(BLOCK, position - begin)) for begin in range(0, position, BLOCK))
        return 1 + sum(block.count(b"\n") for block in blocks)


def _utf16(path: Path, start: bytes) -> Encoding:
    """Return the byte order of UTF-16 without a mark: half of the bytes of most scripts' punctuation and line ends are 0."""
    pairs = len(start) // 2 * 2
    zeros = {"utf-16-be": start[0:pairs:2].count(0), "utf-16-le": start[1:pairs:2].count(0)}
    name = max(zeros, key=lambda order: zeros[order])
    if zeros[name] > 9 * min(zeros.values()) and zeros[name] * 20 > pairs:
        return Encoding(name, Notice(f"encoding {name.upper()}, without a byte order mark"))
    raise LoralabError(f"{path} is not a text file: it holds zero bytes; save it as CSV in UTF-8")


def _legacy(path: Path, bytes_: bytes, line: int) -> Encoding:
    """Return the 8-bit or East Asian encoding of bytes that are not UTF-8, the first of them at `line`."""
    runs = _HIGH_BYTES.findall(bytes_)
    western = _decodes(bytes_, "cp1252")
    if sum(map(len, runs)) < 2 * len(runs):  # single accents and marks between ASCII letters
        likely = [name for name in likely_encodings(bytes_[: 1 << 16]) if _decodes(bytes_, name)]
        if len(likely) == 1 and (sum(map(len, runs)) >= MIN_SURE or likely[0] == "cp1252" or not western):
            return _guessed(likely[0], bytes_, line)
        if likely:
            raise _unclear(path, line, bytes_, [*likely, *(["cp1252"] if western else [])])
        if not western:
            raise _unclear(path, line, bytes_, ["cp1250", "mac_roman"])
        if _SIGN_IN_WORD.search(bytes_.decode("cp1252")):
            raise _unclear(path, line, bytes_, [*_CENTRAL_EUROPEAN, "cp1252"])
        return _guessed("cp1252", bytes_, line)
    from charset_normalizer import from_bytes

    sample = b"\n".join(row for row in bytes_.splitlines() if _HIGH_BYTES.search(row))[: 1 << 16]
    match = from_bytes(sample, cp_isolation=_CANDIDATES).best()
    best = match.encoding if match is not None else ""
    if best == "cp932" and len(_HALF_WIDTH.findall(sample.decode(best, "ignore"))) > sum(map(len, _HIGH_BYTES.findall(sample))) / 2:
        best = ""  # nobody writes half-width katakana only; Cyrillic bytes read so
    if best in ("", *_WESTERN, *_ALPHABETS):
        likely = sorted((name for name in _ALPHABETS if _decodes(sample, name)), key=lambda name: -_lower_share(sample, name))[:2]
        if western or best != likely[0]:
            raise _unclear(path, line, bytes_, [*likely, *(["cp1252"] if western else [])])
    if western:
        raise _unclear(path, line, bytes_, [best, "cp1252"])
    return _guessed(best, bytes_, line)


def _unclear(path: Path, line: int, bytes_: bytes, names: Sequence[str]) -> LoralabError:
    """Return the error for bytes with several likely readings, which shows them."""
    readings = ", ".join(f"as {name} it reads {_excerpt(bytes_, name)}" for name in names)
    settings = " or ".join(f"data.encoding={name}" for name in names)
    return LoralabError(f"{path}, line {line}: not UTF-8; {readings}: write {settings}")


def _lower_share(bytes_: bytes, name: str) -> float:
    """Return the share of lower-case letters among the characters that are not ASCII: the largest where the encoding is right."""
    characters = [character for character in bytes_.decode(name) if not character.isascii()]
    return sum(map(str.islower, characters)) / max(1, len(characters))


def _guessed(name: str, bytes_: bytes, line: int) -> Encoding:
    message = f"line {line} is not UTF-8: the file is read as {name}, such as {_excerpt(bytes_, name)}"
    return Encoding(
        name,
        Notice(
            message,
            fix=f"data.encoding={'cp1250' if name == 'cp1252' else 'cp1252'}, or another, reads it otherwise",
            severity="warning",
        ),
    )


def _excerpt(bytes_: bytes, name: str) -> str:
    """Return some text around the first bytes that are not ASCII, where the readings differ."""
    high = _HIGH_BYTES.search(bytes_)
    first = high.start() if high else 0
    begin = max(bytes_.rfind(b"\n", 0, first) + 1, first - 8)
    return repr(re.split(r"[\r\n]", bytes_[begin : begin + 64].decode(name, errors="replace"))[0][:24])


def _decodes(bytes_: bytes, name: str) -> bool:
    try:
        bytes_.decode(name)
    except UnicodeDecodeError:
        return False
    return True
