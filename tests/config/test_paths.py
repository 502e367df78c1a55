"""Paths that go on in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from loralab.config import load_config
from loralab.config.paths import MINILM_HUB_ID, hub_id, local_path, similar_file, split_path
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


@pytest.mark.parametrize(
    ("base", "hub"),
    [
        ("minilm", MINILM_HUB_ID),
        ("roberta-base", "roberta-base"),
        ("microsoft/deberta-v3-base", "microsoft/deberta-v3-base"),
        ("a/b/c", None),
        ("/models/bert", None),
        ("./bert", None),
        ("bert base", None),
        ("", None),
    ],
)
def test_a_base_is_a_hub_id_or_a_folder(base: str, hub: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub_id(base) == hub
    if hub and base != "minilm":
        (tmp_path / base).mkdir(parents=True)
        assert hub_id(base) is None, "a folder of that name comes first"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("https://a.org/x.csv", "https://a.org/x.csv is an address: download it first, with `curl -LO https://a.org/x.csv`, and"),
        (
            "http:/a.org/x:/y.csv",
            "http://a.org/x:/y.csv is an address: download it first, with `curl -LO http://a.org/x:/y.csv`, and",
        ),
        (
            "hf://datasets/fancyzhx/ag_news/train.parquet",
            "hf://datasets/fancyzhx/ag_news/train.parquet is on the Hugging Face hub: download it first, with `hf download "
            "--repo-type dataset fancyzhx/ag_news --local-dir ag_news`, and name the folder",
        ),
        (
            "hf:/datasets/sst2",
            "hf:/datasets/sst2 is on the Hugging Face hub: download it first, with `hf download --repo-type dataset ",
        ),
    ],
)
def test_an_address_is_refused_with_the_command_that_downloads_it(path: str, message: str) -> None:
    with pytest.raises(LoralabError) as error:
        local_path(path)
    assert str(error.value).startswith(message)
    assert str(error.value).endswith("name the file" if path.startswith("http") else "name the folder")


def test_other_paths_are_local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/x.csv") == tmp_path / "x.csv"
    assert local_path(Path("a/http:/x.csv")) == Path("a/http:/x.csv")


def test_a_misspelt_file_suggests_the_nearest_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "train.csv").touch()
    assert similar_file(tmp_path / "trian.csv") == "; did you mean 'train.csv'?"
    assert similar_file(tmp_path / "zzz") == similar_file(tmp_path / "gone" / "train.csv") == ""
    with pytest.raises(LoralabError) as error:
        load_config(str(tmp_path / "trian.csv"))
    assert str(error.value) == f"there is no file {tmp_path / 'trian.csv'}; did you mean 'train.csv'?"
