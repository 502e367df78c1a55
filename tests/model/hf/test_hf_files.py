"""Saved HFClassifiers: equal in a new process, readable by peft and Transformers; damaged files are refused."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import bundle, largest_difference, padded_batch, randomise, transformers_classifier
from safetensors.torch import load_file, save_file
from sealing import reseal
from tiny import FOREIGN_TYPES, make_checkpoint
from torch import Tensor

from loralab.config import LoraConfig, ModelConfig
from loralab.errors import LoralabError
from loralab.inference.classifier import Classifier
from loralab.model.architectures import PEFT_VARIANTS
from loralab.model.build import build_model
from loralab.model.bundle import load_bundle
from loralab.model.checkpoints import resolve_base
from loralab.model.hf.model import HFClassifier
from loralab.model.manifest import read_manifest

FRESH = """
import json, socket, sys
def refuse(*a, **k): raise OSError("sockets are blocked")
socket.socket.connect = socket.getaddrinfo = refuse
import numpy as np, torch
from pathlib import Path
from loralab.model.bundle import load_bundle
torch.manual_seed(99)
job, out = json.loads(Path(sys.argv[1]).read_text()), {}
for name, (folder, tokens) in job.items():
    model, manifest = load_bundle(Path(folder))
    tokens = torch.tensor(tokens)
    with torch.no_grad():
        out[name] = model(tokens, tokens != manifest.dims.pad_id).numpy()
