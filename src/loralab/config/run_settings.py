"""A run's config.yaml: the settings, their SHA-256 and an end mark, so that a file that was cut or changed is recognized."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from loralab.config.yaml_core import MAX_YAML_BYTES, read_yaml
from loralab.errors import LoralabError
from loralab.safe_files import read_text

RUN_SETTINGS, END_OF_SETTINGS = "config.yaml", "...\n"
"""A run folder's settings file and its last line. YAML ends a document with it, so that a file cut off anywhere is recognized."""
OWN_ROWS, ROWS_FOLDER = "rows in this folder", "rows"
"""`data.source` in the settings file of a run that keeps its rows, which were in memory; and their folder in the run's."""
_DIGEST = "# SHA-256 of the lines above: "


def format_run_settings(yaml: str) -> str:
    """Return the content of config.yaml for the settings as YAML."""
    return f"{yaml}{_DIGEST}{hashlib.sha256(yaml.encode()).hexdigest()}\n{END_OF_SETTINGS}"


def read_run_settings(path: Path) -> dict[str, Any]:
    """Read the settings of a run. The rest of a cut file would be valid, with defaults in place of the missing settings.

    Raises LoralabError for a file that is damaged, was edited, or is no regular file. A file without a checksum was written before
    there were any.
    """
    try:
        text = read_text(path, MAX_YAML_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise LoralabError(f"{path} is damaged: {error}") from error
    if not text.endswith(END_OF_SETTINGS):
        raise LoralabError(
            f"{path} is cut off: its last line is not {END_OF_SETTINGS.strip()!r}; restore it from a copy or train again"
        )
    yaml, newline, last = text.removesuffix("\n" + END_OF_SETTINGS).rpartition("\n")
    if last.startswith("#") and last != _DIGEST + hashlib.sha256((yaml + newline).encode()).hexdigest():
        raise LoralabError(
            f"{path} is damaged or was edited: its settings do not match the SHA-256 in it; restore it from a copy or train again; "
            "to train with other settings, edit a copy of another name"
        )
    settings = read_yaml(path)
    if isinstance(data := settings.get("data"), dict) and data.get("source") == OWN_ROWS:
        settings["data"] = {**data, "source": str(path.parent / ROWS_FOLDER)}
    return settings
