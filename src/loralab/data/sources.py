"""Sources → Examples: which columns hold texts and labels, what the classes are called, which parts a source has."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from loralab.data.clean import replace_surrogates
from loralab.data.readers import PUBLISHED, class_file, read_chunks
from loralab.data.safe_pickle import Table
from loralab.data.types import Examples, Ints
from loralab.errors import LoralabError, nearest

AG_NEWS_CLASSES = ("World", "Sports", "Business", "Sci/Tech")
AG_NEWS_HUB = ("fancyzhx/ag_news", {"train": "data/train-00000-of-00001.parquet", "test": "data/test-00000-of-00001.parquet"})
_TEXT_NAMES = ("text", "sentence", "content", "review", "body", "comment", "message", "headline", "title", "description", "tweet")
_LABEL_NAMES = ("label", "labels", "class", "category", "target", "topic", "sentiment", "stars", "rating", "y")
_PARTS = (".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz")
_SHOWN = 8


@dataclass(frozen=True)
class Columns:
    """The columns a file's texts and labels are read from. `label` is None where there is none."""

    text: tuple[str, ...]
    label: str | None


@dataclass(frozen=True)
class Source:
    """What a source holds: training rows, test rows where it has its own, the columns used."""

    train: Examples
    test: Examples | None
    columns: Columns


def load_source(source: str, *, text: Sequence[str] | None = None, label: str | None = None, classes: Sequence[str] = ()) -> Source:
    """Read `sample`, `ag_news`, a file, or a folder with train and test parts.

    text, label: columns, guessed when None. classes: names of the classes in order, for files that number them.
    Raises LoralabError for anything missing or unlabelled, with row numbers.
    """
    train_path, test_path = find_parts(source)
    known = AG_NEWS_CLASSES if source in ("sample", "ag_news") else tuple(classes)
    train, columns = read_examples(train_path, text=text, label=label, classes=known, need_labels=True)
    if len(train.classes) < 2:
        raise LoralabError(f"{source} has one class only ({', '.join(train.classes)}): a classifier needs two or more")
    test = None
    if test_path is not None:
        test, _ = read_examples(test_path, text=text, label=label, classes=train.classes, need_labels=True)
    return Source(train, test, columns)


def read_examples(
    path: Path,
    *,
    text: Sequence[str] | None = None,
    label: str | None = None,
    classes: Sequence[str] = (),
    need_labels: bool = False,
) -> tuple[Examples, Columns]:
    """Read a whole file. With `classes` given, labels must be theirs, by name or by number (from 0, or from 1).

    Without labels in the file, `labels` is None, or with `need_labels` an error. A missing text becomes an empty one.
    """
    raw = read_raw(path, text=text, label=label, need_labels=need_labels)
    if raw.columns.label is not None and classes and not raw.names:
        _refuse_ambiguous(raw, classes, path)
    rows = np.arange(len(raw.texts))
    if raw.columns.label is None:
        return Examples(raw.texts, None, rows, tuple(classes)), raw.columns
    labels, found = read_labels(raw.values, raw.names or tuple(classes), path, raw.columns.label)
    if classes and tuple(classes) != found:
        labels, found = _rename(labels, found, tuple(classes), path), tuple(classes)
    return Examples(raw.texts, labels, rows, found), raw.columns


@dataclass(frozen=True)
class Raw:
    """A file's texts and label values before they are interpreted. `names` are class names the file brings along, or ()."""

    texts: list[str]
    values: list[object]
    names: tuple[str, ...]
    columns: Columns


def read_raw(path: Path, *, text: Sequence[str] | None = None, label: str | None = None, need_labels: bool = False) -> Raw:
    """Read a file's text and label columns. Raises LoralabError when there are no rows or the columns are not found."""
    texts: list[str] = []
    values: list[object] = []
    columns: Columns | None = None
    names: tuple[str, ...] = ()
    for chunk in read_chunks(path):
        columns = columns or find_columns(chunk, path, text, label, need_labels)
        texts += _texts(chunk, columns, path)
        if columns.label is not None:
            values += chunk.columns[columns.label]
            names = names or chunk.class_names.get(columns.label, ())
    if columns is None or not texts:
        raise LoralabError(f"{path} has no rows")
    if columns.label == PUBLISHED[0] and not names:
        names = class_file(path) or ()
    return Raw(texts, values, names, columns)


