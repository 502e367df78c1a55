"""One tiny random checkpoint of every architecture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import MODEL_TYPES, make_checkpoint


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by model type; ELECTRA's embeddings are narrower than its layers."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {kind: make_checkpoint(folder / kind, kind) for kind in MODEL_TYPES}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices: two threads that wait for each other take ten times as long when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
