"""The training loss. Micro-batch losses add up to the loss of the batch, however the batch is divided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from loralab.data.types import Floats, Ints
from loralab.errors import LoralabError, suggest


@dataclass(frozen=True)
class Loss:
    """Cross entropy with class weights w, label smoothing ε and focal exponent γ, in any combination.

    A text of class y has the target weight w_y (1 - ε) on its class, times the focal factor (1 - p_y)^γ (Lin et al. 2017), and ε
    spread evenly over all classes, without class weights (Szegedy et al. 2016). The loss of a batch is the sum over its texts
    divided by `normalizer`. With ε = γ = 0 it equals torch's weighted cross entropy, with w = 1 and γ = 0 torch's smoothed one.

    Row weights r multiply the whole term of a row. They have mean 1 over the n training rows. With t_i = w_y (1 - ε) + ε and the
    term l_i of row i, training then minimizes the weighted mean Σ r_i l_i / Σ r_i t_i over these rows. A batch of b rows estimates
    it by Σ_batch r_i l_i / (b m) with `mean_weight` m = Σ r_i t_i / n, the same for every batch. This gradient is unbiased; a
    division by the batch's own Σ r_i t_i would not be, and a batch of one row would ignore its weight. Without class weights m = 1.
    """

    weights: Tensor | None = None
    smoothing: float = 0.0
    focal_gamma: float = 0.0
    mean_weight: float | None = None

    def with_row_weights(self, labels: Ints, weights: Floats) -> Loss:
        """Return the loss of training rows with labels (n,) and row weights (n,) of mean 1."""
        classes = np.ones(int(labels.max()) + 1) if self.weights is None else self.weights.double().cpu().numpy()
        targets = classes[labels] * (1 - self.smoothing) + self.smoothing
        return replace(self, mean_weight=float((weights * targets).mean()))

    def to(self, device: torch.device) -> Loss:
        """Return the loss with its class weights on `device`."""
        return self if self.weights is None else replace(self, weights=self.weights.to(device))

    def normalizer(self, labels: Tensor) -> Tensor:
        """Return the divisor of a batch's loss, a scalar: the sum of the target weights of labels (n,), or n m with row weights."""
        if self.mean_weight is not None:
            return torch.tensor(len(labels) * self.mean_weight, device=labels.device)
        weights = torch.ones(len(labels), device=labels.device) if self.weights is None else self.weights[labels]
        return (weights * (1 - self.smoothing) + self.smoothing).sum()

    def __call__(self, logits: Tensor, labels: Tensor, row_weights: Tensor | None = None) -> Tensor:
        """logits: (n, classes) fp32; labels, row_weights: (n,) → summed loss, a scalar, before the division by the normalizer."""
        log_p = F.log_softmax(logits.float(), dim=-1)
        label_log_p = log_p.gather(1, labels[:, None])[:, 0]
        loss = -label_log_p
        if self.focal_gamma:
            # At p = 1 the derivative of a power below 1 is infinite, and γ = 0.5 gave NaN gradients: keep the base above 0.
            loss = loss * (-torch.expm1(label_log_p)).clamp_min(1e-12) ** self.focal_gamma
        if self.weights is not None:
            loss = loss * self.weights[labels]
        loss = (1 - self.smoothing) * loss - self.smoothing * log_p.mean(dim=-1)
        return loss.sum() if row_weights is None else (loss * row_weights).sum()


def resolve_class_weights(
    spec: str | Mapping[str, float] | Sequence[float] | None,
    classes: Sequence[str],
    labels: Ints,
    row_weights: Floats | None = None,
) -> Tensor | None:
    """Return one weight per class for `train.class_weights`. `balanced` is n / (classes · count); omitted names get 1.

    With row weights, n and count are sums of weights, as in scikit-learn's `compute_class_weight(sample_weight=...)`.
    Raises LoralabError for an unknown class, a wrong number of weights, or a weight that is not above zero.
    """
    if spec is None:
        return None
    if isinstance(spec, str):
        counts = np.bincount(labels, row_weights, minlength=len(classes))
        filled = np.where(counts > 0, counts, 1)  # the weight of a class without rows, or of weight 0, is not used
        return torch.tensor(counts.sum() / (len(classes) * filled), dtype=torch.float32)
    if isinstance(spec, Mapping):
        if unknown := [name for name in spec if name not in classes]:
            raise LoralabError(
                f"train.class_weights: {unknown[0]!r} is not a class{suggest(unknown[0], classes)}: {', '.join(classes)}"
            )
        weights = [float(spec.get(name, 1.0)) for name in classes]
    else:
        weights = [float(weight) for weight in spec]
    if len(weights) != len(classes) or not all(0 < weight < math.inf for weight in weights):
        raise LoralabError(f"train.class_weights={weights}: give {len(classes)} weights above 0, for {', '.join(classes)}")
    return torch.tensor(weights)
