"""Which columns of a file hold texts, labels and ids: as the user says, as the run knows, by name, or by content."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from loralab.config import DataConfig
from loralab.data.types import MAX_LISTED, Notice, TablePlace
from loralab.errors import LoralabError, suggest

TEXT_NAMES = (
    "text",
    "texts",
    "sentence",
    "content",
    "review",
    "body",
    "comment",
    "message",
    "headline",
    "title",
    "description",
    "tweet",
)
LABEL_NAMES = ("label", "labels", "class", "category", "target", "topic", "sentiment", "stars", "rating", "intent", "y")
ID_NAMES = ("id", "idx", "index", "uid", "guid")
USUAL_NAMES = frozenset((*TEXT_NAMES, *LABEL_NAMES, *ID_NAMES))
LabelNeed = Literal["required", "wanted", "named"]
MAX_LABEL_CHARACTERS = 60
MIN_LABEL_ROWS = 4
"""Fewer rows do not show which column holds labels."""


@dataclass(frozen=True)
class Columns:
    """The text columns, the label column and the id column of a file; None for a column that it does not have."""

    text: tuple[str, ...]
    label: str | None
    id: str | None = None

    def __str__(self) -> str:
        parts = {"text": " + ".join(self.text), "label": self.label, "id": self.id}
        return ", ".join(f"{part}: {name}" for part, name in parts.items() if name)


def find_columns(
    values: Mapping[str, Sequence[object]],
    path: TablePlace,
    data: DataConfig,
    *,
    run: Columns | None = None,
    labels: LabelNeed = "named",
) -> tuple[Columns, list[Notice]]:
    """Return the columns of a file and the decisions taken.

    values: the first rows by column. data: `data.text`, `data.label` and `data.id` come first; they must exist, the label only if
    `labels` is not "named". run: the columns that a trained run knows, taken where the file has them. Columns that nobody names are
    found by usual names, or by content if only one can be meant. labels: "required", "wanted" (found by content too, but None is
    fine), or "named" (never found by content). Raises LoralabError for columns that are not clear, with the settings to write.
    """
    names, notices = [*values], list[Notice]()
    text = resolve_names(data.text, names, path, "text")
    label = None
    if data.label and (labels != "named" or data.label in names):
        label = _resolve_name(data.label, names, path, "label")
    if run is not None:
        text, label = text or _same_names(run.text, names), label or (_same_names((run.label or "",), names) or (None,))[0]
    label = label or _by_name([name for name in names if name not in text], LABEL_NAMES)
    text = text or _text_by_name([name for name in names if name != label])
    if not text:
        candidates = text_candidates({name: values[name] for name in names if name != label})
        text = (candidates[0],) if len(candidates) == 1 else ()
        if text:
            notices.append(_detected("texts are", text[0], "its length", "text"))
    if label is None and text and labels != "named":
        likely = label_candidates({name: values[name] for name in names if name not in text})
        label = likely[0] if len(likely) == 1 else None
        if label is not None:
            notices.append(_detected("labels are", label, f"its {len({*map(str, values[label])})} values", "label"))
    if not text or (labels == "required" and label is None):
        raise LoralabError(_unclear(values, path, text, label, labels == "required"))
    if run is not None and not data.text and text != _same_names(run.text, names):
        reading = f"column {' + '.join(text)!r} is read: the file has no column {' + '.join(run.text)!r}, as in training"
        notices.append(Notice(reading, fix="data.text=NAME reads another column", severity="warning"))
    if data.id:
        identity: str | None = _resolve_name(data.id, names, path, "id")
    else:
        same = _same_names((run.id,), names) if run is not None and run.id else ()
        identity = same[0] if same and same[0] not in (*text, label) else find_id(names, (*text, label))
    return Columns(text, label, identity), notices


def _detected(kind: str, name: str, reason: str, setting: str) -> Notice:
    return Notice(f"the {kind} in column {name!r}, by {reason}", fix=f"data.{setting}=NAME reads another column")


def _resolve_name(wanted: str, names: Sequence[str], path: TablePlace, setting: str) -> str:
    """Return the one column that a setting names: the exact name first, then without outer spaces."""
    for name in (wanted, wanted.strip()):
        if name in names:
            return name
    raise LoralabError(f"{path} has no column {wanted!r} (data.{setting}){suggest(wanted, names)}; columns: {list_names(names)}")


def resolve_names(wanted: Sequence[str] | None, names: Sequence[str], path: TablePlace, setting: str) -> tuple[str, ...]:
    """Return the columns that a setting names: the exact name first, then without outer spaces, then divided at commas."""
    resolved: list[str] = []
    for name in wanted or ():
        parts = [name] if name in names or name.strip() in names else [part.strip() for part in name.split(",") if part.strip()]
        for part in parts:
            column = next((column for column in (part, part.strip()) if column in names), None)
            if column is None:
                hint = suggest(part, names)
                if (bracketed := f"[{part}]") in names:  # the settings read brackets as a list
                    setting_text = shlex.quote(f"data.{setting}='{bracketed}'")
                    hint = f"; for the column {bracketed!r}, write {setting_text}"
                raise LoralabError(f"{path} has no column {part!r} (data.{setting}){hint}; columns: {list_names(names)}")
            resolved.append(column)
    return tuple(resolved)


def list_names(names: Sequence[str]) -> str:
    """Return column or class names for a message, quoted where they hold a comma or a space, at most eight."""
    shown = ", ".join(repr(name) if not name or set(name) & set(", ;") else name for name in names[:MAX_LISTED])
    return shown + (f" and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else "")


def find_id(names: Sequence[str], taken: Sequence[str | None] = ()) -> str | None:
    """Return the column of row ids by its name: id, index, or one that ends in _id."""
    free = [name for name in names if name not in taken]
    return _by_name(free, ID_NAMES) or next(
        (name for name in free if name.casefold().endswith(("_id", " id")) or name.endswith("Id")), None
    )


def label_candidates(values: Mapping[str, Sequence[object]]) -> list[str]:
    """Return the columns of few, short and repeated values."""
    return [name for name, column in values.items() if _may_be_label([str(value) for value in column if value not in (None, "")])]


def _may_be_label(column: Sequence[str]) -> bool:
    distinct = set(column)
    few = 2 <= len(distinct) <= max(2, len(column) // 2)
    return len(column) >= MIN_LABEL_ROWS and few and max(map(len, distinct)) <= MAX_LABEL_CHARACTERS


def text_candidates(values: Mapping[str, Sequence[object]]) -> list[str]:
    """Return the columns that may hold the texts, longest first: one alone if it is at least twice as long as the next."""
    means = {name: _mean_length(column) for name, column in values.items()}
    order = sorted((name for name in means if means[name] > 0), key=lambda name: -means[name])
    if len(order) > 1 and means[order[0]] >= 2 * means[order[1]] and means[order[0]] > 4:
        return order[:1]
    return order


def _mean_length(column: Sequence[object]) -> float:
    """Return the mean number of characters of texts; 0 for a column of numbers or of other objects."""
    texts = [value for value in column if isinstance(value, str) and value.strip()]
    if not texts or all(text.strip().replace(".", "", 1).removeprefix("-").isdecimal() for text in texts):
        return 0.0
    return sum(map(len, texts)) / len(texts)


def _same_names(wanted: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of these names, which may differ in case or outer spaces; () if one is missing or not unique."""
    columns = []
    for name in wanted:
        same = [name] if name in names else [other for other in names if other.strip().casefold() == name.strip().casefold()]
        if len(same) != 1:
            return ()
        columns += same
    return tuple(columns)


