"""HFClassifier: equal to the native classifier, other encoders, peft's methods, what is trained."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import bundle, largest_difference, logits_of, ours, padded_batch, randomise, transformers_classifier
from safetensors.torch import load_file, save_file
from tiny import FOREIGN_TYPES, make_checkpoint
from torch import nn

from loralab.config import LoraConfig, ModelConfig
from loralab.errors import LoralabError
from loralab.model.architectures import PEFT_VARIANTS, Sizes
from loralab.model.build import build_model, check_counts, count_hf_model
from loralab.model.checkpoints import resolve_base
from loralab.model.dropout import Dropout, mask_stream
from loralab.model.encoder import EncoderClassifier
from loralab.model.hf.model import HFClassifier
from loralab.model.hf.peft_methods import choose_maps
from loralab.model.hf.pretrained import build_hf_model

OUTER = {"deberta-v2": "query,value", "modernbert": "query,key,value", "albert": "query,value", "bert": "query,value"}


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by model type: three encoders outside the family and a BERT."""
    folder = tmp_path_factory.mktemp("foreign")
    return {kind: make_checkpoint(folder / kind, kind) for kind in (*FOREIGN_TYPES, "bert")}


def build(folder: Path, lora: LoraConfig, *, tuning: str = "lora", seed: int = 0, **settings: Any) -> Any:
    model = ModelConfig(**{"pooling": "cls", "head": "default", "dropout": 0.0, **settings})
    return build_model(resolve_base(str(folder)), 4, model, tuning=tuning, lora=lora, init_seed=seed, dropout_seed=seed + 1)


def hf_model(
    folder: Path, kind: str = "bert", *, tuning: str = "lora", seed: int = 0, dropout: float = 0.0, **lora: Any
) -> HFClassifier:
    settings = LoraConfig(**{"rank": 4, "targets": OUTER[kind].split(","), **lora})
    return build(folder, settings, tuning=tuning, dropout=dropout, seed=seed)


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "distilbert"])
@pytest.mark.parametrize(("pooling", "head"), [("cls", "default"), ("mean", "linear")])
def test_lora_through_peft_equals_native_lora(
    checkpoints: dict[str, Path], tmp_path: Path, kind: str, pooling: str, head: str
) -> None:
    lora = LoraConfig(rank=3, alpha=6, targets=("query", "output", "ffn_out"), layers="1-2", variant="rslora")
    native = randomise(ours(checkpoints[kind], pooling=pooling, head=head, tuning="lora", lora=lora))
    assert isinstance(native, EncoderClassifier)
    folder = bundle(tmp_path / "native", native, checkpoints[kind], tuning="lora", lora=lora)
    base = resolve_base(str(checkpoints[kind]))
    settings = ModelConfig(pooling=pooling, head=head, dropout=0.0)
    model = build_hf_model(base, 4, settings, tuning="lora", lora=lora, init_seed=5).eval()
    tokens, mask = padded_batch(checkpoints[kind])
    before = model(tokens, mask)
    model.load(folder, "lora")
    expected = logits_of(native, tokens, mask)
    assert largest_difference(model(tokens, mask), expected) < 1e-5 < largest_difference(before, expected)
    assert model.parameter_counts() == native.parameter_counts()


@pytest.mark.parametrize("kind", FOREIGN_TYPES)
def test_another_encoder_gives_transformers_logits(foreign: dict[str, Path], kind: str) -> None:
    model = hf_model(foreign[kind], kind).eval()  # fresh adapters change nothing
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(12) < torch.tensor([3, 12, 7])[:, None]
    tokens = torch.randint(5, 60, mask.shape, generator=generator).masked_fill(~mask, model.dims.pad_id)
    theirs = transformers_classifier(foreign[kind]).eval()
    with torch.no_grad():
        expected = theirs(input_ids=tokens, attention_mask=mask.long()).logits
    assert largest_difference(model(tokens, mask), expected) < 1e-5
    assert isinstance(model.dims, Sizes)
    assert (model.dims.model_type, model.dims.layers, model.dims.longest) == (kind, 3, 160)


