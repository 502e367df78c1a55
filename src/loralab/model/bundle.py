"""The bundle: an adapter in peft's format with all that peft leaves out, enough to classify with, offline and after a move.

adapter_config.json, adapter_model.safetensors    peft's (tuning=lora)
head.safetensors                                  the head, where peft's file cannot hold it
model.safetensors                                 all weights (tuning=full)
tokenizer.json                                    the base's tokenizer
config.json                                       the architecture, beside all weights of one outside the BERT family
loralab.json                                      class names, cleaning, pooling, head, temperature, the base's identity and sizes
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictInt, TypeAdapter
from pydantic.dataclasses import dataclass as validated

from loralab.errors import LoralabError
from loralab.model import checkpoints, peft_files
from loralab.model.architectures import Dimensions, HeadKind, Pooling, Sizes, family, is_native, parse_layers, resolve_targets
from loralab.model.build import Lora
from loralab.model.encoder import EncoderClassifier
from loralab.model.hf.checkpoint import CONFIG, load_generic, save_generic
from loralab.model.hf.model import HFClassifier, build_generic, empty_generic
from loralab.model.lora import adapters

MANIFEST, FORMAT = "loralab.json", 1


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Manifest:
    """What a bundle says of itself."""

    base: str
    base_folder: str
    base_sha256: str
    dims: Dimensions | Sizes
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    pooling: Pooling
    head: HeadKind
    tuning: Literal["lora", "full", "head"]
    clean: tuple[str, ...]
    max_length: Annotated[StrictInt, Field(gt=0)]
    lora: dict[str, Any]
    quantize: Literal["none", "8bit"] = "none"
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @property
    def native(self) -> bool:
        """Whether the native network computes it."""
        variant = str(self.lora.get("variant", "lora"))
        return is_native(self.dims, tuning=self.tuning, variant=variant, quantize=self.quantize)


def save_bundle(folder: Path, network: EncoderClassifier | HFClassifier, manifest: Manifest, tokenizer_json: str) -> None:
    """Fill an empty folder. `manifest.lora` holds rank, alpha, dropout, targets, layers and variant."""
    if isinstance(network, HFClassifier):
        save_generic(network, folder, base=manifest.base, tuning=manifest.tuning, classes=manifest.classes)
    elif manifest.tuning == "full":
        checkpoints.save_network(network, folder)
    elif manifest.tuning == "head":
        checkpoints.save_head(network, folder)
    else:
        lora = dict(manifest.lora)
        lora["targets"] = resolve_targets(lora["targets"])
        lora["layers"] = parse_layers(lora["layers"], network.dims.layers)
        peft_files.save_adapter(network, folder, base=manifest.base, settings=lora)
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    content = {"format": FORMAT, **dataclasses.asdict(manifest)}
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read loralab.json. Raises LoralabError when it is missing, damaged or of a later format."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise LoralabError(f"{path} is of another format than {FORMAT}: was it written by a later loralab?")
        return TypeAdapter(Manifest).validate_python(content)
    except FileNotFoundError as error:
        raise LoralabError(f"{folder} holds neither a run nor a bundle: there is no {MANIFEST}") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise LoralabError(f"{path} is damaged ({error!r}): restore the run from a copy or train it again") from error


def read_peft_folder(folder: Path, base: str | None = None) -> Manifest:
    """Describe a folder that peft itself saved. peft keeps no class names, so the classes are "0", "1", ...

    Raises LoralabError when it holds no classification head.
    """
    config = peft_files.read_adapter_config(folder)
    name = base or str(config.base_model_name_or_path)
    found = checkpoints.resolve_base(name)
    dims = family(found.dims, f"{folder}: a folder that peft saved")
    classes = peft_files.head_rows(dims, folder)
    return Manifest(
        base=name,
        base_folder=str(found.folder),
        base_sha256=found.identity(),
        dims=dims,
        classes=tuple(map(str, range(classes))),
        pooling="cls",
        head="default",
        tuning="lora",
        clean=(),
        max_length=dims.longest,
        lora={},
    )


def load_bundle(folder: Path, base: str | None = None) -> tuple[EncoderClassifier | HFClassifier, Manifest]:
    """Build the trained network in fp32, adapters attached and not merged.

    `base` names the base's present place when it has moved. Raises LoralabError when the base is not the one trained on.
    """
    foreign = not (folder / MANIFEST).is_file() and (folder / peft_files.ADAPTER_CONFIG).is_file()
    manifest = read_peft_folder(folder, base) if foreign else read_manifest(folder)
    found = _find_same_base(manifest, folder, base) if manifest.tuning != "full" else None
    if not manifest.native:
        return _load_generic(folder, manifest, found).eval(), manifest
    network = EncoderClassifier(
        family(manifest.dims, str(folder)), len(manifest.classes), pooling=manifest.pooling, head=manifest.head
    )
    if found is None:
        checkpoints.load_network(network, folder)
        return network.eval(), manifest
    checkpoints.load_pretrained(network, found)
    if manifest.tuning == "head":
        checkpoints.load_head(network, folder)
    else:
        peft_files.load_adapter(network, folder)
        if not foreign:
            _check_complete(network, manifest, folder)
    return network.eval(), manifest


def _load_generic(folder: Path, manifest: Manifest, found: checkpoints.BaseCheckpoint | None) -> HFClassifier:
    try:
        lora = Lora(**manifest.lora)
    except TypeError as error:
        raise LoralabError(f"{folder / MANIFEST} is damaged ({error}): restore the run from a copy or train it again") from error
    classes, tuning = len(manifest.classes), manifest.tuning
    shape: dict[str, Any] = {"pooling": manifest.pooling, "head": manifest.head, "tuning": tuning, "lora": lora}
    if found is None:
        settings = checkpoints.read_json(folder / CONFIG)
        network = empty_generic(manifest.base, manifest.dims, classes, **shape, settings=settings, device="cpu")
    else:
        network = build_generic(found, classes, **shape, dropout=0.0, init_seed=0, quantize=manifest.quantize)
    load_generic(network, folder, tuning=tuning)
    return network


def _check_complete(network: EncoderClassifier, manifest: Manifest, folder: Path) -> None:
    """Raise LoralabError when an adapter that was saved is not there: what is left would classify otherwise."""
    lora = manifest.lora
    layers = parse_layers(lora.get("layers"), network.dims.layers)
    saved = {(layer, role) for layer in layers for role in resolve_targets(lora.get("targets", ()))}
    if missing := saved ^ {(layer, role) for layer, role, _ in adapters(network)}:
        layer, role = min(missing)
        raise LoralabError(f"{folder}: the adapter of {role} in layer {layer} is missing or was never trained: the file is damaged")


def _find_same_base(manifest: Manifest, folder: Path, base: str | None) -> checkpoints.BaseCheckpoint:
    found = _find_base(manifest, base)
    if (identity := found.identity()) != manifest.base_sha256:
        raise LoralabError(
            f"{folder} was trained on {manifest.base} with weights {manifest.base_sha256[:12]}, "
            f"but {found.folder} holds {identity[:12]}: give the same weights with --base FOLDER"
        )
    if found.dims != manifest.dims:
        raise LoralabError(f"{folder / MANIFEST} is damaged: its sizes are not those of {found.folder}")
    return found


def _find_base(manifest: Manifest, base: str | None) -> checkpoints.BaseCheckpoint:
    if base is not None:
        return checkpoints.resolve_base(base)
    if manifest.base != "minilm" and Path(manifest.base_folder).is_dir():
        return checkpoints.resolve_base(manifest.base_folder)
    try:
        return checkpoints.resolve_base(manifest.base)
    except LoralabError as error:
        raise LoralabError(f"{error}\n  If the base encoder has moved, say where it lies: --base FOLDER") from error
