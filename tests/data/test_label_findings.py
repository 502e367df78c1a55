"""Labels that are alike, rare, hidden, or several in one."""

from __future__ import annotations

import pytest

from loralab.data.label_findings import MIN_CLASS_ROWS, are_alike, flag_findings, label_findings, unknown_findings
from loralab.data.labels import ClassTable
from loralab.data.types import Notice


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Sport", "Sports"),
        ("Busines", "Business"),
        ("Buisness", "Business"),
        ("not_spam", "not spam"),
        ("Sci/Tech", "SciTech"),
        ("intent_7", "intnet_7"),
        ("café culture", "cafe culture"),
    ],
)
def test_misspelt_names_are_alike(first: str, second: str) -> None:
    assert are_alike(first, second, rare=True)
    assert are_alike(first, second, rare=False)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("relevant", "irrelevant"),
        ("important", "unimportant"),
        ("formal", "informal"),
        ("spam", "not spam"),
        ("intent_1", "intent_2"),
        ("2.1", "2.2"),
        ("cat", "car"),
        ("love", "live"),
        ("positive", "negative"),
        ("体育", "体操"),
        ("male", "female"),
    ],
)
def test_other_names_are_not(first: str, second: str) -> None:
    assert not are_alike(first, second, rare=False)


def test_names_alike_are_found_when_both_are_frequent() -> None:
    (finding,) = label_findings(["Sports"] * 30 + ["Sport"] * 20)
    assert finding.message == "label 'Sport' (20 rows) looks like 'Sports' (30)"
    assert finding.rows == tuple(range(30, 50))
    assert "'Sports'" in finding.fix


def test_many_names_alike_are_bounded() -> None:
    labels = [f"{name}{end}" for name in "abcdefghijkl" for end in ("bout this", "bout thsi") for _ in range(12)]
    findings = label_findings(labels)
    assert len(findings) == 9
    assert "more pairs of labels look alike" in findings[-1].message


def test_rare_classes_are_one_finding() -> None:
    labels = ["World"] * 20 + [f"item {i}" for i in range(12) for _ in range(3)]
    (finding,) = [finding for finding in label_findings(labels) if "fewer" in finding.message]
    assert finding.message.startswith(f"12 of 13 classes have fewer than {MIN_CLASS_ROWS} rows: 'item 0' 3, ")
    assert finding.message.endswith("and 4 more")
    assert finding.rows == tuple(range(20, 56))
    (finding,) = label_findings(["World"] * 20 + ["Sports"] * 20 + ["Weather"])
    assert (finding.message, finding.rows) == ("class 'Weather' has 1 row", (40,))


def test_minus_one_as_a_class() -> None:
    (finding,) = label_findings(["1", "0", "-1"] * 10)
    assert "-1 is a class of 10 rows" in finding.message
    assert finding.rows == tuple(range(2, 30, 3))


@pytest.mark.parametrize("mark", [",", ";", "|", ", ", "\n"])
def test_several_labels_in_one(mark: str) -> None:
    labels = ["World", "Sports", f"World{mark}Sports"] * 10
    (finding,) = label_findings(labels)
    assert "several in one" in finding.message
    assert finding.rows == tuple(range(2, 30, 3))


def test_names_with_commas_are_noted_with_the_list_to_write() -> None:
    (finding,) = label_findings(["Home, garden", "R&D"] * 10)
    assert (finding.severity, finding.rows) == ("note", ())
    assert finding.fix.endswith("""'data.classes=["Home, garden", "R&D"]'""")


def test_labels_that_are_no_class_are_named() -> None:
    table = ClassTable(("no", "yes"), (("no", "No"), ("yes",)))
    assert unknown_findings(["NO", "Yes", None, "yes"], table) == []
    (finding,) = unknown_findings(["no", "maybe", "maybe"], table)
    assert (finding.severity, finding.rows) == ("error", (1, 2))
    assert finding.message.startswith("label 'maybe' is not in the training rows")


