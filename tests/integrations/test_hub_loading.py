"""What is loaded from a hub: models by their id, and bases at a revision, from the cache where there is no network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hub_stub import HubStub
from tiny import make_checkpoint

from loralab import Classifier, LoralabError, load_config
from loralab.config import DataConfig, ModelConfig
from loralab.data.check import check_source
from loralab.inference.export import export_run
from loralab.info import budget_options, count_parameters, describe
from loralab.model.checkpoints import base_dimensions, resolve_base
from loralab.model.manifest import read_manifest
from loralab.pipeline import run_training
from loralab.report.model_card import model_card
from loralab.report.run_data import read_run

BASE, TEXTS = "acme/tiny", ["goal striker league", "profit shares bank"]
SETTINGS = [f"model.base={BASE}", "train.max_steps=2", "train.precision=fp32", "train.threads=1"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def commits(hub: HubStub, tiny: Path, tmp_path: Path) -> tuple[str, str]:
    """Two commits of a base with other weights: v1, and main."""
    first = hub.add(BASE, contents(tiny))
    hub.repositories[BASE].heads["v1"] = first
    return first, hub.add(BASE, contents(make_checkpoint(tmp_path / "second", seed=1, layers=2)))


# --- bases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pinned", ["v1", "commit"])
def test_a_run_is_trained_on_the_base_at_its_revision_and_names_the_commit(
    hub: HubStub,
    commits: tuple[str, str],
    topics_csv: Path,
    tmp_path: Path,
    tiny: Path,
    pinned: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    revision = commits[0] if pinned == "commit" else pinned
    config = load_config(topics_csv, [*SETTINGS, f"model.revision={revision}"])
    run = run_training(config, folder=tmp_path / "runs", name="pinned").folder
    manifest = read_manifest(run / "model")
    assert (manifest.base, manifest.base_revision) == (BASE, commits[0])
    assert manifest.base_sha256 == resolve_base(str(tiny)).identity()
    environment = json.loads((run / "environment.json").read_text())
    assert environment["base"] == {"name": BASE, "sha256": manifest.base_sha256, "revision": commits[0]}
    assert json.loads((run / "model" / "adapter_config.json").read_text())["revision"] == commits[0]
    assert f"(https://huggingface.co/{BASE}) (revision `{commits[0]}`)" in model_card(read_run(run), frozenset())

    expected = Classifier.load(run).logits(TEXTS)
    shutil.rmtree(tmp_path / "hub-cache")  # on another machine the base is downloaded again, at its commit
    np.testing.assert_array_equal(Classifier.load(run).logits(TEXTS), expected)
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    np.testing.assert_array_equal(Classifier.load(run).logits(TEXTS), expected)
    assert hub.requests == []


def test_exports_name_the_commit_of_the_base(
    hub: HubStub, commits: tuple[str, str], topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loralab.inference.export.outside.missing_packages", lambda kind: ["transformers"])
    run = run_training(load_config(topics_csv, [*SETTINGS, "model.revision=v1"]), folder=tmp_path / "runs").folder
    folder = export_run(run, "peft").folder
    assert json.loads((folder / "adapter_config.json").read_text())["revision"] == commits[0]
    assert f'from_pretrained("{BASE}", revision="{commits[0]}"' in (folder / "README.md").read_text()


def test_without_a_revision_main_is_used(commits: tuple[str, str]) -> None:
    resolved = resolve_base(BASE)
    assert (resolved.revision, resolved.dims.layers) == (commits[1], 2)
    assert base_dimensions(BASE, "v1").layers == 3


def test_a_cached_revision_needs_no_network(hub: HubStub, commits: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_base(BASE, "v1")
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for revision in ("v1", commits[0]):
        assert resolve_base(BASE, revision).revision == commits[0]
    with pytest.raises(LoralabError, match=r"model\.base='acme/tiny' at model\.revision='v2' is not on this disk"):
        resolve_base(BASE, "v2")
    assert hub.requests == []


def test_an_unknown_revision_is_refused(commits: tuple[str, str]) -> None:
    with pytest.raises(LoralabError, match=r"model\.revision='v9': acme/tiny has no such branch, tag or commit"):
        resolve_base(BASE, "v9")


def test_counting_and_checking_use_the_revision(commits: tuple[str, str], topics_csv: Path) -> None:
    config = load_config("quickstart", [f"model.base={BASE}", "model.revision=v1"])
    assert "3 layers" in describe("quickstart", [f"model.base={BASE}", "model.revision=v1"])["base"]
    assert "2 layers" in describe("quickstart", [f"model.base={BASE}"])["base"]
    assert count_parameters(config, 4)[0].layers == 3
    pinned = budget_options("quickstart", [f"model.base={BASE}", "model.revision=v1", "model.head=linear"], 2_000)
    newest = budget_options("quickstart", [f"model.base={BASE}", "model.head=linear"], 2_000)
    assert pinned != newest
    (report,) = check_source(DataConfig(source=str(topics_csv)), ModelConfig(base=BASE, revision="v1"))
    assert report.lengths.summary()["unit"] == "tokens"
    (report,) = check_source(DataConfig(source=str(topics_csv)), ModelConfig(base=BASE, revision="v9"))
    assert any("model.revision='v9'" in finding.message for finding in report.findings)


@pytest.mark.parametrize("base", ["minilm", "folder"])
def test_a_revision_of_a_local_base_is_refused(base: str, tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    name = base if base == "minilm" else str(tiny)
    config = load_config(topics_csv, [f"model.base={name}", "model.revision=v1"])
    with pytest.raises(LoralabError, match=r"model\.revision='v1': model\.base=.* has no revisions: remove model\.revision"):
        run_training(config, folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(LoralabError, match="has no revisions"):
        base_dimensions(name, "v1")


def test_an_adapter_of_peft_is_loaded_on_the_revision_that_it_names(hub: HubStub, commits: tuple[str, str], tmp_path: Path) -> None:
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = resolve_base(BASE, "v1").folder
    settings = LoraConfig(task_type=TaskType.SEQ_CLS, r=2, target_modules=["query", "value"])
    model = get_peft_model(AutoModelForSequenceClassification.from_pretrained(base, num_labels=4), settings)
    model.save_pretrained(tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": BASE, "revision": "v1"}))
    hub.add("me/adapter", contents(tmp_path / "adapter"))
    loaded = Classifier.load("me/adapter")
    assert (loaded.manifest.base, loaded.manifest.base_revision) == (BASE, commits[0])
    np.testing.assert_array_equal(loaded.logits(TEXTS), Classifier.load(tmp_path / "adapter").logits(TEXTS))


# --- models --------------------------------------------------------------------------------------------------------


def test_neither_a_folder_nor_a_model_on_the_hub(hub: HubStub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        LoralabError, match=r"no run me/nothing on this disk, and the hub has no model me/nothing, or it is private"
    ):
        Classifier.load("me/nothing")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LoralabError, match=r"no run me/nothing on this disk, and me/nothing could not be downloaded"):
        Classifier.load("me/nothing")


@pytest.mark.parametrize("path", ["runs/newz", "news", "./news/x", "a/b/c", "/me/model"])
def test_paths_are_not_looked_up_on_the_hub(hub: HubStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "news").mkdir()
    shutil.rmtree(tmp_path / "news") if path == "news" else None
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LoralabError, match="there is no run"):
        Classifier.load(path)
    assert hub.requests == []


def test_a_local_folder_wins_and_has_no_revision(
    hub: HubStub, topics_csv: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [f"model.base={tiny}", "train.max_steps=1"]
    run_training(load_config(topics_csv, settings), folder="me", name="topics")
    assert len(Classifier.load("me/topics").classes) == 4
    with pytest.raises(LoralabError, match=r"revision='v1': me/topics is a local folder and has no revisions"):
        Classifier.load("me/topics", revision="v1")
    assert hub.requests == []


def test_checkpoints_of_others_are_refused_with_what_opens_them(hub: HubStub, commits: tuple[str, str]) -> None:
    with pytest.raises(
        LoralabError, match=r"acme/tiny on the hub has no loralab\.json.*transformers\.pipeline.*model\.base=acme/tiny"
    ):
        Classifier.load(BASE)
    hub.add("me/data", {"train.txt": b"a text"})
    with pytest.raises(LoralabError, match=r"me/data on the hub holds neither"):
        Classifier.load("me/data")


def test_pickles_and_nested_files_are_not_downloaded(hub: HubStub, tmp_path: Path) -> None:
    names = ("pytorch_model.bin", "training_args.pt", "model.pkl", "checkpoint-1/model.safetensors", "onnx/config.json", "run.py")
    hub.add("me/model", {**dict.fromkeys(names, b"x"), "config.json": b"{}"})
    with pytest.raises(LoralabError, match=r"no loralab\.json"):
        Classifier.load("me/model")
    assert [path.rpartition("/resolve/")[2].partition("/")[2] for path in hub.sent("GET") if "/resolve/" in path] == ["config.json"]


def test_a_gated_model_says_so(hub: HubStub) -> None:
    hub.add("me/gated", {"config.json": b"{}"})
    hub.gated.add("me/gated")
    with pytest.raises(LoralabError, match="the hub gives me/gated only to accepted users"):
        Classifier.load("me/gated")
