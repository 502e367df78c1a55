"""Data sources → labelled texts: files and named sources, text and label columns, class names."""

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
from loralab.data.types import ColumnChunk, Examples, Ints
from loralab.errors import LoralabError, suggest

AG_NEWS_CLASSES = ("World", "Sports", "Business", "Sci/Tech")
AG_NEWS_HUB = ("fancyzhx/ag_news", {"train": "data/train-00000-of-00001.parquet", "test": "data/test-00000-of-00001.parquet"})
_TEXT_NAMES = ("text", "sentence", "content", "review", "body", "comment", "message", "headline", "title", "description", "tweet")
_LABEL_NAMES = ("label", "labels", "class", "category", "target", "topic", "sentiment", "stars", "rating", "y")
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz")
_MAX_LISTED = 8


@dataclass(frozen=True)
class Columns:
    """The text columns and the label column of a file. `label` is None for a file without labels."""

    text: tuple[str, ...]
    label: str | None


@dataclass(frozen=True)
class Source:
    """Training rows, test rows if the source has them, and the columns used."""

    train: Examples
    test: Examples | None
    columns: Columns


def load_source(source: str, *, text: Sequence[str] | None = None, label: str | None = None, classes: Sequence[str] = ()) -> Source:
    """Read `sample`, `ag_news`, a file, or a folder with train and test files.

    text, label: columns, detected by default. classes: class names in order, for files with numbered labels.
    Raises LoralabError for missing files, columns or labels, with row numbers.
    """
    train_path, test_path = find_parts(source)
    known = AG_NEWS_CLASSES if source in ("sample", "ag_news") else tuple(classes)
    train, columns = read_examples(train_path, text=text, label=label, classes=known, need_labels=True)
    if len(train.classes) < 2:
        raise LoralabError(f"{source} has only one class ({', '.join(train.classes)}): a classifier needs at least two")
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
    """Read a whole file. Labels must be names of `classes`, if given, or their numbers (from 0 or from 1).

    In a file without labels `labels` is None, or with `need_labels` an error. A missing text becomes an empty text.
    """
    raw = read_raw(path, text=text, label=label, need_labels=need_labels)
    if raw.columns.label is not None and classes and not raw.class_names:
        _refuse_ambiguous_numbers(raw, classes, path)
    rows = np.arange(len(raw.texts))
    if raw.columns.label is None:
        return Examples(raw.texts, None, rows, tuple(classes)), raw.columns
    labels, names = read_labels(raw.labels, raw.class_names or tuple(classes), path, raw.columns.label)
    if classes and tuple(classes) != names:
        labels, names = _map_classes(labels, names, tuple(classes), path), tuple(classes)
    return Examples(raw.texts, labels, rows, names), raw.columns


@dataclass(frozen=True)
class RawExamples:
    """Texts and uninterpreted label values of a file. class_names: names stored in the file, or ()."""

    texts: list[str]
    labels: list[object]
    class_names: tuple[str, ...]
    columns: Columns


def read_raw(path: Path, *, text: Sequence[str] | None = None, label: str | None = None, need_labels: bool = False) -> RawExamples:
    """Read the text and label columns of a file. Raises LoralabError for a file without rows or without these columns."""
    texts: list[str] = []
    labels: list[object] = []
    columns: Columns | None = None
    names: tuple[str, ...] = ()
    for chunk in read_chunks(path):
        columns = columns or find_columns(chunk, path, text, label, need_labels)
        texts += _texts(chunk, columns, path)
        if columns.label is not None:
            labels += chunk.columns[columns.label]
            names = names or chunk.class_names.get(columns.label, ())
    if columns is None or not texts:
        raise LoralabError(f"{path} has no rows")
    if columns.label == PUBLISHED[0] and not names:
        names = class_file(path) or ()
    return RawExamples(texts, labels, names, columns)


def stream_texts(path: Path, text: Sequence[str] | None = None) -> Iterator[list[str]]:
    """Yield the texts of a file of any size in chunks, in order."""
    columns: Columns | None = None
    for chunk in read_chunks(path):
        columns = columns or find_columns(chunk, path, text, None, need_labels=False)
        yield _texts(chunk, columns, path)


