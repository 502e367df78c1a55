"""Exports of annotation tools → records with a text and a label each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from loralab.data.types import Notice

Record = Mapping[str, Any]
_REASON = "\x00reason"
"""Key of why a converted record has no label; no file has it."""


def flatten(rows: Iterator[Any], notices: list[Notice]) -> Iterator[Record]:
    """Yield records with a text and a label each. The exports of annotation tools are recognised by the first record.

    Rows that an annotator rejected, ignored or cancelled, or has not seen, get no label; they are counted in a notice at the end.
    """
    first = next(rows, None)
    if first is None:
        return
    tool, convert = next(((tool, convert) for tool, matches, convert in _EXPORTS if matches(first)), ("", dict))
    unlabelled = Counter[str]()
    for row in chain((first,), rows):
        record = convert(row)
        if reason := record.pop(_REASON, ""):
            unlabelled[reason] += 1
        yield record
    if tool:
        left = "".join(f"; {count} {reason} rows have no label" for reason, count in unlabelled.items())
        notices.append(Notice(f"read as an export of {tool}{left}"))


def _from_spacy(row: Record) -> dict[str, Any]:
    return {"text": row.get("text"), "label": [name for name, share in row["cats"].items() if share and share >= 0.5]}


def _from_prodigy(row: Record) -> dict[str, Any]:
    if row["answer"] == "accept":
        return {"text": row["text"], "label": row.get("accept", row.get("label"))}
    return {"text": row["text"], "label": None, _REASON: {"reject": "rejected", "ignore": "ignored"}.get(row["answer"], "other")}


def _from_doccano(row: Record) -> dict[str, Any]:
    rest = {key: value for key, value in row.items() if key not in ("data", "labels")}
    return {**rest, "text": row.get("text", row.get("data")), "label": row.get("label", row.get("labels", []))}


def _from_label_studio(row: Record) -> dict[str, Any]:
    annotations = [one for one in row.get("annotations", row.get("completions", [])) if not one.get("was_cancelled")]
    results = [result for annotation in annotations for result in annotation.get("result", [])]
    choices = {choice for result in results for choice in result.get("value", {}).get("choices", [])}
    return {**row["data"], "label": sorted(choices), **({} if choices else {_REASON: "unannotated"})}


def _from_argilla(row: Record) -> dict[str, Any]:
    fields = row.get("fields") or row.get("inputs") or {"text": row.get("text")}
    if "annotation" in row:
        label = row["annotation"]
    else:
        answers = row.get("responses") or {}
        per_question: dict[str, list[Any]] = dict(answers) if isinstance(answers, dict) else {}
        for answer in answers if isinstance(answers, list) else ():  # one entry for each annotator
            for question, value in (answer.get("values") or {}).items():
                per_question.setdefault(question, []).append({**value, "status": answer.get("status", "submitted")})
        given = [one for values in per_question.values() for one in values if one.get("status", "submitted") == "submitted"]
        label = sorted({str(one["value"]) for one in given})
    return {**fields, "label": label, **({} if label else {_REASON: "unannotated"})}


def _from_flat_argilla(row: Record) -> dict[str, Any]:
    (question,) = [key.removesuffix(".responses") for key in row if key.endswith(".responses")]
    states = row.get(f"{question}.responses.status") or []
    answers = row[f"{question}.responses"] or []
    label = sorted({str(one) for i, one in enumerate(answers) if i >= len(states) or states[i] == "submitted"})
    fields = {key: value for key, value in row.items() if not key.startswith(f"{question}.")}
    return {**fields, "label": label, **({} if label else {_REASON: "unannotated"})}


def _is_doccano(row: Record) -> bool:
    labels = row.get("label", row.get("labels"))
    return isinstance(labels, list) and (row.keys() >= {"data", "label"} or row.keys() >= {"text", "labels"})


_EXPORTS: tuple[tuple[str, Any, Any], ...] = (
    ("spaCy", lambda row: row.keys() >= {"text", "cats"}, _from_spacy),
    ("Prodigy", lambda row: row.keys() >= {"text", "answer"} and row.keys() & {"label", "accept"}, _from_prodigy),
    (
        "Label Studio",
        lambda row: isinstance(row.get("data"), dict) and row.keys() & {"annotations", "completions"},
        _from_label_studio,
    ),
    ("Argilla", lambda row: "fields" in row and row.keys() & {"responses", "suggestions"}, _from_argilla),
    ("Argilla", lambda row: row.keys() >= {"annotation", "prediction"}, _from_argilla),
    ("Argilla", lambda row: sum(key.endswith(".responses") for key in row) == 1, _from_flat_argilla),
    ("doccano", _is_doccano, _from_doccano),
)
"""Name of the tool, whether a first record is one of its exports, and the conversion of a record."""
