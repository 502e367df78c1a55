"""The first steps of a run against the same steps made of Transformers, peft and plain PyTorch, with none of our code."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import MODEL_TYPES, make_checkpoint
from workbench import Recorder, make_model, rows, train

from loralab.data.types import Encoded
from loralab.model.architectures import role_path
from loralab.model.encoder import EncoderClassifier
from loralab.training.loss import Loss

STEPS, RATE, HEAD_RATE, DECAY, WARMUP, CLIP = 3, 1e-3, 3e-3, 0.1, 2, 1.0
WEIGHTS, SMOOTHING = (1.3, 0.7, 2.5, 0.2), 0.1
HEAD = ("classifier", "pre_classifier")
LOSSES: dict[str, dict[str, Any]] = {"weighted": {"weight": torch.tensor(WEIGHTS)}, "smoothed": {"label_smoothing": SMOOTHING}}
OURS = {"weighted": Loss(weights=torch.tensor(WEIGHTS)), "smoothed": Loss(smoothing=SMOOTHING)}


@pytest.fixture(scope="module", params=MODEL_TYPES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("golden") / request.param, request.param)


def reference(folder: Path) -> Any:
    """The same checkpoint as Transformers reads it."""
    from transformers import AutoModelForSequenceClassification

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").train()


def without_dropout(hf_model: Any) -> Any:
    for module in hf_model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    return hf_model


def with_peft(hf_model: Any, model: EncoderClassifier) -> Any:
    """peft's adapters on query and value, with our first draw of A."""
    from peft import LoraConfig, get_peft_model

    architecture = model.dims.architecture
    names = [architecture.layer[role].rsplit(".", 1)[-1] for role in ("query", "value")]
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=4,
        lora_alpha=8,
        target_modules=names,
        lora_dropout=0.0,
        modules_to_save=list(architecture.saved_head),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(hf_model, config)
    with torch.no_grad():
        for (index, role, which), tensor in peft_adapters(wrapped, model).items():
            assert which == "a" or not tensor.any()
            if which == "a":
                tensor.copy_(ours(model)[index, role, "a"])
    return wrapped


def peft_adapters(wrapped: Any, model: EncoderClassifier) -> dict[tuple[int, str, str], torch.Tensor]:
    named = dict(wrapped.named_parameters())
    prefix = f"base_model.model.{model.dims.architecture.prefix}."
    return {
        (index, role, which): named[f"{prefix}{role_path(model.dims, index, role)}.lora_{which.upper()}.default.weight"]
        for index, role, _ in model.adapters()
        for which in "ab"
    }


def ours(model: EncoderClassifier) -> dict[tuple[int, str, str], torch.Tensor]:
    return {(index, role, which): getattr(pair, which).detach() for index, role, pair in model.adapters() for which in "ab"}


def padded(data: Encoded) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All rows as one batch, in their own order."""
    longest = int(data.lengths.max())
    tokens, mask = np.full((len(data), longest), data.pad_id), np.zeros((len(data), longest), dtype=np.int64)
    for i in range(len(data)):
        row = data.tokens[data.starts[i] : data.starts[i + 1]]
        tokens[i, : len(row)], mask[i, : len(row)] = row, 1
    return torch.from_numpy(tokens).long(), torch.from_numpy(mask), torch.from_numpy(data.labels)


def plain_training(hf_model: Any, data: Encoded, loss: dict[str, Any]) -> tuple[list[float], list[float]]:
    """STEPS steps of torch's AdamW on all rows: losses and gradient norms."""
    tokens, mask, labels = padded(data)
    trained = {name: p for name, p in hf_model.named_parameters() if p.requires_grad}
    groups = [
        {
            "params": [p for name, p in trained.items() if (p.ndim > 1) is decayed and any(h in name for h in HEAD) is head],
            "lr": HEAD_RATE if head else RATE,
            "weight_decay": DECAY if decayed else 0.0,
        }
        for decayed in (True, False)
        for head in (True, False)
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], fused=False, foreach=False)
    base = [group["lr"] for group in optimizer.param_groups]
    losses, norms = [], []
    for factor in (0.5, 1.0, 1.0):  # two steps of warm-up, then the first of the cosine's one
        for group, rate in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = factor * rate
        value = F.cross_entropy(hf_model(input_ids=tokens, attention_mask=mask).logits, labels, **loss)
        optimizer.zero_grad()
        value.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(list(trained.values()), CLIP)))
        optimizer.step()
        losses.append(float(value.detach()))
    return losses, norms


