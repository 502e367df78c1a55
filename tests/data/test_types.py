"""Values that the data modules exchange: notices, chunks, examples, facts of tokenized texts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow
import pytest

from loralab.data.types import ArrowColumns, ColumnChunk, Encoded, Examples, MemoryTable, Notice, TextFacts, count_of, list_rows

TEXTS = ["one", "two", "three"]
FULL = Examples(
    TEXTS, np.array([1, 0, 1]), np.array([4, 6, 9]), ("a", "b"), ["g", "h", "i"], [3, 2, 1], weights=np.array([0.5, 1.0, 2.0])
)
BARE = Examples(["four"], np.array([0]), np.array([0]), ("a", "b"))


def plain(examples: Examples) -> dict[str, object]:
    """Return the fields as lists, to compare them."""
    fields = {field.name: getattr(examples, field.name) for field in dataclasses.fields(examples)}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in fields.items()}


def test_notices_have_rows_and_a_fix() -> None:
    assert str(Notice("m")) == "m"
    assert str(Notice("m", (3,), "write x", "error")) == "m (row 3); write x"
    assert Notice("m").severity == "note"
    assert (list_rows([0]), list_rows([1, 2])) == ("row 0", "rows 1, 2")
    assert list_rows(range(8)) == "rows 0, 1, 2, 3, 4, 5, 6, 7"
    assert list_rows(range(1009)) == "rows 0, 1, 2, 3, 4, 5, 6, 7 and 1,001 more"


@pytest.mark.parametrize(("number", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1234, "1,234 rows")])
def test_numbers_of_things(number: int, text: str) -> None:
    assert count_of(number, "row") == text
    assert count_of(number, "text is", "texts are") == text.replace("rows", "texts are").replace("row", "text is")


def test_memory_tables_are_called_by_their_name() -> None:
    assert str(MemoryTable("the rows", pyarrow.table({"x": [1]}))) == "the rows"


def test_arrow_columns_are_a_mapping_and_converted_once() -> None:
    columns = ArrowColumns(pyarrow.table({"text": ["x", "y"], "label": ["0", None]}))
    assert (len(columns), [*columns], columns["label"]) == (2, ["text", "label"], ["0", None])
    assert columns["text"] is columns["text"]
    assert dict(columns) == {"text": ["x", "y"], "label": ["0", None]}


@pytest.mark.parametrize("arrow", [False, True])
def test_chunks_count_rows_and_find_equal_ones(arrow: bool) -> None:
    values = {"text": ["text", "x", "text", "text"], "label": ["label", "label", "y", "label"]}
    chunk = ColumnChunk(ArrowColumns(pyarrow.table(values)) if arrow else values)
    assert (chunk.rows, chunk.class_names) == (4, {})
    assert chunk.rows_equal(["text", "label"]) == [0, 3]
    assert chunk.rows_equal(["absent", "label"]) == []
    assert chunk.rows_equal(["x", "y"]) == []
    assert ColumnChunk({}).rows == 0


def test_taken_examples_keep_all_that_belongs_to_a_row() -> None:
    expected = {
        "texts": ["three", "one"],
        "labels": [1, 1],
        "rows": [9, 4],
        "classes": ("a", "b"),
        "groups": ["i", "g"],
        "times": [1, 3],
        "weights": [2.0, 0.5],
    }
    assert plain(FULL.take(np.array([2, 0]))) == expected
    bare = Examples(TEXTS, None, np.arange(3)).take(np.array([1]))
    assert plain(bare) == {
        "texts": ["two"],
        "labels": None,
        "rows": [1],
        "classes": (),
        "groups": None,
        "times": None,
        "weights": None,
    }
    with pytest.raises(ValueError, match="no labels"):
        bare.require_labels()


def test_joined_examples_keep_what_both_have() -> None:
    twice = FULL.join(FULL)
    assert plain(twice) == {
        "texts": TEXTS * 2,
        "labels": [1, 0, 1] * 2,
        "rows": [4, 6, 9] * 2,
        "classes": ("a", "b"),
        "groups": ["g", "h", "i"] * 2,
        "times": [3, 2, 1] * 2,
        "weights": [0.5, 1.0, 2.0] * 2,
    }
    for first, second in ((FULL, BARE), (BARE, FULL)):
        joined = first.join(second)
        assert (joined.groups, joined.times, joined.weights, len(joined)) == (None, None, None, 4)
        assert joined.texts == [*first.texts, *second.texts]


def test_fingerprints_depend_on_content_and_order() -> None:
    others = [
        FULL,
        FULL.take(np.array([1, 0, 2])),
        dataclasses.replace(FULL, texts=["one", "two", "three "]),
        dataclasses.replace(FULL, texts=["onetwo", "", "three"]),
        dataclasses.replace(FULL, labels=np.array([1, 1, 1])),
        dataclasses.replace(FULL, labels=None),
        dataclasses.replace(FULL, classes=("ab",)),
        dataclasses.replace(FULL, weights=None),
        dataclasses.replace(FULL, weights=np.array([0.5, 1.0, 3.0])),
        dataclasses.replace(FULL, texts=["one", "two", "\ud800"]),
    ]
    assert len({examples.fingerprint() for examples in others}) == len(others)
    assert FULL.fingerprint() == dataclasses.replace(FULL, rows=np.arange(3), groups=None, times=None).fingerprint()
    # A run compares its rows with the fingerprint that it stored: it must not change between versions.
    assert BARE.fingerprint() == "d2542688bb1e7d26"
    assert FULL.fingerprint() == "c06b81ce0964957c"


def test_facts_of_texts_add_up() -> None:
    first, second = TextFacts(1, 2, 3, (0, 4), 5, 6), TextFacts(10, 20, 30, (7,), 50, 60)
    assert first + second == TextFacts(11, 22, 33, (), 55, 60)
    assert second + first == first + second


def test_tokenized_texts_have_lengths() -> None:
    encoded = Encoded(np.arange(5, dtype=np.int32), np.array([0, 2, 2, 5]), None, 0)
    assert (len(encoded), encoded.lengths.tolist(), encoded.longest) == (3, [2, 0, 3], 3)
    assert Encoded(np.zeros(0, dtype=np.int32), np.array([0]), None, 0).longest == 0


def test_fields_of_other_types_fail_in_tests() -> None:
    """The fixture `types_of_fields` sees them."""
    notice: type = Notice
    for arguments in ((None,), ("m", [1]), ("m", ("1",)), ("m", (), None), ("m", (), "", "WARNING")):
        with pytest.raises(AssertionError, match="Notice"):
            notice(*arguments)
    with pytest.raises(AssertionError, match="Examples"):
        Examples([None], None, np.arange(1))  # type: ignore[list-item]
