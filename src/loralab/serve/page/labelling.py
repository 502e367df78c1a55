"""Label the rows of a file, the most useful ones first: the loop of active learning with a person in it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from loralab.errors import LoralabError
from loralab.experiments.strategies import RANDOM
from loralab.serve.models import Models
from loralab.serve.page.labelled_file import LabelledFile, LabelledRow
from loralab.serve.page.suggestions import Suggestions
from loralab.storage.files import atomic_folder, read_json_object

SESSION, POOL, LABELLED = "session.json", "pool.jsonl", "labelled.csv"
STRATEGY_NAMES = ("margin", "entropy", "badge", RANDOM)
MAX_POOL = 20_000
"""Rows that a session offers; of more rows it takes a random sample."""
RECENT = 30
"""Labels over which the agreement with the suggestions is counted."""


@dataclass(frozen=True)
class SessionSettings:
    """What the user chose. file: as the browser names it, only to be shown; model: of which the classes are; "" for none.

    total: rows of the pool.
    """

    file: str
    classes: tuple[str, ...]
    strategy: str
    model: str = ""
    total: int = 0

    def __post_init__(self) -> None:
        """Raise LoralabError for unusable classes and strategies."""
        names = [name.strip() for name in self.classes]
        if len(names) < 2 or len({*names}) < len(names) or not all(names):
            raise LoralabError("name at least two different classes")
        if self.strategy not in STRATEGY_NAMES:
            raise LoralabError(f"there is no strategy {self.strategy!r}; valid: {', '.join(STRATEGY_NAMES)}")


class Session:
    """One file that is being labelled."""

    def __init__(self, folder: Path, models: Models) -> None:
        """Open a session's folder. Raises LoralabError for a damaged one."""
        self.name = folder.name
        self.settings = _read_settings(folder)
        self.texts = _read_pool(folder / POOL)
        self.labelled = LabelledFile(folder / LABELLED)
        model = next((model for model in models.all if model.name == self.settings.model), None)
        self.suggestions = Suggestions(self.texts, self.settings.classes, self.settings.strategy, model)
        self.skipped: list[int] = []
        self._current: int | None = None
        """The row that the page shows. It stays until it is done, whatever is chosen meanwhile."""
        self._history = [row.row for row in self.labelled.rows]
        self._lock = threading.RLock()
        self._learn()

    def start(self) -> None:
        """Start to compute suggestions, if that has not begun."""
        self.suggestions.start()

    def close(self) -> None:
        """End the computation of suggestions."""
        self.suggestions.close()

    def label(self, row: int, label: str) -> None:
        """Save a row's label. Raises LoralabError for an unknown class and for a row that is done."""
        with self._lock:
            if label not in self.settings.classes:
                raise LoralabError(f"{label!r} is none of the classes: {', '.join(self.settings.classes)}")
            self._check_open(row)
            suggested = (self.suggestions.of(row) or {}).get("label", "")
            time = datetime.now(UTC).isoformat(timespec="seconds")
            self.labelled.append(LabelledRow(self.texts[row], label, row, suggested, time))
            self._history.append(row)
            self._current = None
            self._learn()

    def skip(self, row: int) -> None:
        """Leave a row out. It comes back when the session is opened again. Raises LoralabError for a row that is done."""
        with self._lock:
            self._check_open(row)
            self.skipped.append(row)
            self._history.append(row)
            self._current = None
            self._learn()

    def undo(self) -> None:
        """Take the last label or skip back. Raises LoralabError if there is none."""
        with self._lock:
            if not self._history:
                raise LoralabError("there is nothing to undo")
            row = self._history[-1]
            if row in self.skipped:
                self.skipped.remove(row)
            else:
                self.labelled.undo()
            self._history.pop()
            self._current = row
            self._learn()

    def state(self) -> dict[str, Any]:
        """Return everything that the page shows."""
        with self._lock:
            if self._current is None:
                self._current = self.suggestions.next_row()
            row, labelled = self._current, self.labelled.rows
            counts = Counter(dict.fromkeys(self.settings.classes, 0))
            counts.update(labelled_row.label for labelled_row in labelled)
            recent = [labelled_row for labelled_row in labelled[-RECENT:] if labelled_row.suggested]
            return {
                "name": self.name,
                **asdict(self.settings),
                "path": str(self.labelled.path),
                "labelled": len(labelled),
                "skipped": len(self.skipped),
                "counts": counts,
                "computed": self.suggestions.computed,
                "problem": self.suggestions.problem,
                "undo": bool(self._history),
                "agreement": {"same": sum(r.suggested == r.label for r in recent), "of": len(recent)},
                "row": row,
                "text": None if row is None else self.texts[row],
                "suggestion": None if row is None else self.suggestions.of(row),
            }

    def _check_open(self, row: int) -> None:
        if not 0 <= row < len(self.texts) or row in self._history:
            raise LoralabError("this row is done already: reload the page")

    def _learn(self) -> None:
        self.suggestions.learn({row.row: row.label for row in self.labelled.rows}, {*self._history})


