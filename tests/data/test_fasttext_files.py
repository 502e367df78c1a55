"""fastText lines are read under any name; several labels of a line are refused with its number."""

from __future__ import annotations

from pathlib import Path

import pytest

from loralab.config import DataConfig
from loralab.data.sources import read_raw
from loralab.errors import LoralabError

LINES = [("sports", "The cup final, at last"), ("sci-tech", "A new chip; faster"), ("sports", 'He said "goal"')] * 4


def text(form: str = "__label__{} {}", end: str = "\n") -> str:
    return "".join(form.format(*line) + end for line in LINES)


@pytest.mark.parametrize("name", ["train.txt", "train.csv", "train.tsv", "train.ft", "train.train", "train", "[a] ü.txt"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_lines_are_read_under_any_name(tmp_path: Path, name: str, encoding: str) -> None:
    (tmp_path / name).write_text(text(), encoding=encoding)
    raw = read_raw(tmp_path / name, DataConfig(), need="required")
    assert [*zip(raw.labels, raw.texts, strict=True)] == LINES
    assert "fastText" in " ".join(map(str, raw.notices))


@pytest.mark.parametrize(
    "content",
    [
        text("__label__{}\t{}"),
        text("__label__{}  {}"),
        text(end="\r\n"),
        text(end="\n\n"),
        "\n" + text(),
        text().rstrip("\n"),
        "".join(f"{line} __label__{label}\n" for label, line in LINES),
        "".join(f"__label__{label} __label__{label} {line}\n" for label, line in LINES),
    ],
    ids=["tab", "spaces", "crlf", "blank", "blank first", "no end", "label last", "label twice"],
)
def test_lines_of_other_forms(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_bytes(content.encode())
    raw = read_raw(tmp_path / "a.txt", DataConfig(), need="required")
    assert [*zip(raw.labels, raw.texts, strict=True)] == LINES


def test_a_line_without_a_label_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("__label__a one\ntwo\n__label__b\n")
    raw = read_raw(tmp_path / "a.txt", DataConfig(), need="required")
    assert (raw.texts, raw.labels) == (["one", "two", ""], ["a", None, "b"])


@pytest.mark.parametrize("content", ["__label__a x\n\n__label__a __label__b y\n", "__label__c z\n\n__label__a y __label__b\n"])
def test_several_labels_are_refused_with_the_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(LoralabError, match="several labels in line 3, such as a, b"):
        read_raw(tmp_path / "a.txt", DataConfig())


def test_csv_with_prefixed_labels_stays_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "label,text\n" + "".join(f'__label__{label},"{i}, then"\n' for i, (label, _) in enumerate(LINES))
    )
    assert read_raw(tmp_path / "a.csv", DataConfig()).texts == [f"{i}, then" for i in range(len(LINES))]
    (tmp_path / "b.csv").write_text("".join(f'__label__{label},"{i}, then"\n' for i, (label, _) in enumerate(LINES)))
    assert len(read_raw(tmp_path / "b.csv", DataConfig(text=["column2"], label="column1")).texts) == len(LINES)
