"""Which texts go through the network together: pure functions of lengths and a random stream.

An optimiser step is a number of examples; a pass is a number of padded tokens. Steps are cut from windows sorted by length,
which brings padding from 77 % down to 6 % at batch 16, and shuffled again, so that length does not follow time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loralab.data.types import Encoded, Hidden, Ints

WINDOW = 16
"""Steps' worth of shuffled examples that are sorted by length together."""


STEP = 8
"""Batch widths are multiples of this many tokens, or of fewer below 32, so that there are few: a new shape costs a CPU about a
step's time for the preparation of its kernels, and memory that stays. Under a quarter of a width is ever lost to it."""


@dataclass(frozen=True)
class Batch:
    """One pass: inputs, padded; mask (batch, time), True on real tokens; labels (batch,) or None.

    inputs: tokens (batch, time) int64, or kept hidden states (batch, time, width) that enter the network at layer `start`.
    """

    inputs: npt.NDArray[np.int64] | Hidden
    mask: npt.NDArray[np.bool_]
    labels: Ints | None
    start: int | None = None


def training_steps(lengths: Ints, batch_size: int, random: np.random.Generator) -> list[Ints]:
    """Divide one epoch into steps: every example once, `batch_size` a step (the last may be smaller), lengths alike."""
    order = random.permutation(len(lengths))
    steps: list[Ints] = []
    for start in range(0, len(order), batch_size * WINDOW):
        window = order[start : start + batch_size * WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        steps.extend(window[i : i + batch_size] for i in range(0, len(window), batch_size))
    return [steps[i] for i in random.permutation(len(steps))]


def make_microbatches(positions: Ints, lengths: Ints, max_tokens_per_microbatch: int) -> Iterator[Ints]:
    """Cut one step, or a whole data set, into passes of like length and at most `max_tokens_per_microbatch` padded tokens.

    A text longer than that passes alone. Longest first, so that a machine too small fails at once.
    """
    order = positions[np.argsort(-lengths[positions], kind="stable")]
    start, longest = 0, int(lengths.max(initial=0))
    while start < len(order):
        size = max(1, max_tokens_per_microbatch // _width(int(lengths[order[start]]), longest))
        yield order[start : start + size]
        start += size


def partition_by_length(positions: Ints, lengths: Ints, hands: int) -> list[Ints]:
    """Deal positions out to `hands`, longest first, back and forth: parts of about as many texts, and tokens, each."""
    order = positions[np.argsort(-lengths[positions], kind="stable")]
    turns = np.arange(len(order)) % (2 * hands)
    return [order[(turns == hand) | (turns == 2 * hands - 1 - hand)] for hand in range(hands)]


def _width(length: int, longest: int) -> int:
    step = max(1, min(STEP, 1 << (length.bit_length() - 3))) if length >= 8 else 1
    return min(-(-length // step) * step, longest)


def collate(encoded: Encoded, positions: Ints) -> Batch:
    """Return the texts at `positions` as one padded micro-batch."""
    lengths = encoded.lengths[positions]
    mask = np.arange(_width(int(lengths.max()), encoded.longest)) < lengths[:, None]
    labels = None if encoded.labels is None else encoded.labels[positions]
    spans = [slice(encoded.starts[i], encoded.starts[i + 1]) for i in positions]
    if encoded.hidden is not None:
        hidden = np.zeros((*mask.shape, encoded.hidden.shape[1]), dtype=encoded.hidden.dtype)
        for row, span, length in zip(hidden, spans, lengths, strict=True):
            row[:length] = encoded.hidden[span]
        return Batch(hidden, mask, labels, encoded.start)
    tokens = np.full(mask.shape, encoded.pad_id, dtype=np.int64)
    tokens[mask] = np.concatenate([encoded.tokens[span] for span in spans])
    return Batch(tokens, mask, labels)
