"""The loss of one pass, as a share of its step, so that passes add up to the step however it is cut."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from loralab.data.types import Ints
from loralab.errors import LoralabError, nearest


@dataclass(frozen=True)
class Loss:
    """Cross entropy with class weights w, label smoothing ε and focal exponent γ, in any combination.

    A text of class y has the target mass w_y (1 - ε) on its class, where the focal factor (1 - p_y)^γ applies (Lin et al. 2017),
    and ε spread evenly over all classes, which no class weight scales (Szegedy et al. 2016). The loss of a step is the sum over
    its texts divided by the sum of their masses: with ε = γ = 0 it is torch's weighted cross entropy, with w = 1 its smoothed one.
    """

    weights: Tensor | None = None
    smoothing: float = 0.0
    focal_gamma: float = 0.0

    def to(self, device: torch.device) -> Loss:
        """The same with its weights on `device`, where labels and logits must be."""
        return self if self.weights is None else replace(self, weights=self.weights.to(device))

    def normalizer(self, labels: Tensor) -> Tensor:
        """Total target mass of labels (n,): what a step's loss is divided by. A scalar."""
        weights = torch.ones(len(labels), device=labels.device) if self.weights is None else self.weights[labels]
        return (weights * (1 - self.smoothing) + self.smoothing).sum()

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits: (n, classes) fp32; labels: (n,) → summed loss, a scalar, not yet divided by the step's mass."""
        log_p = F.log_softmax(logits.float(), dim=-1)
        own = log_p.gather(1, labels[:, None])[:, 0]
        loss = -own
        if self.focal_gamma:
            # kept above 0, where a power below 1 is infinitely steep: γ = 0.5 gave NaN gradients on texts with p = 1
            loss = loss * (-torch.expm1(own)).clamp_min(1e-12) ** self.focal_gamma
        if self.weights is not None:
            loss = loss * self.weights[labels]
        return ((1 - self.smoothing) * loss - self.smoothing * log_p.mean(dim=-1)).sum()


def resolve_class_weights(
    spec: str | Mapping[str, float] | Sequence[float] | None, classes: Sequence[str], labels: Ints
) -> Tensor | None:
    """Turn `train.class_weights` into one weight a class: `balanced` is n / (classes · count), names left out weigh 1.

    Raises LoralabError for an unknown class, a wrong number of weights, or one that is not above zero.
    """
    if spec is None:
        return None
    if isinstance(spec, str):
        counts = np.bincount(labels, minlength=len(classes))
        return torch.tensor(len(labels) / (len(classes) * np.maximum(counts, 1)), dtype=torch.float32)
    if isinstance(spec, Mapping):
        if unknown := [name for name in spec if name not in classes]:
            raise LoralabError(
                f"train.class_weights: {unknown[0]!r} is not a class{nearest(unknown[0], classes)}: {', '.join(classes)}"
            )
        weights = [float(spec.get(name, 1.0)) for name in classes]
    else:
        weights = [float(weight) for weight in spec]
    if len(weights) != len(classes) or not all(0 < weight < math.inf for weight in weights):
        raise LoralabError(f"train.class_weights={weights}: give {len(classes)} weights above 0, for {', '.join(classes)}")
    return torch.tensor(weights)
