"""Shared by the tests of settings: a value for every setting, and what a refused setting says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loralab.config import Config, load_config
from loralab.errors import LoralabError

OTHER: dict[str, str] = {
    "seed": "7",
    "data.source": "reviews.csv",
    "data.text": "title,body",
    "data.label": "stars",
    "data.id": "number",
    "data.delimiter": "tab",
    "data.header": "false",
    "data.quotes": "false",
    "data.encoding": "cp1252",
    "data.strict": "true",
    "data.group": "author",
    "data.time": "date",
    "data.weight": "importance",
    "data.classes": "bad,good",
    "data.test": "0.3",
    "data.validation": "240",
    "data.split_seed": "1",
    "data.sample_seed": "1",
    "data.max_train_samples": "100",
    "data.max_test_samples": "100",
    "data.shots_per_class": "8",
    "data.train_indices": "rows.txt",
    "data.clean": "html",
    "data.max_length": "64",
    "data.augment": "swap",
    "data.augment_ratio": "0.5",
    "data.augment_strength": "0.2",
    "data.back_translation": "en-fr,fr-en",
    "data.descriptions": "{World: [war, elections], Sports: football}",
    "data.template": "News about {}.",
    "model.base": "roberta-base",
    "model.revision": "v1.0",
    "model.pooling": "cls",
    "model.head": "default",
    "model.dropout": "0.2",
    "model.freeze": "embeddings",
    "model.quantize": "8bit",
    "tuning": "full",
    "lora.rank": "4",
    "lora.alpha": "4",
    "lora.dropout": "0.1",
    "lora.targets": "key",
    "lora.layers": "9-11",
    "lora.variant": "rslora",
    "lora.loraplus_lr_ratio": "4",
    "lora.max_trainable": "1000000",
    "train.epochs": "1",
    "train.max_steps": "10",
    "train.batch_size": "8",
    "train.max_tokens_per_microbatch": "4096",
    "train.learning_rate": "2e-4",
    "train.head_learning_rate": "1e-3",
    "train.head_init": "probe+descriptions",
    "train.weight_decay": "0.03",
    "train.schedule": "linear",
    "train.warmup": "100",
    "train.class_weights": "balanced",
    "train.label_smoothing": "0.2",
    "train.focal_gamma": "2",
    "train.eval_steps": "50",
    "train.optimizer": "sgd",
    "train.max_grad_norm": "0.5",
    "train.device": "cpu",
    "train.monitor": "macro_f1",
    "train.track": "accuracy,f1:World",
    "train.patience": "3",
    "train.min_delta": "0.001",
    "train.precision": "fp32",
    "train.gradient_checkpointing": "true",
    "train.feature_cache": "off",
    "train.feature_cache_gb": "2",
    "train.threads": "2",
}
"""Every setting but the name, with a value that is not its default."""


def get(config: Config, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refused(*arguments: Any) -> str:
    with pytest.raises(LoralabError) as caught:
        load_config(*arguments)
    assert caught.value.exit_code == 2
    return str(caught.value)