def our_training(model: EncoderClassifier, data: Encoded, loss: Loss, max_tokens_per_microbatch: int) -> Recorder:
    recorder = Recorder()
    train(
        model,
        data,
        loss=loss,
        batch_size=len(data),
        epochs=float(STEPS),
        max_tokens_per_microbatch=max_tokens_per_microbatch,
        learning_rate=RATE,
        head_learning_rate=HEAD_RATE,
        weight_decay=DECAY,
        warmup=float(WARMUP),
        max_grad_norm=CLIP,
        listeners=[recorder],
    )
    return recorder


def assert_equal_heads(model: EncoderClassifier, hf_model: Any, prefix: str) -> None:
    named = dict(hf_model.named_parameters())
    for name, tensor in model.head_tensors():
        module, _, kind = name.rpartition(".")
        top, dot, rest = module.partition(".")
        saved = f"{prefix}{top}.modules_to_save.default{dot}{rest}.{kind}"
        expected = named[saved] if saved in named else named[f"{prefix}{name}"]
        torch.testing.assert_close(tensor.detach(), expected.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(LOSSES))
@pytest.mark.parametrize("max_tokens_per_microbatch", [100, 100_000])
def test_three_lora_steps_equal_transformers_peft_and_adamw(checkpoint: Path, kind: str, max_tokens_per_microbatch: int) -> None:
    data, model = rows(checkpoint, 4), make_model(checkpoint)
    hf_model = without_dropout(with_peft(reference(checkpoint), model))
    start = {key: tensor.clone() for key, tensor in ours(model).items()}
    losses, norms = plain_training(hf_model, data, LOSSES[kind])
    recorder = our_training(model, data, OURS[kind], max_tokens_per_microbatch)

    assert [event.loss for event in recorder.steps] == pytest.approx(losses, abs=1e-5)
    assert [event.gradient_norm for event in recorder.steps] == pytest.approx(norms, rel=1e-4)
    assert losses[0] > losses[-1]
    expected = peft_adapters(hf_model, model)
    for key, tensor in ours(model).items():
        assert float((tensor - start[key]).abs().max()) > 1e-4, f"{key} has not moved"
        torch.testing.assert_close(tensor, expected[key].detach(), rtol=0, atol=1e-5)
    assert_equal_heads(model, hf_model, "base_model.model.")


@pytest.mark.parametrize("kind", sorted(LOSSES))
def test_the_first_loss_is_that_of_the_untouched_checkpoint(checkpoint: Path, kind: str) -> None:
    data, model = rows(checkpoint, 4), make_model(checkpoint)
    tokens, mask, labels = padded(data)
    with torch.no_grad():
        logits = without_dropout(reference(checkpoint))(input_ids=tokens, attention_mask=mask).logits
    recorder = our_training(model, data, OURS[kind], 100_000)
    assert recorder.steps[0].loss == pytest.approx(float(F.cross_entropy(logits, labels, **LOSSES[kind])), abs=1e-5)


def test_one_full_tuning_step_has_transformers_gradients(checkpoint: Path) -> None:
    # AdamW moves a gradient of 1e-9 (a key's bias has none in exact arithmetic) as far as any: so the gradients are compared.
    data, model = rows(checkpoint, 4), make_model(checkpoint, tuning="full")
    tokens, mask, labels = padded(data)
    hf_model = without_dropout(reference(checkpoint))
    F.cross_entropy(hf_model(input_ids=tokens, attention_mask=mask).logits, labels).backward()
    F.cross_entropy(model(tokens, mask.bool()), labels).backward()

    gradients = {name: p.grad for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        gradient = gradients[name]
        parameter.data = torch.zeros_like(parameter) if gradient is None else gradient
    prefix = model.dims.architecture.prefix + "."
    expected = {name.removeprefix(prefix): p.grad for name, p in hf_model.named_parameters()}
    compared = 0
    for name, tensor in (*model.encoder_tensors(), *model.head_tensors()):
        wanted = expected[name.removeprefix(prefix)]
        torch.testing.assert_close(tensor.detach(), wanted, rtol=1e-4, atol=1e-6)
        compared += tensor.numel()
    assert compared == sum(p.numel() for p in hf_model.parameters())
