"""Initial weights of the classification head: from class descriptions, from logistic regression on the training rows, or both.

probe: logistic regression, then fine-tuning (Kumar et al. 2022). A random head sends random gradients into the encoder, a fitted
one does not. descriptions: the weights of a class are the mean direction of its descriptions, so a logit is a scaled cosine (Chang
et al. 2008; for sentence encoders Reimers & Gurevych 2019). probe+descriptions: the regression is regularized towards the
descriptions instead of zero (a Gaussian prior centred there; Chelba & Acero 2006). Measured on AG News in docs/lab.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loralab.data.types import Encoded, Ints
from loralab.model.interface import ClassifierModel
from loralab.training.optimizers import without_compiler
from loralab.training.scoring import features_and_logits

Reals = npt.NDArray[np.float64]

MAX_ROWS = 10_000
"""Rows that the regression uses. More would take minutes, for an initialization."""

PROBE_C = 3.0
"""C of the regression, for features of mean norm 1: the best or near it on AG News from 100 to 2,400 rows (docs/lab)."""

PROBE_C_WITH_DESCRIPTIONS = 1.0
"""C of the regression towards the descriptions: the best on AG News with 8, 16 and 50 rows per class (docs/lab)."""

SCALE = 10.0
"""Logit of a text whose direction is exactly that of a class: the best of 5, 10, 20 and 40 with PROBE_C_WITH_DESCRIPTIONS."""


def initialize_head(model: ClassifierModel, out: nn.Linear, train: Encoded | None, descriptions: Encoded | None) -> None:
    """Set `out`, the model's last linear map, from labelled rows, from class descriptions (labelled by class), or both.

    Row weights multiply the cross entropy of the regression and count in the mean norm of the features.

    From descriptions alone, a text's logits are SCALE times its cosine to each class, times its feature norm over the descriptions'
    mean norm. A class with neither rows nor descriptions keeps its random weights.
    """
    weights, biases = np.zeros((out.out_features, out.in_features)), np.zeros(out.out_features)
    known: Ints = np.zeros(0, dtype=np.int64)
    scale = 1.0
    if descriptions is not None:
        features, known, _ = _features(model, out, descriptions)
        scale, weights = _mean_norm(features), SCALE * _directions(features, known, out.out_features)
    if train is not None:
        features, labels, row_weights = _features(model, out, train)
        if len(np.unique(labels)) > 1:
            scale, known = _mean_norm(features, row_weights), np.concatenate([known, labels])
            c = PROBE_C if descriptions is None else PROBE_C_WITH_DESCRIPTIONS
            weights, biases = regression(features / scale, labels, weights, c, row_weights, bias=out.bias is not None)
    classes = torch.from_numpy(np.unique(known))
    with torch.no_grad():
        for parameter, values in ((out.weight, weights / scale), (out.bias, biases)):
            if parameter is None:  # the heads of Qwen, Llama and other decoders have no bias
                continue
            parameter[classes.to(parameter.device)] = torch.from_numpy(values)[classes].to(parameter)


def regression(
    features: Reals, labels: Ints, prior: Reals, c: float, row_weights: Reals | None = None, *, bias: bool = True
) -> tuple[Reals, Reals]:
    """Return weights (classes, width) and biases (classes,) that minimize c · Σ cross entropy + ½ |weights - prior|².

    features: (n, width); prior: (classes, width); row_weights: (n,), the factors of the rows in the sum. bias=False keeps the
    biases at 0. A class without rows is left out and keeps its prior.
    """
    inputs, targets, center = torch.from_numpy(features), torch.from_numpy(labels), torch.from_numpy(prior)
    factors = None if row_weights is None else torch.from_numpy(row_weights)
    absent = torch.bincount(targets, minlength=len(center)) == 0
    offset = torch.zeros_like(center, requires_grad=True)
    biases = torch.zeros(len(center), dtype=torch.float64, requires_grad=bias)
    solver = without_compiler(torch.optim.LBFGS)(
        [offset, biases] if bias else [offset],
        max_iter=500,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        logits = (inputs @ (center + offset).T + biases).masked_fill(absent, -torch.inf)
        if factors is None:
            error = F.cross_entropy(logits, targets, reduction="sum")
        else:
            error = (F.cross_entropy(logits, targets, reduction="none") * factors).sum()
        cost = c * error + 0.5 * (offset**2).sum()
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    solver.step(objective)  # type: ignore[no-untyped-call]
    return (center + offset).detach().numpy(), biases.detach().numpy()


def _features(model: ClassifierModel, out: nn.Linear, encoded: Encoded) -> tuple[Reals, Ints, Reals | None]:
    """Return the inputs of `out` (n, width), the labels and any weights, for at most MAX_ROWS evenly spaced texts.

    Rows of weight 0 are left out.
    """
    assert encoded.labels is not None
    candidates = np.arange(len(encoded)) if encoded.weights is None else np.flatnonzero(encoded.weights)
    rows = candidates[np.linspace(0, len(candidates) - 1, min(len(candidates), MAX_ROWS)).astype(np.int64)]
    features, _ = features_and_logits(model, encoded, out, rows)
    return features.astype(np.float64), encoded.labels[rows], None if encoded.weights is None else encoded.weights[rows]


def _directions(features: Reals, labels: Ints, classes: int) -> Reals:
    """Return unit vectors (classes, width): the mean direction of the texts of each class."""
    units = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    sums = np.zeros((classes, features.shape[1]))
    np.add.at(sums, labels, units)
    directions: Reals = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return directions


def _mean_norm(features: Reals, weights: Reals | None = None) -> float:
    return float(np.average(np.linalg.norm(features, axis=1), weights=weights)) or 1.0
