"""Batches and micro-batches of texts of similar length: functions of the lengths and a random stream.

A batch is a number of examples, a micro-batch a number of padded tokens. Batches are cut from windows sorted by length and then
shuffled: padding falls from 77 % to 6 % at batch size 16, and length does not depend on the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loralab.data.types import Encoded, Hidden, Ints

WINDOW = 16
"""Batches per window: their examples are sorted by length together."""
WIDTH_MULTIPLE = 8
"""Padded widths are multiples of this number of tokens, or of a smaller power of 2 below 32. Fewer shapes help on a CPU, where
each new shape costs about the time of one step to prepare its kernels, and memory. The padding stays below a quarter."""


@dataclass(frozen=True)
class ModelInputs:
    """A padded micro-batch. mask: (batch, time), True on real tokens; labels: (batch,) or None.

    inputs: tokens, (batch, time) int64, or cached hidden states, (batch, time, width), the inputs of layer `start`.
    """

    inputs: npt.NDArray[np.int64] | Hidden
    mask: npt.NDArray[np.bool_]
    labels: Ints | None
    start: int | None = None


def epoch_batches(lengths: Ints, batch_size: int, random: np.random.Generator) -> list[Ints]:
    """Divide one epoch into batches of similar lengths. Every example occurs once; one batch may be smaller than the others."""
    order = random.permutation(len(lengths))
    batches: list[Ints] = []
    for start in range(0, len(order), batch_size * WINDOW):
        window = order[start : start + batch_size * WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches.extend(window[i : i + batch_size] for i in range(0, len(window), batch_size))
    return [batches[i] for i in random.permutation(len(batches))]


def make_microbatches(positions: Ints, lengths: Ints, max_tokens_per_microbatch: int) -> Iterator[Ints]:
    """Divide a batch, or a whole data set, into micro-batches of at most `max_tokens_per_microbatch` padded tokens.

    A longer text gets a micro-batch of its own. The longest texts come first, so insufficient memory shows at once.
    """
    order = positions[np.argsort(-lengths[positions], kind="stable")]
    start, longest = 0, int(lengths.max(initial=0))
    while start < len(order):
        size = max(1, max_tokens_per_microbatch // _padded_width(int(lengths[order[start]]), longest))
        yield order[start : start + size]
        start += size


def partition_by_length(positions: Ints, lengths: Ints, workers: int) -> list[Ints]:
    """Divide positions among `workers`, with about equal numbers of texts and tokens."""
    order = positions[np.argsort(-lengths[positions], kind="stable")]
    # Longest first, and back and forth: workers 0, 1, 2, 2, 1, 0, 0, ...
    slots = np.arange(len(order)) % (2 * workers)
    return [order[(slots == worker) | (slots == 2 * workers - 1 - worker)] for worker in range(workers)]


def collate(encoded: Encoded, positions: Ints) -> ModelInputs:
    """Return the texts at `positions` as one padded micro-batch."""
    lengths = encoded.lengths[positions]
    mask = np.arange(_padded_width(int(lengths.max()), encoded.longest)) < lengths[:, None]
    labels = None if encoded.labels is None else encoded.labels[positions]
    spans = [slice(encoded.starts[i], encoded.starts[i + 1]) for i in positions]
    if encoded.hidden is not None:
        hidden = np.zeros((*mask.shape, encoded.hidden.shape[1]), dtype=encoded.hidden.dtype)
        for row, span, length in zip(hidden, spans, lengths, strict=True):
            row[:length] = encoded.hidden[span]
        return ModelInputs(hidden, mask, labels, encoded.start)
    tokens = np.full(mask.shape, encoded.pad_id, dtype=np.int64)
    tokens[mask] = np.concatenate([encoded.tokens[span] for span in spans])
    return ModelInputs(tokens, mask, labels)


def _padded_width(length: int, longest: int) -> int:
    multiple = max(1, min(WIDTH_MULTIPLE, 1 << (length.bit_length() - 3))) if length >= 8 else 1
    return min(-(-length // multiple) * multiple, longest)
