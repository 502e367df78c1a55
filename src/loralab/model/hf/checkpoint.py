"""Files of a generic network: peft's adapter format, or Transformers' own weights, both as safetensors.

tuning=lora   adapter_config.json and adapter_model.safetensors, as `save_pretrained` of peft writes them
tuning=full   config.json and model.safetensors, as Transformers' `from_pretrained` reads them
The head stands in head.safetensors wherever it is not in these: tuning=head, and a linear head.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from loralab.errors import LoralabError, need
from loralab.model.checkpoints import HEAD_WEIGHTS, WEIGHTS, copy_tensors, load_tensors, read_json, save_tensors
from loralab.model.hf.model import HFClassifier
from loralab.model.hf.peft_methods import ADAPTER
from loralab.model.peft_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS

CONFIG = "config.json"
_PREFIX = "base_model.model."


def save_generic(network: HFClassifier, folder: Path, *, base: str, tuning: str, classes: Sequence[str]) -> None:
    """Write what was trained. A classifier with its own head is saved whole, as peft's SEQ_CLS or Transformers' classifier."""
    whole = network.head_kind == "default"
    if tuning == "lora":
        save_tensors(adapter_tensors(network) | (_head(network, _PREFIX) if whole else {}), folder / ADAPTER_WEIGHTS)
        _save_config(network, folder, base, whole)
    elif tuning == "full":
        save_tensors(network.model.state_dict(), folder / WEIGHTS)
        network.model.config.id2label = dict(enumerate(classes))
        network.model.config.save_pretrained(folder)
    if not whole or tuning == "head":
        save_tensors(_head(network), folder / HEAD_WEIGHTS)


def load_generic(network: HFClassifier, folder: Path, *, tuning: str) -> None:
    """Load what `save_generic` wrote into a network built alike. Raises LoralabError for a tensor missing, misshapen or strange."""
    whole = network.head_kind == "default"
    if tuning == "lora":
        tensors = load_tensors(folder / ADAPTER_WEIGHTS)
        if whole:
            copy_tensors(_head(network, _PREFIX).items(), tensors, str(folder))
            tensors = {name: tensor for name, tensor in tensors.items() if name not in _head(network, _PREFIX)}
        _load_adapter(network, tensors, folder)
    elif tuning == "full":
        copy_tensors(network.model.state_dict().items(), load_tensors(folder / WEIGHTS), str(folder))
    if not whole or tuning == "head":
        copy_tensors(_head(network).items(), load_tensors(folder / HEAD_WEIGHTS), str(folder))


def adapter_tensors(network: HFClassifier) -> dict[str, Tensor]:
    """The adapter's tensors by the names peft saves them under; of AdaLoRA's, the ranks that are left."""
    if network.allocation is not None:
        network.allocation.settle()
    tensors: dict[str, Tensor] = need("peft", "generic").get_peft_model_state_dict(network.model, save_embedding_layers=False)
    return tensors


def _head(network: HFClassifier, prefix: str = "") -> dict[str, Tensor]:
    """The head's tensors by Transformers' names, or `head.out` for a linear head, as the native files have it."""
    prefix = prefix if network.head_kind == "default" else "head."
    return {f"{prefix}{name}": tensor for name, tensor in network.head.state_dict().items()}


def _save_config(network: HFClassifier, folder: Path, base: str, whole: bool) -> None:
    config: Any = network.model.peft_config[ADAPTER]
    config.base_model_name_or_path = base
    config.target_modules = set(network.maps)  # peft may have shortened them
    config.modules_to_save = [name for name, part in network.head.named_children() if [*part.parameters()]] if whole else None
    config.task_type = "SEQ_CLS" if whole else "FEATURE_EXTRACTION"
    before, config.inference_mode = config.inference_mode, True
    config.save_pretrained(str(folder))
    config.inference_mode = before


def _load_adapter(network: HFClassifier, tensors: dict[str, Tensor], folder: Path) -> None:
    config = network.model.peft_config[ADAPTER]
    if network.allocation is not None:
        config.rank_pattern = read_json(folder / ADAPTER_CONFIG).get("rank_pattern")
    try:
        found = need("peft", "generic").set_peft_model_state_dict(network.model, dict(tensors))
    except (RuntimeError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise LoralabError(f"{folder}: the adapter does not fit its settings ({error}): the file is damaged") from error
    trained = {name for name, parameter in network.model.named_parameters() if parameter.requires_grad}
    heads = {name for name in trained if name.removeprefix(_PREFIX) in network.head.state_dict()}
    if wrong := sorted({*found.unexpected_keys, *((trained - heads) & set(found.missing_keys))}):
        raise LoralabError(f"{folder}: tensor {wrong[0]!r} of the adapter is missing or has no place here: the file is damaged")
