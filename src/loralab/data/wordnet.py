"""WordNet's synonyms (Miller 1995), read from its own files (wndb(5WN)): Debian's, NLTK's or any other copy; no package is needed.

NLTK's reader cannot open Debian's copy, which lacks two of the files it asks for; with those made up its synonyms are equal.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from loralab.errors import LoralabError

# The endings that `morphy` takes off a form, each with what it puts in their place (morphy(7WN)); adverbs have none.
_ENDINGS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z")),
        *(("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")),
    ),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}
Folder = Path | zipfile.Path


class WordNet:
    """Every set of synonyms, by the words in it: 117,659 in version 3.0, read in less than a second."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        try:
            self._sets = {part: _read_sets(_lines(folder / f"data.{part}")) for part in _ENDINGS}
            self._irregular = {part: _read_exceptions(_lines(folder / f"{part}.exc")) for part in _ENDINGS}
        except (OSError, ValueError, IndexError, KeyError, zipfile.BadZipFile) as error:
            raise LoralabError(f"{folder} is not WordNet, or is damaged: {error}") from error

    def synonyms(self, word: str) -> list[str]:
        """Words that share a meaning with `word`, whatever its part of speech, in alphabetical order; `New York`, not `New_York`.

        An inflected form is looked up by its lemmas, and finds their synonyms uninflected: `oils` finds `petroleum`. The
        lemmas themselves are left out.
        """
        form = word.lower().replace(" ", "_")
        found: set[str] = set()
        lemmas = {form}
        for part, sets in self._sets.items():
            irregular = self._irregular[part].get(form)
            cut = [form[: -len(old)] + new for old, new in _ENDINGS[part] if form.endswith(old)]
            for lemma in (form, *(cut if irregular is None else irregular)):
                if lemma in sets:
                    lemmas.add(lemma)
                    found.update(sets[lemma])
        return sorted(other.replace("_", " ") for other in found if other.lower() not in lemmas)


def find_wordnet() -> WordNet:
    """Read the first WordNet there is: $WNSEARCHDIR, NLTK's data, the Debian package's folder. LoralabError when none is."""
    for place in _places():
        if (place / "data.noun").is_file():
            return WordNet(place)
    raise LoralabError(
        "synonyms need WordNet, and there is none here. Get it in one of two ways:\n"
        "  apt install wordnet-base                                            (Debian, Ubuntu: /usr/share/wordnet)\n"
        "  pip install 'loralab[augment]' && python -m nltk.downloader wordnet   (NLTK's data folder, or $NLTK_DATA)"
    )


def _places() -> Iterator[Folder]:
    """Where WordNet may lie, NLTK's folders in NLTK's order."""
    if named := os.environ.get("WNSEARCHDIR"):
        yield Path(named)
    prefix = Path(sys.prefix)
    folders = [Path(part) for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part]
    folders += [Path("~/nltk_data").expanduser(), *(prefix / inner for inner in ("nltk_data", "share/nltk_data", "lib/nltk_data"))]
    folders += [Path(root) / "nltk_data" for root in ("/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib")]
    for folder in folders:
        yield folder / "corpora" / "wordnet"
        archive = folder / "corpora" / "wordnet.zip"  # NLTK's downloader leaves it packed
        if zipfile.is_zipfile(archive):
            yield zipfile.Path(archive, "wordnet/")
    yield Path("/usr/share/wordnet")


def _lines(file: Folder) -> Iterator[str]:
    """The lines of a file; those that begin with a space are its licence."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith(" "):
                yield line


def _read_sets(lines: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """data.*: `offset file type COUNT word id word id ...`, COUNT in hexadecimal → each word and those it shares a set with."""
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        fields = line.split(" ", 4)
        count = int(fields[3], 16)
        # An adjective may bear where it may stand: `galore(ip)`.
        words = tuple(word.partition("(")[0] for word in fields[4].split(" ", 2 * count)[: 2 * count : 2])
        for word in words:
            lemma = word.lower()
            found[lemma] = (*found.get(lemma, ()), *words)
    return found


def _read_exceptions(lines: Iterable[str]) -> dict[str, list[str]]:
    """*.exc: a form that no rule explains, and its lemmas."""
    rows = (line.split() for line in lines)
    return {form: lemmas for form, *lemmas in rows}
