"""The model folder: an adapter in peft's format, and all else that classifying needs. It works offline and can be moved.

adapter_config.json, adapter_model.safetensors    peft's adapter (tuning=lora)
head.safetensors                                  the head, if peft's file cannot contain it
model.safetensors                                 all weights (tuning=full)
tokenizer.json, tokenizer_config.json             the base's tokenizer
config.json                                       the architecture and class names; Transformers' pipeline reads it first, so it
                                                  opens no adapter with a random head: it looks for all weights here
loralab.json                                      classes, text cleaning, pooling, head, temperature, base (`Manifest`)
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loralab.config import ModelConfig
from loralab.config.paths import MINILM_HUB_ID
from loralab.errors import LoralabError
from loralab.model.architectures import family, parse_layers, resolve_targets
from loralab.model.build import TrainableModel, load_pretrained
from loralab.model.checkpoints import BASE_CONFIG, WEIGHTS, BaseCheckpoint, read_json, resolve_base
from loralab.model.encoder import EncoderClassifier
from loralab.model.hf.model import HFClassifier
from loralab.model.hf.peft_folders import count_peft_classes, open_peft_folder
from loralab.model.hf.pretrained import build_hf_model, check_settings, empty_hf_model
from loralab.model.hub_files import ENCODER_CONFIG, base_config, classifier_config, write_json, write_tokenizer
from loralab.model.interface import ClassifierModel
from loralab.model.manifest import MANIFEST, Manifest, read_manifest
from loralab.model.parameter_counts import base_size
from loralab.model.peft_files import ADAPTER_CONFIG, check_head_names, count_classes, load_adapter, read_adapter_config
from loralab.model.tensor_files import check_parameters
from loralab.safe_files import exists


def save_bundle(
    folder: Path, model: ClassifierModel, manifest: Manifest, tokenizer_json: str, config: Mapping[str, Any] | None = None
) -> None:
    """Write a model into an empty folder. config: the base's config.json, if its folder may have moved."""
    model.save(folder, manifest)
    known = manifest.tuning != "full" or (manifest.pooling == "cls" and manifest.head == "default")
    config = classifier_config(config or base_config(manifest), manifest, model.architecture)
    write_json(folder / (BASE_CONFIG if known else ENCODER_CONFIG), config)
    write_tokenizer(folder, manifest, tokenizer_json)
    manifest.with_records(folder).write(folder)


def load_bundle(folder: Path, base: str | None = None) -> tuple[TrainableModel, Manifest]:
    """Build the trained model in fp32, with adapters attached and not merged, from a folder of `save_bundle` or of peft.

    `base`: the base's folder, if it has moved. Raises LoralabError for a damaged file, and if the base has other
    weights than in training.
    """
    by_peft = not exists(folder / MANIFEST) and exists(folder / ADAPTER_CONFIG)
    manifest = read_peft_folder(folder, base) if by_peft else read_manifest(folder)
    manifest.check_files(folder)
    checkpoint = _find_same_base(manifest, folder, base) if manifest.tuning != "full" else None
    if manifest.by_peft and checkpoint is not None:
        return open_peft_folder(folder, checkpoint, len(manifest.classes)).eval(), manifest
    model = _build_native(manifest, folder, checkpoint) if manifest.native else _build_hf(manifest, folder, checkpoint)
    model.load(folder, manifest.tuning)
    if manifest.tuning == "lora" and isinstance(model, EncoderClassifier):
        _check_complete(model, manifest, folder)
    return model.eval(), manifest


