"""A head to begin with: from what the classes are called, from the training texts by logistic regression, or from both.

The regression: Kumar et al. 2022 (linear probing, then fine-tuning): a random head sends random gradients into the encoder at
first, a fitted one does not. The names: a class is the mean direction of its descriptions, and a text belongs where its cosine is
highest (Chang et al. 2008; for sentence encoders Reimers & Gurevych 2019). Both: the regression is drawn towards the names'
weights instead of towards zero (a Gaussian prior centred there; Chelba & Acero 2006). Measured on AG News in docs/log.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loralab.data.types import Encoded, Ints
from loralab.training.scoring import features_and_logits

Reals = npt.NDArray[np.float64]

MOST_ROWS = 10_000
"""Rows that the regression sees: more of them take minutes, and it is only where training starts."""

STRENGTH = 3.0
"""C, the weight of the rows against the pull to zero, for features of mean norm 1: the best or near it on AG News from 100 to
2,400 rows (docs/log.md)."""

STRENGTH_TO_NAMES = 1.0
"""The same against the pull to the names' weights, which deserve more trust than zero: best on AG News at 8, 16 and 50 rows
a class (docs/log.md)."""

SCALE = 10.0
"""The logit of a text that points exactly where its class does: best with STRENGTH_TO_NAMES among 5, 10, 20 and 40."""


def initialize_head(network: nn.Module, out: nn.Linear, train: Encoded | None, names: Encoded | None) -> None:
    """Set `out`, the network's last linear map, from labelled rows, from names (each class's descriptions, labelled), or both.

    From names alone, a text's logits are SCALE times its cosine to each class, times its feature norm over that of the names.
    A class of which neither speaks keeps what was drawn.
    """
    weights, biases = np.zeros((out.out_features, out.in_features)), np.zeros(out.out_features)
    known: Ints = np.zeros(0, dtype=np.int64)
    scale = 1.0
    if names is not None:
        features, known = _features(network, out, names)
        scale, weights = _mean_norm(features), SCALE * _directions(features, known, out.out_features)
    if train is not None:
        features, labels = _features(network, out, train)
        if len(np.unique(labels)) > 1:
            scale, known = _mean_norm(features), np.concatenate([known, labels])
            strength = STRENGTH if names is None else STRENGTH_TO_NAMES
            weights, biases = regression(features / scale, labels, weights, strength)
    found = torch.from_numpy(np.unique(known))
    with torch.no_grad():
        for parameter, values in ((out.weight, weights / scale), (out.bias, biases)):
            parameter[found.to(parameter.device)] = torch.from_numpy(values)[found].to(parameter)


def regression(features: Reals, labels: Ints, prior: Reals, strength: float) -> tuple[Reals, Reals]:
    """Return weights (classes, width) and biases (classes,) that minimise strength · Σ cross entropy + ½ |weights - prior|².

    features: (n, width); prior: (classes, width). A class without rows is left out, and keeps its prior.
    """
    inputs, targets, centre = torch.from_numpy(features), torch.from_numpy(labels), torch.from_numpy(prior)
    absent = torch.bincount(targets, minlength=len(centre)) == 0
    moved = torch.zeros_like(centre, requires_grad=True)
    biases = torch.zeros(len(centre), dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [moved, biases], max_iter=500, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        solver.zero_grad()
        logits = (inputs @ (centre + moved).T + biases).masked_fill(absent, -torch.inf)
        cost = strength * F.cross_entropy(logits, targets, reduction="sum") + 0.5 * (moved**2).sum()
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    solver.step(objective)  # type: ignore[no-untyped-call]
    return (centre + moved).detach().numpy(), biases.detach().numpy()


def _features(network: nn.Module, out: nn.Linear, encoded: Encoded) -> tuple[Reals, Ints]:
    """What goes into `out` for at most MOST_ROWS texts from all of the set, (n, width), and their labels."""
    assert encoded.labels is not None
    rows = np.linspace(0, len(encoded) - 1, min(len(encoded), MOST_ROWS)).astype(np.int64)
    features, _ = features_and_logits(network, encoded, out, rows)
    return features.astype(np.float64), encoded.labels[rows]


def _directions(features: Reals, labels: Ints, classes: int) -> Reals:
    """Unit vectors (classes, width): the mean direction of each class's texts."""
    units = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    sums = np.zeros((classes, features.shape[1]))
    np.add.at(sums, labels, units)
    directions: Reals = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return directions


def _mean_norm(features: Reals) -> float:
    return float(np.linalg.norm(features, axis=1).mean()) or 1.0
