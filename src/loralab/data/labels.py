"""Label values of any type → classes. Values are matched by what they say, never by their position."""

from __future__ import annotations

import ast
import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from shlex import quote
from typing import Any, cast

import numpy as np

from loralab.data.clean import replace_surrogates
from loralab.data.columns import list_names
from loralab.data.types import MAX_LISTED, Ints, Notice, list_rows
from loralab.errors import LoralabError, suggest

MISSING_WORDS = frozenset(("nan", "none", "na", "n/a", "null", "#n/a", "-", "?", "<na>", "nat", "missing"))
"""Texts that often stand for a missing value. As labels they are kept, with a notice."""
HIDDEN = "-1"
"""The label by which published test sets hide theirs."""
UNLABELLED = -1
"""The class index of a row without a label."""
_TRUTH = {"true": "1", "false": "0"}


@dataclass(frozen=True)
class ClassTable:
    """Class names in index order, and the values that stand for each: its spellings in the training file.

    `match` finds the class of another file's value: one that is a name or known value; else the same number; else a spelling that
    differs only in case, spaces or Unicode form; else true for 1 and false for 0.
    """

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    def match(self, value: str) -> int | None:
        """Return the class index of a label value, or None if no class, or more than one, fits."""
        for index, key in zip(self._indices, _KEYS, strict=True):
            if len(classes := index.get(key(value), ())) == 1:
                return classes[0]
            if classes:
                return None
        return None

    def knows(self, value: str) -> bool:
        """Return whether a label value is a name of a class or one of its values in the training file."""
        return value in self._indices[0]

    @cached_property
    def _indices(self) -> list[dict[str, tuple[int, ...]]]:
        """Class indices by the key of each rule, in the order of the rules."""
        tables = []
        for key in _KEYS:
            table = defaultdict[str, set[int]](set)
            for i, (name, values) in enumerate(zip(self.names, self.values, strict=True)):
                for value in (name, *values):
                    table[key(value)].add(i)
            tables.append({value: tuple(sorted(classes)) for value, classes in table.items()})
        return tables

    def with_values(self, names: Mapping[str, str]) -> ClassTable:
        """Return the table with further values. names: class name by value."""
        more = [tuple(value for value, own in names.items() if own == name) for name in self.names]
        merged = (tuple(dict.fromkeys((*own, *new))) for own, new in zip(self.values, more, strict=True))
        return ClassTable(self.names, tuple(merged))

    def as_dict(self) -> dict[str, list[str]]:
        """Return the values by class name."""
        return {name: [*values] for name, values in zip(self.names, self.values, strict=True)}


def label_text(value: Any) -> str | None:
    """Return a label value as text, None for a missing one. Lists and mappings of one label are unwrapped.

    Raises ValueError for a value with several labels.
    """
    if isinstance(value, Mapping):  # {"POS": 1.0, "NEG": 0.0}
        value = [name for name, share in value.items() if share] if all(map(_is_share, value.values())) else [*value.values()]
    if isinstance(value, (list, tuple, set, np.ndarray)):
        if len(value) > 1:
            raise ValueError("several labels")
        return label_text(next(iter(value))) if len(value) else None
    return cell_text(value)


