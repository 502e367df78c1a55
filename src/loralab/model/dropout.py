"""Dropout whose randomness is passed, not ambient, and whose masks are slices of a pool drawn once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_BITS = (1 << 64) - 1
POOL = 1 << 22
"""Mask values in a pool: 4 M, several times the largest activation of a usual pass."""

MOST_MASKS = 1 << 12
"""Drawn in one recorded pass: 20 runs of 48 layers with adapters on every map."""

_Key = tuple[int, float, int, torch.dtype, torch.device]
_pools: WeakValueDictionary[_Key, Tensor] = WeakValueDictionary()
"""Every pool that a module draws from, by seed, p, size, type and device: it is gone when the last of them is."""


class Turn:
    """The masks of one pass, drawn while it is entered. Entered again it goes on: passes of several runs take turns.

    key: which pass it is; calls: how many masks were drawn in it so far; time: how long its texts are, where they come padded
    further. Then a mask is the one of the shorter texts, and what lies behind them is as it may be.
    """

    def __init__(self, key: int, calls: int = 0, time: int | None = None) -> None:
        self.key, self.calls, self.time = key, calls, time

    def __enter__(self) -> None:
        self.before, _here.turn = _here.turn, self

    def __exit__(self, *raised: object) -> None:
        _here.turn = self.before

    def tokens(self, padded: int) -> int:
        """How many of so many tokens a mask is drawn for; pooled texts have one."""
        return padded if self.time is None or padded == 1 else self.time


class Tape:
    """The masks of a pass that is recorded and played again: they begin where a tensor says, in the place of a number.

    turns: those that the pass enters. While the tape is entered, `Dropout` draws from it; `set` makes the next play draw what other
    turns would.
    """

    def __init__(self, turns: Sequence[Turn], device: torch.device) -> None:
        self.turns = turns
        self.starts = torch.zeros(MOST_MASKS, dtype=torch.int64, device=device)
        self.times = torch.ones(MOST_MASKS, dtype=torch.int64, device=device)

    def __enter__(self) -> None:
        self.drawn: list[_Drawn] = []
        _here.tape = self

    def __exit__(self, *raised: object) -> None:
        _here.tape = None

    def mask(self, pool: Tensor, seed: int, rows: int, time: int, width: int) -> Tensor:
        """The next mask of the turn that is entered: (rows, time, width)."""
        place, of = len(self.drawn), next(i for i, turn in enumerate(self.turns) if turn is _here.turn)
        if place == MOST_MASKS:
            raise RuntimeError(f"a recorded pass draws {MOST_MASKS} masks at most")
        call = 1 + sum(drawn.turn == of for drawn in self.drawn)
        self.drawn.append(_Drawn(of, call, seed, len(pool), rows, time, width))
        row, token, value = (torch.arange(count, device=pool.device) for count in (rows, time, width))
        index = self.starts[place] + (row[:, None, None] * self.times[place] + token[:, None]) * width + value
        return pool[index.clamp_max_(len(pool) - 1)]

    def set(self, turns: Sequence[Turn]) -> None:
        """Draw next what these turns draw."""
        times = [turns[drawn.turn].tokens(drawn.time) for drawn in self.drawn]
        starts = [
            _start(drawn.seed, turns[drawn.turn].key, drawn.call, drawn.pool, drawn.rows * time * drawn.width)
            for drawn, time in zip(self.drawn, times, strict=True)
        ]
        self.starts[: len(starts)].copy_(torch.tensor(starts))
        self.times[: len(times)].copy_(torch.tensor(times))


@dataclass(frozen=True)
class _Drawn:
    """One mask on a tape: the how manyeth of which turn, its dropout's seed, its pool's size, its shape."""

    turn: int
    call: int
    seed: int
    pool: int
    rows: int
    time: int
    width: int


class _Here(threading.local):
    """The turn that this thread is in, and the tape."""

    def __init__(self) -> None:
        self.turn = Turn(0)
        self.tape: Tape | None = None


_here = _Here()


def real_tokens(time: int) -> int:
    """How many tokens of texts that come padded to `time` the present turn draws masks for."""
    return _here.turn.tokens(time)


def turn(*key: int, time: int | None = None) -> Turn:
    """Draw the masks of one pass, such as (step, part). The same key gives the same masks, in whichever thread and order."""
    return Turn(_mixed(*key), time=time)


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
        rows, time, width = x.shape if x.ndim == 3 else (1, 1, x.numel())
        if _here.tape is not None:
            pool = self._pool(x.numel(), x.dtype, x.device)
            _here.turn.calls += 1
            return x * _here.tape.mask(pool, self.seed, rows, time, width).view(x.shape)
        mask = self.mask(rows, time, width, x.dtype, x.device)
        real = mask.shape[1]
        return x * (F.pad(mask, (0, 0, 0, time - real)) if real < time else mask).view(x.shape)

    def mask(self, rows: int, time: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Draw the turn's next mask for a rectangle: (rows, real, width), for as many of its tokens as `real_tokens` says."""
        pool = self._pool(rows * time * width, dtype, device)
        turn = _here.turn
        turn.calls += 1
        real = turn.tokens(time)
        count = rows * real * width
        start = _start(self.seed, turn.key, turn.calls, len(pool), count)
        return pool[start : start + count].view(rows, real, width)

    def _pool(self, values: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The pool that masks of so many values are slices of."""
        key = self.seed, self.p, max(POOL, 1 << (2 * values - 1).bit_length()), dtype, device
        if key not in self.pools:
            pool = _pools.get(key)
            if pool is None:
                _pools[key] = pool = _draw(*key)
            self.pools[key] = pool
        return self.pools[key]


def _start(seed: int, key: int, call: int, pool: int, count: int) -> int:
    """Where in a pool so many values of a mask begin."""
    return _mixed(seed, key, call) % (pool - count + 1)


def recomputed(layer: Callable[..., Any], *inputs: Any) -> Any:
    """Run a layer whose activations are computed again in the backward pass (Chen et al. 2016), under the same dropout masks."""
    first = _here.turn.key, _here.turn.calls, _here.turn.time
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
