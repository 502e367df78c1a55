"""Metrics for Prometheus: requests, batches, the queue, predictions per class, and drift of recent texts."""

from __future__ import annotations

import logging
import threading
from collections import Counter as Counts
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from loralab.diagnostics.diagnose import read_run_splits
from loralab.diagnostics.drift import count_words, jensen_shannon, kolmogorov_smirnov
from loralab.inference.prediction_files import Predictions
from loralab.serve.engine import BatchDone
from loralab.serve.models import ServedModel
from loralab.serve.queue import TextQueue

_log = logging.getLogger(__name__)
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
MAX_TRAINING_TEXTS = 20_000
"""Training texts that recent ones are compared with."""


@dataclass
class _Profile:
    """The words, lengths and classes of texts."""

    words: Counts[str] = field(default_factory=Counts)
    lengths: list[int] = field(default_factory=list)
    classes: Counts[str] = field(default_factory=Counts)

    def add(self, text: str, label: str) -> None:
        words = count_words(text)
        self.words.update(words)
        self.lengths.append(words.total())
        self.classes[label] += 1


class Drift:
    """Compares the last texts of a model with its training rows. The training rows are read in the background."""

    def __init__(self, model: ServedModel, size: int) -> None:
        self.recent: deque[tuple[str, str]] = deque(maxlen=size)
        self.training: _Profile | None = None
        if model.folder is not None and size:
            threading.Thread(target=self._read, args=(model,), daemon=True, name="loralab-drift").start()

    def measure(self) -> dict[str, float]:
        """Return the distances of the last texts from the training rows, 0 to 1; empty while one side is unknown.

        words, classes: Jensen-Shannon divergence in bits; lengths: Kolmogorov and Smirnov's D; unseen_words: share.
        """
        training, recent = self.training, _Profile()
        for text, label in list(self.recent):
            recent.add(text, label)
        if training is None or not recent.lengths or not recent.words.total():
            return {}
        unseen = sum(count for word, count in recent.words.items() if word not in training.words)
        return {
            "words": _divergence(training.words, recent.words),
            "classes": _divergence(training.classes, recent.classes),
            "lengths": kolmogorov_smirnov(training.lengths, recent.lengths).effect,
            "unseen_words": unseen / recent.words.total(),
        }

    def _read(self, model: ServedModel) -> None:
        assert model.folder is not None
        try:
            train = read_run_splits(model.folder).train
        except Exception as error:  # the data may have moved; the server works without
            _log.warning("model %s: drift is not measured, because its training rows cannot be read: %s", model.name, error)
            return
        profile, labels = _Profile(), train.require_labels()
        for i in range(min(len(train), MAX_TRAINING_TEXTS)):
            profile.add(train.texts[i], train.classes[labels[i]])
        self.training = profile


class Monitor:
    """All metrics of a server. drift_texts: recent texts per model that are compared with its training rows."""

    def __init__(self, drift_texts: int) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter("loralab_requests", "Requests by route and status.", ["route", "status"], registry=registry)
        self.seconds = Histogram("loralab_request_seconds", "Time to answer.", ["route"], buckets=SECONDS, registry=registry)
        self.texts = Counter("loralab_texts", "Classified texts.", ["model"], registry=registry)
        self.predictions = Counter("loralab_predictions", "Predictions per class.", ["model", "label"], registry=registry)
        self.batch_texts = Histogram("loralab_batch_texts", "Texts per batch.", buckets=TOKENS, registry=registry)
        self.batch_tokens = Histogram("loralab_batch_tokens", "Tokens per batch.", buckets=TOKENS, registry=registry)
        self.batch_seconds = Histogram("loralab_batch_seconds", "Time per batch.", buckets=SECONDS, registry=registry)
        self.queue_texts = Gauge("loralab_queue_texts", "Texts that wait.", registry=registry)
        self.dropped = Gauge(
            "loralab_dropped_texts", "Texts dropped because their client had gone or waited too long.", registry=registry
        )
        self.drift_gauge = Gauge(
            "loralab_drift", "Distance of the last texts from the training rows, 0 to 1.", ["model", "measure"], registry=registry
        )
        self.drift_texts = drift_texts
        self._drift: dict[str, Drift] = {}

    def watch_queue(self, queue: TextQueue) -> None:
        self.queue_texts.set_function(lambda: len(queue))
        self.dropped.set_function(lambda: queue.dropped)

    def add_model(self, model: ServedModel) -> None:
        self._drift[model.name] = Drift(model, self.drift_texts)

    def remove_model(self, name: str) -> None:
        self._drift.pop(name, None)

    def note_request(self, route: str, status: int, seconds: float) -> None:
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def note_batch(self, batch: BatchDone) -> None:
        self.batch_texts.observe(batch.texts)
        self.batch_tokens.observe(batch.tokens)
        self.batch_seconds.observe(batch.seconds)

    def note_predictions(self, model: ServedModel, predictions: Predictions) -> None:
        self.texts.labels(model.name).inc(len(predictions))
        for label, count in Counts(predictions.labels).items():
            self.predictions.labels(model.name, label).inc(count)
        if drift := self._drift.get(model.name):
            drift.recent.extend(zip(predictions.texts, predictions.labels, strict=True))

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self.drift_gauge.clear()
        for name, drift in list(self._drift.items()):
            for measure, value in drift.measure().items():
                self.drift_gauge.labels(name, measure).set(value)
        return bytes(generate_latest(self.registry))


def _divergence(first: Counts[str], second: Counts[str]) -> float:
    names = sorted({*first, *second})
    return jensen_shannon(np.array([first[name] for name in names]), np.array([second[name] for name in names]))
