"""Read the rows to classify, and write predictions as CSV or JSON Lines."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from loralab.config import DataConfig
from loralab.data.clean import replace_surrogates
from loralab.data.columns import Columns, find_columns
from loralab.data.readers import Table, open_table
from loralab.data.sources import chunk_texts, known_columns, run_columns
from loralab.data.text_notices import loss_notices
from loralab.data.types import ColumnChunk, Encoded, Notice, TextFacts, count_of
from loralab.errors import LoralabError, suggest
from loralab.storage.data_contract import DataContract
from loralab.tables import clip, csv_writer, html_table, text_table, to_frame

if TYPE_CHECKING:
    import pandas

LabelValues = Literal["raw", "names", "index"]
FORMATS = ("csv", "jsonl", "submission")
ID, TEXT, LABEL, KEPT_LABEL, CONFIDENCE = "id", "text", "label", "predicted", "confidence"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""First characters that make a spreadsheet run a cell as a formula."""
MAX_SHOWN = 10
"""Predictions that a notebook shows."""
_WORD = re.compile(r"[\w.-]+")


@dataclass(frozen=True, repr=False)
class Predictions:
    """Predicted labels (class names) and probabilities (n, classes) fp32, one row per text in input order.

    The probabilities use the temperature that was fitted on the run's validation rows. texts: what was classified.
    """

    labels: list[str]
    probabilities: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    texts: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """The probability of each predicted class: (n,)."""
        highest: npt.NDArray[np.float32] = self.probabilities.max(axis=1)
        return highest

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """The index of each predicted class: (n,)."""
        indices: npt.NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return indices

    def to_frame(self) -> pandas.DataFrame:
        """Return one row per text: text, label, confidence, and a column p(CLASS) per class."""
        columns = (TEXT, LABEL, CONFIDENCE, *(f"p({name})" for name in self.classes))
        values = zip(self.texts, self.labels, self.confidence.tolist(), self.probabilities.tolist(), strict=True)
        return to_frame(columns, [(text, label, confidence, *row) for text, label, confidence, row in values])

    def _shown_rows(self) -> list[tuple[str, float, str]]:
        first = zip(self.labels[:MAX_SHOWN], self.confidence[:MAX_SHOWN].tolist(), self.texts, strict=False)
        return [(label, confidence, clip(text, 80)) for label, confidence, text in first]

    def _caption(self) -> str:
        more = f", the first {MAX_SHOWN}" if len(self) > MAX_SHOWN else ""
        return f"Predictions of {count_of(len(self), 'text')}{more}"

    def __repr__(self) -> str:
        return f"{self._caption()}\n{text_table((LABEL, CONFIDENCE, TEXT), self._shown_rows())}"

    def _repr_html_(self) -> str:
        return html_table((LABEL, CONFIDENCE, TEXT), self._shown_rows(), self._caption())


@dataclass(frozen=True)
class OutputFormat:
    """How predictions are written.

    name: csv (id, text, label, confidence, a column p(CLASS) per class), jsonl (the same fields), or submission (id and label).
    keep_columns: keep the input's columns instead of id and text; the label is then called `predicted`. raw: write cells that a
    spreadsheet would run as they are. template: a sample submission, whose header, ids, order and kind of labels are used.
    label_values: the labels of a submission: `raw`, the values of the training file; `names` of classes; `index`, from 0.
    """

    name: str = "csv"
    keep_columns: bool = False
    raw: bool = False
    template: Path | None = None
    label_values: LabelValues | None = None


@dataclass(frozen=True)
class InputRows:
    """Consecutive rows to classify. first: the number of the first. ids: None without an id column. columns: as in the file."""

    first: int
    texts: Sequence[str]
    ids: Sequence[object] | None = None
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)

    def id_of(self, i: int) -> object:
        """Return the id of the i-th of these rows: its number in the input if there is no id column."""
        return self.first + i if self.ids is None else self.ids[i]


@dataclass
class PredictionInput:
    """A source of rows to classify.

    name: for messages. columns: the columns that are read; names: all columns of its first rows. Without a table, the input is
    texts. The table's notices are complete when `rows` ends.
    """

    name: str
    rows: Iterable[InputRows]
    columns: Columns | None = None
    names: tuple[str, ...] = ()
    table: Table | None = None
    notices: list[Notice] = field(default_factory=list)

    @property
    def id_name(self) -> str | None:
        return self.columns.id if self.columns else None

    def report(self, rows: int, notices: Sequence[Notice], predicted: Mapping[str, int]) -> PredictionReport:
        """Return what was classified, after all rows were read."""
        facts = {"format": self.table.format, **self.table.facts} if self.table else {}
        read = self.table.notices if self.table else ()
        return PredictionReport(rows, self.columns, facts, (*read, *self.notices, *notices), predicted)


