"""The scores of a finished run: those of its saved model, loaded as `predict` and `evaluate` load it.

During training the model computes with separate adapters. The saved model has them merged, which rounds differently in bf16. A run
therefore reports what its saved model computes, so that every command gives the same number for the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from loralab.data.types import Encoded
from loralab.inference.classifier import Classifier
from loralab.metrics import Logits
from loralab.model.encoder import EncoderClassifier
from loralab.model.interface import ClassifierModel
from loralab.training.scoring import logits_of


def saved_logits(model_folder: Path, trained: ClassifierModel, parts: Mapping[str, Encoded], device: str) -> dict[str, Logits]:
    """Return the logits (n, classes) fp32 of the saved model for each part with rows, without the temperature.

    trained: the model that computed the cached hidden states of `parts`. They are used if the saved model would compute the same.
    device: as in `train.device`.
    """
    model = Classifier.load(model_folder, device=device).model
    exact = computes_alike(trained, model)
    rows = {name: part if exact else replace(part, hidden=None, start=None) for name, part in parts.items() if len(part)}
    return {name: logits_of(model, part) for name, part in rows.items()}


def computes_alike(trained: ClassifierModel, saved: ClassifierModel) -> bool:
    """Return whether both models compute the frozen layers in the same way, bit for bit."""
    if not (isinstance(trained, EncoderClassifier) and isinstance(saved, EncoderClassifier)):
        return False
    first, second = ((model.device, model.compute_dtype, model.uses_kernels) for model in (trained, saved))
    return first == second
