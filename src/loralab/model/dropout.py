"""Dropout with explicit randomness: masks are slices of a pool that is drawn once, chosen by seed and mask stream."""

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
"""Mask values in a pool: 4 M, several times the largest activation of a usual micro-batch."""

_Key = tuple[int, float, int, torch.dtype, torch.device]
_pools: WeakValueDictionary[_Key, Tensor] = WeakValueDictionary()
"""Pools by seed, p, size, dtype and device. A pool is freed with the last module that uses it."""


class MaskStream:
    """The dropout masks of one micro-batch: a context manager for the forward pass. Entered again, it continues.

    key: identifies the micro-batch; calls: masks drawn so far.
    """

    def __init__(self, key: int, calls: int = 0) -> None:
        self.key, self.calls = key, calls

    def __enter__(self) -> None:
        self.outer, _thread.stream = _thread.stream, self

    def __exit__(self, *raised: object) -> None:
        _thread.stream = self.outer


class _Thread(threading.local):
    """The stream that the current thread has entered."""

    def __init__(self) -> None:
        self.stream = MaskStream(0)


_thread = _Thread()


def mask_stream(*key: int) -> MaskStream:
    """Return the mask stream of a micro-batch, such as (step, rank, number). Equal keys give equal masks, in any thread."""
    return MaskStream(_mixed(*key))


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

    A mask is a slice of a pool of Bernoulli draws: a view without a copy, while new draws take a quarter of an fp32 step on a CPU.
    The slice depends only on `seed`, the mask stream and the number of masks already drawn from it. So a resumed run draws the same
    masks as an uninterrupted one, and micro-batches may run in parallel. Modules with the same seed share a pool.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.seed = 0
        self.pools: dict[_Key, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return x
        return x * self.mask(x.numel(), x.dtype, x.device).view(x.shape)

    def mask(self, values: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Draw the stream's next mask: (values,), 0 or 1 / (1 - p)."""
        pool = self._pool(values, dtype, device)
        stream = _thread.stream
        stream.calls += 1
        start = _mixed(self.seed, stream.key, stream.calls) % (len(pool) - values + 1)
        return pool[start : start + values]

    def _pool(self, values: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The pool for masks of this many values."""
        key = self.seed, self.p, max(POOL, 1 << (2 * values - 1).bit_length()), dtype, device
        if key not in self.pools:
            pool = _pools.get(key)
            if pool is None:
                _pools[key] = pool = _draw(*key)
            self.pools[key] = pool
        return self.pools[key]


def recomputed(layer: Callable[..., Any], *inputs: Any) -> Any:
    """Run a layer and recompute its activations in the backward pass (Chen et al. 2016), with the same dropout masks."""
    position = _thread.stream.key, _thread.stream.calls
    recompute = False

    def run(*inputs: Any) -> Any:
        nonlocal recompute
        if recompute:
            with MaskStream(*position):
                return layer(*inputs)
        recompute = True
        return layer(*inputs)

    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)


@lru_cache(maxsize=4)  # for later models with the same seeds
def _draw(seed: int, p: float, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Draw a pool: `size` values, 0 with probability p, else 1 / (1 - p)."""
    keep = torch.empty(size).bernoulli_(1 - p, generator=torch.Generator().manual_seed(seed))
    return keep.div_(1 - p).to(dtype).to(device)
