"""The native classifier of the BERT family: embeddings → layers[a:b] → pooling → head. It can start at any layer.

Its logits equal Transformers' (tests/model/test_equality.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from loralab.config import LoraConfig
from loralab.errors import LoralabError
from loralab.model.adapters import adapters, attach_lora, merge
from loralab.model.architectures import EMBEDDINGS, Dimensions, HeadKind, Pooling, parse_frozen, role_path
from loralab.model.checkpoints import WEIGHTS
from loralab.model.dropout import recomputed
from loralab.model.hub_files import base_reference
from loralab.model.kernels import fused_layers
from loralab.model.layers import Embeddings, EncoderLayer, Head, attention_bias, mean_pool
from loralab.model.lora import Adapter
from loralab.model.manifest import Manifest
from loralab.model.parameter_counts import ParameterCounts
from loralab.model.peft_files import load_adapter, save_adapter
from loralab.model.tensor_files import HEAD_WEIGHTS, copy_tensors, load_tensors, save_tensors

HEAD_OUT = "head.out"


class EncoderClassifier(nn.Module):
    """An encoder with a classification head.

    pooling: cls (the first token), mean (over real tokens) or a token's position. head: default (the architecture's), linear, or
    prompt: the masked-language head, with one output row per class instead of one per token.
    """

    supports_feature_cache = True
    thread_safe = True
    allocation = None

    def __init__(
        self, dims: Dimensions, classes: int, *, pooling: Pooling = "cls", head: HeadKind = "default", dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.dims = dims
        self.pooling = pooling
        self.head_kind = head
        self.embeddings = Embeddings(dims)
        self.layers = nn.ModuleList(EncoderLayer(dims) for _ in range(dims.layers))
        norm_eps = dims.norm_eps if head == "prompt" else None
        self.head = Head(dims.width, classes, dims.head_activation(head), dropout, norm_eps)
        self.compute_dtype = torch.float32
        self.gradient_checkpointing = False

    def layer(self, index: int) -> EncoderLayer:
        layer = self.layers[index]
        assert isinstance(layer, EncoderLayer)
        return layer

    def _layers(self, start: int = 0, stop: int | None = None) -> list[EncoderLayer]:
        return cast("list[EncoderLayer]", list(self.layers)[start:stop])

    @property
    def classes(self) -> int:
        return self.head.out.out_features

    @property
    def architecture(self) -> str:
        """The name of Transformers' class: the classifier's if it has this head, else the encoder's."""
        return self.dims.architecture.classes[self.pooling == "cls" and self.head_kind == "default"]

    @property
    def device(self) -> torch.device:
        return self.head.out.weight.device

    @property
    def uses_kernels(self) -> bool:
        """Whether the C kernels compute the layers on a CPU."""
        plain = self.compute_dtype == torch.bfloat16 and not self.gradient_checkpointing
        return plain and fused_layers.supports(self.dims, self._layers())

    @property
    def min_texts_per_worker(self) -> int:
        """The fewest texts for which another thread is faster: torch's products need many rows, the kernels few."""
        return 2 if self.uses_kernels else 8

    def forward(self, inputs: Tensor, mask: Tensor, start: int | None = None) -> Tensor:
        """mask: (batch, time) bool, True on real tokens → logits (batch, classes) fp32.

        inputs: tokens (batch, time) int, or with `start` hidden states (batch, time, width) that enter layer `start`.
        """
        hidden = self.embeddings(inputs, self.compute_dtype) if start is None else inputs
        return self.classify(self.encode(hidden, mask, start or 0, pooled_only=True), mask)

    def encode(self, hidden: Tensor, mask: Tensor, start: int = 0, stop: int | None = None, *, pooled_only: bool = False) -> Tensor:
        """Run layers[start:stop] on hidden states (batch, time, width) that enter layer `start`.

        `pooled_only`: skip what pooling does not read. With cls pooling the last layer then returns (batch, 1, width), which
        saves three quarters of its time in both directions; the result is the same.
        """
        stop = self.dims.layers if stop is None else stop
        first_only = pooled_only and self.pooling == "cls" and stop == self.dims.layers > start
        if stop > start and self._fused(hidden, mask):
            return fused_layers.run_layers(self._layers(start, stop), hidden, mask, first_only)
        bias = attention_bias(mask, hidden.dtype)
        for index in range(start, stop):
            layer = self.layer(index)
            recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
            rows = 1 if first_only and index == stop - 1 else None
            hidden = recomputed(layer, hidden, bias, rows) if recompute else layer(hidden, bias, rows)
        return hidden

    def _fused(self, hidden: Tensor, mask: Tensor) -> bool:
        """Whether the kernels can compute these texts. They need one real token in each."""
        on_cpu = hidden.dtype == torch.bfloat16 and hidden.device.type == "cpu" and not torch.compiler.is_compiling()
        return on_cpu and self.uses_kernels and bool(mask.any(dim=1).all())

    def classify(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """hidden: (batch, time, width) → logits (batch, classes) fp32."""
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        elif self.pooling == "mean":
            pooled = mean_pool(hidden, mask)
        else:
            position = mask.sum(dim=1) * (self.pooling < 0) + self.pooling
            pooled = hidden[torch.arange(hidden.shape[0], device=hidden.device), position]
        logits: Tensor = self.head(pooled.float())
        return logits

    @property
    def pooler(self) -> nn.Linear | None:
        """BERT's dense pooler, if the head uses it. It belongs to the base, and is frozen and counted with it."""
        return self.head.dense if self.head_kind == "default" and self.dims.architecture.pooler_in_base else None

    def first_trained_layer(self) -> int | None:
        """The lowest layer that trains; the number of layers if only the head trains; None if the embeddings train."""
        if any(p.requires_grad for p in self.embeddings.parameters()):
            return None
        trained = (i for i, layer in enumerate(self.layers) if any(p.requires_grad for p in layer.parameters()))
        return next(trained, self.dims.layers)

    def attach_lora(self, lora: LoraConfig, generator: torch.Generator | None = None) -> None:
        """Freeze the encoder and add new adapters. Raises LoralabError for an unknown target or layer."""
        self.freeze_encoder()
        attach_lora(self._layers(), lora, generator)

    def adapters(self) -> Iterator[tuple[int, str, Adapter]]:
        """Yield (layer, role, adapter) of every adapter, from the lowest layer up."""
        return adapters(self._layers())

    def merge(self) -> None:
        """Add the adapters to the weights. Call it before `freeze_to(bf16)`, which would lose small updates."""
        merge(self._layers())

    def freeze_encoder(self) -> None:
        """Train the head only; BERT's pooler belongs to the encoder."""
        self.requires_grad_(False)
        self.head.requires_grad_(True)
        if self.pooler is not None:
            self.pooler.requires_grad_(False)

    def freeze_parts(self, spec: str) -> None:
        """Freeze the embeddings or layers of a specification such as `embeddings,0-2`. Raises LoralabError for a missing layer."""
        embeddings, layers = parse_frozen(spec, self.dims.layers)
        self.embeddings.requires_grad_(not embeddings)
        for index in layers:
            self.layer(index).requires_grad_(False)

    def freeze_to(self, dtype: torch.dtype) -> None:
        """Compute in `dtype`: frozen projections are stored in it; trained ones, norms, embeddings and head stay fp32."""
        self.compute_dtype = dtype
        for layer in self._layers():
            for projection in layer.projections():
                for parameter in (projection.weight, projection.bias):
                    if not parameter.requires_grad:
                        parameter.data = parameter.data.to(dtype)

    def parameter_counts(self) -> ParameterCounts:
        """Count the parameters of the model in its present state."""
        adapter = sum(p.numel() for _, _, pair in self.adapters() for p in pair.parameters())
        head = sum(p.numel() for p in self.head.parameters())
        if self.pooler is not None:
            head -= sum(p.numel() for p in self.pooler.parameters())
        total = sum(p.numel() for p in self.parameters())
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return ParameterCounts(total - adapter - head, adapter, head, trainable)

    def encoder_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) of the encoder, with the checkpoint's names without prefix. The tensors are views of the weights."""

        def pair(name: str, module: Any) -> Iterator[tuple[str, Tensor]]:
            yield f"{name}.weight", module.weight
            yield f"{name}.bias", module.bias

        for part in ("word", "position", "segment"):
            table = getattr(self.embeddings, part)
            if table is not None:
                yield f"{EMBEDDINGS[part]}.weight", table.weight
        yield from pair(EMBEDDINGS["norm"], self.embeddings.norm)
        if self.embeddings.project is not None:
            yield from pair(EMBEDDINGS["project"], self.embeddings.project)
        for index, layer in enumerate(self._layers()):
            yield from pair(role_path(self.dims, index, "attention_norm"), layer.attention_norm)
            yield from pair(role_path(self.dims, index, "ffn_norm"), layer.ffn_norm)
            for projection in layer.projections():
                for role in projection.roles:
                    rows, path = projection.rows(role), role_path(self.dims, index, role)
                    yield f"{path}.weight", projection.weight[rows]
                    yield f"{path}.bias", projection.bias[rows]

    def head_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) of the head: the checkpoint's names, and `head.out` for a last map that checkpoints do not have."""
        architecture, head, kind = self.dims.architecture, self.head, self.head_kind
        dense = architecture.masked["dense"] if kind == "prompt" else architecture.head_dense
        out = architecture.head_out if kind == "default" else HEAD_OUT
        for name, module in ((dense, head.dense), (architecture.masked.get("norm"), head.norm), (out, head.out)):
            if module is not None:
                yield f"{name}.weight", module.weight
                yield f"{name}.bias", module.bias

    def save(self, folder: Path, manifest: Manifest) -> None:
        """Write what was trained: peft's files (lora), model.safetensors with Transformers' names (full), or head.safetensors."""
        if manifest.tuning == "full":
            save_tensors(dict(self._all_tensors()), folder / WEIGHTS)
        elif manifest.tuning == "head":
            save_tensors(dict(self.head_tensors()), folder / HEAD_WEIGHTS)
        else:
            save_adapter(
                folder,
                self.dims,
                self.adapters(),
                dict(self.head_tensors()),
                base=base_reference(manifest),
                lora=manifest.lora,
                classifier=self.pooling == "cls" and self.head_kind == "default",
            )

    def load(self, folder: Path, tuning: str) -> None:
        """Load what `save` or peft wrote, over a pretrained encoder unless tuning=full.

        Raises LoralabError for a tensor that is missing, has another shape or does not belong to the model.
        """
        if tuning == "full":
            copy_tensors(self._all_tensors(), load_tensors(folder / WEIGHTS), str(folder))
        elif tuning == "head":
            copy_tensors(self.head_tensors(), load_tensors(folder / HEAD_WEIGHTS), str(folder))
        else:
            self._load_adapter(folder)

    def _all_tensors(self) -> Iterator[tuple[str, Tensor]]:
        prefix = self.dims.architecture.prefix + "."
        yield from ((prefix + name, tensor) for name, tensor in self.encoder_tensors())
        yield from self.head_tensors()

    def _load_adapter(self, folder: Path) -> None:
        saved = load_adapter(folder, self.dims)
        self.attach_lora(saved.lora)
        for layer, role, adapter in self.adapters():
            name = f"{role} {layer}"
            targets = ((f"{name} a", adapter.a), (f"{name} b", adapter.b))
            copy_tensors(targets, {f"{name} {part}": tensor for part, tensor in saved.pairs[layer, role].items()}, str(folder))
        # BERT's pooler belongs to the base: it is in the file only if it was trained.
        pooler = self.dims.architecture.prefix + "."
        head = [(name, target) for name, target in self.head_tensors() if name in saved.head or not name.startswith(pooler)]
        if unknown := sorted(set(saved.head) - {name for name, _ in head}):
            raise LoralabError(f"{folder}: tensor {unknown[0]!r} has no place here: only adapters and the head may be trained")
        copy_tensors(head, saved.head, str(folder))
