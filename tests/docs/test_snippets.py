"""Every command and Python snippet of README, tutorials and guides runs, on small files made here.

What is shortened: `train`, `experiment` and `search` get `train.max_steps=2`, few training rows and few test rows (SHORT,
FEW_ROWS); `experiment` runs its trials in this process; `search` runs two. Python's `load_config` gets the settings of SHORT.
Nothing else of a command is changed.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import random
import subprocess
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from snippets import PAGES, RUN, SHOWN, Block, commands, read_blocks

SHORT = ("train.max_steps=2", "data.max_test_samples=24")
FEW_ROWS = "data.max_train_samples=60"
SKIPPED = 15
"""Blocks that no test runs, each with its reason in the page: a new one must be counted here."""


def test_every_block_has_a_known_language() -> None:
    unknown = [f"{page}:{b.line} {b.language!r}" for page in PAGES for b in read_blocks(page) if b.language not in (*RUN, *SHOWN)]
    assert unknown == []


def test_skipped_blocks_are_few_and_counted() -> None:
    skipped = [f"{page}:{b.line} {b.skip}" for page in PAGES for b in read_blocks(page) if b.skip]
    assert len(skipped) == SKIPPED, "\n".join(skipped)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES)
def test_snippets_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example_files: Callable[[Path], None]) -> None:
    example_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    _shorten_python(monkeypatch)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in read_blocks(page):
        where = f"{page}:{block.line}"
        if block.title:
            Path(block.title).write_text(block.body, encoding="utf-8")
        if block.skip or block.title or block.language not in RUN:
            continue
        if block.language == "python":
            exec(compile(block.body, where, "exec"), namespace)
        else:
            _run_shell(block, where)


def _run_shell(block: Block, where: str) -> None:
    for words in commands(block):
        output = None
        if ">" in words:
            words, (output,) = words[: words.index(">")], words[words.index(">") + 1 :]
        stdin = ""
        if words[0] == "cat" and "|" in words:
            stdin, words = Path(words[1]).read_text(encoding="utf-8"), words[words.index("|") + 1 :]
        if words[0] == "loralab":
            text = _loralab(shorten(words[1:]), stdin, where)
        else:
            text = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
        if output:
            Path(output).write_text(text, encoding="utf-8")


def _loralab(arguments: Sequence[str], stdin: str, where: str) -> str:
    """Run a command in this process; return its standard output."""
    from typer.testing import CliRunner

    from loralab.cli.main import app

    result = CliRunner().invoke(app, list(arguments), input=stdin)
    assert result.exit_code == 0, f"{where}: loralab {' '.join(arguments)}\n{result.output}\n{result.exception!r}"
    return result.stdout


def shorten(arguments: list[str]) -> list[str]:
    """Return the arguments of a command that trains, with fewer steps, rows and trials; those of any other command as they are."""
    command, rest = arguments[0], arguments[1:]
    if command not in ("train", "experiment", "search") or not rest or "--help" in rest or rest[:1] == ["compare"]:
        return arguments
    if command == "experiment" and (len(rest) < 2 or rest[1].startswith("--")):
        return arguments  # it lists the kinds
    given = " ".join(rest)
    added = [setting for setting in SHORT if setting.partition("=")[0] not in given]
    if "train.epochs=0" in given or "zero-shot" in given:
        added.remove(SHORT[0])
    if not any(name in given for name in ("max_train_samples", "shots_per_class", "few-shot", "data.validation", "train_indices")):
        added.append(FEW_ROWS)
    if command == "experiment" and "--where" not in given:
        added += ["--where", "here"]
    if command == "search":
        added += ["--trials", "2", "--jobs", "1"]
    return [command, *rest, *added]


def _shorten_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give Python's `load_config` the settings of SHORT."""
    from loralab import config

    real = config.load_config

    def load_config(source: str | Path = "quickstart", overrides: Sequence[str] = ()) -> Any:
        return real(source, [*overrides, *SHORT])

    monkeypatch.setattr(config, "load_config", load_config)


@pytest.fixture(scope="session")
def example_files() -> Callable[[Path], None]:
    """Return a function that writes the files which the pages name into a folder."""
    news = _sample("train")[:120], _sample("test")[:40]
    reviews = list(_reviews(120))

    def write(folder: Path) -> None:
        _write(folder / "reviews.csv", ("title", "body", "sentiment"), reviews)
        _write(folder / "reviews_2026.csv", ("title", "body", "sentiment"), reviews[::4])
        _write(folder / "new.csv", ("title", "body"), [row[:2] for row in reviews[:9]])
        _write(folder / "train.csv", ("text", "label"), news[0])
        _write(folder / "test.csv", ("text", "label"), news[1])
        _write(folder / "news.csv", ("text", "label"), [(text, _CLASSES[label]) for text, label in news[0]])
        (folder / "texts.txt").write_text("arrived broken\ndoes what it says\n", encoding="utf-8")
        with contextlib.suppress(ImportError):
            import pandas

            pandas.DataFrame({"text": [text for text, _ in news[1]]}).to_pickle(folder / "test_unlabelled.pkl")

    return write


_CLASSES = ("World", "Sports", "Business", "Sci/Tech")


def _sample(part: str) -> list[tuple[str, int]]:
    path = resources.files("loralab.data") / "sample" / f"{part}.csv"
    with path.open(encoding="utf-8") as file:
        return [(f"{row['title']} {row['description']}", _CLASSES.index(row["label"])) for row in csv.DictReader(file)]


def _reviews(count: int) -> Iterator[tuple[str, str, str]]:
    """Invented reviews: half positive, a third negative, the rest neutral; no two alike."""
    source = random.Random(0)
    opinions = {
        "positive": ["works perfectly", "very happy with it", "a lovely present", "better than expected", "would buy it again"],
        "negative": ["arrived broken", "stopped working", "a waste of money", "the box was empty", "support never answered"],
        "neutral": ["does what it says", "average for the price", "neither good nor bad", "it is fine", "as described"],
    }
    things = ["kettle", "lamp", "keyboard", "blender", "backpack", "headset", "chair", "clock"]
    for number, sentiment in zip(
        range(count), itertools.cycle(("positive", "negative", "positive", "negative", "positive", "neutral"))
    ):
        thing, opinion = source.choice(things), source.choice(opinions[sentiment])
        yield f"{thing.capitalize()} {number}", f"I ordered this {thing} in week {number}; {opinion}.", sentiment


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)
