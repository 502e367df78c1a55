"""Texts in any script in a PNG: drawn with installed fonts, or numbered with a key if no font has their characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

FONT = "DejaVu Sans"
"""Ships with matplotlib."""
_UNUSABLE = ("Last Resort", "Color Emoji", "ColorEmoji", "STIXNonUnicode", "STIXSize", "DejaVu Sans Mono")
"""Beginnings of fonts of placeholders, of colour bitmaps, and of private characters."""
NORMAL_WEIGHT = 400


@contextmanager
def readable_texts(figure: Figure, numbers: dict[str, int]) -> Iterator[None]:
    """Give the texts of a figure fonts that have their characters, and number what no font has until the block ends.

    numbers: the key, filled in order of appearance; figures of one report share it.
    """
    ticks = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    labels = {id(label) for axis in ticks for label in axis.get_ticklabels()}
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and id(text) not in labels]
    contents = [*(text.get_text() for text in texts), *(label.get_text() for axis in ticks for label in axis.get_ticklabels())]
    missing = _drawn("".join(contents)) - characters(_regular_fonts()[FONT])
    if not missing:
        yield
        return
    families, undrawable = fallback_fonts(missing)
    for text in (*texts, *(label for axis in ticks for label in axis.get_ticklabels())):
        if missing & {*map(ord, text.get_text())}:
            text.set_fontfamily([FONT, *families])
    restore = [*_number_ticks(ticks, undrawable, numbers), *_number_texts(texts, undrawable, numbers)]
    try:
        yield
    finally:
        for undo in restore:
            undo()


def _number_texts(texts: Iterable[Text], undrawable: frozenset[int], numbers: dict[str, int]) -> Iterator[Callable[[], None]]:
    """Number texts, and yield what restores each."""
    for text in texts:
        before = text.get_text()
        if (after := number_runs(before, undrawable, numbers)) != before:
            text.set_text(after)
            yield lambda text=text, before=before: text.set_text(before)  # type: ignore[misc]


def _number_ticks(ticks: Iterable[Axis], undrawable: frozenset[int], numbers: dict[str, int]) -> Iterator[Callable[[], None]]:
    """Number the labels of axes, which matplotlib writes anew at each drawing, and yield what restores each axis."""
    for axis in ticks:
        before = [label.get_text() for label in axis.get_ticklabels()]
        after = [number_runs(label, undrawable, numbers) for label in before]
        if after != before:
            positions = axis.get_majorticklocs()
            axis.set_ticks(positions, after)
            yield lambda axis=axis, positions=positions, before=before: axis.set_ticks(positions, before)  # type: ignore[misc]


def number_runs(text: str, undrawable: frozenset[int], numbers: dict[str, int]) -> str:
    """Replace each run of characters that cannot be drawn, with the spaces inside it, by `#` and its number in the key."""
    if not undrawable:
        return text
    one = f"[{''.join(re.escape(chr(number)) for number in sorted(undrawable))}]"
    return re.sub(f"{one}(?:[ ]*{one})*", lambda run: f"#{numbers.setdefault(run[0], len(numbers) + 1)}", text)


def fallback_fonts(missing: frozenset[int]) -> tuple[list[str], frozenset[int]]:
    """Return installed fonts that have the missing characters, as few as possible, and the characters that none has."""
    families: list[str] = []
    coverage = {name: missing & characters(path) for name, path in _regular_fonts().items()}
    while missing:
        best = max(
            coverage, key=lambda name: (len(coverage[name] & missing), name.startswith("Noto Sans"), name.startswith("Noto"))
        )
        if not coverage[best] & missing:
            break
        families.append(best)
        missing -= coverage[best]
    return families, missing


@cache
def characters(path: str) -> frozenset[int]:
    """Return the characters of a font file; none for one that cannot be drawn, such as bitmaps."""
    try:
        font = FT2Font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


def _regular_fonts() -> dict[str, str]:
    """Return the installed fonts by family: upright ones, of the weight that is nearest to normal."""
    upright = [font for font in fontManager.ttflist if font.style == "normal" and not font.name.startswith(_UNUSABLE)]
    order = sorted(upright, key=lambda font: (font.name, abs(_weight(font.weight) - NORMAL_WEIGHT)), reverse=True)
    return {font.name: str(font.fname) for font in order}


def _weight(weight: int | str) -> int:
    return weight if isinstance(weight, int) else NORMAL_WEIGHT


def _drawn(text: str) -> frozenset[int]:
    """Return the characters of a text that need a glyph: no spaces, control characters or variation selectors."""
    return frozenset(
        ord(character)
        for character in set(text)
        if not character.isspace()
        and unicodedata.category(character) not in ("Cc", "Cf", "Cs")
        and "VARIATION SELECTOR" not in unicodedata.name(character, "")
    )
