"""Write the predictions of a competition: its header, ids, order and label values, checked against what was written."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, get_args

from loralab.config import DataConfig
from loralab.data.columns import find_id, list_names
from loralab.data.labels import ClassTable
from loralab.data.readers import open_table
from loralab.data.types import Notice, list_rows
from loralab.errors import LoralabError, suggest
from loralab.inference.prediction_files import InputRows, LabelValues, PredictionInput, Predictions, cell_text
from loralab.storage.files import csv_field_limit
from loralab.storage.run_folder import MAX_TEXT_CHARACTERS
from loralab.tables import csv_writer

HEADER = ("ID", "Label")
"""The header of a submission if neither a template nor the input names its columns."""


@dataclass(frozen=True)
class Template:
    """A sample submission: its two columns in order, and the character between them."""

    path: Path
    columns: Mapping[str, Sequence[str]]
    delimiter: str

    def id_names(self, label: str | None) -> list[str]:
        """Return the columns that may hold the ids, the likeliest first. label: the label column of training."""
        names = [name for name in self.columns if name != label]
        usual = find_id(names)
        return sorted(names, key=lambda name: name != usual)

    def id_column(self, names: Collection[str], label: str | None) -> str:
        """Return the id column. names: the columns of the input, which probably has it too."""
        likely = self.id_names(label)
        return next((name for name in likely if name in names), likely[0])


def read_template(path: Path) -> Template:
    """Read a sample submission. Raises LoralabError for one without rows, and for other than two columns."""
    table = open_table(path, DataConfig(header=True))
    columns: dict[str, list[str]] = {}
    for chunk in table.chunks:
        for name, values in chunk.columns.items():
            columns.setdefault(name, []).extend(map(cell_text, values))
    if len(columns) != 2:
        raise LoralabError(
            f"{path} has {len(columns)} column{'s' * (len(columns) != 1)} ({list_names([*columns])}) instead of ids and labels; "
            f"the probability of each class is in the columns p(CLASS) of --format csv"
        )
    if not any(columns.values()):
        raise LoralabError(f"{path} has no rows")
    return Template(path, columns, table.facts.get("delimiter") or ",")


@dataclass(frozen=True)
class LabelChoice:
    """How a submission spells the classes: one label per class. others: what the other kinds write, for messages."""

    kind: LabelValues
    labels: tuple[str, ...]
    others: str = ""

    def notice(self) -> Notice:
        """Return the decision in words."""
        kinds = {"raw": "the values of the training file", "names": "class names", "index": "class indices"}
        return Notice(f"labels are {kinds[self.kind]}: {list_names(self.labels)}", fix=self.others)


def spellings(table: ClassTable) -> dict[LabelValues, tuple[tuple[str, ...], ...]]:
    """Return the labels of each class by kind. The first of each class is the one to write."""
    raw = tuple(values or (name,) for name, values in zip(table.names, table.values, strict=True))
    return {"raw": raw, "names": tuple((name,) for name in table.names), "index": tuple((str(i),) for i in range(len(table.names)))}


def choose_labels(table: ClassTable, kind: LabelValues) -> LabelChoice:
    """Return the labels of a kind."""
    if kind not in get_args(LabelValues):
        valid = get_args(LabelValues)
        raise LoralabError(f"there are no label values {kind!r}{suggest(kind, valid)}; valid: {', '.join(valid)}")
    written = {name: tuple(values[0] for values in known) for name, known in spellings(table).items()}
    others = {labels: name for name, labels in reversed(written.items()) if labels != written[kind]}
    settings = "; ".join(f"--label-values {name} writes {list_names(labels)}" for labels, name in reversed(others.items()))
    return LabelChoice(kind, written[kind], settings)


def labels_like(template: Template, table: ClassTable, label: str | None, names: Collection[str]) -> LabelChoice:
    """Return the labels of the kind that a template shows. Raises LoralabError if that is not clear.

    label: the label column of training. names: the columns of the input.
    """
    identity = template.id_column(names, label)
    column = next(name for name in template.columns if name != identity)
    present = {value for value in template.columns[column] if value.strip()}
    fitting = [kind for kind, known in spellings(table).items() if present <= {value for values in known for value in values}]
    raw = choose_labels(table, "raw")
    settings = f"--label-values raw writes {list_names(raw.labels)}; {raw.others}"
    where = f"{template.path}, column {column!r}"
    if not fitting:
        raise LoralabError(f"{where} holds {list_names(sorted(present))}, which are not all labels of this run: {settings}")
    if fitting == ["index"] and len(present) == 1:
        raise LoralabError(f"{where} holds only {min(present)}, a class index or a placeholder: {settings}")
    return choose_labels(table, fitting[0])


@dataclass(frozen=True)
class Submission:
    """What a submission must contain: its header, the ids in order, and the labels that may occur.

    id_position: 0 or 1, the column of the ids.
    """

    header: tuple[str, ...]
    ids: Sequence[str]
    labels: Collection[str]
    id_position: int = 0
    delimiter: str = ","


class SubmissionWriter:
    """Collects ids and labels, and writes and checks them at the end. label: the label column of the training file."""

    def __init__(
        self, file: IO[str], source: PredictionInput, labels: LabelChoice, label: str | None, template: Template | None
    ) -> None:
        self.file, self.source, self.labels, self.label, self.template = file, source, labels, label, template
        self.ids: list[str] = []
        self.values: list[str] = []

    def write(self, rows: InputRows, predictions: Predictions) -> None:
        """Keep some rows."""
        self.ids += [cell_text(rows.id_of(i)) for i in range(len(rows.texts))]
        self.values += [self.labels.labels[index] for index in predictions.indices]

    def finish(self) -> list[Notice]:
        """Write all rows, and check the file that was written."""
        self._check_ids()
        notices = [self.labels.notice()]
        if self.template is None:
            header: tuple[str, ...] = HEADER if self.source.id_name is None else (self.source.id_name, self.label or HEADER[1])
            submission, values = Submission(header, self.ids, self.labels.labels), self.values
        else:
            column = self.template.id_column(self.source.names, self.label)
            header, ids = tuple(self.template.columns), self.template.columns[column]
            values, placed = self._in_order(self.template, ids)
            submission = Submission(header, ids, self.labels.labels, header.index(column), self.template.delimiter)
            notices += placed
        table = csv_writer(self.file, submission.delimiter)
        table.writerow(submission.header)
        step = 1 if submission.id_position == 0 else -1
        table.writerows((identity, value)[::step] for identity, value in zip(submission.ids, values, strict=True))
        self.file.flush()
        check_submission(Path(self.file.name), submission)
        return notices

    def _check_ids(self) -> None:
        """Raise LoralabError for a row without an id, and for two rows of one id."""
        where, fix = f"{self.source.name}, id column {self.source.id_name!r}", "--id-column NAME reads another column"
        if missing := [row for row, identity in enumerate(self.ids) if not identity.strip()]:
            raise LoralabError(f"{where}: no id in {list_rows(missing)}; {fix}")
        if len(set(self.ids)) < len(self.ids):
            name = Counter(self.ids).most_common(1)[0][0]
            rows = [row for row, identity in enumerate(self.ids) if identity == name]
            raise LoralabError(f"{where}: {list_rows(rows)} have the same id, {name}; {fix}")

    def _in_order(self, template: Template, ids: Sequence[str]) -> tuple[list[str], list[Notice]]:
        """Return the labels in the order of the template's ids. Raises LoralabError if the ids are not those of the input."""
        if len(set(ids)) < len(ids):
            raise LoralabError(f"{template.path}: the id {Counter(ids).most_common(1)[0][0]} occurs more than once")
        by_id = dict(zip(self.ids, self.values, strict=True))
        wanted = {*ids}
        missing, surplus = [name for name in ids if name not in by_id], [name for name in self.ids if name not in wanted]
        if not missing and not surplus:
            return [by_id[name] for name in ids], []
        if self.source.id_name is None and len(ids) == len(self.ids):  # its rows have no names of their own
            notice = Notice(f"{self.source.name} has no id column: its rows get the ids of the template in order")
            return self.values, [notice]
        sides = ((f"{template.path} asks for", missing, self.source.name), (f"{self.source.name} has", surplus, template.path))
        parts = [
            f"{verb} {len(names):,} id{'s' * (len(names) != 1)} that {other} has not: {list_names(names)}"
            for verb, names, other in sides
            if names
        ]
        reading = f"ids are in column {self.source.id_name!r}" if self.source.id_name else "ids are row numbers, from 0"
        raise LoralabError(f"{'; '.join(parts)}. In {self.source.name} {reading}; --id-column NAME reads another column")


def check_submission(path: Path, expected: Submission) -> None:
    """Raise LoralabError unless a file has the header, ids and labels that a submission must contain."""
    with csv_field_limit(MAX_TEXT_CHARACTERS), path.open(encoding="utf-8", errors="replace", newline="") as file:
        lines = csv.reader(file, delimiter=expected.delimiter)
        if tuple(next(lines, ())) != expected.header:
            raise LoralabError(f"{path}: the header is not {expected.delimiter.join(expected.header)}")
        labels, rows = {*expected.labels}, 0
        for rows, line in enumerate(lines, 1):
            if rows > len(expected.ids):
                continue
            identity = expected.ids[rows - 1]
            if len(line) != 2 or line[expected.id_position] != identity:
                raise LoralabError(f"{path}: line {rows + 1} is {line}, expected id {identity}")
            if (label := line[1 - expected.id_position]) not in labels:
                raise LoralabError(f"{path}: label {label!r} of id {identity} is not one of {list_names([*expected.labels])}")
    if rows != len(expected.ids):
        raise LoralabError(f"{path}: {rows:,} rows instead of {len(expected.ids):,}")
