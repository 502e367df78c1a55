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


class MaskStream:
    """The dropout masks of one micro-batch, drawn while the stream is entered. Entered again, it continues.

    key: identifies the micro-batch; calls: masks drawn so far.
    """

    def __init__(self, key: int, calls: int = 0) -> None:
        self.key, self.calls = key, calls

    def __enter__(self) -> None:
        self.outer, _thread.stream = _thread.stream, self

    def __exit__(self, *raised: object) -> None:
        _thread.stream = self.outer


class _Thread(threading.local):
    """The stream that this thread has entered."""

    def __init__(self) -> None:
        self.stream = MaskStream(0)


_thread = _Thread()


def mask_stream(*key: int) -> MaskStream:
    """Return the masks of one micro-batch, such as (step, rank, number). Equal keys give equal masks, in any thread and order."""
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

    A mask is a slice of a pool of Bernoulli draws: a copy-free view where fresh draws cost a quarter of an fp32 step on a CPU.
    The slice is a function of `seed`, the mask stream and the number of masks drawn from it before. There is no state to keep, so a
    resumed run draws the masks of an uninterrupted one, and micro-batches may run in parallel. Modules of one seed share a pool.
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
        """The pool that masks of so many values are slices of."""
        key = self.seed, self.p, max(POOL, 1 << (2 * values - 1).bit_length()), dtype, device
        if key not in self.pools:
            pool = _pools.get(key)
            if pool is None:
                _pools[key] = pool = _draw(*key)
            self.pools[key] = pool
        return self.pools[key]


def recomputed(layer: Callable[..., Any], *inputs: Any) -> Any:
    """Run a layer whose activations are computed again in the backward pass (Chen et al. 2016), under the same dropout masks."""
    first = _thread.stream.key, _thread.stream.calls
    again = False

    def run(*inputs: Any) -> Any:
        nonlocal again
        if again:
            with MaskStream(*first):
                return layer(*inputs)
        again = True
        return layer(*inputs)

    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)


@lru_cache(maxsize=4)  # for the next networks of these seeds
def _draw(seed: int, p: float, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Draw a pool: `size` values, 0 with probability p, else 1 / (1 - p)."""
    keep = torch.empty(size).bernoulli_(1 - p, generator=torch.Generator().manual_seed(seed))
    return keep.div_(1 - p).to(dtype).to(device)
