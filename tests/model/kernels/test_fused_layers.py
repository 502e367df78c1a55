"""The kernels compute what the layers do: logits, gradients and dropout masks, with any padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from loralab.config import LoraConfig
from loralab.model import device
from loralab.model.architectures import Dimensions
from loralab.model.dropout import Dropout, MaskStream
from loralab.model.encoder import EncoderClassifier
from loralab.model.kernels import fused_layers, missing_reason

pytestmark = pytest.mark.skipif(missing_reason() is not None, reason=str(missing_reason()))

LENGTHS = (1, 2, 17, 70, 64)  # one token, an odd number, more than one block of queries, whole vectors
Gradients = dict[str, Tensor]


def build(
    heads: int = 4,
    layers: int = 3,
    pooling: str = "cls",
    targets: Sequence[str] = ("query", "value"),
    rank: int = 8,
    adapted: str | None = None,
    dropout: float = 0.3,
) -> EncoderClassifier:
    """A model of width 64 with weights large enough to matter, in fp32, with non-zero adapters."""
    generator = torch.Generator().manual_seed(0)
    model = EncoderClassifier(Dimensions("bert", layers, 64, heads, 128, 50, 128, 2, 64), 3, pooling=pooling)  # type: ignore[arg-type]
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15, generator=generator)
    model.head.init_weights(generator)
    model.attach_lora(LoraConfig(rank=rank, dropout=dropout, targets=tuple(targets), layers=adapted), generator)
    for _, _, adapter in model.adapters():
        nn.init.normal_(adapter.b, std=0.1, generator=generator)
    return model.train()


def texts(lengths: Sequence[int] = LENGTHS) -> tuple[Tensor, Tensor]:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randint(0, 50, mask.shape, generator=torch.Generator().manual_seed(1)), mask


def step(model: EncoderClassifier, lengths: Sequence[int] = LENGTHS) -> tuple[Tensor, Gradients]:
    """The logits, and the gradients of all trained parameters."""
    tokens, mask = texts(lengths)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with MaskStream(7):
        logits = model(tokens, mask)
    loss = cross_entropy(logits, torch.arange(len(lengths)) % 3)
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return logits.detach(), {n: g for n, g in zip(trained, found, strict=True) if g is not None}


def plainly(work: Callable[[], tuple[Tensor, Gradients]]) -> tuple[Tensor, Gradients]:
    """The same without the kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncoderClassifier, "uses_kernels", False)
        return work()


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"pooling": "mean"},
        {"heads": 1},
        {"heads": 2, "dropout": 0.0},
        {"targets": ("all",), "rank": 3},
        {"targets": ("key", "value"), "rank": 17},
        {"targets": ("output", "ffn_in"), "pooling": "mean"},
        {"targets": ("ffn_out",), "adapted": "1-2"},
        {"adapted": "2"},
        {"layers": 1},
    ],
    ids=str,
)
def test_logits_and_gradients_equal_those_of_the_layers(shape: dict[str, object]) -> None:
    """Nearly as close to fp32 as torch's bf16, dropout masks included: a wrong mask, scale or residual is 10 times as far."""
    model = build(**shape)  # type: ignore[arg-type]
    exact, exact_gradients = step(model)
    model.freeze_to(torch.bfloat16)
    assert model.uses_kernels
    plain, plain_gradients = plainly(lambda: step(model))
    found, gradients = step(model)
    assert distance(found, exact) < 1.5 * distance(plain, exact) + 0.002
    assert gradients.keys() == plain_gradients.keys() == exact_gradients.keys()
    for name, gradient in gradients.items():
        expected = exact_gradients[name]
        assert distance(gradient, expected) < 1.5 * distance(plain_gradients[name], expected) + 0.01, name


def test_a_wrong_mask_is_detected() -> None:
    model = build()
    exact, _ = step(model)
    model.freeze_to(torch.bfloat16)
    for module in model.modules():
        if isinstance(module, Dropout):
            module.seed = 1
    assert distance(step(model)[0], exact) > 0.02


def test_gradients_have_the_strides_of_their_weights() -> None:
    """A fused optimizer ignores strides: a transposed gradient would train the wrong weights silently."""
    model = build(targets=("all",))
    model.freeze_to(torch.bfloat16)
    weights = dict(model.named_parameters())
    for name, gradient in step(model)[1].items():
        assert gradient.shape == weights[name].shape
        assert gradient.stride() == weights[name].stride(), name


def test_an_optimizer_step_changes_the_next_forward_pass() -> None:
    """A fused optimizer's steps do not change a weight's version, so nothing may be cached by version."""
    model = build()
    model.freeze_to(torch.bfloat16)
    adapters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(adapters, lr=0.05, fused=True)
    before, _ = step(model)
    for parameter in adapters:
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    found, _ = step(model)
    expected, _ = plainly(lambda: step(model))
    assert distance(found, expected) < 0.02 < distance(before, expected)