np.savez(sys.argv[2], **out)
"""
TARGETS = {"modernbert": ("query", "key", "value", "ffn_out")}


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("foreign")
    return {kind: make_checkpoint(folder / kind, kind) for kind in (*FOREIGN_TYPES, "bert")}


def trained(base: Path, lora: LoraConfig, *, tuning: str = "lora", head: str = "default", seed: int = 7) -> HFClassifier:
    """A model with noise added to all trained parameters."""
    settings = ModelConfig(pooling="cls" if head == "default" else "mean", head=head)
    model = build_model(resolve_base(str(base)), 4, settings, tuning=tuning, lora=lora, init_seed=3, dropout_seed=1)
    assert isinstance(model, HFClassifier)
    return randomise(model, seed).eval()


def logits(model: Any, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(tokens, tokens != model.dims.pad_id)


def test_saved_models_give_equal_logits_in_a_new_process(foreign: dict[str, Path], tmp_path: Path) -> None:
    cases: list[tuple[str, LoraConfig, str, str]] = [
        ("bert", LoraConfig(rank=4, variant=variant, dropout=0.1), "lora", "default") for variant in PEFT_VARIANTS[:3]
    ]
    cases += [
        ("bert", LoraConfig(variant="ia3", targets=("key", "ffn_out")), "lora", "default"),
        ("bert", LoraConfig(variant="vera"), "lora", "linear"),
    ]
    for kind in FOREIGN_TYPES:
        targets = TARGETS.get(kind, ("query", "ffn_out"))
        cases += [
            (kind, LoraConfig(rank=4, variant=variant, targets=targets), "lora", "default")
            for variant in ("rslora", "pissa", "adalora")
        ]
        cases += [
            (kind, LoraConfig(), "full", "default"),
            (kind, LoraConfig(), "head", "linear"),
            (kind, LoraConfig(), "full", "linear"),
        ]
    job, expected = {}, {}
    for kind, lora, tuning, head in cases:
        name = f"{kind} {lora.variant} {tuning} {head}"
        model = trained(foreign[kind], lora, tuning=tuning, head=head)
        folder = bundle(tmp_path / name, model, foreign[kind], tuning=tuning, lora=lora)
        tokens, _ = _batch(model)
        expected[name] = logits(model, tokens)
        job[name] = (str(folder), tokens.tolist())
    (tmp_path / "job.json").write_text(json.dumps(job))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", FRESH, str(tmp_path / "job.json"), str(tmp_path / "out.npz")]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=200)
    found = np.load(tmp_path / "out.npz")
    for name, before in expected.items():
        assert largest_difference(torch.from_numpy(found[name]), before) < 1e-6, name
    assert len(expected) == len(cases)


def _batch(model: HFClassifier) -> tuple[Tensor, Tensor]:
    mask = torch.arange(12) < torch.tensor([3, 12, 7])[:, None]
    tokens = torch.randint(5, 60, mask.shape, generator=torch.Generator().manual_seed(0))
    return tokens.masked_fill(~mask, model.dims.pad_id), mask


@pytest.mark.filterwarnings("ignore:The following rank_pattern keys")  # peft says so of its own AdaLoRA files too
@pytest.mark.parametrize("variant", PEFT_VARIANTS)
def test_peft_opens_our_adapters(foreign: dict[str, Path], tmp_path: Path, variant: str) -> None:
    from peft import PeftModel

    lora = LoraConfig(rank=4, variant=variant, targets=("query", "value", "ffn_out", "output"), layers="1-2")
    model = trained(foreign["bert"], lora)
    if model.allocation is not None:
        _cut(model, {0: 0, 1: 2, 2: 6})  # of 6 ranks, one map loses all and one some
    folder = bundle(tmp_path / "ours", model, foreign["bert"], tuning="lora", lora=lora)
    theirs = PeftModel.from_pretrained(copy.deepcopy(transformers_classifier(foreign["bert"])), str(folder)).eval()
    tokens, mask = padded_batch(foreign["bert"])
    with torch.no_grad():
        found = theirs(input_ids=tokens, attention_mask=mask.long()).logits
    assert largest_difference(found, logits(model, tokens)) < 1e-5


def test_transformers_opens_a_full_tuning(foreign: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = trained(foreign["deberta-v2"], LoraConfig(), tuning="full")
    folder = bundle(tmp_path / "ours", model, foreign["deberta-v2"], tuning="full")
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokens, mask = _batch(model)
    with torch.no_grad():
        found = theirs(input_ids=tokens, attention_mask=mask.long()).logits
    assert largest_difference(found, logits(model, tokens)) < 1e-5
    assert theirs.config.id2label[3] == "Sci/Tech"


def _cut(model: HFClassifier, ranks: Mapping[int, int]) -> None:
    """Cut the numbered maps to these ranks; the others keep all."""
    values = [p for name, p in model.named_parameters() if "lora_E" in name]
    with torch.no_grad():
        for number, rank in ranks.items():
            values[number][rank:] = 0


def test_adalora_saves_the_remaining_ranks(foreign: dict[str, Path], tmp_path: Path) -> None:
    lora = LoraConfig(rank=4, variant="adalora", layers="0-1")
    model = trained(foreign["bert"], lora)
    _cut(model, {0: 2, 1: 0, 3: 5})
    assert model.allocation
    assert [*model.allocation.ranks().values()] == [2, 0, 6, 5]
    folder = bundle(tmp_path / "ours", model, foreign["bert"], tuning="lora", lora=lora)
    sizes = [t.shape[0] for name, t in load_file(folder / "adapter_model.safetensors").items() if name.endswith("lora_A")]
    assert sorted(sizes) == [1, 2, 5, 6]  # an empty tensor would look damaged: the one is 0
    reloaded, _ = load_bundle(folder)
    assert isinstance(reloaded, HFClassifier)
    assert reloaded.allocation
    assert [*reloaded.allocation.ranks().values()] == [2, 0, 6, 5]
    tokens, _ = _batch(model)
    assert largest_difference(logits(reloaded, tokens), logits(model, tokens)) < 1e-6


def test_a_classifier_predicts_its_classes(foreign: dict[str, Path], tmp_path: Path) -> None:
    model = trained(foreign["albert"], lora := LoraConfig(variant="dora"))
    classifier = Classifier.load(bundle(tmp_path / "b", model, foreign["albert"], tuning="lora", lora=lora), precision="fp32")
    found = classifier.predict(["A goal.", "The bank's profit fell."])
    assert classifier.classes == ("World", "Sports", "Business", "Sci/Tech")
    assert set(found.labels) <= set(classifier.classes)
    assert np.allclose(found.probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("variant", PEFT_VARIANTS)
@pytest.mark.parametrize("damage", ["missing", "strange", "misshapen", "head"])
def test_a_damaged_adapter_is_refused(foreign: dict[str, Path], tmp_path: Path, variant: str, damage: str) -> None:
    lora = LoraConfig(rank=4, variant=variant)
    folder = bundle(tmp_path / "b", trained(foreign["bert"], lora), foreign["bert"], tuning="lora", lora=lora)
    tensors = load_file(folder / "adapter_model.safetensors")
    adapter = sorted(name for name in tensors if "layer.1." in name)[0]
    if damage == "missing":
        del tensors[adapter]
    elif damage == "strange":
        tensors[adapter.replace("layer.1.", "layer.7.")] = tensors[adapter].clone()
    elif damage == "misshapen":
        tensors[adapter] = torch.zeros(3, 3)
    else:
        del tensors["base_model.model.classifier.bias"]
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(LoralabError, match=r"damaged|complete"):
        load_bundle(folder)


def test_another_base_or_a_damaged_manifest_is_refused(foreign: dict[str, Path], tmp_path: Path) -> None:
    lora = LoraConfig(variant="dora")
    model = trained(foreign["deberta-v2"], lora)
    folder = bundle(tmp_path / "b", model, foreign["deberta-v2"], tuning="lora", lora=lora)
    other = make_checkpoint(tmp_path / "other", "deberta-v2", seed=1)
    with pytest.raises(LoralabError, match="was trained on"):
        load_bundle(folder, str(other))
    manifest = json.loads((folder / "loralab.json").read_text())
    for key, value in (("dims", {**manifest["dims"], "layers": 4}), ("lora", {"rnk": 4}), ("dims", {"model_type": "deberta-v2"})):
        (folder / "loralab.json").write_text(json.dumps({**manifest, key: value}))
        reseal(folder)
        with pytest.raises(LoralabError, match="damaged"):
            load_bundle(folder)
    del manifest["quantize"]  # as it was before there was a choice
    (folder / "loralab.json").write_text(json.dumps(manifest))
    reseal(folder)
    assert read_manifest(folder).quantize == "none"
    assert not read_manifest(folder).native
