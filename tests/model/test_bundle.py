"""A saved model gives equal logits in a new process, moved and offline; damaged files are refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import bundle, largest_difference, logits_of, ours, padded_batch, randomise
from safetensors.torch import load_file, save_file
from sealing import reseal
from tiny import MODEL_TYPES, make_checkpoint

from loralab.config import LoraConfig
from loralab.errors import LoralabError
from loralab.inference.classifier import Classifier
from loralab.model.bundle import load_bundle, read_manifest
from loralab.model.encoder import EncoderClassifier

LORA = LoraConfig(rank=3, alpha=6, dropout=0.1, targets=("query", "value", "ffn_out"), layers="1-2", variant="rslora")
TEXTS = ["Chip profit falls.", "a goal", "The minister said so"]
HEADS = [("cls", "default"), ("mean", "linear"), ("cls", "linear"), ("mean", "default")]
FRESH = """
import json, socket, sys
def refuse(*a, **k): raise OSError("sockets are blocked")
socket.socket.connect = socket.getaddrinfo = refuse
import numpy as np, torch
torch.manual_seed(int(sys.argv[2]))
from pathlib import Path
from loralab.inference.classifier import Classifier
from loralab.model.bundle import load_bundle
job, out = json.loads(Path(sys.argv[1]).read_text()), {}
for name, (folder, tokens, mask) in job["bundles"].items():
    model, _ = load_bundle(Path(folder))
    with torch.no_grad():
        out[name] = model(torch.tensor(tokens), torch.tensor(mask)).numpy()
    classifier = Classifier.load(folder, precision="fp32")
    out[name + " probabilities"] = classifier.predict(job["texts"]).probabilities
    assert classifier.classes == ("World", "Sports", "Business", "Sci/Tech"), classifier.classes