SIZES = {"query": (32, 32), "value": (32, 32), "ffn_out": (32, 64)}
BY_HAND = {
    "dora": lambda out, into: 4 * (out + into) + out,  # LoRA and a magnitude for each row
    "adalora": lambda out, into: 6 * (out + into + 1),  # 1.5 times the rank, and as many singular values
    "vera": lambda out, into: out + 4,  # two vectors; the matrices are drawn and shared
    "ia3": lambda out, into: into if into == 64 else out,  # outputs are rescaled, of ffn_out the inputs
}


@pytest.mark.parametrize("variant", PEFT_VARIANTS)
def test_each_method_trains_what_its_paper_says(tiny: Path, variant: str) -> None:
    settings: dict[str, Any] = {"variant": variant, "targets": tuple(SIZES), "layers": "1-2"}
    model = hf_model(tiny, **settings)
    counts, plain = model.parameter_counts(), LoraConfig(rank=4, targets=tuple(SIZES), layers="1-2")
    assert counts.adapter == 2 * sum(BY_HAND[variant](*size) for size in SIZES.values())
    assert counts.head == 4 * 33
    assert counts.trainable == counts.adapter + counts.head
    assert counts.base == sum(p.numel() for p in transformers_classifier(tiny).bert.parameters())
    assert counts.adapter != ours(tiny, tuning="lora", lora=plain).parameter_counts().adapter
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if name.startswith("head.")} == {"head.classifier.weight", "head.classifier.bias"}


@pytest.mark.parametrize("variant", ["lora", "pissa", *PEFT_VARIANTS])
def test_counts_without_weights_equal_the_models(foreign: dict[str, Path], variant: str) -> None:
    for kind, folder in foreign.items():
        if kind == "bert" and variant in ("lora", "pissa"):
            continue
        model = hf_model(folder, kind, variant=variant)
        settings = ModelConfig(pooling="cls", head="default")
        lora = LoraConfig(rank=4, targets=OUTER[kind].split(","), variant=variant)
        counts, maps = count_hf_model(str(folder), model.dims, 4, settings, tuning="lora", lora=lora)
        assert (counts, maps) == (model.parameter_counts(), model.adapted_maps)
        assert counts.adapter > 0


def test_dropout_acts_on_head_and_adapters_alone_and_is_seeded(foreign: dict[str, Path], tmp_path: Path) -> None:
    in_the_head = {"deberta-v2": 2, "modernbert": 1, "albert": 1, "bert": 1}
    for kind, folder in foreign.items():
        copied = Path(shutil.copytree(folder, tmp_path / kind))
        config = json.loads((copied / "config.json").read_text())
        config |= {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5, "attention_dropout": 0.5, "mlp_dropout": 0.5}
        (copied / "config.json").write_text(json.dumps(config))
        tokens = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(1))
        mask = torch.ones_like(tokens, dtype=torch.bool)
        still = hf_model(copied, kind, variant="dora").train()
        assert not any(isinstance(module, nn.Dropout) for module in still.modules())
        assert torch.equal(still(tokens, mask), still.eval()(tokens, mask)), kind
        first, second = (hf_model(copied, kind, variant="dora", dropout=0.3).train() for _ in range(2))
        torch.manual_seed(3)
        with mask_stream(1):
            found = first(tokens, mask)
        torch.manual_seed(4)
        with mask_stream(1):
            assert torch.equal(found, second(tokens, mask))
        assert not torch.equal(found, first(tokens, mask))
        acting = [module.p for module in first.modules() if isinstance(module, Dropout) and module.p]
        assert acting == [0.3] * in_the_head[kind], kind


def test_lora_dropout_is_ours(tiny: Path) -> None:
    model = build(tiny, LoraConfig(rank=2, dropout=0.2, variant="dora"))
    found = [module for name, module in model.named_modules() if name.endswith("lora_dropout.default")]
    assert [type(module) for module in found] == [Dropout] * 6
    assert {module.p for module in found} == {0.2}


def test_only_the_seed_decides_and_the_global_generator_is_unchanged(tiny: Path) -> None:
    drawn = []
    for seed, ambient in ((0, 1), (0, 2), (9, 1)):
        torch.manual_seed(ambient)
        state = torch.get_rng_state()
        model = hf_model(tiny, variant="dora", seed=seed, targets=("query",))
        assert torch.equal(torch.get_rng_state(), state)
        drawn.append([p.detach() for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[2], strict=True))


