"""Fenced code blocks of Markdown pages: what they hold and how the tests run them.

Blocks in `bash`, `console` and `python` are run, page by page, in order, in one folder. A block with `title="NAME"` is written
to that file first. A block after `<!-- skip: REASON -->` is not run. `text`, `json` and untitled `yaml` are shown only.

What is shortened: `train`, `experiment` and `search` get `train.max_steps=2` and few training, validation and test rows (SHORT,
FEW_ROWS); `experiment` runs its trials in this process, over its first two seeds; `search` runs two trials; `diagnose` perturbs
10 rows; guides write no reports but where `report` is the command; `serve` runs in the background until the page ends. Nothing
else is changed.
"""

from __future__ import annotations

import csv
import itertools
import random
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = tuple(sorted(f"docs/guides/{path.name}" for path in (ROOT / "docs" / "guides").glob("*.md")))
FIRST = (
    "README.md",
    "docs/index.md",
    *sorted(f"docs/tutorials/{path.name}" for path in (ROOT / "docs" / "tutorials").glob("*.md")),
)
RUN, SHOWN = ("bash", "console", "python"), ("text", "json", "yaml", "csv")
SHORT = ("train.max_steps=2", "data.max_test_samples=16")
FEW_ROWS = ("data.max_train_samples=40", "data.validation=12")
CLASSES = ("World", "Sports", "Business", "Sci/Tech")
_BLOCK = re.compile(
    r"(?:^ *<!-- skip: (?P<skip>.+?) -->\n+)?^(?P<indent> *)```(?P<language>\w*)(?P<options>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """One fenced block. skip: why it is not run, or None; title: the file it is written to, or None."""

    language: str
    body: str
    line: int
    skip: str | None
    title: str | None


def read_blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = []
    for match in _BLOCK.finditer(text):
        title = _TITLE.search(match["options"])
        line = text.count("\n", 0, match.start("language")) + 1
        body = textwrap.dedent(match["body"])
        blocks.append(Block(match["language"], body, line, match["skip"], title[1] if title else None))
    return blocks


def run_page(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the blocks of a page in `folder`, which then holds the example files."""
    write_example_files(folder)
    monkeypatch.chdir(folder)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with ExitStack() as servers:
        _run_blocks(page, namespace, servers)


def _run_blocks(page: str, namespace: dict[str, Any], servers: ExitStack) -> None:
    for block in read_blocks(page):
        where = f"{page}:{block.line}"
        if block.title:
            Path(block.title).write_text(block.body, encoding="utf-8")
        elif block.skip or block.language not in RUN:
            continue
        elif block.language == "python":
            exec(compile(block.body, where, "exec"), namespace)
        else:
            for words in commands(block):
                if words[:2] == ["loralab", "serve"]:
                    servers.enter_context(_serving(words[2:]))
                else:
                    _run_command(words, where, report=page not in GUIDES)


@contextmanager
def _serving(arguments: Sequence[str]) -> Iterator[None]:
    """Run `loralab serve` until the end of the page, and wait until it is ready."""
    process = subprocess.Popen([sys.executable, "-m", "loralab", "-q", "serve", *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "serving http://" in process.stdout.readline()
        yield
    finally:
        process.terminate()
        process.communicate(timeout=40)


def commands(block: Block) -> Iterator[list[str]]:
    """Yield the shell commands of a block, each split into words, comments removed, continued lines joined."""
    lines = block.body.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        if words := list(lexer):
            yield words


def _run_command(words: list[str], where: str, report: bool) -> None:
    """Run one command; `cat FILE | loralab ...` and `... > FILE` too."""
    target, stdin = None, ""
    if ">" in words:
        words, (target,) = words[: words.index(">")], words[words.index(">") + 1 :]
    if words[0] == "cat" and "|" in words:
        stdin, words = Path(words[1]).read_text(encoding="utf-8"), words[words.index("|") + 1 :]
    if words[0] == "loralab":
        text = _loralab(shorten(words[1:], report), stdin, where)
    else:
        text = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
    if target:
        Path(target).write_text(text, encoding="utf-8")


def _loralab(arguments: Sequence[str], stdin: str, where: str) -> str:
    """Run a command in this process; return its standard output."""
    from typer.testing import CliRunner

    from loralab.cli.main import app

    result = CliRunner().invoke(app, list(arguments), input=stdin)
    assert result.exit_code == 0, f"{where}: loralab {' '.join(arguments)}\n{result.output}\n{result.exception!r}"
    return result.stdout


def shorten(arguments: list[str], report: bool = True) -> list[str]:
    """Return the arguments of a command that trains, with fewer steps, rows and trials; those of any other command as they are."""
    command, rest = arguments[0], arguments[1:]
    if command == "diagnose":
        return [*arguments, "--rows", "10"]
    if command not in ("train", "experiment", "search") or "--help" in rest:
        return arguments
    if command == "experiment" and (len(rest) < 2 or rest[0] == "compare" or rest[1].startswith("--")):
        return arguments  # it lists the kinds, or compares finished runs
    given = " ".join(rest)
    added = [setting for setting in SHORT if setting.partition("=")[0] not in given]
    if "train.epochs=0" in given or "zero-shot" in given:
        added.remove(SHORT[0])
    if not any(
        name in given for name in ("max_train_samples", "shots_per_class", "few", "data.validation", "train_indices", "active")
    ):
        added += FEW_ROWS
    if command == "experiment":
        added += ["--where", "here"]
        rest = [
            ",".join(word.split(",")[:2]) if before == "--seeds" else word for before, word in zip(["", *rest], rest, strict=False)
        ]
    if command == "search":
        added += ["--trials", "2", "--jobs", "1"]
    elif not report:
        added.append("--no-report")
    return [command, *rest, *added]


def write_example_files(folder: Path) -> None:
    """Write the files that the pages name: reviews, news, new texts."""
    reviews, train, test = list(_reviews(120)), _sample("train")[:120], _sample("test")[:40]
    _write(folder / "reviews.csv", ("title", "body", "sentiment"), reviews)
    _write(folder / "new.csv", ("title", "body"), [row[:2] for row in reviews[:9]])
    _write(folder / "train.csv", ("text", "label"), train)
    _write(folder / "test.csv", ("text", "label"), test)
    _write(folder / "news.csv", ("text", "label"), [(text, CLASSES[label]) for text, label in train])
    (folder / "texts.txt").write_text("arrived broken\ndoes what it says\n", encoding="utf-8")
    import pandas  # type: ignore[import-untyped]

    pandas.DataFrame({"text": [text for text, _ in test]}).to_pickle(folder / "test_unlabelled.pkl")


def _sample(part: str) -> list[tuple[str, int]]:
    path = resources.files("loralab.data") / "sample" / f"{part}.csv"
    with path.open(encoding="utf-8") as file:
        return [(f"{row['title']} {row['description']}", CLASSES.index(row["label"])) for row in csv.DictReader(file)]


def _reviews(count: int) -> Iterator[tuple[str, str, str]]:
    """Invented reviews: half positive, a third negative, a sixth neutral; no two alike."""
    source = random.Random(0)
    opinions = {
        "positive": ["works perfectly", "very happy with it", "a lovely present", "better than expected", "would buy it again"],
        "negative": ["arrived broken", "stopped working", "a waste of money", "the box was empty", "support never answered"],
        "neutral": ["does what it says", "average for the price", "neither good nor bad", "it is fine", "as described"],
    }
    things = ["kettle", "lamp", "keyboard", "blender", "backpack", "headset", "chair", "clock"]
    sentiments = itertools.cycle(("positive", "negative", "positive", "negative", "positive", "neutral"))
    for number, sentiment in zip(range(count), sentiments, strict=False):
        thing, opinion = source.choice(things), source.choice(opinions[sentiment])
        yield f"{thing.capitalize()} {number}", f"I ordered this {thing} in week {number}; {opinion}.", sentiment


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)
