"""Passes recorded once and played again: on a GPU one launch in the place of a thousand (CUDA graphs).

A GPU needs less time for a pass of few texts than a processor needs to launch its operations one by one. Batch widths are few
(`data.batches`), so a step's shapes come again and again: each is recorded the second time it is seen, over tensors that stay where
they are, and from then on a step copies its rows into them and plays the recording. What a pass draws stays what it would draw
unrecorded, because dropout's offsets are such a tensor too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from loralab.model.dropout import Tape, Turn

MOST_SHAPES = 64
"""Recorded at once, each with its activations in one shared pool; a step of any other shape runs as it would without."""

AGREEMENT = 0.02
"""Largest difference of a recording's gradients from the same pass unrecorded, over the largest gradient: bf16's rounding."""

Found = list[Tensor | None]
"""The loss of a pass, or of each run in it, and the gradients of all that is trained."""

Work = Callable[[Sequence[Turn], Sequence[Tensor]], Found]
Play = Callable[[], Tensor]


def cuda_graphs() -> Callable[[Play], Play]:
    """Return what records: it takes work and returns what launches the same again, over the same memory.

    All share one pool of memory: what one leaves there the next may write over, so what is found must be read before another plays.
    """
    pool = torch.cuda.graph_pool_handle()

    def record(work: Play) -> Play:
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries allocate on a stream's first use, which a recording may not hold
            work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            found = work()

        def play() -> Tensor:
            graph.replay()
            return found

        return play

    return record


class Replay:
    """Runs passes, and records those whose shape comes again. `record`: see `cuda_graphs`; None: nothing is recorded.

    A recording is compared with the pass it was made of before it is used; where it differs, or cannot be made, training goes on
    without any, and a warning says so.
    """

    def __init__(self, record: Callable[[Play], Play] | None) -> None:
        self.record = record
        self.seen: dict[Hashable, _Recording | None] = {}

    def __call__(self, work: Work, turns: Sequence[Turn], inputs: Sequence[Tensor], *runs: int) -> Found:
        """Return work(turns, inputs), which must be a function of them, and of weights that stay where they are.

        runs: whose weights these are, where it is not always the same ones.
        """
        if self.record is None:
            return work(turns, inputs)
        key = (*runs, *((tensor.shape, tensor.dtype) for tensor in inputs))
        recording = self.seen.get(key)
        if recording is not None:
            return recording.play(turns, inputs)
        found = work(turns, inputs)
        if key not in self.seen and len(self.seen) < MOST_SHAPES:
            self.seen[key] = None
        elif key in self.seen:
            self.seen[key] = self._checked(work, turns, inputs, found)
        return found

    def _checked(self, work: Work, turns: Sequence[Turn], inputs: Sequence[Tensor], expected: Found) -> _Recording | None:
        """Record work whose outcome is known; nothing, from here on, where the recording finds something else."""
        assert self.record is not None
        try:
            recording = _Recording(self.record, work, turns, inputs)
            if (difference := _difference(expected, recording.play(turns, inputs))) <= AGREEMENT:
                return recording
            reason = f"its gradients differ by {difference:.2g} of the largest"
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
        self.record = None
        self.seen.clear()
        warnings.warn(f"a pass could not be recorded as a CUDA graph ({reason}): training goes on without, slower", stacklevel=2)
        return None


def _difference(expected: Found, found: Found) -> float:
    """The largest difference of any value over the largest value, of the loss or of all gradients, whichever is more."""
    if [tensor is None for tensor in expected] != [tensor is None for tensor in found]:
        return float("inf")
    loss, *gradients = [(a, b) for a, b in zip(expected, found, strict=True) if a is not None and b is not None]

    def most(tensors: list[Tensor]) -> Tensor:
        return torch.stack([tensor.abs().max() for tensor in tensors]).max()

    return max(
        float(most([a - b for a, b in pairs]) / most([a for a, _ in pairs]).clamp_min(1e-12)) for pairs in ([loss], gradients)
    )


class _Recording:
    """One shape's pass over tensors of its own."""

    def __init__(self, record: Callable[[Play], Play], work: Work, turns: Sequence[Turn], inputs: Sequence[Tensor]) -> None:
        self.inputs = [tensor.clone() for tensor in inputs]
        self.tape = Tape(turns, inputs[0].device)
        self.places: list[tuple[torch.Size, int] | None] = []

        def run() -> Tensor:
            with self.tape:
                found = work(turns, self.inputs)
            self.places = [None if tensor is None else (tensor.shape, tensor.numel()) for tensor in found]
            return torch.cat([tensor.reshape(-1) for tensor in found if tensor is not None])

        self.run = record(run)

    def play(self, turns: Sequence[Turn], inputs: Sequence[Tensor]) -> Found:
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self.tape.set(turns)
        found = self.run().clone()  # the next play writes over it
        parts: Any = iter(torch.split(found, [place[1] for place in self.places if place is not None]))
        return [None if place is None else next(parts).view(place[0]) for place in self.places]
