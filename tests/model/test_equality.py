"""The native model's numbers equal Transformers' on a random checkpoint of every architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from reference import (
    hidden_of,
    largest_difference,
    logits_of,
    ours,
    padded_batch,
    randomise,
    transformers_classifier,
    transformers_encoder,
)
from tiny import MODEL_TYPES, make_checkpoint

from loralab.config import LoraConfig
from loralab.model.architectures import Dimensions

every_architecture = pytest.mark.parametrize("kind", MODEL_TYPES)


@every_architecture
@pytest.mark.parametrize("lengths", [(1, 3, 7, 12, 12), (9,), (150, 2)], ids=["padded", "alone", "long"])
def test_logits_equal_transformers(checkpoints: dict[str, Path], kind: str, lengths: tuple[int, ...]) -> None:
    tokens, mask = padded_batch(checkpoints[kind], lengths=lengths)
    expected = logits_of(transformers_classifier(checkpoints[kind]), tokens, mask)
    assert expected.std() > 0.05  # texts differ, or the comparison would prove little
    assert largest_difference(logits_of(ours(checkpoints[kind]), tokens, mask), expected) < 1e-5


@every_architecture
def test_hidden_states_of_every_layer_equal_transformers(checkpoints: dict[str, Path], kind: str) -> None:
    tokens, mask = padded_batch(checkpoints[kind])
    with torch.no_grad():
        states = transformers_encoder(checkpoints[kind])(
            input_ids=tokens, attention_mask=mask.long(), output_hidden_states=True
        ).hidden_states
        model = ours(checkpoints[kind])
        hidden = model.embeddings(tokens, torch.float32)
        assert len(states) == model.dims.layers + 1
        for index, expected in enumerate(states):
            assert largest_difference(hidden[mask], expected[mask]) < 1e-5, f"after {index} layers"
            if index < model.dims.layers:
                hidden = model.encode(hidden, mask, index, index + 1)


@every_architecture
def test_mean_pooling_and_linear_head_equal_a_loop_over_real_tokens(checkpoints: dict[str, Path], kind: str) -> None:
    tokens, mask = padded_batch(checkpoints[kind])
    model = randomise(ours(checkpoints[kind], pooling="mean", head="linear"))
    weight, bias = model.head.out.weight, model.head.out.bias
    hidden = hidden_of(transformers_encoder(checkpoints[kind]), tokens, mask)
    for row, logits in enumerate(logits_of(model, tokens, mask)):
        real = [hidden[row, t] for t in range(mask.shape[1]) if mask[row, t]]
        mean = sum(real[1:], real[0]) / len(real)
        assert largest_difference(logits, weight @ mean + bias) < 1e-5


@every_architecture
def test_cls_pooling_and_linear_head_use_the_first_token(checkpoints: dict[str, Path], kind: str) -> None:
    tokens, mask = padded_batch(checkpoints[kind])
    model = randomise(ours(checkpoints[kind], pooling="cls", head="linear"))
    hidden = hidden_of(transformers_encoder(checkpoints[kind]), tokens, mask)
    expected = hidden[:, 0] @ model.head.out.weight.T + model.head.out.bias
    assert largest_difference(logits_of(model, tokens, mask), expected) < 1e-5


@every_architecture
def test_padding_does_not_change_logits(checkpoints: dict[str, Path], kind: str) -> None:
    for pooling in ("cls", "mean"):
        model = randomise(ours(checkpoints[kind], pooling=pooling))
        tokens, mask = padded_batch(checkpoints[kind])
        together = logits_of(model, tokens, mask)
        for row, length in enumerate(mask.sum(dim=1).tolist()):
            alone = logits_of(model, tokens[row : row + 1, :length], mask[row : row + 1, :length])
            assert largest_difference(together[row : row + 1], alone) < 1e-5


@every_architecture
def test_any_layer_can_be_the_first(checkpoints: dict[str, Path], kind: str) -> None:
    model = ours(checkpoints[kind])
    tokens, mask = padded_batch(checkpoints[kind])
    whole = logits_of(model, tokens, mask)
    with torch.no_grad():
        for start in range(model.dims.layers + 1):
            below = model.encode(model.embeddings(tokens, torch.float32), mask, stop=start)
            if start < model.dims.layers:  # above the last layer, that was computed for every token: other shapes, other rounding
                assert torch.equal(model(below, mask, start), whole)
            assert largest_difference(model.classify(model.encode(below, mask, start), mask), whole) < 1e-5


@every_architecture
def test_cls_pooling_computes_only_the_first_token_of_the_last_layer(checkpoints: dict[str, Path], kind: str) -> None:
    tokens, mask = padded_batch(checkpoints[kind])
    for pooling, rows in (("cls", 1), ("mean", tokens.shape[1])):
        model = randomise(ours(checkpoints[kind], pooling=pooling))
        top, seen = model.layer(model.dims.layers - 1), []
        top.ffn_in.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[0].shape[1]))
        shortened = model(tokens, mask)
        shortened.sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        whole = model.classify(model.encode(model.embeddings(tokens, torch.float32), mask), mask)
        whole.sum().backward()
        assert seen == [rows, tokens.shape[1]]
        assert largest_difference(shortened, whole) < 1e-5
        assert gradients.keys() == {name for name, p in model.named_parameters() if p.grad is not None}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-4)


@every_architecture
def test_a_bare_sentence_encoder_loads_without_prefix_or_head(tmp_path: Path, kind: str) -> None:
    folder = make_checkpoint(tmp_path / kind, kind, sentence_encoder=True)
    model = ours(folder, pooling="auto", head="auto")
    assert (model.pooling, model.head_kind) == ("mean", "linear")
    tokens, mask = padded_batch(folder)
    with torch.no_grad():
        hidden = model.encode(model.embeddings(tokens, torch.float32), mask)
    assert largest_difference(hidden[mask], hidden_of(transformers_encoder(folder), tokens, mask)[mask]) < 1e-5


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_every_activation_equals_transformers(tmp_path: Path, kind: str, activation: str) -> None:
    folder = make_checkpoint(tmp_path / kind, kind, layers=2)
    path = folder / "config.json"
    key = "activation" if kind == "distilbert" else "hidden_act"
    text = path.read_text(encoding="utf-8").replace(f'"{key}": "gelu"', f'"{key}": "{activation}"')
    path.write_text(text, encoding="utf-8")
    assert f'"{key}": "{activation}"' in text
    tokens, mask = padded_batch(folder)
    expected = logits_of(transformers_classifier(folder), tokens, mask)
    assert largest_difference(logits_of(ours(folder), tokens, mask), expected) < 1e-5


def test_an_activation_outside_the_family_is_refused() -> None:
    with pytest.raises(ValueError, match=r"relu(?s:.*)swish"):
        Dimensions("bert", 1, 8, 2, 16, 20, 16, 2, 8, activation="swish")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_frozen_weights_in_bf16_keep_trained_ones_fp32_and_logits_near(checkpoints: dict[str, Path], pooling: str) -> None:
    for kind in MODEL_TYPES:
        model = randomise(
            ours(checkpoints[kind], pooling=pooling, tuning="lora", lora=LoraConfig(rank=2, targets=("all",))), std=0.05
        )
        tokens, mask = padded_batch(checkpoints[kind])
        exact = logits_of(model, tokens, mask)
        model.freeze_to(torch.bfloat16)
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        frozen = [m for layer in model.layers for m in layer.projections()]  # type: ignore[operator,union-attr]
        assert {m.weight.dtype for m in frozen} | {m.bias.dtype for m in frozen} == {torch.bfloat16}
        rounded = logits_of(model, tokens, mask)
        assert rounded.dtype == torch.float32
        # bf16 keeps 8 bits: one part in 256 a product, and a few layers of them.
        assert 0 < largest_difference(rounded, exact) < 0.05 * float(exact.abs().max()), kind


def test_fully_tuned_weights_stay_fp32_when_computing_in_bf16(checkpoints: dict[str, Path]) -> None:
    model = ours(checkpoints["bert"], tuning="full")
    model.freeze_to(torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    tokens, mask = padded_batch(checkpoints["bert"])
    model(tokens, mask).sum().backward()
    gradients: dict[str, Any] = {name: p.grad for name, p in model.named_parameters()}
    assert {g.dtype for g in gradients.values()} == {torch.float32}


@pytest.mark.slow
def test_minilm_equals_transformers() -> None:
    from loralab.model.checkpoints import resolve_base

    folder = resolve_base("minilm").folder
    tokens, mask = padded_batch(folder, lengths=(3, 20, 40))
    model = ours(folder, pooling="mean", head="linear")
    with torch.no_grad():
        hidden = model.encode(model.embeddings(tokens, torch.float32), mask)
    assert largest_difference(hidden[mask], hidden_of(transformers_encoder(folder), tokens, mask)[mask]) < 1e-5
