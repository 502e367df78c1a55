"""Data sources → labelled texts: named sources, files and folders, classes, and what is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, cast

import numpy as np

from loralab.config import DataConfig
from loralab.config.paths import local_path
from loralab.data.clean import replace_surrogates
from loralab.data.columns import Columns, LabelNeed, find_columns, resolve_names
from loralab.data.folders import AG_NEWS_CLASSES, Part, Parts, find_parts
from loralab.data.label_findings import several_in_one
from loralab.data.labels import (
    UNLABELLED,
    ClassTable,
    check_known,
    class_counts,
    class_indices,
    declared_numbers,
    find_classes,
    hide_unlabelled,
    label_texts,
    missing_text_words,
    missing_words,
    name_classes,
    other_spellings,
    row_classes,
)
from loralab.data.limits import MAX_TEXT
from loralab.data.readers import ARROW_FORMATS, PUBLISHED, class_file, open_table
from loralab.data.row_weights import parse_weights, weight_notice
from loralab.data.types import ColumnChunk, Examples, MemoryTable, Notice, TablePlace, count_of, list_rows
from loralab.errors import LoralabError
from loralab.storage.data_contract import DataContract


@dataclass(frozen=True)
class Source:
    """The labelled rows of a source, what a model must remember of them, and the decisions taken, by part."""

    train: Examples
    validation: Examples | None
    test: Examples | None
    columns: Columns
    classes: ClassTable
    contract: DataContract
    notices: Mapping[str, tuple[Notice, ...]]


@dataclass(frozen=True)
class RawExamples:
    """Texts and label values of a file. class_names: names that the file stores. facts: format, delimiter, header, encoding.

    weights: the column of data.weight and its values. sample: the first rows of all columns.
    """

    path: TablePlace
    texts: list[str]
    labels: list[object]
    class_names: tuple[str, ...]
    columns: Columns
    notices: tuple[Notice, ...] = ()
    facts: Mapping[str, Any] | None = None
    groups: list[object] | None = None
    times: list[object] | None = None
    weights: tuple[str, list[object]] | None = None
    sample: Mapping[str, Sequence[object]] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The label column in words, for messages."""
        return f"{self.path}, column {self.columns.label!r}"


ReadFile = Callable[[Part, DataConfig, DataContract | None, LabelNeed], "RawExamples"]
"""Reads a file or its shards, as `read_raw` does."""


def load_source(data: DataConfig, rows: Parts | None = None, read: ReadFile | None = None) -> Source:
    """Read `data.source` and the files of `data.validation` and `data.test`. The training rows decide the classes.

    rows: tables in memory in place of `data.source`. read: reads the files, such as one that has read them before. Rows without a
    label are left out, or refused with `data.strict`. A test file without any labels is not used. Raises LoralabError for missing
    files, columns or classes, with row numbers.
    """
    read = read or read_raw
    parts = rows or find_parts(data.source)
    raw = read(parts.train, data, None, "required")
    labels, table, notices = training_classes(raw, given_classes(data))
    if len(table.names) < 2:
        only = ", ".join(table.names) or "no label"
        raise LoralabError(f"{raw.path} has only one class ({only}): a classifier needs at least two")
    train, left_out = keep_labelled(raw, labels, table, data.strict)
    run = contract(raw, table, train)
    likely_mistakes = (*missing_text_words(raw.texts), *several_in_one(row_classes(labels, table)))
    collected = {"train": (*parts.notices, *raw.notices, *notices, *left_out, *likely_mistakes)}
    given: dict[str, Examples | None] = dict.fromkeys(("validation", "test"))
    known: dict[str, str] = {}
    for part, setting, own in (("validation", data.validation, parts.validation), ("test", data.test, parts.test)):
        files = part_files(setting, own)
        collected[part] = ()
        if files:
            asked = isinstance(setting, str)
            given[part], collected[part], numbers = _labelled_part(read(files, data, run, "named"), data, table, asked)
            known |= numbers
        if own and files != own:
            collected[part] += (Notice(f"{own[0]} is not used: data.{part}={setting}"),)
    if known:  # so that the run reads a later file that numbers its classes
        table = table.with_values(known)
        run = contract(raw, table, train)
    return Source(train, given["validation"], given["test"], raw.columns, table, run, collected)


