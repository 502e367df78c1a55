"""Facts about runs, recipes and the machine, as nested dictionaries."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from loralab.config import Config, ModelConfig, load_config
from loralab.config.loading import NAMED_SOURCES
from loralab.data.folders import AG_NEWS_CLASSES
from loralab.data.sources import load_source
from loralab.errors import LoralabError
from loralab.metrics import NO_TEST_ROWS
from loralab.model.architectures import Dimensions, Sizes, family, is_native, parse_layers, resolve_targets
from loralab.model.checkpoints import base_dimensions, choose_head
from loralab.model.manifest import MANIFEST, read_manifest
from loralab.model.parameter_counts import BudgetOption, ParameterCounts, count_from_shapes, solve_budget
from loralab.safe_files import exists
from loralab.storage import run_folder
from loralab.storage.sealed import read_sealed


def describe(target: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return base, LoRA settings and parameter counts of a run folder, a saved model, a model soup or a recipe.

    A complete run adds its result and test scores, a soup its members. Counting needs no weights. Raises LoralabError for
    `overrides` of a run or a saved model.
    """
    folder = Path(target)
    saved = exists(folder / MANIFEST)
    if not saved and not exists(folder / run_folder.CONFIG) and not exists(folder / run_folder.SCORES):
        config = load_config(target, overrides)
        return _configuration(config, class_count(config))
    if overrides:
        kind = "model" if saved else "run"
        raise LoralabError(f"{target} is a {kind}, and its settings are fixed: describe a recipe with {overrides[0]}")
    if saved:
        return {"model": target, **_saved_model(folder)}
    config = run_folder.read_config(folder)
    classes = len(run_folder.read_environment(folder).get("classes", ()))
    facts = {"run": target, **_configuration(config, classes)}
    if exists(folder / run_folder.SCORES):
        scores = run_folder.read_scores(folder)
        try:
            facts["result"] = {key: scores[key] for key in ("steps", "best_step", "stopped_early", "seconds", "samples_per_second")}
            for name, unit in (("timing", "s"), ("memory", "MB")):
                if values := {key: value for key, value in scores.get(name, {}).items() if value is not None}:
                    facts[f"{name} ({unit})"] = values
            tested = {name: value for name, value in scores["scores"].items() if ":" not in name}
            facts["test scores"] = tested or NO_TEST_ROWS
            if not tested and scores["validation"]:  # the only scores of the run
                facts["validation scores"] = {name: value for name, value in scores["validation"].items() if ":" not in name}
        except (KeyError, AttributeError) as error:
            raise LoralabError(f"{folder / run_folder.SCORES} is damaged ({error!r})") from error
    else:
        facts["result"] = "not complete"
    return facts


def budget_options(recipe: str, overrides: Sequence[str], max_trainable: int) -> list[BudgetOption]:
    """Return the largest rank within a parameter budget for each choice of targets and layers.

    Encoder, head and classes are the recipe's. Raises LoralabError for a variant other than LoRA.
    """
    config = load_config(recipe, overrides)
    name, lora = config.model.base, config.lora
    dims = family(base_dimensions(name, config.model.revision), f"loralab budget: {name}")
    head = choose_head(config.model.head, name)
    if not is_native(dims, tuning="lora", variant=lora.variant, quantize="none"):
        raise LoralabError(f"loralab budget supports LoRA only; count lora.variant={lora.variant} with `loralab describe`")
    return solve_budget(dims, class_count(config), head=head, max_trainable=max_trainable, layers=lora.layers)


def count_parameters(config: Config, classes: int | None = None) -> tuple[Dimensions | Sizes, ParameterCounts, list[str]]:
    """Return the encoder's dimensions, the parameter counts, and the modules that peft adapts (none for the native encoder).

    The native encoder has a closed formula. Other architectures are counted on a model without weights.
    classes: None reads the number from the data.
    """
    name, lora, tuning = config.model.base, config.lora, config.tuning
    classes = classes or class_count(config)
    dims = base_dimensions(name, config.model.revision)
    if isinstance(dims, Dimensions) and is_native(dims, tuning=tuning, variant=lora.variant, quantize=config.model.quantize):
        head = choose_head(config.model.head, name)
        counts = count_from_shapes(dims, classes, head=head, tuning=tuning, lora=lora, freeze=config.model.freeze)
        return dims, counts, []
    from loralab.model.build import count_hf_model

    return dims, *count_hf_model(name, dims, classes, config.model, tuning=tuning, lora=lora)


