"""Everything of loralab that reads what others wrote: one function from bytes for each, for the tests and for `make fuzz`."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzz_seeds
import numpy as np
from sealing import unseal
from tiny import make_checkpoint, topics, write_csv

from loralab import Classifier, load_config
from loralab.config import DataConfig
from loralab.config.yaml_core import parse_yaml
from loralab.data.check import check_source
from loralab.data.clean import STEPS, clean_text, normalize_text
from loralab.data.labels import ClassTable
from loralab.data.safe_pickle import read_pickle
from loralab.data.sources import load_source
from loralab.data.tokenize import encode, load_tokenizer
from loralab.data.types import Examples
from loralab.errors import LoralabError
from loralab.inference.prediction_files import read_input
from loralab.inference.submissions import Submission, check_submission, labels_like, read_template
from loralab.model.checkpoints import base_dimensions
from loralab.model.peft_files import read_adapter_config
from loralab.model.tensor_files import load_tensors
from loralab.pipeline import run_training
from loralab.report.run_data import read_run
from loralab.serve.page.labelled_file import LabelledFile
from loralab.storage import run_folder, run_predictions

Function = Callable[[bytes], object]
MAX_TEXT = 2000
"""Characters of a text to clean."""


@dataclass(frozen=True)
class Target:
    """What reads an input. seeds: valid inputs. prepare: returns the function, which may write into the folder.

    slow: whether an input takes milliseconds.
    """

    seeds: Callable[[], Sequence[bytes]]
    prepare: Callable[[Path], Function]
    slow: bool = False


def _files(suffixes: Sequence[str], settings: Sequence[Mapping[str, Any]] = ({},)) -> Callable[[Path], Function]:
    """Return the preparation of a target that reads a table. The first byte chooses the suffix and the settings."""

    def prepare(folder: Path) -> Function:
        paths = [folder / f"input{suffix}" for suffix in suffixes]
        configs = [DataConfig(source=str(path), **own) for path in paths for own in settings]

        def read(data: bytes) -> None:
            config = configs[data[0] % len(configs) if data else 0]
            Path(config.source).write_bytes(data[1:])
            try:
                load_source(config)
            except LoralabError:
                for rows in read_input(Path(config.source), config).rows:
                    assert all(isinstance(text, str) for text in rows.texts)

        return read

    return prepare


def _check(folder: Path) -> Function:
    """`loralab check`, which looks at every text and label."""
    path = folder / "input.csv"
    config = DataConfig(source=str(path), header=True, encoding="utf-8", clean=("escapes", "whitespace"))

    def check(data: bytes) -> None:
        path.write_bytes(data[1:])
        for report in check_source(config):
            json.dumps(report.as_dict(), default=str)

    return check


def _workbook(folder: Path) -> Function:
    files, path = fuzz_seeds.workbook(), folder / "input.xlsx"
    read = _files([".xlsx"])(folder)

    def build(data: bytes) -> None:
        changed = fuzz_seeds.SHEET_FILES[data[0] % len(fuzz_seeds.SHEET_FILES)] if data else ""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as book:
            for name, content in {**files, changed or "x": data[1:]}.items():
                book.writestr(name, content)
        read(b"\x00" + archive.getvalue())
        assert path.exists()

    return build


def _pickle(folder: Path) -> Function:
    path = folder / "input.pkl"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        columns = read_pickle(path).columns
        assert all(isinstance(name, str) for name in columns)

    return read


def _settings(folder: Path) -> Function:
    path = folder / "input.yaml"

    def load(data: bytes) -> None:
        path.write_bytes(data)
        config = load_config(path)
        assert parse_yaml(config.to_yaml()) == config.model_dump(mode="json")

    return load


def _overrides(folder: Path) -> Function:
    return lambda data: load_config("quickstart", data.decode("utf-8", "surrogateescape").split("\n"))


def _clean(folder: Path) -> Function:
    def clean(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")[:MAX_TEXT]
        for name in STEPS:
            once = clean_text(text, [name])
            assert clean_text(once, [name]) == once, f"{name} is not idempotent"
        normalize_text(clean_text(text, [*STEPS]))

    return clean


def _tensors(folder: Path) -> Function:
    path = folder / "input.safetensors"

    def load(data: bytes) -> None:
        path.write_bytes(data)
        load_tensors(path)

    return load


def _small_checkpoint(folder: Path) -> Path:
    return make_checkpoint(folder / "bert", layers=1)


def _tensor_seeds() -> list[bytes]:
    import torch
    from safetensors.torch import save

    tensors = {"a": torch.zeros(2, 3), "b": torch.ones(1, dtype=torch.float16), "c": torch.zeros(0)}
    return [save(tensors), save({"x": torch.arange(4)}, {"format": "pt"})]


def _checkpoint(folder: Path) -> Function:
    """A base encoder: the first byte says which of its files is replaced."""
    base = _small_checkpoint(folder)
    names = ("tokenizer.json", "tokenizer_config.json", "config.json", "vocab.txt", "adapter_config.json")

    def load(data: bytes) -> None:
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for name in ("tokenizer.json", "config.json"):
            (copy / name).write_bytes((base / name).read_bytes())
        (copy / names[data[0] % len(names) if data else 0]).write_bytes(data[1:])
        if data[:1] >= b"\x80":
            (copy / "tokenizer.json").unlink()
        for read in (base_dimensions, read_adapter_config, _tokenize):
            try:
                read(str(copy) if read is base_dimensions else copy)  # type: ignore[arg-type]
            except LoralabError:
                continue

    return load


def _tokenize(folder: Path) -> None:
    examples = Examples(["some words", "𒀀"], None, np.arange(2))
    encode(examples, tokenizer=load_tokenizer(folder, 64), clean=(), pad_id=0)


def _checkpoint_seeds() -> list[bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        base = _small_checkpoint(Path(name))
        tokenizer, config = (base / "tokenizer.json").read_bytes(), (base / "config.json").read_bytes()
    adapter = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["query", "value"], "base_model_name_or_path": "x"}
    vocabulary = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nsome\nwords\n"
    settings = b'{"do_lower_case": true, "tokenizer_class": "BertTokenizer", "unk_token": {"content": "[UNK]"}}'
    small = json.loads(tokenizer)
    small["model"]["vocab"] = {token: i for token, i in small["model"]["vocab"].items() if i < 12}
    return [
        b"\x00" + json.dumps(small).encode(),
        b"\x01" + settings,
        b"\x02" + config,
        bytes([0x80 - 0x80 % 5 + 8]) + vocabulary,
        b"\x04" + json.dumps(adapter).encode(),
    ]


def _make_run(folder: Path) -> Path:
    data = write_csv(folder / "topics.csv", topics(10))
    overrides = [f"model.base={_small_checkpoint(folder)}", "train.max_steps=2", "train.precision=fp32", "data.test=0.5", "seed=1"]
    return run_training(load_config(data, overrides), folder=folder / "runs", name="news").folder


RUN_FILES = ("config.yaml", "environment.json", "data.json", "log.jsonl", "predictions.csv", "scores.json", "diagnosis.json")
RUN_FILES += (
    "model/loralab.json",
    "model/adapter_config.json",
    "model/config.json",
    "model/tokenizer.json",
    "model/head.safetensors",
)
RUN_FILES += ("model/adapter_model.safetensors",)


def _run_folder(folder: Path) -> Function:
    """A run without checksums, so that changes reach the parsers: the first byte says which of its files is replaced."""
    run = _make_run(folder)
    unseal(run)
    originals = {name: (run / name).read_bytes() for name in RUN_FILES if (run / name).is_file()}

    def load(data: bytes) -> None:
        name = RUN_FILES[data[0] % len(RUN_FILES) if data else 0]
        (run / name).write_bytes(data[1:])
        try:
            _read_everything(run, name)
        finally:
            (run / name).unlink()
            if name in originals:
                (run / name).write_bytes(originals[name])

    return load


def _read_everything(run: Path, name: str) -> None:
    readers: list[Callable[[Path], object]] = [
        read_run,
        run_folder.read_log,
        run_predictions.read_test_texts,
        run_folder.read_diagnosis,
    ]
    if name.startswith("model/"):
        readers = [read_run, lambda path: Classifier.load(path).predict(["some words"])]
    for read in readers:
        try:
            read(run)
        except LoralabError:
            continue


def _run_seeds() -> list[bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        run = _make_run(Path(name))
        unseal(run)
        return [bytes([i]) + (run / file).read_bytes() for i, file in enumerate(RUN_FILES) if (run / file).is_file()]


def _submission(folder: Path) -> Function:
    path, table = folder / "input.csv", ClassTable(("World", "Sports"), (("1",), ("2",)))
    expected = Submission(("id", "label"), ("1", "2"), ("World", "Sports"))

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            labels_like(read_template(path), table, "label", ("id", "text"))
        except LoralabError:
            check_submission(path, expected)

    return read


ROUTES = (
    *(("POST", path) for path in ("/v1/classify", "/predict", "/feedback", "/v1/models", "/api/neighbours", "/api/jobs")),
    *(("POST", path) for path in ("/api/labelling", "/api/runs/load", "/api/files", "/api/labelling/SESSION/rows")),
    *(("GET", path) for path in ("/api/rows", "/api/comparison", "/v1/models", "/api/labelling", "/api/files", "/page")),
    *(("DELETE", path) for path in ("/v1/models", "/api/files", "/api/jobs")),
)
MAX_SESSIONS = 20
"""Labelling sessions that the fuzzer may create: each is a folder."""


class _Requests:
    """Calls the HTTP service in this process. Each input is a request's body, for GET and DELETE its query and the end of its path.

    FILE in a body is the file that was sent last, SESSION in a path the labelling session.
    """

    def __init__(self, folder: Path) -> None:
        from loralab.serve.app import create_app
        from loralab.serve.service import Service
        from loralab.serve.settings import ServerSettings

        self.run = _make_run(folder)
        settings = ServerSettings(
            runs={"news": str(self.run)}, workers=1, port=80, folder=self.run.parent, labels=folder / "labels",
            feedback=folder / "feedback.csv", max_rows=50,
        )  # fmt: skip
        self.service = Service(settings)
        self.service.load()
        self.app, self.loop = create_app(settings, self.service), asyncio.new_event_loop()
        self.files: list[str] = []
        self.sessions: list[str] = []

    def __call__(self, data: bytes) -> None:
        method, path = ROUTES[data[0] % len(ROUTES) if data else 0]
        body, query = data[1:].replace(b"FILE", self.files[-1].encode() if self.files else b"x"), b""
        if method != "POST":
            body, end, query = b"", *data[1:].partition(b"?")[::2]
            path = f"{path}/{end.decode('latin-1')}" if end else path
        if path == "/api/files" and method == "POST":
            query = b"type=." + (b"csv", b"json", b"xlsx", b"parquet")[len(body) % 4]
        if path == "/api/labelling" and method == "POST" and len(self.sessions) == MAX_SESSIONS:
            return
        path = path.replace("SESSION", self.sessions[-1] if self.sessions else "x")
        status, answer = self.loop.run_until_complete(self._call(method, path, query, body))
        assert 200 <= status < 500 or status in (503, 504), f"status {status}: {answer[:200]!r}"
        if status >= 400:
            json.loads(answer)
        elif method == "POST" and path == "/api/files":
            self.files.append(json.loads(answer)["id"])
            if len(self.files) > 3:
                self.loop.run_until_complete(self._call("DELETE", f"/api/files/{self.files.pop(0)}", b"", b""))
        elif method == "POST" and path == "/api/labelling":
            self.sessions.append(json.loads(answer)["name"])
        elif method == "DELETE" and not self.service.models.all:
            self.service.add(self.run, "news")

    async def _call(self, method: str, path: str, query: bytes, body: bytes) -> tuple[int, bytes]:
        kind = b"application/octet-stream" if path == "/api/files" else b"application/json"
        headers = [(b"host", b"127.0.0.1:80"), (b"content-type", kind), (b"content-length", str(len(body)).encode())]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "headers": headers,
        }
        scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http", "http_version": "1.1", "root_path": ""}
        messages, status, answer = [{"type": "http.request", "body": body, "more_body": False}], 0, bytearray()

        async def receive() -> dict[str, Any]:
            if not messages:
                await asyncio.Event().wait()  # the client stays
            return messages.pop()

        async def send(message: Mapping[str, Any]) -> None:
            nonlocal status, answer
            status = message.get("status", status)
            answer += message.get("body", b"")

        await self.app(scope, receive, send)
        return status, bytes(answer)


def _labels_file(folder: Path) -> Function:
    """The file of a labelling session, which the page wrote before and reads again."""
    path = folder / "labels.csv"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        LabelledFile(path)

    return read


READ_AS = ({}, {"header": True}, {"encoding": "utf-8", "quotes": False}, {"delimiter": "tab", "header": False})
TARGETS: Mapping[str, Target] = {
    "delimited text": Target(fuzz_seeds.delimited, _files([".csv", ".tsv", ".txt"], READ_AS)),
    "JSON and JSON Lines": Target(fuzz_seeds.json_documents, _files([".json", ".jsonl", ".data"])),
    "annotation exports": Target(fuzz_seeds.annotations, _files([".json", ".jsonl"])),
    "fastText": Target(
        fuzz_seeds.fasttext, lambda folder: (lambda read: lambda data: read(b"\x00" + data))(_files([".txt"])(folder))
    ),
    "zip, gzip, bzip2, xz": Target(fuzz_seeds.packed, _files([".zip", ".csv.gz", ".csv.bz2", ".csv.xz"])),
    "Parquet and Arrow": Target(fuzz_seeds.columnar, _files([".parquet", ".arrow"])),
    "Excel": Target(fuzz_seeds.sheets, _workbook, slow=True),
    "pickle": Target(fuzz_seeds.pickles, _pickle),
    "check": Target(fuzz_seeds.delimited, _check, slow=True),
    "settings files": Target(fuzz_seeds.settings, _settings),
    "overrides": Target(fuzz_seeds.overrides, _overrides),
    "cleaning": Target(fuzz_seeds.texts, _clean),
    "safetensors": Target(_tensor_seeds, _tensors),
    "base checkpoint": Target(_checkpoint_seeds, _checkpoint, slow=True),
    "run folder": Target(_run_seeds, _run_folder, slow=True),
    "submission": Target(fuzz_seeds.submissions, _submission),
    "labels of the page": Target(fuzz_seeds.labels, _labels_file),
    "HTTP service": Target(fuzz_seeds.requests, _Requests, slow=True),
}
