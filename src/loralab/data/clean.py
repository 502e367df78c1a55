"""Cleaning steps for texts. Every step is idempotent: applying it twice changes nothing more."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence

from loralab.errors import LoralabError, suggest

_ENTITY = re.compile(r"&(#[0-9]{2,6}|#[xX][0-9a-fA-F]{2,5}|[a-zA-Z][a-zA-Z0-9]{1,30});$")
# In AG News the ampersands became spaces (`&quot;` is ` quot;`), so the space belongs to the entity.
_DAMAGED_ENTITY = re.compile(r"(?: |(?<![&\w]))(#[0-9]{2,5}|#x[0-9a-fA-F]{2,4}|quot|amp|lt|gt|nbsp|apos|hellip|[mn]dash);$")
_ESCAPE = re.compile(r"\\u(?!d[89a-f])([0-9a-fA-F]{4})|\\[nrt](?![a-z])")
_MAX_ENTITY = 34
"""Characters to search for an entity: the longest name with `&` and `;`, and the character before it."""
# An address ends at the first character that it cannot have, at a comma, and at a bracket that it did not open.
_IN_URL = r"[A-Za-z0-9\-._~:/?#@!$&*+=%]"
_URL = re.compile(
    rf"(?:https?://|(?<![A-Za-z0-9_.])www\.)(?:{_IN_URL}|\((?:{_IN_URL}|[,;])*\)|\[(?:{_IN_URL}|[,;])*\])+", re.IGNORECASE
)
_ELEMENTS = (
    "a|abbr|address|area|article|aside|audio|b|base|big|blockquote|body|br|button|caption|center|cite|code|col|colgroup|dd|del|"
    "details|dfn|dir|div|dl|dt|em|embed|fieldset|figcaption|figure|font|footer|form|frame|frameset|h[1-6]|head|header|hr|html|i|"
    "iframe|img|input|ins|kbd|label|legend|li|link|main|map|mark|meta|nav|noscript|object|ol|optgroup|option|p|param|picture|pre|q|"
    "s|samp|script|section|select|small|source|span|strike|strong|style|sub|summary|sup|svg|table|tbody|td|textarea|tfoot|th|thead|"
    "time|title|tr|tt|u|ul|var|video|wbr"
)
_TAG = re.compile(rf"</?(?:{_ELEMENTS})(?:\s[^<>]{{0,500}}=[^<>]{{0,500}}|\s*)/?>|<!--.{{0,2000}}-->", re.DOTALL | re.IGNORECASE)
_MAX_TAG = 2007
_SPACE = re.compile(r"\s+")


def escapes(text: str) -> str:
    """Restore escaped characters, and replace other backslashes by spaces.

    Restored are HTML entities, also AG News's damaged ones (`#39;`, `quot;`, `lt;b gt;`), code points such as `\\u00e9`, and `\\n`,
    `\\r` and `\\t` before anything but a lower-case letter: in AG News a backslash alone joins words, as in `profits\\new jobs`.
    """
    text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else " ", text) if "\\" in text else text
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
            opens = match[1] == "quot" and segment[:1].isalnum() and tail[: -len(match[0])][-1:].isalnum() and match[0][0] == " "
            del done[-len(match[0]) :]
            done.extend(" " * (opens and done.count('"') % 2 == 0) + character.replace("\\", " "))
        done.extend(segment)
    return "".join(done)


def urls(text: str) -> str:
    """Remove web addresses."""
    return _URL.sub(" ", text)


def html_tags(text: str) -> str:
    """Remove HTML tags and comments, but keep the text inside elements, and what only looks like a tag, such as `List<String>`."""
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
