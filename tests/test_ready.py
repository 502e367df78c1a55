"""What runs of one process share: the same texts are tokenized once, and nothing else is the same that should not be."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import topics, write_csv

from loralab.config import load_config
from loralab.data import tokenize as encoding
from loralab.data.types import Encoded, Examples
from loralab.training.setup import build_run

Prepare = Callable[..., dict[str, Encoded]]


@pytest.fixture
def tokenized(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The texts of every call of the tokenizer, in a process that has kept none so far."""
    heard: list[Sequence[str]] = []
    encode = encoding.encode

    def listen(examples: Examples, **settings: Any) -> Encoded:
        heard.append(examples.texts)
        return encode(examples, **settings)

    monkeypatch.setattr(encoding, "encode", listen)
    monkeypatch.setattr(encoding, "_kept", {})
    return heard


@pytest.fixture
def parts(tiny: Path, tmp_path: Path) -> Prepare:
    """Prepare a run on 81 rows of its own file, rows.csv, and return its tokens."""
    write_csv(tmp_path / "rows.csv", [*topics(20), ("Border treaty: see www.example.org.", "World")])

    def make(*settings: str) -> dict[str, Encoded]:
        config = load_config("quickstart", [f"model.base={tiny}", f"data.source={tmp_path / 'rows.csv'}", *settings])
        return dict(build_run(config, tmp_path / "run").parts)

    return make


def test_another_seed_tokenizes_nothing_again(parts: Prepare, tokenized: list[Sequence[str]]) -> None:
    first = parts()
    assert len(tokenized) == 3
    again = parts("seed=7", "lora.rank=2", "train.epochs=9")
    assert len(tokenized) == 3
    encoding._kept.clear()
    anew = parts("seed=7")
    assert len(tokenized) == 6
    for name, part in anew.items():
        for found in (first[name], again[name]):
            np.testing.assert_array_equal(found.tokens, part.tokens)
            np.testing.assert_array_equal(found.starts, part.starts)
            assert found.labels is not None
            np.testing.assert_array_equal(found.labels, part.labels)
            assert found.pad_id == part.pad_id


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        (["data.clean=urls"], 3),
        (["data.max_length=9"], 3),
        (["data.max_train_samples=16"], 1),  # validation and test rows stay
        (["data.split_seed=5"], 3),
    ],
)
def test_what_changes_the_tokens_is_tokenized(
    parts: Prepare, tokenized: list[Sequence[str]], settings: list[str], calls: int
) -> None:
    parts()
    after = parts(*settings)
    assert len(tokenized) == 3 + calls
    encoding._kept.clear()
    for name, part in parts(*settings).items():
        np.testing.assert_array_equal(after[name].tokens, part.tokens)


def test_a_file_that_changed_is_seen_whatever_its_date_and_size(
    parts: Prepare, tokenized: list[Sequence[str]], tmp_path: Path
) -> None:
    parts()
    path = tmp_path / "rows.csv"
    old, stat = path.read_bytes(), path.stat()
    path.write_bytes(old.replace(b"goal", b"bank").replace(b"Goal", b"Bank"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    parts()
    assert len(tokenized) > 3
    assert any("bank" in text for texts in tokenized[3:] for text in texts)
    assert not any("goal" in text for texts in tokenized[3:] for text in texts)


def test_kept_tokens_are_bounded_and_cannot_be_written_to(
    parts: Prepare, tokenized: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = parts()["train"]
    with pytest.raises(ValueError, match="read-only"):
        found.tokens[0] = 1
    size = sum(kept.tokens.nbytes + kept.starts.nbytes for kept in encoding._kept.values())
    monkeypatch.setattr(encoding, "KEPT_BYTES", size)
    parts("data.max_length=9")
    assert 0 < sum(kept.tokens.nbytes + kept.starts.nbytes for kept in encoding._kept.values()) <= size
    parts("data.max_length=9")
    assert len(tokenized) == 6  # the newest were kept
    monkeypatch.setattr(encoding, "KEPT_BYTES", 0)
    parts()
    assert encoding._kept == {}
