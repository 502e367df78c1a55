"""Token attributions by integrated gradients, with their completeness check.

Sundararajan, Taly and Yan 2017: attribution_i = (x_i - b_i) · ∫₀¹ ∂F/∂x_i (b + t(x - b)) dt, so that their sum is F(x) - F(b).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from tokenizers import Encoding

    from loralab.model.encoder import EncoderClassifier

STEPS, MAX_STEPS = 32, 512
TOLERANCE = 0.01
"""The residual that counts as complete, as a share of |F(x) - F(b)|, or in logits where that is under 1."""
_POINTS_PER_BATCH = 32


@dataclass(frozen=True)
class Attribution:
    """values: one per token, in logits; change: F(x) - F(baseline), in logits; residual: the values' sum less `change`."""

    values: list[float]
    change: float
    residual: float
    steps: int

    @property
    def complete(self) -> bool:
        """True when the residual is within the tolerance."""
        return abs(self.residual) <= TOLERANCE * max(1.0, abs(self.change))


def integrate(function: Callable[[Tensor], Tensor], point: Tensor, baseline: Tensor, steps: int = STEPS) -> Tensor:
    """Return the integrated gradients of `function` from `baseline` to `point`, of their shape.

    function: (batch, *shape) → (batch,), each output from its own row only. Gauss-Legendre quadrature with `steps` nodes: exact
    for a gradient that is a polynomial of degree under 2 · steps along the path.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(point)
    shape = (-1, *[1] * point.dim())
    for start in range(0, steps, _POINTS_PER_BATCH):
        batch = slice(start, start + _POINTS_PER_BATCH)
        position = torch.as_tensor((nodes[batch] + 1) / 2, dtype=point.dtype, device=point.device).view(shape)
        weight = torch.as_tensor(weights[batch] / 2, dtype=point.dtype, device=point.device).view(shape)
        with torch.enable_grad():
            path = (baseline + position * (point - baseline)).detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(function(path).sum(), path)
        total += (weight * gradient).sum(dim=0)
    return total * (point - baseline)


def attribute(model: EncoderClassifier, tokens: list[int], special: list[bool], target: int) -> Attribution:
    """Return how much each token of a text adds to the logit of class `target`.

    The baseline has padding in place of every token that is not special, embedded at the same positions. The model computes in
    fp32 and needs fp32 weights. Steps double, up to 512, until the attribution is complete.
    """
    model.eval()
    device = next(model.parameters()).device
    ids = torch.tensor([tokens], device=device)
    blank = torch.where(torch.tensor([special], device=device), ids, model.dims.pad_id)
    mask = torch.ones_like(ids, dtype=torch.bool)

    def logit(hidden: Tensor) -> Tensor:
        masks = mask.expand(len(hidden), -1)
        return model.classify(model.encode(hidden, masks), masks)[:, target]

    with torch.no_grad():
        point, baseline = (model.embeddings(sequence, torch.float32)[0] for sequence in (ids, blank))
        point_logit, baseline_logit = logit(torch.stack([point, baseline])).tolist()
    change, steps = point_logit - baseline_logit, STEPS
    while True:
        values = integrate(logit, point, baseline, steps).sum(dim=-1)
        attribution = Attribution(values.tolist(), change, float(values.double().sum()) - change, steps)
        if attribution.complete or steps >= MAX_STEPS:
            return attribution
        steps *= 2


def join_words(text: str, encoding: Encoding, values: list[float]) -> list[tuple[str, float]]:
    """Merge word pieces into words: [(substring, attribution)]. Each substring has its following spaces; together they are `text`.

    encoding: the tokenizer's output for `text`, with `values` one per token. A truncated end becomes an ellipsis.
    """
    starts: list[int] = []
    sums: list[float] = []
    last, end = None, 0
    for word, (start, stop), value in zip(encoding.word_ids, encoding.offsets, values, strict=True):
        if word is None:
            continue  # a special token: the same in the baseline, so its value is 0
        if word != last or not starts:
            starts.append(start if starts else 0)
            sums.append(0.0)
        sums[-1] += value
        last, end = word, max(end, stop)
    if not starts:
        return [(text, 0.0)] if text else []
    stops = [*starts[1:], end if text[end:].strip() else len(text)]
    joined = [(text[start:stop], value) for start, stop, value in zip(starts, stops, sums, strict=True)]
    return [*joined, (" …", 0.0)] if text[end:].strip() else joined
