"""Integrated gradients: exact for polynomials, complete on every architecture, equal to captum's, joined into words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from tiny import MODEL_TYPES, make_checkpoint, topics

from loralab.data.tokenize import load_tokenizer
from loralab.diagnostics.attribution import Attribution, attribute, integrate, join_words
from loralab.model.build import load_pretrained
from loralab.model.checkpoints import resolve_base
from loralab.model.encoder import EncoderClassifier

TEXTS = ["The bank's profit, a merger!", "goal", "", "Unknownish wörds 日本 #39;s satellite  again", "  goal "]


@pytest.fixture(scope="module", params=MODEL_TYPES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("attribution") / request.param, request.param)


def load(base: Path, pooling: str = "cls") -> EncoderClassifier:
    """A model with pretrained layers, and a head as large as a trained one's."""
    resolved = resolve_base(str(base))
    model = EncoderClassifier(resolved.dims, 4, pooling=pooling)  # type: ignore[arg-type]
    load_pretrained(model, resolved)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return model.eval()


def test_a_linear_function_is_exact_in_one_step() -> None:
    weight, point, baseline = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    found = integrate(lambda rows: (rows * weight).sum(dim=(1, 2)) + 3, point, baseline, steps=1)
    torch.testing.assert_close(found, weight * (point - baseline))


def test_a_cubic_is_exact_in_two_steps_and_not_in_one() -> None:
    point, baseline = torch.tensor([2.0, -1.0], dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64)

    def cube(rows: torch.Tensor) -> torch.Tensor:
        return (rows**3).sum(dim=1)

    torch.testing.assert_close(integrate(cube, point, baseline, steps=2), point**3 - baseline**3)
    assert not torch.allclose(integrate(cube, point, baseline, steps=1), point**3 - baseline**3, rtol=0.01)
    torch.testing.assert_close(integrate(cube, point, baseline, steps=70), point**3 - baseline**3)  # more than one batch of points


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_attributions_are_complete_and_captums(base: Path, pooling: str) -> None:
    model, tokenizer = load(base, pooling), load_tokenizer(base, 64)
    text, _ = topics(1)[0]
    encoding = tokenizer.encode(text)
    special = [bool(flag) for flag in encoding.special_tokens_mask]
    found = attribute(model, encoding.ids, special, target=2)

    read = torch.tensor([encoding.ids])
    blank = torch.tensor([[i if s else model.dims.pad_id for i, s in zip(encoding.ids, special, strict=True)]])
    mask = torch.ones_like(read, dtype=torch.bool)
    with torch.no_grad():
        change = float((model(read, mask) - model(blank, mask))[0, 2])
        hidden, baseline = model.embeddings(read, torch.float32), model.embeddings(blank, torch.float32)
    near = 1e-4 * max(1.0, abs(change))
    assert found.change == pytest.approx(change, abs=near)
    assert sum(found.values) - change == pytest.approx(found.residual, abs=near)
    exact = 0.02 if base.name == "distilbert" else 1e-4  # its head has the kinks of ReLU; the others are smooth
    assert abs(found.residual) <= exact
    assert found.complete
    assert max(map(abs, found.values)) > 0.1  # so that the tolerances say something

    def forward(rows: torch.Tensor) -> torch.Tensor:
        masks = torch.ones(rows.shape[:2], dtype=torch.bool)
        return model.classify(model.encode(rows, masks), masks)

    theirs = IntegratedGradients(forward).attribute(hidden, baseline, target=2, n_steps=256, method="gausslegendre")
    np.testing.assert_allclose(found.values, theirs.sum(dim=-1)[0].detach().numpy(), atol=exact)
    assert [value for value, s in zip(found.values, special, strict=True) if s] == pytest.approx([0, 0])


def test_steps_are_doubled_until_the_sum_is_complete(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = load(tiny), load_tokenizer(tiny, 64)
    encoding = tokenizer.encode(topics(1)[0][0])
    special = [bool(flag) for flag in encoding.special_tokens_mask]
    monkeypatch.setattr("loralab.diagnostics.attribution.STEPS", 1)
    found = attribute(model, encoding.ids, special, 0)
    assert found.steps > 1
    assert found.complete
    monkeypatch.setattr("loralab.diagnostics.attribution.MAX_STEPS", 1)
    short = attribute(model, encoding.ids, special, 0)
    assert (short.steps, short.complete) == (1, False)
    assert abs(short.residual) > abs(found.residual)


def test_complete_is_one_per_cent() -> None:
    assert Attribution([], change=5.0, residual=-0.049, steps=32).complete
    assert not Attribution([], change=5.0, residual=-0.051, steps=32).complete
    assert Attribution([], change=0.1, residual=0.009, steps=32).complete


def test_joined_words_are_the_text(base: Path) -> None:
    tokenizer = load_tokenizer(base, 64)
    for text in TEXTS:
        encoding = tokenizer.encode(text)
        values = [0.0 if flag else 1.0 for flag in encoding.special_tokens_mask]
        joined = join_words(text, encoding, values)
        assert "".join(word for word, _ in joined) == text
        assert sum(value for _, value in joined) == sum(values)
    words = {
        text: [word for word, _ in join_words(text, found, [0.0] * len(found))]
        for text in TEXTS
        for found in [tokenizer.encode(text)]
    }
    assert words[TEXTS[0]] == ["The ", "bank", "'", "s ", "profit", ", ", "a ", "merger", "!"]
    assert words[TEXTS[3]][0] == "Unknownish "  # ten pieces
    assert words[TEXTS[4]] == ["  goal "]


def test_a_truncated_end_becomes_an_ellipsis(tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny, 8)
    encoding = tokenizer.encode("goal league coach the bank profit merger shares")
    joined = join_words("goal league coach the bank profit merger shares", encoding, [1.0] * len(encoding))
    assert "".join(word for word, _ in joined) == "goal league coach the bank profit …"
    assert joined[-1] == (" …", 0.0)
