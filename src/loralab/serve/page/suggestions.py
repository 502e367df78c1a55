"""Suggested labels for the rows of a file, and which rows come next: a thread that learns from the labels so far."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loralab.errors import LoralabError
from loralab.experiments.strategies import RANDOM, STRATEGIES, PoolScores
from loralab.serve.models import ServedModel
from loralab.serve.page.features import CHUNK, FeatureModel
from loralab.training.head_init import PROBE_C

_log = logging.getLogger(__name__)
QUEUE = 12
"""Rows that are chosen at once: labels that arrive before the next choice do not wait for it."""
PROBE_LABELS = 25
"""Labels per class, on average, from which the probe replaces the probabilities of a served model."""
CHUNKS_PER_CHOICE = 8
"""Without new labels, rows are chosen again when the features of so many more chunks are known."""


@dataclass(frozen=True)
class Scores:
    """Probabilities (n, classes) of all rows, NaN where the features are not known yet, and what computed them."""

    probabilities: npt.NDArray[np.floating]
    source: str


class Suggestions:
    """Suggests labels and chooses rows.

    The thread computes the features of all rows once, in a random order. After each label it fits a probe on them, scores the rows
    and chooses the next ones. Until it has chosen, rows come in the random order. A served model whose classes are the same
    suggests until there are enough labels for the probe.
    """

    def __init__(self, texts: Sequence[str], classes: Sequence[str], strategy: str, model: ServedModel | None) -> None:
        """model: a served model that may have the same classes."""
        self.texts, self.classes, self.strategy = texts, classes, strategy
        self.model = model if model is not None and {*model.classes} == {*classes} else None
        self.computed = 0
        self.problem = ""
        self._order = np.random.default_rng(0).permutation(len(texts))
        self._features: npt.NDArray[np.float32] | None = None
        self._model_probabilities: npt.NDArray[np.floating] | None = None
        self._scores: Scores | None = None
        self._queue: list[int] = []
        self._labels: dict[int, str] = {}
        self._done: set[int] = set()
        self._changed = threading.Condition()
        self._dirty, self._closed = True, False
        self._thread = threading.Thread(target=self._work, name="loralab-suggestions", daemon=True)

    def start(self) -> None:
        """Start to compute features, if that has not begun."""
        with self._changed:
            if self._thread.ident is None:
                self._thread.start()

    def close(self) -> None:
        """End the computation."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def learn(self, labels: Mapping[int, str], done: set[int]) -> None:
        """Take the labels so far, by row, and the rows that are labelled or skipped."""
        with self._changed:
            self._labels, self._done, self._dirty = dict(labels), {*done}, True
            self._changed.notify_all()

    def next_row(self) -> int | None:
        """Return the row to label next; None if all are done."""
        with self._changed:
            return next((row for row in (*self._queue, *self._order.tolist()) if row not in self._done), None)

    def of(self, row: int) -> dict[str, Any] | None:
        """Return the suggestion for a row; None as long as there is none."""
        scores = self._scores
        if scores is None or not np.isfinite(scores.probabilities[row, 0]):
            return None
        values = scores.probabilities[row].tolist()
        label = self.classes[int(np.argmax(values))]
        return {"label": label, "probabilities": dict(zip(self.classes, values, strict=True)), "source": scores.source}

    def _work(self) -> None:
        try:
            model = self._feature_model()
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
        except Exception as error:  # labelling goes on without suggestions
            _log.exception("suggestions failed")
            self.problem = f"Rows come in random order and without suggestions: {error}"

    def _feature_model(self) -> FeatureModel:
        """Return a copy of the served model if it can compute features, else the encoder of the package."""
        if self.model is not None:
            try:
                return FeatureModel.copy_of(self.model)
            except LoralabError as error:
                _log.warning("model %s suggests no labels: %s", self.model.name, error)
        return FeatureModel.minilm()

    def _compute_chunk(self, model: FeatureModel) -> None:
        rows = self._order[self.computed : self.computed + CHUNK]
        scores = model.compute([self.texts[i] for i in rows.tolist()])
        if self._features is None:
            self._features = np.zeros((len(self.texts), scores.features.shape[1]), dtype=np.float32)
            if model.trained:
                self._model_probabilities = np.full((len(self.texts), len(self.classes)), np.nan)
        self._features[rows] = scores.features
        if self._model_probabilities is not None:
            columns = [model.classifier.classes.index(name) for name in self.classes]
            self._model_probabilities[rows] = scores.probabilities[:, columns]
        self.computed += len(rows)

    def _score_and_choose(self) -> None:
        """Score all rows with known features, and choose the next rows by the strategy."""
        known = self._order[: self.computed]
        with self._changed:
            labels, done = self._labels, self._done
        scores = self._probe(labels, known)
        if scores is None and self._model_probabilities is not None and self.model is not None:
            scores = Scores(self._model_probabilities, f"model {self.model.name}")
        candidates = np.array([row for row in known.tolist() if row not in done], dtype=np.int64)
        queue: list[int] = []
        if scores is not None and self._features is not None and len(candidates) and self.strategy != RANDOM:
            pool = PoolScores(scores.probabilities[candidates], self._features[candidates])
            picks = STRATEGIES[self.strategy](pool, min(QUEUE, len(candidates)), np.random.default_rng(len(labels)))
            queue = candidates[picks].tolist()
        with self._changed:
            self._scores, self._queue = scores, queue

    def _probe(self, labels: Mapping[int, str], known: npt.NDArray[np.int64]) -> Scores | None:
        """Fit logistic regression on the labelled rows; None for too few of them."""
        rows = [row for row in known.tolist() if row in labels]
        present = sorted({labels[row] for row in rows}, key=self.classes.index)
        if self._features is None or len(present) < 2:
            return None
        if self._model_probabilities is not None and not (
            len(present) == len(self.classes) and len(rows) >= PROBE_LABELS * len(self.classes)
        ):
            return None
        from sklearn.linear_model import LogisticRegression

        scale = float(np.linalg.norm(self._features[rows], axis=1).mean()) or 1.0
        probe = LogisticRegression(C=PROBE_C, max_iter=500)
        probe.fit(self._features[rows] / scale, [present.index(labels[row]) for row in rows])
        probabilities = np.full((len(self.texts), len(self.classes)), np.nan)
        probabilities[known] = 0.0
        columns = np.array([self.classes.index(name) for name in present])
        probabilities[np.ix_(known, columns)] = probe.predict_proba(self._features[known] / scale)
        return Scores(probabilities, f"a classifier of your {len(rows):,} labels")
