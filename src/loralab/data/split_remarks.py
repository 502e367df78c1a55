"""Remarks on the splits of a run: classes with few rows, and what two parts have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from loralab.data.columns import list_names
from loralab.data.group_split import shared_groups
from loralab.data.shared_texts import SharedTexts, find_shared_texts
from loralab.data.sources import missing_texts
from loralab.data.splits import Splits
from loralab.data.time_split import parse_times
from loralab.data.types import MAX_LISTED, Examples, Ints, count_of

MIN_PART_ROWS = 3
"""Fewer validation or test rows of a class are remarked on."""
_NAMES = {"train": "training", "validation": "validation", "test": "test"}
_PAIRS = (("train", "validation"), ("train", "test"), ("validation", "test"))
"""Parts that should have nothing in common."""


def split_remarks(splits: Splits) -> list[str]:
    """Report what was decided, classes with few rows, empty texts, and what two parts have in common."""
    remarks = [*splits.notices, *_rare_classes(splits)]
    parts = splits.parts()
    for part in ("train", "test"):
        if part in parts and (empty := missing_texts(parts[part])):
            name = _NAMES[part]
            remarks.append(f"{len(empty)} {name} rows have no text, such as row {empty[0]}; they are kept as empty texts")
    shared = find_shared_texts({name: parts[name].texts for name in _NAMES if name in parts}, _PAIRS)
    for first, second in _PAIRS:
        if first in parts and second in parts:
            remarks += _shared_texts(parts, shared[first, second], first, second)
            remarks += _given_parts(parts[first], parts[second], first, second)
    return remarks


def _rare_classes(splits: Splits) -> list[str]:
    """Report classes without a row, or with few, in a part whose scores depend on them."""
    counts = {name: np.bincount(rows.require_labels(), minlength=len(rows.classes)) for name, rows in splits.parts().items()}
    scored = [name for name in ("validation", "test") if name in counts]
    if not scored:
        return []
    indices = range(len(splits.classes))
    whole = [i for i in indices if not any(counts[name][i] for name in scored)]
    remarks = []
    if whole:
        listed = _list_counts(splits.classes, whole, [counts["train"]])
        remarks.append(f"classes with training rows only, which therefore have no scores: {listed} (training rows)")
    for name in scored:
        absent = [splits.classes[i] for i in indices if not counts[name][i] and i not in whole]
        if absent:
            classes = count_of(len(absent), "class", "classes")
            remarks.append(f"no {name} row of {classes}, which its macro F1 leaves out: {list_names(absent)}")
    few = [i for i in indices if i not in whole and min(counts[name][i] for name in scored) < MIN_PART_ROWS]
    if few:
        listed = _list_counts(splits.classes, few, [counts[name] for name in ("train", *scored)])
        columns = " + ".join(("training", *scored))
        remarks.append(f"classes with few {' or '.join(scored)} rows, whose scores are rough: {listed} ({columns} rows)")
    return remarks


def _list_counts(classes: Sequence[str], indices: Sequence[int], parts: Sequence[Ints]) -> str:
    """Return `spam 2 + 1 + 1, ham 3 + 1 + 1 and 3 more classes`: the rows of each part, the smallest class first."""
    ordered = sorted(indices, key=lambda i: sum(int(counts[i]) for counts in parts))
    shown = [f"{list_names([classes[i]])} {' + '.join(str(counts[i]) for counts in parts)}" for i in ordered[:MAX_LISTED]]
    return ", ".join(shown) + (f" and {len(indices) - MAX_LISTED} more classes" if len(indices) > MAX_LISTED else "")


def _shared_texts(parts: Mapping[str, Examples], shared: SharedTexts, first: str, second: str) -> list[str]:
    """Report texts that two parts share, exactly or nearly."""
    rows, others, (exact, near) = parts[second], parts[first], shared
    effect = f"{second} scores {'will' if first == 'train' else 'may'} be too high"
    remarks = []
    if exact:
        remarks.append(f"{exact} of {len(rows)} {second} texts are also {_NAMES[first]} texts: {effect}")
    if near:
        i, j = near[0]
        example = f"such as {second} row {rows.rows[i]} and {_NAMES[first]} row {others.rows[j]}"
        remarks.append(f"{len(near)} of {len(rows)} {second} texts nearly equal {_NAMES[first]} texts, {example}: {effect}")
    return remarks


def _given_parts(before: Examples, after: Examples, first: str, second: str) -> list[str]:
    """Report groups in two parts, and rows that are not later than the part before: files were given for these parts."""
    remarks = []
    groups, rows = shared_groups(before, after)
    if groups:
        remarks.append(f"{rows} {second} rows are of {groups} groups (data.group) that also have {_NAMES[first]} rows")
    if before.times is not None and after.times is not None:
        last = parse_times(before.times, before.rows.tolist())[0].max()
        early = int((parse_times(after.times, after.rows.tolist())[0] <= last).sum())
        if early:
            remarks.append(f"{early} of {len(after)} {second} rows are not later (data.time) than the last {_NAMES[first]} row")
    return remarks
