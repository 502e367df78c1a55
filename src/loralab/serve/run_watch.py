"""Watch a folder of runs: load each complete run, load it again when it is replaced, and remove it when it is gone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from loralab.errors import LoralabError
from loralab.model.manifest import MANIFEST
from loralab.storage.run_folder import MODEL, SCORES

SECONDS = 2.0
_log = logging.getLogger(__name__)


def complete_runs(folder: Path) -> dict[str, Path]:
    """Return the complete runs of a folder by name, in alphabetical order."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: path for path in paths if (path / SCORES).is_file() and (path / MODEL / MANIFEST).is_file()}


class RunWatch:
    """A thread that looks at a folder every two seconds. add(path, name) and remove(name) change the server's models."""

    def __init__(self, folder: Path, add: Callable[[Path, str], object], remove: Callable[[str], object]) -> None:
        self.folder, self.add, self.remove = folder, add, remove
        self._known: dict[str, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="loralab-watch")

    def start(self) -> None:
        """Load the runs that are there, and watch for others."""
        self.update()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def update(self) -> None:
        """Load new and changed runs, and remove those that are gone. A run that cannot be loaded is reported, once."""
        runs = complete_runs(self.folder)
        for name, path in runs.items():
            try:
                status = (path / SCORES).stat()
            except OSError:
                continue  # it is being replaced
            version = status.st_mtime_ns, status.st_ino
            if self._known.get(name) == version:
                continue
            self._known[name] = version
            try:
                self.add(path, name)
                _log.info("loaded %s", path)
            except LoralabError as error:
                _log.warning("cannot load %s: %s", path, error)
        for name in [name for name in self._known if name not in runs]:
            del self._known[name]
            try:
                self.remove(name)
                _log.info("removed %s: its folder is gone", name)
            except LoralabError:
                pass  # it was never loaded, or removed by a request

    def _watch(self) -> None:
        while not self._stop.wait(SECONDS):
            try:
                self.update()
            except OSError as error:  # the folder may be readable again later
                _log.warning("cannot look at %s: %s", self.folder, error)