def stream_texts(path: Path, text: Sequence[str] | None = None) -> Iterator[list[str]]:
    """Yield the texts of a file of any size, chunk by chunk, in order."""
    columns: Columns | None = None
    for chunk in read_chunks(path):
        columns = columns or find_columns(chunk, path, text, None, need_labels=False)
        yield _texts(chunk, columns, path)


def find_columns(chunk: Table, path: Path, text: Sequence[str] | None, label: str | None, need_labels: bool) -> Columns:
    """Choose the columns as told, or by their names. Raises LoralabError when that leaves a doubt."""
    have = list(chunk.columns)
    for wanted in (*(text or ()), *((label,) if label and need_labels else ())):
        if wanted not in have:
            raise LoralabError(f"{path} has no column {wanted!r}{nearest(wanted, have)}; columns: {', '.join(have)}")
    found_label = label if label in have else next((n for name in _LABEL_NAMES for n in have if n.lower() == name), None)
    found_text = tuple(text or ())
    if not found_text:
        by_name = {name.lower(): name for name in have if name != found_label}
        if "title" in by_name and (body := next((b for b in ("description", "body", "text", "content") if b in by_name), None)):
            found_text = (by_name["title"], by_name[body])
        else:
            others = [name for name in have if name != found_label]
            named = [by_name[name] for name in _TEXT_NAMES if name in by_name]
            found_text = (named[0],) if named else (others[0],) if len(others) == 1 else ()
    wanted = [("text", not found_text, have[0]), ("label", need_labels and found_label is None, have[-1])]
    if missing := [(kind, column) for kind, absent, column in wanted if absent]:
        kinds = " and a ".join(kind for kind, _ in missing)
        example = " ".join(f"data.{kind}={column}" for kind, column in missing)
        raise LoralabError(f"{path} has columns {', '.join(have)}; which is a {kinds} column? Say it, such as: {example}")
    return Columns(found_text, found_label)


def read_labels(values: Sequence[object], names: tuple[str, ...], path: Path, column: str) -> tuple[Ints, tuple[str, ...]]:
    """Turn label values into indices and class names.

    values: names, or whole numbers as int, float or text. names: the classes, where known; then numbers count from 0, or from 1
    when the largest is the number of classes. Unknown names are collected and sorted, numbers sorted by value.
    """
    keys = [label_key(value) for value in values]
    if missing := [row for row, key in enumerate(keys) if key is None]:
        raise LoralabError(f"{path}: no label in column {column!r} of {list_rows(missing)}: fill them in or remove the rows")
    present = {str(key) for key in keys}
    names = names or class_names(present)
    # The published layout counts from 1, also where a part lacks the last class.
    published = column == PUBLISHED[0] and "0" not in present and class_file(path) == names
    index = class_numbers(present, names, published)
    if unknown := [row for row, key in enumerate(keys) if key not in index]:
        label = str(keys[unknown[0]])
        raise LoralabError(
            f"{path}: label {label!r} in {list_rows(unknown)} is not a class{nearest(label, names)}; classes: {', '.join(names)}"
        )
    return np.array([index[str(key)] for key in keys], dtype=np.int64), names


def class_numbers(present: Collection[str], names: Sequence[str], from_one: bool = False) -> dict[str, int]:
    """Return the index of each label value: by name, or by number, from 0, or from 1 when the largest is the number of classes."""
    if not set(present) <= set(names) and all(map(_is_number, present)):
        first = 1 if from_one or max(map(int, present)) == len(names) else 0
        return {str(i + first): i for i in range(len(names))}
    return {name: i for i, name in enumerate(names)}


def _refuse_ambiguous(raw: Raw, classes: Sequence[str], path: Path) -> None:
    """Raise LoralabError for numbers that hold neither 0 nor the number of classes: they could count from 0 or from 1."""
    present = {key for key in map(label_key, raw.values) if key is not None}
    if present and not present <= set(classes) and all(map(_is_number, present)):
        numbers = sorted(map(int, present))
        if numbers[0] > 0 and numbers[-1] < len(classes):
            raise LoralabError(
                f"{path}: labels {', '.join(map(str, numbers))} of {len(classes)} classes could count from 0 or from 1: "
                f"write the class names into column {raw.columns.label!r}"
            )


