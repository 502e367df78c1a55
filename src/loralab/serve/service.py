"""What the server does, without HTTP: classify, explain, take feedback, load and remove models."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from loralab.errors import LoralabError, suggest
from loralab.serve.engine import Engine
from loralab.serve.feedback import FeedbackFile
from loralab.serve.models import Classified, Models, ServedModel, UnknownModel
from loralab.serve.monitoring import Monitor
from loralab.serve.run_watch import RunWatch, complete_runs
from loralab.serve.settings import ServerSettings

WARM_UP_TOKENS = (8, 64, 256)
"""Lengths of the texts that warm a model up: first calls allocate memory and prepare weights."""


class TooLarge(LoralabError):
    """A request is beyond a limit of the server."""


class Forbidden(LoralabError):
    """The server does not allow this to anybody, or not without API keys."""


class Service:
    """A server's models, its workers, and what it remembers."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.models = Models()
        self.monitor = Monitor(settings.drift_texts)
        self.engine = Engine(
            settings.threads,
            max_batch_tokens=settings.max_batch_tokens,
            max_queue=settings.max_queue,
            state_cache=settings.state_cache_mb << 20,
            on_batch=self.monitor.note_batch,
        )
        self.monitor.watch_queue(self.engine.queue)
        self.feedback = FeedbackFile(settings.feedback)
        self.watch: RunWatch | None = None
        self.ready = False
        self._explaining = asyncio.Semaphore(1)  # attributions take a hundred times as long as an answer

    def load(self) -> None:
        """Load and warm up all models of the settings. Raises LoralabError for a run that cannot be loaded."""
        for name, path in self.settings.runs.items():
            self.add(path, name)
        if self.settings.watch and self.settings.folder is not None:
            self.watch = RunWatch(self.settings.folder, self.add, self.remove)
            self.watch.start()
        self.ready = True

    def add(self, path: str | Path, name: str) -> ServedModel:
        """Load and warm up a model under a name, instead of the one that has the name, if any."""
        model = self.models.add(path, name, precision=self.settings.precision, device=self.settings.device)
        for length in WARM_UP_TOKENS:
            model.classifier.predict(["word " * length] * 2)
        self.monitor.add_model(model)
        return model

    def remove(self, name: str) -> None:
        """Remove a model. Raises UnknownModel."""
        self.models.remove(name)
        self.monitor.remove_model(name)

    async def classify(self, model: ServedModel, texts: Sequence[str]) -> Classified:
        """Classify texts. Raises TooLarge, QueueFull, and TimeoutError."""
        self.check_texts(texts)
        async with asyncio.timeout(self.settings.timeout):
            classified = await model.classify(self.engine, texts)
        self.monitor.note_predictions(model, classified.predictions)
        return classified

    async def explain(self, model: ServedModel, text: str, label: str) -> list[tuple[str, float]]:
        """Return how much each word of a text adds to the logit of a class: [(word with the following spaces, logits)].

        Raises LoralabError for a model that the native encoder does not compute, and TimeoutError.
        """
        async with asyncio.timeout(self.settings.timeout), self._explaining:
            exact = await asyncio.to_thread(self.models.exact, model)
            return await asyncio.to_thread(model.explain, exact, text, label)

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise TooLarge for too many or too long texts."""
        if len(texts) > self.settings.max_rows:
            raise TooLarge(
                f"{len(texts):,} texts are more than {self.settings.max_rows:,}, the most per request: send several requests"
            )
        for i, text in enumerate(texts):
            if len(text) > self.settings.max_text:
                raise TooLarge(f"text {i} has {len(text):,} characters, more than {self.settings.max_text:,}, the most per text")

    def take_feedback(self, classified: Classified, text: str, label: str, time: str) -> None:
        """Append a text with its right label to the feedback file. Raises LoralabError for a label that is no class."""
        model = classified.model
        if label not in model.classes:
            raise LoralabError(
                f"{label!r} is not a class of {model.name!r}; classes: {', '.join(model.classes)}{suggest(label, model.classes)}"
            )
        self.feedback.append(text, label, model.name, classified.predictions.labels[0], time)

    def load_at_request(self, name: str) -> ServedModel:
        """Load a run of the server's folder, or load it again. Raises Forbidden without a folder or API keys, and UnknownModel."""
        self._check_changes_allowed()
        runs = complete_runs(self.settings.folder) if self.settings.folder else {}
        if name not in runs:  # a name is looked up, and never becomes part of a path
            raise UnknownModel(f"{self.settings.folder} has no run {name!r}{suggest(name, runs)}")
        return self.add(runs[name], name)

    def remove_at_request(self, name: str) -> None:
        """Remove a model. Raises Forbidden without a folder or API keys, and UnknownModel."""
        self._check_changes_allowed()
        self.remove(name)

    def _check_changes_allowed(self) -> None:
        if self.settings.keys is None or self.settings.folder is None:
            raise Forbidden("models are loaded and removed at a request only if the server has --watch FOLDER and --api-keys FILE")

    def limits(self) -> dict[str, float]:
        """Return the limits that clients should know."""
        names = ("max_rows", "max_explained", "max_text", "max_body", "max_queue", "max_batch_tokens", "timeout")
        return {name: getattr(self.settings, name) for name in names}

    def close(self) -> None:
        """Finish what waits, and end the workers."""
        self.ready = False
        if self.watch is not None:
            self.watch.stop()
        self.engine.close(self.settings.timeout)
