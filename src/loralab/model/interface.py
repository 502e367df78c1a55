"""What training, inference and export need of a model, whichever library computes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from loralab.model.manifest import Manifest
from loralab.model.parameter_counts import ParameterCounts


class RankAllocation(Protocol):
    """AdaLoRA's part in training: a penalty on the loss, and ranks that move between maps after each step."""

    def penalty(self) -> Tensor: ...
    def check_steps(self, steps: int) -> None: ...
    def after_step(self, step: int, steps: int) -> None: ...
    def state(self) -> dict[str, Tensor]: ...
    def restore(self, state: Mapping[str, Tensor]) -> None: ...


@runtime_checkable
class ClassifierModel(Protocol):
    """A text classifier: tokens and mask → logits. `EncoderClassifier`, `HFClassifier` and `OnnxClassifier` implement it.

    classes: number of classes. device: where the model computes. compute_dtype: dtype of its hidden states. head: the modules
    behind the encoder, whose last linear map yields the logits. allocation: AdaLoRA's, else None.
    """

    training: bool

    @property
    def classes(self) -> int: ...
    @property
    def architecture(self) -> str:
        """The name of Transformers' class for the model; of the encoder's if it has none for the head."""

    @property
    def device(self) -> torch.device: ...
    @property
    def compute_dtype(self) -> torch.dtype: ...
    @property
    def head(self) -> nn.Module: ...
    @property
    def allocation(self) -> RankAllocation | None: ...
    @property
    def supports_feature_cache(self) -> bool:
        """Whether the model can start at any layer: `__call__` accepts hidden states and the layer that they enter."""

    @property
    def thread_safe(self) -> bool:
        """Whether several threads may run forward and backward passes at the same time."""

    @property
    def min_texts_per_worker(self) -> int:
        """The fewest texts for which another thread is faster."""

    def __call__(self, inputs: Tensor, mask: Tensor, start: int | None = None) -> Tensor:
        """Return logits (batch, classes) fp32.

        inputs: tokens (batch, time) int, or with `start` hidden states (batch, time, width) that enter layer `start`;
        mask: (batch, time) bool, True on real tokens.
        """

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def requires_grad_(self, requires_grad: bool = True) -> Any: ...

    def parameter_counts(self) -> ParameterCounts:
        """Count the parameters of the model in its present state."""

    def merge(self) -> None:
        """Add the adapters to the weights, where the model supports it. The logits stay the same."""

    def save(self, folder: Path, manifest: Manifest) -> None:
        """Write what was trained into an empty folder."""
