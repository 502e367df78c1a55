"""PiSSA matches its paper and peft; frozen layers stay; recomputed activations change no result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from reference import EVERY, bundle, logits_of, ours, padded_batch, randomise

from loralab.config import LoraConfig
from loralab.errors import LoralabError
from loralab.model.build import check_counts
from loralab.model.bundle import load_bundle
from loralab.model.dropout import mask_stream
from loralab.model.encoder import EncoderClassifier

PISSA = LoraConfig(rank=4, alpha=8.0, targets=EVERY, variant="pissa")


@pytest.fixture
def batch(tiny: Path) -> tuple[torch.Tensor, torch.Tensor]:
    return padded_batch(tiny)


def test_pissa_starts_as_the_largest_singular_directions_and_changes_no_logit(tiny: Path, batch: Any) -> None:
    plain, adapted = ours(tiny), ours(tiny, tuning="lora", lora=PISSA)
    torch.testing.assert_close(logits_of(adapted, *batch), logits_of(plain, *batch), atol=1e-5, rtol=1e-5)
    for layer, role, adapter in adapted.adapters():
        projection = next(p for p in plain.layer(layer).projections() if role in p.roles)
        residual = next(p for p in adapted.layer(layer).projections() if role in p.roles)
        weight = projection.weight[projection.rows(role)]
        left, values, right = torch.linalg.svd(weight)
        best = left[:, :4] @ values[:4].diag() @ right[:4]  # Eckart-Young: the best approximation of rank 4
        torch.testing.assert_close(adapter.delta(), best, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(residual.weight[residual.rows(role)], weight - best, atol=1e-5, rtol=1e-5)


def test_pissa_starts_where_pefts_does(tiny: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    config = LoraConfig(r=4, lora_alpha=8, target_modules=["query"], init_lora_weights="pissa")
    theirs = get_peft_model(AutoModel.from_pretrained(tiny), config)
    for layer, _, adapter in ours(tiny, tuning="lora", lora=PISSA.model_copy(update={"targets": ("query",)})).adapters():
        module = theirs.base_model.model.encoder.layer[layer].attention.self.query
        torch.testing.assert_close(adapter.delta(), module.get_delta_weight("default"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("merged", [False, True])
def test_trained_pissa_is_saved_as_an_adapter_of_the_original_base(tiny: Path, tmp_path: Path, batch: Any, merged: bool) -> None:
    trained = randomise(ours(tiny, tuning="lora", lora=PISSA))
    expected = logits_of(trained, *batch)
    assert not torch.allclose(expected, logits_of(ours(tiny), *batch), atol=1e-2)
    folder = bundle(tmp_path / "saved", trained, tiny, tuning="lora", lora=PISSA)
    loaded, _ = load_bundle(folder)
    if merged:
        loaded.merge()
    torch.testing.assert_close(logits_of(loaded, *batch), expected, atol=1e-5, rtol=1e-5)


def test_trained_pissa_opens_in_peft(tiny: Path, tmp_path: Path, batch: Any) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    trained = randomise(ours(tiny, tuning="lora", lora=PISSA))
    folder = bundle(tmp_path / "saved", trained, tiny, tuning="lora", lora=PISSA)
    theirs = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=4), folder).eval()
    torch.testing.assert_close(logits_of(theirs, *batch), logits_of(trained, *batch), atol=1e-5, rtol=1e-5)


def test_pissa_of_too_high_a_rank_is_refused(tiny: Path) -> None:
    with pytest.raises(LoralabError, match=r"lora\.rank=33: with variant pissa this encoder's query has ranks up to 32"):
        ours(tiny, tuning="lora", lora=LoraConfig(rank=33, variant="pissa"))


def test_pissa_counts_as_lora_does(tiny: Path) -> None:
    for variant in ("lora", "pissa", "loraplus", "rslora"):
        lora = LoraConfig(rank=4, targets=EVERY, variant=variant)
        counts = check_counts(ours(tiny, tuning="lora", lora=lora), tuning="lora", lora=lora)
        assert counts.adapter == 3 * 4 * (4 * 64 + 2 * 96)


def frozen(model: EncoderClassifier) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def test_freezing_names_embeddings_and_layers(tiny: Path) -> None:
    names = {name for name, _ in ours(tiny, tuning="full").named_parameters()}
    for freeze, prefixes in (
        ("embeddings", ("embeddings.",)),
        ("embeddings,0-1", ("embeddings.", "layers.0.", "layers.1.")),
        ("top1", ("layers.2.",)),
    ):
        model = ours(tiny, tuning="full", freeze=freeze)
        assert frozen(model) == {name for name in names if name.startswith(prefixes)}
        check_counts(model, tuning="full", lora=LoraConfig(), freeze=freeze)  # the formula agrees
    with pytest.raises(LoralabError, match=r"model\.freeze: 3-4 is outside this encoder's layers 0-2"):
        ours(tiny, tuning="full", freeze="embeddings,3-4")


def gradients(model: EncoderClassifier, batch: tuple[torch.Tensor, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
    model.train()
    with mask_stream(step):
        loss = model(*batch).square().sum()
    loss.backward()  # out of its turn: what is recomputed knows whose it is
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_recomputed_activations_give_the_same_gradients_under_the_same_dropout(tiny: Path, batch: Any, tuning: str) -> None:
    found = []
    for recompute in (False, True):
        model = ours(tiny, tuning=tuning, lora=LoraConfig(rank=4, targets=EVERY, dropout=0.4), dropout=0.3)
        randomise(model, std=0.05)
        model.gradient_checkpointing = recompute
        first = gradients(model, batch, step=1)
        model.zero_grad()
        found.append((first, gradients(model, batch, step=2)))
    for plain, recomputed in zip(*found, strict=True):
        assert plain.keys() == recomputed.keys()
        for name, gradient in plain.items():
            torch.testing.assert_close(recomputed[name], gradient, atol=1e-6, rtol=1e-5)


def test_recomputing_keeps_fewer_activations(tiny: Path, batch: Any) -> None:
    held = []
    for recompute in (False, True):
        model = ours(tiny, tuning="full").train()
        model.gradient_checkpointing = recompute
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t):
            model(*batch)
        held.append(sum(sizes))
    assert held[1] < 0.5 * held[0]
