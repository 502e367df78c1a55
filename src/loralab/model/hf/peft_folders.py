"""Open adapters that peft saved, of any encoder and any kind of LoRA: merged into the weights by peft itself."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from loralab.errors import LoralabError, import_optional
from loralab.model.checkpoints import BASE_CONFIG, BaseCheckpoint, read_json
from loralab.model.hf.model import HFClassifier
from loralab.model.hf.pretrained import configuration, load_pretrained_model, quiet
from loralab.model.peft_files import ADAPTER_WEIGHTS, PEFT_PREFIX, classes_of
from loralab.model.tensor_files import load_tensors

_MERGED = 1e-3
"""The largest difference that merging may make, relative to the largest logit."""


def count_peft_classes(folder: Path, base: BaseCheckpoint) -> int:
    """Return how many classes the head of a peft folder has. Raises LoralabError when there is none."""
    with quiet(), torch.device("meta"):
        config = configuration(read_json(base.folder / BASE_CONFIG), 2, base.name)
        model = import_optional("transformers", "hf").AutoModelForSequenceClassification.from_config(config)
    prefix = f"{model.base_model_prefix}."
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and not name.startswith(prefix)]
    return classes_of(load_tensors(folder / ADAPTER_WEIGHTS), f"{PEFT_PREFIX}{linear[-1]}", folder)


def open_peft_folder(folder: Path, base: BaseCheckpoint, classes: int) -> HFClassifier:
    """Return the base with the adapter and the head of a peft folder, merged.

    Raises LoralabError if a tensor has no place, if part of the head is neither in the folder nor in the base, and if peft cannot
    merge the adapter.
    """
    peft = import_optional("peft", "hf")
    saved = load_tensors(folder / ADAPTER_WEIGHTS)
    with quiet():
        model, drawn = load_pretrained_model(base, configuration(read_json(base.folder / BASE_CONFIG), classes, base.name))
        if lost := sorted(name for name in drawn if PEFT_PREFIX + name not in saved):
            raise LoralabError(
                f"{folder}: the head's tensor {lost[0]!r} is neither in the adapter nor in {base.name}, so its value is lost: "
                f"train again with modules_to_save that names {lost[0].split('.')[0]!r} too"
            )
        try:
            adapted = peft.PeftModel.from_pretrained(model, str(folder)).eval()
            placed = peft.get_peft_model_state_dict(adapted)
            _check_placed(saved, placed, folder)
            before = _probe(adapted)
            merged = adapted.merge_and_unload().eval()
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
            raise LoralabError(f"{folder}: peft cannot open or merge this adapter: {error}") from error
    if not (_probe(merged) - before).abs().max() <= _MERGED * before.abs().max():
        raise LoralabError(f"{folder}: merging this adapter changes its logits: it is not supported")
    return HFClassifier(merged, base.dims, classes, pooling="cls", head="default", dropout=0.0)


def _check_placed(saved: dict[str, Tensor], placed: dict[str, Tensor], folder: Path) -> None:
    wrong = {name for name, tensor in saved.items() if name not in placed or not torch.equal(placed[name].cpu(), tensor)}
    if wrong:
        raise LoralabError(f"{folder}: tensor {min(wrong)!r} has no place in the model: the file is damaged")


@torch.no_grad()
def _probe(model: nn.Module) -> Tensor:
    """Return the logits of a few tokens."""
    tokens = torch.arange(5, 13)[None]
    logits: Tensor = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    return logits
