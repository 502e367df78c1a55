"""Label values → classes: one class per meaning, other files matched by value, never by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from loralab.data.labels import (
    UNLABELLED,
    ClassTable,
    check_known,
    class_indices,
    classes_setting,
    declared_numbers,
    find_classes,
    hide_unlabelled,
    label_text,
    label_texts,
    missing_words,
    name_classes,
    natural_key,
    other_spellings,
    row_classes,
)
from loralab.data.types import Notice
from loralab.errors import LoralabError


def classes(values: Sequence[Any]) -> ClassTable:
    return find_classes(label_texts(values, "a.csv"))[0]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["2.0", "2.1", "3.0", "3.10"], ("2.0", "2.1", "3.0", "3.10")),  # versions
        ([0.5, 1.0, 1.5, 2.0], ("0.5", "1.0", "1.5", "2.0")),
        (["1.0", "2.0", "10.0"], ("1", "2", "10")),
        ([1.0, 2.0, 1], ("1", "2")),
        (["01", "1", "2"], ("1", "2")),
        (["-1", "0", "1"], ("-1", "0", "1")),
        (["intent_10", "intent_9", "intent_100"], ("intent_9", "intent_10", "intent_100")),
        (["v1.10", "v1.9"], ("v1.9", "v1.10")),
        (["no", "No", "NO", "no", "yes"], ("no", "yes")),
        (["Sci/Tech", "sci/tech ", "Sci/Tech"], ("Sci/Tech",)),
        (["cafe\u0301", "caf\u00e9", "caf\u00e9"], ("caf\u00e9",)),
        (["two  words", "two words", "two words"], ("two words",)),
        (["ＡＢ", "AB", "AB"], ("AB",)),
        (["straße", "STRASSE", "straße"], ("straße",)),
        ([True, False], ("False", "True")),
        ([["a"], ["b"], "a"], ("a", "b")),
        ([{"label": "a"}, {"label": "b"}], ("a", "b")),
        ([{"POS": 1.0, "NEG": 0.0}, {"POS": 0.0, "NEG": 1.0}], ("NEG", "POS")),
        (["nan", "N/A", "x"], ("N/A", "nan", "x")),
    ],
)
def test_classes_of_a_training_file(values: list[Any], names: tuple[str, ...]) -> None:
    assert classes(values).names == names


def test_folded_spellings_are_said_and_can_be_kept_apart() -> None:
    labels = ["no", "No", "no", "yes"]
    table, (notice,) = find_classes(labels)
    assert table.as_dict() == {"no": ["no", "No"], "yes": ["yes"]}
    assert "'no' (2), 'No' (1)" in notice.message
    names = notice.fix.partition("=")[2].split()[0].split(",")
    assert name_classes(labels, names, "a.csv")[0].names == tuple(names) == ("No", "no", "yes")


@pytest.mark.parametrize(
    ("training", "value", "name"),
    [
        ([True, False], "TRUE", "True"),
        ([True, False], "false", "False"),
        ([True, False], "1", "True"),
        ([True, False], "0.0", "False"),
        ([0, 1], "True", "1"),
        (["0", "1"], "1.0", "1"),
        (["yes", "no"], "YES", "yes"),
        ([2.5, 3.0], "3", "3.0"),
        (["2.0", "2.1"], "2", "2.0"),
        (["World", "Sports"], "world", "World"),
        (["1", "2", "3"], "03", "3"),
    ],
)
def test_another_file_is_matched_by_what_its_values_say(training: list[Any], value: str, name: str) -> None:
    table = classes(training)
    (index,) = class_indices([value], table, "b.csv")
    assert table.names[index] == name
    assert bool(other_spellings([value], table)) == (value not in (*table.names, *map(str, training)))


@pytest.mark.parametrize(
    ("training", "other"),
    [
        ([1, 2, 3, 4], [0, 1, 2, 3]),
        ([1, 2, 3, 5], [1, 2, 3, 4]),
        ([0, 4], [0, 1]),
        ([0, 1], [1, 2]),
        ([0, 1, 2], [1, 2, 3]),
        (["World", "Sports"], [0, 1]),
        (["a", "b"], ["a", "c"]),
        (["no", "No", "yes"], ["maybe"]),
        ([1, 2], [1.5]),
    ],
)
def test_values_of_another_file_are_never_shifted(training: list[Any], other: list[Any]) -> None:
    table = classes(training)
    with pytest.raises(LoralabError, match="is not a class") as error:
        class_indices(label_texts(other, "b.csv"), table, "b.csv")
    unknown = [row for row, value in enumerate(other) if table.match(str(value)) is None]
    assert f"in row {unknown[0]} is" in str(error.value)


def test_a_spelling_of_two_classes_is_no_class() -> None:
    table = ClassTable(("No", "no"), (("No",), ("no",)))
    assert (table.match("no"), table.match("NO")) == (1, None)


def test_the_list_of_classes_in_a_message_has_an_end() -> None:
    table = classes([f"intent {i}" for i in range(100)])
    with pytest.raises(LoralabError) as error:
        class_indices([f"other {i}" for i in range(100)], table, "b.csv")
    assert "and 92 more" in str(error.value)
    assert "99 more labels are none either" in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("values", "row"),
    [
        ([["a"], ["a", "b"]], 1),
        ([{"a": 1, "b": 1}], 0),
        ([("a",), (), ("a", "b", "c")], 2),
        ([{"a": "x", "b": "y"}], 0),
    ],
)
def test_several_labels_of_a_text_are_refused_with_rows(values: list[Any], row: int) -> None:
    with pytest.raises(LoralabError, match=f"several labels in row {row}"):
        label_texts(values, "a.csv")


def test_class_names_without_rows_are_dropped_with_a_notice() -> None:
    table, (notice,) = name_classes(["a", "b", "a"], ["a", "b", "c", "d"], "a.csv")
    assert table.names == ("a", "b")
    assert "classes c, d have no row" in notice.message
    table, (notice,) = name_classes(["1", "2", "4"], ["World", "Sports", "Business", "Tech"], "a.csv")
    assert table.as_dict() == {"World": ["1"], "Sports": ["2"], "Tech": ["4"]}
    assert "class Business has no row" in notice.message


@pytest.mark.parametrize(
    ("labels", "known", "named", "hidden"),
    [
        (["-1", "-1"], None, False, 2),
        (["-1", "0", "1"], None, False, 0),  # a scale
        (["-1", "0", "1"], None, True, 1),
        (["-1", "0", "1"], ("0", "1"), False, 1),
        (["-1", "0"], ("-1", "0", "1"), False, 0),
        (["-1", "a"], ("a", "b"), False, 0),
    ],
)
def test_minus_one_hides_a_label_where_it_is_no_class(labels: list[str], known: Any, named: bool, hidden: int) -> None:
    table = None if known is None else ClassTable(known, tuple(() for _ in known))
    assert hide_unlabelled(labels, table, named) == ([None if hidden and x == "-1" else x for x in labels], hidden)


def test_labels_that_read_like_missing_values_are_said() -> None:
    (notice,) = missing_words(["a", "nan", "N/A", None, "nan"])
    assert "2 'nan', 1 'N/A'" in notice.message
    assert notice.rows == (1, 2, 4)
    assert missing_words(["a", "b", None]) == []


def test_natural_order() -> None:
    names = ["b10", "b9", "a", "10", "9", "Ä", "b", "²"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "b", "b9", "b10", "²", "Ä"]


def test_numbers_that_are_other_numbers_are_refused() -> None:
    """Labels 0 to 3 and names 1 to 4: is 1 the name, or the second class?"""
    with pytest.raises(LoralabError, match=r"the labels 0, 1, 2, 3 and data\.classes=1,2,3,4 are both numbers, but not the same"):
        name_classes(["0", "1", "2", "3"], ["1", "2", "3", "4"], "a.csv")
    assert name_classes(["1", "2", "3"], ["3", "2", "1"], "a.csv")[0].names == ("3", "2", "1")


def test_lists_written_as_text_are_unwrapped() -> None:
    """`DataFrame.to_csv` writes a list as its text."""
    assert label_texts(["['neg']", '["pos"]', "", "[3]"], "a.csv") == ["neg", "pos", None, "3"]
    assert label_texts(["['neg']", "pos"], "a.csv") == ["['neg']", "pos"], "one label that is no list: all are texts"
    assert label_texts(["[neg]", "[pos]"], "a.csv") == ["[neg]", "[pos]"]
    with pytest.raises(LoralabError, match="several labels in row 1"):
        label_texts(["['neg']", "['neg', 'pos']"], "a.csv")


def test_codes_keep_their_zeros() -> None:
    table, notices = find_classes(["01", "02", "10", "01"])
    assert (table.names, notices) == (("01", "02", "10"), [])
    assert [table.match(value) for value in ("1", "02", "10.0")] == [0, 1, 2]
    table, (notice,) = find_classes(["01", "1", "2"])
    assert table.names == ("1", "2")
    assert notice.fix == "data.classes=01,1,2 keeps them apart"
    assert find_classes(["0", "00"])[0].names == ("0",)


# Whole messages and tables


def test_further_values_of_a_class() -> None:
    table = ClassTable(("a", "b"), (("x",), ("y",))).with_values({"0": "a", "1": "b", "y": "b", "2": "gone"})
    assert table == ClassTable(("a", "b"), (("x", "0"), ("y", "1")))
    assert table.as_dict() == {"a": ["x", "0"], "b": ["y", "1"]}
    assert (table.match("0"), table.match("1"), table.match("2")) == (0, 1, None)
    assert (table.knows("0"), table.knows("a"), table.knows("A")) == (True, True, False)


@pytest.mark.parametrize(
    ("names", "setting"),
    [
        (["a", "b"], "data.classes=a,b"),
        (["a b", "c"], "'data.classes=a b,c'"),
        (["a,b", "é"], """'data.classes=["a,b", "é"]'"""),
        (['"a"', "b"], """'data.classes=["\\"a\\"", "b"]'"""),
        (["{a}"], """'data.classes=["{a}"]'"""),
        (["[a]"], """'data.classes=["[a]"]'"""),
        ([*"abcdefgh"], "data.classes=a,b,c,d,e,f,g,h"),
        ([*"abcdefghi"], "data.classes=NAME,NAME,... with each spelling"),
    ],
)
def test_the_setting_that_names_classes_can_be_pasted(names: list[str], setting: str) -> None:
    assert classes_setting(names) == setting


def test_spellings_of_one_class_are_noted_with_their_rows() -> None:
    labels = ["b", "B", None, "b", "a ", "a", "a", "c"]
    table, (notice,) = find_classes([None if label is None else label.strip() for label in labels])
    assert notice == Notice("spellings of one class: 'b' (2), 'B' (1)", (1,), "data.classes=B,a,b,c keeps them apart", "warning")
    assert table == ClassTable(("a", "b", "c"), (("a",), ("b", "B"), ("c",)))
    many = [spelling for name in "abcdef" for spelling in (name, name, name.upper())]
    _, (notice,) = find_classes(many)
    assert notice.message == "spellings of one class: 'a' (2), 'A' (1); 'b' (2), 'B' (1); 'c' (2), 'C' (1); 'd' (2), 'D' (1)"
    assert notice.rows == tuple(range(2, 18, 3))


def test_names_without_rows_are_noted() -> None:
    _, (notice,) = name_classes(["a", "b", "a"], ["a", "b", "c", "d"], "a.csv")
    assert notice == Notice("classes c, d have no row: the model has 2 classes", severity="warning")
    _, (notice,) = name_classes(["a", "b", "a"], ["a", "b", "c"], "a.csv")
    assert notice == Notice("class c has no row: the model has 2 classes", severity="warning")


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (
            ["2", "3"],
            ["a", "b", "c", "d"],
            "a.csv: labels 2, 3 of 4 classes could count from 0 or from 1: write the class names into the file, or name the "
            "classes that occur, in order, in data.classes",
        ),
        (["0", "4", "4"], [*"abcd"], "a.csv: label '4' in rows 1, 2 is not a class; classes: a, b, c, d"),
        (["5", "1"], [*"abcd"], "a.csv: label '5' in row 0 is not a class; classes: a, b, c, d"),
        (
            ["Wrold"],
            ["World", "Sports"],
            "a.csv: label 'Wrold' in row 0 is not a class; did you mean 'World'?; classes: World, Sports",
        ),
        (["x", "-1"], ["x", "y"], "a.csv: label '-1' in row 1 is not a class; classes: x, y"),
        (
            ["u", "v", "u", "w"],
            ["x", "y"],
            "a.csv: label 'u' in rows 0, 2 is not a class (2 more labels are none either); classes: x, y",
        ),
        (
            ["1", "0"],
            ["1", "2"],
            "a.csv: the labels 0, 1 and data.classes=1,2 are both numbers, but not the same ones: give the numbers of the file, or "
            "names that are no numbers, in their order",
        ),
    ],
)
def test_labels_that_are_not_those_named_are_refused(labels: list[str], names: list[str], message: str) -> None:
    with pytest.raises(LoralabError) as error:
        name_classes(labels, names, "a.csv")
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        (["0", "1", None], ["x", "y"], {"0": "x", "1": "y"}),
        (["1", "2"], ["x", "y"], {"1": "x", "2": "y"}),
        (["1.0", "0"], ["x", "y"], {"1.0": "y", "0": "x"}),
        (["0", "7"], ["x", "y"], {"0": "x"}),
        (["0", "a"], ["x", "y"], {}),
        (["0", "x"], ["x", "y"], {}),
        ([None], ["x", "y"], {}),
        (["0"], [], {}),
    ],
)
def test_numbers_of_another_file_are_the_classes_somebody_wrote_down(
    labels: list[str | None], names: list[str], numbers: dict[str, str]
) -> None:
    table = ClassTable(tuple(names), tuple(() for _ in names))
    assert declared_numbers(labels, names, table, "b.csv") == numbers


def test_spellings_and_missing_words_are_noted() -> None:
    table = ClassTable(("Yes", "no"), (("Yes",), ("no",)))
    assert other_spellings(["yes", "YES", "yes", "no", None, "maybe"], table) == [
        Notice("labels are read by their meaning: 'yes' (2) as 'Yes', 'YES' (1) as 'Yes'")
    ]
    assert missing_words(["a", "nan", "N/A", None, "nan"]) == [
        Notice(
            "labels that read like missing values are classes: 2 'nan', 1 'N/A'",
            (1, 2, 4),
            "empty them to leave the rows out",
            "warning",
        )
    ]


def test_several_labels_are_refused_with_an_example() -> None:
    with pytest.raises(LoralabError) as error:
        label_texts(["a", ["b", "c"], None, ["d", "e"]], "a.json")
    assert str(error.value) == (
        "a.json has several labels in rows 1, 3, such as ['b', 'c']: loralab learns one label per text; keep one, or train on one "
        "column per label"
    )
    assert label_texts([{"a": 1.0, "b": 0.0}, {"a": "x"}, {"a": 2}, float("nan"), [], " x "], "") == [
        "a",
        "x",
        "2",
        None,
        None,
        "x",
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["item 10", "item 9", "item 2b", "item 2a", "item"], ["item", "item 2a", "item 2b", "item 9", "item 10"]),
        (["a", "1", "-", "10", "2"], ["1", "2", "10", "-", "a"]),
        (["9" * 18, "1" + "0" * 18, "8"], ["8", "9" * 18, "1" + "0" * 18]),
        (["x9", "x" + "9" * 19, "x10"], ["x9", "x10", "x" + "9" * 19]),
    ],
)
def test_names_are_ordered_by_their_numbers(values: list[str], expected: list[str]) -> None:
    assert sorted(values, key=natural_key) == expected


def test_natural_keys_compare_any_texts() -> None:
    assert natural_key("ab12c") == [(1, 0, "ab"), (0, 12, "12"), (1, 0, "c")]
    assert natural_key("1" * 18) == [(0, int("1" * 18), "1" * 18)]
    assert natural_key("1" * 19) == [(1, 0, "1" * 19)]
    assert natural_key("") == []
    assert natural_key("²") == [(1, 0, "²")]


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (["0", "1"], ["a", "b"], {"0": "a", "1": "b"}),
        (["1", "2"], ["a", "b"], {"1": "a", "2": "b"}),
        (["0", "2"], ["a", "b"], {"0": "a"}),
        (["0", None], ["a", "b"], {"0": "a"}),
        (["0", "a"], ["a", "b"], {}),
        (["0", "x"], ["a", "b"], {}),
        (["0", "1"], [], {}),
        ([None], ["a", "b"], {}),
        (["1.0", "00"], ["a", "b"], {"1.0": "b", "00": "a"}),
        (["-1", "1"], ["a", "b"], {"1": "b"}),
    ],
)
def test_numbers_are_classes_by_declared_order(labels: list[str | None], names: list[str], expected: dict[str, str]) -> None:
    table = ClassTable(("a", "b"), (("a",), ("b",)))
    assert declared_numbers(labels, names, table, "x.csv") == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"POS": 1.0, "NEG": 0.0}, "POS"),
        ({"POS": True, "NEG": False}, "POS"),
        ({"POS": 0.0}, None),
        ({"label": "x"}, "x"),
        ({"label": 2}, "2"),
        ({}, None),
        (["x"], "x"),
        (("x",), "x"),
        ({"x"}, "x"),
        ([], None),
        ([[" x "]], "x"),
        ([None], None),
        (float("nan"), None),
        ("  ", None),
        (0, "0"),
        (False, "False"),
    ],
)
def test_values_of_one_label(value: Any, text: str | None) -> None:
    assert label_text(value) == text


@pytest.mark.parametrize("value", [["x", "y"], {"POS": 1.0, "NEG": 0.5}, {"a": "x", "b": "y"}, [["x", "y"]]])
def test_values_of_several_labels_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="several labels"):
        label_text(value)


def test_labels_of_other_spellings_are_noted() -> None:
    table = ClassTable(("yes", "no"), (("yes", "1"), ("no", "0")))
    (notice,) = other_spellings(["yes", "YES", "YES", "no", "true", "1", None, "maybe"], table)
    assert notice.message.endswith("'YES' (2) as 'yes', 'true' (1) as 'yes'")
    assert other_spellings(["yes", "0", None, "maybe"], table) == []
    assert row_classes(["YES", None, "maybe", "0"], table) == ["yes", None, None, "no"]
    assert class_indices(["YES", None, "0"], table, "x").tolist() == [0, UNLABELLED, 1]
    with pytest.raises(LoralabError, match=r"^x: label 'maybe' in rows 0, 2 is not .*\(1 more .*: yes, no$"):
        check_known(["maybe", "yes", "maybe", "other"], table, "x")
    check_known([None, "1", "YES"], table, "x")
    assert table.with_values({"2": "yes", "1": "yes", "3": "other"}).values == (("yes", "1", "2"), ("no", "0"))
    assert (table.knows("1"), table.knows("YES"), table.as_dict()) == (True, False, {"yes": ["yes", "1"], "no": ["no", "0"]})