def find_columns(chunk: ColumnChunk, path: Path, text: Sequence[str] | None, label: str | None, need_labels: bool) -> Columns:
    """Return the named columns, or detect them by name. Raises LoralabError if a column is missing or the choice is ambiguous."""
    names = list(chunk.columns)
    text = tuple(name if name in names else name.strip() for name in text or () if name in names or name.strip())
    for wanted in (*text, *((label,) if label and need_labels else ())):
        if wanted not in names:
            raise LoralabError(f"{path} has no column {wanted!r}{suggest(wanted, names)}; columns: {', '.join(names)}")
    if label not in names:
        label = next((name for known in _LABEL_NAMES for name in names if name.lower() == known), None)
    text = text or _detect_text([name for name in names if name != label])
    wanted_columns = [("text", not text, names[0]), ("label", need_labels and label is None, names[-1])]
    if missing := [(kind, example) for kind, absent, example in wanted_columns if absent]:
        kinds = " and the ".join(kind for kind, _ in missing)
        settings = " ".join(f"data.{kind}={example}" for kind, example in missing)
        raise LoralabError(f"{path} has columns {', '.join(names)}: name the {kinds} column, for example {settings}")
    return Columns(text, label)


def _detect_text(candidates: Sequence[str]) -> tuple[str, ...]:
    """Return title and body, the first usual name of a text column, or the only column; else ()."""
    by_name = {name.lower(): name for name in candidates}
    if "title" in by_name and (body := next((b for b in ("description", "body", "text", "content") if b in by_name), None)):
        return by_name["title"], by_name[body]
    usual = [by_name[name] for name in _TEXT_NAMES if name in by_name]
    return (usual[0],) if usual else tuple(candidates) if len(candidates) == 1 else ()


def read_labels(values: Sequence[object], names: tuple[str, ...], path: Path, column: str) -> tuple[Ints, tuple[str, ...]]:
    """Return label indices, int64[n], and class names.

    values: names, or whole numbers as int, float or text. names: the class names, if known. Numbers then count from 0, or from 1
    if the largest equals the number of classes. Unknown class names are the distinct values, sorted, numbers by value.
    """
    keys = [label_key(value) for value in values]
    if missing := [row for row, key in enumerate(keys) if key is None]:
        raise LoralabError(f"{path}: no label in column {column!r} of {list_rows(missing)}: fill them in or remove the rows")
    present = {str(key) for key in keys}
    names = names or class_names(present)
    # The published files count from 1, also where the last class is missing.
    published = column == PUBLISHED[0] and "0" not in present and class_file(path) == names
    index = class_numbers(present, names, published)
    if unknown := [row for row, key in enumerate(keys) if key not in index]:
        label = str(keys[unknown[0]])
        raise LoralabError(
            f"{path}: label {label!r} in {list_rows(unknown)} is not a class{suggest(label, names)}; classes: {', '.join(names)}"
        )
    return np.array([index[str(key)] for key in keys], dtype=np.int64), names


def class_numbers(present: Collection[str], names: Sequence[str], from_one: bool = False) -> dict[str, int]:
    """Return the index of each label value: a name, or a number from 0, or from 1 if the largest is the number of classes."""
    if not set(present) <= set(names) and all(map(_is_number, present)):
        first = 1 if from_one or max(map(int, present)) == len(names) else 0
        return {str(i + first): i for i in range(len(names))}
    return {name: i for i, name in enumerate(names)}


def _refuse_ambiguous_numbers(raw: RawExamples, classes: Sequence[str], path: Path) -> None:
    """Raise LoralabError for numbers with neither 0 nor the number of classes: they could count from 0 or from 1."""
    present = {key for key in map(label_key, raw.labels) if key is not None}
    if present and not present <= set(classes) and all(map(_is_number, present)):
        numbers = sorted(map(int, present))
        if numbers[0] > 0 and numbers[-1] < len(classes):
            raise LoralabError(
                f"{path}: labels {', '.join(map(str, numbers))} of {len(classes)} classes could count from 0 or from 1: "
                f"write the class names into column {raw.columns.label!r}"
            )


def class_names(present: Iterable[str]) -> tuple[str, ...]:
    """Sort label values without class names: numbers by value, others alphabetically."""
    numeric = all(map(_is_number, present))
    return tuple(sorted(present, key=int if numeric else str))


