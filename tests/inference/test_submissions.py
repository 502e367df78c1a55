"""A submission has the competition's header, ids, order and labels, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny import make_checkpoint

from loralab import Classifier, LoralabError, load_config
from loralab.data.labels import ClassTable
from loralab.inference.prediction_files import OutputFormat
from loralab.inference.submissions import Submission, check_submission, choose_labels, labels_like, read_template
from loralab.pipeline import run_training

TEXTS = ["goal", "profit", "chip", "goal goal"]
IDS = ["0", "2", "009", "1180000000000000123"]


def put(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("base") / "bert")


def train(folder: Path, base: Path, *lines: str, settings: tuple[str, ...] = ()) -> Classifier:
    path = put(folder / "train.csv", *lines)
    config = load_config(path, [f"model.base={base}", "train.max_steps=2", *settings])
    return Classifier.load(run_training(config, folder=folder).folder)


@pytest.fixture(scope="module")
def stars(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """Classes 1 to 3 in the column target."""
    rows = [f"{i},{word} {i},{k}" for i in range(20) for k, word in enumerate(("goal", "profit", "chip"), 1)]
    return train(tmp_path_factory.mktemp("stars"), base, "id,text,target", *rows)


@pytest.fixture
def test_csv(tmp_path: Path) -> Path:
    return put(tmp_path / "test.csv", "id,text", *(f"{name},{text}" for name, text in zip(IDS, TEXTS, strict=True)))


def submit(classifier: Classifier, path: Path, **options: Any) -> tuple[list[str], list[str]]:
    out = path.parent / "submission.csv"
    report = classifier.predict_file(path, out, format=OutputFormat("submission", **options))
    return out.read_text(encoding="utf-8").splitlines(), [str(notice) for notice in report.notices]


def expected(classifier: Classifier, first: int = 0) -> list[str]:
    return [str(index + first) for index in classifier.predict(TEXTS).indices]


# --- without a template --------------------------------------------------------------------------------------------


def test_the_header_ids_and_labels_are_those_of_the_files(stars: Classifier, test_csv: Path) -> None:
    lines, notices = submit(stars, test_csv)
    assert lines == ["id,target", *(f"{name},{label}" for name, label in zip(IDS, expected(stars, 1), strict=True))]
    assert notices == ["labels are the values of the training file: 1, 2, 3; --label-values index writes 0, 1, 2"]


@pytest.mark.parametrize(("kind", "first"), [("raw", 1), ("names", 1), ("index", 0)])
def test_labels_are_of_the_asked_kind(stars: Classifier, test_csv: Path, kind: str, first: int) -> None:
    assert [line.split(",")[1] for line in submit(stars, test_csv, label_values=kind)[0][1:]] == expected(stars, first)


def test_a_file_without_ids_gets_row_numbers_and_class_indices(stars: Classifier, tmp_path: Path) -> None:
    pd.DataFrame({"text": TEXTS}).to_pickle(tmp_path / "test.pkl")
    lines, _ = submit(stars, tmp_path / "test.pkl")
    assert lines == ["ID,Label", *(f"{i},{label}" for i, label in enumerate(expected(stars)))]
    assert submit(stars, tmp_path / "test.pkl", label_values="raw")[0][1:] == [
        f"{i},{label}" for i, label in enumerate(expected(stars, 1))
    ]


def test_raw_labels_are_the_most_frequent_spelling_of_the_training_file(base: Path, tmp_path: Path) -> None:
    spelled = ["yes", "YES", "yes", "no", "no", "No"]
    rows = [f"{word} {i},{spelled[i % 6]}" for i in range(36) for word in ("goal", "chip")]
    classifier = train(tmp_path, base, "text,answer", *rows, settings=("data.label=answer",))
    lines, _ = submit(classifier, put(tmp_path / "in.csv", "id,text", "a,goal", "b,chip"))
    assert lines[0] == "id,answer"
    assert {line.split(",")[1] for line in lines[1:]} <= {"yes", "no"}


def test_raw_labels_of_named_numbers_are_the_numbers(base: Path, tmp_path: Path) -> None:
    rows = [f"{word} {i},{k}" for i in range(20) for k, word in enumerate(("goal", "profit"), 1)]
    classifier = train(tmp_path, base, "text,label", *rows, settings=("data.classes=Sports,Business",))
    path = put(tmp_path / "in.csv", "id,text", *(f"{i},{text}" for i, text in enumerate(TEXTS)))
    answers = classifier.predict(TEXTS)
    for kind, labels in (("raw", [i + 1 for i in answers.indices]), ("names", answers.labels), ("index", answers.indices)):
        assert submit(classifier, path, label_values=kind)[0][1:] == [f"{i},{label}" for i, label in enumerate(labels)]


def test_an_id_that_is_missing_or_not_unique_is_refused(stars: Classifier, tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match=r"id column 'id': rows 0, 2 have the same id, 7; --id-column NAME"):
        submit(stars, put(tmp_path / "in.csv", "id,text", "7,goal", "8,chip", "7,profit"))
    with pytest.raises(LoralabError, match=r"id column 'id': no id in row 1"):
        submit(stars, put(tmp_path / "in.csv", "id,text", "7,goal", ",chip"))
    assert not (tmp_path / "submission.csv").exists()


# --- with a template -----------------------------------------------------------------------------------------------


def test_a_template_by_path(stars: Classifier, test_csv: Path) -> None:
    template = put(test_csv.parent / "sample.csv", "target,id", *(f"{i % 3 + 1},{name}" for i, name in enumerate(IDS[::-1])))
    expected_lines, _ = submit(stars, test_csv, template=template)
    stars.predict_file(test_csv, test_csv.parent / "other.csv", template=str(template))
    assert (test_csv.parent / "other.csv").read_text(encoding="utf-8").splitlines() == expected_lines


def test_a_template_gives_header_order_and_label_values(stars: Classifier, test_csv: Path) -> None:
    template = put(test_csv.parent / "sample.csv", "target,id", *(f"{i % 3 + 1},{name}" for i, name in enumerate(IDS[::-1])))
    lines, _ = submit(stars, test_csv, template=template)
    assert lines == ["target,id", *(f"{label},{name}" for label, name in [*zip(expected(stars, 1), IDS, strict=True)][::-1])]


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (["1", "2", "3", "1"], 1),
        (["2", "2", "2", "2"], 1),
        (["0", "1", "2", "0"], 0),
        (["0", "1", "1", "0"], 0),
        (["", "", "", ""], 1),
    ],
)
def test_the_kind_of_labels_is_the_templates(stars: Classifier, test_csv: Path, values: list[str], first: int) -> None:
    template = put(test_csv.parent / "s.csv", "id;Answer", *(f"{name};{v}" for name, v in zip(IDS, values, strict=True)))
    lines, _ = submit(stars, test_csv, template=template)
    assert lines == ["id;Answer", *(f"{name};{label}" for name, label in zip(IDS, expected(stars, first), strict=True))]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            ["0", "0", "0", "0"],
            "holds only 0, a class index or a placeholder: --label-values raw writes 1, 2, 3; --label-values index",
        ),
        (["0.5"] * 4, r"holds 0\.5, which are not all labels of this run: --label-values raw writes 1, 2, 3;"),
        (["good", "bad", "good", "bad"], "holds bad, good, which are not all labels"),
        (["0", "3", "1", "2"], "not all labels"),
    ],
)
def test_label_values_that_are_not_clear_are_refused_with_the_readings(
    stars: Classifier, test_csv: Path, values: list[str], said: str
) -> None:
    template = put(test_csv.parent / "s.csv", "id,target", *(f"{name},{v}" for name, v in zip(IDS, values, strict=True)))
    with pytest.raises(LoralabError, match=said):
        submit(stars, test_csv, template=template)
    lines, _ = submit(stars, test_csv, template=template, label_values="raw")
    assert [line.split(",")[1] for line in lines[1:]] == expected(stars, 1)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["0", "2", "009"], r"test.csv has 1 id that .*s.csv has not: 1180000000000000123"),
        ([*IDS, "77"], r"s.csv asks for 1 id that .*test.csv has not: 77\. In .*ids are in column 'id'"),
        (["0", "2", "9", "1180000000000000123"], r"asks for 1 id that .* has not: 9; .* has 1 id that .* has not: 009"),
        ([f"x{i}" for i in range(20)], r"asks for 20 ids .*: x0, x1, x2, x3, x4, x5, x6, x7 and 12 more; .* has 4 ids"),
        ([*IDS, "2"], r"the id 2 occurs more than once"),
    ],
)
def test_ids_that_differ_from_the_templates_are_refused(stars: Classifier, test_csv: Path, ids: list[str], said: str) -> None:
    template = put(test_csv.parent / "s.csv", "id,target", *(f"{name},1" for name in ids))
    with pytest.raises(LoralabError, match=said):
        submit(stars, test_csv, template=template)
    assert not (test_csv.parent / "submission.csv").exists()


def test_the_templates_id_column_is_looked_for_in_the_file(stars: Classifier, tmp_path: Path) -> None:
    path = put(tmp_path / "in.csv", "id,key,text", *(f"{i},k{i},{text}" for i, text in enumerate(TEXTS)))
    template = put(tmp_path / "s.csv", "key,Answer", *(f"k{i},1" for i in range(4)))
    assert submit(stars, path, template=template)[0] == ["key,Answer", *(f"k{i},{n}" for i, n in enumerate(expected(stars, 1)))]


def test_rows_without_ids_take_the_templates_in_order(stars: Classifier, tmp_path: Path) -> None:
    path = put(tmp_path / "in.csv", "text,n", *(f"{text},1" for text in TEXTS))
    template = put(tmp_path / "s.csv", "ID,target", *(f"{i},1" for i in range(500, 504)))
    lines, notices = submit(stars, path, template=template)
    assert lines[1:] == [f"{500 + i},{label}" for i, label in enumerate(expected(stars, 1))]
    assert "has no id column: its rows get the ids of the template in order" in notices[-1]
    shuffled = put(tmp_path / "s.csv", "ID,target", *(f"{i},1" for i in (3, 1, 0, 2)))
    assert submit(stars, path, template=shuffled)[0][1:] == [f"{i},{expected(stars, 1)[i]}" for i in (3, 1, 0, 2)]
    put(tmp_path / "s.csv", "ID,target", "500,1", "501,1")
    with pytest.raises(LoralabError, match="ids are row numbers, from 0; --id-column NAME"):
        submit(stars, path, template=template)


def test_a_template_of_other_columns_is_refused(stars: Classifier, test_csv: Path) -> None:
    for lines, said in (
        (("id,World,Sports", "1,0.5,0.5"), r"has 3 columns \(id, World, Sports\) instead of ids and labels.*--format csv"),
        (("id,target",), "has no rows"),
        (("id", "0", "2"), r"has 1 column \(id\) instead of ids and labels"),
    ):
        with pytest.raises(LoralabError, match=said):
            submit(stars, test_csv, template=put(test_csv.parent / "s.csv", *lines))


def test_names_raw_values_and_indices_are_told_apart(tmp_path: Path) -> None:
    table = ClassTable(("Sports", "World"), (("1", "one"), ("2",)))
    for values, kind, labels in (
        ("World", "names", ("Sports", "World")),
        ("2", "raw", ("1", "2")),
        ("one", "raw", ("1", "2")),
        ("0", None, ()),
        ("World,Sports", "names", ("Sports", "World")),
        ("0,1", "index", ("0", "1")),
    ):
        path = put(tmp_path / "s.csv", "id,label", *(f"{i},{value}" for i, value in enumerate(values.split(","))))
        if kind is None:
            with pytest.raises(LoralabError, match="holds only 0"):
                labels_like(read_template(path), table, "label", ["id"])
        else:
            choice = labels_like(read_template(path), table, "label", ["id"])
            assert (choice.kind, choice.labels) == (kind, labels)
    with pytest.raises(LoralabError, match="no label values 'indices'; did you mean 'index'"):
        choose_labels(table, "indices")  # type: ignore[arg-type]


# --- the check -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("ID,Label\n0,1\n2,0\n1,3\n", "line 3 is .*expected id 1"),
        ("ID,Label\n0,1\n1,0\n", "2 rows instead of 3"),
        ("ID,Label\n0,1\n1,0\n2,3\n3,0\n", "4 rows instead of 3"),
        ("ID,Label\n", "0 rows instead of 3"),
        ("", "header"),
        ("id,label\n0,1\n1,0\n2,3\n", "header"),
        ("Label,ID\n0,1\n1,0\n2,3\n", "header"),
        ("0,1\n1,0\n2,3\n", "header"),
        ("ID,Label\n0,1\n1,4\n2,3\n", "label '4' of id 1 is not one of 0, 1, 2, 3"),
        ("ID,Label\n0,1\n1,-1\n2,3\n", "label '-1' of id 1"),
        ("ID,Label\n0,1\n1,Sports\n2,3\n", "label 'Sports' of id 1"),
        ("ID,Label\n0,1\n1,1.0\n2,3\n", "label '1.0' of id 1"),
        ("ID,Label\n0,1\n1,\n2,3\n", "label '' of id 1"),
        ("ID,Label\n0,1\n0,1\n1,0\n", "expected id 1"),
        ("ID,Label\n0,1,9\n1,0\n2,3\n", "expected id 0"),
    ],
)
def test_wrong_submission_is_caught(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "submission.csv"
    path.write_text(content)
    with pytest.raises(LoralabError, match=said):
        check_submission(path, Submission(("ID", "Label"), ["0", "1", "2"], ["0", "1", "2", "3"]))


def test_right_submission_passes(tmp_path: Path) -> None:
    check_submission(put(tmp_path / "a.csv", "ID,Label", "0,1", "1,0"), Submission(("ID", "Label"), ["0", "1"], ["0", "1"]))
    check_submission(put(tmp_path / "a.csv", "y;ID", "b;x", "a;y"), Submission(("y", "ID"), ["x", "y"], ["a", "b"], 1, ";"))


def test_wrong_submission_never_gets_its_name(stars: Classifier, test_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loralab.inference.submissions.SubmissionWriter.write", lambda self, rows, predictions: _spoil(self, rows))
    with pytest.raises(LoralabError, match="label '9' of id 0 is not one of 1, 2, 3"):
        submit(stars, test_csv)
    assert [path.name for path in test_csv.parent.iterdir()] == ["test.csv"]


def _spoil(writer: Any, rows: Any) -> None:
    writer.ids += map(str, rows.ids)
    writer.values += ["9"] * len(rows.texts)


def test_a_submission_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    path.write_bytes(b"id,label\n1,\xff\xfe\n")
    with pytest.raises(LoralabError, match=r"label .* of id 1 is not one of"):
        check_submission(path, Submission(("id", "label"), ("1",), ("a",)))