@pytest.mark.parametrize(
    ("labels", "notices"),
    [
        (
            ["Sports"] * 30 + ["Sport"] * 20,
            [
                Notice(
                    "label 'Sport' (20 rows) looks like 'Sports' (30)",
                    tuple(range(30, 50)),
                    "write 'Sports' if it is the same class",
                    "warning",
                )
            ],
        ),
        (
            ["a"] * 10 + ["b"] * 9 + ["c"],
            [
                Notice(
                    "2 of 3 classes have fewer than 10 rows: 'c' 1, 'b' 9",
                    tuple(range(10, 20)),
                    "add rows (at least 10 of a class), merge classes, or remove them",
                    "warning",
                )
            ],
        ),
        (
            ["a"] * 9 + ["b"] * 9,
            [
                Notice(
                    "2 of 2 classes have fewer than 10 rows: 'a' 9, 'b' 9",
                    (),
                    "add rows (at least 10 of a class), merge classes, or remove them",
                    "warning",
                )
            ],
        ),
        (
            [*"01"] * 10 + ["-1"] * 10,
            [
                Notice(
                    "-1 is a class of 10 rows; published files hide labels by it",
                    tuple(range(20, 30)),
                    "if it means no label, empty these cells",
                    "warning",
                )
            ],
        ),
        (
            ["World", "Sports", "World; Sports"] * 10,
            [
                Notice(
                    "labels that look like several in one: 'World; Sports'",
                    tuple(range(2, 30, 3)),
                    "keep one label per text, or train on one column per label: loralab learns one label per text",
                    "warning",
                )
            ],
        ),
        (
            ["one|three", "three|two", "two|one"] * 10,
            [
                Notice(
                    "labels that look like several in one: one|three, three|two, two|one",
                    tuple(range(30)),
                    "keep one label per text, or train on one column per label: loralab learns one label per text",
                    "warning",
                )
            ],
        ),
        (
            ["Home\ngarden", "R&D"] * 10,
            [
                Notice(
                    "class names with line breaks: Home\ngarden",
                    (),
                    """in settings, write a list: 'data.classes=["Home\\ngarden", "R&D"]'""",
                )
            ],
        ),
        (
            ["Home, garden", "R&D"] * 10,
            [
                Notice(
                    "class names with commas or the like: 'Home, garden'",
                    (),
                    """in settings, write a list: 'data.classes=["Home, garden", "R&D"]'""",
                )
            ],
        ),
        ([None, "yes", "no"] * 10, []),
    ],
)
def test_findings_name_labels_rows_and_what_to_do(labels: list[str | None], notices: list[Notice]) -> None:
    assert label_findings(labels) == notices


def test_a_column_of_many_values_is_probably_no_label_column() -> None:
    many = [f"value {number}" for number in range(101)]
    (finding,) = label_findings(many)
    assert finding == Notice(
        "101 different labels in 101 rows", (), "if this is not the label column, write data.label=COLUMN", "warning"
    )
    assert label_findings([*many, None], "data.label=kind")[0].fix == "if this is not the label column, write data.label=kind"
    (finding,) = label_findings(many * 9)
    assert finding.message.startswith("101 different labels in 909 rows")
    assert label_findings(many * 10) == []
    assert "fewer than 10 rows" in label_findings(many[:100] * 9)[-1].message


def test_more_names_alike_are_listed_up_to_eight() -> None:
    words = ("banking", "culture", "economy", "health", "justice", "kitchen", "mobility", "nature", "politics", "weather")
    findings = label_findings(
        [name for word in words for name in (word, f"{word[:-2]}{word[-1]}{word[-2]}") for _ in range(12)][::-1]
    )
    assert findings[0].message == "label 'bankign' (12 rows) looks like 'banking' (12)"
    assert [finding.severity for finding in findings] == ["warning"] * 9
    assert findings[-1] == Notice(
        "2 more pairs of labels look alike, such as 'politics' and 'politisc', 'weather' and 'weathre'",
        (),
        "write one name for each class",
        "warning",
    )


