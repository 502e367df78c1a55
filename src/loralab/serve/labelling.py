"""Label the rows of a file, the most useful ones first: the loop of active learning with a person in it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loralab.errors import LoralabError
from loralab.experiments.strategies import RANDOM, STRATEGIES, PoolScores
from loralab.serve.features import CHUNK, FeatureModel
from loralab.serve.labelled_file import LabelledFile, LabelledRow
from loralab.serve.models import Models, ServedModel, UnknownModel
from loralab.storage.files import atomic_folder, read_json_object
from loralab.training.head_init import PROBE_C

SESSION, POOL, LABELLED = "session.json", "pool.jsonl", "labelled.csv"
STRATEGY_NAMES = ("margin", "entropy", "badge", RANDOM)
MAX_POOL = 20_000
"""Rows that a session offers; of more rows it takes a random sample."""
QUEUE = 12
"""Rows that are chosen at once: labels that arrive before the next choice do not wait for it."""
PROBE_LABELS = 25
"""Labels per class, on average, from which the probe replaces the probabilities of a served model."""
CHUNKS_PER_CHOICE = 8
"""Without new labels, rows are chosen again when the features of so many more chunks are known."""
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


@dataclass(frozen=True)
class Scores:
    """Probabilities (n, classes) of all rows whose features are known, and what computed them."""

    probabilities: npt.NDArray[np.floating]
    source: str


class Session:
    """One file that is being labelled.

    A thread computes the features of all rows once, in a random order, and after each label fits a probe on them, scores the rows
    and chooses the next ones. Until it has chosen, rows come in the random order.
    """

    def __init__(self, folder: Path, models: Models) -> None:
        """Open a session's folder. Raises LoralabError for a damaged one."""
        self.name, self.folder, self.models = folder.name, folder, models
        self.settings = _read_settings(folder)
        lines = (folder / POOL).read_text(encoding="utf-8").split("\n")
        self.texts: list[str] = [json.loads(line) for line in lines if line]
        self.labelled = LabelledFile(folder / LABELLED)
        self.skipped: list[int] = []
        self.computed = 0
        self.problem = ""
        self._order = np.random.default_rng(0).permutation(len(self.texts))
        self._features: npt.NDArray[np.float32] | None = None
        self._model_probabilities: npt.NDArray[np.floating] | None = None
        self._scores: Scores | None = None
        self._queue: list[int] = []
        self._current: int | None = None
        self._history: list[int] = [row.row for row in self.labelled.rows]
        self._changed = threading.Condition(threading.RLock())
        self._dirty, self._closed = True, False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to compute features, if that has not begun."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="loralab-labelling", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the computation."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def label(self, row: int, label: str) -> None:
        """Save a row's label. Raises LoralabError for an unknown class and for a row that has a label."""
        with self._changed:
            if label not in self.settings.classes:
                raise LoralabError(f"{label!r} is none of the classes: {', '.join(self.settings.classes)}")
            self._check_open(row)
            suggested = (self._suggestion(row) or {}).get("label", "")
            time = datetime.now(UTC).isoformat(timespec="seconds")
            self.labelled.append(LabelledRow(self.texts[row], label, row, suggested, time))
            self._advance(row)

    def skip(self, row: int) -> None:
        """Leave a row out. It comes back when the session is opened again."""
        with self._changed:
            self._check_open(row)
            self.skipped.append(row)
            self._advance(row)

    def undo(self) -> None:
        """Take the last label or skip back. Raises LoralabError if there is none."""
        with self._changed:
            if not self._history:
                raise LoralabError("there is nothing to undo")
            row = self._history[-1]
            if row in self.skipped:
                self.skipped.remove(row)
            else:
                self.labelled.undo()
            self._history.pop()
            self._current, self._dirty = row, True
            self._changed.notify_all()

    def state(self) -> dict[str, Any]:
        """Return everything that the page shows."""
        with self._changed:
            self._choose_current()
            row = self._current
            counts = Counter(dict.fromkeys(self.settings.classes, 0))
            counts.update(labelled.label for labelled in self.labelled.rows)
            recent = [r for r in self.labelled.rows[-RECENT:] if r.suggested]
            return {
                "name": self.name,
                **asdict(self.settings),
                "path": str(self.labelled.path),
                "labelled": len(self.labelled.rows),
                "skipped": len(self.skipped),
                "counts": counts,
                "computed": self.computed,
                "problem": self.problem,
                "undo": bool(self._history),
                "agreement": {"same": sum(r.suggested == r.label for r in recent), "of": len(recent)},
                "row": row,
                "text": None if row is None else self.texts[row],
                "suggestion": None if row is None else self._suggestion(row),
            }

    def _check_open(self, row: int) -> None:
        if not 0 <= row < len(self.texts) or row in self._history:
            raise LoralabError("this row is done already: reload the page")

    def _advance(self, row: int) -> None:
        self._history.append(row)
        self._current, self._dirty = None, True
        self._changed.notify_all()

    def _choose_current(self) -> None:
        if self._current is None:
            done = {*self._history}
            rows = (row for row in (*self._queue, *self._order.tolist()) if row not in done)
            self._current = next(rows, None)

    def _suggestion(self, row: int) -> dict[str, Any] | None:
        if self._scores is None or not np.isfinite(self._scores.probabilities[row, 0]):
            return None
        values = self._scores.probabilities[row].tolist()
        classes = self.settings.classes
        best = int(np.argmax(values))
        return {"label": classes[best], "probabilities": dict(zip(classes, values, strict=True)), "source": self._scores.source}

    def _work(self) -> None:
        try:
            model = self._feature_model()
            self._features = np.zeros((len(self.texts), 0), dtype=np.float32)
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._dirty or self.computed < len(self.texts))
                    if self._closed:
                        return
                    dirty, self._dirty = self._dirty, False
                if self.computed < len(self.texts):
                    self._compute_chunk(model)
                if dirty or self.computed % (CHUNKS_PER_CHOICE * CHUNK) == 0 or self.computed == len(self.texts):
                    self._score_and_choose()
        except (LoralabError, OSError, ValueError) as error:
            self.problem = f"Rows come in random order and without suggestions: {error}"

    def _feature_model(self) -> FeatureModel:
        """Return a copy of the served model of the session if its classes are the same, else the encoder of the package."""
        try:
            served: ServedModel | None = self.models.get(self.settings.model) if self.settings.model else None
            if served is not None and {*served.classes} == {*self.settings.classes}:
                return FeatureModel.copy_of(served)
        except (UnknownModel, LoralabError):
            pass
        return FeatureModel.minilm()

    def _compute_chunk(self, model: FeatureModel) -> None:
        rows = self._order[self.computed : self.computed + CHUNK]
        scores = model.compute([self.texts[i] for i in rows.tolist()])
        if self._features is None or self._features.shape[1] == 0:
            self._features = np.zeros((len(self.texts), scores.features.shape[1]), dtype=np.float32)
            if model.trained:
                self._model_probabilities = np.full((len(self.texts), len(self.settings.classes)), np.nan)
        self._features[rows] = scores.features
        if self._model_probabilities is not None:
            columns = [model.classifier.classes.index(name) for name in self.settings.classes]
            self._model_probabilities[rows] = scores.probabilities[:, columns]
        self.computed += len(rows)

    def _score_and_choose(self) -> None:
        """Score all rows with known features, and choose the next rows by the strategy."""
        known = self._order[: self.computed]
        with self._changed:
            labels = {row.row: row.label for row in self.labelled.rows}
            done = {*self._history}
        scores = self._probe(labels, known)
        if scores is None and self._model_probabilities is not None:
            scores = Scores(self._model_probabilities, f"model {self.settings.model}")
        open_rows = np.array([row for row in known.tolist() if row not in done], dtype=np.int64)
        queue: list[int] = []
        if scores is not None and self._features is not None and len(open_rows) and self.settings.strategy != RANDOM:
            pool = PoolScores(scores.probabilities[open_rows], self._features[open_rows])
            picks = STRATEGIES[self.settings.strategy](pool, min(QUEUE, len(open_rows)), np.random.default_rng(len(labels)))
            queue = open_rows[picks].tolist()
        with self._changed:
            self._scores, self._queue = scores, queue

    def _probe(self, labels: Mapping[int, str], known: npt.NDArray[np.int64]) -> Scores | None:
        """Fit logistic regression on the labelled rows; None for too few of them."""
        classes = self.settings.classes
        rows = [row for row in known.tolist() if row in labels]
        present = sorted({labels[row] for row in rows}, key=classes.index)
        needed = 2 if self._model_probabilities is None else PROBE_LABELS * len(classes)
        if self._features is None or len(present) < 2 or len(rows) < needed:
            return None
        if self._model_probabilities is not None and len(present) < len(classes):
            return None
        from sklearn.linear_model import LogisticRegression

        scale = float(np.linalg.norm(self._features[rows], axis=1).mean()) or 1.0
        probe = LogisticRegression(C=PROBE_C, max_iter=500)
        probe.fit(self._features[rows] / scale, [present.index(labels[row]) for row in rows])
        probabilities = np.full((len(self.texts), len(classes)), np.nan)
        probabilities[known] = 0.0
        columns = np.array([classes.index(name) for name in present])
        probabilities[np.ix_(known, columns)] = probe.predict_proba(self._features[known] / scale)
        return Scores(probabilities, f"a classifier of your {len(rows):,} labels")


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
