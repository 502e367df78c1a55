"""Push to a hub and load from it: three forms, branches, private repositories, errors, and nothing private in what is sent."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_stub import DROP, ME, OTHER, READER, HubStub
from huggingface_hub import ModelCard
from sealing import reseal
from tiny import topics

from loralab import Classifier, LoralabError, load_config
from loralab.errors import RunFailed
from loralab.inference import export
from loralab.integrations.hub import push_to_hub
from loralab.pipeline import run_training
from loralab.report.model_card import model_card
from loralab.report.run_data import read_run
from loralab.storage import run_folder

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>'")  # huggingface_hub's own call of httpx
TEXTS = ["goal striker league", "profit shares bank " * 30, "", "telescope robot", "border treaty"]
BASE = "acme/tiny"
SETTINGS = [f"model.base={BASE}", "train.learning_rate=0.01", "train.epochs=3", "train.precision=fp32", "train.threads=1"]
ADAPTER = {"adapter_config.json", "adapter_model.safetensors"}
COMMON = {"README.md", "config.json", "loralab.json", "tokenizer.json", "tokenizer_config.json"}
UPLOADED = {"bundle": COMMON | ADAPTER, "peft": COMMON | ADAPTER, "merged": COMMON | {"model.safetensors"}}


def checkpoint(folder: Path) -> dict[str, bytes]:
    """The files of a base for `HubStub.add`."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def open_no_exports_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with Transformers takes seconds."""
    monkeypatch.setattr(export.outside, "missing_packages", lambda kind: ["transformers"])


