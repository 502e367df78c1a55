"""Every kind of model satisfies `ClassifierModel`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from reference import ours
from torch import nn

from loralab.config import LoraConfig, ModelConfig
from loralab.inference.onnx_model import OnnxClassifier
from loralab.model.build import build_model
from loralab.model.checkpoints import resolve_base
from loralab.model.interface import ClassifierModel


def native(tiny: Path) -> Any:
    return ours(tiny)


def hugging_face(tiny: Path) -> Any:
    lora = LoraConfig(variant="dora")
    return build_model(resolve_base(str(tiny)), 4, ModelConfig(), tuning="lora", lora=lora, init_seed=0, dropout_seed=0)


def onnx(tiny: Path) -> Any:
    model = OnnxClassifier.__new__(OnnxClassifier)
    model.session, model.head = SimpleNamespace(get_outputs=lambda: [SimpleNamespace(shape=["batch", 4])]), nn.Identity()
    return model


@pytest.mark.parametrize("build", [native, hugging_face, onnx])
def test_it_is_a_classifier_model(tiny: Path, build: Any) -> None:
    model = build(tiny)
    assert isinstance(model, ClassifierModel)
    assert model.classes == 4
    assert model.device == torch.device("cpu")
    assert model.compute_dtype == torch.float32
    assert model.allocation is None
    assert (model.supports_feature_cache, model.thread_safe) == ((True, True) if build is native else (False, False))
    assert model.min_texts_per_worker >= 1
    assert model.train() is model
    assert model.eval() is model


def test_a_plain_module_is_not_one() -> None:
    assert not isinstance(nn.Linear(2, 2), ClassifierModel)
