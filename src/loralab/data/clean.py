"""Named cleaning steps. Each is idempotent: applied twice it changes nothing more."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence

from loralab.errors import LoralabError, nearest

_ENTITY = re.compile(r"&(#\d{2,6}|#[xX][0-9a-fA-F]{2,5}|[a-zA-Z][a-zA-Z0-9]{1,30});")
# AG News lost its ampersands to spaces: `&quot;` became ` quot;`, so the space belongs to the entity.
_DAMAGED_ENTITY = re.compile(r"(?: |(?<![&\w]))(#\d{2,5}|#x[0-9a-fA-F]{2,4}|quot|amp|lt|gt|nbsp|apos|hellip|[mn]dash);")
_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"']+", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,500}>|<!--.{0,2000}?-->", re.DOTALL)
_SPACE = re.compile(r"\s+")


def escapes(text: str) -> str:
    """Restore HTML entities, also AG News's damaged ones (`#39;`, `quot;`, `lt;b gt;`), and turn backslashes into spaces."""
    while True:  # every round that changes anything shortens the text or uses up a backslash, so this ends
        repaired = _ENTITY.sub(_restore, _DAMAGED_ENTITY.sub(_restore, text)).replace("\\", " ")
        if repaired == text:
            return text
        text = repaired


def urls(text: str) -> str:
    """Remove web addresses."""
    return _until_stable(lambda t: _URL.sub(" ", t), text)


def html_tags(text: str) -> str:
    """Remove HTML tags and comments, keeping what stands between them."""
    return _until_stable(lambda t: _TAG.sub(" ", t), text)


def whitespace(text: str) -> str:
    """Turn every run of spaces, tabs and line breaks into one space, and trim both ends."""
    return _SPACE.sub(" ", text).strip()


STEPS: Mapping[str, Callable[[str], str]] = {"escapes": escapes, "html": html_tags, "urls": urls, "whitespace": whitespace}


def check_steps(steps: Sequence[str]) -> None:
    """Raise LoralabError for a step that does not exist."""
    for step in steps:
        if step not in STEPS:
            raise LoralabError(f"data.clean: {step!r} is not a cleaning step{nearest(step, STEPS)}; valid: {', '.join(STEPS)}")


def clean_text(text: str, steps: Sequence[str]) -> str:
    """Apply the named steps in order."""
    for step in steps:
        text = STEPS[step](text)
    return text


def show_steps(text: str, steps: Sequence[str]) -> list[tuple[str, str]]:
    """Return (step, text after it) for each step in order, beginning with ("before", text)."""
    check_steps(steps)
    shown = [("before", text)]
    for step in steps:
        shown.append((step, STEPS[step](shown[-1][1])))
    return shown


def _restore(match: re.Match[str]) -> str:
    """The character of an entity, or the text as it was when there is no such entity."""
    character = html.unescape(f"&{match[1]};")
    return match[0] if character.startswith("&") and len(character) > 1 else character


def _until_stable(step: Callable[[str], str], text: str) -> str:
    while (changed := step(text)) != text:
        text = changed
    return text
