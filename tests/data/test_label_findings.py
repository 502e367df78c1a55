"""Labels that are alike, rare, hidden, or several in one."""

from __future__ import annotations

import pytest

from loralab.data.label_findings import MIN_CLASS_ROWS, are_alike, label_findings, unknown_findings
from loralab.data.labels import ClassTable


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