def class_names(present: Iterable[str]) -> tuple[str, ...]:
    """Order label values that have no names of their own: numbers by value, names by alphabet."""
    numeric = all(map(_is_number, present))
    return tuple(sorted(present, key=int if numeric else str))


def missing_texts(examples: Examples) -> list[int]:
    """Row numbers of texts that are empty or only spaces."""
    return [int(row) for row, text in zip(examples.rows, examples.texts, strict=True) if not text.strip()]


def find_parts(source: str) -> tuple[Path, Path | None]:
    """The files of a source's training rows and, where it has them, test rows."""
    if source == "sample":
        folder = Path(str(resources.files("loralab.data") / "sample"))
        return folder / "train.csv", folder / "test.csv"
    if source == "ag_news":
        return _fetch_ag_news("train"), _fetch_ag_news("test")
    path = Path(source)
    if not path.exists():
        raise LoralabError(f"data.source: there is no file or folder {source!r}, nor a named source; named: sample, ag_news")
    if path.is_dir() and not (path / "state.json").is_file():
        train, test = (_part(path, name) for name in ("train", "test"))
        if train is None:
            raise LoralabError(
                f"{source} has no training part: loralab looks for train.csv, .jsonl, .parquet or a saved dataset's train folder"
            )
        return train, test
    return path, None


def _part(folder: Path, name: str) -> Path | None:
    candidates = [folder / f"{name}{ending}" for ending in _PARTS]
    saved = folder / name
    return saved if (saved / "state.json").is_file() else next((path for path in candidates if path.is_file()), None)


def _fetch_ag_news(part: str) -> Path:
    """The hub's file of one part: from the local cache if it is there, else from the hub."""
    from huggingface_hub import snapshot_download

    repository, files = AG_NEWS_HUB
    wanted: dict[str, Any] = {"repo_type": "dataset", "allow_patterns": list(files.values())}
    try:
        try:
            path = Path(snapshot_download(repository, local_files_only=True, **wanted)) / files[part]
            if path.is_file():
                return path
        except OSError:
            pass  # not in the cache: ask the hub
        return Path(snapshot_download(repository, **wanted)) / files[part]
    except Exception as error:  # the hub's client raises errors of several libraries when there is no network
        raise LoralabError(
            f"data.source=ag_news is not on this disk and the hub did not answer ({type(error).__name__}).\n"
            f"  Give a folder with the published train.csv, test.csv and classes.txt: data.source=FOLDER,\n"
            f"  or use the data that is always here: data.source=sample"
        ) from error


def _texts(chunk: Table, columns: Columns, path: Path) -> list[str]:
    parts = []
    for name in columns.text:
        values = chunk.columns[name]
        if odd := next((value for value in values if isinstance(value, (list, tuple, dict, bytes))), None):
            raise LoralabError(f"{path}: text column {name!r} holds a {type(odd).__name__}, {str(odd)[:60]!r}, not texts")
        parts.append([_text(value) for value in values])
    return parts[0] if len(parts) == 1 else [" ".join(filter(None, row)) for row in zip(*parts, strict=True)]


def _text(value: object) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else replace_surrogates(str(value))


def label_key(value: Any) -> str | None:
    """The label as text: 3, 3.0 and "3" are one label; None where there is none."""
    if isinstance(value, float):
        return None if math.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    text = "" if value is None else replace_surrogates(str(value)).strip()
    whole = text.removesuffix(".0")  # as pandas writes whole numbers of a column with gaps
    return (whole if _is_number(whole) else text) or None


def _is_number(key: str) -> bool:
    return key.removeprefix("-").isdecimal() and len(key) < 10


def _rename(labels: Ints, found: tuple[str, ...], classes: tuple[str, ...], path: Path) -> Ints:
    """Map labels of a file with its own class names onto the classes already known."""
    if unknown := sorted(set(found) - set(classes)):
        raise LoralabError(
            f"{path}: class {unknown[0]!r} is not among the known ones{nearest(unknown[0], classes)}: {', '.join(classes)}"
        )
    order = np.array([classes.index(name) for name in found], dtype=np.int64)
    return order[labels]


def list_rows(rows: Sequence[int]) -> str:
    shown = ", ".join(map(str, rows[:_SHOWN]))
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return f"row {shown}" if len(rows) == 1 else f"rows {shown}{more}"
