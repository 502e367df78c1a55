"""Facts about a run, a recipe or this machine, as plain nested dictionaries; counts need no weights and no torch."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from loralab.config import Config, load_config
from loralab.config.loading import NAMED_SOURCES
from loralab.data.sources import AG_NEWS_CLASSES, load_source
from loralab.errors import LoralabError
from loralab.model.architectures import Dimensions, Sizes, family, is_native, parse_layers, resolve_targets
from loralab.model.checkpoints import base_dimensions, choose_head
from loralab.model.parameter_counts import BudgetOption, ParameterCounts, count_from_shapes, solve_budget
from loralab.storage import run_folder


def describe(target: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Describe a run's folder or a recipe: base, settings of the adapter, counts apart; of a complete run its scores too."""
    folder = Path(target)
    if not (folder / run_folder.CONFIG).is_file():
        config = load_config(target, overrides)
        return _configuration(config, class_count(config))
    if overrides:
        raise LoralabError(f"{target} is a run, whose settings are what they were: describe a recipe with {overrides[0]}")
    config = run_folder.read_config(folder)
    known = (folder / run_folder.ENVIRONMENT).is_file()
    classes = len(run_folder.read_environment(folder).get("classes", ())) if known else class_count(config)
    facts = {"run": target, **_configuration(config, classes)}
    if (folder / run_folder.SCORES).is_file():
        found = run_folder.read_scores(folder)
        try:
            facts["result"] = {key: found[key] for key in ("steps", "best_step", "stopped_early", "seconds", "samples_per_second")}
            facts["test scores"] = {name: value for name, value in found["scores"].items() if ":" not in name}
        except (KeyError, AttributeError) as error:
            raise LoralabError(f"{folder / run_folder.SCORES} is damaged ({error!r})") from error
    else:
        facts["result"] = "not complete"
    return facts


def budget(recipe: str, overrides: Sequence[str], max_trainable: int) -> list[BudgetOption]:
    """Return what fits a budget of trainable parameters on a recipe's encoder, head and classes."""
    config = load_config(recipe, overrides)
    name, lora = config.model.base, config.lora
    dims, head = family(base_dimensions(name), f"loralab budget: {name}"), choose_head(config.model.head, name)
    if not is_native(dims, tuning="lora", variant=lora.variant, quantize="none"):
        raise LoralabError(f"loralab budget solves for LoRA; of lora.variant={lora.variant}, `loralab describe` counts one choice")
    return solve_budget(dims, class_count(config), head=head, max_trainable=max_trainable, layers=lora.layers)


def count_parameters(config: Config, classes: int | None = None) -> tuple[Dimensions | Sizes, ParameterCounts]:
    """Count what a configuration trains, by the closed formula, or off the BERT family from a network without weights.

    `classes` None: as many as its data has.
    """
    dims, counts, _ = _count(config, classes)
    return dims, counts


def _count(config: Config, classes: int | None) -> tuple[Dimensions | Sizes, ParameterCounts, list[str]]:
    """The sizes, the counts, and the maps that peft adapts, none where the network is native."""
    name, lora, tuning = config.model.base, config.lora, config.tuning
    classes = classes or class_count(config)
    dims = base_dimensions(name)
    if isinstance(dims, Dimensions) and is_native(dims, tuning=tuning, variant=lora.variant, quantize=config.model.quantize):
        head = choose_head(config.model.head, name)
        counts = count_from_shapes(dims, classes, head=head, tuning=tuning, lora=lora, freeze=config.model.freeze)
        return dims, counts, []
    from loralab.model.build import count_hf_model

    return dims, *count_hf_model(name, dims, classes, config.model, tuning=tuning, lora=lora)


def class_count(config: Config) -> int:
    """Number of classes: named in the settings or known of the source, else read from it."""
    data = config.data
    if data.classes or data.source in NAMED_SOURCES:
        return len(data.classes or AG_NEWS_CLASSES)
    return len(load_source(data.source, text=data.text, label=data.label).train.classes)


def examine_machine() -> dict[str, Any]:
    """Say what this machine has, for people and for bug reports."""
    import torch

    from loralab.model import device
    from loralab.model.kernels import missing_reason

    where = device.choose_device()
    facts: dict[str, Any] = {
        "loralab": metadata.version("loralab"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in ("torch", "tokenizers", "safetensors", "pydantic", "transformers", "peft")},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if where.type == "cuda" else "cpu",
        "precision": device.precision_name(device.choose_precision("auto", where)),
        "kernels": missing_reason() or "compiled",
    }
    try:
        facts["minilm"] = str(base_dimensions("minilm") and "installed")
    except LoralabError as error:
        facts["minilm"] = str(error)
    return facts


def _configuration(config: Config, classes: int) -> dict[str, Any]:
    dims, counts, maps = _count(config, classes)
    facts: dict[str, Any] = {
        "base": f"{config.model.base} ({dims.model_type}, {dims.layers} layers, width {dims.width})",
        "data": config.data.source,
        "tuning": config.tuning,
    }
    if config.tuning == "lora":
        facts["lora"] = {
            **config.lora.model_dump(mode="json", exclude={"max_trainable"}),
            "targets": ", ".join(config.lora.targets if maps else resolve_targets(config.lora.targets)),
            "layers": ", ".join(map(str, parse_layers(config.lora.layers, dims.layers))),
            **({"adapted maps": f"{len(maps)}: {_ends(maps)}"} if maps else {}),
        }
    facts["parameters"] = {**asdict(counts), "total": counts.total, "share": f"{counts.share:.4%}"}
    if config.lora.max_trainable is not None:
        left = config.lora.max_trainable - counts.trainable
        facts["parameters"]["budget"] = f"{config.lora.max_trainable:,} ({f'{left:,} left' if left >= 0 else f'{-left:,} OVER'})"
    return facts


def _ends(maps: Sequence[str]) -> str:
    """The names below the layer, once each, in order."""
    return ", ".join(dict.fromkeys(re.sub(r"^.*?\.\d+\.", "", name) for name in maps))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