def missing_texts(examples: Examples) -> list[int]:
    """Return the row numbers of empty and blank texts."""
    return [int(row) for row, text in zip(examples.rows, examples.texts, strict=True) if not text.strip()]


def find_parts(source: str) -> tuple[Path, Path | None]:
    """Return the training file of a source, and its test file if it has one."""
    if source == "sample":
        folder = Path(str(resources.files("loralab.data") / "sample"))
        return folder / "train.csv", folder / "test.csv"
    if source == "ag_news":
        return _fetch_ag_news("train"), _fetch_ag_news("test")
    path = Path(source)
    if not path.exists():
        raise LoralabError(f"data.source: no file or folder {source!r}; named sources: sample, ag_news")
    if path.is_dir() and not (path / "state.json").is_file():
        train, test = (_find_part(path, name) for name in ("train", "test"))
        if train is None:
            raise LoralabError(f"{source} has no training part: expected train.csv, .jsonl, .parquet or a saved dataset in train/")
        return train, test
    return path, None


def _find_part(folder: Path, name: str) -> Path | None:
    candidates = [folder / f"{name}{suffix}" for suffix in _SUFFIXES]
    saved = folder / name
    return saved if (saved / "state.json").is_file() else next((path for path in candidates if path.is_file()), None)


def _fetch_ag_news(part: str) -> Path:
    """Return the file of one part, from the local Hugging Face cache or else from the hub."""
    from huggingface_hub import snapshot_download

    repository, files = AG_NEWS_HUB
    options: dict[str, Any] = {"repo_type": "dataset", "allow_patterns": list(files.values())}
    try:
        try:
            path = Path(snapshot_download(repository, local_files_only=True, **options)) / files[part]
            if path.is_file():
                return path
        except OSError:
            pass  # not in the cache: download it
        return Path(snapshot_download(repository, **options)) / files[part]
    except Exception as error:  # the hub's client raises errors of several libraries when there is no network
        raise LoralabError(
            f"data.source=ag_news is not cached, and downloading it failed ({type(error).__name__}).\n"
            f"  Use a folder with the published train.csv, test.csv and classes.txt: data.source=FOLDER,\n"
            f"  or the data set that loralab includes: data.source=sample"
        ) from error


def _texts(chunk: ColumnChunk, columns: Columns, path: Path) -> list[str]:
    parts = []
    for name in columns.text:
        values = chunk.columns[name]
        if invalid := next((value for value in values if isinstance(value, (list, tuple, dict, bytes))), None):
            raise LoralabError(f"{path}: text column {name!r} holds a {type(invalid).__name__}, {str(invalid)[:60]!r}, not texts")
        parts.append([_text(value) for value in values])
    return parts[0] if len(parts) == 1 else [" ".join(filter(None, row)) for row in zip(*parts, strict=True)]


def _text(value: object) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else replace_surrogates(str(value))


def label_key(value: Any) -> str | None:
    """Return a label as text: 3, 3.0 and "3" are the same label. None for a missing one."""
    if isinstance(value, float):
        return None if math.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    text = "" if value is None else replace_surrogates(str(value)).strip()
    whole = text.removesuffix(".0")  # pandas writes whole numbers this way in a column with gaps
    return (whole if _is_number(whole) else text) or None


def _is_number(key: str) -> bool:
    return key.removeprefix("-").isdecimal() and len(key) < 10


def _map_classes(labels: Ints, names: tuple[str, ...], classes: tuple[str, ...], path: Path) -> Ints:
    """Map the labels of a file with its own class names to the indices of the known classes."""
    if unknown := sorted(set(names) - set(classes)):
        raise LoralabError(
            f"{path}: class {unknown[0]!r} is not one of the known classes{suggest(unknown[0], classes)}: {', '.join(classes)}"
        )
    order = np.array([classes.index(name) for name in names], dtype=np.int64)
    return order[labels]


def list_rows(rows: Sequence[int]) -> str:
    """Return `row 3`, or `rows 3, 4, ... and 12 more`."""
    shown = ", ".join(map(str, rows[:_MAX_LISTED]))
    more = f" and {len(rows) - _MAX_LISTED} more" if len(rows) > _MAX_LISTED else ""
    return f"row {shown}" if len(rows) == 1 else f"rows {shown}{more}"
