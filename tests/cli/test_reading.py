"""A run remembers its data: later files are read as it was trained, and every decision is printed and kept."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import done, invoke
from tiny import topics, write_csv

FAST = ["train.max_steps=2", "train.precision=fp32", "--no-report", "--overwrite"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and lines that are not wrapped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    return tmp_path


def train(tiny: Path, source: str, *settings: str) -> str:
    return done("train", source, f"model.base={tiny}", *settings, *FAST, "--name", "run")


def scores(*arguments: object) -> dict[str, float]:
    """Return what a command prints as JSON. How the file was read goes to standard error."""
    answer = invoke(*arguments, "--json")
    assert answer.code == 0, answer
    return dict(json.loads(answer.out))


def refused(*arguments: object) -> str:
    answer = invoke(*arguments)
    assert (answer.code, "Traceback" in answer.err) == (2, False), answer
    return answer.err


def labels(path: str) -> list[str]:
    with open(path, encoding="utf-8", newline="") as file:
        return [row["label"] for row in csv.DictReader(file)]


def reviews(text: str = "review_text", label: str = "stars") -> list[tuple[str, ...]]:
    """Rows with a note of a moderator before the text, and the header."""
    rows = [(str(i), "checked" if i % 2 else "ok", text_, label_) for i, (text_, label_) in enumerate(topics(8))]
    return [("id", "comment", text, label), *rows]


@pytest.mark.parametrize(
    ("header", "settings"),
    [
        (("id", "comment", "review_text", "stars"), ["data.text=review_text", "data.label=stars"]),
        (("id", "title", "description", "stars"), ["data.text=description", "data.label=stars"]),
        (("label", "comment", "Review, English", "Topic: main"), ["data.text=Review, English", "data.label=Topic: main"]),
        (("null", "text", "on", "#label"), ["data.text=on", "data.label=#label"]),
    ],
)
def test_later_files_are_read_with_the_columns_of_the_run(tiny: Path, header: Sequence[str], settings: list[str]) -> None:
    rows = [(str(i), "checked" if i % 2 else "ok", text, label) for i, (text, label) in enumerate(topics(12))]
    write_csv(Path("s.csv"), rows, header)
    train(tiny, "s.csv", *settings)
    named = scores("evaluate", "runs/run", *settings, "--file", "s.csv")
    assert scores("evaluate", "runs/run", "--file", "s.csv") == named
    done("predict", "runs/run", "--file", "s.csv", "--out", "p.csv")
    with open("p.csv", encoding="utf-8", newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == [row[2] for row in rows]
    contract = json.loads(Path("runs/run/data.json").read_text(encoding="utf-8"))
    assert (contract["text"], contract["label"]) == ([header[2]], header[3])


def test_a_file_without_the_runs_columns_is_said(tiny: Path) -> None:
    write_csv(Path("s.csv"), topics(12), ("review_text", "stars"))
    train(tiny, "s.csv")
    write_csv(Path("other.csv"), [(text,) for text, _ in topics(4)], ("text",))
    out = done("predict", "runs/run", "--file", "other.csv", "--out", "p.csv")
    assert "no column 'review_text', as in training" in out
    write_csv(Path("upper.csv"), [(text,) for text, _ in topics(4)], ("Review_Text ",))
    assert "as in training" not in done("predict", "runs/run", "--file", "upper.csv", "--out", "p2.csv")


def test_a_file_without_header_is_refused_with_settings_that_work(tiny: Path) -> None:
    write_csv(Path("s.csv"), topics(12))
    train(tiny, "s.csv")
    Path("one.csv").write_text("great phone\nbroken on arrival\nfine\n")
    message = refused("predict", "runs/run", "--file", "one.csv", "--out", "p.csv")
    settings = [word for word in message.split() if word.startswith("data.header=")]
    rows = []
    for setting in settings:
        done("predict", "runs/run", setting, "--file", "one.csv", "--out", "p.csv", "--overwrite")
        rows.append(len(labels("p.csv")))
    assert rows == [2, 3]


def test_the_labels_of_another_file_are_never_shifted(tiny: Path) -> None:
    numbers = {name: str(i + 1) for i, name in enumerate(dict.fromkeys(label for _, label in topics(8)))}
    rows = [(text, numbers[label]) for text, label in topics(15)]
    write_csv(Path("four.csv"), rows)
    train(tiny, "four.csv")
    three = [row for row in rows if row[1] != "4"]
    write_csv(Path("three.csv"), three)
    whole = scores("evaluate", "runs/run", "--file", "three.csv")
    write_csv(Path("floats.csv"), [(text, f"{label}.0") for text, label in three])
    floats = scores("evaluate", "runs/run", "--file", "floats.csv")
    assert floats["accuracy"] == whole["accuracy"]
    write_csv(Path("z.csv"), [*three, ("not rated yet", "0")])
    message = refused("evaluate", "runs/run", "--file", "z.csv")
    assert f"label '0' in row {len(three)} is not a class; classes: 1, 2, 3, 4" in message
    assert f"label '0' in row {len(three)}" in refused("diagnose", "runs/run", "--file", "z.csv")
    assert f"label '0' in row {len(three)}" in refused(
        "train", "four.csv", "data.test=z.csv", f"model.base={tiny}", *FAST, "--name", "other"
    )


def test_rows_without_a_label_are_left_out_and_counted(tiny: Path) -> None:
    rows = [(text, label if i < 40 else "") for i, (text, label) in enumerate(topics(15))]
    write_csv(Path("half.csv"), rows)
    out = train(tiny, "half.csv")
    assert "20 of 60 rows have no label and are left out (rows 40, 41, 42, 43, 44, 45, 46, 47 and 12 more)" in out
    assert "20 of 60 rows" in Path("runs/run/data.json").read_text(encoding="utf-8")
    assert "have no label" in refused("train", "half.csv", "--strict", f"model.base={tiny}", *FAST, "--name", "strict")
    done("evaluate", "runs/run", "--file", "half.csv")
    done("predict", "runs/run", "--file", "half.csv", "--out", "p.csv")
    assert len(labels("p.csv")) == 60


@pytest.mark.parametrize("hidden", ["-1", ""])
def test_a_test_file_with_hidden_labels_is_not_scored(tiny: Path, hidden: str) -> None:
    Path("k").mkdir()
    rows = [(text, str(int(label in ("World", "Sports")))) for text, label in topics(15)]
    write_csv(Path("k/train.csv"), rows)
    write_csv(Path("k/test.csv"), [(text, hidden) for text, _ in topics(8)])
    out = train(tiny, "k")
    assert "k/test.csv: " in out
    assert "held out instead" in out
    assert "12 test" in out
    assert "k/test.csv is not used: data.test=0.3" in train(tiny, "k", "data.test=0.3")
    message = refused("train", "k", "data.test=k/test.csv", f"model.base={tiny}", *FAST, "--name", "other")
    assert "can only be classified, with loralab predict" in message


def test_a_validation_part_is_used(tiny: Path) -> None:
    Path("v").mkdir()
    for part in ("train", "validation", "test"):
        write_csv(Path(f"v/{part}.csv"), topics(5, seed=len(part)))
    assert "20 train  20 validation  20 test" in train(tiny, "v")
    out = train(tiny, "v", "data.validation=0.2")
    assert "16 train  4 validation  20 test" in out
    assert "v/validation.csv is not used: data.validation=0.2" in out


@pytest.mark.parametrize(
    ("names", "settings"),
    [
        (("0", "1"), ["train.class_weights={0: 1, 1: 5}"]),
        (("no", "yes"), ["train.class_weights={yes: 2, no: 1}", "data.classes=[no, yes]"]),
        (("no", "yes"), ["train.class_weights={no:1, yes:2}", "data.classes=no,yes"]),
        (("1.0", "2.0"), ["train.class_weights={1.0: 1, 2: 5}"]),
        (("Toys: games", "#deal"), ["train.monitor=f1:Toys: games"]),
    ],
)
def test_class_names_in_settings_are_names_whatever_they_look_like(tiny: Path, names: tuple[str, str], settings: list[str]) -> None:
    write_csv(Path("s.csv"), [(text, names[label in ("World", "Sports")]) for text, label in topics(15)])
    train(tiny, "s.csv", *settings)


def test_a_recipes_class_names_are_left_out_with_other_data(tiny: Path) -> None:
    numbers = {name: str(i + 1) for i, name in enumerate(dict.fromkeys(label for _, label in topics(8)))}
    write_csv(Path("prio.csv"), [(text, numbers[label]) for text, label in topics(15)])
    out = done("train", "roberta-search", "data.source=prio.csv", f"model.base={tiny}", *FAST, "--name", "run")
    assert "the class names of recipe roberta-search are left out" in out
    assert "classes     1, 2, 3, 4" in out
    other = [f"model.base={tiny}", *FAST, "--name", "other"]
    message = refused("train", "roberta-class-weights", "data.source=prio.csv", "data.validation=0.1", *other)
    assert "f1:Business" in message
    assert "the class names of recipe roberta-class-weights are left out" in message
    assert "for other classes write train.monitor=macro_f1 train.class_weights=balanced;" in message
    settings = ["train.monitor=macro_f1", "train.class_weights=balanced", "data.validation=0.1"]
    assert "classes     1, 2, 3, 4" in done("train", "roberta-class-weights", "data.source=prio.csv", *settings, *other)


def test_a_first_row_that_names_the_columns_is_noted(tiny: Path) -> None:
    Path("noq.tsv").write_text("".join(f"ham\tsee you {i}\nspam\tfree entry now {i}\n" for i in range(15)), encoding="utf-8")
    out = done("check", "noq.tsv", "data.text=see you 0", "data.label=ham")
    assert "the first line has the names of columns that are asked for, but looks like a row" in out
    assert "data.header=false reads it as one" in out


def test_what_a_message_proposes_works_when_pasted(tiny: Path) -> None:
    rows = [(f"a{i}", text, str(int(label == "World")), str(int(label == "Sports"))) for i, (text, label) in enumerate(topics(15))]
    write_csv(Path("toxic.csv"), rows, ("id", "comment_text", "toxic", "insult"))
    message = refused("train", "toxic.csv", f"model.base={tiny}", *FAST, "--name", "run")
    assert "toxic, insult are all 0 or 1" in message
    settings = shlex.split(message.split("for example ")[1].splitlines()[0])
    assert not any("data.text=id" in setting for setting in settings)
    assert "comment_text" in train(tiny, "toxic.csv", *settings)


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(tiny: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = here / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    write_csv(home / "a.csv", topics(12))
    out = done("train", "~/a.csv", "data.test=~/a.csv", f"model.base={tiny}", *FAST, "--runs=~/runs", "--name", "run")
    assert "48 test" in out
    assert (home / "runs" / "run" / "scores.json").is_file()
    done("predict", "~/runs/run", "--file=~/a.csv", "--out=~/p.csv")
    assert (home / "p.csv").is_file()
    done("check", "~/a.csv")
    assert not Path("~").exists()


@pytest.mark.parametrize(
    ("source", "command"),
    [
        ("https://example.org/a.csv", "curl -LO https://example.org/a.csv"),
        ("http://example.org/b.csv", "curl -LO http://example.org/b.csv"),
        ("hf://datasets/user/news/train.csv", "hf download --repo-type dataset user/news --local-dir news"),
    ],
)
def test_an_address_is_refused_with_the_command_that_downloads_it(source: str, command: str) -> None:
    for arguments in (["train", source], ["check", source], ["train", "quickstart", f"data.source={source}"]):
        assert command in refused(*arguments)


def test_settings_of_other_sections_do_not_apply_to_a_file(tiny: Path) -> None:
    write_csv(Path("s.csv"), topics(12))
    train(tiny, "s.csv")
    assert "only settings of data apply" in refused("evaluate", "runs/run", "train.epochs=2", "--file", "s.csv")


def numbered(folder: Path, first: int) -> dict[str, str]:
    """Write names.csv with class names and numbers.csv with their numbers; return number by name."""
    names = [*dict.fromkeys(label for _, label in topics(2))]
    number = {name: str(i + first) for i, name in enumerate(names)}
    write_csv(folder / "names.csv", topics(15))
    write_csv(folder / "numbers.csv", [(text, number[label]) for text, label in topics(4, seed=7)])
    return number


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_are_read_by_the_order_that_data_classes_declares(tiny: Path, here: Path, first: int) -> None:
    number = numbered(here, first)
    classes = f"data.classes={','.join(number)}"
    name = next(iter(number))
    out = train(tiny, "names.csv", "data.test=numbers.csv", classes)
    assert f"numbers are read by the order of data.classes: {first} as {name!r}" in " ".join(out.split())
    saved = json.loads(Path("runs/run/scores.json").read_text(encoding="utf-8"))["scores"]
    later = scores("evaluate", "runs/run", "--file", "numbers.csv")  # the run remembers the numbers
    assert later["accuracy"] == saved["accuracy"]
    assert {later[f"true:{own}"] for own in number} == {4.0}
    checked = invoke("check", "names.csv", classes, "--test", "numbers.csv")
    assert checked.code == 0, checked.out
    assert f"{first} as {name!r}" in " ".join(checked.out.split())


def test_numbers_without_a_declared_order_are_refused_by_train_and_check(tiny: Path, here: Path) -> None:
    numbered(here, 1)
    assert "is not a class" in refused(
        "train", "names.csv", "data.test=numbers.csv", f"model.base={tiny}", *FAST, "--name", "other"
    )
    assert invoke("check", "names.csv", "--test", "numbers.csv").code == 2
    train(tiny, "names.csv")
    assert "is not a class" in refused("evaluate", "runs/run", "--file", "numbers.csv")


def test_predictions_are_counted_beside_the_training_rows(tiny: Path) -> None:
    write_csv(Path("s.csv"), topics(12)[:36])
    train(tiny, "s.csv")
    Path("new.csv").write_text("text\n" + "".join(f"{text}\n" for text, _ in topics(3)))
    out = " ".join(done("predict", "runs/run", "--file", "new.csv", "--out", "made/for/it.csv").split())
    predicted = labels("made/for/it.csv")
    training = [label for _, label in topics(12)[:36]]
    for name in set(training):
        count, share = predicted.count(name), training.count(name) / len(training)
        assert f"{name} {count} ({count / len(predicted):.0%}, training {share:.0%})" in out
    assert scores("predict", "runs/run", "--file", "new.csv", "--out", "p.csv")["predicted"] == {
        name: predicted.count(name) for name in sorted(set(training))
    }
