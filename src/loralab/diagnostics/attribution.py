"""Which words made the network choose: integrated gradients, with the completeness that proves them computed rightly.

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

STEPS, MOST_STEPS = 32, 512
TOLERANCE = 0.01
"""Share of |F(x) - F(b)|, or logits where that is under 1, by which the attributions' sum may be off."""
_POINTS_AT_ONCE = 32


@dataclass(frozen=True)
class Attribution:
    """values: one a token, in logits; change: F(x) - F(baseline), logits; residual: their sum less `change`; steps taken."""

    values: list[float]
    change: float
    residual: float
    steps: int

    @property
    def complete(self) -> bool:
        """True where the sum is within the tolerance."""
        return abs(self.residual) <= TOLERANCE * max(1.0, abs(self.change))


def integrate(function: Callable[[Tensor], Tensor], point: Tensor, baseline: Tensor, steps: int = STEPS) -> Tensor:
    """Return the integrated gradients of `function` from `baseline` to `point`, of their shape.

    function: (batch, *shape) → (batch,), each from its own row only. Gauss-Legendre in `steps` points: exact where the gradient
    along the path is a polynomial of degree under 2 · steps.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(point)
    shape = (-1, *[1] * point.dim())
    for start in range(0, steps, _POINTS_AT_ONCE):
        part = slice(start, start + _POINTS_AT_ONCE)
        along = torch.as_tensor((nodes[part] + 1) / 2, dtype=point.dtype, device=point.device).view(shape)
        weight = torch.as_tensor(weights[part] / 2, dtype=point.dtype, device=point.device).view(shape)
        with torch.enable_grad():
            path = (baseline + along * (point - baseline)).detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(function(path).sum(), path)
        total += (weight * gradient).sum(dim=0)
    return total * (point - baseline)


def attribute(network: EncoderClassifier, tokens: list[int], special: list[bool], target: int) -> Attribution:
    """Say how much each token of one text adds to the logit of class `target`.

    The baseline is the same text with padding in place of every token that is not special, embedded at the same positions. The
    network computes in fp32 and must hold fp32 weights. Steps are doubled, up to 512, until the sum is complete.
    """
    network.eval()
    device = next(network.parameters()).device
    read = torch.tensor([tokens], device=device)
    blank = torch.where(torch.tensor([special], device=device), read, network.dims.pad_id)
    mask = torch.ones_like(read, dtype=torch.bool)

    def logit(hidden: Tensor) -> Tensor:
        masks = mask.expand(len(hidden), -1)
        return network.classify(network.encode(hidden, masks), masks)[:, target]

    with torch.no_grad():
        point, baseline = (network.embeddings(each, torch.float32)[0] for each in (read, blank))
        at_point, at_baseline = logit(torch.stack([point, baseline])).tolist()
    change, steps = at_point - at_baseline, STEPS
    while True:
        values = integrate(logit, point, baseline, steps).sum(dim=-1)
        found = Attribution(values.tolist(), change, float(values.double().sum()) - change, steps)
        if found.complete or steps >= MOST_STEPS:
            return found
        steps *= 2


def join_words(text: str, encoding: Encoding, values: list[float]) -> list[tuple[str, float]]:
    """Join word pieces into words with the spaces that follow: [(piece of text, attribution)], which put together are `text`.

    encoding: what the tokenizer made of `text`, with `values` one a token. What was cut off at the end becomes an ellipsis.
    """
    starts: list[int] = []
    sums: list[float] = []
    last, end = None, 0
    for word, (start, stop), value in zip(encoding.word_ids, encoding.offsets, values, strict=True):
        if word is None:
            continue  # a special token: equal in the baseline, so its value is 0
        if word != last or not starts:
            starts.append(start if starts else 0)
            sums.append(0.0)
        sums[-1] += value
        last, end = word, max(end, stop)
    if not starts:
        return [(text, 0.0)] if text else []
    bounds = [*starts[1:], end if text[end:].strip() else len(text)]
    joined = [(text[start:stop], value) for start, stop, value in zip(starts, bounds, sums, strict=True)]
    return [*joined, (" …", 0.0)] if text[end:].strip() else joined
