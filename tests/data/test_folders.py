"""The parts of a folder: shards, snapshots of the hub, any case and format; two files for one part are refused."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

from loralab.config import DataConfig
from loralab.data.folders import find_parts
from loralab.data.sources import load_source
from loralab.errors import LoralabError


def frame(part: str, rows: int = 8) -> pandas.DataFrame:
    return pandas.DataFrame({"text": [f"{part} {i}" for i in range(rows)], "label": ["no", "yes"] * (rows // 2)})


def write(path: Path, part: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = frame(part)
    if path.suffix == ".parquet":
        content.to_parquet(path)
    elif path.suffix in (".pkl", ".pickle"):
        content.to_pickle(path)
    elif path.suffix in (".jsonl", ".ndjson"):
        content.to_json(path, orient="records", lines=True)
    elif path.suffix == ".json":
        content.to_json(path, orient="records")
    else:
        content.to_csv(path, index=False, sep="\t" if ".tsv" in path.suffixes else ",")


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "test.csv"),
        ("Train.csv", "TEST.CSV"),
        ("train.pkl", "test.pickle"),
        ("train.csv", "test.pkl"),
        ("train.ndjson", "valid.ndjson", "test.jsonl"),
        ("train.json", "dev.json"),
        ("train-1.csv",),
        ("train.csv.gz", "val.tsv"),
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("train-00000-of-00001.parquet", "validation-00000-of-00001.parquet"),
        ("data/train-00000-of-00001-0123456789abcdef.parquet",),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("plain_text/train-00000-of-00001.parquet",),
    ],
)
def test_the_parts_of_a_folder_are_found(tmp_path: Path, names: tuple[str, ...]) -> None:
    kinds = {"tra": "train", "val": "validation", "dev": "validation", "tes": "test"}
    expected = {}
    for name in names:
        parts = [part for part in Path(name.casefold()).parts if part[:3] in kinds]
        expected[kinds[parts[0][:3]]] = tmp_path / name
        write(tmp_path / name, kinds[parts[0][:3]])
    found = find_parts(str(tmp_path))
    assert {part: getattr(found, part)[0] for part in expected} == expected
    assert not any(getattr(found, part) for part in {"validation", "test"} - expected.keys())
    source = load_source(DataConfig(source=str(tmp_path)))
    assert source.train.texts == [f"train {i}" for i in range(8)]


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    for i in (10, 2, 1):
        write(tmp_path / "data" / f"train-{i}.parquet", f"shard {i}")
    source = load_source(DataConfig(source=str(tmp_path)))
    assert source.train.texts == [f"shard {i} {row}" for i in (1, 2, 10) for row in range(8)]
    assert source.train.rows.tolist() == list(range(24))
    assert "3 files are read in order, from train-1.parquet to train-10.parquet" in " ".join(map(str, source.notices["train"]))


@pytest.mark.parametrize(
    "names", [("train.csv", "train.jsonl"), ("train.csv", "Train.tsv"), ("train.csv", "training.csv"), ("train.csv", "train-1.csv")]
)
def test_two_files_for_one_part_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write(tmp_path / name, "train")
    with pytest.raises(LoralabError, match="several files for one part") as error:
        find_parts(str(tmp_path))
    assert all(name in str(error.value) for name in names)
    assert len(load_source(DataConfig(source=str(tmp_path / names[0]))).train) == 8


def test_data_files_that_are_no_part_are_said(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv", "sample_submission.csv", "extra.tsv"):
        write(tmp_path / name, "train")
    (tmp_path / "README.md").write_text("notes")
    (notice,) = find_parts(str(tmp_path)).notices
    assert f"not used: extra.tsv, sample_submission.csv in {tmp_path}" in str(notice)


def test_a_folder_without_a_training_part_lists_what_it_holds(tmp_path: Path) -> None:
    for name in ("reviews.csv", "test.csv"):
        write(tmp_path / name, "x")
    with pytest.raises(LoralabError, match=r"no training part: expected train\.csv, .*; it holds reviews\.csv, test\.csv"):
        find_parts(str(tmp_path))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_saved_dataset_dict_keeps_its_validation_part(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    parts = {name: datasets.Dataset.from_pandas(frame(name)) for name in ("train", "validation", "test")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved", num_shards={"train": 3, "validation": 1, "test": 1})
    source = load_source(DataConfig(source=str(tmp_path / "saved")))
    for part, examples in (("train", source.train), ("validation", source.validation), ("test", source.test)):
        assert examples is not None
        assert examples.texts == [f"{part} {i}" for i in range(8)]
