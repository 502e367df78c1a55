"""Every command and Python snippet of the guides runs; a file of its own, so that another worker takes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import GUIDES, run_page


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", GUIDES)
def test_guides_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, tmp_path, monkeypatch)
