"""A linear head and mean pooling, rewritten as the architecture's own classifier, keep the logits; Transformers agrees."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from reference import largest_difference, logits_of, ours, padded_batch, randomise, transformers_classifier
from tiny import MODEL_TYPES

from loralab.errors import LoralabError
from loralab.model.default_head import to_default_head
from loralab.model.encoder import EncoderClassifier

every_architecture = pytest.mark.parametrize("kind", MODEL_TYPES)


def linear(folder: Path, pooling: str, scale: float = 1.0) -> EncoderClassifier:
    """A classifier with a random linear head, whose logits are about `scale`."""
    model = randomise(ours(folder, pooling=pooling, head="linear"))
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter *= scale
    return model


@every_architecture
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_logits_stay_the_same(checkpoints: dict[str, Path], kind: str, pooling: str, scale: float) -> None:
    model = linear(checkpoints[kind], pooling, scale)
    tokens, mask = padded_batch(checkpoints[kind])
    expected = logits_of(model, tokens, mask)
    found = to_default_head(model, float(expected.norm(dim=1).max()))
    assert (found.pooling, found.head_kind, found.dims.layers) == ("cls", "default", 3 + (pooling == "mean"))
    assert largest_difference(logits_of(found, tokens, mask), expected) < 2e-5 * max(1.0, float(expected.abs().max()))
    assert largest_difference(logits_of(model, tokens, mask), expected) == 0  # the original is unchanged


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_costs_no_more_than_in_the_original(checkpoints: dict[str, Path], dtype: torch.dtype) -> None:
    """The constants of the additional layer do not cancel digits: Transformers' class in half precision is as near as ours."""
    folder = checkpoints["bert"]
    model = linear(folder, "mean", 0.3)
    tokens, mask = padded_batch(folder)
    expected = logits_of(model, tokens, mask)
    found = to_default_head(model, float(expected.norm(dim=1).max()))
    theirs = copy.deepcopy(transformers_classifier(folder))
    theirs.bert.encoder.layer.append(copy.deepcopy(theirs.bert.encoder.layer[0]))
    theirs.load_state_dict(dict(found._all_tensors()), strict=False)
    assert largest_difference(logits_of(theirs, tokens, mask), expected) < 1e-5
    model.freeze_to(torch.bfloat16)
    usual = largest_difference(logits_of(model, tokens, mask), expected)
    assert largest_difference(logits_of(theirs.to(dtype), tokens, mask).float(), expected) < 3 * usual


def test_what_cannot_be_rewritten_is_refused(checkpoints: dict[str, Path]) -> None:
    for model, reason in (
        (ours(checkpoints["bert"], pooling="mean", head="default"), "pooling=mean and head=default"),
        (ours(checkpoints["bert"], pooling="mean", head="linear", classes=16), "16 classes .* 34 wide, and this one has 32"),
    ):
        with pytest.raises(LoralabError, match=reason):
            to_default_head(model, 1.0)
