"""Synonyms from WordNet's database files (Miller 1995; formats wndb(5WN), morphy(7WN)): Debian's or NLTK's copy.

NLTK's own reader needs files that Debian does not ship, and a process-wide setting that allows their folder.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from loralab.errors import LoralabError

Folder = Path | zipfile.Path
# Suffixes of inflected forms and their replacements, by part of speech.
_SUFFIXES: Mapping[str, str] = {
    "noun": "s: ses:s ves:f xes:x zes:z ches:ch shes:sh men:man ies:y",
    "verb": "s: ies:y es:e es: ed:e ed: ing:e ing:",
    "adj": "er: est: er:e est:e",
    "adv": "",
}


class WordNet:
    """The synonyms of every word: 117,659 sets in version 3.0, read in less than a second."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.rules = {part: [rule.split(":") for rule in rules.split()] for part, rules in _SUFFIXES.items()}
        try:
            self.sets = {part: _read_sets(folder / f"data.{part}") for part in _SUFFIXES}
            rows = {part: map(str.split, _read_lines(folder / f"{part}.exc")) for part in _SUFFIXES}
            self.irregular = {part: {form: lemmas for form, *lemmas in rows[part]} for part in _SUFFIXES}
        except (OSError, ValueError, IndexError, KeyError, zipfile.BadZipFile) as error:
            raise LoralabError(f"{folder} is not WordNet, or is damaged: {error}") from error

    def synonyms(self, word: str) -> list[str]:
        """Return the words that share a meaning with `word` in any part of speech, sorted; `New York`, not `New_York`.

        An inflected form has the uninflected synonyms of its lemmas (`oils`: `petroleum`), without the lemmas themselves.
        """
        form = word.lower().replace(" ", "_")
        lemmas = {form}
        words: set[str] = set()
        for part, sets in self.sets.items():
            regular = [form.removesuffix(old) + new for old, new in self.rules[part] if form.endswith(old)]
            for lemma in (form, *self.irregular[part].get(form, regular)):
                if lemma in sets:
                    lemmas.add(lemma)
                    words.update(sets[lemma])
        return sorted(other.replace("_", " ") for other in words if other.lower() not in lemmas)


def find_wordnet() -> WordNet:
    """Read WordNet from $WNSEARCHDIR, NLTK's data or the Debian package. Raises LoralabError if there is none."""
    for folder in _folders():
        if (folder / "data.noun").is_file():
            return WordNet(folder)
    raise LoralabError(
        "synonyms need WordNet, which is not installed. Install it in one of two ways:\n"
        "  apt install wordnet-base                                            (Debian, Ubuntu: /usr/share/wordnet)\n"
        "  pip install 'loralab[augment]' && python -m nltk.downloader wordnet   (NLTK's data folder, or $NLTK_DATA)"
    )


def _folders() -> Iterator[Folder]:
    """Yield the possible folders of WordNet, NLTK's in NLTK's order."""
    if named := os.environ.get("WNSEARCHDIR"):
        yield Path(named)
    roots = [part for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part]
    roots += [str(Path("~/nltk_data").expanduser()), *(f"{sys.prefix}/{part}nltk_data" for part in ("", "share/", "lib/"))]
    roots += [f"/usr/{part}/nltk_data" for part in ("share", "local/share", "lib", "local/lib")]
    for corpora in (Path(root) / "corpora" for root in roots):
        yield corpora / "wordnet"
        if zipfile.is_zipfile(corpora / "wordnet.zip"):  # NLTK's downloader does not unpack it
            yield zipfile.Path(corpora / "wordnet.zip", "wordnet/")
    yield Path("/usr/share/wordnet")


def _read_lines(file: Folder) -> Iterator[str]:
    """Yield the lines of a file without the licence, whose lines start with a space."""
    with file.open(encoding="utf-8") as lines:
        yield from (line for line in lines if not line.startswith(" "))


def _read_sets(file: Folder) -> dict[str, tuple[str, ...]]:
    """Map each lemma to the words of all its synonym sets. A line: `offset file type COUNT word id word id ...`, COUNT in hex."""
    sets: dict[str, tuple[str, ...]] = {}
    for line in _read_lines(file):
        fields = line.split(" ", 4)
        count = int(fields[3], 16)
        # Adjectives can have a position marker: `galore(ip)`.
        words = tuple(word.partition("(")[0] for word in fields[4].split(" ", 2 * count)[: 2 * count : 2])
        for word in words:
            lemma = word.lower()
            sets[lemma] = (*sets.get(lemma, ()), *words)
    return sets