def class_count(config: Config) -> int:
    """Return the number of classes, from the settings or the built-in data sets if they name it, else from the data."""
    data = config.data
    if data.classes or data.source in NAMED_SOURCES:
        return len(data.classes or AG_NEWS_CLASSES)
    return len(load_source(data).train.classes)


def environment_info() -> dict[str, Any]:
    """Return versions, platform, cores, device, precision and whether kernels and minilm are available."""
    import torch

    from loralab.model import device
    from loralab.model.kernels import missing_reason

    chosen = device.choose_device()
    facts: dict[str, Any] = {
        "loralab": metadata.version("loralab"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in ("torch", "tokenizers", "safetensors", "pydantic", "transformers", "peft")},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if chosen.type == "cuda" else chosen.type,
        "precision": device.precision_name(device.choose_precision("auto", chosen)),
        "kernels": missing_reason() or "compiled",
    }
    try:
        facts["minilm"] = str(base_dimensions("minilm") and "installed")
    except LoralabError as error:
        facts["minilm"] = str(error)
    return facts


def _configuration(config: Config, classes: int) -> dict[str, Any]:
    dims, counts, modules = count_parameters(config, classes)
    facts: dict[str, Any] = {
        "base": f"{config.model.base} ({dims.model_type}, {dims.layers} layers, width {dims.width})",
        "data": config.data.source,
        "tuning": config.tuning,
    }
    if config.tuning == "lora":
        facts["lora"] = {
            **config.lora.model_dump(mode="json", exclude={"max_trainable"}),
            "targets": ", ".join(config.lora.targets if modules else resolve_targets(config.lora.targets)),
            "layers": ", ".join(map(str, parse_layers(config.lora.layers, dims.layers))),
            **({"adapted modules": f"{len(modules)}: {_names_in_layer(modules)}"} if modules else {}),
        }
    facts["parameters"] = {**asdict(counts), "total": counts.total, "share": f"{counts.share:.4%}"}
    if config.lora.max_trainable is not None:
        left = config.lora.max_trainable - counts.trainable
        facts["parameters"]["budget"] = f"{config.lora.max_trainable:,} ({f'{left:,} left' if left >= 0 else f'{-left:,} OVER'})"
    return facts


def _saved_model(folder: Path) -> dict[str, Any]:
    """Return the facts of a saved model from its manifest, and of a soup from its members."""
    manifest = read_manifest(folder)
    model = ModelConfig(base=manifest.base, head="linear" if manifest.head == "linear" else "default", quantize=manifest.quantize)
    if isinstance(manifest.dims, Dimensions) and manifest.native:
        shape: dict[str, Any] = {"head": manifest.head, "tuning": manifest.tuning, "lora": manifest.lora}
        counts = count_from_shapes(manifest.dims, len(manifest.classes), **shape)
    else:
        from loralab.model.build import count_hf_model

        methods: dict[str, Any] = {"tuning": manifest.tuning, "lora": manifest.lora}
        counts, _ = count_hf_model(manifest.base, manifest.dims, len(manifest.classes), model, **methods)
    facts: dict[str, Any] = {
        "base": f"{manifest.base} ({manifest.dims.model_type}, {manifest.dims.layers} layers, width {manifest.dims.width})",
        "classes": ", ".join(manifest.classes),
        "tuning": manifest.tuning,
    }
    if manifest.tuning == "lora":
        facts["lora"] = manifest.lora.model_dump(mode="json", include={"rank", "alpha", "targets", "layers", "variant"})
    facts["parameters"] = {"base": counts.base, "adapter": counts.adapter, "head": counts.head, "total": counts.total}
    if exists(folder / run_folder.SOUP):
        soup = read_sealed(folder / run_folder.SOUP, "make the soup again with --overwrite").content
        facts["soup"] = {key: soup.get(key) for key in ("members", "accuracies", "accuracy", "test_rows", "parameters", "budget")}
    return facts


def _names_in_layer(modules: Sequence[str]) -> str:
    """Return the distinct names without the layer's prefix, such as `attention.self.query_proj`."""
    return ", ".join(dict.fromkeys(re.sub(r"^.*?\.\d+\.", "", name) for name in modules))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
