"""Bad input gets one message that says what, which value and what to do; exit code 2; nothing is overwritten."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from command_line import Answer, done, invoke
from safetensors.torch import load_file, save_file
from tiny import make_checkpoint, topics, write_csv

from loralab import LoralabError, load_config
from loralab.pipeline import run_training
from loralab.training.callbacks import Event, StepEnd

Prepare = Callable[[Path], list[str]]
FAST = ["train.max_steps=1", "train.precision=fp32"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def run(tiny: Path, topics_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run with every kind of file: a linear head is stored beside the adapter."""
    settings = [f"model.base={tiny}", "model.head=linear", "train.learning_rate=0.01", "train.precision=fp32"]
    return run_training(load_config(topics_csv, settings), folder=tmp_path_factory.mktemp("runs")).folder


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()
    }


def refused(*arguments: object) -> str:
    """Run a command that must fail without writing into the working folder; return its message."""
    before = tree(Path()), sorted(Path().rglob("*"))
    answer = invoke(*arguments)
    assert (tree(Path()), sorted(Path().rglob("*"))) == before, "something was written"
    check(answer)
    return answer.err


def check(answer: Answer) -> None:
    assert answer.code == 2, answer
    assert answer.err.startswith("loralab: "), answer.err
    assert sum(line.startswith("loralab: ") for line in answer.err.splitlines()) == 1
    assert "Traceback" not in answer.err
    assert answer.err.strip() != "loralab:"


# --- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("lora.rnk=4", ["unknown setting 'lora.rnk'", "did you mean 'lora.rank'?"]),
        ("lora_alpha=32", ["write lora.alpha=32"]),
        ("lora.rank", ["'lora.rank' is not a setting", "key=value"]),
        ("lora.rank=four", ["lora.rank='four': must be a whole number > 0"]),
        ("lora.rank=[", ["lora.rank", "'['"]),
        ("model.freeze=0-2", ["add tuning=full, or remove model.freeze"]),
    ],
)
def test_wrong_setting(here: Path, topics_csv: Path, tiny: Path, setting: str, said: list[str]) -> None:
    message = refused("train", topics_csv, f"model.base={tiny}", setting)
    assert [part for part in said if part not in message] == [], message
    assert refused("describe", "quickstart", setting) == message.replace(f"quickstart on {topics_csv}", "recipe quickstart")


def test_several_wrong_settings_are_all_named(here: Path) -> None:
    Path("mine.yaml").write_text("lora: {rnk: 4, alpha: -1}\ntrian: {epochs: 3}\n")
    message = refused("train", "mine.yaml")
    assert "mine.yaml: " in message
    assert "'lora.rnk'; did you mean 'lora.rank'" in message
    assert "lora.alpha=-1" in message
    assert "'trian'" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"lora: [", "cannot read the settings file"),
        (b"!!python/object/apply:os.system ['touch pwned']\n", "cannot read the settings file"),
    ],
    ids=["broken", "code"],
)
def test_wrong_settings_file(here: Path, content: bytes, said: str) -> None:
    Path("mine.yaml").write_bytes(content)
    message = refused("train", "mine.yaml")
    assert "mine.yaml" in message
    assert said in message


def test_missing_settings_file(here: Path) -> None:
    assert "cannot read the settings file nope.yaml" in refused("train", "nope.yaml")


@pytest.mark.parametrize("command", [["train"], ["describe"], ["budget", "--max-trainable", "1000"]], ids=lambda c: c[0])
def test_unknown_recipe(here: Path, command: list[str]) -> None:
    message = refused(command[0], "roberta-clas-weights", *command[1:])
    assert "'roberta-clas-weights' is neither a recipe nor a file; did you mean 'roberta-class-weights'?" in message
    assert "quickstart" in message


# --- data ----------------------------------------------------------------------------------------------------------

GOOD = topics(12)


def _write(name: str, content: str | bytes) -> Prepare:
    def prepare(folder: Path) -> list[str]:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return [name]

    return prepare


def _rows(name: str, rows: list[tuple[str, ...]], header: tuple[str, ...], *more: str) -> Prepare:
    def prepare(folder: Path) -> list[str]:
        write_csv(folder / name, rows, header)  # type: ignore[arg-type]
        return [name, *more]

    return prepare


def _test_part(rows: list[tuple[str, str]], part: str = "test") -> Prepare:
    def prepare(folder: Path) -> list[str]:
        write_csv(folder / "train.csv", GOOD)
        write_csv(folder / "other.csv", rows)
        return ["train.csv", f"data.{part}=other.csv"]

    return prepare