def given_classes(data: DataConfig) -> Sequence[str]:
    """Return the class names that the settings or a named source give; empty if the file decides."""
    return data.classes or (AG_NEWS_CLASSES if data.source in ("sample", "ag_news") else ())


def part_files(setting: float | str | None, own: Part) -> Part:
    """Return the files of a part. setting: `data.validation` or `data.test`; own: the source's own files of the part."""
    return (local_path(setting),) if isinstance(setting, str) else own if setting is None else ()


def _labelled_part(
    raw: RawExamples, data: DataConfig, table: ClassTable, asked: bool
) -> tuple[Examples | None, tuple[Notice, ...], dict[str, str]]:
    """Return the labelled rows of a validation or test file, the decisions taken, and its numbers of classes by `data.classes`.

    A file without labels has no rows, or is refused if a setting asked for it.
    """
    path = raw.path
    labels, hidden, numbers = known_labels(raw, table, data.classes)
    if not any(label is not None for label in labels):
        reason = "all its labels are -1" if hidden else "no labels"
        if asked:
            raise LoralabError(
                f"{path} has {reason if not hidden else 'hidden labels, all -1'}: it can only be classified, with loralab predict"
            )
        held_out = "its rows are not used; rows of the training file are held out instead; classify it with loralab predict"
        return None, (Notice(f"{path}: {reason}: {held_out}", severity="warning"),), {}
    check_known(labels, table, raw.where)
    examples, left_out = keep_labelled(raw, labels, table, data.strict)
    notices = (*number_notices(numbers), *other_spellings(labels, table), *left_out, *missing_text_words(raw.texts))
    return examples, (*raw.notices, *notices), numbers


def read_examples(
    path: TablePlace, data: DataConfig, table: ClassTable, run: DataContract | None = None
) -> tuple[Examples, RawExamples]:
    """Read a labelled file with known classes: its labelled rows, and everything about the file.

    run: what a trained run knows. Raises LoralabError for a label that is no class, and for a file without labels.
    """
    raw = read_raw(path, data, run, need="required")
    labels, _, numbers = known_labels(raw, table, data.classes)
    if not any(label is not None for label in labels):
        raise LoralabError(f"{raw.where}: no row has a label")
    examples, left_out = keep_labelled(raw, labels, table, data.strict)
    return examples, replace(raw, notices=(*raw.notices, *number_notices(numbers), *other_spellings(labels, table), *left_out))


def known_labels(raw: RawExamples, table: ClassTable, classes: Sequence[str] = ()) -> tuple[list[str | None], int, dict[str, str]]:
    """Return the labels of a file with known classes as texts, how many are hidden, and its numbers of classes.

    Numbers become names where the file stores names, or where it numbers `classes`, whose order `data.classes` declares.
    """
    if raw.columns.label is None:
        return [None] * len(raw.texts), 0, {}
    labels, hidden = hide_unlabelled(label_texts(raw.labels, raw.where), table, named=bool(raw.class_names))
    labels = _own_names(labels, raw)
    numbers = declared_numbers(labels, classes, table, raw.where)
    return [label if label is None else numbers.get(label, label) for label in labels], hidden, numbers


def number_notices(numbers: Mapping[str, str]) -> list[Notice]:
    """Return a notice on numbers that were read as classes by the order of `data.classes`."""
    listed = ", ".join(f"{number} as {name!r}" for number, name in sorted(numbers.items()))
    return [Notice(f"numbers are read by the order of data.classes: {listed}")] if numbers else []


def _own_names(labels: Sequence[str | None], raw: RawExamples) -> list[str | None]:
    """Replace the numbers of a file that stores class names by these names."""
    names = raw.class_names
    if not names:
        return [*labels]
    # The published files count from 1; the ClassLabel columns of datasets count from 0.
    published = raw.columns.label == PUBLISHED[0] and not isinstance(raw.path, MemoryTable) and class_file(raw.path) == names
    numbers = {str(i + (published and "0" not in labels)): name for i, name in enumerate(names)}
    # Whole numbers of a ClassLabel are indices, even if the names are numbers too; a pickled categorical has the names as values.
    indices = (raw.facts or {}).get("format") in ARROW_FORMATS and all(value is None or type(value) is int for value in raw.labels)
    own = () if indices else names
    return [numbers.get(label, label) if label is not None and label not in own else label for label in labels]


