"""Number of steps, and the learning rate as a function of the step."""

from __future__ import annotations

import math


def count_steps(rows: int, batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Return the number of optimizer steps. `epochs` may be fractional; the last batch of an epoch may be smaller."""
    total = math.ceil(round(epochs * math.ceil(rows / batch_size), 6))
    return min(total, max_steps or total)


def warmup_steps(warmup: float, total: int) -> int:
    """Return the warm-up in steps. A value below 1 is a fraction of all steps."""
    return round(warmup * total) if warmup < 1 else int(warmup)


def multiplier(step: int, total: int, warmup: int, schedule: str) -> float:
    """Return the factor on the learning rate at `step` (from 0) of `total`: up to 1 during `warmup` steps, then down to 0.

    cosine: half a cosine (Loshchilov & Hutter 2017, without restarts); linear: a line; constant: stays at 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress if schedule == "linear" else 1.0


def warmup_remarks(warmup: float, total: int) -> list[str]:
    """Return remarks on a warm-up that takes all of the training, or is a broken number of steps."""
    steps, remarks = warmup_steps(warmup, total), []
    if warmup > 1 and warmup != steps:
        remarks.append(f"train.warmup={warmup:g}: that is {steps:,} steps; values below 1 are a fraction of all steps")
    if 0 < total <= steps:
        reached = f"only {total / steps:.0%} of its peak" if total < steps else "its peak in the last step"
        remarks.append(
            f"train.warmup={warmup:g}: the warm-up takes all {total:,} steps, so the learning rate reaches {reached}: "
            "lower train.warmup, for example to 0.06"
        )
    return remarks
