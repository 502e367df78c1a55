"""Problems of texts: whole findings, with rows and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from loralab.data.data_report import DuplicateTexts
from loralab.data.text_findings import MAX_DUPLICATES, duplicate_findings, measure_texts, shared_findings, text_findings
from loralab.data.types import Notice

TEXT = "a plain text of some words"


@pytest.mark.parametrize(
    ("texts", "finding"),
    [
        (
            [TEXT, " ", "", TEXT],
            Notice("2 texts are empty", (1, 2), "fill in or remove; training keeps them as empty texts", "warning"),
        ),
        ([TEXT, "\n"], Notice("1 text is empty", (1,), "fill in or remove; training keeps them as empty texts", "warning")),
        (
            [TEXT, "n/a", TEXT, "NaN ", "n/a", "missing data of a text"],
            Notice(
                "texts that read like missing values: 2 'n/a', 1 'NaN'", (1, 3, 4), "remove these rows, or fill them in", "warning"
            ),
        ),
        (
            ["a17", "0f3c-22", "", "b18", "#9"],
            Notice(
                "the texts look like ids or numbers: 'a17', '0f3c-22', ''",
                (),
                "name the text column with data.text=COLUMN",
                "warning",
            ),
        ),
        (
            [TEXT, "Tom &amp; Jerry and the rest of them"],
            Notice(
                "1 text has escaped characters, such as 'Tom &amp; Jerry and t'",
                (1,),
                "data.clean=escapes restores them",
                "warning",
            ),
        ),
        (
            ["caf\\u00e9", "caf\\u00e8", TEXT],
            Notice(
                "2 texts have escaped characters, such as 'caf\\\\u00e9'", (0, 1), "data.clean=escapes restores them", "warning"
            ),
        ),
        (
            ["it is a <b>bold</b> claim, but a <= b and c > d"],
            Notice("1 text has HTML tags, such as 'it is a <b>bold</b> cla'", (0,), "data.clean=html removes them", "warning"),
        ),
        (
            [TEXT, "the cafÃ© at the corner", "itâ€™s late"],
            Notice(
                "2 texts have UTF-8 read in another encoding, such as 'the cafÃ© at the corn'",
                (1, 2),
                "write the file again from its source as UTF-8",
                "warning",
            ),
        ),
    ],
)
def test_a_finding_has_rows_an_example_and_a_fix(texts: list[str], finding: Notice) -> None:
    findings = text_findings(texts, ())
    assert finding in findings
    assert len(findings) == 1 or "" in texts


@pytest.mark.parametrize(
    "text",
    [TEXT, "a < b > c", "AT&T; R&D", "C:\\users\\new", "Ãber alles", "São Paulo «café»", "x" * 41 + "1", "no digit", "a_b"],
)
def test_other_texts_are_fine(text: str) -> None:
    assert text_findings([text] * 3, ()) == []


def test_what_cleaning_restores_is_no_problem() -> None:
    texts = ["Tom &amp; Jerry", "a <b>bold</b> claim"]
    assert text_findings(texts, ("escapes", "html")) == []
    (finding,) = text_findings(texts, ("escapes",))
    assert finding.fix == "data.clean=escapes,html removes them"


def test_ids_are_most_of_the_texts_and_another_column_is_named() -> None:
    assert text_findings(["a1"] * 19 + [TEXT], (), "data.text=body")[0].fix == "data.text=body"
    assert text_findings(["a1"] * 18 + [TEXT], ()) == []
    assert "ids" not in str(text_findings([""], ()))


def test_repeated_texts_with_one_label_and_with_several() -> None:
    texts = ["One text", "other", "one  TEXT", "third", "other", "third", " ", " ", "third"]
    labels = ["a", "a", "a", "a", "b", "a", "a", "b", None]
    findings, listed, conflicts = duplicate_findings(texts, labels)
    assert findings == [
        Notice("1 text occurs with different labels", (1, 4), "decide on one label for each text, or remove these rows", "warning"),
        Notice("3 rows repeat the text of an earlier row", (2, 5, 8), "remove: a text in two splits inflates the score", "warning"),
    ]
    assert listed == [
        DuplicateTexts("other", (1, 4), ("a", "b")),
        DuplicateTexts("third", (3, 5, 8), ("a",)),
        DuplicateTexts("One text", (0, 2), ("a",)),
    ]
    assert conflicts == (1, 4)


def test_repeated_texts_without_labels() -> None:
    findings, listed, conflicts = duplicate_findings(["a", "b", "a"], [])
    assert [finding.message for finding in findings] == ["1 row repeats the text of an earlier row"]
    assert (listed, conflicts) == ([DuplicateTexts("a", (0, 2), ())], ())
    assert duplicate_findings(["a", "b"], ["x", "y"]) == ([], [], ())
    findings, _, _ = duplicate_findings([*"abab"], [*"xxyy"])
    assert [finding.message for finding in findings] == ["2 texts occur with different labels"]


def test_few_of_many_repeated_texts_are_listed() -> None:
    texts = [f"text {number}" for number in range(30)] * 2
    assert [entry.text for entry in duplicate_findings(texts, [])[1]] == texts[:MAX_DUPLICATES]


def test_texts_that_another_part_has_too() -> None:
    long = "the quick brown fox jumps over the lazy dog and then runs away from all of the hounds in the wide green"
    near = f"{long} fields"
    own = ["Same text", "another", " ", "of its own", near]
    other = ["same  text", "ANOTHER", "another", "", f"{long} field"]
    fix = "remove them here or from the training rows: the scores are too high"
    assert shared_findings((own, ["a", "b", "a", "a", "a"]), (other, ["a", "a", "a", "a", "a"]), "training") == [
        Notice("2 of the file's 5 texts are also among the training texts, 1 with another label", (0, 1), fix, "warning"),
        Notice("1 of the file's 5 texts nearly equals training texts, such as row 4 and training row 4", (4,), fix, "warning"),
    ]
    (exact, _) = shared_findings((own, []), (other, ["a"] * 5), "training")
    assert exact.message == "2 of the file's 5 texts are also among the training texts"
    (exact, nearly) = shared_findings(([own[0], near, near], [None, None, "a"]), (other, ["a"] * 5), "test")
    assert exact.message == "1 of the file's 3 texts is also among the test texts"
    assert nearly.message == "2 of the file's 3 texts nearly equal test texts, such as row 1 and test row 4"
    assert shared_findings((["x"], ["a"]), (["y"], ["a"]), "test") == []


@pytest.mark.parametrize("text", ["’", "“x”", "é", "ü", "naïve", "€", "…", "–", "ñ", "日本", "Привет", "🙂", "ßä", "°"])
def test_utf8_read_as_cp1252_is_damage_and_the_text_is_not(text: str) -> None:
    read = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in f"a {text} b".encode())
    (finding,) = text_findings(["plain", read], ())
    assert (finding.rows, finding.severity) == ((1,), "warning")
    assert text_findings(["plain", f"a {text} b"], ()) == []


@pytest.mark.parametrize("text", ["Ã", "São", "Â", "É! Ã ", "ÀÉÎ", "Ñ“x”", "El Niño…", "à la carte", "Ø 5", "× 2"])
def test_letters_alone_are_no_damage(text: str) -> None:
    assert text_findings([text], ()) == []


def test_texts_are_measured_with_their_unknown_tokens(tiny: Path) -> None:
    measured = measure_texts(["", "shares", "☃ ☃ shares", "a " * 600], tiny, ())
    assert measured.unknown.tolist() == [0, 0, 2, 0]
    assert measured.lengths.tolist()[:3] == [2, measured.lengths[1], measured.lengths[1] + 2]
    assert measured.lengths[3] >= 602
    assert (measured.facts.cut, measured.facts.unknown) == (0, 2)
