"""Paths that go on in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from loralab.config import load_config
from loralab.config.paths import split_path
from loralab.errors import LoralabError


@pytest.mark.parametrize("inner", ["Sheet 2", "folder/train.csv", "in.xlsx/Week [1]", "ü"])
def test_a_path_may_go_on_in_a_file(tmp_path: Path, inner: str) -> None:
    (tmp_path / "data.zip").write_bytes(b"x")
    assert split_path(tmp_path / "data.zip" / inner) == (tmp_path / "data.zip", inner)
    assert load_config(str(tmp_path / "data.zip" / inner)).data.source == str(tmp_path / "data.zip" / inner)


def test_other_paths_are_whole(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.csv", tmp_path / "gone" / "train.csv"):
        assert split_path(path) == (path, "")
    with pytest.raises(LoralabError, match="there is no file"):
        load_config(str(tmp_path / "gone.zip" / "train.csv"))
