"""Features of texts: what enters the last linear map of a model, computed beside the server's work."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from loralab.config import DataConfig, LoraConfig, ModelConfig
from loralab.data.tokenize import load_tokenizer
from loralab.experiments.strategies import PoolScores
from loralab.inference.classifier import Classifier
from loralab.inference.shared_layers import share_weights
from loralab.model.build import build_model
from loralab.model.checkpoints import resolve_base
from loralab.model.device import move_to_device
from loralab.model.manifest import Manifest
from loralab.serve.models import ServedModel

CHUNK = 64
"""Texts per call while many are computed, so that progress is seen and the work can be stopped."""


class FeatureModel:
    """A copy of a model that computes features with one thread.

    Features are read by a hook on the model's head. Requests that the same model answered meanwhile would run through the hook, so
    it is a copy. Its equal weights are stored once.
    """

    def __init__(self, classifier: Classifier, *, trained: bool) -> None:
        """trained: whether the classifier's probabilities mean anything."""
        self.classifier, self.trained = classifier, trained
        self.classifier.threads = 1
        self._lock = threading.Lock()

    @classmethod
    def copy_of(cls, model: ServedModel) -> FeatureModel:
        """Load a served model again. Raises LoralabError for a model that returns only logits."""
        classifier = Classifier.load(model.source)
        share_weights(classifier.model, [model.classifier.model])
        copy = cls(classifier, trained=True)
        copy.compute(["word"])
        return copy

    @classmethod
    def minilm(cls) -> FeatureModel:
        """Return the encoder that is installed with the package, with mean pooling and no trained head."""
        base, data = resolve_base("minilm"), DataConfig()
        model = build_model(base, 2, ModelConfig(), tuning="head", lora=LoraConfig(), init_seed=0, dropout_seed=0)
        model.requires_grad_(False)
        move_to_device(model)
        manifest = Manifest(
            base=base.name,
            base_folder=str(base.folder),
            base_sha256="",
            dims=base.dims,
            classes=("0", "1"),
            pooling="mean",
            head="linear",
            tuning="head",
            clean=data.clean,
            max_length=data.max_length,
            lora=LoraConfig(),
        )
        return cls(Classifier(model, manifest, load_tokenizer(base.folder, data.max_length)), trained=False)

    def compute(self, texts: Sequence[str]) -> PoolScores:
        """Return probabilities and features of texts."""
        with self._lock:
            predictions, features = self.classifier.predict_with_features(texts)
        return PoolScores(predictions.probabilities, features)