def test_a_text_does_not_depend_on_its_batch() -> None:
    """Bit for bit: there is no padding, and each row is summed in a fixed order."""
    model = build().eval()
    model.freeze_to(torch.bfloat16)
    tokens, mask = texts()
    hidden = model.embeddings(tokens, torch.bfloat16)
    together = model.encode(hidden, mask)
    for text, length in enumerate(LENGTHS):
        alone = model.encode(hidden[text : text + 1, :length], mask[text : text + 1, :length])
        assert torch.equal(together[text, :length], alone[0])
        assert not together[text, length:].any()


def test_a_range_of_layers_and_the_gradient_of_its_input() -> None:
    model = build(pooling="mean")
    hidden = model.embeddings(*texts()[:1], torch.float32).detach()
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2)) * texts()[1][:, :, None]

    def run(dtype: torch.dtype) -> tuple[Tensor, Gradients]:
        entering = hidden.to(dtype).requires_grad_()
        with MaskStream(3):
            leaving = model.encode(entering, texts()[1], 1, 3)
        (gradient,) = torch.autograd.grad((leaving.float() * weights).sum(), entering)
        return leaving.detach().float() * texts()[1][:, :, None], {"hidden": gradient.float()}

    exact, exact_gradient = run(torch.float32)
    model.freeze_to(torch.bfloat16)
    found, gradient = run(torch.bfloat16)
    assert distance(found, exact) < 0.02
    assert distance(gradient["hidden"], exact_gradient["hidden"]) < 0.04


def test_layers_below_the_lowest_adapters_save_nothing() -> None:
    model = build(adapted="2")
    model.freeze_to(torch.bfloat16)
    tokens, mask = texts()
    hidden = model.embeddings(tokens, torch.bfloat16)
    layers = [model.layer(index) for index in range(3)]
    for context, kept in ((torch.enable_grad(), 1), (torch.no_grad(), 0), (torch.inference_mode(), 0)):
        with context:
            run = fused_layers._FusedRun(layers, mask, True, to_hidden=False)
            run.forward(hidden)
            assert len(run.saved) == kept


def test_merged_adapters_are_in_the_weights() -> None:
    model = build(dropout=0.0).eval()
    tokens, mask = texts()
    exact = model(tokens, mask)
    model.merge()
    model.freeze_to(torch.bfloat16)
    with torch.inference_mode():
        assert distance(model(tokens, mask), exact) < 0.03


def test_gradients_are_computed_only_once() -> None:
    model = build()
    model.freeze_to(torch.bfloat16)
    loss = model(*texts()).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


def test_threads_share_a_model() -> None:
    model = build()
    model.freeze_to(torch.bfloat16)
    with ThreadPoolExecutor(8) as pool:
        passes = list(pool.map(lambda _: step(model), range(24)))
    alone, gradients = step(model)
    for found, its in passes:
        assert torch.equal(found, alone)
        assert all(torch.equal(its[name], gradients[name]) for name in gradients)


def not_contiguous(model: EncoderClassifier) -> None:
    adapter = model.layer(0).qkv.adapter("query")
    adapter.a.data = adapter.a.data.t().contiguous().t()


def in_full(model: EncoderClassifier) -> None:
    model.layer(1).qkv.weight.requires_grad_()


def in_fp32(model: EncoderClassifier) -> None:
    model.freeze_to(torch.float32)


def checkpointed(model: EncoderClassifier) -> None:
    model.gradient_checkpointing = True


@pytest.mark.parametrize("change", [in_full, in_fp32, checkpointed, not_contiguous])
def test_torch_computes_what_the_kernels_do_not_support(change: Callable[[EncoderClassifier], None]) -> None:
    model = build()
    model.freeze_to(torch.bfloat16)
    assert model.uses_kernels
    change(model)
    assert not model.uses_kernels
    assert step(model)[0].isfinite().all()


@pytest.mark.parametrize("dims", [{"width": 32}, {"heads": 8}, {"ffn_width": 96}, {"model_type": "roberta", "activation": "relu"}])
def test_torch_computes_unsupported_shapes(dims: dict[str, object]) -> None:
    shape = {"model_type": "bert", "layers": 1, "width": 64, "heads": 4, "ffn_width": 128, "vocabulary": 50, "positions": 16}
    model = EncoderClassifier(Dimensions(**{**shape, "token_types": 2, "embedding_width": dims.get("width", 64), **dims}), 2)  # type: ignore[arg-type]
    model.requires_grad_(False)
    model.freeze_to(torch.bfloat16)
    assert not model.uses_kernels


def test_torch_computes_a_text_without_tokens() -> None:
    model = build()
    model.freeze_to(torch.bfloat16)
    tokens, mask = texts((3, 5))
    mask[0] = False
    assert not model._fused(model.embeddings(tokens, torch.bfloat16), mask)
    assert model(tokens, mask).isfinite().all()


def test_the_device_config_tells_whether_the_kernels_are_used() -> None:
    assert device.move_to_device(build(), "bf16").kernels
    assert not device.move_to_device(build(), "fp32").kernels
