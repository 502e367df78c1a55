"""loralab fine-tunes text classifiers with LoRA: fast on a CPU, within a parameter budget, with statistics you can defend."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loralab.api.data import augment, check_data, load_sample
    from loralab.api.experiments import compare, experiment, search
    from loralab.api.parameters import budget
    from loralab.api.runs import diagnose, evaluate, export, load, model_soup, train
    from loralab.config.loading import Config, list_recipes, load_config
    from loralab.errors import LoralabError
    from loralab.estimator import LoraTextClassifier
    from loralab.inference.classifier import Classifier
    from loralab.inference.prediction_files import Predictions
    from loralab.results import Experiment, Run, Scores
    from loralab.training.callbacks import Callback

__version__ = "0.1.0"

_HOMES = {
    "loralab.api.data": ("augment", "check_data", "load_sample"),
    "loralab.api.experiments": ("compare", "experiment", "search"),
    "loralab.api.parameters": ("budget",),
    "loralab.api.runs": ("diagnose", "evaluate", "export", "load", "model_soup", "train"),
    "loralab.config.loading": ("Config", "list_recipes", "load_config"),
    "loralab.errors": ("LoralabError",),
    "loralab.estimator": ("LoraTextClassifier",),
    "loralab.inference.classifier": ("Classifier",),
    "loralab.inference.prediction_files": ("Predictions",),
    "loralab.results": ("Experiment", "Run", "Scores"),
    "loralab.training.callbacks": ("Callback",),
}
"""Module → the public names that it defines."""

__all__ = [
    "Callback",
    "Classifier",
    "Config",
    "Experiment",
    "LoraTextClassifier",
    "LoralabError",
    "Predictions",
    "Run",
    "Scores",
    "augment",
    "budget",
    "check_data",
    "compare",
    "diagnose",
    "evaluate",
    "experiment",
    "export",
    "list_recipes",
    "load",
    "load_config",
    "load_sample",
    "model_soup",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import loralab` loads no torch."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'loralab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