def _good(*settings: str) -> Prepare:
    return _rows("good.csv", GOOD, ("text", "label"), *settings)


def _parquet_cut(folder: Path) -> list[str]:
    pd.DataFrame(GOOD, columns=["text", "label"]).to_parquet(folder / "cut.parquet")
    whole = (folder / "cut.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    return ["cut.parquet"]


def _pickle_cut(folder: Path) -> list[str]:
    (folder / "cut.pkl").write_bytes(pickle.dumps([{"text": text, "label": label} for text, label in GOOD])[:-20])
    return ["cut.pkl"]


def _gzip_cut(folder: Path) -> list[str]:
    content = gzip.compress(("text,label\n" + "".join(f"{text},{label}\n" for text, label in GOOD)).encode())
    (folder / "cut.csv.gz").write_bytes(content[:-30])
    return ["cut.csv.gz"]


def _indices(content: str) -> Prepare:
    def prepare(folder: Path) -> list[str]:
        (folder / "rows.txt").write_text(content)
        return [*_good("data.train_indices=rows.txt")(folder)]

    return prepare


THREE = ("title", "body", "y")
BAD_DATA: dict[str, tuple[Prepare, list[str]]] = {
    "missing file": (lambda folder: ["nope.csv"], ["there is no file nope.csv"]),
    "missing source": (_good("data.source=nope.csv"), ["there is no file or folder nope.csv", "sample, ag_news"]),
    "missing test file": (_good("data.test=nope.csv"), ["there is no file nope.csv"]),
    "missing validation file": (_good("data.validation=nope.csv"), ["there is no file nope.csv"]),
    "missing text column": (
        _rows("t.csv", [("a", "b", "1"), ("c", "d", "2")], THREE, "data.text=titel"),
        ["t.csv has no column 'titel' (data.text); did you mean 'title'?", "title, body, y"],
    ),
    "missing label column": (_good("data.label=lable"), ["no column 'lable' (data.label); did you mean 'label'?"]),
    "one of several text columns missing": (
        _rows("t.csv", [("a", "b", "1"), ("c", "d", "2")], THREE, "data.text=title,boddy"),
        ["no column 'boddy' (data.text); did you mean 'body'?"],
    ),
    "no label column": (
        _rows("t.csv", [("a", "b"), ("c", "d")], ("title", "body")),
        ["t.csv has no label column", "title, body", "data.label="],
    ),
    "doubtful columns": (
        _rows("t.csv", [("a", "b", "c")], ("one", "two", "three")),
        ["the first line, 'one', 'two', 'three', may name the columns", "data.header=true", "data.header=false"],
    ),
    "empty file": (_write("empty.csv", b""), ["empty.csv is empty"]),
    "empty gzip": (_write("empty.csv.gz", gzip.compress(b"")), ["empty.csv.gz is empty"]),
    "header alone": (_write("bare.csv", "text,label\n"), ["bare.csv has no rows"]),
    "blank lines": (_write("blank.jsonl", "\n\n"), ["blank.jsonl is empty"]),
    "one class only": (
        _rows("one.csv", [(f"text {i}", "same") for i in range(20)], ("text", "label")),
        ["one.csv has only one class (same)", "at least two"],
    ),
    "label missing": (
        lambda folder: [*_rows("t.csv", [*GOOD, ("a", ""), ("b", " ")], ("text", "label"))(folder), "data.strict=true"],
        ["column 'label': rows 48, 49 have no label", "fill them in or remove"],
    ),
    "unknown label in the test part": (
        _test_part([("a goal", "Sports"), ("a robot", "Scitech")]),
        ["other.csv", "'Scitech'", "row 1", "World"],
    ),
    "unknown label in the validation part": (
        _test_part([("a goal", "Sprots")], "validation"),
        ["'Sprots'", "did you mean 'Sports'?"],
    ),
    "test part without labels": (
        lambda folder: [*_good()(folder), f"data.test={write_csv(folder / 'u.csv', [('a',)], ('text',)).name}"],  # type: ignore[list-item]
        ["u.csv", "label"],
    ),
    "too few rows": (
        _rows("few.csv", [("a", "x"), ("b", "y"), ("c", "x")], ("text", "label"), "data.test=3"),
        ["holds out 3 of 3 rows"],
    ),
    "test takes everything": (_good("data.test=48"), ["data.test=48", "48 rows"]),
    "negative test": (_good("data.test=-0.2"), ["data.test=-0.2"]),
    "validation takes everything": (_good("data.validation=0.99"), ["data.validation=0.99"]),
    "no class left": (_good("data.max_train_samples=2"), ["each of 4 classes needs a row; data.max_train_samples=4 would do"]),
    "too many shots": (_good("data.shots_per_class=50"), ["data.shots_per_class=50: class 'Business' has"]),
    "indices missing": (_good("data.train_indices=nope.txt"), ["data.train_indices", "nope.txt"]),
    "indices no numbers": (_indices("1\ntwo\n"), ["rows.txt, entry 2: 'two' is not a row number"]),
    "indices beyond": (_indices("0\n1\n999\n"), ["row 999", "0-"]),
    "indices twice": (_indices("0\n1\n1\n"), ["names a row twice"]),
    "indices none": (_indices(""), ["data.train_indices", "the training rows"]),
    "ragged row": (_write("r.csv", "text,label\na,x\nb,y,z\n"), ["r.csv: row 1 (line 3) has 3 fields, not 2", "double quotes"]),
    "open quote": (_write("q.csv", 'text,label\n"a,x\n' + "b,y\n" * 300_000), ["q.csv", "quote never closed"]),
    "two columns of one name": (_write("d.csv", "text,text\na,b\n"), ["two columns have the same name"]),
    "not text": (_write("noise.csv", b"text,label\n" + bytes(range(256))), ["noise.csv is not a text file", "UTF-8"]),
    "two encodings": (
        _write("cyrillic.csv", "text,label\nнефть дешевеет,x\nматч окончен,y\n".encode("cp1251")),
        ["cyrillic.csv, line 2: not UTF-8", "data.encoding=cp1251", "data.encoding=cp1252"],
    ),
    "two encodings, late": (
        _write("late.csv", b"text,label\n" + "".join(f"it came much too late: плохо {i},x\n" for i in range(20)).encode("cp1251")),
        ["as cp1251 it reads 'o late: плохо 0,x', as", "as cp1252 it reads 'o late: ïëîõî 0,x'", "write data.encoding=cp1251 or"],
    ),
    "unknown ending": (_write("rows.doc", bytes(64)), ["rows.doc: unknown file format", ".csv"]),
    "no gzip": (_write("fake.csv.gz", b"\x1f\x8b\x00"), ["cannot read fake.csv.gz"]),
    "cut gzip": (_gzip_cut, ["cut.csv.gz"]),
    "cut parquet": (_parquet_cut, ["cut.parquet cannot be read as Parquet"]),
    "cut pickle": (_pickle_cut, ["cut.pkl"]),
    "broken line": (_write("b.jsonl", '{"text": "a", "label": "x"}\n{"text": "b"\n'), ["b.jsonl, line 2: not JSON"]),
    "line that is no object": (_write("b.jsonl", "[1, 2]\n"), ["b.jsonl, row 0: an int, not an object"]),
    "folder without data": (lambda folder: [(folder / "bare").mkdir() or "bare"], ["bare has no training part", "train.csv"]),
    "unknown cleaning step": (
        _good("data.clean=url"),
        ["data.clean: 'url' is not a cleaning step; did you mean 'urls'?", "whitespace"],
    ),
    "misspelt monitor": (
        _good("train.monitor=f1:Buisness"),
        ["train.monitor", "'f1:Buisness'", "did you mean 'f1:Business'?", "macro_f1"],
    ),
    "monitor of no class": (_good("train.monitor=balance:World/Wrold"), ["train.monitor", "'balance:World/Wrold'"]),
    "class weight of no class": (_good("train.class_weights={World: 2, Sprots: 1}"), ["class_weights", "Sprots"]),
    "too few class weights": (_good("train.class_weights=1,2"), ["class_weights", "2"]),
    "unknown target": (
        _good("lora.targets=query,vlaue"),
        ["lora.targets: 'vlaue' is not a target; did you mean 'value'?", "ffn_in"],
    ),
    "no target": (_good("lora.targets=[]"), ["lora.targets", "query"]),
    "unknown layer": (_good("lora.layers=9-11"), ["lora.layers: 9-11 is outside this encoder's layers 0-2"]),
    "layers backwards": (_good("lora.layers=2-1"), ["lora.layers: 2-1"]),
    "layers that are none": (_good("lora.layers=top"), ["lora.layers: 'top'", "9-11"]),
    "over the budget": (_good("lora.max_trainable=500"), ["over lora.max_trainable=500", "What fits: lora.rank="]),
    "budget below the head": (_good("lora.max_trainable=10"), ["the head alone has 132", "Raise the budget to"]),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(here: Path, tiny: Path, case: str) -> None:
    prepare, said = BAD_DATA[case]
    source, *settings = prepare(here)
    message = refused("train", source, f"model.base={tiny}", *FAST, *settings, "--runs", "runs")
    assert [part for part in said if part not in message] == [], message


def test_same_settings_without_the_mistake_train(here: Path, tiny: Path) -> None:
    """Otherwise every test above could pass for another reason."""
    source, *_ = _good()(here)
    done("train", source, f"model.base={tiny}", *FAST, "--runs", "runs")
    assert Path("runs", "good-s42", "scores.json").is_file()


ABOUT_THE_MODEL = (
    "unknown target",
    "unknown layer",
    "layers backwards",
    "layers that are none",
    "over the budget",
    "budget below the head",
)


@pytest.mark.parametrize("case", [case for case in BAD_DATA if case not in ABOUT_THE_MODEL])
def test_check_refuses_what_training_refuses(here: Path, case: str) -> None:
    prepare, said = BAD_DATA[case]
    answer = invoke("check", *prepare(here))
    assert (answer.code, "Traceback" in answer.err) == (2, False), answer
    words = " ".join((answer.out + answer.err).split())
    assert any(part[:28] in words for part in said), words  # the fix is apart


def test_check_reports_what_training_refuses(here: Path) -> None:
    source, *_ = BAD_DATA["one class only"][0](here)
    answer = invoke("check", source)
    assert answer.code == 2
    assert "error" in answer.out
    assert "only one class (same)" in answer.out


def test_misspelt_cleaning_step_of_the_clean_command(here: Path) -> None:
    assert "'htlm' is not a cleaning step; did you mean 'html'?" in refused("clean", "text", "--steps", "htlm,urls")


# --- where things go -----------------------------------------------------------------------------------------------


def test_runs_that_is_a_file(here: Path, tiny: Path, topics_csv: Path) -> None:
    Path("notes.txt").write_text("not a folder")
    message = refused("train", topics_csv, f"model.base={tiny}", *FAST, "--runs", "notes.txt")
    assert "notes.txt" in message
    assert "--runs" in message


@pytest.mark.parametrize("more", [[], ["--overwrite"]], ids=["", "overwrite"])
def test_name_of_a_folder_that_is_no_run(here: Path, tiny: Path, topics_csv: Path, more: list[str]) -> None:
    Path("thesis").mkdir()
    Path("thesis", "chapter.txt").write_text("years of work")
    message = refused("train", topics_csv, f"model.base={tiny}", *FAST, "--runs", ".", "--name", "thesis", *more)
    assert "thesis exists and is not a run" in message
    assert "--name" in message


def test_existing_run(here: Path, tiny: Path, topics_csv: Path) -> None:
    done("train", topics_csv, f"model.base={tiny}", *FAST, "--name", "mine")
    message = refused("train", topics_csv, f"model.base={tiny}", *FAST, "--name", "mine")
    assert "runs/mine exists" in message
    assert "--overwrite" in message
    message = refused("train", topics_csv, f"model.base={tiny}", *FAST, "--name", "mine", "--resume")
    assert "complete" in message


def test_late_error_keeps_the_run_to_be_replaced(here: Path, tiny: Path, topics_csv: Path) -> None:
    done("train", topics_csv, f"model.base={tiny}", *FAST, "--name", "mine")
    for mistake in (
        "lora.max_trainable=500",
        "lora.layers=7",
        "train.monitor=f1:x",
        "data.test=nope.csv",
        "train.class_weights=1,2",
    ):
        refused("train", topics_csv, f"model.base={tiny}", *FAST, "--name", "mine", "--overwrite", mistake)


# --- the base ------------------------------------------------------------------------------------------------------


def _base_without(file: str) -> Callable[[Path], None]:
    return lambda base: (base / file).unlink()


def _base_cut(file: str) -> Callable[[Path], None]:
    return lambda base: (base / file).write_bytes((base / file).read_bytes()[:200]) and None


def _edit_base(**changes: Any) -> Callable[[Path], None]:
    def edit(base: Path) -> None:
        config = json.loads((base / "config.json").read_text()) | changes
        (base / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return edit


def _lose_a_tensor(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


BAD_BASES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "no config": (_base_without("config.json"), ["config.json"]),
    "no weights": (_base_without("model.safetensors"), ["has no model.safetensors", "safetensors only"]),
    "no tokenizer": (_base_without("tokenizer.json"), ["has no tokenizer.json", "copy"]),
    "cut config": (_base_cut("config.json"), ["cannot read", "config.json"]),
    "cut weights": (_base_cut("model.safetensors"), ["cannot read", "model.safetensors", "truncated"]),
    "cut tokenizer": (_base_cut("tokenizer.json"), ["cannot read the tokenizer"]),
    "config without a size": (_edit_base(hidden_size=None), ["config.json has no 'hidden_size'"]),
    "config with another size": (_edit_base(intermediate_size=65), ["shape"]),
    "config with a size in words": (_edit_base(hidden_size="large"), ["hidden_size"]),
    "another architecture": (_edit_base(model_type="parrot"), ["cannot classify with architecture 'parrot'"]),
    "odd positions": (_edit_base(position_embedding_type="relative_key"), ["position", "'relative_key'"]),
    "odd activation": (_edit_base(hidden_act="swish"), ["activation 'swish' is not supported", "gelu"]),
    "a tensor missing": (_lose_a_tensor, ["no tensor 'encoder.layer.1.output.dense.weight'"]),
}


@pytest.mark.parametrize("case", BAD_BASES)
def test_damaged_base(here: Path, tiny: Path, topics_csv: Path, case: str) -> None:
    damage, said = BAD_BASES[case]
    damage(shutil.copytree(tiny, here / "base"))
    message = refused("train", topics_csv, "model.base=base", *FAST, "--runs", "runs")
    assert [part for part in said if part not in message] == [], message


def test_base_that_is_neither_a_folder_nor_a_hub_id(here: Path, topics_csv: Path) -> None:
    message = refused("train", topics_csv, "model.base=no/such/folder/anywhere", *FAST, "--runs", "runs")
    assert "no/such/folder/anywhere" in message


BLOCKED = """
import socket, sys
def blocked(*arguments, **named):
    raise OSError("no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = blocked
from loralab.cli.main import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quickstart", "model.base=roberta-base"], ["model.base='roberta-base'", "model.base=THAT_FOLDER", "model.base=minilm"]),
        (["roberta-class-weights", "data.source=sample"], ["model.base='roberta-base'", "model.base=minilm"]),
        (["roberta-class-weights"], ["data.source=ag_news", "data.source=FOLDER", "data.source=sample"]),
    ],
    ids=["base", "recipe's base", "recipe's data"],
)
def test_hub_without_network_fails_in_seconds(here: Path, arguments: list[str], said: list[str]) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_HOME": str(here / "empty-cache"), "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    answer = subprocess.run(
        [sys.executable, "-c", BLOCKED, "train", *arguments, "--runs", "runs"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    seconds = time.monotonic() - began
    check(Answer(answer.returncode, answer.stdout, answer.stderr))
    assert [part for part in said if part not in answer.stderr] == []
    assert not Path("runs").exists()
    assert seconds < 20  # start and imports included, on a busy machine


# --- predict, evaluate, describe -----------------------------------------------------------------------------------


def test_predict_without_texts(here: Path, run: Path, topics_csv: Path) -> None:
    assert "--input TEXT" in refused("predict", run)
    assert "--input and --file" in refused("predict", run, "--input", "a", "--file", topics_csv, "--out", "out.csv")
    assert "--out FILE" in refused("predict", run, "--file", topics_csv)


def test_out_that_exists(here: Path, run: Path, topics_csv: Path) -> None:
    Path("out.csv").write_text("yesterday")
    message = refused("predict", run, "--file", topics_csv, "--out", "out.csv")
    assert "out.csv exists" in message
    assert "--overwrite" in message


def test_out_below_a_file_is_refused(here: Path, run: Path, topics_csv: Path) -> None:
    Path("taken").write_text("mine")
    answer = invoke("predict", run, "--file", topics_csv, "--out", "taken/out.csv")
    assert answer.code != 0
    assert "taken" in answer.err
    assert "Traceback" not in answer.err
    assert Path("taken").read_text() == "mine"


@pytest.mark.parametrize("more", [[], ["--overwrite"]], ids=["", "overwrite"])
def test_out_that_is_a_folder(here: Path, run: Path, topics_csv: Path, more: list[str]) -> None:
    Path("folder").mkdir()
    assert "folder" in refused("predict", run, "--file", topics_csv, "--out", "folder", *more)


def test_out_that_is_the_input_file_is_refused(here: Path, run: Path, topics_csv: Path) -> None:
    shutil.copy(topics_csv, "mine.csv")
    assert "mine.csv" in refused("predict", run, "--file", "mine.csv", "--out", "mine.csv", "--overwrite")


def test_unknown_format(here: Path, run: Path, topics_csv: Path) -> None:
    message = refused("predict", run, "--file", topics_csv, "--out", "out.xlsx", "--format", "excel")
    assert "'excel'; valid: csv, jsonl, submission" in message


@pytest.mark.parametrize(
    "name", ["missing file", "empty file", "header alone", "ragged row", "not text", "unknown ending", "cut gzip", "broken line"]
)
def test_predict_and_evaluate_on_files_that_cannot_be_read(here: Path, run: Path, name: str) -> None:
    source, *_ = BAD_DATA[name][0](here)
    assert source in refused("predict", run, "--file", source, "--out", "out.csv")
    assert source in refused("evaluate", run, "--file", source)


def test_missing_column_of_predict_and_evaluate(here: Path, run: Path, topics_csv: Path) -> None:
    assert "no column 'txt' (data.text); did you mean 'text'?" in refused(
        "predict", run, "--file", topics_csv, "--out", "out.csv", "--text", "txt"
    )
    assert "no column 'kind'" in refused("evaluate", run, "--file", topics_csv, "--label", "kind")


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        ([("a goal", "Sprots")], ("text", "label"), ["'Sprots'", "did you mean 'Sports'?", "row 0"]),
        ([("a goal", "7")], ("text", "label"), ["'7'", "row 0", "World"]),
        ([("a goal", "")], ("text", "label"), ["no row has a label"]),
        ([("a goal",)], ("text",), ["label column"]),
    ],
)
def test_labels_of_other_classes(
    here: Path, run: Path, rows: list[tuple[str, str]], header: tuple[str, ...], said: list[str]
) -> None:
    write_csv(Path("held.csv"), rows, header)
    message = refused("evaluate", run, "--file", "held.csv")
    assert [part for part in said if part not in message] == [], message


@pytest.mark.parametrize(
    "command", [["predict", "--input", "a"], ["evaluate", "--file", "held.csv"], ["describe"]], ids=lambda c: c[0]
)
@pytest.mark.parametrize("target", ["runs/nope", "bare", "notes.txt"])
def test_run_that_is_not_there(here: Path, command: list[str], target: str) -> None:
    Path("bare").mkdir()
    Path("notes.txt").write_text("not a run")
    write_csv(Path("held.csv"), GOOD)
    assert target in refused(command[0], target, *command[1:])


def test_budget_below_anything(here: Path) -> None:
    message = refused("budget", "roberta-million-budget", "--max-trainable", "1000")
    assert "the head alone has 593,668" in message
    assert "3,076" in message  # a linear head: (768 + 1) x 4
    assert invoke("budget", "quickstart", "--max-trainable", "0").code == 2


# --- pickles -------------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


class EvilLater:
    """Code in place of one text, after valid rows."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("pwned"),)


@pytest.mark.parametrize(
    "content", [Evil(), [{"text": "a", "label": "x"}, {"text": EvilLater(), "label": "y"}]], ids=["whole", "value"]
)
def test_pickle_that_would_run_code(here: Path, run: Path, tiny: Path, topics_csv: Path, content: object) -> None:
    Path("evil.pkl").write_bytes(pickle.dumps(content))
    for command in (
        ["train", "evil.pkl", f"model.base={tiny}", "--runs", "runs"],
        ["train", topics_csv, f"model.base={tiny}", "data.test=evil.pkl", "--runs", "runs"],
        ["predict", run, "--file", "evil.pkl", "--out", "out.csv"],
        ["evaluate", run, "--file", "evil.pkl"],
        ["check", "evil.pkl"],
    ):
        message = refused(*command)
        assert "evil.pkl" in message
    assert not Path("pwned").exists()
    pickle.loads(Path("evil.pkl").read_bytes())  # it does run code where nothing holds it back
    assert Path("pwned").exists()


# --- damaged runs --------------------------------------------------------------------------------------------------

FILES = [
    "config.yaml",
    "environment.json",
    "data.json",
    "log.jsonl",
    "predictions.csv",
    "scores.json",
    "model/adapter_config.json",
    "model/adapter_model.safetensors",
    "model/config.json",
    "model/head.safetensors",
    "model/loralab.json",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
]
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "removed": lambda content: None,
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "garbage": lambda content: bytes(range(256)) * (len(content) // 256 + 1),
    "other JSON": lambda content: b'{"a": [1, 2]}\n',
}


def commands(run: Path) -> list[list[object]]:
    return [["predict", run, "--input", "a goal"], ["evaluate", run, "--file", "held.csv", "--json"], ["describe", run, "--json"]]


def test_every_file_of_a_run_is_damaged_below(run: Path) -> None:
    assert {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} == set(FILES)


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    """What the commands print for the undamaged run."""
    with contextlib.chdir(tmp_path_factory.mktemp("whole")):
        write_csv(Path("held.csv"), GOOD)
        return [invoke(*command) for command in commands(run)]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_damaged_run_is_reported_or_harmless(here: Path, run: Path, whole: list[Answer], file: str, damage: str) -> None:
    """Either the output is that of the undamaged run, which does not need the file, or the message names the damaged folder."""
    write_csv(Path("held.csv"), GOOD)
    copy = shutil.copytree(run, Path("runs", "mine"))
    content = DAMAGES[damage]((copy / file).read_bytes())
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(content)
    for command, before in zip(commands(copy), whole, strict=True):
        answer = invoke(*command)
        if answer.code == 0:
            wanted = before.out.replace(str(run), str(copy))
            if (command[0], file) == ("describe", "scores.json"):  # without it the run is not complete, which describe says
                of_scores = ("test scores", "timing (s)", "memory (MB)")
                wanted_facts = {k: v for k, v in json.loads(wanted).items() if k not in of_scores} | {"result": "not complete"}
                wanted = json.dumps(wanted_facts, indent=2, ensure_ascii=False) + "\n" if damage == "removed" else wanted
            assert answer.out == wanted, f"{command[0]} prints something else without an error"
        else:
            check(answer)
            assert str(copy) in answer.err, f"{command[0]} does not say where the damage is: {answer.err}"


NEEDED = {
    "predict": ["model/adapter_config.json", "model/adapter_model.safetensors", "model/head.safetensors", "model/loralab.json"],
    "describe": ["config.yaml", "scores.json"],
}


@pytest.mark.parametrize(("command", "file"), [(command, file) for command, files in NEEDED.items() for file in files])
def test_garbage_in_a_needed_file_is_refused(here: Path, run: Path, command: str, file: str) -> None:
    """The test above must not pass because damage is ignored."""
    copy = shutil.copytree(run, Path("mine"))
    (copy / file).write_bytes(b"\x00\xff garbage")
    message = refused(command, copy, *(["--input", "a"] if command == "predict" else []))
    assert "mine" in message


def test_config_cut_at_any_line_is_reported(here: Path, run: Path) -> None:
    """The rest of a cut YAML file is valid YAML, and the missing settings would be defaults."""
    lines = (run / "config.yaml").read_text().splitlines(keepends=True)
    copy = shutil.copytree(run, Path("mine"))
    whole = invoke("describe", run, "--json").out.replace(str(run), "mine")
    silent = []
    for kept in range(0, len(lines), 3):
        (copy / "config.yaml").write_text("".join(lines[:kept]))
        answer = invoke("describe", "mine", "--json")
        if answer.code == 0 and answer.out != whole:
            silent.append(kept)
    assert silent == [], "describe prints other facts of the cut file without an error"


def _manifest(**changes: Any) -> Callable[[Path], None]:
    def edit(model: Path) -> None:
        content = json.loads((model / "loralab.json").read_text())
        for key, value in changes.items():
            place = content
            *outer, last = key.split("__")
            for part in outer:
                place = place[part]
            place[last] = value
        (model / "loralab.json").write_text(json.dumps(content))

    return edit


def _adapter(**changes: Any) -> Callable[[Path], None]:
    def edit(model: Path) -> None:
        content = json.loads((model / "adapter_config.json").read_text()) | changes
        (model / "adapter_config.json").write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))

    return edit


def _tensor(file: str, change: Callable[[dict[str, torch.Tensor], str], object]) -> Callable[[Path], None]:
    def edit(model: Path) -> None:
        tensors = load_file(model / file)
        change(tensors, sorted(tensors)[0])
        save_file(tensors, model / file, metadata={"format": "pt"})

    return edit


EDITS: dict[str, Callable[[Path], None]] = {
    "later format": _manifest(format=99),
    "fewer classes": _manifest(classes=["a", "b"]),
    "classes that are a number": _manifest(classes=4),
    "dims with a text": _manifest(dims__layers="three"),
    "dims of another size": _manifest(dims__width=64),
    "dims that do not divide": _manifest(dims__heads=5),
    "unknown architecture": _manifest(dims__model_type="gpt2"),
    "unknown head": _manifest(head="large"),
    "unknown pooling": _manifest(pooling="max"),
    "unknown tuning": _manifest(tuning="magic"),
    "unknown cleaning": _manifest(clean=["scrub"]),
    "length in words": _manifest(max_length="long"),
    "unknown key": _manifest(surprise=1),
    "base without weights": _manifest(base_sha256="0" * 64),
    "not LoRA": _adapter(peft_type="IA3"),
    "DoRA": _adapter(use_dora=True),
    "no rank": _adapter(r=...),
    "another rank": _adapter(r=3),
    "rank in words": _adapter(r="eight"),
    "rank of zero": _adapter(r=0),
    "alpha in words": _adapter(lora_alpha="much"),
    "adapter tensor lost": _tensor("adapter_model.safetensors", lambda tensors, name: tensors.pop(name) is None),
    "adapter tensor cut": _tensor(
        "adapter_model.safetensors", lambda tensors, name: tensors.update({name: tensors[name][:-1].clone()})
    ),
    "adapter tensor of another place": _tensor(
        "adapter_model.safetensors", lambda tensors, name: tensors.update({name.replace("layer.0", "layer.9"): tensors.pop(name)})
    ),
    "head tensor lost": _tensor("head.safetensors", lambda tensors, name: tensors.pop(name) is None),
    "head tensor cut": _tensor("head.safetensors", lambda tensors, name: tensors.update({name: tensors[name][:-1].clone()})),
}


@pytest.mark.parametrize("edit", EDITS)
def test_inconsistent_bundle_is_reported(here: Path, run: Path, edit: str) -> None:
    copy = shutil.copytree(run, Path("mine"))
    EDITS[edit](copy / "model")
    assert "mine" in refused("predict", "mine", "--input", "a goal")


def test_run_stopped_before_its_first_evaluation(here: Path, run: Path) -> None:
    copy = shutil.copytree(run, Path("mine"))
    shutil.rmtree(copy / "model")
    (copy / "scores.json").unlink()
    message = refused("predict", "mine", "--input", "a goal")
    assert "the run mine has no trained model yet" in message


@pytest.mark.slow
@pytest.mark.parametrize("file", ["config.yaml", "environment.json", "log.jsonl", "checkpoint.safetensors"])
@pytest.mark.parametrize("damage", ["half", "garbage"])
def test_resume_of_a_damaged_run_is_reported_or_harmless(here: Path, tiny: Path, topics_csv: Path, file: str, damage: str) -> None:
    settings = [f"model.base={tiny}", "train.max_steps=3", "train.eval_steps=1", "train.precision=fp32"]

    def stop(event: Event) -> None:
        if isinstance(event, StepEnd) and event.step == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_training(load_config(topics_csv, settings), name="cut", folder="runs", listeners=[stop])
    path = Path("runs", "cut", file)
    content = DAMAGES[damage](path.read_bytes())
    assert content is not None
    path.write_bytes(content)
    answer = invoke("train", topics_csv, *settings, "--name", "cut", "--resume")
    if answer.code != 0:
        check(answer)
        assert str(Path("runs", "cut")) in answer.err
    else:
        assert json.loads(Path("runs", "cut", "scores.json").read_text())["steps"] == 3


def test_library_raises_what_the_command_line_prints(here: Path) -> None:
    with pytest.raises(LoralabError, match=r"unknown setting 'lora.rnk'"):
        load_config("quickstart", ["lora.rnk=4"])
    with pytest.raises(LoralabError) as caught:
        load_config("quickstart", ["lora.rnk=4"])
    assert refused("describe", "quickstart", "lora.rnk=4") == f"loralab: {caught.value}\n"


def test_base_given_on_the_command_line_is_checked(here: Path, run: Path) -> None:
    make_checkpoint(here / "other", seed=3)
    message = refused("predict", run, "--input", "a", "--base", "other")
    assert "but other has" in message
    assert "--base" in message
