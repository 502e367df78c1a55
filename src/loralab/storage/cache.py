"""The folder of files that can be computed again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return $LORALAB_CACHE, else loralab/ in the user's cache: hidden states and compiled kernels. It may be deleted any time."""
    if chosen := os.environ.get("LORALAB_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loralab"
