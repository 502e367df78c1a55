"""Any encoder that Transformers can classify with, and any method of peft, with the interface of the native classifier.

It is slower than `EncoderClassifier` and has no feature cache. Our seeded dropout replaces Transformers' and peft's: dropout inside
the encoder is off, as in the native classifier; that of the head and the adapters is active. Code from a checkpoint is never run,
and weights are read from safetensors only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loralab.config import LoraConfig
from loralab.errors import LoralabError, import_optional
from loralab.model.architectures import Dimensions, HeadKind, Pooling, Sizes
from loralab.model.checkpoints import WEIGHTS, read_json
from loralab.model.dropout import Dropout, recomputed
from loralab.model.hf.peft_methods import ADAPTER, AdaLoraAllocation, choose_maps, method_config
from loralab.model.hub_files import base_reference
from loralab.model.layers import Head, mean_pool
from loralab.model.manifest import Manifest
from loralab.model.parameter_counts import ParameterCounts
from loralab.model.peft_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, PEFT_PREFIX
from loralab.model.tensor_files import HEAD_WEIGHTS, copy_tensors, load_tensors, save_tensors


class HFClassifier(nn.Module):
    """A Transformers encoder, with or without adapters, with the architecture's default head or a linear one.

    The head's parameters are named `head.…`, as in `EncoderClassifier`. wrapped: Transformers' or peft's model.
    """

    supports_feature_cache = False
    thread_safe = False
    uses_kernels = False
    min_texts_per_worker = 1

    def __init__(
        self, wrapped: Any, dims: Dimensions | Sizes, classes: int, *, pooling: Pooling, head: HeadKind, dropout: float
    ) -> None:
        super().__init__()
        self.dims, self.classes, self.pooling, self.head_kind = dims, classes, pooling, head
        self.compute_dtype = torch.float32
        self.allocation: AdaLoraAllocation | None = None
        self.adapted_maps: list[str] = []
        prefix = str(wrapped.base_model_prefix) if head == "default" else ""
        self.encoder: Any = getattr(wrapped, prefix) if prefix else wrapped
        _replace_dropouts(self.encoder, 0.0)
        _replace_dropouts(wrapped, dropout)
        self.head: nn.Module  # registered before `wrapped`, so that its parameters are named head.…
        if head == "default":
            self.head = nn.ModuleDict({name: child for name, child in wrapped.named_children() if name != prefix})
            for child in self.head.children():
                _compute_in_fp32(child)
        else:
            self.head = Head(dims.width, classes, None, dropout)
            nn.init.normal_(self.head.out.weight, std=0.02)
            nn.init.zeros_(self.head.out.bias)
            if getattr(wrapped, "pooler", None) is not None:
                wrapped.pooler = None  # unused: it would only be counted
        self.wrapped: Any = wrapped
        self.prefix = f"{prefix}." if prefix else ""
        self.base_parameters = _size(self.encoder)

    def attach_lora(self, lora: LoraConfig, seed: int) -> None:
        """Freeze the encoder and add adapters of `lora.variant` with peft."""
        peft = import_optional("peft", "hf")
        linear = [f"{self.prefix}{name}" for name, module in self.encoder.named_modules() if isinstance(module, nn.Linear)]
        self.adapted_maps = choose_maps(linear, self.dims, lora.targets, lora.layers)
        config = method_config(lora, self.adapted_maps, self.dims, seed)
        try:
            self.wrapped = peft.get_peft_model(self.wrapped, config)
        except (ValueError, TypeError) as error:
            raise LoralabError(
                f"peft does not support lora.variant={lora.variant} for {self.dims.model_type}, or not with these settings: {error}"
            ) from error
        if lora.variant == "adalora":
            self.allocation = AdaLoraAllocation(self.wrapped.base_model)
        _replace_dropouts(self.wrapped, None)
        self.head.requires_grad_(True)

    @property
    def architecture(self) -> str:
        """The name of Transformers' class."""
        return type(self.wrapped.get_base_model() if self.adapted_maps else self.wrapped).__name__

    @property
    def device(self) -> torch.device:
        return next(self.head.parameters()).device

    def forward(self, inputs: Tensor, mask: Tensor, start: int | None = None) -> Tensor:
        """inputs: tokens (batch, time) int; mask: (batch, time) bool, True on real tokens → logits (batch, classes) fp32."""
        assert start is None, "this model cannot start at a layer"
        with torch.autocast(inputs.device.type, self.compute_dtype, enabled=self.compute_dtype != torch.float32):
            return self.plain(inputs, mask.long()).float()

    def plain(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """`forward` without autocast, for a mask of 0 and 1."""
        output = self.wrapped(input_ids=inputs, attention_mask=mask)
        if self.head_kind == "default":
            logits: Tensor = output.logits
            return logits
        pooled = output[0][:, 0] if self.pooling == "cls" else mean_pool(output[0], mask)
        with torch.autocast(inputs.device.type, enabled=False):
            return self.head(pooled.float())  # type: ignore[no-any-return]

    def freeze_to(self, dtype: torch.dtype) -> None:
        """Compute in `dtype` by autocast: frozen linear maps are stored in it; trained weights, norms and head stay fp32.

        DeBERTa (v1) adds biases outside its linear maps. In fp32 they would give queries another dtype than the scores have.
        """
        self.compute_dtype = dtype
        if self.dims.model_type == "deberta" and dtype != torch.float32:
            for name, parameter in self.encoder.named_parameters():
                if name.endswith((".q_bias", ".v_bias")):
                    if parameter.requires_grad:
                        raise LoralabError("tuning=full of DeBERTa (version 1) computes in fp32 only: set train.precision=fp32")
                    parameter.data = parameter.data.to(dtype)
        for module in self.encoder.modules():
            if isinstance(module, nn.Linear):
                for parameter in module.parameters(recurse=False):
                    if not parameter.requires_grad and parameter.is_floating_point():
                        parameter.data = parameter.data.to(dtype)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether the backward pass recomputes activations (Chen et al. 2016), with the same dropout masks."""
        return bool(self.encoder.is_gradient_checkpointing)

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, enabled: bool) -> None:
        if enabled and not self.encoder.supports_gradient_checkpointing:
            raise LoralabError(f"train.gradient_checkpointing: Transformers does not support it for {self.dims.model_type}")
        if enabled != self.gradient_checkpointing:
            self.encoder._set_gradient_checkpointing(enable=enabled, gradient_checkpointing_func=recomputed)

    def parameter_counts(self) -> ParameterCounts:
        """Count the parameters: AdaLoRA's at its initial ranks, VeRA's without the shared random matrices."""
        head, trainable = _size(self.head), sum(p.numel() for p in self.parameters() if p.requires_grad)
        return ParameterCounts(self.base_parameters, trainable - head if self.adapted_maps else 0, head, trainable)

    def merge(self) -> None:
        """Nothing is merged: `unload` does it, for good."""

    def unload(self) -> None:
        """Merge the adapters into the weights and leave a plain model of Transformers, which cannot be trained or saved here.

        Raises LoralabError for 8-bit weights, which would round the update.
        """
        if any("8bit" in type(module).__name__ for module in self.encoder.modules()):
            raise LoralabError("adapters on model.quantize=8bit cannot be merged without loss: use --to peft")
        if self.adapted_maps:
            self.wrapped, self.adapted_maps = self.wrapped.merge_and_unload(), []
        for module in self.wrapped.modules():
            module.__dict__.pop("forward", None)  # fp32 throughout: see `_compute_in_fp32`

    def save(self, folder: Path, manifest: Manifest) -> None:
        """Write what was trained, as safetensors.

        lora: peft's adapter_config.json and adapter_model.safetensors; full: model.safetensors. A default head is part of these
        files (peft's SEQ_CLS). A linear head, or a head trained alone, is in head.safetensors.
        """
        whole = self.head_kind == "default"
        if manifest.tuning == "lora":
            save_tensors(self.adapter_tensors() | (self._head_tensors(PEFT_PREFIX) if whole else {}), folder / ADAPTER_WEIGHTS)
            self._save_peft_config(folder, *base_reference(manifest))
        elif manifest.tuning == "full":
            save_tensors(self.wrapped.state_dict(), folder / WEIGHTS)
        if not whole or manifest.tuning == "head":
            save_tensors(self._head_tensors(), folder / HEAD_WEIGHTS)

    def load(self, folder: Path, tuning: str) -> None:
        """Load what `save` wrote into a model built alike. Raises LoralabError for a missing, misshapen or unknown tensor."""
        whole = self.head_kind == "default"
        if tuning == "lora":
            tensors = load_tensors(folder / ADAPTER_WEIGHTS)
            if whole:
                head = self._head_tensors(PEFT_PREFIX)
                copy_tensors(head.items(), tensors, str(folder))
                tensors = {name: tensor for name, tensor in tensors.items() if name not in head}
            self._load_adapter(tensors, folder)
        elif tuning == "full":
            copy_tensors(self.wrapped.state_dict().items(), load_tensors(folder / WEIGHTS), str(folder))
        if not whole or tuning == "head":
            copy_tensors(self._head_tensors().items(), load_tensors(folder / HEAD_WEIGHTS), str(folder))

    def adapter_tensors(self) -> dict[str, Tensor]:
        """The adapter's tensors with peft's names; AdaLoRA's at their present ranks."""
        if self.allocation is not None:
            self.allocation.store_ranks()
        peft = import_optional("peft", "hf")
        tensors: dict[str, Tensor] = peft.get_peft_model_state_dict(self.wrapped, save_embedding_layers=False)
        return tensors

    def _head_tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """The head's tensors with Transformers' names, or `head.out` for a linear head, as in the native model's files."""
        prefix = prefix if self.head_kind == "default" else "head."
        return {f"{prefix}{name}": tensor for name, tensor in self.head.state_dict().items()}

    def _save_peft_config(self, folder: Path, base: str, revision: str | None) -> None:
        config: Any = self.wrapped.peft_config[ADAPTER]
        whole = self.head_kind == "default"
        config.base_model_name_or_path, config.revision = base, revision
        config.target_modules = set(self.adapted_maps)  # peft may have shortened them
        config.modules_to_save = [name for name, part in self.head.named_children() if [*part.parameters()]] if whole else None
        config.task_type = "SEQ_CLS" if whole else "FEATURE_EXTRACTION"
        before, config.inference_mode = config.inference_mode, True
        config.save_pretrained(str(folder))
        config.inference_mode = before

    def _load_adapter(self, tensors: dict[str, Tensor], folder: Path) -> None:
        config = self.wrapped.peft_config[ADAPTER]
        if self.allocation is not None:
            config.rank_pattern = read_json(folder / ADAPTER_CONFIG).get("rank_pattern")
        try:
            keys = import_optional("peft", "hf").set_peft_model_state_dict(self.wrapped, dict(tensors))
        except (RuntimeError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise LoralabError(f"{folder}: the adapter does not fit its settings ({error}): the file is damaged") from error
        trained = {name for name, parameter in self.wrapped.named_parameters() if parameter.requires_grad}
        head = {name for name in trained if name.removeprefix(PEFT_PREFIX) in self.head.state_dict()}
        if wrong := sorted({*keys.unexpected_keys, *((trained - head) & set(keys.missing_keys))}):
            raise LoralabError(f"{folder}: the adapter's tensor {wrong[0]!r} is missing or unknown: the file is damaged")


def _replace_dropouts(module: nn.Module, p: float | None) -> None:
    """Replace every torch dropout by our seeded one, with probability `p`, or None for its own."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(parent, name, Dropout(child.p if p is None else p))


def _compute_in_fp32(module: nn.Module) -> None:
    """Let a part of the head compute in fp32, whatever dtype the encoder uses."""
    forward = module.forward

    def run(hidden: Tensor, *arguments: Any, **named: Any) -> Any:
        with torch.autocast(hidden.device.type, enabled=False):
            return forward(hidden.float(), *arguments, **named)

    module.forward = run


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
