"""Encodings of text files, with the line where they show."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from loralab.data import text_files
from loralab.data.arrow_csv import read_blocks
from loralab.data.delimited import Dialect
from loralab.data.text_files import BLOCK, Encoding, detect_encoding, is_packed, one_ahead, open_text
from loralab.errors import LoralabError


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(LoralabError) as error:
        detect_encoding(path)
    return str(error.value)


@pytest.mark.parametrize(
    ("wanted", "name"), [("UTF8", "utf-8-sig"), ("latin1", "iso8859-1"), ("windows-1250", "cp1250"), ("UTF-16", "utf-16")]
)
def test_a_named_encoding_is_taken(tmp_path: Path, wanted: str, name: str) -> None:
    assert detect_encoding(put(tmp_path / "a", b"\x81"), wanted) == Encoding(name)


@pytest.mark.parametrize("name", ["utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_marks_tell_the_encoding(tmp_path: Path, name: str) -> None:
    mark = "" if name == "utf-8-sig" else "\ufeff"
    detected = detect_encoding(put(tmp_path / "a", (mark + "text\n").encode(name)))
    assert detected.name == ("utf-8-sig" if name == "utf-8-sig" else name[:-3])
    assert (detected.notice is None) == (name == "utf-8-sig")


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("odd", [b"", b"\x00"])
def test_zero_bytes_show_the_order_of_utf16(tmp_path: Path, order: str, odd: bytes) -> None:
    few_zeros = "日本語の文章です、天気" * 10 + "\n" * 13  # 13 of 246 bytes are zero
    for text in ("text,label\n", few_zeros):
        assert detect_encoding(put(tmp_path / "a", text.encode(order) + odd)).name == order
    assert "zero bytes" in refused(put(tmp_path / "a", ("日本語の文章です、天気" * 10 + "\n" * 12).encode(order)))
    balanced = b"a\x00" * 9 + b"\x00a"
    assert "zero bytes" in refused(put(tmp_path / "a", balanced))
    assert detect_encoding(put(tmp_path / "a", b"a\x00" * 10 + b"\x00a")).name == "utf-16-le"


@pytest.mark.parametrize(
    ("before", "line"),
    [(b"text\n", 2), (b"", 1), (b"\n" * 3 + b"ab ", 4), (b"x\n" * BLOCK, BLOCK + 1), (b"x" * (BLOCK - 2) + "é\né ".encode(), 2)],
)
def test_the_line_of_the_first_other_byte_is_named(tmp_path: Path, before: bytes, line: int) -> None:
    detected = detect_encoding(put(tmp_path / "a", before + b"caf\xe9 au lait\nplain\n"))
    assert detected.name == "cp1252"
    assert detected.notice is not None
    assert f"line {line} is not UTF-8" in detected.notice.message
    assert "'caf\u00e9 au lait'" in detected.notice.message or "caf\u00e9 au" in detected.notice.message


def test_utf8_is_read_whatever_divides_its_characters(tmp_path: Path) -> None:
    for content in (b"x" * (BLOCK - 1) + "é".encode(), "é".encode() * BLOCK, b"", b"x"):
        assert detect_encoding(put(tmp_path / "a", content)) == Encoding("utf-8")
    assert "not UTF-8" in detect_encoding(put(tmp_path / "a", b"abc \xc3")).notice.message  # type: ignore[union-attr]


def test_few_letters_with_a_sign_in_a_word_show_three_readings(tmp_path: Path) -> None:
    error = refused(put(tmp_path / "rows.csv", "text\nplain\nbyła droga\n".encode("cp1250")))
    assert error.startswith(f"{tmp_path / 'rows.csv'}, line 3: not UTF-8")
    assert error.endswith("write data.encoding=iso8859_2 or data.encoding=cp1250 or data.encoding=cp1252")
    assert "as cp1250 it reads 'była droga'" in error
    assert detect_encoding(put(tmp_path / "rows.csv", "text\n20 m³ of £5\n".encode("cp1252"))).name == "cp1252"


def test_bytes_that_cp1252_lacks_are_refused_or_read_otherwise(tmp_path: Path) -> None:
    error = refused(put(tmp_path / "rows.csv", b"text\nx\x8f y\n"))
    assert error.endswith("data.encoding=cp1250 or data.encoding=mac_roman")
    japanese = "この製品はとても良いです。電話はすぐに届きました。品質も問題ありません。\n昨日買いました。使いやすいです。"
    detected = detect_encoding(put(tmp_path / "rows.csv", f"text\n{japanese}\n".encode("cp932")))
    assert detected.name in ("cp932", "cp949")
    assert detected.notice is not None
    assert "line 2 is not UTF-8" in detected.notice.message


def test_alphabets_are_ordered_by_their_share_of_small_letters(tmp_path: Path) -> None:
    russian = "Товар отличный, доставка была очень быстрой, спасибо магазину.\n"
    for name in ("cp1251", "koi8_r", "iso8859_5"):
        error = refused(put(tmp_path / "rows.csv", b"text\n" + russian.encode(name) * 3))
        assert f"line 2: not UTF-8; as {name} it reads 'Товар отличный, доставка'" in error
        assert error.count("data.encoding=") == 3


def test_packed_files_are_recognized_and_read(tmp_path: Path) -> None:
    packed, plain = put(tmp_path / "a.gz", gzip.compress("é\r\n".encode())), put(tmp_path / "b", b"\x1f text\n")
    assert (is_packed(packed), is_packed(plain)) == (True, False)
    with open_text(packed, "utf-8") as file:
        assert file.read() == "é\r\n"
    with pytest.raises(LoralabError, match="cannot read"), open_text(put(packed, b"\x1f\x8b\x08damaged"), "utf-8") as file:
        file.read()
    with pytest.raises(LoralabError, match=r"is not ascii text .*data\.encoding"), open_text(put(plain, b"\xe9"), "ascii") as file:
        file.read()


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_thread_makes_all_items_but_the_first_two(count: int) -> None:
    makers: list[str] = []

    def items() -> Iterator[int]:
        for number in range(count):
            makers.append(threading.current_thread().name)
            yield number

    assert list(one_ahead(items())) == list(range(count))
    own = threading.current_thread().name
    assert makers[:2] == [own] * min(count, 2)
    assert all(name.startswith("loralab-read") for name in makers[2:])


def test_a_small_file_is_read_without_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python waits for ever for a thread that has no memory to start (gh-140746)."""
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nan é,a\nb,b\n", encoding="utf-8")
    monkeypatch.setattr(text_files, "ThreadPoolExecutor", None)
    assert [table.num_rows for table in read_blocks(path, Dialect(delimiter=","), "utf-8", ("text", "label"), True, [])] == [2]
    assert detect_encoding(path).name == "utf-8"
