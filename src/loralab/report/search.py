"""A search's folder → what it found, as its figures want it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loralab.errors import LoralabError
from loralab.storage.experiment_folder import FOUND


def read_found(folder: Path) -> dict[str, Any]:
    """Read what a search found. Raises LoralabError when there is nothing or it is damaged."""
    path = folder / FOUND
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not {"objectives", "minimised", "axes", "best", "importance", "trials"} <= set(found):
            raise ValueError("something is missing in it")
    except (OSError, ValueError, TypeError) as error:
        raise LoralabError(f"cannot read {path} ({error}): run the search again, its finished trials are kept") from error
    return dict(found)
