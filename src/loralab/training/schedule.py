"""How many steps there are, and the learning rate as a function of the step."""

from __future__ import annotations

import math


def warmup_steps(warmup: float, total: int) -> int:
    """A number below 1 is a fraction of all steps, else a number of steps."""
    return round(warmup * total) if warmup < 1 else int(warmup)


def multiplier(step: int, total: int, warmup: int, schedule: str) -> float:
    """Return the factor on the learning rate at `step` (from 0) of `total`: up to 1 over `warmup` steps, then down to 0.

    cosine: half a cosine (Loshchilov & Hutter 2017, without restarts); linear: a line; constant: stays 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress if schedule == "linear" else 1.0


def count_steps(rows: int, batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Return how many steps a training has: `epochs` may be fractional, a batch begun is a step, and `max_steps` is the most."""
    total = math.ceil(round(epochs * math.ceil(rows / batch_size), 6))
    return min(total, max_steps or total)
