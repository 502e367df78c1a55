"""Fenced code blocks of Markdown pages: what they hold and how the tests run them.

Blocks in `bash`, `console` and `python` are run, page by page, in order, in one folder. A block with `title="NAME"` is written
to that file first. A block after `<!-- skip: REASON -->` is not run. `text`, `json` and untitled `yaml` are shown only.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "docs/index.md",
    *sorted(str(path.relative_to(ROOT)) for folder in ("tutorials", "guides") for path in (ROOT / "docs" / folder).glob("*.md")),
)
RUN, SHOWN = ("bash", "console", "python"), ("text", "json", "yaml", "csv")
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
