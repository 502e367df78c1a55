"""Check a dataset: what training would decide, and what it would refuse, with rows and fixes. Nothing is changed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from loralab.config import DataConfig, ModelConfig
from loralab.data.archives import unpacked
from loralab.data.augment import check_techniques
from loralab.data.clean import check_steps
from loralab.data.columns import USUAL_NAMES, Columns, LabelNeed, label_candidates, text_candidates
from loralab.data.data_report import DataReport, PartName, SuspiciousLabel, TextLengths
from loralab.data.folders import Part, Parts, find_parts
from loralab.data.label_findings import flag_findings, label_findings, unknown_findings
from loralab.data.labels import MISSING_WORDS, ClassTable, class_counts, other_spellings, row_classes
from loralab.data.row_lines import row_lines
from loralab.data.sources import (
    RawExamples,
    contract,
    given_classes,
    known_labels,
    number_notices,
    part_files,
    read_raw,
    training_classes,
    unlabelled_notices,
)
from loralab.data.split_remarks import split_remarks
from loralab.data.splits import Splits, load_splits
from loralab.data.text_findings import (
    duplicate_findings,
    length_findings,
    measure_texts,
    shared_findings,
    text_findings,
)
from loralab.data.tokenize import tokenizer_remarks
from loralab.data.types import Notice
from loralab.errors import LoralabError
from loralab.model.checkpoints import BaseCheckpoint, resolve_base
from loralab.storage.data_contract import DataContract

MAX_EXAMPLES, MAX_SUSPICIOUS = 3, 30
"""Texts of each class, and rows with suspicious labels, that a report lists."""
Verify = Callable[[Splits, ClassTable], object]
"""Raises LoralabError for settings that do not fit the classes, such as weights of classes that do not exist."""
_SETTING = r"(?:data|train|model)\.\w+=(?:'[^']*'|\S+)"
_PROPOSED = re.compile(rf"(?:for example|such as|write|set) ({_SETTING}(?: (?:or |and )?{_SETTING})*)")
"""The settings that a message proposes."""
_REMARK_FIXES = {
    "classes with few": "add rows of these classes, or hold out more, such as data.test=0.3 data.validation=0.2",
    "classes with training rows only": "add rows of these classes, or merge them with others",
    "which its macro F1 leaves out": "add rows of these classes",
    "are also": "remove the repeated rows",
    "nearly equal": "remove these rows, or keep them in one part with data.group=COLUMN",
    "(data.group)": "move the rows of a group into one file",
    "(data.time)": "move these rows, or leave data.time out",
}
"""Words of a remark on the splits, and what mends it."""


@dataclass(frozen=True)
class _File:
    """A file of one part: its labels as texts, and the class of each row, None for a missing label and for one that is no class."""

    part: PartName
    raw: RawExamples
    labels: Sequence[str | None]
    table: ClassTable
    decided: tuple[Notice, ...] = ()

    @property
    def classes(self) -> list[str | None]:
        return row_classes(self.labels, self.table)


@dataclass(frozen=True)
class _Training:
    """What training would do: its splits, and its decisions by part; or why it refuses."""

    splits: Splits | None = None
    decided: Mapping[str, Sequence[Notice]] | None = None
    refusal: str = ""


def check_source(
    data: DataConfig, model: ModelConfig | None = None, verify: Verify | None = None, rows: Parts | None = None
) -> list[DataReport]:
    """Check `data.source`, or `rows` in memory: training, validation and test rows, alone and against each other.

    Everything that training does with rows and labels is done, so what it refuses is an error here. model: names the
    encoder whose tokenizer measures the texts. Raises LoralabError only if a file cannot be read or its columns cannot be found.
    """
    with _copied_pipes(data) as (files, pipes):
        return [_with_names(report, pipes) for report in _reports(files, model or ModelConfig(), verify, rows)]


@contextmanager
def _copied_pipes(data: DataConfig) -> Iterator[tuple[DataConfig, dict[str, str]]]:
    """Yield settings with copies in place of pipes, which can be read once only, and the pipe of each copy."""
    settings = {name: getattr(data, name) for name in ("source", "validation", "test")}
    paths = {name: Path(value).expanduser() for name, value in settings.items() if isinstance(value, str)}
    pipes = {name: path for name, path in paths.items() if path.exists() and not path.is_file() and not path.is_dir()}
    with ExitStack() as stack:
        copies = {name: str(stack.enter_context(unpacked(path))[0]) for name, path in pipes.items()}
        yield data.model_copy(update=copies), {copy: str(pipes[name]) for name, copy in copies.items()}


def _with_names(report: DataReport, pipes: Mapping[str, str]) -> DataReport:
    """Return a report that names the pipes, not their copies."""
    for copy, pipe in pipes.items():
        notices, findings = (
            tuple(replace(own, message=own.message.replace(copy, pipe), fix=own.fix.replace(copy, pipe)) for own in group)
            for group in (report.notices, report.findings)
        )
        place = Path(pipe) if report.path == Path(copy) else report.path
        report = replace(report, path=place, notices=notices, findings=findings)
    return report


class _ReadOnce:
    """Reads each file once: the training, which is tried, gets the rows that are checked."""

    def __init__(self) -> None:
        self._files: dict[tuple[Part, bool], RawExamples] = {}

    def __call__(self, files: Part, data: DataConfig, run: DataContract | None, need: LabelNeed) -> RawExamples:
        key = files, run is not None  # a run says which columns other files have
        if key not in self._files or (need == "required" and self._files[key].columns.label is None):
            self._files[key] = read_raw(files, data, run, need)
        return self._files[key]


def _reports(data: DataConfig, model: ModelConfig, verify: Verify | None, rows: Parts | None) -> list[DataReport]:
    parts, read = rows or find_parts(data.source), _ReadOnce()
    files = [_training_file(read(parts.train, data, None, "wanted"), parts.notices, data)]
    run = contract(files[0].raw, files[0].table)
    for part, setting, own in (("validation", data.validation, parts.validation), ("test", data.test, parts.test)):
        if paths := part_files(setting, own):
            files.append(_other_file(part, read(paths, data, run, "named"), files[0].table, data))  # type: ignore[arg-type]
    training = _try_training(data, verify, rows, read)
    if any(unknown_findings(file.labels, file.table) for file in files[1:]) and "is not a class" in training.refusal:
        training = replace(training, refusal="")  # the findings on these labels say so
    return [_report(file, files[:i], data, model, training) for i, file in enumerate(files)]


def _training_file(raw: RawExamples, notices: Sequence[Notice], data: DataConfig) -> _File:
    """Find the classes of the training file. Labels that cannot be read are none here: the refusal of the training says why."""
    labels, table, decided = list[str | None](), ClassTable((), ()), list[Notice]()
    for names in (given_classes(data), ()) if raw.columns.label is not None else ():
        with suppress(LoralabError):
            labels, table, decided = training_classes(raw, names)
            break
    return _File("train", raw, labels, table, (*notices, *raw.notices, *decided, *unlabelled_notices(labels)))


def _other_file(part: PartName, raw: RawExamples, table: ClassTable, data: DataConfig) -> _File:
    labels, numbers = list[str | None](), dict[str, str]()
    if raw.columns.label is not None:
        with suppress(LoralabError):
            labels, _, numbers = known_labels(raw, table, data.classes)
    return _File(
        part,
        raw,
        labels,
        table,
        (*raw.notices, *number_notices(numbers), *other_spellings(labels, table), *unlabelled_notices(labels)),
    )


def _try_training(data: DataConfig, verify: Verify | None, rows: Parts | None, read: _ReadOnce) -> _Training:
    try:
        check_steps(data.clean)
        check_techniques(data.augment)
        splits, source = load_splits(data, rows, read)
        if verify is not None:
            verify(splits, source.classes)
    except LoralabError as error:
        return _Training(refusal=str(error))
    return _Training(splits, source.notices)


def _report(file: _File, earlier: Sequence[_File], data: DataConfig, model: ModelConfig, training: _Training) -> DataReport:
    """Return the report of a file. earlier: the files of the parts before it, with which it should share no texts."""
    raw, classes, sample = file.raw, file.classes, file.raw.sample
    lengths, collected = _measure(raw.texts, data, model)
    collected += text_findings(raw.texts, data.clean, _likelier(sample, raw.columns, "text"))
    labels: Sequence[str | None]
    if file.part == "train":
        labels = classes
        collected += label_findings(labels, _likelier(sample, raw.columns, "label"))
        collected += flag_findings(sample, raw.columns.label, raw.columns.text)
    else:
        labels = file.labels
        collected += unknown_findings(labels, file.table)
    repeated, duplicates, conflicts = duplicate_findings(raw.texts, classes)
    collected += repeated
    for other in earlier:
        own, name = (raw.texts, classes), "training" if other.part == "train" else other.part
        collected += shared_findings(own, (other.raw.texts, other.classes), name)
    collected += _decisions(file, training)
    order = ("error", "warning")
    return DataReport(
        part=file.part,
        path=raw.path,
        rows=len(raw.texts),
        reading=raw.facts or {},
        columns=raw.columns,
        detected=_how_detected(raw.columns, data),
        classes=_rows_of(classes, file.table),
        values=file.table.as_dict() if file.part == "train" else _spellings(file.labels, classes, file.table),
        lengths=lengths,
        notices=tuple(dict.fromkeys(notice for notice in collected if notice.severity == "note")),
        findings=tuple(dict.fromkeys(notice for severity in order for notice in collected if notice.severity == severity)),
        splits=_split_rows(training) if file.part == "train" else {},
        examples=_examples(raw.texts, classes, file.table),
        duplicates=tuple(duplicates),
        suspicious=tuple(_suspicious(raw.texts, labels, collected, conflicts)),
        lines=row_lines(raw.path, raw.facts or {}, data, len(raw.texts)) if any(notice.rows for notice in collected) else None,
    )


def _decisions(file: _File, training: _Training) -> list[Notice]:
    """Return what training decides about a part, or that it refuses the source."""
    decided = list(file.decided if training.decided is None else training.decided.get(file.part, ()))
    if file.part != "train":
        return decided
    if training.splits is None:
        return [*decided, *([_refusal(training.refusal)] if training.refusal else [])]
    own = {*training.splits.notices}
    empty = "rows have no text"  # the finding on empty texts has all rows
    remarks = [remark for remark in split_remarks(training.splits) if empty not in remark]
    return [*decided, *(Notice(remark) if remark in own else _remark(remark) for remark in remarks)]


def _refusal(message: str) -> Notice:
    """Return the error of training as a finding, with the settings that it proposes as the fix."""
    if proposed := _PROPOSED.search(message):
        return Notice(message, (), proposed[1].rstrip(",;.:"), "error")
    for mark in ("; ", ": "):
        what, _, fix = message.rpartition(mark)
        if what and "data." in fix:
            return Notice(what, (), fix, "error")
    return Notice(message, (), "correct the file or the settings, as this message says", "error")


def _remark(message: str) -> Notice:
    """Return a remark on the splits as a warning, with what mends it."""
    fix = next((fix for words, fix in _REMARK_FIXES.items() if words in message), "")
    return Notice(message, (), fix, "warning")


def _likelier(sample: Mapping[str, Sequence[object]], columns: Columns, kind: str) -> str:
    """Return a setting that names another column as texts or labels; empty if none looks like one."""
    used = (*columns.text, columns.label, columns.id)
    rest = {name: values for name, values in sample.items() if name not in used}
    candidates = text_candidates(rest) if kind == "text" else label_candidates(rest)
    return quote(f"data.{kind}={candidates[0]}") if candidates else ""


def _how_detected(columns: Columns, data: DataConfig) -> dict[str, str]:
    """Return how each column was found: as a setting says, by its name, or by its content."""
    detected = {}
    for kind, names, setting in (("text", columns.text, data.text), ("label", (columns.label,), data.label)):
        if None not in names:
            usual = all(str(name).strip().casefold() in USUAL_NAMES for name in names)
            detected[kind] = f"as data.{kind} says" if setting else "by name" if usual else "by content"
    if columns.id is not None:
        detected["id"] = "as data.id says" if data.id else "by name"
    return detected


def _measure(texts: Sequence[str], data: DataConfig, model: ModelConfig) -> tuple[TextLengths, list[Notice]]:
    """Return the lengths of texts in tokens, or in words if the encoder or its tokenizer cannot be loaded, and the problems."""
    try:
        checkpoint: BaseCheckpoint = resolve_base(model.base, model.revision)
        measured = measure_texts(texts, checkpoint.folder, [step for step in data.clean if _is_step(step)])
    except LoralabError as error:
        lengths = TextLengths(tuple(len(text.split()) for text in texts))
        return lengths, [replace(_refusal(str(error)), fix="correct model.base, or download the encoder first")]
    longest = checkpoint.dims.longest
    lengths = TextLengths(tuple(measured.lengths.tolist()), "tokens", model.base, min(data.max_length, longest))
    remarks = [Notice(remark, severity="warning") for remark in tokenizer_remarks(checkpoint.folder)]
    return lengths, [*remarks, *length_findings(measured, model.base, data.max_length, longest)]


def _is_step(step: str) -> bool:
    with suppress(LoralabError):
        check_steps([step])
        return True
    return False


def _rows_of(classes: Sequence[str | None], table: ClassTable) -> dict[str, int]:
    counts = Counter(classes)
    return {name: counts[name] for name in table.names if classes}


def _spellings(labels: Sequence[str | None], classes: Sequence[str | None], table: ClassTable) -> dict[str, list[str]]:
    """Return how a file writes each class."""
    pairs = dict.fromkeys(zip(labels, classes, strict=True))
    return {name: [str(label) for label, own in pairs if own == name] for name in table.names}


def _split_rows(training: _Training) -> dict[str, dict[str, int]]:
    """Return the rows by class of each part that training would use."""
    parts = training.splits.parts() if training.splits is not None else {}
    return {part: class_counts(rows.require_labels(), rows.classes) for part, rows in parts.items()}


def _examples(texts: Sequence[str], classes: Sequence[str | None], table: ClassTable) -> dict[str, list[str]]:
    examples: dict[str, list[str]] = {name: [] for name in table.names if classes}
    for text, name in zip(texts, classes, strict=False):
        if name is not None and len(examples[name]) < MAX_EXAMPLES and text.strip() and text not in examples[name]:
            examples[name].append(text)
    return examples


def _suspicious(
    texts: Sequence[str], labels: Sequence[str | None], notices: Sequence[Notice], conflicts: Sequence[int]
) -> list[SuspiciousLabel]:
    """Return the rows with labels that are alike, unknown, or read like missing values, and texts with several labels."""
    reasons: dict[int, str] = {}
    for notice in notices:
        if "looks like" in notice.message or "is not in the training rows" in notice.message:
            reasons |= dict.fromkeys(notice.rows, notice.message)
    reasons |= {
        row: "reads like a missing value" for row, label in enumerate(labels) if label and label.casefold() in MISSING_WORDS
    }
    reasons |= dict.fromkeys(conflicts, "this text also occurs with another label")
    return [SuspiciousLabel(row, str(labels[row]), texts[row], reasons[row]) for row in sorted(reasons)[:MAX_SUSPICIOUS]]
