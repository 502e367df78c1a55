"""Exports of annotation tools → columns with texts and labels. A tool is recognised by the columns of its exports."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loralab.data.columns import LABEL_NAMES, TEXT_NAMES
from loralab.data.limits import check_size
from loralab.data.types import ColumnChunk, Notice

Row = Mapping[str, Any]
Columns = Mapping[str, Sequence[Any]]
UNANNOTATED = "without an annotation"
_ANSWERS = {"accept": "", "reject": "rejected", "ignore": "ignored"}
_STUDIO_METADATA = frozenset(
    (
        "id",
        "inner_id",
        "annotator",
        "annotation_id",
        "created_at",
        "updated_at",
        "lead_time",
        "agreement",
        "project",
        "total_annotations",
    )
)


@dataclass(frozen=True)
class Annotated:
    """A converted row. fields: its text columns. labels: a value, a list or None by question. reason: why it has no label."""

    fields: Row
    labels: Row
    reason: str = ""


@dataclass(frozen=True)
class Tool:
    """A tool, whether columns are those of one of its exports, and the conversion of a row."""

    name: str
    matches: Callable[[Columns], bool]
    convert: Callable[[Row], Annotated]


@dataclass
class _Seen:
    """What the rows of an export held. unlabelled: rows without a label by reason. repeated: further annotations of a task."""

    rows: int = 0
    unlabelled: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    questions: Counter[str] = field(default_factory=Counter)
    repeated: list[int] = field(default_factory=list)


def read_exports(chunks: Iterator[ColumnChunk], notices: list[Notice]) -> Iterator[ColumnChunk]:
    """Yield chunks, those of an annotation tool's export with its texts and labels as columns.

    Rows that an annotator rejected, ignored or skipped, or has not seen, get no label. Annotators who disagree give a row several
    labels. What was read is noted at the end.
    """
    tool: Tool | None = None
    seen = _Seen()
    for i, chunk in enumerate(chunks):
        if i == 0:
            tool = next((tool for tool in TOOLS if tool.matches(chunk.columns)), None)
        yield chunk if tool is None else _converted(chunk, tool, seen)
    if tool is not None:
        notices += _notices(tool, seen)


def _converted(chunk: ColumnChunk, tool: Tool, seen: _Seen) -> ColumnChunk:
    names = [*chunk.columns]
    rows = [tool.convert(dict(zip(names, values, strict=True))) for values in zip(*chunk.columns.values(), strict=True)]
    for i, row in enumerate(rows, seen.rows):
        if row.reason:
            seen.unlabelled[row.reason].append(i)
    fields, labels = _columns([row.fields for row in rows]), _columns([row.labels for row in rows])
    if len(labels) > 1 and not any(label is not None for label in labels.get("label", ())):
        labels.pop("label", None)  # rows without an annotation name no question
    if tool.convert is _from_flat_studio:
        _collect_annotators(chunk.columns.get("id", ()), labels, seen)
    seen.rows += len(rows)
    seen.questions.update([*labels])
    fields = {f"data.{name}" if name in labels else name: values for name, values in fields.items()}
    texts = [name for name, values in fields.items() if any(isinstance(value, str) for value in values)]
    if len(texts) == 1 and texts[0].casefold() not in TEXT_NAMES:
        fields["text"] = fields[texts[0]]
    if len(labels) == 1 and not {name.casefold() for name in labels} & {*LABEL_NAMES}:
        labels = {"label": next(iter(labels.values())), **labels}
    kept = {name: values for name, values in chunk.columns.items() if name not in ("data", "fields") or not _all(values, Mapping)}
    keeps_names = tool.convert is _from_prodigy  # its labels are the column's own values
    class_names = {name: own for name, own in chunk.class_names.items() if keeps_names or name not in labels}
    return ColumnChunk({**kept, **fields, **labels}, class_names)


def _collect_annotators(tasks: Sequence[Any], labels: Mapping[str, list[Any]], seen: _Seen) -> None:
    """Give each row of a task the labels of all its rows, one for each annotator, and note tasks of several rows."""
    rows = defaultdict[Any, list[int]](list)
    for row, task in enumerate(tasks):
        if task is not None:
            rows[task].append(row)
    for own in (own for own in rows.values() if len(own) > 1):
        seen.repeated += [row + seen.rows for row in own[1:]]
        for values in labels.values():
            agreed = _agreed(values[row] for row in own if values[row] is not None)
            for row in own:
                values[row] = agreed


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    check_size(0, len(names), "the export")
    return {name: [row.get(name) for row in rows] for name in names}


def _notices(tool: Tool, seen: _Seen) -> list[Notice]:
    questions = [*map(repr, seen.questions)]
    named = f", labels of {', '.join(questions)}" if {*seen.questions} - {"label"} else ""
    fix = "data.label=NAME reads another one" if len(questions) > 1 else ""
    notices = [Notice(f"read as an export of {tool.name}{named}", fix=fix)]
    if seen.repeated:
        message = f"{len(seen.repeated)} rows are further annotations of a task: their texts are repeated"
        notices.append(Notice(message, tuple(sorted(seen.repeated)), "keep one row per task", "warning"))
    for reason, rows in seen.unlabelled.items():
        message = f"{len(rows):,} of {seen.rows:,} rows are {reason}: they have no label"
        if reason in _ANSWERS.values():
            message = f"column 'answer': {len(rows):,} of {seen.rows:,} rows are not accepted ({reason}): they have no label"
        notices.append(Notice(message, tuple(rows), severity="warning"))
    return notices


def _agreed(labels: Iterable[Any]) -> Any:
    """Return the label that all annotations give, all of them if they differ, None without any."""
    distinct: list[Any] = []
    for label in labels:
        distinct += [label] if label not in distinct else []
    return distinct[0] if len(distinct) == 1 else distinct or None


def _annotated(fields: Row, labels: Mapping[str, Iterable[Any]], reason: str = UNANNOTATED) -> Annotated:
    agreed = {name: _agreed(values) for name, values in labels.items()} or {"label": None}
    return Annotated(fields, agreed, "" if any(label is not None for label in agreed.values()) else reason)


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list; none for anything else."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, (list, tuple)) else []


def _all(values: Sequence[Any], kind: type | tuple[type, ...]) -> bool:
    """Whether all values that are not missing are of a kind, at least one of them."""
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, kind) for value in present)


def _from_spacy(row: Row) -> Annotated:
    cats = row["cats"] or {}
    true = [name for name, share in cats.items() if share is not None and share >= 0.5]
    return Annotated({}, {"label": _agreed(true)}, "" if true else "of no category")


def _is_prodigy(columns: Columns) -> bool:
    answers = {answer for answer in columns.get("answer", ()) if answer is not None}
    return bool(answers) and answers <= _ANSWERS.keys() and not columns.keys().isdisjoint(("label", "accept"))


def _from_prodigy(row: Row) -> Annotated:
    accepted = row["accept"] if row.get("accept") is not None else row.get("label")
    if reason := _ANSWERS.get(row["answer"], "not answered"):
        return Annotated({}, {"label": None}, reason)
    label = accepted if not isinstance(accepted, list) else _agreed(accepted)
    return Annotated({}, {"label": label}, "" if label is not None else UNANNOTATED)


def _from_label_studio(row: Row) -> Annotated:
    labels = defaultdict[str, list[Any]](list)
    cancelled = False
    for annotation in _dicts(row.get("annotations") or row.get("completions")):
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            cancelled = True
            continue
        for result in _dicts(annotation.get("result")):
            value = result.get("value") or {}
            labels[str(result.get("from_name", "label"))] += _choices(value.get("choices", value.get("rating")))
    return _annotated(row["data"] or {}, labels, "skipped by an annotator" if cancelled else UNANNOTATED)


def _choices(value: Any) -> list[Any]:
    """Return the choices of a value: a list, an object with the list `choices`, the same as JSON, or one choice."""
    if isinstance(value, str) and value.startswith(('{"choices"', '["')):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return [value]
    if isinstance(value, Mapping):
        value = value.get("choices")
    return [] if value is None or value == "" else [*value] if isinstance(value, list) else [value]


def _is_flat_studio(columns: Columns) -> bool:
    return columns.keys() >= {"annotation_id", "lead_time"} or columns.keys() >= {"annotation_id", "annotator"}


def _from_flat_studio(row: Row) -> Annotated:
    labels: dict[str, list[Any]] = {}
    for name, value in row.items():
        is_choice = isinstance(value, Mapping) or (isinstance(value, str) and value.startswith('{"choices"'))
        if name not in _STUDIO_METADATA and (is_choice or name.casefold() in LABEL_NAMES):
            labels[name] = _choices(value)
    if not labels:
        return Annotated({}, {})
    return _annotated({}, labels)


def _from_argilla(row: Row) -> Annotated:
    """Convert a record of Argilla 2, or of the feedback datasets of Argilla 1. Suggestions are no labels."""
    labels = defaultdict[str, list[Any]](list)
    responses, discarded = row.get("responses") or {}, row.get("status") == "discarded"
    if isinstance(responses, Mapping):
        answers = [(question, one) for question, given in responses.items() for one in _dicts(given)]
    else:
        answers = [
            (question, {"status": answer.get("status", "submitted"), **value})
            for answer in _dicts(responses)
            for question, value in (answer.get("values") or {}).items()
        ]
    for question, answer in answers:
        labels[question] += _choices(answer.get("value")) if answer.get("status", "submitted") == "submitted" else []
        discarded = discarded or answer.get("status") == "discarded"
    return _annotated(row["fields"] or {}, labels, "discarded" if discarded else "without a submitted response")


def _from_flat_argilla(row: Row) -> Annotated:
    labels: dict[str, list[Any]] = {}
    for column in (name for name in row if name.endswith(".responses")):
        question, states = column.removesuffix(".responses"), row.get(f"{column}.status") or []
        answers = row[column] or []
        given = [one for i, one in enumerate(answers) if i >= len(states) or states[i] == "submitted"]
        labels[question] = [choice for one in given for choice in _choices(one)]
    return _annotated({}, labels, "without a submitted response")


def _feedback_questions(columns: Columns) -> list[str]:
    """Return the questions of an Argilla feedback dataset on the hub: a list of responses each, beside suggestions."""
    return [name for name, values in columns.items() if f"{name}-suggestion" in columns and _all(values, list)]


def _from_argilla_feedback(row: Row) -> Annotated:
    questions = [name for name, value in row.items() if f"{name}-suggestion" in row and not isinstance(value, str)]
    labels = {
        name: [
            choice for one in _dicts(row[name]) if one.get("status") in (None, "submitted") for choice in _choices(one.get("value"))
        ]
        for name in questions
    }
    return _annotated({}, labels, "without a submitted response")


def _from_old_argilla(row: Row) -> Annotated:
    inputs = row.get("inputs") if isinstance(row.get("inputs"), Mapping) and row.get("text") is None else {}
    if row.get("status") == "Discarded":
        return Annotated(inputs or {}, {"label": None}, "discarded")
    return _annotated(inputs or {}, {"label": _choices(row["annotation"])})


def _is_doccano(columns: Columns) -> bool:
    labels = columns.get("label", columns.get("labels", ()))
    annotations = columns.get("annotations", ())
    texts = columns.get("data", columns.get("text", ()))
    if not _all(texts, str):
        return False
    if _all(annotations, list) and all("label" in one for given in annotations for one in _dicts(given)):
        return any(_dicts(given) for given in annotations)
    return _all(labels, list) and ("data" in columns or "labels" in columns)


def _from_doccano(row: Row) -> Annotated:
    given = row.get("label", row.get("labels"))
    labels = [one.get("label") for one in _dicts(row["annotations"])] if "annotations" in row else _choices(given)
    return _annotated({"text": row.get("text", row.get("data"))}, {"label": labels})


TOOLS = (
    Tool("spaCy", lambda columns: "text" in columns and _all(columns.get("cats", ()), Mapping), _from_spacy),
    Tool("Prodigy", _is_prodigy, _from_prodigy),
    Tool(
        "Label Studio",
        lambda columns: _all(columns.get("data", ()), dict) and not columns.keys().isdisjoint(("annotations", "completions")),
        _from_label_studio,
    ),
    Tool("Label Studio", _is_flat_studio, _from_flat_studio),
    Tool(
        "Argilla",
        lambda columns: _all(columns.get("fields", ()), dict) and not columns.keys().isdisjoint(("responses", "suggestions")),
        _from_argilla,
    ),
    Tool("Argilla", lambda columns: any(name.endswith(".responses") for name in columns), _from_flat_argilla),
    Tool("Argilla", lambda columns: bool(_feedback_questions(columns)), _from_argilla_feedback),
    Tool(
        "Argilla",
        lambda columns: "annotation" in columns and not columns.keys().isdisjoint(("prediction", "annotation_agent", "inputs")),
        _from_old_argilla,
    ),
    Tool("doccano", _is_doccano, _from_doccano),
)
"""Tools in the order in which they are tried."""
