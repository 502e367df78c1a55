"""Logits of a whole data set: in its order, without gradients, and without a lasting change of mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from loralab.data.types import Encoded
from loralab.training.scoring import logits_of


class Stub(nn.Module):
    """A model whose logits identify the text: its length, its first and its last token."""

    thread_safe, device = False, torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.shapes: list[tuple[int, ...]] = []
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        self.shapes.append(tuple(tokens.shape))
        self.seen.append((self.training, torch.is_grad_enabled()))
        lengths = mask.sum(dim=1)
        last = tokens.gather(1, lengths[:, None] - 1)[:, 0]
        return self.scale * torch.stack([lengths, tokens[:, 0], last], dim=1).float()


def texts(lengths: list[int], seed: int = 0) -> Encoded:
    random = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Encoded(random.integers(1, 1000, int(starts[-1])).astype(np.int32), starts, None, 0)


def expected(encoded: Encoded) -> np.ndarray:
    rows = [encoded.tokens[a:b] for a, b in zip(encoded.starts[:-1], encoded.starts[1:], strict=True)]
    return np.array([[len(row), row[0], row[-1]] for row in rows], dtype=np.float32)


@pytest.mark.parametrize("max_tokens_per_microbatch", [1, 7, 64, 4096])
def test_row_i_belongs_to_text_i_for_any_size_of_micro_batches(max_tokens_per_microbatch: int) -> None:
    encoded = texts(np.random.default_rng(1).integers(1, 40, 101).tolist())
    stub: Any = Stub()
    logits = logits_of(stub, encoded, max_tokens_per_microbatch)
    np.testing.assert_array_equal(logits, expected(encoded))
    assert logits.dtype == np.float32
    assert all(n == 1 or n * time <= max_tokens_per_microbatch for n, time in stub.shapes)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_in_its_mode(training: bool) -> None:
    stub: Any = Stub().train(training)
    logits_of(stub, texts([3, 5, 2]))
    assert stub.training is training


def test_it_runs_without_dropout_and_without_gradients() -> None:
    stub: Any = Stub().train()
    logits_of(stub, texts([3, 5, 2]))
    assert stub.seen == [(False, False)]


def test_half_precision_logits_come_back_as_fp32() -> None:
    stub: Any = Stub().to(torch.bfloat16)
    assert logits_of(stub, texts([3])).dtype == np.float32


def test_no_texts_is_an_error() -> None:
    stub: Any = Stub()
    with pytest.raises(ValueError, match="no texts"):
        logits_of(stub, texts([]))
