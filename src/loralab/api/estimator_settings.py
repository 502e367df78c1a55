"""The parameters of the estimator that are settings under shorter names."""

from __future__ import annotations

import re

SETTINGS = {
    "base": "model.base",
    "revision": "model.revision",
    "tuning": "tuning",
    "rank": "lora.rank",
    "alpha": "lora.alpha",
    "dropout": "lora.dropout",
    "targets": "lora.targets",
    "layers": "lora.layers",
    "max_trainable": "lora.max_trainable",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "learning_rate": "train.learning_rate",
    "label_smoothing": "train.label_smoothing",
    "class_weight": "train.class_weights",
    "monitor": "train.monitor",
    "patience": "train.patience",
    "validation_fraction": "data.validation",
    "max_length": "data.max_length",
    "clean": "data.clean",
    "augment": "data.augment",
    "device": "train.device",
    "precision": "train.precision",
    "threads": "train.threads",
}
"""Parameter → the setting that it is."""


def parameter_words(message: str) -> str:
    """Return a message with parameters in place of the settings that they are."""
    for name, setting in SETTINGS.items():
        message = re.sub(rf"\b{re.escape(setting)}=", f"{name}=", message)
    return message
