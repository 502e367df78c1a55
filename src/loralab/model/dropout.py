"""Dropout whose randomness is passed, not ambient, and whose masks are slices of a pool drawn once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_BITS = (1 << 64) - 1
POOL = 1 << 22
"""Mask values in a pool: 4 M, several times the largest activation of a usual pass."""

_Key = tuple[int, float, int, torch.dtype, torch.device]
_pools: WeakValueDictionary[_Key, Tensor] = WeakValueDictionary()
"""Every pool that a module draws from, by seed, p, size, type and device: it is gone when the last of them is."""


class _Here(threading.local):
    """Which pass this thread computes, as a number, and how many masks it has drawn in it."""

    key = 0
    calls = 0


_here = _Here()


class Turn:
    """The masks of one pass, drawn while it is entered. Entered again it goes on: passes of several runs take turns."""

    def __init__(self, key: int, calls: int = 0) -> None:
        self.key, self.calls = key, calls

    def __enter__(self) -> None:
        self.before = _here.key, _here.calls
        _here.key, _here.calls = self.key, self.calls

    def __exit__(self, *raised: object) -> None:
        self.calls = _here.calls
        _here.key, _here.calls = self.before


def turn(*key: int) -> Turn:
    """Draw the masks of one pass, such as (step, part). The same key gives the same masks, in whichever thread and order."""
    return Turn(_mixed(*key))


def _mixed(*numbers: int) -> int:
    """Mix numbers into 64 bits by the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    mixed = 0
    for number in numbers:
        mixed = (mixed + number + 0x9E3779B97F4A7C15) & _BITS
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _BITS
        mixed ^= mixed >> 31
    return mixed


class Dropout(nn.Module):
    """Zero a share `p` of the values and scale the rest by 1 / (1 - p), when training.

    A mask is a slice of a pool of Bernoulli draws: a copy-free view where fresh draws cost a quarter of an fp32 step on a CPU.
    Which slice depends on `seed`, on the `turn` and on how many masks were drawn in it before: there is no state to keep, so a
    resumed run takes the masks of one that was never stopped, and passes may run side by side. Modules of one seed share a pool.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.seed = 0
        self.pools: dict[_Key, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return x
        size = max(POOL, 1 << (2 * x.numel() - 1).bit_length())
        pool = self._pool((self.seed, self.p, size, x.dtype, x.device))
        _here.calls += 1
        offset = _mixed(self.seed, _here.key, _here.calls) % (size - x.numel() + 1)
        return x * pool[offset : offset + x.numel()].view(x.shape)

    def _pool(self, key: _Key) -> Tensor:
        if key not in self.pools:
            pool = _pools.get(key)
            if pool is None:
                _pools[key] = pool = _draw(*key)
            self.pools[key] = pool
        return self.pools[key]


def recomputed(layer: Callable[..., Any], *inputs: Any) -> Any:
    """Run a layer whose activations are computed again in the backward pass (Chen et al. 2016), under the same dropout masks."""
    first = _here.key, _here.calls
    again = False

    def run(*inputs: Any) -> Any:
        nonlocal again
        if again:
            with Turn(*first):
                return layer(*inputs)
        again = True
        return layer(*inputs)

    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)


@lru_cache(maxsize=4)  # for the next networks of these seeds
def _draw(seed: int, p: float, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Draw a pool: `size` values, 0 with probability p, else 1 / (1 - p)."""
    keep = torch.empty(size).bernoulli_(1 - p, generator=torch.Generator().manual_seed(seed))
    return keep.div_(1 - p).to(dtype).to(device)