def read_peft_folder(folder: Path, base: str | None = None) -> Manifest:
    """Describe a folder that peft saved. peft stores no class names, so the classes are "0", "1", ...

    The native encoder computes plain adapters of the BERT family; peft opens the others. Raises LoralabError when the folder has no
    classification head.
    """
    config = read_adapter_config(folder, plain=False)
    name = base or str(config.base_model_name_or_path)
    if name == MINILM_HUB_ID:
        name = "minilm"
    on_hub = base is None and name != "minilm" and not Path(name).is_dir()
    checkpoint = resolve_base(name, config.revision if on_hub else None)
    dims = checkpoint.dims
    try:
        adapter = load_adapter(folder, family(dims, str(folder)))
        check_head_names(family(dims, str(folder)), adapter.head, folder)
        lora, classes, by_peft = adapter.lora, count_classes(adapter.head, folder, family(dims, str(folder))), False
    except LoralabError as error:
        if find_spec("peft") is None:
            raise LoralabError(f"{error}; peft may open it: run pip install 'loralab[hf]'") from error
        lora, classes, by_peft = config.to_lora(("all",), None), count_peft_classes(folder, checkpoint), True
    return Manifest(
        base=checkpoint.name,
        base_folder=str(checkpoint.folder),
        base_sha256=checkpoint.identity(),
        base_revision=checkpoint.revision,
        dims=dims,
        classes=tuple(map(str, range(classes))),
        pooling="cls",
        head="default",
        tuning="lora",
        clean=(),
        max_length=dims.longest,
        lora=lora,
        by_peft=by_peft,
    )


def _build_native(manifest: Manifest, folder: Path, base: BaseCheckpoint | None) -> EncoderClassifier:
    dims = family(manifest.dims, str(folder))
    check_parameters(base_size(dims, "linear"), base.shards() if base else [folder / WEIGHTS], str(folder))
    model = EncoderClassifier(dims, len(manifest.classes), pooling=manifest.pooling, head=manifest.head)
    if base is not None:
        load_pretrained(model, base)
    return model


def _build_hf(manifest: Manifest, folder: Path, base: BaseCheckpoint | None) -> HFClassifier:
    if isinstance(manifest.pooling, int) or manifest.head == "prompt":
        raise LoralabError(f"{folder / MANIFEST} is damaged: {manifest.dims.model_type} has no head={manifest.head}")
    model = ModelConfig(pooling=manifest.pooling, head=manifest.head, dropout=0.0, quantize=manifest.quantize)
    tuning, lora, classes = manifest.tuning, manifest.lora, len(manifest.classes)
    if base is not None:
        return build_hf_model(base, classes, model, tuning=tuning, lora=lora, init_seed=0)
    path = folder / BASE_CONFIG
    settings = read_json(path if path.is_file() else folder / ENCODER_CONFIG)
    check_settings(settings, classes, manifest.head, [folder / WEIGHTS], str(folder))
    return empty_hf_model(manifest.base, manifest.dims, classes, model, tuning=tuning, lora=lora, settings=settings)


def _check_complete(model: EncoderClassifier, manifest: Manifest, folder: Path) -> None:
    """Raise LoralabError if a saved adapter is missing, because the others alone would classify differently."""
    layers, roles = parse_layers(manifest.lora.layers, model.dims.layers), resolve_targets(manifest.lora.targets)
    expected = {(layer, role) for layer in layers for role in roles}
    if wrong := expected ^ {(layer, role) for layer, role, _ in model.adapters()}:
        layer, role = min(wrong)
        raise LoralabError(f"{folder}: the adapter of {role} in layer {layer} is missing or was never trained: the file is damaged")


def _find_same_base(manifest: Manifest, folder: Path, base: str | None) -> BaseCheckpoint:
    checkpoint = find_base(manifest, base)
    if (identity := checkpoint.identity()) != manifest.base_sha256:
        raise LoralabError(
            f"{folder} was trained on {manifest.base} with weights {manifest.base_sha256[:12]}, "
            f"but {checkpoint.folder} has weights {identity[:12]}: pass the same weights with --base FOLDER"
        )
    if checkpoint.dims != manifest.dims:
        raise LoralabError(f"{folder / MANIFEST} is damaged: its sizes are not those of {checkpoint.folder}")
    return checkpoint


def find_base(manifest: Manifest, base: str | None) -> BaseCheckpoint:
    """Return the base encoder, from the folder `base` if given."""
    if base is not None:
        return resolve_base(base)
    if manifest.base != "minilm" and manifest.base_path:
        return resolve_base(manifest.base_folder)
    try:
        return resolve_base(manifest.base, manifest.base_revision)
    except LoralabError as error:
        raise LoralabError(f"{error}\n  If the base encoder has moved, pass its folder: --base FOLDER") from error
