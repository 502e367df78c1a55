"""Every command and Python snippet of README, the first page and the tutorials runs; how is told in snippets.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import FIRST, GUIDES, RUN, SHOWN, read_blocks, run_page, shorten

PAGES = (*FIRST, *GUIDES)
SKIPPED = 25
"""Blocks that no test runs, each with its reason in the page: a new one must be counted here."""


def test_every_block_has_a_known_language() -> None:
    unknown = [f"{page}:{b.line} {b.language!r}" for page in PAGES for b in read_blocks(page) if b.language not in (*RUN, *SHOWN)]
    assert unknown == []


def test_skipped_blocks_are_counted() -> None:
    skipped = [f"{page}:{b.line} {b.skip}" for page in PAGES for b in read_blocks(page) if b.skip]
    assert len(skipped) == SKIPPED, "\n".join(skipped)


def test_only_commands_that_train_are_shortened() -> None:
    assert shorten(["check", "reviews.csv"]) == ["check", "reviews.csv"]
    assert "data.max_train_samples=40" in shorten(["train", "a.csv"])
    assert shorten(["experiment", "seeds", "a.csv", "--seeds", "1,2,3"])[:5] == ["experiment", "seeds", "a.csv", "--seeds", "1,2"]
    assert "train.max_steps=2" not in shorten(["train", "few-shot", "train.epochs=0"])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", FIRST)
def test_first_pages_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, tmp_path, monkeypatch)
