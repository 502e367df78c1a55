"""Write a model in the formats of `loralab export`. The temperature is part of every export: its logits are calibrated."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from loralab.errors import LoralabError
from loralab.inference.onnx_model import INPUTS, ONNX, OPTIONAL_INPUT, OUTPUT, OnnxClassifier, quantize, to_onnx
from loralab.model.bundle import load_bundle, save_bundle
from loralab.model.checkpoints import BASE_CONFIG, WEIGHTS
from loralab.model.default_head import merged_obstacle, to_default_head
from loralab.model.encoder import EncoderClassifier
from loralab.model.hf.model import HFClassifier
from loralab.model.hub_files import classifier_config, write_json, write_tokenizer
from loralab.model.interface import ClassifierModel
from loralab.model.manifest import Manifest
from loralab.model.tensor_files import save_tensors
from loralab.training.scoring import last_linear

SENTENCE = "sentence-transformers"
_ACTIVATIONS = {"tanh": "Tanh", "relu": "ReLU", "gelu": "GELU"}


@dataclasses.dataclass(frozen=True)
class ExportSource:
    """A run that is exported. model: fp32, with native adapters merged; writers may change it. config: the base's config.json.

    bundle: the run's model folder. base: the base's folder, if it has moved. largest: the largest norm of the calibrated logits of
    a text.
    """

    model: Any
    manifest: Manifest
    tokenizer_json: str
    config: Mapping[str, Any]
    bundle: Path
    base: str | None
    largest: float

    @property
    def calibrated(self) -> Manifest:
        """The manifest of a model whose logits are divided by the temperature."""
        return dataclasses.replace(self.manifest, temperature=1.0)


def check_exportable(source: ExportSource, format: str) -> None:
    """Raise LoralabError, before anything is written, if the model has no such form."""
    manifest, model = source.manifest, source.model
    if format == "peft":
        if manifest.tuning != "lora":
            raise LoralabError(f"{source.bundle} has no adapter (tuning={manifest.tuning}): use --to merged")
        if manifest.by_peft:
            raise LoralabError(f"{source.bundle} is peft's folder already: use --to merged or --to onnx")
        if manifest.head != "linear" and (manifest.head, manifest.pooling) != ("default", "cls"):
            raise LoralabError(
                f"--to peft: neither peft nor Transformers computes pooling={manifest.pooling} with head={manifest.head}; "
                f"use --to onnx. The adapter alone is in {source.bundle}, in peft's format"
            )
        return
    if manifest.quantize != "none":
        raise LoralabError(f"model.quantize={manifest.quantize}: the rounded weights cannot be merged without loss; use --to peft")
    if format == "merged":
        _check_merged(model, manifest)
    elif format == SENTENCE:
        _check_sentence(model, manifest)


def _check_merged(model: Any, manifest: Manifest) -> None:
    """Raise LoralabError unless a class of Transformers computes the logits."""
    advice = "use --to onnx, " + ("" if isinstance(manifest.pooling, int) else "--to sentence-transformers, ") + "or train with"
    settings = "model.pooling=cls model.head=default"
    if obstacle := merged_obstacle(model):
        raise LoralabError(f"--to merged: {obstacle}; {advice} {settings}")


def _check_sentence(model: Any, manifest: Manifest) -> None:
    head, native = manifest.head, isinstance(model, EncoderClassifier)
    known = head == "linear" or (native and head == "default" and model.head.activation in _ACTIVATIONS)
    if isinstance(manifest.pooling, int) or not known:
        raise LoralabError(
            f"--to {SENTENCE}: it has no modules for pooling={manifest.pooling} and head={head} of {manifest.dims.model_type}; use "
            f"--to {'onnx' if isinstance(manifest.pooling, int) else 'merged'}"
        )


@torch.no_grad()
def apply_temperature(model: ClassifierModel, temperature: float) -> None:
    """Divide the last linear map by the temperature, so that the softmax of the logits gives the run's probabilities."""
    last = last_linear(model.head)
    last.weight.div_(temperature)
    last.bias.div_(temperature)


def write_merged(source: ExportSource, folder: Path) -> ClassifierModel:
    """All weights, as the architecture's own classifier in Transformers."""
    model, manifest = source.model, dataclasses.replace(source.calibrated, tuning="full")
    apply_temperature(model, source.manifest.temperature)
    if isinstance(model, HFClassifier):
        model.unload()
    else:
        model = to_default_head(model, source.largest)
        manifest = dataclasses.replace(manifest, dims=model.dims, pooling="cls", head="default")
    save_bundle(folder, model, manifest, source.tokenizer_json, source.config)
    return load_bundle(folder)[0]


