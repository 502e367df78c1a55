"""A search's folder → its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loralab import runs
from loralab.errors import LoralabError
from loralab.report.figures.ink import save_png
from loralab.report.figures.search import draw_search
from loralab.trials import FIGURES, FOUND


def write_search_figures(folder: Path) -> list[Path]:
    """Draw a search's figures from its search.json, in the place of earlier ones, and return where they lie."""
    drawings = draw_search(read_found(folder))
    with runs.atomic_folder(folder / FIGURES) as figures:
        for drawing in drawings:
            save_png(drawing, figures / f"{drawing.name}.png")
    return [folder / FIGURES / f"{drawing.name}.png" for drawing in drawings]


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
