"""European encodings that give the same bytes different letters, distinguished by the alphabets of languages."""

from __future__ import annotations

import re
from collections import Counter

WESTERN = "cp1252"
_ALPHABETS = {
    # German, French, Spanish, Portuguese, Italian, Dutch, Swedish and Finnish, Danish and Norwegian, Icelandic, Catalan, Estonian
    (WESTERN,): (
        *("äöüßé", "àâæçéèêëîïôœùûüÿ", "áéíñóúü", "ãáâàçéêíõóôúü", "àèéìîòóù", "áéèêëïíóöúü", "åäöé", "æøåéòô"),
        *("áéíóúýþðæö", "àçéèíïóòúü", "äöõüšž"),
    ),
    # Czech, Slovak, Polish, Hungarian, Croatian, Slovene, Romanian
    ("cp1250", "iso8859_2"): (*("áčďéěíňóřšťúůýž", "áäčďéíľňóôšťúýž", "ąćęłńóśźż", "áéíóöőúüű", "čćđšž", "čšž", "ăâîşţ"),),
    ("cp1254",): ("çğıiöşüâîû",),  # Turkish
    ("cp1257",): ("ąčęėįšųūž", "āčēģīķļņšūž"),  # Lithuanian, Latvian
}
"""The letters of languages that are not ASCII, by the encodings in which they are written."""
MIN_LETTERS, MIN_SHARE, MIN_DENSITY = 6, 0.98, 0.025
"""Letters that are not ASCII, the share of one language's among them, and their share of all letters: English has fewer of them."""
_FOREIGN = re.compile(r"[^\W\d_a-zA-Z]|[\x80-\x9f\ufffd]|[¬¦¯¶¹¼-¾](?=[^\W\d_])|(?<=[^\W\d_])[^\w\s\x00-\x7f’‘–—](?=[^\W\d_])")
"""A letter that is not ASCII, or what a wrong encoding makes of one: a control character, or a sign before or between letters."""


def likely_encodings(bytes_: bytes) -> list[str]:
    """Return the encodings that read bytes as the letters of one language: cp1252 alone if it does, none if no encoding does.

    Encodings that read the bytes alike are one.
    """
    readings: dict[str, str] = {}
    for encodings, alphabets in _ALPHABETS.items():
        for encoding in encodings:
            text = bytes_.decode(encoding, "replace")
            if any(_is_written_in(text, letters) for letters in alphabets):
                readings.setdefault(text, encoding)
        if WESTERN in readings.values():
            break
    return [*readings.values()]


def _is_written_in(text: str, letters: str) -> bool:
    foreign = Counter(_FOREIGN.findall(text.lower().replace("\u0307", "")))
    total = foreign.total()
    ascii_letters = sum(character.isalpha() for character in text) - total
    own = sum(count for letter, count in foreign.items() if letter in letters)
    return total >= MIN_LETTERS and own >= MIN_SHARE * total and total >= MIN_DENSITY * (ascii_letters + total)
