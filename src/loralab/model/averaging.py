"""Model soups (Wortsman et al. 2022): one model whose weights are the mean of several runs' weights.

Runs that start from the same pretrained weights and differ in their seed end close to each other. The mean of their weights
classifies about as well as the ensemble of all runs, at the cost of one. The mean of K adapters of rank r is one adapter of rank
K·r: s₁B₁A₁ + ... is a product of the concatenated matrices.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from loralab.errors import LoralabError
from loralab.model.encoder import EncoderClassifier
from loralab.model.hf.model import HFClassifier
from loralab.model.lora import Adapter
from loralab.model.manifest import Manifest

_SAME = ("base_sha256", "classes", "pooling", "head", "tuning", "clean", "max_length", "quantize")
"""Settings of the manifest that all runs of a soup share."""


def average(
    members: Iterable[tuple[EncoderClassifier | HFClassifier, Manifest]], names: Sequence[str], rank: int | None = None
) -> tuple[EncoderClassifier, Manifest]:
    """Return the mean of loaded models, which overwrites the first, and its manifest.

    rank: truncate the mean adapters to this many of their largest singular directions. The temperature is the geometric mean. Only
    the trained weights of each model are kept, so `members` may load them one after another. Raises LoralabError, with `names`, for
    models that cannot be averaged.
    """
    adapters: list[dict[tuple[int, str], Adapter]] = []
    sums: list[Tensor] = []
    manifests: list[Manifest] = []
    first: EncoderClassifier | None = None
    for name, (model, manifest) in zip(names, members, strict=True):
        _check_same(manifests[0] if manifests else manifest, manifest, names[0], name)
        if not isinstance(model, EncoderClassifier):
            raise LoralabError(f"{name} uses Transformers and peft: only runs of the native classifier can be averaged")
        first = first or model
        manifests.append(manifest)
        adapters.append({(layer, role): adapter for layer, role, adapter in model.adapters()})
        if [*adapters[-1]] != [*adapters[0]]:
            raise LoralabError(
                f"{names[0]} and {name} do not adapt the same maps: average runs of the same lora.targets and lora.layers"
            )
        weights = [parameter.detach() for parameter in _averaged(model, manifest)]
        sums = [total + weight for total, weight in zip(sums, weights, strict=True)] if sums else weights
    assert first is not None
    if rank is not None and not adapters[0]:
        raise LoralabError(f"--rank {rank}: these runs have no adapters (tuning={manifests[0].tuning})")
    with torch.no_grad():
        for parameter, total in zip(_averaged(first, manifests[0]), sums, strict=True):
            parameter.copy_(total / len(manifests))
        for layer, role in adapters[0]:
            _replace_adapter(first, layer, role, [member[layer, role] for member in adapters], rank)
    lora = manifests[0].lora
    if ranks := {len(adapter.a) for _, _, adapter in first.adapters()}:
        lora = lora.model_copy(update={"rank": max(ranks), "alpha": float(max(ranks)), "variant": "lora"})
    temperature = math.exp(statistics.mean(math.log(manifest.temperature) for manifest in manifests))
    return first, replace(manifests[0], lora=lora, temperature=temperature)


def _averaged(model: EncoderClassifier, manifest: Manifest) -> Iterator[nn.Parameter]:
    """The parameters that are averaged elementwise: all, or those of the head."""
    return model.parameters() if manifest.tuning == "full" else model.head.parameters()


def _check_same(first: Manifest, other: Manifest, first_name: str, other_name: str) -> None:
    for field in _SAME:
        if (a := getattr(first, field)) != (b := getattr(other, field)):
            raise LoralabError(f"{first_name} and {other_name} cannot be averaged: {field} is {a!r} and {b!r}")


def _replace_adapter(model: EncoderClassifier, layer: int, role: str, members: Sequence[Adapter], rank: int | None) -> None:
    a = torch.cat([member.a for member in members])
    b = torch.cat([member.b * (member.scale / len(members)) for member in members], dim=1)
    if rank is not None:
        a, b = _truncate(a, b, rank)
    adapter = Adapter(len(b), a.shape[1], len(a), scale=1.0)
    adapter.a.copy_(a)
    adapter.b.copy_(b)
    for projection in model.layer(layer).projections():
        if role in projection.roles:
            projection.adapters[role] = adapter


def _truncate(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best approximation of b @ a with a lower rank (Eckart & Young 1936); a and b themselves if their rank is not higher."""
    if rank >= len(a):
        return a, b
    left, values, right = torch.linalg.svd(b.double() @ a.double(), full_matrices=False)
    root = values[:rank].sqrt()
    return (root[:, None] * right[:rank]).to(a), (left[:, :rank] * root).to(b)