@pytest.mark.parametrize(
    ("first", "second", "rare", "alike"),
    [
        ("ab1", "ab 1", True, True),
        ("1.0", "10", True, False),
        ("1-2", "1_2", True, False),
        ("non-fiction", "fiction", True, False),
        ("dislike", "like", True, False),
        ("cats", "cat", False, True),
        ("as", "a", True, False),
        ("abs", "ab", True, False),
        ("cat", "cart", True, False),
        ("cars", "carts", True, True),
        ("cars", "carts", False, False),
        ("travel", "travl", False, False),
        ("travel", "trvael", False, True),
        ("travel", "traxxel", False, False),
        ("technology", "tecnolgoy", True, True),
        ("technology", "tecnolgoy", False, False),
        ("technology", "technolo", True, True),
        ("technology", "techn", True, False),
    ],
)
def test_how_alike_names_must_be(first: str, second: str, rare: bool, alike: bool) -> None:
    assert are_alike(first, second, rare) == are_alike(second, first, rare) == alike


def test_unknown_labels_are_listed_up_to_eight() -> None:
    table = ClassTable(("no", "yes"), (("no",), ("yes",)))
    findings = unknown_findings(["no", *"abcdefghij", "a"], table)
    assert findings[0] == Notice(
        "label 'a' is not in the training rows", (1, 11), "add training rows with it, or correct it; classes: no, yes", "error"
    )
    assert findings[8:] == [Notice("2 more labels are not in the training rows", (9, 10), "as above", "error")]
    assert unknown_findings(["yess"], table)[0].message == "label 'yess' is not in the training rows; did you mean 'yes'?"
    assert unknown_findings(["a"], ClassTable((), ())) == []


def test_several_columns_of_0_and_1_may_be_several_labels() -> None:
    values = {
        "text": ["0", "1"],
        "spam": [0, 1, None],
        "rude": ["True", " false ", ""],
        "both": ["0.0", "1.0"],
        "one": [1, 1],
        "n": [1, 2],
    }
    (finding,) = flag_findings(values, "spam", ["text"])
    assert finding == Notice(
        "column 'spam' is learned; rude, both are 0 or 1 as well: may a text have several labels? loralab learns one column",
        (),
        "train once per column, such as data.label=rude",
        "warning",
    )
    (finding,) = flag_findings({"my rude": [0, 1], "spam": [0, 1]}, "spam", [])
    assert "; 'my rude' is 0 or 1 as well:" in finding.message
    assert finding.fix == "train once per column, such as 'data.label=my rude'"
    for label, columns in (("n", values), ("spam", {"spam": [0, 1], "n": [1, 2]}), (None, values)):
        assert flag_findings(columns, label, ["text"]) == []


@pytest.mark.parametrize(
    ("one", "other", "rare", "common"),
    [
        ("dangerous", "non-dangerous", False, False),
        ("toxic", "non toxic", False, False),
        ("sport", "sprot", True, False),
        ("sports", "sport", True, True),
        ("business", "busines", True, True),
        ("entertainment", "entretanment", True, False),
        ("spam", "spm", False, False),
        ("item 1", "item 2", False, False),
        ("a b", "A_B", True, True),
        ("abc", "abd", False, False),
        ("+", "-", False, False),
    ],
)
def test_names_are_alike_by_their_letters(one: str, other: str, rare: bool, common: bool) -> None:
    assert (are_alike(one, other, rare=True), are_alike(other, one, rare=True)) == (rare, rare)
    assert (are_alike(one, other, rare=False), are_alike(other, one, rare=False)) == (common, common)


@pytest.mark.parametrize(("rows", "alike"), [(2, True), (3, False)])
def test_a_class_is_rare_up_to_a_tenth_of_another(rows: int, alike: bool) -> None:
    findings = label_findings(["sport"] * 20 + ["sprot"] * rows)
    assert any("looks like" in finding.message for finding in findings) == alike