@pytest.fixture(scope="module")
def trained(tiny: Path, topics_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose base came from a hub, with its card and its exports."""
    folder = tmp_path_factory.mktemp("trained")
    with HubStub() as stub, pytest.MonkeyPatch.context() as patch:
        stub.replace_hub(patch, folder / "cache")
        patch.setattr(export.outside, "missing_packages", lambda kind: ["transformers"])
        stub.add(BASE, checkpoint(tiny))
        run = run_training(load_config(topics_csv, SETTINGS), folder=folder / "runs", name="topics").folder
        (run / "README.md").write_text(model_card(read_run(run), frozenset()))
        for form in ("peft", "merged"):
            export.export_run(run, form)
    return run


@pytest.fixture
def run(trained: Path, hub: HubStub, tiny: Path) -> Path:
    """The run, on a hub that has its base."""
    hub.add(BASE, checkpoint(tiny))
    return trained


def folder_of(run: Path, form: str) -> Path:
    return run / "model" if form == "bundle" else run / "exports" / form


def logits(path: str | Path, **options: Any) -> np.ndarray:
    return Classifier.load(path, precision="fp32", threads=1, **options).logits(TEXTS)


@pytest.mark.parametrize("form", UPLOADED)
def test_a_pushed_model_loads_from_the_hub_with_the_same_logits(run: Path, hub: HubStub, form: Any) -> None:
    expected = logits(folder_of(run, form))
    url = push_to_hub(run, "me/topics", what=form)
    repository = hub.repositories["me/topics"]
    assert url == f"{hub.endpoint}/me/topics/commit/{repository.heads['main']}"
    hub.requests.clear()
    np.testing.assert_array_equal(logits("me/topics"), expected)
    assert any(BASE in path for path in hub.sent("GET")) == (form != "merged")  # not from the folder of this machine
    assert Classifier.load("me/topics").classes == Classifier.load(run).classes


@pytest.mark.parametrize("form", UPLOADED)
def test_only_the_model_and_its_card_are_uploaded_in_one_commit(run: Path, hub: HubStub, form: Any) -> None:
    push_to_hub(run, "me/topics", what=form)
    assert set(hub.files("me/topics")) == UPLOADED[form]
    assert len([path for path in hub.sent("POST") if "/commit/" in path]) == 1
    assert hub.repositories["me/topics"].messages == ["added", f"Upload topics ({form}) with loralab"]


@pytest.mark.parametrize("form", UPLOADED)
def test_nothing_uploaded_names_this_machine_or_a_training_text(run: Path, hub: HubStub, form: Any, tiny: Path) -> None:
    push_to_hub(run, "me/topics", what=form)
    private = [str(run), str(run.parent.parent), str(tiny.parent), str(Path.home()) + "/", "predictions.csv", "topics.csv/"]
    private += [text for text, _ in topics(30)]
    for name, content in hub.files("me/topics").items():
        text = content.decode("utf-8", "replace")
        assert [part for part in private if part in text] == [], name


@pytest.mark.parametrize(
    ("form", "library", "relation"),
    [("bundle", "loralab", "adapter"), ("peft", "peft", "adapter"), ("merged", "transformers", "finetune")],
)
def test_the_card_has_the_metadata_of_its_form_and_code_with_the_repository(
    run: Path, hub: HubStub, form: Any, library: str, relation: str
) -> None:
    push_to_hub(run, "me/topics", what=form, revision="v1")
    card = ModelCard(hub.files("me/topics", "v1")["README.md"].decode())
    assert (card.data.library_name, card.data.base_model, card.data.base_model_relation) == (library, BASE, relation)
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.metrics == ["accuracy", "f1"]
    assert {"loralab", "lora", "text-classification"} <= set(card.data.tags)
    assert 'Classifier.load("me/topics", revision="v1")' in card.text
    commit = json.loads((run / "model" / "loralab.json").read_text())["base_revision"]
    assert f"(revision `{commit}`)" in card.text
    assert ('model="me/topics", revision="v1"' in card.text) == (form == "merged")
    assert (f'from_pretrained("{BASE}", revision="{commit}"' in card.text) == (form != "merged")


def test_license_and_language_of_the_runs_card_are_published(run: Path, hub: HubStub) -> None:
    notices: list[str] = []
    push_to_hub(run, "me/topics", announce=lambda upload: notices.extend(upload.remarks))
    assert len(notices) == 1
    assert "no license" in notices[0]
    card = run / "README.md"
    before = card.read_text()
    card.write_text(before.replace("---\n", "---\nlicense: mit\nlanguage: de\n", 1))
    try:
        push_to_hub(run, "me/topics", announce=lambda upload: notices.extend(upload.remarks))
    finally:
        card.write_text(before)
    data = ModelCard(hub.files("me/topics")["README.md"].decode()).data
    assert (data.license, data.language, len(notices)) == ("mit", "de", 1)


def test_a_base_that_is_a_local_folder_is_published_by_its_name(hub: HubStub, tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    config = load_config(topics_csv, [*SETTINGS, f"model.base={tiny}", "train.max_steps=2"])
    run = run_training(config, folder=tmp_path / "runs", name="local").folder
    assert str(tiny) in (run / "model" / "adapter_config.json").read_text()
    notices: list[str] = []
    push_to_hub(run, "me/local", announce=lambda upload: notices.extend(upload.remarks))
    assert "with base=FOLDER" in notices[0]
    files = hub.files("me/local")
    assert (
        json.loads(files["loralab.json"])["base"] == json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "bert"
    )
    assert all(str(tmp_path).encode() not in content and str(tiny).encode() not in content for content in files.values())
    assert b'base="FOLDER"' in files["README.md"]
    assert b"base_model" not in files["README.md"]
    np.testing.assert_array_equal(logits("me/local", base=str(tiny)), logits(run))
    with pytest.raises(LoralabError, match="--base FOLDER"):
        Classifier.load("me/local")


def test_a_branch_a_commit_and_main_are_loaded_by_revision(run: Path, hub: HubStub) -> None:
    push_to_hub(run, "me/topics")
    main, first = hub.files("me/topics"), hub.repositories["me/topics"].heads["main"]
    url = push_to_hub(run, "me/topics", what="merged", revision="merged", commit_message="The merged form")
    assert hub.files("me/topics") == main
    assert set(hub.files("me/topics", "merged")) == UPLOADED["merged"]  # and no adapter, which Transformers would apply again
    assert hub.repositories["me/topics"].messages[-1] == "The merged form"
    assert Classifier.load("me/topics").manifest.tuning == "lora"
    assert Classifier.load("me/topics", revision="merged").manifest.tuning == "full"
    assert Classifier.load("me/topics", revision=url.rpartition("/")[2]).manifest.tuning == "full"
    assert Classifier.load("me/topics", revision=first).manifest.tuning == "lora"
    with pytest.raises(LoralabError, match="no revision 'v9'"):
        Classifier.load("me/topics", revision="v9")


def test_a_second_push_replaces_the_model_and_keeps_other_files(run: Path, hub: HubStub) -> None:
    hub.add("me/topics", {"notes.md": b"mine"})
    push_to_hub(run, "me/topics")
    push_to_hub(run, "me/topics", what="merged")
    assert set(hub.files("me/topics")) == {"notes.md", *UPLOADED["merged"]}


def test_the_newest_push_is_loaded_and_the_cached_one_without_network(
    run: Path, hub: HubStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_to_hub(run, "me/topics")
    Classifier.load("me/topics")
    push_to_hub(run, "me/topics", what="merged")
    assert Classifier.load("me/topics").manifest.tuning == "full"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert Classifier.load("me/topics").manifest.tuning == "full"


def test_a_missing_export_is_made(run: Path, hub: HubStub, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("exports"))
    stages: list[str] = []
    push_to_hub(copy, "me/topics", what="peft", progress=stages.append)
    assert (copy / "exports" / "peft" / run_folder.EXPORT_CHECK).is_file()
    assert "writing the peft export" in stages


def test_a_private_repository_is_hidden_from_others(run: Path, hub: HubStub, monkeypatch: pytest.MonkeyPatch) -> None:
    push_to_hub(run, "me/secret", private=True)
    push_to_hub(run, "me/open")
    assert (hub.repositories["me/secret"].private, hub.repositories["me/open"].private) == (True, False)
    Classifier.load("me/secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(run.parent / "other-cache"))
    monkeypatch.setenv("HF_TOKEN", OTHER)
    with pytest.raises(LoralabError, match=r"no model me/secret, or it is private.*hf auth login"):
        Classifier.load("me/secret")


def test_private_refuses_a_public_repository_before_anything_is_sent(run: Path, hub: HubStub) -> None:
    hub.add("me/open", {"notes.md": b"mine"})
    with pytest.raises(LoralabError, match="--private: me/open exists and is public"):
        push_to_hub(run, "me/open", private=True)
    assert set(hub.files("me/open")) == {"notes.md"}
    assert not hub.objects


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hf_wrong", r"does not accept the token \(401.*hf auth login"),
        (OTHER, r"may not write to me/topics \(403.*belongs to somebody else"),
        (READER, r"may not write to me/topics \(403.*write access"),
    ],
)
def test_tokens_without_access_are_refused(run: Path, hub: HubStub, token: str, message: str) -> None:
    for existing in (False, True):
        if existing:
            hub.add("me/topics", {"notes.md": b"mine"})
        with pytest.raises(LoralabError, match=message):
            push_to_hub(run, "me/topics", token=token)
    assert set(hub.files("me/topics")) == {"notes.md"}


@pytest.mark.parametrize(
    ("request_", "status", "kind", "message"),
    [
        ("POST /api/repos/create", 404, LoralabError, r"no repository me/topics that this token sees \(404"),
        ("POST /api/repos/create", 500, RunFailed, r"the hub failed .*\(500.*nothing was committed; push again"),
        ("/commit/", 403, LoralabError, r"may not write to me/topics \(403"),
        ("/commit/", 409, RunFailed, r"changed at the same time \(409.*push again"),
        ("/commit/", 500, RunFailed, r"the hub failed .*\(500"),
        ("/commit/", DROP, RunFailed, r"connection broke.*no commit was confirmed"),
        ("PUT /lfs/", 403, LoralabError, r"may not write to me/topics \(403"),
        ("PUT /lfs/", DROP, RunFailed, r"connection broke.*no commit was confirmed"),
        ("POST /api/validate-yaml", 400, LoralabError, r"refuses the upload to me/topics"),
    ],
)
def test_an_upload_that_fails_says_why_and_leaves_everything_as_it_was(
    run: Path, hub: HubStub, request_: str, status: int, kind: type, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.add("me/topics", {"notes.md": b"mine"})
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    hub.failures[request_] = status
    with pytest.raises(LoralabError, match=message) as caught:
        push_to_hub(run, "me/topics")
    assert type(caught.value) is kind
    assert set(hub.files("me/topics")) == {"notes.md"}
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    hub.failures.clear()
    push_to_hub(run, "me/topics")
    assert set(hub.files("me/topics")) == {"notes.md", *UPLOADED["bundle"]}


def test_ctrl_c_during_an_upload_leaves_everything_as_it_was(run: Path, hub: HubStub, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub._commit_api._upload_lfs_files", interrupt)
    before = sorted(run.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        push_to_hub(run, "me/topics")
    assert sorted(run.rglob("*")) == before
    assert hub.files("me/topics") == {}


def test_a_hub_out_of_reach(run: Path, hub: HubStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RunFailed, match=r"cannot be reached.*ConnectError.*check the network"):
        push_to_hub(run, "me/topics")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LoralabError, match="HF_HUB_OFFLINE is set"):
        push_to_hub(run, "me/topics")
    assert hub.requests == []


def test_without_a_token_nothing_is_sent(run: Path, hub: HubStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(LoralabError, match=r"no token.*`hf auth login`, or set HF_TOKEN"):
        push_to_hub(run, "me/topics")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("repo_id", "options", "message"),
    [
        ("topics", {}, "write USER/NAME"),
        ("a/b/c", {}, "write USER/NAME"),
        ("me/topics", {"what": "onnx"}, "--as onnx: there is no such form.*bundle, peft, merged"),
        ("me/topics", {"revision": "0" * 40}, "name a branch"),
    ],
)
def test_wrong_arguments_are_refused(run: Path, hub: HubStub, repo_id: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LoralabError, match=message):
        push_to_hub(run, repo_id, **options)
    assert hub.requests == []


def test_only_complete_runs_are_pushed(run: Path, hub: HubStub, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "scores.json").unlink()
    with pytest.raises(LoralabError, match=r"copy is not complete: resume it with --resume"):
        push_to_hub(copy, "me/topics")
    with pytest.raises(LoralabError, match="model is not a run"):
        push_to_hub(run / "model", "me/topics")
    assert hub.requests == []


def test_a_path_of_this_machine_in_the_card_stops_the_push(run: Path, hub: HubStub, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("template: '{}'", f"template: '{copy} {{}}'"))
    reseal(copy)
    with pytest.raises(LoralabError, match=r"README\.md names the path .*copy of this machine, so nothing was uploaded"):
        push_to_hub(copy, "me/topics")
    assert hub.requests == []


def test_push_and_predict_on_the_command_line(run: Path, hub: HubStub, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from loralab.cli.main import app

    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(app, [*arguments])

    answer = invoke("push", str(run), "me/topics", "--as", "merged", "--private", "--revision", "v1", "--message", "First")
    assert answer.exit_code == 0, answer.output
    first, *_, last = answer.stdout.splitlines()
    assert first.split() == ["uploading", "me/topics", "(merged,", "branch", "v1)"]
    assert all(name in answer.stdout for name in UPLOADED["merged"])
    assert last.split() == ["published", f"{hub.endpoint}/me/topics/commit/{hub.repositories['me/topics'].heads['v1']}"]
    assert hub.repositories["me/topics"].private
    assert hub.repositories["me/topics"].messages[-1] == "First"

    answer = invoke("push", str(run), "me/topics", "--json")
    assert json.loads(answer.stdout)["url"].startswith(f"{hub.endpoint}/me/topics/commit/")
    assert {*json.loads(answer.stdout)["files"]} == UPLOADED["bundle"]

    for more in ((), ("--revision", "v1")):
        answer = invoke("predict", "me/topics", "--input", "goal striker league", "--json", *more)
        assert answer.exit_code == 0, answer.output
        assert json.loads(answer.stdout)[0]["label"] == Classifier.load(run).predict(["goal striker league"]).labels[0]
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\ngoal striker league,Sports\nbank merger,Business\n")
    answer = invoke("evaluate", "me/topics", "--file", str(rows), "--revision", "v1", "--json")
    assert "accuracy" in json.loads(answer.stdout)


SNIPPET_TEXTS = ["a text", "another text, which is longer"]
"""The texts of the code in a model card."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_other_processes_push_and_run_the_cards_code(run: Path, hub: HubStub, tmp_path: Path) -> None:
    """Nothing is patched here: huggingface_hub finds the hub by HF_ENDPOINT, and peft and Transformers load by hub id."""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": ME}

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    snippets = []
    for form in UPLOADED:
        python("-m", "loralab", "push", str(run), f"me/{form}", "--as", form)
        card = hub.files(f"me/{form}")["README.md"].decode()
        snippets += re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(snippets) == 6
    printed = python("-c", "\n".join([*snippets, "print('done')"])).splitlines()
    assert printed[-1] == "done"
    expected = Classifier.load(run, precision="fp32").predict(SNIPPET_TEXTS)
    for start in (1, 4):  # tensors of the bundle and the peft form, after one line with the label of `Classifier`
        values = np.array(re.findall(r"\d\.\d+(?:e-\d+)?", "".join(printed[start : start + 2])), dtype=float)
        np.testing.assert_allclose(values.reshape(2, 4), expected.probabilities, atol=2e-4)
    (answers,) = (line for line in printed if line.startswith("[[{"))
    first = [answer[0]["label"] for answer in ast.literal_eval(answers)]
    assert first == expected.labels
