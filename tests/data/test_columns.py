"""Which columns hold texts, labels and ids, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loralab.config import DataConfig
from loralab.data.columns import Columns, find_columns, find_id, label_candidates, list_names, resolve_names, text_candidates
from loralab.errors import LoralabError

FILE = Path("a.csv")
LONG, LONGER = ["a text of some words"] * 8, ["another text of some more words"] * 8
KINDS = [*"abababab"]


def find(values: dict[str, list[Any]], run: Columns | None = None, labels: Any = "required", **settings: Any) -> tuple[Any, ...]:
    columns, notices = find_columns(values, FILE, DataConfig(**settings), run=run, labels=labels)
    return columns.text, columns.label, columns.id, [str(notice) for notice in notices]


def refused(values: dict[str, list[Any]], labels: Any = "required", **settings: Any) -> str:
    with pytest.raises(LoralabError) as error:
        find(values, None, labels, **settings)
    return str(error.value)


@pytest.mark.parametrize(
    ("values", "candidates"),
    [
        ({"a": ["x" * 14] * 2, "b": ["xxxxx"]}, ["a"]),
        ({"a": ["x" * 10], "b": ["xxxxx"]}, ["a"]),
        ({"a": ["x" * 9], "b": ["xxxxx"]}, ["a", "b"]),
        ({"a": ["xxxx"] * 9, "b": ["xxxxxx"]}, ["b", "a"]),
        ({"a": ["xxxx"], "b": ["xx"]}, ["a", "b"]),
        ({"a": ["-1.5", " 2", "1.25 "], "b": [1, 2], "c": [" ", "", None], "d": ["1.2.3"]}, ["d"]),
        ({"a": ["x", None, " ", 5]}, ["a"]),
        ({}, []),
    ],
)
def test_texts_are_the_longest_values(values: dict[str, list[Any]], candidates: list[str]) -> None:
    assert text_candidates(values) == candidates


@pytest.mark.parametrize(
    ("column", "may_be"),
    [
        ([*"abab"], True),
        ([*"aba"], False),
        ([*"aaaa"], False),
        ([*"abca"], False),
        ([*"abcabc"], True),
        ([0, 1, 1, 0], True),
        ([*"aba", "", None], False),
        (["a", "x" * 60, "a", "a"], True),
        (["a", "x" * 61, "a", "a"], False),
    ],
)
def test_labels_are_few_short_and_repeated(column: list[Any], may_be: bool) -> None:
    assert label_candidates({"one": column}) == ["one"] * may_be


@pytest.mark.parametrize(
    ("names", "taken", "name"),
    [
        (["text", "Index", "id"], (), "id"),
        (["text", "Index", "id"], ("id",), "Index"),
        (["text", "row_ID"], (), "row_ID"),
        (["text", "row id", "a_id"], (), "row id"),
        (["text", "rowId"], (), "rowId"),
        (["text", "valid", "idle"], (), None),
    ],
)
def test_ids_are_found_by_name(names: list[str], taken: tuple[str, ...], name: str | None) -> None:
    assert find_id(names, taken) == name


def test_names_in_messages_are_quoted_where_needed_and_at_most_eight() -> None:
    assert list_names(["a", "b c", "d,e", "f;g", ""]) == "a, 'b c', 'd,e', 'f;g', ''"
    assert list_names([*"abcdefgh"]) == "a, b, c, d, e, f, g, h"
    assert list_names([*"abcdefgh", *"i" * 1001]) == "a, b, c, d, e, f, g, h and 1,001 more"


def test_columns_are_found_by_usual_names() -> None:
    assert find({"id": [1], "Label": [*"a"], "Text": LONG[:1]}) == (("Text",), "Label", "id", [])
    assert find({"class": KINDS, "title": LONG, "body": LONGER, "n": KINDS}) == (("title", "body"), "class", None, [])
    assert find({"y": KINDS, "title": LONG, "headline": LONGER}) == (("headline",), "y", None, [])
    assert find({"anything": LONG, "topic": KINDS}) == (("anything",), "topic", None, [])


def test_columns_are_found_by_content_and_noted() -> None:
    values = {"words": LONG, "n": [f"x{i}" for i in range(8)], "kind": KINDS}
    assert find(values) == (
        ("words",),
        "kind",
        None,
        [
            "the texts are in column 'words', by its length; data.text=NAME reads another column",
            "the labels are in column 'kind', by its 2 values; data.label=NAME reads another column",
        ],
    )
    assert find(values, labels="named")[1] is None
    assert find({"words": LONG, "more": KINDS, "kind": KINDS}, labels="wanted")[1] is None


def test_columns_are_those_the_user_names() -> None:
    values = {"a, b": LONG, "c": LONGER, " d ": KINDS, "e": KINDS, "f": [*range(8)]}
    assert find(values, text=["c", "a, b"], label="e", id="f") == (("c", "a, b"), "e", "f", [])
    assert resolve_names(["c,a", "e "], ["a", "c", "e"], FILE, "text") == ("c", "a", "e")
    message = "a.csv has no column 'lable' (data.label); did you mean 'label'?; columns: text, label"
    assert refused({"text": LONG, "label": KINDS}, label="lable") == message
    message = "a.csv has no column 'zz' (data.text); columns: text, label"
    assert refused({"text": LONG, "label": KINDS}, text=["text,zz"]) == message
    assert refused({"text": LONG, "label": KINDS}, id="zz") == message.replace("data.text", "data.id")
    assert find({"text": LONG, "label": KINDS}, labels="named", label="zz")[1] == "label", "a file to predict may have no labels"


def test_columns_are_those_of_the_run() -> None:
    run = Columns(("c",), "e", "f")
    assert find({"C ": LONG, "text": LONGER, "E": KINDS, "F": [*range(8)]}, run) == (("C ",), "E", "F", [])
    assert find({"text": LONGER, "label": KINDS}, run) == (
        ("text",),
        "label",
        None,
        ["column 'text' is read: the file has no column 'c', as in training; data.text=NAME reads another column"],
    )
    _, notices = find_columns({"text": LONG, "label": KINDS}, FILE, DataConfig(), run=run, labels="required")
    assert [notice.severity for notice in notices] == ["warning"]
    assert find({"c": LONG, "C": LONGER, "text": LONGER, "label": KINDS}, Columns(("c",), None)) == (("c",), "label", None, [])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"one": LONG, "two": LONGER, "kind": KINDS},
            "a.csv has columns one, two, kind: name the text and the label column, for example data.text=two data.label=kind",
        ),
        (
            {"text": LONG, "a kind": KINDS, "b": [*"xyxyxyxy"]},
            "a.csv has columns text, 'a kind', b: name the label column, for example data.label='a kind'",
        ),
        (
            {"text": LONG, "n": [*range(8)]},
            "a.csv has no label column that can be told from its columns text, n: name it with data.label=COLUMN",
        ),
        (
            {"text": LONG, "spam": [0, 1] * 4, "rude": ["True", "False"] * 4},
            "a.csv has columns text, spam, rude: name the label column, for example data.label=spam\n"
            "  spam, rude are all 0 or 1, so a text may have several labels: loralab learns one column",
        ),
    ],
)
def test_columns_that_are_not_clear_are_refused_with_settings(values: dict[str, list[Any]], message: str) -> None:
    assert refused(values) == message


def test_columns_as_text() -> None:
    assert str(Columns(("a", "b"), None, "c")) == "text: a + b, id: c"


@pytest.mark.parametrize(
    ("flags", "several"),
    [
        ({"toxic": ["0", "1"] * 4, "insult": ["1", "0"] * 4}, True),
        ({"toxic": ["True", "False"] * 4, "insult": [1, 0] * 4}, True),
        ({"toxic": ["0", "1"] * 4}, False),
        ({"toxic": ["0", "1"] * 4, "kind": ["a", "b"] * 4}, False),
    ],
)
def test_several_columns_of_flags_are_explained(flags: dict[str, list[Any]], several: bool) -> None:
    values = {"text": [f"a long text of row {i}" for i in range(8)], **flags, "n": [f"{i}" for i in range(8)]}
    if len(flags) == 1:
        assert find(values)[1] == "toxic"
    else:
        message = refused(values)
        assert ("are all 0 or 1" in message) == several
        assert message.partition("\n")[0].endswith("name the label column, for example data.label=toxic")