assert "transformers" not in sys.modules and "peft" not in sys.modules
np.savez(sys.argv[3], **out)
"""


def trained(base: Path, tuning: str, pooling: str = "cls", head: str = "default") -> EncoderClassifier:
    return randomise(ours(base, pooling=pooling, head=head, tuning=tuning, lora=LORA)).eval()


def probabilities(model: EncoderClassifier, base: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    from loralab.data.tokenize import load_tokenizer

    tokenizer = load_tokenizer(base, 128)
    rows = []
    for text in TEXTS:
        tokens = torch.tensor([tokenizer.encode(text).ids])
        rows.append(logits_of(model, tokens, torch.ones_like(tokens, dtype=torch.bool)).softmax(-1)[0].numpy())
    return np.stack(rows)


@pytest.mark.slow
def test_a_moved_bundle_in_a_fresh_process_gives_the_saved_logits(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    job: dict[str, Any] = {"bundles": {}, "texts": TEXTS}
    expected = {}
    for kind in ("bert", "roberta", "distilbert"):
        for tuning in ("lora", "full", "head"):
            for pooling, head in HEADS[:2]:
                name = f"{kind} {tuning} {head}"
                model = trained(checkpoints[kind], tuning, pooling, head)
                folder = bundle(tmp_path / "first" / name, model, checkpoints[kind], tuning=tuning, lora=LORA)
                tokens, mask = padded_batch(checkpoints[kind])
                expected[name] = logits_of(model, tokens, mask).numpy(), probabilities(model, checkpoints[kind])
                moved = tmp_path / "moved" / name
                moved.parent.mkdir(exist_ok=True)
                shutil.move(folder, moved)
                job["bundles"][name] = str(moved), tokens.tolist(), mask.tolist()
    (tmp_path / "job.json").write_text(json.dumps(job))
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-W", "error", "-c", FRESH, str(tmp_path / "job.json"), "12345", str(tmp_path / "out.npz")]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=120)
    found = np.load(tmp_path / "out.npz")
    for name, (logits, chances) in expected.items():
        assert np.abs(found[name] - logits).max() < 1e-6, name
        np.testing.assert_allclose(found[f"{name} probabilities"], chances, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", MODEL_TYPES)
@pytest.mark.parametrize("tuning", ["lora", "full", "head"])
@pytest.mark.parametrize(("pooling", "head"), HEADS)
def test_saved_then_loaded_gives_the_same_logits_and_counts(
    checkpoints: dict[str, Path], tmp_path: Path, kind: str, tuning: str, pooling: str, head: str
) -> None:
    model = trained(checkpoints[kind], tuning, pooling, head)
    folder = bundle(tmp_path / "bundle", model, checkpoints[kind], tuning=tuning, lora=LORA)
    torch.manual_seed(99)
    loaded, manifest = load_bundle(folder)
    tokens, mask = padded_batch(checkpoints[kind])
    expected = logits_of(model, tokens, mask)
    untrained = ours(checkpoints[kind], pooling=pooling, head=head)
    assert largest_difference(expected, logits_of(untrained, tokens, mask)) > 0.05
    assert largest_difference(logits_of(loaded, tokens, mask), expected) < 1e-6
    assert not loaded.training
    assert manifest == read_manifest(folder)
    assert (manifest.classes, manifest.pooling, manifest.head, manifest.tuning) == (
        ("World", "Sports", "Business", "Sci/Tech"),
        pooling,
        head,
        tuning,
    )
    assert manifest.dims == model.dims
    counts, before = loaded.parameter_counts(), model.parameter_counts()
    assert (counts.base, counts.adapter, counts.head) == (before.base, before.adapter, before.head)
    if tuning == "lora":
        assert counts.trainable == before.trainable


def test_the_files_are_those_of_the_tuning(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    always = {"loralab.json", "tokenizer.json", "tokenizer_config.json"}
    adapter = {"adapter_config.json", "adapter_model.safetensors"}
    for tuning, pooling, head, expected in [
        ("lora", "cls", "default", {*adapter, "config.json"}),
        ("lora", "mean", "linear", {*adapter, "config.json", "head.safetensors"}),
        ("head", "cls", "default", {"config.json", "head.safetensors"}),
        ("full", "cls", "default", {"config.json", "model.safetensors"}),
        ("full", "mean", "linear", {"encoder_config.json", "model.safetensors"}),  # no class of Transformers has this head
    ]:
        model = trained(checkpoints["roberta"], tuning, pooling, head)
        folder = bundle(tmp_path / f"{tuning} {head}", model, checkpoints["roberta"], tuning=tuning, lora=LORA)
        assert {path.name for path in folder.iterdir()} == always | expected


def test_a_fully_tuned_bundle_needs_no_base(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", layers=2)
    model = randomise(ours(base, tuning="full"))
    tokens, mask = padded_batch(base)
    folder = bundle(tmp_path / "bundle", model, base, tuning="full")
    shutil.rmtree(base)
    assert largest_difference(logits_of(load_bundle(folder)[0], tokens, mask), logits_of(model, tokens, mask)) < 1e-6


def test_saving_from_bf16_keeps_what_was_trained_exactly(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = trained(checkpoints["roberta"], "lora")
    tokens, mask = padded_batch(checkpoints["roberta"])
    exact = logits_of(model, tokens, mask)
    model.freeze_to(torch.bfloat16)
    folder = bundle(tmp_path / "bundle", model, checkpoints["roberta"], tuning="lora", lora=LORA)
    assert largest_difference(logits_of(load_bundle(folder)[0], tokens, mask), exact) < 1e-6


def test_a_merged_model_saves_the_same_adapter(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = trained(checkpoints["roberta"], "lora")
    tokens, mask = padded_batch(checkpoints["roberta"])
    exact = logits_of(model, tokens, mask)
    model.merge()
    folder = bundle(tmp_path / "bundle", model, checkpoints["roberta"], tuning="lora", lora=LORA)
    assert largest_difference(logits_of(load_bundle(folder)[0], tokens, mask), exact) < 1e-6


@pytest.mark.parametrize("tuning", ["lora", "head"])
def test_other_base_weights_are_refused_and_a_moved_base_is_accepted(tmp_path: Path, tuning: str) -> None:
    base = make_checkpoint(tmp_path / "base", "roberta")
    model = trained(base, tuning)
    tokens, mask = padded_batch(base)
    folder = bundle(tmp_path / "bundle", model, base, tuning=tuning, lora=LORA)
    other = make_checkpoint(tmp_path / "other", "roberta", seed=1)
    with pytest.raises(LoralabError, match=r"--base FOLDER"):
        load_bundle(folder, str(other))
    shutil.move(base, tmp_path / "elsewhere")
    with pytest.raises(LoralabError):
        load_bundle(folder)
    loaded, _ = load_bundle(folder, str(tmp_path / "elsewhere"))
    assert largest_difference(logits_of(loaded, tokens, mask), logits_of(model, tokens, mask)) < 1e-6
    shutil.copytree(other, base)  # the old place, now with other weights
    with pytest.raises(LoralabError, match=r"--base FOLDER"):
        Classifier.load(folder)


def test_a_missing_base_gets_an_error_that_names_the_option(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", "roberta")
    folder = bundle(tmp_path / "bundle", trained(base, "lora"), base, tuning="lora", lora=LORA)
    shutil.rmtree(base)
    with pytest.raises(LoralabError, match="--base"):
        load_bundle(folder)


@pytest.fixture
def saved(checkpoints: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Save a bundle to damage."""

    def save(tuning: str = "lora", pooling: str = "mean", head: str = "linear") -> Path:
        model = trained(checkpoints["bert"], tuning, pooling, head)
        return bundle(tmp_path / "bundle", model, checkpoints["bert"], tuning=tuning, lora=LORA)

    return save


WEIGHTS = [
    ("lora", "adapter_model.safetensors"),
    ("lora", "head.safetensors"),
    ("head", "head.safetensors"),
    ("full", "model.safetensors"),
]


@pytest.mark.parametrize(("tuning", "name"), WEIGHTS)
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99], ids=str)
def test_truncated_weights_are_refused(saved: Callable[..., Path], tuning: str, name: str, keep: float) -> None:
    folder = saved(tuning)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(keep * len(whole))])
    reseal(folder)
    with pytest.raises(LoralabError, match=name):
        Classifier.load(folder)


