"""loralab fine-tunes text classifiers with LoRA: fast on a CPU, within a parameter budget, with statistics you can defend."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loralab.config.loading import Config, load_config
    from loralab.errors import LoralabError, RunFailed
    from loralab.inference.classifier import Classifier
    from loralab.inference.prediction_files import Predictions
    from loralab.integrations.hub import push_to_hub
    from loralab.pipeline import RunSummary, run_training

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "loralab.inference.classifier",
    "Predictions": "loralab.inference.prediction_files",
    "Config": "loralab.config",
    "load_config": "loralab.config",
    "LoralabError": "loralab.errors",
    "RunFailed": "loralab.errors",
    "RunSummary": "loralab.pipeline",
    "push_to_hub": "loralab.integrations.hub",
    "run_training": "loralab.pipeline",
}

__all__ = [
    "Classifier",
    "Config",
    "LoralabError",
    "Predictions",
    "RunFailed",
    "RunSummary",
    "load_config",
    "push_to_hub",
    "run_training",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import loralab` loads no torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'loralab' has no attribute {name!r}")