def training_classes(raw: RawExamples, names: Sequence[str] = ()) -> tuple[list[str | None], ClassTable, list[Notice]]:
    """Return the labels of a training file, its classes and the decisions taken. names: the class names in order, if known."""
    labels, hidden = hide_unlabelled(label_texts(raw.labels, raw.where), None, named=bool(raw.class_names))
    notices = missing_words(labels) if not raw.class_names and not names else []
    if hidden:
        notices.append(Notice(f"{hidden} rows have the label -1, which hides the label"))
    named = _own_names(labels, raw)
    if names or raw.class_names:
        table, dropped = name_classes(named, names or raw.class_names, raw.where)
        notices += dropped
    else:
        table, merged = find_classes(named)
        notices += merged
    values = [dict.fromkeys((*_numbers_of(labels, named, table, i), *own)) for i, own in enumerate(table.values)]
    return named, ClassTable(table.names, tuple(map(tuple, values))), notices


def _numbers_of(labels: Sequence[str | None], named: Sequence[str | None], table: ClassTable, index: int) -> list[str]:
    """Return the label values that the file's own names replaced, of one class."""
    if labels == named:
        return []
    pairs = {(label, name) for label, name in zip(labels, named, strict=True) if label is not None and name is not None}
    return sorted(label for label, name in pairs if table.match(name) == index and label not in table.names)


def keep_labelled(
    raw: RawExamples, labels: Sequence[str | None], table: ClassTable, strict: bool
) -> tuple[Examples, tuple[Notice, ...]]:
    """Return the rows with a label, and notices on the others and on row weights.

    Raises LoralabError for rows without a label if `strict`, and for invalid weights of the others.
    """
    indices = class_indices(labels, table, raw.where)
    rows = np.arange(len(raw.texts))
    examples = Examples(raw.texts, indices, rows, table.names, raw.groups, raw.times)
    missing = np.flatnonzero(indices == UNLABELLED).tolist()
    if missing and strict:
        raise LoralabError(f"{raw.where}: {list_rows(missing)} have no label (data.strict=true): fill them in or remove the rows")
    examples, notices = examples.take(np.flatnonzero(indices != UNLABELLED)) if missing else examples, unlabelled_notices(labels)
    if raw.weights is None:
        return examples, notices
    column, values = raw.weights
    where = f"{raw.path}, column {column!r} (data.weight)"
    weights = parse_weights([values[row] for row in examples.rows], examples.rows.tolist(), where)
    return replace(examples, weights=weights), (*notices, weight_notice(column, weights))


def unlabelled_notices(labels: Sequence[str | None]) -> tuple[Notice, ...]:
    """Return a notice on rows without a label, if there are some."""
    if None not in labels:
        return ()
    missing = tuple(row for row, label in enumerate(labels) if label is None)
    total = count_of(len(labels), "row")
    message = count_of(len(missing), f"of {total} has no label and is left out", f"of {total} have no label and are left out")
    return (Notice(message, missing, "data.strict=true refuses them", "warning"),)


def contract(raw: RawExamples, table: ClassTable, train: Examples | None = None) -> DataContract:
    """Return what a model trained on a file remembers of it. train: its labelled rows."""
    columns, values = raw.columns, {name: tuple(own) for name, own in table.as_dict().items()}
    rows = None if train is None else class_counts(train.require_labels(), table.names)
    facts = {key: (raw.facts or {}).get(key) for key in _FACTS}
    return DataContract(columns.text, columns.label, columns.id, values, rows=rows, **facts)


_FACTS = ("format", "delimiter", "encoding", "header")


