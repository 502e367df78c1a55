"""Several runs in one pass, step by step: each keeps its own loop, and only the passes are taken together.

Schedules, clipping, AdamW, evaluations, best weights and early stopping are each run's own, so runs may differ in seed, rows,
learning rate, loss and length: whatever leaves the frozen encoder and the adapters' shapes alike (`model.stacked`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, cast

import torch
from torch import Tensor

from loralab.data.values import Ints
from loralab.errors import LoralabError
from loralab.model.dropout import Turn
from loralab.model.stacked import Texts, logits_together, share_encoder
from loralab.training import side_by_side
from loralab.training.engine import Fit, Found, Loop, Part
from loralab.training.replay import Replay, cuda_graphs


def fit_stacked(loops: Sequence[Loop], *, rectangle: bool | None = None) -> list[Fit | LoralabError]:
    """Train several runs together, and return what each came to, in their order: as if it had run alone, but for rounding.

    A run that has ended, early or not, leaves the others to go on; so does one that fails, whose error is returned. Ctrl-C ends
    all, each with its best weights so far. rectangle: how a pass is laid out (`model.stacked`); by default as the device wants
    it. Raises LoralabError where the networks cannot share a pass.
    """
    for loop in loops:
        join(loops[0], loop)
    rectangle = loops[0].device.type == "cuda" if rectangle is None else rectangle
    recorded = rectangle and all(loop.replay.record is not None for loop in loops)
    replay = Replay(cuda_graphs() if recorded else None)
    ended: dict[Loop, Fit | LoralabError] = {}
    steps = {loop: loop.steps() for loop in loops}
    try:
        while going := [loop for loop in loops if loop not in ended]:
            asked: dict[Loop, Ints] = {}
            for loop in going:
                try:
                    positions = next(steps[loop], None)
                except LoralabError as error:
                    ended[loop] = error
                    continue
                if positions is None:
                    ended[loop] = loop.end()
                else:
                    asked[loop] = positions
            for loop, found in _passes(asked, rectangle, replay).items():
                try:
                    loop.take(asked[loop], found)
                except LoralabError as error:
                    ended[loop] = error
    except KeyboardInterrupt:
        ended |= {loop: loop.end(interrupted=True) for loop in loops if loop not in ended}
    return [ended[loop] for loop in loops]


def join(first: Loop, other: Loop) -> None:
    """Let `other` use the frozen weights of `first`. Raises LoralabError where the two cannot share a pass."""
    share_encoder(first.network, other.network)
    if first.train.start != other.train.start:
        raise LoralabError("runs train together where the hidden states of all are kept, or of none: set train.cache=off")


def _passes(asked: dict[Loop, Ints], rectangle: bool, replay: Replay) -> dict[Loop, list[Found]]:
    """What all passes of one step of every run find: pass i of each is taken with pass i of the others."""
    divided = {loop: loop.divide(positions) for loop, positions in asked.items()}
    together = [
        {loop: part for loop, part in zip(divided, parts, strict=True) if part is not None}
        for parts in zip_longest(*(parts for parts, _ in divided.values()))
    ]
    found: dict[Loop, list[Found]] = {loop: [] for loop in asked}
    hands = max((hands for _, hands in divided.values()), default=1)
    for passed in side_by_side.each(lambda parts: _gradients(parts, rectangle, replay), together, hands):
        for loop, each in passed.items():
            found[loop].append(each)
    return found


def _gradients(parts: dict[Loop, Part], rectangle: bool, replay: Replay) -> dict[Loop, Found]:
    """`Loop.gradients` of several runs in one pass: the loss is the sum of theirs, and no run's weights enter another's."""

    def work(turns: Sequence[Turn], inputs: Sequence[Tensor]) -> list[Tensor | None]:
        texts, masks, labels, masses = (inputs[i::4] for i in range(4))
        given = zip(parts, texts, masks, turns, strict=True)
        passed = [Texts(cast(Any, loop.network), text, mask, turn) for loop, text, mask, turn in given]
        logits = logits_together(passed, next(iter(parts)).train.start, rectangle=rectangle)
        losses = [loop.loss(*each) / mass for loop, *each, mass in zip(parts, logits, labels, masses, strict=True)]
        scaled = torch.stack([loop.scaler.scale(loss) for loop, loss in zip(parts, losses, strict=True)]).sum()
        found = torch.autograd.grad(scaled, [weight for loop in parts for weight in loop.trained], allow_unused=True)
        return [torch.stack([loss.detach() for loss in losses]), *found]

    # What is recorded has one width for all runs: there are few of those, and many combinations.
    width = None if replay.record is None else max(loop.rows.width(part.positions) for loop, part in parts.items())
    inputs = [tensor for loop, part in parts.items() for tensor in loop.inputs(part, width)]
    losses, *found = replay(work, [loop.turn(part) for loop, part in parts.items()], inputs, *map(id, parts))
    assert losses is not None
    gradients = iter(found)
    return {loop: (value, [next(gradients) for _ in loop.trained]) for loop, value in zip(parts, losses.tolist(), strict=True)}
