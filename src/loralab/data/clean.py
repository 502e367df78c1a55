"""Cleaning steps for texts. Every step is idempotent: applying it twice changes nothing more."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence

from loralab.errors import LoralabError, suggest

# A drive or a network share. `A:\nYes` is a dialogue with an escaped line break.
_PATH = re.compile(r"(?<![A-Za-z])[A-Za-z]:\\(?!n[A-Z\s])\S*|(?<!\S)\\\\[\w.$-]+\\\S*")
_CODE_POINTS = re.compile(r"(?<!\\)(?:\\+u[0-9a-fA-F]{4})+")
_JOINED = re.compile(r"\\(?:[a-mo-qsv-zA-Z]|u(?![0-9a-fA-F]{4}))")
_ESCAPE = re.compile(r"(?<!\\)\\+[nrt]")
_SURE_ESCAPE = re.compile(r"(?<!\\)\\+[nrt](?![a-z])")
# No English word starts with these letters, or has these words after an `n`: `\nvery` and `\nit` are escapes, `\new` may be a word.
_SIGN_OF_ESCAPES = re.compile(
    r"\\(?:[nrt](?![a-z])|n[b-df-hj-mp-tv-xz]|r[b-df-gj-np-tv-xz]|t[b-dfgj-np-qtvxz]"
    r"|n(?:i|it|its|is|in|if|a|an|and|all|also|are|as|at|am|of|off|on|only|our|out|over|us|use|used|after|any|every|even)\b)"
)
_ENTITY = re.compile(r"&(#[0-9]{2,6}|#[xX][0-9a-fA-F]{2,5}|[a-zA-Z][a-zA-Z0-9]{1,30});$")
# In AG News the ampersands became spaces (`&quot;` is ` quot;`), so the space belongs to the entity.
_DAMAGED_ENTITY = re.compile(r"(?: |(?<![&\w]))(#[0-9]{2,5}|#x[0-9a-fA-F]{2,4}|quot|amp|lt|gt|nbsp|apos|hellip|[mn]dash);$")
_MAX_ENTITY = 34
"""Characters to search for an entity: the longest name with `&` and `;`, and the character before it."""
_CLOSING_APOSTROPHE = re.compile(r" (?:#39|apos);(?!\w)")
_CONTRACTION = re.compile(r"(?:s|t|re|ve|ll|d|m|n|em|til|cause)\b", re.IGNORECASE)
# An address ends at the first character that it cannot have, at a comma, and at a bracket that it did not open. The punctuation
# after it is the sentence's. Letters of other scripts may be a sentence without a space before it; Latin ones are the address's.
_LATIN = "À-ÖØ-öø-ɏ"
_IN_URL = rf"A-Za-z0-9{_LATIN}\-._~:/?#@!$&*+=%"
_URL = re.compile(
    rf"(?:https?://(?=[A-Za-z0-9{_LATIN}\[%])|(?<![A-Za-z0-9_.@/])www\.(?=[A-Za-z0-9{_LATIN}]))"
    rf"(?:[{_IN_URL}]|\([{_IN_URL},;]*\)|\[[{_IN_URL},;]*\])+(?<![.?!:])",
    re.IGNORECASE,
)
# Always markup, also without an end tag.
_MARKUP = (
    "acronym|b|basefont|bdo|blink|blockquote|br|col|colgroup|dd|del|dfn|div|dl|dt|em|fieldset|figcaption|font|frameset|h[1-6]|hr|"
    "html|i|iframe|img|ins|kbd|li|marquee|nav|nobr|noscript|ol|optgroup|p|pre|samp|select|span|strike|strong|sub|sup|svg|tbody|td|"
    "textarea|tfoot|th|thead|tr|tt|u|ul|wbr"
)
# Also words, types and placeholders (`<address>`, `List<Object>`): markup only with attributes or an end tag.
_MARKUP_OR_WORD = (
    "a|abbr|address|applet|area|article|aside|audio|base|big|body|button|canvas|caption|center|cite|code|data|details|dialog|dir|"
    "embed|figure|footer|form|frame|head|header|input|label|legend|link|main|map|mark|menu|meta|object|option|output|param|picture|"
    "progress|q|s|script|section|small|source|style|summary|table|template|time|title|track|var|video"
)
_NO_VALUE = (
    "allowfullscreen|async|autoplay|checked|compact|controls|defer|disabled|hidden|loop|multiple|muted|noshade|nowrap|selected"
)
_TAG = re.compile(
    rf"<!--.{{0,2000}}-->|<!doctype[^<>]{{0,200}}>|</(?:{_MARKUP}|{_MARKUP_OR_WORD})\s*>"
    rf"|<(?:{_MARKUP}|{_MARKUP_OR_WORD})(?P<attributes>\s[^<>]{{0,500}}=[^<>]{{0,500}}|\s+(?:{_NO_VALUE})\s*|\s*/)>"
    rf"|<(?:(?P<letter>[biu])|(?P<word>{_MARKUP_OR_WORD})|(?:{_MARKUP}))\s*>",
    re.DOTALL | re.IGNORECASE,
)
_END_TAG = re.compile(r"</([a-z]+)", re.IGNORECASE)
_MAX_TAG = 2007
_SPACE = re.compile(r"\s+")


def escapes(text: str) -> str:
    r"""Restore escaped characters, and replace other backslashes by spaces.

    Restored are HTML entities, also AG News's damaged ones (`#39;`, `quot;`, `lt;b gt;`), code points such as `\u00e9`, and `\n`,
    `\r` and `\t`, which become spaces. In AG News a backslash joins two words, as in `dwindling\band`. So `\new` is the word `new`
    if the text has such a backslash, or none that must be an escape (`\n` before a capital, `\nvery`). It is a word in a Windows
    path too: `C:\new\temp` becomes `C: new temp`.
    """
    if "\\" in text:
        text = _restore_backslashes(text)
    if ";" not in text:
        return text
    first, *rest = text.split(";")
    done, quotes, closing = list(first), first.count('"'), len(_CLOSING_APOSTROPHE.findall(text))
    # A restored character can complete another entity, so test the end of the output after every `;`.
    for segment in rest:
        done.append(";")
        while done and done[-1] == ";":
            tail = "".join(done[-_MAX_ENTITY:])
            match = _ENTITY.search(tail) or _DAMAGED_ENTITY.search(tail)
            character = html.unescape(f"&{match[1]};") if match else ""
            if match is None or len(character) > 2:
                break  # an entity is one or two code points; anything longer was not an entity
            closing -= _CLOSING_APOSTROPHE.match(f"{match[0]}{segment[:1]}") is not None
            opens = quotes % 2 == 0 if character == '"' else closing > 0
            space = " " if match[0][0] == " " and _is_detached(character, tail[: -len(match[0])], segment[:8], opens) else ""
            del done[-len(match[0]) :]
            done.extend(space + character.replace("\\", " "))
            quotes += character == '"'
        done.extend(segment)
        quotes += segment.count('"')
    return "".join(done)


def _restore_backslashes(text: str) -> str:
    """Return the text without backslashes: each is part of an escape, or a space."""
    text = _PATH.sub(lambda match: match[0].replace("\\", " "), text)
    joined, escaped = _JOINED.search(text), _SIGN_OF_ESCAPES.search(text)
    text = _CODE_POINTS.sub(lambda match: _decode(match[0]), text)
    text = (_ESCAPE if escaped and not joined else _SURE_ESCAPE).sub(" ", text)
    if not joined:
        text = re.sub(r"\\(?=[\"'/])", "", text)
    return text.replace("\\", " ")


def _decode(code_points: str) -> str:
    r"""Return the characters of `\uXXXX`, two of which can be one character."""
    units = b"".join(int(unit, 16).to_bytes(2, "big") for unit in re.findall("u([0-9a-fA-F]{4})", code_points))
    return units.decode("utf-16-be", "replace")


def _is_detached(character: str, before: str, after: str, opens: bool) -> bool:
    """Whether the space before a damaged entity belongs to the text: where runs of spaces became one space, it is both.

    before, after: the text around it. opens: for a quotation mark, whether the text lets it open a quotation.
    """
    if not before or not after or before[-1].isspace() or before[-1] in "([{<=\"'“‘-/":
        return False
    if after[0].isspace():
        return character in "&–—"
    if character in "$£€":
        return re.search(r"\b[A-Z]{1,3}$", before) is None  # `US$`
    if not after[0].isalnum():
        return False
    if character == "'":  # `the 'big' one`, but `Oil's` and `O'Hare`
        return opens and re.search(r"[^\W\d_]{3}$|[,:]$", before) is not None and not _CONTRACTION.match(after)
    return (character == '"' and opens) or character in "“‘"


def urls(text: str) -> str:
    """Remove web addresses."""
    return _URL.sub(" ", text)


def html_tags(text: str) -> str:
    """Remove HTML tags and comments, but keep the text inside elements, and what only looks like a tag, such as `List<String>`."""
    if ">" not in text:
        return text
    closed = {name.lower() for name in _END_TAG.findall(text)}
    # A stack of "<" positions removes inner tags first and reads every character once.
    done: list[str] = []
    opened: list[int] = []
    for character in text:
        if character == "<":
            opened.append(len(done))
        done.append(character)
        if character == ">" and opened and len(done) - opened[-1] <= _MAX_TAG and _is_tag(done, opened[-1], closed):
            del done[opened.pop() :]
            done.append(" ")
    return "".join(done)


def _is_tag(characters: Sequence[str], start: int, closed: set[str]) -> bool:
    """Whether the characters from `start` on are a tag or a comment. closed: the names that have an end tag."""
    match = _TAG.fullmatch("".join(characters[start:]))
    if match is None:
        return False
    if match["word"]:
        return match["word"].lower() in closed
    if match["letter"] and start and (characters[start - 1].isalnum() or characters[start - 1] == "_"):
        return match["letter"].lower() in closed  # `Box<B>` is code
    return True


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