def _by_name(names: Sequence[str], usual: Sequence[str]) -> str | None:
    return next((name for known in usual for name in names if name.strip().casefold() == known), None)


def _text_by_name(candidates: Sequence[str]) -> tuple[str, ...]:
    """Return title and body, the first usual name of a text column, or the only column; else ()."""
    by_name = {name.strip().casefold(): name for name in reversed(candidates)}  # of two spellings the first
    if "title" in by_name and (body := next((b for b in ("description", "body", "text", "content") if b in by_name), None)):
        return by_name["title"], by_name[body]
    usual = [by_name[name] for name in TEXT_NAMES if name in by_name]
    return (usual[0],) if usual else tuple(candidates) if len(candidates) == 1 else ()


def _unclear(
    values: Mapping[str, Sequence[object]], path: TablePlace, text: tuple[str, ...], label: str | None, need_labels: bool
) -> str:
    """Return the message for columns that are not clear: what the file has, and settings that probably name them."""
    names = [*values]
    rest = {name: column for name, column in values.items() if name not in text and name != label}
    texts = text or tuple((text_candidates({name: rest[name] for name in rest if name != find_id(names)}) or names)[:1])
    labels = [name for name in label_candidates(rest) if name not in texts]
    missing = [kind for kind, absent in (("text", not text), ("label", need_labels and label is None)) if absent]
    example = {"text": texts[0], "label": labels[0] if labels else next((n for n in reversed(names) if n not in texts), names[-1])}
    if missing == ["label"] and not labels:
        return f"{path} has no label column that can be told from its columns {list_names(names)}: name it with data.label=COLUMN"
    settings = " ".join(f"data.{kind}={shlex.quote(example[kind])}" for kind in missing)
    message = f"{path} has columns {list_names(names)}: name the {' and the '.join(missing)} column, for example {settings}"
    flags = [name for name in labels if {str(value).strip() for value in values[name]} <= {"0", "1", "True", "False"}]
    if need_labels and label is None and len(flags) > 1:
        message += f"\n  {list_names(flags)} are all 0 or 1, so a text may have several labels: loralab learns one column"
    return message
