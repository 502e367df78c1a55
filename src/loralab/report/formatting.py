"""Values and texts as people read them; shared by pages, figures, tables and plain files."""

from __future__ import annotations

import json
from typing import TypeGuard

from loralab.stats import Interval


def is_number(value: object) -> TypeGuard[int | float]:
    """Return True for an int or a float that is not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def format_score(value: float | None) -> str:
    """Return a score with four digits, or a dash for one that is undefined, such as the F1 of a class without rows."""
    return "–" if value is None else f"{value:.4f}"


def early_stopping(
    monitor: str, best: float | None, best_step: int, steps: int, patience: int | None, callback: bool = False
) -> str:
    """Return why a run stopped early. best: the monitored validation score, None if it is not known; callback: one asked for it."""
    if callback:
        return f"stopped by a callback after step {steps:,}: {monitor} was best at step {best_step:,} ({format_score(best)})"
    waited = "" if patience is None else f", and {patience} evaluation{'s' * (patience > 1)} brought no better one"
    return f"stopped early after step {steps:,}: {monitor} was best at step {best_step:,} ({format_score(best)}){waited}"


def one_line(text: str) -> str:
    """Return the text with every run of white space, line breaks included, as one space."""
    return " ".join(text.split())


def shorten(text: str, max_length: int) -> str:
    """Return the text on one line of at most `max_length` characters. It cuts in the middle, where similar names differ least."""
    text = one_line("".join(c if c.isprintable() else " " for c in text))
    if len(text) <= max_length:
        return text
    tail = (max_length - 1) // 2
    return f"{text[: max_length - 1 - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


def capitalize(text: str) -> str:
    """Return the text with its first letter in upper case; `str.capitalize` would lower the others."""
    return text[:1].upper() + text[1:]


def format_value(value: object) -> str:
    """Return a setting or a fact as text: yes or no, none, short numbers, lists with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ([], ()):
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def signed_points(share: float) -> str:
    """Return a difference of shares in percentage points: `+1.20` or `−0.35`."""
    return f"{100 * share:+.2f}".replace("-", "−")


def format_percent(share: float) -> str:
    """Return a share as `91.23 %`."""
    return f"{100 * share:.2f} %"


def format_range(interval: Interval) -> str:
    """Return an interval of a share in percent, within 0 and 100: `90.10 to 92.30`."""
    return f"{100 * max(0.0, interval.low):.2f} to {100 * min(1.0, interval.high):.2f}"