@dataclass(frozen=True)
class PredictionReport:
    """What was classified.

    columns; facts: the format of the input, delimiter and so on. notices: the decisions taken. predicted: rows by predicted class.
    """

    rows: int
    columns: Columns | None
    facts: Mapping[str, Any]
    notices: tuple[Notice, ...]
    predicted: Mapping[str, int]


def check_format(format: OutputFormat | str) -> OutputFormat:
    """Return a format. Raises LoralabError for an unknown one, and for options that do not apply to it."""
    output = OutputFormat(format) if isinstance(format, str) else format
    if output.name not in FORMATS:
        raise LoralabError(f"there is no format {output.name!r}{suggest(output.name, FORMATS)}; valid: {', '.join(FORMATS)}")
    if output.name == "submission" and output.keep_columns:
        raise LoralabError("a submission has two columns, the ids and the labels: keep_columns applies to csv and jsonl")
    if output.name != "submission" and (output.template or output.label_values):
        raise LoralabError(f"a template and label values apply to submissions, not to {output.name}: use the format submission")
    return output


def check_target(target: Path) -> None:
    """Raise LoralabError for an output that cannot be a file."""
    if target.is_dir():
        raise LoralabError(f"{target} is a folder: give a file name for the predictions")


class PredictionWriter(Protocol):
    """Writes predictions in one format."""

    def write(self, rows: InputRows, predictions: Predictions) -> None:
        """Write some rows."""

    def finish(self) -> list[Notice]:
        """Write what is left, and return the decisions taken. Raises LoralabError if the file would be wrong."""


def read_input(path: Path, data: DataConfig, run: DataContract | None = None, preferred_ids: Sequence[str] = ()) -> PredictionInput:
    """Open a file to classify and find its columns. preferred_ids: names of id columns that come before the usual ones."""
    table = open_table(path, data, (*known_columns(run), *filter(None, (data.id,))))
    first = next(table.chunks, None)
    if first is None:
        raise LoralabError(f"{path} has no rows")
    columns, notices = find_columns(first.columns, path, data, run=run_columns(run))
    preferred = next((name for name in preferred_ids if name in first.columns and name not in columns.text), None)
    if preferred is not None and data.id is None:
        columns = Columns(columns.text, columns.label, preferred)
    rows = _input_rows(chain((first,), table.chunks), columns, path)
    return PredictionInput(str(path), rows, columns, tuple(first.columns), table, notices)


def _input_rows(chunks: Iterable[ColumnChunk], columns: Columns, path: Path) -> Iterator[InputRows]:
    first = 0
    for chunk in chunks:
        texts = chunk_texts(chunk, columns, path)
        ids = None if columns.id is None else chunk.columns.get(columns.id, [None] * len(texts))
        yield InputRows(first, texts, ids, chunk.columns)
        first += len(texts)


@dataclass
class TextChecks:
    """Collects the rows whose prediction says little about their text.

    empty_length: the number of tokens of an empty text.
    """

    empty_length: int
    max_length: int
    base: str
    blank: list[int] = field(default_factory=list)
    emptied: list[int] = field(default_factory=list)
    texts: int = 0
    tokens: int = 0
    facts: TextFacts = field(default_factory=TextFacts)

    def add(self, texts: Sequence[str], rows: Sequence[int], encoded: Encoded) -> None:
        """Check some texts. rows: their numbers; encoded: their tokens."""
        self.texts, self.tokens = self.texts + len(texts), self.tokens + len(encoded.tokens)
        self.facts += encoded.facts
        for i in np.flatnonzero(encoded.lengths <= self.empty_length).tolist():
            (self.emptied if texts[i].strip() else self.blank).append(int(rows[i]))

    def notices(self) -> list[Notice]:
        """Return what was found."""
        kinds = ((self.blank, "without text"), (self.emptied, "without text after cleaning"))
        empty = [
            Notice(f"{count_rows(rows)} {kind}, classified as an empty text, whatever the confidence", tuple(rows), "", "warning")
            for rows, kind in kinds
            if rows
        ]
        losses = loss_notices({"": (self.texts, self.tokens, self.facts)}, self.max_length, self.base)
        return [*empty, *(Notice(loss, severity="warning") for loss in losses)]


def count_rows(rows: Sequence[object]) -> str:
    """Return `1 row` or `2,000 rows`."""
    return f"{len(rows):,} row" + "s" * (len(rows) != 1)


