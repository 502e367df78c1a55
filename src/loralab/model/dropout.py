"""Dropout whose randomness is passed, not ambient, and whose masks are slices of a pool drawn once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

POOL = 1 << 22
"""Mask values in a pool: 4 M, several times the largest activation of a usual pass."""


class Dropout(nn.Module):
    """Zero a share `p` of the values and scale the rest by 1 / (1 - p), when training.

    A mask is a random slice of a pool of Bernoulli draws: a copy-free view where fresh draws cost a quarter of an fp32 step
    on a CPU. `seed` must be called before training; two runs with one seed take the same masks. Which mask a call takes
    depends on its size and the state of `offsets` alone, so a resumed run takes the masks of one that was never stopped.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.offsets = torch.Generator()
        self.pool_seed = 0

    def seed(self, seed: int, stream: int = 0) -> None:
        """Take masks from the pool of `seed`, which modules share, at places of this module's own `stream`."""
        self.offsets.manual_seed(seed + stream)
        self.pool_seed = seed

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return x
        size = max(POOL, 1 << (2 * x.numel() - 1).bit_length())
        pool = _pool(self.pool_seed, self.p, size, x.dtype, x.device)
        offset = int(torch.randint(size - x.numel() + 1, (), generator=self.offsets))
        return x * pool[offset : offset + x.numel()].view(x.shape)


def recomputed(layer: nn.Module, hidden: Tensor, mask: Tensor, rows: int | None = None) -> Tensor:
    """Run a layer whose activations are computed again in the backward pass (Chen et al. 2016), under the same dropout masks."""
    streams = [module.offsets for module in layer.modules() if isinstance(module, Dropout)]
    before = [stream.get_state() for stream in streams]
    again = False

    def run(hidden: Tensor) -> Tensor:
        nonlocal again
        if not again:
            again = True
            output: Tensor = layer(hidden, mask, rows)
            return output
        now = [stream.get_state() for stream in streams]
        _set(streams, before)
        try:  # the second time it is left by an exception, as soon as it has what it was run for
            output = layer(hidden, mask, rows)
        finally:
            _set(streams, now)
        return output

    found: Tensor = checkpoint(run, hidden, use_reentrant=False, preserve_rng_state=False)
    return found


def _set(streams: Sequence[torch.Generator], states: Sequence[Tensor]) -> None:
    for stream, state in zip(streams, states, strict=True):
        stream.set_state(state)


@lru_cache(maxsize=4)
def _pool(seed: int, p: float, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Draw a pool: `size` values, 0 with probability p, else 1 / (1 - p)."""
    keep = torch.empty(size).bernoulli_(1 - p, generator=torch.Generator().manual_seed(seed))
    return keep.div_(1 - p).to(dtype).to(device)