def test_frozen_maps_in_bf16_leave_head_and_trained_in_fp32(foreign: dict[str, Path]) -> None:
    for kind, folder in foreign.items():
        model = randomise(hf_model(folder, kind, variant="dora")).eval()
        tokens = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(1))
        mask = torch.ones_like(tokens, dtype=torch.bool)
        exact = model(tokens, mask).detach()
        model.freeze_to(torch.bfloat16)
        found = model(tokens, mask)
        assert 0 < largest_difference(found, exact) < 0.15 * float(exact.abs().max()), kind
        assert found.dtype == torch.float32
        assert not torch.equal(found, found.bfloat16().float()), "the head was computed in bf16"
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        assert any(p.dtype == torch.bfloat16 for p in model.parameters())


def test_recomputed_activations_give_the_same_gradients(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokens = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    gradients = []
    for recompute in (False, True):
        lora = LoraConfig(rank=2, dropout=0.3, variant="dora", targets=("all",))
        model = randomise(build(tiny, lora, dropout=0.3)).train()
        model.gradient_checkpointing = recompute
        with mask_stream(1):
            loss = model(tokens, mask).square().sum()
        loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert caplog.records == []


def test_frozen_parts_of_a_full_tuning(foreign: dict[str, Path]) -> None:
    model = build(foreign["deberta-v2"], LoraConfig(), tuning="full", freeze="embeddings,0-1")
    found = {name.removeprefix("encoder."): p.requires_grad for name, p in model.named_parameters()}
    frozen = {name for name, trained in found.items() if not trained}
    assert frozen == {name for name in found if name.startswith(("embeddings.", "encoder.layer.0.", "encoder.layer.1."))}
    assert len(frozen) == 3 + 2 * 16
    assert model.parameter_counts().trainable < model.parameter_counts().base


NAMES = [
    f"bert.encoder.layer.{i}.{part}"
    for i in range(3)
    for part in ("attention.self.query", "attention.output.dense", "output.dense")
]
FUSED = [f"model.layers.{i}.{part}" for i in range(3) for part in ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")]
DIMS = {kind: Sizes(kind, 3, 32, 160, 0) for kind in ("modernbert", "albert", "unheard-of")} | {
    "camembert": Sizes("camembert", 3, 32, 160, 0)
}


@pytest.mark.parametrize(
    ("kind", "names", "targets", "layers", "ends"),
    [
        ("camembert", NAMES, ["ffn_out"], None, ["0.output.dense", "1.output.dense", "2.output.dense"]),
        ("camembert", NAMES, ["query", "output"], "2", ["2.attention.self.query", "2.attention.output.dense"]),
        ("modernbert", FUSED, ["query", "key", "value"], "0-1", ["0.attn.Wqkv", "1.attn.Wqkv"]),
        ("modernbert", FUSED, ["Wqkv"], "0", ["0.attn.Wqkv"]),
        ("modernbert", FUSED, ["Wo"], "0", ["0.attn.Wo", "0.mlp.Wo"]),
        ("modernbert", FUSED, ["mlp.Wo", "output"], "0", ["0.attn.Wo", "0.mlp.Wo"]),
        ("unheard-of", [*FUSED, "model.pooler"], ["all"], "1", ["1.attn.Wqkv", "1.attn.Wo", "1.mlp.Wi", "1.mlp.Wo"]),
    ],
)
def test_targets_and_layers_mean_these_maps(
    kind: str, names: list[str], targets: list[str], layers: str | None, ends: list[str]
) -> None:
    found = choose_maps(names, DIMS[kind], targets, layers)
    assert [name.split("layer", 1)[1].removeprefix("s").removeprefix(".") for name in found] == ends


@pytest.mark.parametrize(
    ("kind", "names", "targets", "layers", "said"),
    [
        ("modernbert", FUSED, ["query", "value"], None, "query, key, value in one map.*lora.targets=query,key,value or Wqkv"),
        ("modernbert", FUSED, ["Wi", "Wx"], None, r"modernbert has no 'Wx'; valid: query, key.* maps: attn.Wo, attn.Wqkv"),
        ("unheard-of", FUSED, ["query"], None, "unheard-of has no 'query'; valid: all, or the names of its maps: attn.Wo"),
        ("modernbert", FUSED, ["all"], "3", "layers 0-2"),
        ("albert", ["albert.groups.0.albert_layers.0.ffn"], ["ffn"], "0", "share their weights"),
    ],
)
def test_an_unknown_target_is_named(kind: str, names: list[str], targets: list[str], layers: str | None, said: str) -> None:
    with pytest.raises(LoralabError, match=said):
        choose_maps(names, DIMS[kind], targets, layers)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"variant": "loraplus"}, "loraplus needs the BERT family"),
        ({"variant": "ia3", "dropout": 0.1}, "ia3 has no dropout"),
        ({"layers": "0", "variant": "dora"}, "share their weights"),
    ],
)
def test_unsupported_settings_are_refused(foreign: dict[str, Path], settings: dict[str, Any], said: str) -> None:
    lora = LoraConfig(targets=("query",), **settings)
    with pytest.raises(LoralabError, match=said):
        build(foreign["albert"], lora)


