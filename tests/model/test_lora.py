"""Adapters equal peft's: logits, gradients, scale; merged logits are equal; only adapters and head are trained."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from reference import (
    EVERY,
    copy_adapters,
    largest_difference,
    logits_of,
    ours,
    padded_batch,
    peft_adapters,
    peft_classifier,
    randomise,
)
from tiny import MODEL_TYPES
from torch import Tensor

from loralab.config import LoraConfig
from loralab.errors import LoralabError
from loralab.model.dropout import Dropout, mask_stream
from loralab.model.lora import Adapter, Projection, _LoraLinear

every_architecture = pytest.mark.parametrize("kind", MODEL_TYPES)
TARGETS = [("query", "value"), ("key",), ("output", "ffn_out"), ("query", "ffn_in"), EVERY]
LAYERS = {None: (0, 1, 2), "1-2": (1, 2), "0,2": (0, 2), "2": (2,)}


@every_architecture
@pytest.mark.parametrize("targets", TARGETS, ids="+".join)
@pytest.mark.parametrize("variant", ["lora", "rslora"])
def test_adapted_logits_equal_peft(checkpoints: dict[str, Path], kind: str, targets: tuple[str, ...], variant: str) -> None:
    layers = list(LAYERS)[TARGETS.index(targets) % len(LAYERS)]
    theirs = peft_classifier(
        checkpoints[kind], kind, targets, LAYERS[layers], r=3, lora_alpha=6, use_rslora=variant == "rslora", head=False
    )
    model = ours(
        checkpoints[kind], tuning="lora", lora=LoraConfig(rank=3, alpha=6, targets=targets, layers=layers, variant=variant)
    )
    assert copy_adapters(model, theirs, kind) == len(targets) * len(LAYERS[layers])
    tokens, mask = padded_batch(checkpoints[kind])
    expected = logits_of(theirs, tokens, mask)
    plain = logits_of(ours(checkpoints[kind]), tokens, mask)
    assert largest_difference(expected, plain) > 0.01  # the adapters matter
    assert largest_difference(logits_of(model, tokens, mask), expected) < 1e-5


@pytest.mark.parametrize("layers", LAYERS)
def test_layer_subsets_equal_peft(checkpoints: dict[str, Path], layers: str | None) -> None:
    for kind in ("roberta", "distilbert"):
        theirs = peft_classifier(checkpoints[kind], kind, ("query", "output"), LAYERS[layers], r=2, lora_alpha=8, head=False)
        model = ours(checkpoints[kind], tuning="lora", lora=LoraConfig(rank=2, alpha=8, targets=("query", "output"), layers=layers))
        copy_adapters(model, theirs, kind)
        tokens, mask = padded_batch(checkpoints[kind])
        assert largest_difference(logits_of(model, tokens, mask), logits_of(theirs, tokens, mask)) < 1e-5


@every_architecture
@pytest.mark.parametrize("targets", [("query", "value"), EVERY], ids="+".join)
def test_gradients_of_adapters_and_head_equal_peft(checkpoints: dict[str, Path], kind: str, targets: tuple[str, ...]) -> None:
    theirs = peft_classifier(checkpoints[kind], kind, targets, (1, 2), r=3, lora_alpha=6, head=False)
    for name, parameter in theirs.named_parameters():
        if name.endswith(("classifier.weight", "classifier.out_proj.weight")):
            parameter.requires_grad_(True)
            head = parameter
    model = ours(checkpoints[kind], tuning="lora", lora=LoraConfig(rank=3, alpha=6, targets=targets, layers="1-2")).train()
    copy_adapters(model, theirs, kind)
    tokens, mask = padded_batch(checkpoints[kind])
    labels = torch.tensor([0, 1, 2, 3, 1])
    F.cross_entropy(theirs(input_ids=tokens, attention_mask=mask.long()).logits, labels).backward()
    F.cross_entropy(model(tokens, mask), labels).backward()
    modules = {(layer, role): module for layer, role, module in peft_adapters(theirs, kind)}
    for layer, role, adapter in model.adapters():
        module = modules[layer, role]
        for mine, other in ((adapter.a, module.lora_A["default"].weight), (adapter.b, module.lora_B["default"].weight)):
            assert mine.grad is not None
            assert float(mine.grad.abs().max()) > 1e-5
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.head.out.weight.grad, head.grad, rtol=1e-4, atol=1e-6)


@every_architecture
def test_new_adapters_do_not_change_logits(checkpoints: dict[str, Path], kind: str) -> None:
    tokens, mask = padded_batch(checkpoints[kind])
    adapted = ours(checkpoints[kind], tuning="lora", lora=LoraConfig(rank=4, targets=("all",)))
    assert largest_difference(logits_of(adapted, tokens, mask), logits_of(ours(checkpoints[kind]), tokens, mask)) < 1e-5


def test_new_adapters_are_drawn_like_pefts(checkpoints: dict[str, Path]) -> None:
    model = ours(checkpoints["bert"], tuning="lora", lora=LoraConfig(rank=32, targets=("all",)))
    for _, role, adapter in model.adapters():
        inputs = 64 if role == "ffn_out" else 32
        assert adapter.a.shape == (32, inputs)
        drawn = adapter.a.detach()
        assert float(drawn.abs().max()) <= 1 / math.sqrt(inputs)
        # A uniform draw from ±1/√inputs has a deviation of 1/√(3·inputs).
        assert float(drawn.std()) == pytest.approx(1 / math.sqrt(3 * inputs), rel=0.1)
        assert not adapter.b.any()


def test_only_the_seed_decides_the_initial_weights(checkpoints: dict[str, Path]) -> None:
    def drawn(seed: int, ambient: int) -> Tensor:
        torch.manual_seed(ambient)
        model = ours(checkpoints["bert"], head="linear", tuning="lora", seed=seed)
        return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])

    assert torch.equal(drawn(1, 1), drawn(1, 2))
    assert not torch.equal(drawn(1, 1), drawn(2, 1))


@every_architecture
@pytest.mark.parametrize("targets", TARGETS, ids="+".join)
@pytest.mark.parametrize("variant", ["lora", "rslora"])
def test_merged_logits_equal_unmerged(checkpoints: dict[str, Path], kind: str, targets: tuple[str, ...], variant: str) -> None:
    model = randomise(
        ours(checkpoints[kind], tuning="lora", lora=LoraConfig(rank=3, alpha=6, targets=targets, layers="0,2", variant=variant))
    )
    tokens, mask = padded_batch(checkpoints[kind])
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    unmerged = logits_of(model, tokens, mask)
    model.merge()
    assert any(not torch.equal(p, weights[name]) for name, p in model.named_parameters())
    merged = logits_of(model, tokens, mask)
    assert largest_difference(merged, unmerged) < 1e-5
    model.merge()  # a second time changes nothing
    assert torch.equal(logits_of(model, tokens, mask), merged)


@every_architecture
def test_only_adapters_and_head_require_gradients(checkpoints: dict[str, Path], kind: str) -> None:
    for head in ("default", "linear"):
        model = ours(checkpoints[kind], head=head, tuning="lora", lora=LoraConfig(targets=("key", "ffn_in"), layers="1"))
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        expected = {f"layers.1.{name}.{part}" for name in ("qkv.adapters.key", "ffn_in.adapters.ffn_in") for part in "ab"}
        expected |= {"head.out.weight", "head.out.bias"}
        if head == "default" and kind != "bert":  # BERT's dense pooler is part of its encoder, and stays as it was pretrained
            expected |= {"head.dense.weight", "head.dense.bias"}
        assert trained == expected


@every_architecture
@pytest.mark.parametrize("tuning", ["lora", "head", "full"])
def test_a_step_moves_what_is_trained_and_nothing_else(checkpoints: dict[str, Path], kind: str, tuning: str) -> None:
    model = randomise(ours(checkpoints[kind], tuning=tuning, lora=LoraConfig(rank=2, targets=("all",), layers="1-2"))).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    tokens, mask = padded_batch(checkpoints[kind])
    F.cross_entropy(model(tokens, mask), torch.tensor([0, 1, 2, 3, 1])).backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    for name, parameter in model.named_parameters():
        # Texts share no gradient through tokens they do not have, so tables may move in part; a key's bias cancels in softmax.
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
        assert (parameter.grad is not None) == parameter.requires_grad


@pytest.mark.parametrize("roles", [("query", "value"), ("key",), ("query", "key", "value"), ("value",)], ids="+".join)
@pytest.mark.parametrize("share", [0.0, 0.4], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("first", [False, True], ids=["inner", "first layer"])
def test_the_fused_product_equals_plain_autograd(roles: tuple[str, ...], share: float, first: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    inputs, outputs, rank, scale = 12, 8, 3, 1.7
    projection = Projection(inputs, outputs, ("query", "key", "value")).train()
    for role in roles:
        projection.adapters[role] = Adapter(outputs, inputs, rank, scale)
    with torch.no_grad():
        for parameter in projection.parameters():
            parameter.copy_(torch.empty(parameter.shape).normal_(generator=generator))
    projection.weight.requires_grad_(False)
    projection.bias.requires_grad_(False)
    projection.dropout = Dropout(share) if share else None
    x = torch.empty(2, 5, inputs).normal_(generator=generator).requires_grad_(not first)
    direction = torch.empty(2, 5, 3 * outputs).normal_(generator=generator)
    learned = [p for role in roles for p in (projection.adapter(role).a, projection.adapter(role).b)]
    wanted = learned if first else [x, *learned]

    with mask_stream(9):
        fused = projection(x)
    found = torch.autograd.grad((fused * direction).sum(), wanted)
    with mask_stream(9):
        source = x if projection.dropout is None else projection.dropout(x)
    parts = []
    for number, role in enumerate(projection.roles):
        rows = slice(number * outputs, (number + 1) * outputs)
        part = F.linear(x, projection.weight[rows], projection.bias[rows])
        if role in roles:
            part = part + scale * ((source @ projection.adapter(role).a.T) @ projection.adapter(role).b.T)
        parts.append(part)
    plain = torch.cat(parts, dim=-1)
    expected = torch.autograd.grad((plain * direction).sum(), wanted)
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dropped", [False, True])
def test_the_fused_product_passes_gradcheck(dropped: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, learned: bool = True) -> Tensor:
        return torch.empty(shape, dtype=torch.float64).normal_(generator=generator).requires_grad_(learned)

    x, weight, bias, a, b = draw(4, 5), draw(6, 5, learned=False), draw(6, learned=False), draw(3, 5), draw(6, 3)
    assert torch.autograd.gradcheck(_LoraLinear.apply, (x, draw(4, 5) if dropped else None, weight, bias, a, b))


def test_dropout_acts_on_the_adapters_only_and_in_training_only(checkpoints: dict[str, Path]) -> None:
    lora = LoraConfig(rank=3, alpha=6, dropout=0.5, targets=("query", "value"))
    tokens, mask = padded_batch(checkpoints["bert"])
    model = ours(checkpoints["bert"], tuning="lora", lora=lora).train()
    plain = logits_of(ours(checkpoints["bert"]), tokens, mask)
    assert largest_difference(logits_of(model, tokens, mask), plain) < 1e-5  # B is zero: what is dropped does not matter
    randomise(model)
    noisy = logits_of(model, tokens, mask)
    assert largest_difference(noisy, logits_of(model, tokens, mask)) > 1e-3
    model.eval()
    assert torch.equal(logits_of(model, tokens, mask), logits_of(model, tokens, mask))
    exact = ours(checkpoints["bert"], tuning="lora", lora=LoraConfig(rank=3, alpha=6))
    randomise(exact)
    assert largest_difference(logits_of(model, tokens, mask), logits_of(exact, tokens, mask)) < 1e-6


def test_scale_is_alpha_over_rank_and_over_its_root_with_rslora(checkpoints: dict[str, Path]) -> None:
    for variant, scale in (("lora", 12 / 9), ("rslora", 12 / 3)):
        model = ours(checkpoints["bert"], tuning="lora", lora=LoraConfig(rank=9, alpha=12, variant=variant))
        assert [adapter.scale for _, _, adapter in model.adapters()] == [pytest.approx(scale)] * 6


@pytest.mark.parametrize(
    ("targets", "layers", "words"),
    [
        (("querry",), None, ["'querry'", "'query'", *EVERY, "all"]),
        (("query", "dense"), None, ["'dense'", *EVERY]),
        (("all", "dense"), None, ["'dense'", *EVERY]),
        (("query",), "3", ["3", "0-2"]),
        (("query",), "0,7", ["7", "0-2"]),
        (("query",), "1-9", ["1-9", "0-2"]),
        (("query",), "2-1", ["2-1", "0-2"]),
        (("query",), "last", ["'last'", "9-11"]),
        (("query",), "-1", ["'-1'", "9-11"]),
        (("query",), "0,,1", ["9-11"]),
    ],
)
def test_an_unknown_target_or_layer_is_refused_with_the_valid_ones(
    checkpoints: dict[str, Path], targets: tuple[str, ...], layers: str | None, words: list[str]
) -> None:
    for kind in ("bert", "distilbert"):
        model = ours(checkpoints[kind])
        with pytest.raises(LoralabError) as caught:
            model.attach_lora(LoraConfig(targets=targets, layers=layers))
        assert [word for word in words if word not in str(caught.value)] == []
        assert list(model.adapters()) == []
