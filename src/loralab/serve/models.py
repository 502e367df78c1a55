"""The models that a server offers, by name. Models on the same encoder share its weights."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from loralab.data.clean import clean_text, replace_surrogates
from loralab.errors import LoralabError, suggest
from loralab.inference.classifier import Classifier
from loralab.inference.prediction_files import Predictions
from loralab.inference.shared_layers import Logits, SharedModel, Tokens, share_weights
from loralab.metrics import softmax
from loralab.model.encoder import EncoderClassifier
from loralab.serve.engine import Engine

INLINE_CHARACTERS = 20_000
"""Texts of up to so many characters are tokenized at once, in about a millisecond; longer ones by another thread."""


class UnknownModel(LoralabError):
    """There is no model of this name."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A loaded run under the name that clients use. source: its folder or hub id."""

    name: str
    source: str
    classifier: Classifier
    shared: SharedModel
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def folder(self) -> Path | None:
        """The run's folder, None for a model of the hub."""
        return path if (path := Path(self.source)).is_dir() else None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.classifier.classes

    @property
    def max_length(self) -> int:
        """Most tokens of a text; the rest is cut."""
        return min(self.classifier.manifest.max_length, self.classifier.manifest.dims.longest)

    @property
    def text_columns(self) -> int:
        """How many columns the texts of the training file were made of; more than one: the model takes text pairs."""
        contract = self.classifier.manifest.data
        return len(contract.text) if contract else 1

    def explain(self, model: EncoderClassifier, text: str, label: str) -> list[tuple[str, float]]:
        """Return how much each word of a text adds to the logit of a class. model: this one in fp32."""
        from loralab.diagnostics.attribution import attribute, join_words

        cleaned = replace_surrogates(clean_text(text, self.classifier.manifest.clean))
        encoding = self.classifier.tokenizer.encode(cleaned)
        special = [bool(flag) for flag in encoding.special_tokens_mask]
        values = attribute(model, encoding.ids, special, self.classes.index(label)).values
        return join_words(cleaned, encoding, values)

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Clean and tokenize texts."""
        encoded = self.classifier.encode(texts)
        return np.split(encoded.tokens, encoded.starts[1:-1]) if len(encoded) else []

    def full_lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, the cut ones included."""
        return [self.classifier.encode([text]).facts.longest for text in texts]

    async def classify(self, engine: Engine, texts: Sequence[str]) -> Classified:
        """Classify texts. Raises QueueFull."""
        large = sum(map(len, texts)) > INLINE_CHARACTERS
        tokens = await asyncio.to_thread(self.tokenize, texts) if large else self.tokenize(texts)
        logits = await engine.logits(self.shared, tokens)
        probabilities = softmax(logits, self.classifier.manifest.temperature).astype(np.float32)
        labels = [self.classes[i] for i in probabilities.argmax(axis=1).tolist()]
        return Classified(self, Predictions(labels, probabilities, self.classes, texts), logits, sum(map(len, tokens)))


@dataclass(frozen=True)
class Classified:
    """The answer to a request. logits: (n, classes), without the temperature; tokens: of all texts."""

    model: ServedModel
    predictions: Predictions
    logits: Logits
    tokens: int


class Models:
    """The loaded models. Adding, replacing and removing one does not disturb the requests that use it."""

    def __init__(self) -> None:
        self._models: dict[str, ServedModel] = {}
        self._exact: dict[Classifier, EncoderClassifier] = {}  # in fp32, for explanations
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._models)

    @property
    def all(self) -> tuple[ServedModel, ...]:
        return tuple(self._models.values())

    def get(self, name: str | None = None) -> ServedModel:
        """Return a model by name; the first one for None. Raises UnknownModel."""
        models = self._models
        if name is None and models:
            return next(iter(models.values()))
        if name is None:
            raise UnknownModel("no model is loaded: start the server with a run, such as loralab serve runs/quickstart-s42")
        if name not in models:
            raise UnknownModel(f"there is no model {name!r}; loaded: {', '.join(models) or 'none'}{suggest(name, models)}")
        return models[name]

    def add(self, path: str | Path, name: str, **options: Any) -> ServedModel:
        """Load a run, or a hub id, under a name. It replaces a model of the same name.

        options: of `Classifier.load`. Raises LoralabError for a run that cannot be loaded.
        """
        classifier = Classifier.load(path, **options)
        with self._lock:
            share_weights(classifier.model, [model.classifier.model for model in self._models.values()])
            classifier.model.eval()
            shared = SharedModel(classifier.model, classifier.manifest.dims.pad_id)
            self._replace({**self._models, name: ServedModel(name, str(path), classifier, shared)})
            return self._models[name]

    def exact(self, model: ServedModel) -> EncoderClassifier:
        """Return a model in fp32, which explanations need. Loaded when it is first wanted; it shares weights with the others.

        Raises LoralabError for a model that the native encoder does not compute.
        """
        with self._lock:
            if model.classifier not in self._exact:
                exact = Classifier.load(model.source, precision="fp32").model
                if not isinstance(exact, EncoderClassifier):
                    raise LoralabError(f"model {model.name!r} runs through another library, so its words cannot be explained")
                served = {served.classifier for served in self._models.values()}
                loaded = {classifier: other for classifier, other in self._exact.items() if classifier in served}
                share_weights(exact, loaded.values())
                self._exact = {**loaded, model.classifier: exact}
            return self._exact[model.classifier]

    def remove(self, name: str) -> None:
        """Remove a model. Requests that have begun are finished. Raises UnknownModel."""
        with self._lock:
            self.get(name)
            self._replace({key: model for key, model in self._models.items() if key != name})

    def _replace(self, models: Mapping[str, ServedModel]) -> None:
        """Set the models, each with what it shares with the others. The dict is new, so that readers need no lock."""
        shared = [model.shared for model in models.values()]
        self._models = {name: replace(model, shared=model.shared.among(shared)) for name, model in models.items()}
