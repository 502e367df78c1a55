"""Logits of a whole data set: in its order, in the network's own mode, without gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from loralab.data.types import Encoded
from loralab.training.scoring import logits_of


class Stub(nn.Module):
    """Logits that say which text came in: its length, its first and its last token."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.passes: list[tuple[int, ...]] = []
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        self.passes.append(tuple(tokens.shape))
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
def test_row_i_belongs_to_text_i_however_the_passes_are_cut(max_tokens_per_microbatch: int) -> None:
    encoded = texts(np.random.default_rng(1).integers(1, 40, 101).tolist())
    stub = Stub()
    found = logits_of(stub, encoded, max_tokens_per_microbatch)
    np.testing.assert_array_equal(found, expected(encoded))
    assert found.dtype == np.float32
    assert all(n == 1 or n * time <= max_tokens_per_microbatch for n, time in stub.passes)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_in_the_mode_it_was_in(training: bool) -> None:
    stub = Stub().train(training)
    logits_of(stub, texts([3, 5, 2]))
    assert stub.training is training


def test_it_runs_without_dropout_and_without_gradients() -> None:
    stub = Stub().train()
    logits_of(stub, texts([3, 5, 2]))
    assert stub.seen == [(False, False)]


def test_half_precision_logits_come_back_as_fp32() -> None:
    stub = Stub().to(torch.bfloat16)
    assert logits_of(stub, texts([3])).dtype == np.float32


def test_no_texts_is_an_error() -> None:
    with pytest.raises(ValueError, match="no texts"):
        logits_of(Stub(), texts([]))
