"""Problems of texts: missing, damaged, repeated, too long for the encoder, or no texts at all."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loralab.data.clean import escapes, html_tags, normalize_text
from loralab.data.data_report import DuplicateTexts
from loralab.data.labels import missing_text_words
from loralab.data.near_duplicates import find_near_duplicates, sign
from loralab.data.text_notices import MAX_UNKNOWN, longer_limit, loss_notices
from loralab.data.tokenize import encode, load_tokenizer, unknown_token
from loralab.data.types import Examples, Ints, Notice, TextFacts, count_of

MAX_DUPLICATES = 20
"""Repeated texts that a report lists."""
NO_LIMIT = 1 << 30
_ID = re.compile(r"(?=\S*\d)[\w#:./-]{1,40}")
"""One word with a digit, such as a17 or 0f3c-22."""
_CODE_POINT = re.compile(r"\\u[0-9a-fA-F]{4}")


def _damaged_utf8() -> re.Pattern[str]:
    """Return a pattern of UTF-8 bytes that were read as cp1252: â€™ for an apostrophe, Ã© for é."""
    read_as = {byte: bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(0x80, 0x100)}
    rest = "".join(re.escape(read_as[byte]) for byte in range(0x80, 0xC0)) + "\x80-\x9f"
    signs = "\xa0-\xbf"  # never the quotes and dashes that can follow a capital letter
    # Lone pairs only of the letters that nearly always show the damage; of others, two in a row.
    lone = rf"Ã[{signs}ŸœŒ‰€]|Â[{signs}]|â[€„…‚ˆ‰][{rest}]|ð[Ÿ\x9f][{rest}]{{2}}"
    several = rf"(?:[ÂÃÄÅÎÏÐÑ×ØÙ][{rest}]){{2}}|(?:[à-ï][{rest}]{{2}}){{2}}"
    return re.compile(f"{lone}|{several}")


_DAMAGED_UTF8 = _damaged_utf8()
Test = Callable[[str], bool]


@dataclass(frozen=True)
class MeasuredTexts:
    """Per text its tokens, untruncated, and its unknown tokens. facts: of all texts together."""

    lengths: Ints
    unknown: Ints
    facts: TextFacts


def measure_texts(texts: Sequence[str], folder: Path, clean: Sequence[str]) -> MeasuredTexts:
    """Clean and tokenize texts with the tokenizer of an encoder's folder. Raises LoralabError if it has none."""
    tokenizer = load_tokenizer(folder, NO_LIMIT)
    tokenizer.no_truncation()
    encoded = encode(Examples(texts, None, np.arange(len(texts))), tokenizer=tokenizer, clean=clean, pad_id=0)
    unknown = unknown_token(tokenizer)
    counts = np.concatenate([[0], np.cumsum(encoded.tokens == unknown)]) if unknown is not None else np.zeros(1, np.int64)
    per_text = np.diff(counts[encoded.starts]) if unknown is not None else np.zeros(len(texts), np.int64)
    return MeasuredTexts(encoded.lengths, per_text, encoded.facts)


def length_findings(measured: MeasuredTexts, base: str, max_length: int, longest: int) -> list[Notice]:
    """Report texts that are cut, emptied by cleaning, or unknown to the encoder. longest: tokens that the encoder reads at most."""
    limit, findings = min(max_length, longest), []
    if max_length > longest:
        findings.append(
            Notice(
                f"data.max_length={max_length}: {base} reads {longest} tokens of a text at most", (), f"data.max_length={longest}"
            )
        )
    over, total = np.maximum(measured.lengths - limit, 0), int(measured.lengths.sum())
    if long := _rows(over > 0):
        facts = TextFacts(len(long), int(over.sum()))
        (message,) = loss_notices({"": (len(over), total - facts.lost, facts)}, limit, base)
        findings.append(Notice(message, long, longer_limit(int(measured.lengths.max()), limit, longest, base), "warning"))
    for message in loss_notices({"": (len(over), total, measured.facts)}, limit, base):
        what, _, fix = message.partition(": ")
        findings.append(Notice(what, _rows(measured.unknown > MAX_UNKNOWN * measured.lengths), fix, "warning"))
    if measured.facts.emptied:
        message = f"{count_of(len(measured.facts.emptied), 'text is', 'texts are')} empty after cleaning"
        findings.append(Notice(message, measured.facts.emptied, "data.clean=none keeps them", "warning"))
    return findings


def text_findings(texts: Sequence[str], clean: Sequence[str], other_column: str = "") -> list[Notice]:
    """Report missing and damaged texts, and ids in place of texts. other_column: a setting that names a likelier text column."""
    findings = []
    if empty := tuple(row for row, text in enumerate(texts) if not text.strip()):
        message = f"{count_of(len(empty), 'text is', 'texts are')} empty"
        findings.append(Notice(message, empty, "fill in or remove; training keeps them as empty texts", "warning"))
    findings += missing_text_words(texts)
    if _are_ids(texts):
        listed = ", ".join(repr(text) for text in texts[:3])
        fix = other_column or "name the text column with data.text=COLUMN"
        findings.append(Notice(f"the texts look like ids or numbers: {listed}", (), fix, "warning"))
    return [*findings, *_damage_findings(texts, clean)]


def _are_ids(texts: Sequence[str]) -> bool:
    filled = [text.strip() for text in texts if text.strip()]
    return bool(filled) and sum(_ID.fullmatch(text) is not None for text in filled) >= 0.95 * len(filled)


