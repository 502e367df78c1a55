"""The stub of the hub, for every test that needs one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_stub import HubStub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubStub]:
    """A hub in place of huggingface.co, an empty cache, and a token of the user `me`."""
    with HubStub() as stub:
        stub.replace_hub(monkeypatch, tmp_path / "hub-cache")
        yield stub
