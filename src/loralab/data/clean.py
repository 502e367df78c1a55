"""Cleaning steps for texts. Every step is idempotent: applying it twice changes nothing more."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence

from loralab.errors import LoralabError, suggest

_ENTITY = re.compile(r"&(#[0-9]{2,6}|#[xX][0-9a-fA-F]{2,5}|[a-zA-Z][a-zA-Z0-9]{1,30});$")
# In AG News the ampersands became spaces (`&quot;` is ` quot;`), so the space belongs to the entity.
_DAMAGED_ENTITY = re.compile(r"(?: |(?<![&\w]))(#[0-9]{2,5}|#x[0-9a-fA-F]{2,4}|quot|amp|lt|gt|nbsp|apos|hellip|[mn]dash);$")
_MAX_ENTITY = 34
"""Characters to search for an entity: the longest name with `&` and `;`, and the character before it."""
_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"']+", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,500}>|<!--.{0,2000}-->", re.DOTALL)
_MAX_TAG = 2007
_SPACE = re.compile(r"\s+")


def escapes(text: str) -> str:
    """Restore HTML entities, including AG News's damaged ones (`#39;`, `quot;`, `lt;b gt;`), and replace backslashes by spaces."""
    first, *rest = text.replace("\\", " ").split(";")
    done = list(first)
    # A restored character can complete another entity, so test the end of the output after every `;`.
    for segment in rest:
        done.append(";")
        while done and done[-1] == ";":
            tail = "".join(done[-_MAX_ENTITY:])
            match = _ENTITY.search(tail) or _DAMAGED_ENTITY.search(tail)
            character = html.unescape(f"&{match[1]};") if match else ""
            if match is None or len(character) > 2:
                break  # an entity is one or two code points; anything longer was not an entity
            del done[-len(match[0]) :]
            done.extend(character.replace("\\", " "))
        done.extend(segment)
    return "".join(done)


def urls(text: str) -> str:
    """Remove URLs."""
    return _URL.sub(" ", text)


def html_tags(text: str) -> str:
    """Remove HTML tags and comments, but keep the text inside elements."""
    if ">" not in text:
        return text
    # A stack of "<" positions removes inner tags first and reads every character once.
    done: list[str] = []
    opened: list[int] = []
    for character in text:
        if character == "<":
            opened.append(len(done))
        done.append(character)
        if character == ">" and opened and len(done) - opened[-1] <= _MAX_TAG and _TAG.fullmatch("".join(done[opened[-1] :])):
            del done[opened.pop() :]
            done.append(" ")
    return "".join(done)


def whitespace(text: str) -> str:
    """Replace every run of white space by one space and strip both ends."""
    return _SPACE.sub(" ", text).strip()


STEPS: Mapping[str, Callable[[str], str]] = {"escapes": escapes, "html": html_tags, "urls": urls, "whitespace": whitespace}


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates by question marks: JSON can contain them, UTF-8 files and tokenizers cannot."""
    return text.encode("utf-8", "replace").decode()


def normalize_text(text: str) -> str:
    """Return the text in lower case with single spaces. Texts that are equal in this form count as duplicates."""
    return " ".join(text.casefold().split())


def check_steps(steps: Sequence[str]) -> None:
    """Raise LoralabError for an unknown step."""
    for step in steps:
        if step not in STEPS:
            raise LoralabError(f"data.clean: {step!r} is not a cleaning step{suggest(step, STEPS)}; valid: {', '.join(STEPS)}")


def clean_text(text: str, steps: Sequence[str]) -> str:
    """Apply the named steps in order."""
    for step in steps:
        text = STEPS[step](text)
    return text


def show_steps(text: str, steps: Sequence[str]) -> list[tuple[str, str]]:
    """Return (step, text after it) for each step in order, starting with ("before", text)."""
    check_steps(steps)
    shown = [("before", text)]
    for step in steps:
        shown.append((step, STEPS[step](shown[-1][1])))
    return shown
