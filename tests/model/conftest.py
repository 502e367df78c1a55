"""One tiny random checkpoint of every architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import MODEL_TYPES, make_checkpoint


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by model type; ELECTRA's embeddings are narrower than its layers."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {kind: make_checkpoint(folder / kind, kind) for kind in MODEL_TYPES}