@dataclass(frozen=True)
class _Layout:
    """The fields of a row: their names, and the values that come before the prediction. renamed: own names that were taken."""

    names: tuple[str, ...]
    values: Callable[[int], list[object]]
    renamed: Mapping[str, str]

    @classmethod
    def of(cls, rows: InputRows, id_name: str | None, keep: bool, probabilities: Sequence[str]) -> _Layout:
        """Return the id, the text and our fields, or with `keep` the columns of the input and our fields."""
        if keep:
            kept, own = [*rows.columns], (KEPT_LABEL, CONFIDENCE, *probabilities)
        else:
            kept, own = [id_name or ID], (TEXT, LABEL, CONFIDENCE, *probabilities)
        names = dict.fromkeys(kept)
        renamed = {}
        for name in own:
            free = next(new for new in chain((name,), (f"{name}_{n}" for n in count(2))) if new not in names)
            names[free] = None
            if free != name:
                renamed[name] = free
        columns = [*rows.columns.values()]
        return cls(
            tuple(names),
            (lambda i: [column[i] for column in columns]) if keep else (lambda i: [rows.id_of(i), rows.texts[i]]),
            renamed,
        )

    def notices(self) -> list[Notice]:
        """Return the names that were taken."""
        if not self.renamed:
            return []
        pairs = ", ".join(f"{name!r} is {free!r}" for name, free in self.renamed.items())
        return [Notice(f"the input has columns named like ours: in the output {pairs}")]


class JsonLinesWriter:
    """Writes an object per line: the id and text, or all keys of the input; label, confidence and probabilities."""

    def __init__(self, file: IO[str], source: PredictionInput, format: OutputFormat) -> None:
        self.file, self.source, self.format = file, source, format
        self.layout: _Layout | None = None

    def write(self, rows: InputRows, predictions: Predictions) -> None:
        """Write some rows."""
        self.layout = layout = _Layout.of(rows, self.source.id_name, self.format.keep_columns, ["probabilities"])
        for i, label, confidence, values in _rounded(predictions):
            own = (label, confidence, dict(zip(predictions.classes, values, strict=True)))
            line = dict(zip(layout.names, (*map(_json_value, layout.values(i)), *own), strict=True))
            self.file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")

    def finish(self) -> list[Notice]:
        """Return the decisions taken."""
        return self.layout.notices() if self.layout else []


class CsvWriter:
    """Writes a table: the id and text, or all columns of the input; label, confidence and a column p(CLASS) per class."""

    def __init__(self, file: IO[str], source: PredictionInput, format: OutputFormat) -> None:
        self.table = csv_writer(file)
        self.source, self.format = source, format
        self.layout: _Layout | None = None
        self.cells, self.rows = 0, list[int]()
        """Changed cells, and the rows that have some."""

    def write(self, rows: InputRows, predictions: Predictions) -> None:
        """Write some rows, before the first of them the header."""
        probabilities = [f"p({name})" for name in predictions.classes]
        layout = _Layout.of(rows, self.source.id_name, self.format.keep_columns, probabilities)
        if self.layout is None:
            self.layout = layout
            self.table.writerow(self._neutralize(layout.names))
        if late := [name for name in layout.names if name not in self.layout.names]:
            raise LoralabError(
                f"{self.source.name}: {late[0]!r} first occurs after row {rows.first - 1}, when the table already has its columns: "
                f"write --format jsonl, or leave out --keep-columns"
            )
        identity = layout.names.index(self.source.id_name) if self.source.id_name in layout.names else None
        for i, label, confidence, values in _rounded(predictions):
            before = self.cells
            cells = self._neutralize((*map(cell_text, layout.values(i)), label), identity)
            self.table.writerow([*cells, confidence, *values])
            if self.cells > before:
                self.rows.append(rows.first + i)

    def finish(self) -> list[Notice]:
        """Return the decisions taken."""
        notices = self.layout.notices() if self.layout else []
        if self.cells:
            start = "1 cell begins" if self.cells == 1 else f"{self.cells:,} cells begin"
            message = f"{start} like a spreadsheet formula (= + - @ tab or carriage return) and got a ' in front"
            notices.append(Notice(message, tuple(self.rows), "--raw writes such cells unchanged"))
        return notices

    def _neutralize(self, cells: Sequence[str], identity: int | None = None) -> list[str]:
        """Put ' before cells that a spreadsheet would run. identity: the position of the id, kept if it is only a word."""
        if self.format.raw:
            return [*cells]
        risky = [is_formula(cell) and not (i == identity and _WORD.fullmatch(cell)) for i, cell in enumerate(cells)]
        self.cells += sum(risky)
        return [f"'{cell}" if run else cell for cell, run in zip(cells, risky, strict=True)]


def is_formula(cell: str) -> bool:
    """Return whether a spreadsheet runs a cell as a formula: by its first character, unless the cell is a number."""
    if not cell.startswith(FORMULA_STARTS):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def cell_text(value: object) -> str:
    """Return a value of the input as the text of a cell: nothing for a missing one, JSON for lists and objects."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return replace_surrogates(str(value))


def _json_value(value: object) -> object:
    """Return a value that JSON can hold, numbers of NumPy as numbers; NaN is no JSON."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str):
        return replace_surrogates(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rounded(predictions: Predictions) -> Iterator[tuple[int, str, float, list[float]]]:
    """Yield position, label, confidence and probabilities, rounded to five digits."""
    rounded = np.round(predictions.probabilities.astype(np.float64), 5)
    for i, (label, values) in enumerate(zip(predictions.labels, rounded.tolist(), strict=True)):
        yield i, label, max(values), values
