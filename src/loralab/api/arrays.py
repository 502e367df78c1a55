"""X and y as scikit-learn passes them → columns of texts, labels, classes."""

from __future__ import annotations

import reprlib
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import DataConversionWarning

from loralab.config import DataConfig
from loralab.data.columns import find_columns
from loralab.data.in_memory import TEXT
from loralab.data.labels import cell_text
from loralab.data.types import MemoryTable
from loralab.errors import LoralabError


def text_columns(X: Any, wanted: str | Sequence[str] | None, label: str | None) -> dict[str, Sequence[object]]:
    """Return the texts by column. wanted: the columns of a data frame; default: the only one, or the one that looks like texts."""
    if isinstance(X, str):
        raise ValueError("X is one text, not a sequence of texts: write [text]")
    if not hasattr(X, "columns"):
        values = _values(X)
        if values and isinstance(values[0], (list, tuple)) and len(values[0]) == 1:
            values = [row[0] for row in values]  # a column of an array, as ColumnTransformer gives it
        return {TEXT: _check_texts(values)}
    names = [str(name) for name in X.columns if name != label]
    frame = {str(name): X[name].to_list() for name in X.columns}
    if wanted is None:
        wanted = names if len(names) == 1 else find_columns(frame, MemoryTable("X", None), DataConfig(label=label))[0].text
    wanted = [wanted] if isinstance(wanted, str) else [*wanted]
    if missing := [name for name in wanted if name not in frame]:
        if len(names) > 1:
            raise ValueError(f"X has no column {missing[0]!r}: it has {', '.join(names)}")
        wanted = names
    return {name: _check_texts(frame[name]) for name in wanted}


def _values(column: Any) -> list[Any]:
    """Return an array, a series or a sequence as a list of Python values."""
    if not hasattr(column, "tolist") and hasattr(column, "__array__") and not hasattr(column, "to_list"):
        column = np.asarray(column)
    return column.tolist() if hasattr(column, "tolist") else column.to_list() if hasattr(column, "to_list") else [*column]


def _check_texts(values: Sequence[object]) -> Sequence[object]:
    """Return texts. Raises ValueError for no rows, and TypeError for what is no text."""
    if not len(values):
        raise ValueError("X has 0 rows: at least one text is needed")
    for row, value in enumerate(values):
        if not isinstance(value, str) and text_of(value):
            raise TypeError(f"X holds texts, but row {row} is a {type(value).__name__}, {reprlib.repr(value)}")
    return values


def text_of(value: object) -> str:
    """Return a text; empty for a missing one."""
    return cell_text(value) or "" if not isinstance(value, str) else value


def label_values(y: Any) -> tuple[list[Any], Any]:
    """Return labels as Python values, and the dtype of an array of numbers or texts. Raises ValueError for missing labels."""
    if y is None:
        raise ValueError("this classifier requires y to be passed, but the target y is None")
    values, dtype = _values(y), getattr(y, "dtype", None)
    if values and all(isinstance(value, list) and len(value) == 1 for value in values):
        message = "A column-vector y was passed when a 1d array was expected: give y.ravel()"
        warnings.warn(message, DataConversionWarning, stacklevel=3)
        values = [value[0] for value in values]
    for row, value in enumerate(values):
        if not isinstance(value, Hashable) or isinstance(value, list):
            raise ValueError(f"y holds one label per text, but row {row} is a {type(value).__name__}")
        if value is None or value != value or type(value).__name__ == "NAType":
            raise ValueError(f"y has no label in row {row}: leave such rows out")
        if isinstance(value, float) and not value.is_integer():
            kind = f"{value} in row {row}, a continuous number: a classifier's labels are discrete; give such labels as texts"
            raise ValueError(f"Unknown label type: {kind}")
    return values, dtype if isinstance(dtype, np.dtype) and dtype.kind in "biufU" else None


def sort_classes(labels: Iterable[Any]) -> list[Any]:
    """Return the different labels in order; labels of several types by type."""
    distinct = [*dict.fromkeys(labels)]
    try:
        return sorted(distinct)
    except TypeError:
        return sorted(distinct, key=lambda own: (type(own).__name__, str(own)))


def name_classes(classes: Sequence[Any]) -> list[str]:
    """Return a different name for each class: the label as text, with its type where two are alike."""
    names = [str(own) if str(own).strip() else repr(own) for own in classes]
    counts = Counter(names)
    named = [f"{name} ({type(own).__name__})" if counts[name] > 1 else name for own, name in zip(classes, names, strict=True)]
    return named if len({*named}) == len(named) else [f"{name} ({i})" for i, name in enumerate(named)]


def label_array(classes: Sequence[Any], dtype: Any = None) -> npt.NDArray[Any]:
    """Return labels as an array: of their own dtype, of numbers or texts, or of objects."""
    if dtype is not None or (len({*map(type, classes)}) == 1 and isinstance(classes[0], (str, bool, int, float))):
        return np.array(classes, dtype=dtype)
    array = np.empty(len(classes), dtype=object)
    array[:] = classes
    return array


def json_label(label: Any) -> Any:
    """Return a label for JSON; a tuple as an object. Raises LoralabError for labels of other types."""
    if isinstance(label, tuple):
        return {"tuple": [json_label(own) for own in label]}
    if not isinstance(label, (str, bool, int, float)):
        raise LoralabError(
            f"labels of type {type(label).__name__}, such as {label!r}, cannot be saved: use texts or numbers, or pickle"
        )
    return label


def label_of_json(stored: Any) -> Any:
    """Return a label that `json_label` wrote."""
    return tuple(map(label_of_json, stored["tuple"])) if isinstance(stored, dict) else stored
