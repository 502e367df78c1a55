"""What clients and the page learn of a model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from loralab.errors import LoralabError
from loralab.report.run_data import count_scored_rows
from loralab.serve.models import ServedModel
from loralab.serve.schemas import ModelCard
from loralab.stats.intervals import wilson
from loralab.storage.run_folder import read_scores


def model_card(model: ServedModel) -> ModelCard:
    """Return a model as OpenAI's clients list it."""
    return ModelCard(id=model.name, created=model.created, classes=[*model.classes], base=model.classifier.manifest.base)


def model_info(model: ServedModel) -> dict[str, Any]:
    """Return what a model is: encoder, classes, accuracy with its interval, temperature, data contract."""
    manifest = model.classifier.manifest
    contract = manifest.data
    return {
        "model": model.name,
        "encoder": manifest.base,
        "tuning": manifest.tuning,
        "classes": [*model.classes],
        "max_length": model.max_length,
        "cleaning": [*manifest.clean],
        "temperature": manifest.temperature,
        "text_pairs": model.text_columns == 2,
        "accuracy": _accuracy(model),
        "data": asdict(contract) if contract else None,
    }


def _accuracy(model: ServedModel) -> dict[str, Any] | None:
    """Return the accuracy on the run's test rows with Wilson's 95 % interval; None where there is none."""
    if model.folder is None:
        return None
    try:
        scores = read_scores(model.folder)["scores"]
        accuracy, rows = float(scores["accuracy"]), count_scored_rows(scores)
    except (LoralabError, KeyError, TypeError, ValueError):
        return None
    low, _, high = wilson(round(accuracy * rows), rows)
    return {"value": accuracy, "low": low, "high": high, "level": 0.95, "test_rows": rows}