def _damage_findings(texts: Sequence[str], clean: Sequence[str]) -> list[Notice]:
    """Report markup and damaged characters. What the cleaning steps of the settings restore is no problem."""
    kinds: tuple[tuple[str, Test, str, str], ...] = (
        ("escaped characters, such as", _has_escapes, "escapes", ""),
        ("HTML tags, such as", lambda text: "<" in text and html_tags(text) != text, "html", ""),
        ("UTF-8 read in another encoding, such as", _is_misread, "", "write the file again from its source as UTF-8"),
    )
    findings = []
    for what, damaged, step, fix in kinds:
        if step in clean:
            continue
        rows = tuple(row for row, text in enumerate(texts) if damaged(text))
        if rows:
            number = count_of(len(rows), "text has", "texts have")
            setting = f"data.clean={','.join((*clean, step))} {'restores' if step == 'escapes' else 'removes'} them"
            findings.append(Notice(f"{number} {what} {_excerpt(texts[rows[0]])!r}", rows, fix or setting, "warning"))
    return findings


def _has_escapes(text: str) -> bool:
    """Whether a text has HTML entities, whole or damaged, or code points such as \\u00e9. Other backslashes may be meant."""
    if ";" in text:
        plain = text.replace("\\", " ")
        if escapes(plain) != plain:
            return True
    return "\\u" in text and _CODE_POINT.search(text) is not None


def _is_misread(text: str) -> bool:
    return not text.isascii() and _DAMAGED_UTF8.search(text) is not None


def _excerpt(text: str) -> str:
    """Return the part of a text around its first damage."""
    match = re.search(r"&?#?\w{2,8};|<[/!\w][^<>]*>|\\u[0-9a-fA-F]{4}", text) or _DAMAGED_UTF8.search(text)
    return text[max(0, match.start() - 12) : match.end() + 12] if match else text[:24]


def duplicate_findings(
    texts: Sequence[str], labels: Sequence[str | None]
) -> tuple[list[Notice], list[DuplicateTexts], tuple[int, ...]]:
    """Report texts that occur more than once, ignoring case and white space: with one label, and with several.

    labels: the class of each row, or nothing. Returns the findings, the repeated texts, and the rows of texts with several labels.
    """
    rows_by_text = defaultdict(list)
    for row, text in enumerate(texts):
        if text.strip():
            rows_by_text[normalize_text(text)].append(row)
    repeated = [rows for rows in rows_by_text.values() if len(rows) > 1]
    labels_by_text = [[*dict.fromkeys(label for row in rows if labels and (label := labels[row]) is not None)] for rows in repeated]
    conflicts = tuple(sorted(row for rows, own in zip(repeated, labels_by_text, strict=True) if len(own) > 1 for row in rows))
    repeats = tuple(sorted(row for rows, own in zip(repeated, labels_by_text, strict=True) if len(own) < 2 for row in rows[1:]))
    findings = []
    if conflicts:
        different = sum(len(own) > 1 for own in labels_by_text)
        message = f"{count_of(different, 'text occurs', 'texts occur')} with different labels"
        findings.append(Notice(message, conflicts, "decide on one label for each text, or remove these rows", "warning"))
    if repeats:
        message = f"{count_of(len(repeats), 'row repeats', 'rows repeat')} the text of an earlier row"
        findings.append(Notice(message, repeats, "remove: a text in two splits inflates the score", "warning"))
    order = sorted(range(len(repeated)), key=lambda i: (-len(labels_by_text[i]), -len(repeated[i]), repeated[i]))[:MAX_DUPLICATES]
    listed = [DuplicateTexts(texts[repeated[i][0]], tuple(repeated[i]), tuple(labels_by_text[i])) for i in order]
    return findings, listed, conflicts


Labelled = tuple[Sequence[str], Sequence[str | None]]
"""Texts and their classes, which may be missing."""


def shared_findings(own: Labelled, other: Labelled, name: str) -> list[Notice]:
    """Report texts of a part that another has too, exactly or nearly. name: of the other part, such as training."""
    (texts, labels), (others, other_labels) = own, other
    places: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(others):
        if text.strip():
            places[normalize_text(text)].append(row)
    exact = tuple(row for row, text in enumerate(texts) if text.strip() and normalize_text(text) in places)
    near = [pair for pair in find_near_duplicates(sign(others), sign(texts)) if pair[0] not in {*exact}]
    findings = []
    fix = f"remove them here or from the {name} rows: the scores are too high"
    if exact:
        share = f"of the file's {len(texts):,} texts"
        message = f"{count_of(len(exact), f'{share} is', f'{share} are')} also among the {name} texts"
        if labels and other_labels:
            pairs = [(labels[row], {other_labels[i] for i in places[normalize_text(texts[row])]}) for row in exact]
            if another := sum(label is not None and label not in there for label, there in pairs):
                message += f", {another:,} with another label"
        findings.append(Notice(message, exact, fix, "warning"))
    if near:
        row, match = near[0]
        share = f"of the file's {len(texts):,} texts nearly"
        equal = count_of(len(near), f"{share} equals", f"{share} equal")
        message = f"{equal} {name} texts, such as row {row} and {name} row {match}"
        findings.append(Notice(message, tuple(row for row, _ in near), fix, "warning"))
    return findings


def _rows(chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())