def cell_text(value: object) -> str | None:
    """Return a value of a column as text without outer spaces, None for a missing one."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ in ("NAType", "NaTType"):
        return None
    return replace_surrogates(str(value)).strip() or None


def _is_share(value: object) -> bool:
    return isinstance(value, (bool, int, float)) and 0 <= value <= 1


def label_texts(values: Sequence[object], where: str) -> list[str | None]:
    """Return label values as texts. Raises LoralabError with row numbers for rows with several labels."""
    if {*map(type, values)} <= {str}:  # one look at each spelling, instead of at each row
        if lists := _written_lists({*values}):
            return label_texts([lists.get(value, value) for value in values], where)
        spellings: dict[object, str | None] = {value: label_text(value) for value in {*values}}
        return [*map(spellings.__getitem__, values)]
    texts: list[str | None] = []
    several = []
    for row, value in enumerate(values):
        try:
            texts.append(label_text(value))
        except ValueError:
            several.append(row)
            texts.append(None)
    if several:
        raise LoralabError(
            f"{where} has several labels in {list_rows(several)}, such as {values[several[0]]!r}: loralab learns one label "
            f"per text; keep one, or train on one column per label"
        )
    return texts


def _written_lists(values: Collection[object]) -> dict[object, list[object]]:
    """Return the lists that all these texts are, such as "['sport']", which CSV files make of lists; {} if one text is none."""
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    if not all(text.lstrip().startswith("[") and text.rstrip().endswith("]") for text in texts):
        return {}
    lists: dict[object, list[object]] = {}
    for text in texts:
        try:
            content = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return {}
        if not isinstance(content, list) or not all(isinstance(item, (str, int, float)) for item in content):
            return {}
        lists[text] = content
    return lists


def find_classes(labels: Sequence[str | None]) -> tuple[ClassTable, list[Notice]]:
    """Return the classes of a training file without class names, and the decisions taken.

    Whole numbers are classes by value: 1, 1.0 and 01 are one class; a code such as 01 keeps its zeros if it has no other spelling.
    Other labels that differ only in case, spaces or Unicode form are one class, named by its most frequent spelling. Numbers are in
    order, other classes too: item 2 before item 10.
    """
    counts = _counts(labels)
    whole = bool(counts) and all(map(_is_whole, counts))
    groups = defaultdict[str, list[str]](list)
    for value in sorted(counts, key=lambda value: (-counts[value], natural_key(value))):
        groups[_number(value) if whole else _folded(value)].append(value)
    named = {(_number(values[0]) if whole and not _is_code(values) else values[0]): tuple(values) for values in groups.values()}
    order = sort_names(named)
    notices = []
    if merged := {name: values for name, values in named.items() if len(values) > 1}:
        spellings = "; ".join(f"{', '.join(f'{value!r} ({counts[value]})' for value in merged[name])}" for name in [*merged][:4])
        fix = f"{classes_setting(sorted(counts, key=natural_key))} keeps them apart"
        rarer = {value for values in merged.values() for value in values[1:]}
        rows = tuple(row for row, label in enumerate(labels) if label in rarer)
        notices.append(Notice(f"spellings of one class: {spellings}", rows, fix, "warning"))
    return ClassTable(tuple(order), tuple(named[name] for name in order)), notices


def sort_names(names: Collection[str]) -> list[str]:
    """Return class names in order: whole numbers by value, others by `natural_key`."""
    return sorted(names, key=int if all(map(_is_whole_name, names)) else natural_key)


def _is_whole_name(name: str) -> bool:
    return re.fullmatch(r"[+-]?\d{1,18}", name, re.ASCII) is not None


def _counts(labels: Sequence[str | None]) -> Counter[str]:
    """Return the rows of each label, without those that have none."""
    counts = Counter(labels)
    counts.pop(None, None)
    return cast("Counter[str]", counts)


def classes_setting(names: Sequence[str]) -> str:
    """Return the setting that names classes, quoted for a shell; its form if they are many."""
    if len(names) > MAX_LISTED:
        return "data.classes=NAME,NAME,... with each spelling"
    plain = not any(set(name) & set(",'\"[]{}\n") for name in names)
    return quote(f"data.classes={','.join(names) if plain else json.dumps(names, ensure_ascii=False)}")


def name_classes(labels: Sequence[str | None], names: Sequence[str], where: str) -> tuple[ClassTable, list[Notice]]:
    """Return the classes of a training file whose names are known, and the decisions taken. Names without a row are dropped.

    The labels are names, or numbers from 0, or from 1 if the largest is the number of names. Raises LoralabError for others.
    """
    plain = ClassTable(tuple(names), tuple(() for _ in names))
    counts = _counts(labels)
    matched = {value: plain.match(value) for value in counts}
    if None in matched.values() and all(map(_is_whole, counts)):
        if any(index is not None for index in matched.values()):
            raise LoralabError(
                f"{where}: the labels {list_names(sorted(counts, key=natural_key))} and data.classes={','.join(names)} are both "
                "numbers, but not the same ones: give the numbers of the file, or names that are no numbers, in their order"
            )
        first = _first_number([int(_number(value)) for value in counts], len(names), where)
        numbers = {value: int(_number(value)) - first for value in counts}
        matched = {value: i if 0 <= i < len(names) else None for value, i in numbers.items()}
    values = [tuple(value for value in counts if matched[value] == i) for i in range(len(names))]
    check_known(labels, ClassTable(tuple(names), tuple(values)), where)
    present = [i for i, spellings in enumerate(values) if spellings]
    notices = []
    if absent := [name for i, name in enumerate(names) if i not in present]:
        message = (
            f"{'class' if len(absent) == 1 else 'classes'} {list_names(absent)} {'has' if len(absent) == 1 else 'have'} no row"
        )
        notices.append(Notice(f"{message}: the model has {len(present)} classes", severity="warning"))
    return ClassTable(tuple(names[i] for i in present), tuple(values[i] for i in present)), notices


def _first_number(numbers: Sequence[int], classes: int, where: str) -> int:
    """Return the number of the first class. Raises LoralabError for numbers that could count from 0 or from 1."""
    if min(numbers) > 0 and max(numbers) == classes:
        return 1
    if min(numbers) > 0 and max(numbers) < classes:
        raise LoralabError(
            f"{where}: labels {', '.join(map(str, sorted(numbers)))} of {classes} classes could count from 0 or from 1: "
            f"write the class names into the file, or name the classes that occur, in order, in data.classes"
        )
    return 0


def declared_numbers(labels: Sequence[str | None], names: Sequence[str], table: ClassTable, where: str) -> dict[str, str]:
    """Return number → class name for another file that numbers the classes of `data.classes`, whose order somebody wrote down.

    {} if a label is known otherwise, or is no number. Raises LoralabError for numbers that could count from 0 or from 1.
    """
    values = {label for label in labels if label is not None}
    if not values or not names or any(table.match(value) is not None for value in values) or not all(map(_is_whole, values)):
        return {}
    numbers = {value: int(_number(value)) for value in values}
    first = _first_number([*numbers.values()], len(names), where)
    return {value: names[number - first] for value, number in numbers.items() if first <= number < first + len(names)}


def check_known(labels: Sequence[str | None], table: ClassTable, where: str) -> None:
    """Raise LoralabError, with row numbers, for a label that is no class."""
    unknown = {value for value in set(labels) if value is not None and table.match(value) is None}
    if not unknown:
        return
    rows = [row for row, label in enumerate(labels) if label in unknown]
    label = str(labels[rows[0]])
    same = [row for row in rows if labels[row] == label]
    others = f" ({len(unknown) - 1} more labels are none either)" if len(unknown) > 1 else ""
    nearest = suggest(label, table.names) if label != HIDDEN else ""
    raise LoralabError(
        f"{where}: label {label!r} in {list_rows(same)} is not a class{nearest}{others}; classes: {list_names(table.names)}"
    )


def class_indices(labels: Sequence[str | None], table: ClassTable, where: str) -> Ints:
    """Return class indices, int64[n]; UNLABELLED for a missing label. Raises LoralabError for a label that is no class."""
    check_known(labels, table, where)
    index = {value: UNLABELLED if value is None else table.match(value) for value in set(labels)}
    return np.fromiter(map(index.__getitem__, labels), dtype=np.int64, count=len(labels))


def row_classes(labels: Sequence[str | None], table: ClassTable) -> list[str | None]:
    """Return the name of each row's class, None for a row without one."""
    names = {label: table.names[i] for label in {*labels} if label is not None and (i := table.match(label)) is not None}
    return [None if label is None else names.get(label) for label in labels]


