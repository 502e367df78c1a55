"""The parts of a folder: shards, snapshots of the hub, any case and format; two files for one part are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pandas
import pytest

from loralab.config import DataConfig
from loralab.data.folders import PART_WORDS, _part_of, _tables, find_parts
from loralab.data.sources import load_source, read_raw
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
    elif path.suffix == ".xlsx":
        content.to_excel(path, index=False)
    elif path.suffix == ".txt":
        path.write_text("".join(f"__label__{row.label} {row.text}\n" for row in content.itertuples()))
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
        ("data/train-00000-of-00001.parquet", "data/valid-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("sms_train.csv", "sms-test.csv"),
        ("[1] train.csv", "[1] test.csv"),
        ("данные train.csv", "данные test.csv"),
        ("train (1).csv",),
        ("train.txt", "valid.txt", "test.txt"),
        ("train.xlsx", "test.csv"),
        ("Training.csv", "Testing.csv", "Validation.csv"),
        ("raw files/train.csv", "raw files/test.csv"),
    ],
)
def test_the_parts_of_a_folder_are_found(tmp_path: Path, names: tuple[str, ...]) -> None:
    kinds = {word: part for part, words in PART_WORDS.items() for word in words}
    expected = {}
    for name in names:
        (part,) = {part for word, part in kinds.items() if word in re.split(r"[^a-z]+", name.casefold())}
        expected[part] = tmp_path / name
        write(tmp_path / name, part)
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
    "names",
    [
        ("train.csv", "train.jsonl"),
        ("train.csv", "Train.tsv"),
        ("train.csv", "training.csv"),
        ("train.csv", "train-1.csv"),
        ("train.csv", "train.csv.gz"),
        ("train_a.csv", "train_b.csv"),
        ("train/a.csv", "train/b.csv"),
        ("train.csv", "train/0.csv"),
    ],
)
def test_two_files_for_one_part_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write(tmp_path / name, "train")
    with pytest.raises(LoralabError, match="several files for one part") as error:
        find_parts(str(tmp_path))
    assert all(Path(name).name in str(error.value) for name in names)
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


@pytest.mark.parametrize("names", [("test.csv", "test.pkl"), ("test.csv", "Test.tsv"), ("my_test.csv", "old_test.csv")])
def test_two_test_files_are_refused_with_settings_that_work(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in ("train.csv", *names):
        write(tmp_path / name, name)
    with pytest.raises(LoralabError, match="several files for one part, test") as error:
        load_source(DataConfig(source=str(tmp_path)))
    settings = dict(re.findall(r"data\.(\w+)=(\S+)", str(error.value)))
    assert settings["source"] == str(tmp_path / "train.csv")
    test = load_source(DataConfig(**settings)).test
    assert test is not None
    assert len(test) == 8


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    for i in (0, 2):
        write(tmp_path / "data" / f"train-0000{i}-of-00003.parquet", "x")
    with pytest.raises(LoralabError, match="1 of 3 shards are missing"):
        find_parts(str(tmp_path))


def test_several_folders_with_training_parts_are_refused_with_settings_that_work(tmp_path: Path) -> None:
    for name in ("en", "de"):
        write(tmp_path / name / "train-00000-of-00001.parquet", name)
    with pytest.raises(LoralabError) as error:
        find_parts(str(tmp_path))
    assert f"data.source={tmp_path / 'de'} or data.source={tmp_path / 'en'}" in str(error.value)
    assert load_source(DataConfig(source=str(tmp_path / "en"))).train.texts[0] == "en 0"


def test_a_training_part_comes_before_those_of_inner_folders(tmp_path: Path) -> None:
    for name in ("train.csv", "old/train.csv", "runs/log.csv"):
        write(tmp_path / name, name)
    parts = find_parts(str(tmp_path))
    assert parts.train == (tmp_path / "train.csv",)
    assert [str(notice) for notice in parts.notices] == [f"not used: old/ in {tmp_path}"]


def test_the_only_data_file_of_a_folder_is_for_training(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv", "x")
    (tmp_path / "README.md").write_text("notes")
    parts = find_parts(str(tmp_path))
    assert parts.train == (tmp_path / "reviews.csv",)
    assert "reviews.csv is the only data file" in str(parts.notices[0])
    (tmp_path / "reviews.csv").rename(tmp_path / "sample_submission.csv")
    with pytest.raises(LoralabError, match="no training part"):
        find_parts(str(tmp_path))


def test_a_folder_to_read_names_its_files(tmp_path: Path) -> None:
    for name in ("sample_submission.csv", "train.csv", "test.csv"):
        write(tmp_path / name, name)
    with pytest.raises(LoralabError, match=r"is a folder and no saved dataset: name what to read, such as .*test\.csv; it holds"):
        read_raw(tmp_path, DataConfig())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_parts_of_a_saved_dataset_dict_are_said(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    parts = {name: datasets.Dataset.from_pandas(frame(name)) for name in ("train", "unsupervised")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert "not used: unsupervised" in str(find_parts(str(tmp_path / "saved")).notices[0])
    with pytest.raises(LoralabError, match="saved/train"):
        read_raw(tmp_path / "saved", DataConfig())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train.csv", "validation.jsonl", "TEST.csv"), []),
        (("train.csv", "dev.csv"), ["validation: dev.csv"]),
        (("training.csv", "eval.csv", "test-1.csv"), ["train: training.csv", "validation: eval.csv"]),
        (("sms_train.csv", "sms_test.csv"), ["train: sms_train.csv", "test: sms_test.csv"]),
    ],
)
def test_files_of_other_names_are_said(tmp_path: Path, names: tuple[str, ...], expected: list[str]) -> None:
    for name in names:
        write(tmp_path / name, name)
    assert [str(notice) for notice in find_parts(str(tmp_path)).notices] == expected


def test_a_folder_without_a_training_part_says_what_it_holds_and_what_to_write(tmp_path: Path) -> None:
    folder = tmp_path / "my data"
    write(folder / "reviews.csv", "a")
    write(folder / "test.csv", "b")
    expected = (
        f"{folder} has no training part: expected train.csv, .jsonl, .parquet or the like, or a saved dataset in train/; it holds "
    )
    with pytest.raises(LoralabError) as error:
        find_parts(str(folder))
    assert str(error.value) == (
        f"{expected}reviews.csv, test.csv: name the training file, such as data.source='{folder / 'reviews.csv'}'"
    )
    (folder / "reviews.csv").rename(folder / "sample_submission.csv")
    with pytest.raises(LoralabError) as error:
        find_parts(str(folder))
    assert str(error.value) == f"{expected}sample_submission.csv, test.csv"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *(
            ("train", ("train", True)),
            ("Training", ("train", True)),
            ("my_train", ("train", False)),
            ("train-00000", ("train", True)),
        ),
        *(("dev", ("validation", True)), ("val", ("validation", True)), ("x.valid.1", ("validation", False))),
        *(
            ("test2", ("test", True)),
            ("testing", ("test", True)),
            ("latest", None),
            ("trained", None),
            ("train_test", None),
            ("", None),
        ),
    ],
)
def test_names_of_parts(name: str, part: tuple[str, bool] | None) -> None:
    assert _part_of(name) == part


def test_shards_are_grouped_by_name_and_suffix(tmp_path: Path) -> None:
    names = ["train-00001-of-00002.csv", "train-00000-of-00002.csv", "train.jsonl", "test (1).csv", "test (2).csv", "test.csv"]
    names += ["a-2.csv", "a-10.csv"]
    tables = [([file.name for file in files], name) for files, name in _tables(tmp_path / name for name in names)]
    assert tables == [
        (["train-00000-of-00002.csv", "train-00001-of-00002.csv"], "train"),
        (["train.jsonl"], "train"),
        (["test (1).csv", "test (2).csv"], "test"),
        (["test.csv"], "test"),
        (["a-2.csv", "a-10.csv"], "a"),
    ]
    with pytest.raises(LoralabError, match=r"1 of 3 shards are missing: it has x-0-of-3\.csv, x-2-of-3\.csv"):
        _tables([tmp_path / "x-0-of-3.csv", tmp_path / "x-2-of-3.csv"])
    with pytest.raises(LoralabError, match=r"shards of several tables"):
        _tables([tmp_path / "x-0-of-1.csv", tmp_path / "x-1-of-2.csv"])


def test_parts_are_found_two_folders_below_and_no_deeper(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "train.csv").write_text("text,label\na,x\nb,y\n", encoding="utf-8")
    assert find_parts(str(tmp_path / "a")).train == (deep / "train.csv",)
    with pytest.raises(LoralabError, match="has no training part"):
        find_parts(str(tmp_path))
