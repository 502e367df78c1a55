"""Optimizers by the name of `train.optimizer`."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import torch
from torch import nn

from loralab.config import TrainConfig
from loralab.errors import LoralabError, import_optional
from loralab.model.interface import ClassifierModel

_TORCH: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("AdamW", {"fused": True}),
    "adam": ("Adam", {"fused": True}),
    "nadam": ("NAdam", {}),
    "radam": ("RAdam", {}),
    "adamax": ("Adamax", {}),
    "rmsprop": ("RMSprop", {}),
    "adagrad": ("Adagrad", {}),
    "sgd": ("SGD", {"momentum": 0.9}),
    "adafactor": ("Adafactor", {}),
}
T = TypeVar("T", bound=torch.optim.Optimizer)
_BITSANDBYTES = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit", "lion_8bit": "Lion8bit"}


def build_optimizer(model: ClassifierModel, train: TrainConfig, loraplus_lr_ratio: float = 1.0) -> torch.optim.Optimizer:
    """Return the optimizer of a model's trained parameters.

    The head has a learning rate of its own, and the B matrices of LoRA `loraplus_lr_ratio` times the learning rate (Hayou et al.
    2024). Biases and norms have no weight decay. The first parameter group has `train.learning_rate` if any group has.
    Raises LoralabError for an 8-bit optimizer without CUDA.
    """
    head_rate = train.head_learning_rate or train.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            ratio = loraplus_lr_ratio if ".adapters." in name and name.endswith(".b") else 1.0
            rate = head_rate if name.startswith("head.") else train.learning_rate * ratio
            decay = train.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: item[0][0] != train.learning_rate)
    parameters = [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in ordered]
    constructor, options = _find_optimizer(train.optimizer, model.device)
    optimizer: torch.optim.Optimizer = constructor(parameters, **options)
    return optimizer


def _find_optimizer(name: str, device: torch.device) -> tuple[Any, dict[str, Any]]:
    """Return the class of an optimizer and the arguments that differ from its defaults."""
    if name in _TORCH:
        attribute, options = _TORCH[name]
        return without_compiler(getattr(torch.optim, attribute)), options
    if device.type != "cuda":
        raise LoralabError(f"train.optimizer={name} needs a CUDA device, and the model is on {device}: use train.optimizer=adamw")
    return getattr(import_optional("bitsandbytes", "8bit").optim, _BITSANDBYTES[name]), {}


def without_compiler(kind: type[T]) -> type[T]:
    """Return an optimizer whose methods lack what torch.compile needs of them, and compute the same.

    That part imports the compiler, which nothing here uses: one to two seconds of each run.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    plain: type[T] = type(kind.__name__, (kind,), {**methods, "step": step})
    return plain