def hide_unlabelled(labels: Sequence[str | None], known: ClassTable | None, named: bool) -> tuple[list[str | None], int]:
    """Read -1 as no label where it hides one, and return how many rows that are.

    It does if the file names its classes, if all labels are -1, or if the classes known from training have no -1 but 0.
    """
    present = {*labels} - {None}
    hides = HIDDEN in present and (
        named or present == {HIDDEN} or (known is not None and known.match(HIDDEN) is None and known.match("0") is not None)
    )
    if not hides:
        return [*labels], 0
    return [None if label == HIDDEN else label for label in labels], sum(label == HIDDEN for label in labels)


def other_spellings(labels: Sequence[str | None], table: ClassTable) -> list[Notice]:
    """Return a notice on labels of another file that are spelt otherwise than in training."""
    counts = Counter(label for label in labels if label is not None and not table.knows(label))
    classes = {label: table.match(label) for label in counts}
    listed = ", ".join(f"{label!r} ({counts[label]}) as {table.names[i]!r}" for label, i in classes.items() if i is not None)
    return [Notice(f"labels are read by their meaning: {listed}")] if listed else []


def missing_words(labels: Sequence[str | None]) -> list[Notice]:
    """Return a notice on labels that read like missing values."""
    fix = "empty them to leave the rows out"
    return _missing_words([label or "" for label in labels], "labels that read like missing values are classes", fix)


def missing_text_words(texts: Sequence[str]) -> list[Notice]:
    """Return a notice on texts that read like missing values."""
    return _missing_words(texts, "texts that read like missing values", "remove these rows, or fill them in")


def _missing_words(values: Sequence[str], message: str, fix: str) -> list[Notice]:
    longest = max(map(len, MISSING_WORDS)) + 4  # with some spaces
    counts = Counter(word for value in values if len(value) <= longest and (word := value.strip()).casefold() in MISSING_WORDS)
    if not counts:
        return []
    listed = ", ".join(f"{count} {word!r}" for word, count in counts.most_common())
    rows = tuple(row for row, value in enumerate(values) if value.strip() in counts)
    return [Notice(f"{message}: {listed}", rows, fix, "warning")]


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that compares digits within a text by their value: item 2 before item 10."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), part) if part.isdecimal() and len(part) < 19 else (1, 0, part) for part in parts if part]


def _is_code(spellings: Sequence[str]) -> bool:
    """Return whether a number has one spelling, with leading zeros, as in codes of products."""
    return len(spellings) == 1 and len(spellings[0]) > 1 and spellings[0].startswith("0") and spellings[0].isdecimal()


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d{1,18}(\.0+)?", text, re.ASCII) is not None


def _number(text: str) -> str:
    """Return a whole number without its fraction and leading zeros, other numbers in their shortest form, other text as it is."""
    if _is_whole(text):
        return str(int(text.partition(".")[0]))
    return text


def _folded(text: str) -> str:
    """Return a text without differences of case, width, Unicode form, and spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _truth(text: str) -> str:
    folded = _folded(text)
    return _TRUTH.get(folded, _number(folded))


_KEYS: tuple[Callable[[str], str], ...] = (str, _number, _folded, _truth)


def class_counts(indices: Ints, names: Iterable[str]) -> dict[str, int]:
    """Return the number of rows of each class."""
    return {name: int((indices == i).sum()) for i, name in enumerate(names)}