@pytest.mark.parametrize(("tuning", "name"), [*WEIGHTS, ("lora", "adapter_config.json"), ("lora", "loralab.json")])
def test_a_missing_file_is_refused(saved: Callable[..., Path], tuning: str, name: str) -> None:
    folder = saved(tuning)
    (folder / name).unlink()
    if name != "loralab.json":
        reseal(folder)
    with pytest.raises(LoralabError):
        Classifier.load(folder)


def test_a_missing_tokenizer_falls_back_to_the_base_or_is_refused(saved: Callable[..., Path]) -> None:
    folder = saved()
    before = Classifier.load(folder, precision="fp32").predict(TEXTS).probabilities
    (folder / "tokenizer.json").unlink()
    with pytest.raises(LoralabError, match=r"tokenizer\.json is missing"):
        Classifier.load(folder)
    reseal(folder)
    np.testing.assert_array_equal(Classifier.load(folder, precision="fp32").predict(TEXTS).probabilities, before)
    (folder / "tokenizer.json").write_text("{}")
    reseal(folder)
    with pytest.raises(LoralabError, match="tokenizer"):
        Classifier.load(folder)


@pytest.mark.parametrize("part", ["adapter", "head"])
def test_a_missing_or_misshapen_tensor_is_refused(saved: Callable[..., Path], part: str) -> None:
    path = saved() / ("adapter_model.safetensors" if part == "adapter" else "head.safetensors")
    tensors = load_file(path)
    name = sorted(tensors)[0]
    removed = tensors.pop(name)
    save_file(tensors, path)
    reseal(path.parent)
    with pytest.raises(LoralabError):
        Classifier.load(path.parent)
    save_file({**tensors, name: torch.zeros(removed.numel() + 1)}, path)
    reseal(path.parent)
    with pytest.raises(LoralabError, match="shape"):
        Classifier.load(path.parent)


def test_an_adapter_missing_from_one_layer_is_refused(saved: Callable[..., Path]) -> None:
    """Whole layers gone: what is left looks like an adapter of fewer layers."""
    folder = saved()
    path = folder / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if ".layer.2." not in name}, path)
    reseal(folder)
    with pytest.raises(LoralabError):
        Classifier.load(folder)


def test_an_empty_adapter_is_refused(saved: Callable[..., Path]) -> None:
    folder = saved()
    save_file({}, folder / "adapter_model.safetensors")
    reseal(folder)
    with pytest.raises(LoralabError):
        Classifier.load(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "3", '"x"', "{}", '{"format": 1}', '{"format": 2}', "\x00\xff"])
def test_a_damaged_manifest_is_refused(saved: Callable[..., Path], content: str) -> None:
    folder = saved()
    (folder / "loralab.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(LoralabError, match=r"loralab\.json"):
        Classifier.load(folder)


KEYS = ["base", "base_folder", "base_sha256", "dims", "classes", "pooling", "head", "tuning", "clean", "max_length", "lora"]


@pytest.mark.parametrize("key", KEYS)
def test_a_manifest_without_a_key_is_refused(saved: Callable[..., Path], key: str) -> None:
    folder = saved()
    content = json.loads((folder / "loralab.json").read_text())
    optional = {
        "quantize",
        "temperature",
        "data",
        "by_peft",
        "precision",
        "base_revision",
        "base_license",
    }  # older bundles have none of them
    assert set(content) == {"format", "files", "sha256", *optional, *KEYS}
    content.pop(key)
    (folder / "loralab.json").write_text(json.dumps(content))
    reseal(folder)
    with pytest.raises(LoralabError, match=r"loralab\.json"):
        Classifier.load(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base_folder", None),
        ("base_sha256", "0" * 64),
        ("dims", []),
        ("dims.layers", 2),
        ("dims.layers", "3"),
        ("dims.model_type", "gpt2"),
        ("dims.width", -1),
        ("dims.heads", 5),
        ("dims.surprise", 1),
        ("classes", []),
        ("classes", ["a", "b"]),
        ("classes", 3),
        ("classes", [1, 2, 3, 4]),
        ("classes", "four"),
        ("pooling", "max"),
        ("head", "default"),
        ("head", "none"),
        ("tuning", "full"),
        ("tuning", "dora"),
        ("clean", ["no such step"]),
        ("clean", [3]),
        ("max_length", "128"),
        ("max_length", 0),
        ("format", "1"),
    ],
)
def test_a_manifest_with_a_wrong_value_is_refused(saved: Callable[..., Path], key: str, value: object) -> None:
    folder = saved()
    content = json.loads((folder / "loralab.json").read_text())
    section, _, name = key.partition(".")
    if name:
        content[section][name] = value
    else:
        content[section] = value
    (folder / "loralab.json").write_text(json.dumps(content))
    if key != "format":
        reseal(folder)
    with pytest.raises(LoralabError):
        Classifier.load(folder).predict(TEXTS)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match=r"loralab\.json"):
        load_bundle(tmp_path)