class Sessions:
    """All sessions in the folder of the server's owner, by name. Names and files are made by the server."""

    def __init__(self, folder: Path, models: Models) -> None:
        self.folder, self.models = folder, models
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def create(self, settings: SessionSettings, texts: Sequence[str]) -> Session:
        """Write a new session's folder and open it. Blank and repeated texts are left out. Raises LoralabError without texts."""
        pool = [*dict.fromkeys(text for text in texts if text.strip())]
        if not pool:
            raise LoralabError("the column has no texts: choose another")
        if len(pool) > MAX_POOL:
            chosen = np.sort(np.random.default_rng(0).permutation(len(pool))[:MAX_POOL])
            pool = [pool[i] for i in chosen.tolist()]
        with self._lock:
            today = f"{datetime.now():%Y-%m-%d}"
            number = next(n for n in range(1, 10_000) if not (self.folder / f"{today}-{n}").exists())
            path = self.folder / f"{today}-{number}"
            with atomic_folder(path) as temporary:
                content = asdict(replace(settings, total=len(pool)))
                (temporary / SESSION).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
                with (temporary / POOL).open("w", encoding="utf-8", newline="\n") as file:
                    file.writelines(json.dumps(text) + "\n" for text in pool)
            session = self._open[path.name] = Session(path, self.models)
        return session

    def get(self, name: str) -> Session | None:
        """Return a session by name, opened if need be; None for an unknown one. Raises LoralabError for a damaged one."""
        with self._lock:
            if name not in self._open:
                path = self._paths().get(name)
                if path is None:
                    return None
                self._open[name] = Session(path, self.models)
            return self._open[name]

    def summaries(self) -> list[dict[str, Any]]:
        """Return all sessions, the latest first. Damaged ones say so."""
        rows: list[dict[str, Any]] = []
        for name, path in sorted(self._paths().items(), reverse=True):
            try:
                labelled = len(LabelledFile(path / LABELLED).rows)
                rows.append({"name": name, **asdict(_read_settings(path)), "labelled": labelled})
            except LoralabError as error:
                rows.append({"name": name, "problem": str(error)})
        return rows

    def close(self) -> None:
        """End all computations."""
        for session in self._open.values():
            session.close()

    def _paths(self) -> dict[str, Path]:
        return {path.name: path for path in self.folder.iterdir() if (path / SESSION).is_file()} if self.folder.is_dir() else {}


def _read_settings(folder: Path) -> SessionSettings:
    content = read_json_object(folder / SESSION, "move the session's folder away")
    try:
        return SessionSettings(**{**content, "classes": tuple(content["classes"])})
    except (KeyError, TypeError) as error:
        raise LoralabError(f"{folder / SESSION} is damaged ({error!r}): move the session's folder away") from error


def _read_pool(path: Path) -> list[str]:
    try:
        return [str(json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError, RecursionError) as error:
        raise LoralabError(f"{path} is damaged ({error}): move the session's folder away") from error
