"""Models of strangers: settings that ask for terabytes, weights outside the folder and endless expressions end in one message."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sealing import SEAL, reseal
from tiny import make_checkpoint, topics, write_csv

from loralab.cli.options import check_name
from loralab.config import LoraConfig, ModelConfig, load_config
from loralab.errors import LoralabError
from loralab.estimator import LoraTextClassifier
from loralab.inference.classifier import Classifier
from loralab.inference.onnx_model import OnnxClassifier
from loralab.model.checkpoints import resolve_base
from loralab.model.hf.pretrained import build_hf_model
from loralab.pipeline import run_training
from loralab.storage.run_folder import MANIFEST

HUGE = 1 << 30


@pytest.fixture(scope="module")
def originals(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("originals")
    rows = write_csv(folder / "rows.csv", topics(20))
    settings = [f"model.base={tiny}", "train.max_steps=1", "train.precision=fp32", "data.test=0"]
    return {
        tuning: run_training(load_config(rows, [*settings, f"tuning={tuning}"]), name=tuning, folder=folder).folder / "model"
        for tuning in ("lora", "full")
    }


@pytest.fixture(params=["lora", "full"])
def model(request: pytest.FixtureRequest, originals: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals[request.param], tmp_path / "model"))


def edit(folder: Path, name: str, change: Callable[[Any], object]) -> None:
    """Change a JSON file of a model as a stranger can, who computes all checksums anew."""
    path = folder / name
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    reseal(folder)


def load(folder: Path) -> str:
    """Return the message with which a model is refused, at once and without memory for it."""
    start = time.perf_counter()
    with pytest.raises(LoralabError) as caught:
        Classifier.load(folder, precision="fp32").predict(["a" * 100 + "!"])
    assert time.perf_counter() - start < 5
    return str(caught.value)


@pytest.mark.parametrize(
    "sizes", [("width", "ffn_width"), ("layers",), ("vocabulary",), ("positions",), ("ffn_width",), ("token_types",)]
)
def test_a_manifest_that_asks_for_terabytes_is_refused_before_memory_is(model: Path, sizes: tuple[str, ...]) -> None:
    edit(model, MANIFEST, lambda content: content["dims"].update(dict.fromkeys(sizes, HUGE)))
    message = load(model)
    assert "parameters, but its weights" in message or "its sizes are not those of" in message


@pytest.mark.parametrize(
    "sizes", [{"hidden_size": HUGE, "intermediate_size": HUGE}, {"num_hidden_layers": HUGE}, {"vocab_size": HUGE}]
)
def test_a_base_that_asks_for_terabytes_is_refused(tiny: Path, tmp_path: Path, sizes: dict[str, int]) -> None:
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | sizes), encoding="utf-8")
    rows = write_csv(tmp_path / "rows.csv", topics(20))
    with pytest.raises(LoralabError, match="parameters, but its weights"):
        run_training(load_config(rows, [f"model.base={base}", "train.max_steps=1"]), name="x", folder=tmp_path)


@pytest.mark.parametrize(
    "sizes", [{"hidden_size": 1 << 20}, {"num_hidden_layers": HUGE}, {"vocab_size": HUGE}, {"intermediate_size": HUGE}]
)
def test_a_base_for_transformers_that_asks_for_terabytes_is_refused(tmp_path: Path, sizes: dict[str, int]) -> None:
    pytest.importorskip("transformers")
    base = make_checkpoint(tmp_path / "base", "modernbert", layers=2)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | sizes), encoding="utf-8")
    with pytest.raises(LoralabError, match=r"asks? for .*, but its weights"):
        build_hf_model(resolve_base(str(base)), 2, ModelConfig(), tuning="lora", lora=LoraConfig(), init_seed=0)


def test_an_adapter_of_a_giant_rank_is_refused(originals: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(originals["lora"], tmp_path / "model"))
    edit(folder, "adapter_config.json", lambda content: content.update(r=HUGE))
    assert "has shape" in load(folder)


def test_empty_tensors_with_a_giant_side_are_refused(originals: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(originals["lora"], tmp_path / "model"))
    path = folder / "adapter_model.safetensors"
    tensors = {name: torch.empty(HUGE, 0) if "lora_A" in name else tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path)
    edit(folder, "adapter_config.json", lambda content: content.update(r=HUGE))
    assert "has shape" in load(folder)


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|a)*\d$", r"(?:(a+)+b)+c"])
@pytest.mark.parametrize("place", ["pre_tokenizer", "normalizer"])
def test_an_expression_that_never_ends_is_cut_off(originals: dict[str, Path], tmp_path: Path, pattern: str, place: str) -> None:
    folder = Path(shutil.copytree(originals["full"], tmp_path / "model"))
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    replace = {"type": "Replace", "pattern": {"Regex": pattern}, "content": "x"}
    edit(folder, "tokenizer.json", lambda content: content.update({place: split if place == "pre_tokenizer" else replace}))
    assert "the tokenizer cannot encode a text" in load(folder)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "sub/../../secret", "link"])
def test_weights_of_an_onnx_file_outside_its_folder_are_not_read(tmp_path: Path, location: str) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    (tmp_path / "secret").write_bytes(bytes(16))
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "secret")
    tensor = kinds(name="w", data_type=kinds.FLOAT, dims=[4], data_location=kinds.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    output = helper.make_tensor_value_info("logits", kinds.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["logits"])], "g", [], [output], [tensor])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(LoralabError, match=r"cannot read .*model\.onnx"):
        OnnxClassifier(folder / "model.onnx")


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "a\0b", "\x9b31m", "\u202eback", "\u2066x", "[/x]", "../x", "a\\b", ".."])
def test_a_name_that_a_terminal_obeys_or_that_is_a_path_is_refused(name: str) -> None:
    with pytest.raises(LoralabError) as caught:
        check_name(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["[x] [bold red]", "Größe 1", "模型", "a.b-c_d"])
def test_a_name_of_printable_characters_is_kept(name: str) -> None:
    assert check_name(name) == name


@pytest.fixture(scope="module")
def estimator(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts, labels = zip(*topics(20), strict=True)
    own = LoraTextClassifier(base=str(tiny), epochs=1).fit([*texts], [*labels])
    return own.save(tmp_path_factory.mktemp("estimator") / "own")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"classes"', '"Classes"'),
        lambda text: text.replace('"epochs": 1', '"epochs": 2'),
        lambda text: '{"parameters": {"unknown": 1}, "classes": [], "names": [], "text_columns": []}',
        lambda text: '{"a": ' * 50_000,
    ],
    ids=["cut", "empty", "key", "value", "unknown parameter", "nested"],
)
def test_a_damaged_estimator_is_named(estimator: Path, tmp_path: Path, change: Callable[[str], str]) -> None:
    folder = Path(shutil.copytree(estimator, tmp_path / "own"))
    path = folder / "estimator.json"
    changed = change(path.read_text(encoding="utf-8"))
    assert changed != path.read_text(encoding="utf-8")
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(LoralabError, match=r"estimator\.json"):
        LoraTextClassifier.load(folder)


def test_an_estimator_with_the_model_of_another_is_named(estimator: Path, originals: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(estimator, tmp_path / "own"))
    shutil.copyfile(originals["lora"] / MANIFEST, folder / MANIFEST)
    with pytest.raises(LoralabError, match=r"loralab\.json is damaged"):
        LoraTextClassifier.load(folder)


def test_an_estimator_without_checksums_opens(estimator: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(estimator, tmp_path / "own"))
    content = json.loads((folder / "estimator.json").read_text(encoding="utf-8"))
    (folder / "estimator.json").write_text(json.dumps({k: v for k, v in content.items() if k not in SEAL}), encoding="utf-8")
    assert LoraTextClassifier.load(folder).predict(["goal"]).shape == (1,)
