"""Splits as runs show them: classes with few rows, monitored classes, groups, times and shared texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import done, invoke
from tiny import write_csv

FAST = ["train.max_steps=1", "train.precision=fp32", "data.max_length=16", "--no-report", "--overwrite", "--name", "run"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder, and lines that are not wrapped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "600")


def train(tiny: Path, source: Path, *settings: str) -> str:
    return done("train", source, f"model.base={tiny}", *settings, *FAST)


def refused(tiny: Path, source: Path, *settings: str) -> str:
    answer = invoke("train", source, f"model.base={tiny}", *settings, *FAST)
    assert (answer.code, "Traceback" in answer.err) == (2, False), answer
    return answer.err


def write_classes(sizes: Sequence[int]) -> Path:
    rows = [(f"class {k} says thing {k}x{i}", f"intent_{k}") for k, size in enumerate(sizes) for i in range(size)]
    return write_csv(Path("classes.csv"), rows)


@pytest.mark.parametrize(("classes", "rows"), [(40, 8), (77, 6), (20, 5), (3, 3), (5, 4), (2, 2)])
def test_many_classes_with_few_rows_train_by_default(tiny: Path, classes: int, rows: int) -> None:
    out = train(tiny, write_classes([rows] * classes))
    assert ("rows instead of" in out) == (rows > 2)


def test_a_rare_class_can_be_monitored_or_the_refusal_helps(tiny: Path) -> None:
    source = write_classes([98, 98, 4])
    for monitor in ("f1:intent_2", "recall:intent_2", "balance:intent_0/intent_2", "macro_f1"):
        assert "intent_2 2 + 1 + 1 (training + validation + test rows)" in train(tiny, source, f"train.monitor={monitor}")
    source = write_classes([98, 98, 2])
    for monitor in ("f1:intent_2", "recall:intent_2", "balance:intent_0/intent_2"):
        message = refused(tiny, source, f"train.monitor={monitor}")
        assert "no validation row is intent_2" in message
        assert "write train.monitor=macro_f1" in message
    assert "classes with training rows only, which therefore have no scores: intent_2 2" in train(
        tiny, source, "train.monitor=macro_f1"
    )


def test_single_rows_stay_in_training_and_are_named(tiny: Path) -> None:
    out = train(tiny, write_classes([60, 60, *[1] * 10]))
    assert (
        "no scores: intent_2 1, intent_3 1, intent_4 1, intent_5 1, intent_6 1, intent_7 1, intent_8 1, intent_9 1 and 2 more"
        in out
    )


def test_shots_propose_a_number_that_works(tiny: Path) -> None:
    source = write_classes([8] * 12)
    message = refused(tiny, source, "data.shots_per_class=8")
    assert message.rstrip().endswith("data.shots_per_class=5 would do")
    assert "rows        60 train" in train(tiny, source, "data.shots_per_class=5")


def write_authors() -> Path:
    rows = [("text", "label", "author", "date")]
    rows += [(f"thing {i} of {i}", "ab"[i % 2], f"author {i // 2 % 10}", f"2026-01-{1 + i // 4:02}") for i in range(100)]
    path = Path("authors.csv")
    path.write_text("\n".join(map(",".join, rows)) + "\n", encoding="utf-8")
    return path


def test_groups_and_times_are_printed_and_kept(tiny: Path) -> None:
    source = write_authors()
    out = train(tiny, source, "data.group=author")
    assert "test: 20 rows, 2 of 10 groups of data.group" in out
    assert any("2 of 10 groups" in remark for remark in json.loads(Path("runs/run/data.json").read_text())["remarks"])
    out = train(tiny, source, "data.time=date")
    assert "test: the latest 20 rows by data.time, 2026-01-21 to 2026-01-25, after 2026-01-20" in out
    assert "'thing 0 of 0' in rows 0, 1, 2, 3, 4, 5, 6, 7 and 92 more is not a time" in refused(tiny, source, "data.time=text")
    assert "leave one out" in refused(tiny, source, "data.time=date", "data.group=author")


def test_texts_in_two_splits_are_printed(tiny: Path) -> None:
    text = "the courier left the parcel with a neighbour who opened it by mistake and sent it back a week later"
    source = write_csv(Path("a.csv"), [(f"thing {i}", "ab"[i % 2]) for i in range(20)] + [(text, "a")])
    test = write_csv(Path("b.csv"), [("Thing 3", "b"), (text + " again!", "a"), ("other", "a")])
    out = train(tiny, source, f"data.test={test}", "data.validation=0")
    assert "1 of 3 test texts are also training texts" in out
    assert "1 of 3 test texts nearly equal training texts, such as test row 1 and training row 20" in out
