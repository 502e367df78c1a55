"""Checkpoint files are complete or absent, and refused when damaged."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from loralab.errors import LoralabError, RunFailed
from loralab.storage import run_folder
from loralab.training.checkpoint import Checkpoint

TENSORS = {"weight.0": torch.arange(6.0).view(2, 3), "best.0": torch.full((2, 3), 0.5)}
VALUES = {"step": 7, "scores": {"f1:Läden": 0.1 + 0.2}, "early_stopping": {"best": None, "waited": 0}}


def test_a_saved_checkpoint_can_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert Checkpoint.load_if_any(path) is None
    Checkpoint(TENSORS, VALUES).save(path)
    loaded = Checkpoint.load_if_any(path)
    assert loaded is not None
    assert loaded.values == VALUES
    assert loaded.step == 7
    assert loaded.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(loaded.tensors[name], TENSORS[name]) for name in TENSORS)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 4, 20, -8])
def test_a_damaged_checkpoint_is_refused_with_advice(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.safetensors"
    Checkpoint(TENSORS, VALUES).save(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(LoralabError, match=r"a\.safetensors is damaged.*--overwrite"):
        Checkpoint.load(path)


def test_a_file_without_a_state_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(TENSORS, tmp_path / "a.safetensors")
    with pytest.raises(LoralabError, match="is damaged"):
        Checkpoint.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_full_disk_leaves_the_old_checkpoint_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    run = run_folder.RunFolder(tmp_path)
    run.save_checkpoint(Checkpoint(TENSORS, VALUES))
    before = run.checkpoint.read_bytes()

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(RunFailed, match="No space left"):
        run.save_checkpoint(Checkpoint(TENSORS, {**VALUES, "step": 8}))
    assert run.checkpoint.read_bytes() == before
    assert list(tmp_path.iterdir()) == [run.checkpoint]


def test_a_checkpoint_that_cannot_be_written_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFailed, match="cannot write"):
        run_folder.RunFolder(tmp_path / "file").save_checkpoint(Checkpoint(TENSORS, VALUES))


def test_a_flipped_bit_of_a_checkpoint_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    Checkpoint(TENSORS, VALUES).save(path)
    whole = path.read_bytes()
    refusals = 0
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
        try:
            loaded = Checkpoint.load(path)
        except LoralabError:
            refusals += 1
            continue
        assert loaded.values == VALUES
        assert loaded.tensors.keys() == TENSORS.keys()
        assert all(torch.equal(loaded.tensors[name], TENSORS[name]) for name in TENSORS)
    assert refusals > 0.95 * len(whole)  # the rest is padding


def test_a_checkpoint_of_a_later_format_is_refused_and_one_without_a_checksum_opens(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = '{"step": 7}'
    save_file(TENSORS, tmp_path / "old.safetensors", {"state": state})
    assert Checkpoint.load(tmp_path / "old.safetensors").step == 7
    save_file(TENSORS, tmp_path / "new.safetensors", {"state": state, "format_version": "3", "sha256": "0"})
    with pytest.raises(LoralabError, match=r"newer loralab \(format 3; this one reads up to 2\): upgrade"):
        Checkpoint.load(tmp_path / "new.safetensors")
