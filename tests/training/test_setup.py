"""Runs of one process share the tokens of equal texts, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import make_checkpoint, topics, write_csv

from loralab.config import load_config
from loralab.data import tokenize as tokenization
from loralab.data.types import Encoded, Examples
from loralab.training.setup import build_run

Prepare = Callable[..., dict[str, Encoded]]


@pytest.fixture
def tokenized(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The texts of every call of the tokenizer, starting with an empty cache."""
    calls: list[Sequence[str]] = []
    encode = tokenization.encode

    def record(examples: Examples, **settings: Any) -> Encoded:
        calls.append(examples.texts)
        return encode(examples, **settings)

    monkeypatch.setattr(tokenization, "encode", record)
    monkeypatch.setattr(tokenization, "_cache", {})
    return calls


@pytest.fixture
def parts(tiny: Path, tmp_path: Path) -> Prepare:
    """Build a run on the 81 rows of rows.csv, and return its tokens."""
    write_csv(tmp_path / "rows.csv", [*topics(20), ("Border treaty: see www.example.org.", "World")])

    def make(*settings: str) -> dict[str, Encoded]:
        config = load_config("quickstart", [f"model.base={tiny}", f"data.source={tmp_path / 'rows.csv'}", *settings])
        return dict(build_run(config, tmp_path / "run").encoded)

    return make


def test_another_seed_tokenizes_nothing_again(parts: Prepare, tokenized: list[Sequence[str]]) -> None:
    first = parts()
    assert len(tokenized) == 3
    again = parts("seed=7", "lora.rank=2", "train.epochs=9")
    assert len(tokenized) == 3
    tokenization._cache.clear()
    fresh = parts("seed=7")
    assert len(tokenized) == 6
    for name, part in fresh.items():
        for other in (first[name], again[name]):
            np.testing.assert_array_equal(other.tokens, part.tokens)
            np.testing.assert_array_equal(other.starts, part.starts)
            assert other.labels is not None
            np.testing.assert_array_equal(other.labels, part.labels)
            assert other.pad_id == part.pad_id


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        (["data.clean=urls"], 3),
        (["data.max_length=9"], 3),
        (["data.max_train_samples=16"], 1),  # the validation and test rows are the same
        (["data.split_seed=5"], 3),
    ],
)
def test_what_changes_the_tokens_is_tokenized(
    parts: Prepare, tokenized: list[Sequence[str]], settings: list[str], calls: int
) -> None:
    parts()
    after = parts(*settings)
    assert len(tokenized) == 3 + calls
    tokenization._cache.clear()
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


def test_cached_tokens_are_limited_and_read_only(
    parts: Prepare, tokenized: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = parts()["train"]
    with pytest.raises(ValueError, match="read-only"):
        rows.tokens[0] = 1
    size = sum(entry.tokens.nbytes + entry.starts.nbytes for entry in tokenization._cache.values())
    monkeypatch.setattr(tokenization, "MAX_CACHED_BYTES", size)
    parts("data.max_length=9")
    assert 0 < sum(entry.tokens.nbytes + entry.starts.nbytes for entry in tokenization._cache.values()) <= size
    parts("data.max_length=9")
    assert len(tokenized) == 6  # the most recently used stay
    monkeypatch.setattr(tokenization, "MAX_CACHED_BYTES", 0)
    parts()
    assert tokenization._cache == {}


@pytest.mark.parametrize(("settings", "steps"), [(["train.warmup=100"], "18"), (["train.warmup=3", "train.max_steps=3"], "3")])
def test_a_warm_up_as_long_as_the_training_gets_a_remark(tiny: Path, tmp_path: Path, settings: list[str], steps: str) -> None:
    config = load_config("quickstart", [f"model.base={tiny}", f"data.source={write_csv(tmp_path / 'rows.csv', topics(30))}"])
    config = config.override("train.epochs=3", "train.batch_size=16")
    message = f"the warm-up takes all {steps} steps"
    assert any(message in remark for remark in build_run(config.override(*settings), tmp_path / "run").plan.remarks)
    assert not any("warm-up" in remark for remark in build_run(config, tmp_path / "run").plan.remarks)


def test_fp16_on_a_cpu_gets_a_remark(tiny: Path, tmp_path: Path) -> None:
    config = load_config("quickstart", [f"model.base={tiny}", f"data.source={write_csv(tmp_path / 'rows.csv', topics(20))}"])
    config = config.override("train.device=cpu", "train.precision=fp16")
    assert any("train.precision=fp16" in remark for remark in build_run(config, tmp_path / "run").plan.remarks)


def test_a_head_that_no_merged_export_can_have_is_reported_before_training(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", topics(20))
    for family, head, expected in (("albert", "linear", True), ("albert", "default", False), ("bert", "linear", False)):
        base = make_checkpoint(tmp_path / f"{family}-{head}", family)
        settings = [f"model.base={base}", f"model.head={head}", "model.pooling=cls", "train.head_init=random"]
        config = load_config("quickstart", [*settings, f"data.source={tmp_path / 'rows.csv'}"])
        remarks = [remark for remark in build_run(config, tmp_path / "run").plan.remarks if "--to merged" in remark]
        assert bool(remarks) == expected, (family, head)
        assert not remarks or "train with model.pooling=cls model.head=default" in remarks[0]
