"""Dropout whose randomness is passed, not ambient, and whose masks are slices of a pool drawn once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

POOL = 1 << 22
"""Mask values in a pool: 4 M, several times the largest activation of a usual pass."""


class Dropout(nn.Module):
    """Zero a share `p` of the values and scale the rest by 1 / (1 - p), when training.

    A mask is a random slice of one pool of Bernoulli draws: a copy-free view where fresh draws cost a quarter of an fp32
    step on a CPU. `seed` must be called before training; two runs with one seed take the same masks. Which mask a call takes
    depends on its size and the state of `offsets` alone, so a resumed run takes the masks of one that was never stopped.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.offsets = torch.Generator()
        self.pools: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}
        self.pool_seed = 0

    def seed(self, seed: int) -> None:
        self.offsets.manual_seed(seed)
        self.pool_seed = seed
        self.pools.clear()

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return x
        pool = self._pool(x.numel(), x.dtype, x.device)
        offset = int(torch.randint(pool.numel() - x.numel() + 1, (), generator=self.offsets))
        return x * pool[offset : offset + x.numel()].view(x.shape)

    def _pool(self, needed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        size = max(POOL, 1 << (2 * needed - 1).bit_length())
        pool = self.pools.get((size, dtype, device))
        if pool is None:
            generator = torch.Generator().manual_seed(self.pool_seed)
            keep = torch.empty(size).bernoulli_(1 - self.p, generator=generator)
            pool = self.pools[size, dtype, device] = keep.div_(1 - self.p).to(dtype).to(device)
        return pool