def read_raw(files: TablePlace | Part, data: DataConfig, run: DataContract | None = None, need: LabelNeed = "named") -> RawExamples:
    """Read the text and label columns of a file, or of several shards in order.

    Raises LoralabError for a file without rows or without these columns.

    run: what a trained run knows of its columns.
    """
    texts: list[str] = []
    labels: list[object] = []
    extra: dict[str, tuple[str, list[object]]] = {}
    columns: Columns | None = None
    names: tuple[str, ...] = ()
    sample: Mapping[str, Sequence[object]] = {}
    shards = files if isinstance(files, tuple) else (files,)
    tables = [open_table(shard, data, known_columns(run)) for shard in shards]
    path, table = shards[0], tables[0]
    for chunk in chain.from_iterable(shard.chunks for shard in tables):
        if columns is None:
            columns, notices = find_columns(chunk.columns, path, data, run=run_columns(run), labels=need)
            extra, lacking = _split_columns([*chunk.columns], path, data, optional=run is not None)
            notices += lacking
            sample = chunk.columns
        rows = chunk.rows
        texts += chunk_texts(chunk, columns, path)
        if columns.label is not None:
            labels += chunk.columns.get(columns.label, [None] * rows)
            names = names or chunk.class_names.get(columns.label, ())
        for name, values in extra.values():
            values += chunk.columns.get(name, [None] * rows)
    if columns is None or not texts:
        raise LoralabError(f"{path} has no rows")
    if columns.label == PUBLISHED[0] and not names:
        names = () if isinstance(path, MemoryTable) else class_file(path) or ()
    shard_notices = tuple(dict.fromkeys(notice for shard in tables for notice in shard.notices))
    if len(shards) > 1:
        shard_notices = (Notice(f"{len(shards)} files are read in order, from {path.name} to {shards[-1].name}"), *shard_notices)
    facts = {"format": table.format, **table.facts}
    groups, times = (extra[setting][1] if setting in extra else None for setting in ("group", "time"))
    notices = [*shard_notices, *notices]
    return RawExamples(path, texts, labels, names, columns, (*notices,), facts, groups, times, extra.get("weight"), sample=sample)


def _split_columns(
    names: Sequence[str], path: TablePlace, data: DataConfig, optional: bool
) -> tuple[dict[str, tuple[str, list[object]]], list[Notice]]:
    """Return (column, no values yet) of data.group, data.time and data.weight by setting.

    optional: a file of test rows may lack the first two; its rows are not weighted.
    """
    columns: dict[str, tuple[str, list[object]]] = {}
    notices = []
    for setting, wanted in (("group", data.group), ("time", data.time), ("weight", data.weight)):
        if wanted is None or (optional and setting == "weight"):
            continue
        if optional and not {wanted, wanted.strip()} & {*names}:
            lacking = f"{path} has no column {wanted!r} (data.{setting}): its rows are not compared with the training rows in this"
            notices.append(Notice(lacking))
            continue
        resolved = resolve_names((wanted,), names, path, setting)
        if len(resolved) > 1:
            raise LoralabError(f"data.{setting}={wanted} names {len(resolved)} columns of {path}; it takes one")
        columns[setting] = resolved[0], []
    return columns, notices


def known_columns(run: DataContract | None) -> tuple[str, ...]:
    """Return the column names that a run knows."""
    return () if run is None else tuple(filter(None, (*run.text, run.label, run.id)))


def run_columns(run: DataContract | None) -> Columns | None:
    """Return the columns of a run's training file."""
    return None if run is None or not run.text else Columns(run.text, run.label, run.id)


def missing_texts(examples: Examples) -> list[int]:
    """Return the row numbers of empty and blank texts."""
    return [int(row) for row, text in zip(examples.rows, examples.texts, strict=True) if not text.strip()]


def chunk_texts(chunk: ColumnChunk, columns: Columns, path: TablePlace) -> list[str]:
    """Return the texts of a chunk: a text column, or several joined by spaces. Raises LoralabError for other values than texts."""
    parts = []
    for name in columns.text:
        values = chunk.columns.get(name, [None] * chunk.rows)
        if (texts := _as_texts(values)) is not None:
            parts.append(texts)
            continue
        if invalid := next((value for value in values if isinstance(value, (list, tuple, dict, bytes))), None):
            raise LoralabError(f"{path}: text column {name!r} holds a {type(invalid).__name__}, {str(invalid)[:60]!r}, not texts")
        parts.append([_text(value) for value in values])
    texts = parts[0] if len(parts) == 1 else [" ".join(filter(None, row)) for row in zip(*parts, strict=True)]
    if max(map(len, texts), default=0) > MAX_TEXT:
        raise LoralabError(f"{path} has a text of {max(map(len, texts)):,} characters; cut texts to at most {MAX_TEXT:,}")
    return texts


def _as_texts(values: Sequence[object]) -> list[str] | None:
    """Return the values if all are valid Unicode texts, which reading one by one would not change."""
    if not {*map(type, values)} <= {str}:
        return None
    texts = cast("list[str]", values)
    try:
        for text in texts:
            if not text.isascii():
                text.encode()
    except UnicodeEncodeError:
        return None
    return texts


def _text(value: object) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else replace_surrogates(str(value))
