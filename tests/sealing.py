"""Record the files of a run as they are now, or remove its checksums. Tests change files that loralab has sealed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loralab.config.run_settings import format_run_settings
from loralab.model.manifest import MANIFEST, READ_FILES
from loralab.storage import run_folder
from loralab.storage.sealed import record_files, seal

SEAL = ("format_version", "files", "sha256")


def reseal(folder: Path) -> None:
    """Give the manifest of a model, and environment.json and scores.json of a run, the checksums of the files beside them."""
    for model in (folder, folder / run_folder.MODEL):
        if (model / MANIFEST).is_file():
            _seal(model / MANIFEST, record_files(model, READ_FILES), format_key="format")
    config = folder / run_folder.CONFIG
    if config.is_file():
        lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
        config.write_text(format_run_settings("".join(line for line in lines[:-1] if not line.startswith("# "))), encoding="utf-8")
    for name in (run_folder.ENVIRONMENT, run_folder.SCORES):
        if (folder / name).is_file() and (files := json.loads((folder / name).read_text(encoding="utf-8")).get("files")):
            _seal(folder / name, record_files(folder, files))


def unseal(folder: Path) -> None:
    """Make a run of format 1, that of the first development versions: without checksums."""
    for name in (run_folder.SCORES, run_folder.ENVIRONMENT, f"{run_folder.MODEL}/{MANIFEST}"):
        path = folder / name
        kept = {key: value for key, value in json.loads(path.read_text(encoding="utf-8")).items() if key not in SEAL}
        path.write_text(json.dumps(kept | ({"format": 1} if path.name == MANIFEST else {})), encoding="utf-8")
    config, log = folder / run_folder.CONFIG, folder / run_folder.LOG
    lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith("# ")), encoding="utf-8")
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    without = [{key: value for key, value in event.items() if key != "crc32"} for event in events]
    log.write_text("".join(json.dumps(event) + "\n" for event in without), encoding="utf-8")


def _seal(path: Path, files: Any, **key: str) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    kept = {name: value for name, value in content.items() if name not in SEAL}
    path.write_text(json.dumps(seal(kept, files, **key), indent=2) + "\n", encoding="utf-8")
