"""Run folders of strangers: nothing outside is read or written, nothing hangs, and each ends in one message."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sealing import reseal, unseal
from tiny import topics, write_csv

from loralab.config import load_config
from loralab.errors import LoralabError
from loralab.inference.classifier import Classifier
from loralab.inference.export import export_run
from loralab.info import describe
from loralab.pipeline import run_training
from loralab.report.run_data import read_run
from loralab.storage import run_folder, run_predictions
from loralab.storage.sealed import FileRecord, seal
from loralab.verify import verify

FILES = [
    *("config.yaml", "environment.json", "data.json", "log.jsonl", "predictions.csv", "scores.json"),
    *("model/adapter_config.json", "model/adapter_model.safetensors", "model/config.json", "model/loralab.json"),
    *("model/tokenizer.json", "model/tokenizer_config.json"),
]
JSON_FILES = [name for name in FILES if name.endswith(".json")]
_opened: list[str] = []
_recording = False


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if _recording and event == "open" and isinstance(arguments[0], str | bytes):
        _opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_record)


@pytest.fixture(scope="module")
def original(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    rows = write_csv(folder / "rows.csv", topics(20))
    settings = [f"model.base={tiny}", "train.epochs=1", "train.precision=fp32", "data.test=0.3"]
    return run_training(load_config(rows, settings), name="run", folder=folder).folder


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    folder = tmp_path / "secret"
    folder.mkdir()
    return folder


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "stranger"))


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The paths that this process opens through Python."""
    global _recording
    _opened.clear()
    _recording = True
    yield _opened
    _recording = False


def commands(run: Path) -> list[Callable[[], object]]:
    """Every way to read a run. An export reads what the third and the fourth read."""
    return [
        lambda: read_run(run),
        lambda: describe(str(run)),
        lambda: Classifier.load(run, precision="fp32").predict(["goal"]),
        lambda: run_predictions.read_test_texts(run),
        lambda: run_folder.read_data(run),
    ]


def messages(run: Path) -> list[str]:
    """The message of every command; empty where it succeeds. Any other exception than LoralabError is a failure."""
    texts = []
    for command in commands(run):
        try:
            command()
            texts.append("")
        except LoralabError as error:
            texts.append(str(error))
    return texts


@pytest.mark.parametrize("name", FILES)
def test_a_link_to_a_file_outside_is_refused_and_not_opened(run: Path, secret: Path, opened: list[str], name: str) -> None:
    shutil.move(run / name, secret / "file")
    (run / name).symlink_to(secret / "file")
    assert f"{Path(name).name} is a symbolic link" in " ".join(messages(run))
    assert [path for path in opened if path.startswith(str(secret))] == []
    assert verify(run)[0].state == "damaged"


@pytest.mark.parametrize("name", ["model", "exports"])
def test_a_folder_that_is_a_link_is_refused(run: Path, secret: Path, name: str) -> None:
    if (run / name).exists():
        shutil.move(run / name, secret / name)
    else:
        (secret / name).mkdir()
    (run / name).symlink_to(secret / name, target_is_directory=True)
    before = sorted(secret.rglob("*"))
    with pytest.raises(LoralabError, match=f"{name} is a symbolic link"):
        export_run(run, "merged")
    assert sorted(secret.rglob("*")) == before


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["FIFO", "device", "socket", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(run: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / name).unlink()
    if kind == "FIFO":
        os.mkfifo(run / name)
    elif kind == "device":
        try:
            os.mknod(run / name, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
        except PermissionError:
            pytest.skip("only root makes devices")
    elif kind == "socket":
        monkeypatch.chdir((run / name).parent)  # the path of a socket has at most 107 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(Path(name).name)
    else:
        (run / name).mkdir()
    assert f"{Path(name).name} is a {kind}, not a regular file" in " ".join(messages(run))


@pytest.mark.parametrize("name", FILES)
def test_a_giant_sparse_file_is_refused_unread(run: Path, name: str) -> None:
    os.truncate(run / name, 1 << 40)
    assert Path(name).name in " ".join(messages(run))
    reseal_small(run)


def reseal_small(run: Path) -> None:
    """Without checksums the limits of size remain."""
    for name in ("scores.json", "environment.json"):
        path = run / name
        if path.stat().st_size < 1 << 20:
            content = json.loads(path.read_text(encoding="utf-8"))
            kept = {key: value for key, value in content.items() if key not in ("files", "sha256", "format_version")}
            path.write_text(json.dumps(kept), encoding="utf-8")
    large = [path for path in run.iterdir() if path.is_file() and path.stat().st_size > 1 << 30]
    assert not large or any("more than" in message for message in messages(run))


DEEP = "[" * 100_000 + "]" * 100_000
CONTENTS = {
    "deep": f'{{"a": {DEEP}}}',
    "unclosed": '{"a": ' * 50_000,
    "a list": "[1]",
    "a number": "1e999",
    "other": '{"format": {"a": 1}, "files": [1], "sha256": 3, "dims": -1}',
    "text": "\ud83d" * 3,
}


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize("content", CONTENTS)
def test_json_of_any_content_ends_in_a_message(run: Path, name: str, content: str) -> None:
    (run / name).write_bytes(CONTENTS[content].encode("utf-8", "surrogatepass"))
    assert Path(name).name in " ".join(messages(run))


@pytest.mark.parametrize("path", ["/etc/passwd", "../../secret/file", "model/../../secret/file", "C:\\secret"])
@pytest.mark.parametrize("owner", ["scores.json", "environment.json", "model/loralab.json"])
def test_a_path_outside_among_the_checksums_is_refused(run: Path, secret: Path, opened: list[str], owner: str, path: str) -> None:
    (secret / "file").write_text("secret")
    opened.clear()
    content = json.loads((run / owner).read_text(encoding="utf-8"))
    key = "format" if owner.startswith("model") else "format_version"
    files = {**content.pop("files"), path: {"size": 6, "sha256": "0" * 64}}
    kept = {name: value for name, value in content.items() if name not in ("sha256", key)}
    records = {name: FileRecord(own["size"], own["sha256"]) for name, own in files.items()}
    (run / owner).write_text(json.dumps(seal(kept, records, format_key=key)), encoding="utf-8")
    assert Path(owner).name in " ".join([*messages(run), verify(run)[0].problem])
    if owner == "model/loralab.json":
        with pytest.raises(LoralabError, match="is not a file of the folder"):
            Classifier.load(run / "model")
    assert [name for name in opened if "secret/file" in name or name == "/etc/passwd"] == []


def test_a_file_of_a_later_format_says_upgrade(run: Path) -> None:
    content = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    (run / "scores.json").write_text(json.dumps({**content, "format_version": 3}), encoding="utf-8")
    assert "written by a newer loralab (format 3; this one reads up to 2): upgrade loralab" in messages(run)[0]


def test_a_run_of_format_1_without_checksums_opens(run: Path) -> None:
    """The format of the first development versions, made from a run of today's."""
    before = Classifier.load(run, precision="fp32").logits(["goal"])
    unseal(run)
    assert messages(run) == [""] * 5
    assert (Classifier.load(run, precision="fp32").logits(["goal"]) == before).all()
    assert verify(run)[0].state == "unchecked"


def test_predictions_with_other_columns_or_one_endless_line_end_in_a_message(run: Path) -> None:
    for content in (b"a,b\n1,2\n", b"\xff\xfe\n", b"text,true\n" + b"x" * (70 << 20), b'text,true\n"'):
        (run / "predictions.csv").write_bytes(content)
        reseal(run)
        with pytest.raises(LoralabError, match=r"predictions\.csv"):
            run_predictions.read_test_texts(run)
