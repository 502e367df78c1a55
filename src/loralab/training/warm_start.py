"""A head to begin with: logistic regression on what the encoder, not yet tuned, says of the training texts.

Kumar et al. 2022 (linear probing, then fine-tuning): a random head sends random gradients into the encoder at first, a fitted one
does not. Measured on AG News in docs/log.md.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from loralab.data.values import Encoded
from loralab.training.scoring import features_and_logits

MOST_ROWS = 10_000
"""Rows that the regression sees: more of them take minutes, and it is only where training starts."""


STRENGTH = 3.0
"""scikit-learn's C for features of mean norm 1: the best or near it on AG News from 100 to 2,400 rows (docs/log.md)."""


def warm_start(network: nn.Module, train: Encoded, out: nn.Linear) -> None:
    """Set `out`, the network's last linear map, to the regression's weights; a class without rows keeps what was drawn."""
    from sklearn.linear_model import LogisticRegression

    assert train.labels is not None
    rows = np.linspace(0, len(train) - 1, min(len(train), MOST_ROWS)).astype(np.int64)
    labels = train.labels[rows]
    if len(np.unique(labels)) < 2:
        return
    features, _ = features_and_logits(network, train, out, rows)
    scale = float(np.linalg.norm(features, axis=1).mean()) or 1.0
    fitted = LogisticRegression(C=STRENGTH, max_iter=500).fit(features / scale, labels)
    weights, biases = fitted.coef_ / scale, fitted.intercept_
    if len(fitted.classes_) == 2:  # scikit-learn gives two classes one row: the second's logit less the first's
        weights, biases = np.concatenate([-weights, weights]) / 2, np.concatenate([-biases, biases]) / 2
    with torch.no_grad():
        for parameter, values in ((out.weight, weights), (out.bias, biases)):
            found: Tensor = torch.as_tensor(values, dtype=parameter.dtype, device=parameter.device)
            parameter[torch.from_numpy(fitted.classes_).to(parameter.device)] = found