def write_peft(source: ExportSource, folder: Path) -> ClassifierModel:
    """The adapter and the head in peft's format."""
    model, _ = load_bundle(source.bundle, source.base)
    apply_temperature(model, source.manifest.temperature)
    save_bundle(folder, model, source.calibrated, source.tokenizer_json, source.config)
    return load_bundle(folder, source.base)[0]


def write_sentence(source: ExportSource, folder: Path) -> None:
    """The encoder, its pooling and the head as modules of sentence-transformers, whose embedding is the logits."""
    model, manifest = source.model, source.calibrated
    apply_temperature(model, source.manifest.temperature)
    parts = [("0_Transformer", "Transformer"), ("1_Pooling", "Pooling")]
    encoder = folder / parts[0][0]  # not in the root, where a pipeline would open it with a random head
    encoder.mkdir()
    if isinstance(model, HFClassifier):
        model.unload()
        tensors, architecture = model.encoder.state_dict(), type(model.encoder).__name__
    else:
        tensors, architecture = dict(model.encoder_tensors()), model.dims.architecture.classes[0]
    save_tensors(tensors, encoder / WEIGHTS)
    write_json(encoder / BASE_CONFIG, classifier_config(source.config, manifest, architecture))
    write_tokenizer(encoder, manifest, source.tokenizer_json)
    length = min(manifest.max_length, manifest.dims.longest)
    write_json(encoder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    kinds = {"pooling_mode_cls_token": manifest.pooling == "cls", "pooling_mode_mean_tokens": manifest.pooling == "mean"}
    (folder / parts[1][0]).mkdir()
    write_json(folder / parts[1][0] / BASE_CONFIG, {"word_embedding_dimension": manifest.dims.width, **kinds})
    for linear, activation in _dense_layers(model):
        parts.append((f"{len(parts)}_Dense", "Dense"))
        dense = folder / parts[-1][0]
        dense.mkdir()
        sizes = {"in_features": linear.in_features, "out_features": linear.out_features, "bias": True}
        write_json(dense / BASE_CONFIG, {**sizes, "activation_function": activation})
        save_tensors({f"linear.{name}": tensor for name, tensor in linear.state_dict().items()}, dense / WEIGHTS)
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(parts)
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")


def _dense_layers(model: Any) -> list[tuple[torch.nn.Linear, str]]:
    """Return the head's linear maps, each with the class of its activation."""
    layers = [(model.head.out, "torch.nn.modules.linear.Identity")]
    if model.head.dense is not None:
        layers.insert(0, (model.head.dense, f"torch.nn.modules.activation.{_ACTIVATIONS[model.head.activation]}"))
    return layers


def write_onnx(source: ExportSource, folder: Path) -> ClassifierModel:
    """An fp32 graph, with the classes and the expected input in its metadata."""
    model, manifest = source.model, source.calibrated
    apply_temperature(model, source.manifest.temperature)
    if isinstance(model, HFClassifier):
        model.unload()
    facts = {
        "classes": [*manifest.classes],
        "inputs": f"{' and '.join(INPUTS)}: int64 (batch, tokens); {OPTIONAL_INPUT} is optional and ignored",
        "output": f"{OUTPUT}: float32 (batch, classes); their softmax gives the probabilities",
        "temperature": f"{source.manifest.temperature:.6g}, included in the logits",
        "max_length": min(manifest.max_length, manifest.dims.longest),
        "clean": [*manifest.clean],
        "tokenizer": "tokenizer.json in the same folder",
    }
    to_onnx(model, folder / ONNX, facts)
    write_tokenizer(folder, manifest, source.tokenizer_json)
    manifest.with_records(folder).write(folder)
    return OnnxClassifier(folder / ONNX)


def write_onnx_int8(source: ExportSource, folder: Path) -> ClassifierModel:
    """The same with matrix products in 8 bits."""
    write_onnx(source, folder)
    fp32 = folder / "fp32.onnx"
    (folder / ONNX).rename(fp32)
    quantize(fp32, folder / ONNX)
    fp32.unlink()
    source.calibrated.with_records(folder).write(folder)
    return OnnxClassifier(folder / ONNX)


WRITERS: Mapping[str, Callable[[ExportSource, Path], ClassifierModel | None]] = {
    "merged": write_merged,
    "peft": write_peft,
    SENTENCE: write_sentence,
    "onnx": write_onnx,
    "onnx-int8": write_onnx_int8,
}
