"""Named cleaning steps. Each is idempotent: applied twice it changes nothing more."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence

from loralab.errors import LoralabError, nearest

_ENTITY = re.compile(r"&(#[0-9]{2,6}|#[xX][0-9a-fA-F]{2,5}|[a-zA-Z][a-zA-Z0-9]{1,30});$")
# AG News lost its ampersands to spaces: `&quot;` became ` quot;`, so the space belongs to the entity.
_DAMAGED_ENTITY = re.compile(r"(?: |(?<![&\w]))(#[0-9]{2,5}|#x[0-9a-fA-F]{2,4}|quot|amp|lt|gt|nbsp|apos|hellip|[mn]dash);$")
_REACH = 34
"""Characters that decide whether a `;` ends an entity: the longest name, its `&` and `;`, and what stands before."""
_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"']+", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,500}>|<!--.{0,2000}-->", re.DOTALL)
_LONGEST_TAG = 2007
_SPACE = re.compile(r"\s+")


def escapes(text: str) -> str:
    """Restore HTML entities, also AG News's damaged ones (`#39;`, `quot;`, `lt;b gt;`), and turn backslashes into spaces."""
    first, *rest = text.replace("\\", " ").split(";")
    done = list(first)
    # One pass, because what is restored may complete another entity: after each `;` only the end of what is done can be one.
    for part in rest:
        done.append(";")
        while done and done[-1] == ";":
            tail = "".join(done[-_REACH:])
            match = _ENTITY.search(tail) or _DAMAGED_ENTITY.search(tail)
            character = html.unescape(f"&{match[1]};") if match else ""
            if match is None or len(character) > 2:
                break  # a character is one code point or two; what is longer is no entity, left as it was
            del done[-len(match[0]) :]
            done.extend(character.replace("\\", " "))
        done.extend(part)
    return "".join(done)


def urls(text: str) -> str:
    """Remove web addresses."""
    return _URL.sub(" ", text)


def html_tags(text: str) -> str:
    """Remove HTML tags and comments, keeping what stands between them."""
    if ">" not in text:
        return text
    # One pass with a stack of "<", so that a tag inside a tag is removed first and nothing is read twice.
    done: list[str] = []
    opened: list[int] = []
    for character in text:
        if character == "<":
            opened.append(len(done))
        done.append(character)
        if character == ">" and opened and len(done) - opened[-1] <= _LONGEST_TAG and _TAG.fullmatch("".join(done[opened[-1] :])):
            del done[opened.pop() :]
            done.append(" ")
    return "".join(done)


def whitespace(text: str) -> str:
    """Turn every run of spaces, tabs and line breaks into one space, and trim both ends."""
    return _SPACE.sub(" ", text).strip()


STEPS: Mapping[str, Callable[[str], str]] = {"escapes": escapes, "html": html_tags, "urls": urls, "whitespace": whitespace}


def replace_surrogates(text: str) -> str:
    """Put a question mark in the place of half a surrogate pair, which JSON can carry and no file, tokenizer or terminal can."""
    return text.encode("utf-8", "replace").decode()


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