def test_other_impossible_choices_are_refused(foreign: dict[str, Path], tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dora = LoraConfig(variant="dora")
    with pytest.raises(LoralabError, match=r"model.head=linear with mean pooling"):
        build(tiny, dora, pooling="mean")
    with pytest.raises(LoralabError, match="8bit keeps the encoder frozen"):
        build(tiny, dora, tuning="full", quantize="8bit")
    if not torch.cuda.is_available():
        with pytest.raises(LoralabError, match=r"8bit needs a CUDA device.*model.quantize=none"):
            build(tiny, dora, quantize="8bit")
    model = hf_model(foreign["deberta-v2"], "deberta-v2")
    with pytest.raises(
        LoralabError, match=r"2,7\d\d trainable parameters \(adapter 1,536 \+ head 1,188\) are over lora.max_trainable=2,000"
    ):
        check_counts(model, tuning="lora", lora=LoraConfig(max_trainable=2000))
    assert check_counts(model, tuning="lora", lora=LoraConfig(max_trainable=2724)).trainable == 2724
    for package in ("peft", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(LoralabError, match=rf"needs the package '{package}': run pip install 'loralab\[hf\]'"):
            hf_model(tiny, variant="dora")


def test_a_checkpoint_that_is_not_whole_is_refused(foreign: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(foreign["modernbert"], tmp_path / "copy"))
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("layers.1.attn.Wo.weight")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoralabError, match=r"has no tensor 'model.layers.1.attn.Wo.weight'.*complete"):
        hf_model(folder, "modernbert")
    (folder / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(LoralabError, match=r"cannot read .*model\.safetensors"):
        hf_model(folder, "modernbert")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"code may hide in these")
    with pytest.raises(LoralabError, match="loads safetensors only"):
        hf_model(folder, "modernbert")


def test_a_head_is_loaded_if_it_fits_and_initialized_otherwise(foreign: dict[str, Path]) -> None:
    base, lora = resolve_base(str(foreign["deberta-v2"])), LoraConfig(targets=("query",))
    settings = ModelConfig(pooling="cls", head="default", dropout=0.0)
    saved = load_file(foreign["deberta-v2"] / "model.safetensors")
    fitting, other = (build_hf_model(base, n, settings, tuning="lora", lora=lora, init_seed=0) for n in (4, 9))
    assert torch.equal(fitting.head.get_parameter("classifier.weight"), saved["classifier.weight"])
    assert torch.equal(other.head.get_parameter("pooler.dense.weight"), saved["pooler.dense.weight"])
    drawn = other.head.get_parameter("classifier.weight").detach()
    assert drawn.shape == (9, 32)
    assert 0.015 < float(drawn.std()) < 0.025


def test_code_of_a_checkpoint_is_never_run(foreign: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(foreign["modernbert"], tmp_path / "copy"))
    witness = tmp_path / "it ran"
    (folder / "own.py").write_text(f"open({str(witness)!r}, 'w')\nclass C: ...\nclass M: ...\n")
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "own.C", "AutoModelForSequenceClassification": "own.M", "AutoModel": "own.M"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": auto}))
    assert hf_model(folder, "modernbert").parameter_counts().adapter  # Transformers' own class is used
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": auto, "model_type": "own"}))
    with pytest.raises(LoralabError, match="cannot classify with architecture 'own'"):
        hf_model(folder, "modernbert")
    assert not witness.exists()
