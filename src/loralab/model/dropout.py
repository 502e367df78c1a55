"""Dropout whose randomness is passed, not ambient, and whose masks are slices of a pool drawn once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_BITS = (1 << 64) - 1
POOL = 1 << 22
"""Mask values in a pool: 4 M, several times the largest activation of a usual pass."""

MOST_MASKS = 1 << 12
"""Drawn in one recorded pass: ten times what 48 layers with adapters on every map draw."""

_Key = tuple[int, float, int, torch.dtype, torch.device]
_pools: WeakValueDictionary[_Key, Tensor] = WeakValueDictionary()
"""Every pool that a module draws from, by seed, p, size, type and device: it is gone when the last of them is."""


class Turn:
    """The masks of one pass, drawn while it is entered. Entered again it goes on: passes of several runs take turns.

    key: which pass it is; calls: how many masks were drawn in it so far.
    """

    def __init__(self, key: int, calls: int = 0) -> None:
        self.key, self.calls = key, calls

    def __enter__(self) -> None:
        self.before, _here.turn = _here.turn, self

    def __exit__(self, *raised: object) -> None:
        _here.turn = self.before


class Tape:
    """The masks of a pass that is recorded and played again: drawn from places that are told before each play.

    While it is entered, a mask begins where a tensor says, in the place of a number that a recording would keep. `set` fills
    the tensor with the numbers that another turn would draw; one turn alone may be recorded.
    """

    def __init__(self, device: torch.device) -> None:
        self.starts = torch.zeros(MOST_MASKS, dtype=torch.int64, device=device)

    def __enter__(self) -> None:
        self.seeds: list[int] = []
        self.choices: list[int] = []
        _here.tape = self

    def __exit__(self, *raised: object) -> None:
        _here.tape = None

    def mask(self, pool: Tensor, seed: int, count: int) -> Tensor:
        """The next mask: `count` values of the pool."""
        place = len(self.seeds)
        if place == MOST_MASKS:
            raise RuntimeError(f"a recorded pass draws {MOST_MASKS} masks at most")
        self.seeds.append(seed)
        self.choices.append(len(pool) - count + 1)
        return pool[self.starts[place] + torch.arange(count, device=pool.device)]

    def set(self, turn: Turn) -> None:
        """Draw next what `turn` draws."""
        calls = np.arange(1, len(self.seeds) + 1, dtype=np.uint64)
        seeds, choices = np.array(self.seeds, dtype=np.uint64), np.array(self.choices, dtype=np.uint64)
        starts = (_mixed(seeds, turn.key, calls) % choices).astype(np.int64)
        self.starts[: len(starts)].copy_(torch.from_numpy(starts))


class _Here(threading.local):
    """The turn that this thread is in, and the tape."""

    def __init__(self) -> None:
        self.turn = Turn(0)
        self.tape: Tape | None = None


_here = _Here()


def turn(*key: int) -> Turn:
    """Draw the masks of one pass, such as (step, part). The same key gives the same masks, in whichever thread and order."""
    return Turn(_mixed(*key))


def _mixed(*numbers: Any) -> Any:
    """Mix numbers into 64 bits by the finaliser of SplitMix64 (Steele, Lea and Flood 2014); of arrays, uint64, each by itself."""
    mixed: Any = 0
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
        turn = _here.turn
        turn.calls += 1
        if _here.tape is not None:
            return x * _here.tape.mask(pool, self.seed, x.numel()).view(x.shape)
        offset = _mixed(self.seed, turn.key, turn.calls) % (size - x.numel() + 1)
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
    first = _here.turn.key, _here.turn.calls
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
