"""One network from several runs: the mean of their weights, a model soup (Wortsman et al. 2022).

Runs that began with the same pretrained weights and differ in their seed end near each other, and the mean of their weights
classifies about as well as all of them asked together, at the price of one. The mean of K adapters of rank r is one adapter of
rank K·r: s₁B₁A₁ + ... is a product of the stacked pairs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from loralab.errors import LoralabError
from loralab.model.bundle import Manifest
from loralab.model.encoder import EncoderClassifier
from loralab.model.hf.model import HFClassifier
from loralab.model.lora import Adapter, adapters

_SAME = ("base_sha256", "classes", "pooling", "head", "tuning", "clean", "max_length", "quantize")


def average(
    members: Iterable[tuple[EncoderClassifier | HFClassifier, Manifest]], names: Sequence[str], rank: int | None = None
) -> tuple[EncoderClassifier, Manifest]:
    """Return the mean of several networks as loaded, in the place of the first, and what its bundle says of itself.

    rank: cut the mean adapter down to its so many largest singular directions. The temperature is the members' geometric mean.
    Of each member only what was trained is kept, so `members` may load one after another. Raises LoralabError, by their names, for
    members that are not of one kind.
    """
    pairs: list[dict[tuple[int, str], Adapter]] = []
    sums: list[Tensor] = []
    manifests: list[Manifest] = []
    first: EncoderClassifier | None = None
    for name, (network, manifest) in zip(names, members, strict=True):
        _check_alike(manifests[0] if manifests else manifest, manifest, names[0], name)
        if not isinstance(network, EncoderClassifier):
            raise LoralabError(f"{name} runs through Transformers and peft: only runs of the native network can be averaged")
        first = first or network
        manifests.append(manifest)
        pairs.append({(layer, role): adapter for layer, role, adapter in adapters(network)})
        if [*pairs[-1]] != [*pairs[0]]:
            raise LoralabError(
                f"{names[0]} and {name} do not adapt the same maps: average runs of the same lora.targets and lora.layers"
            )
        trained = [parameter.detach() for parameter in _trained(network, manifest)]
        sums = [total + each for total, each in zip(sums, trained, strict=True)] if sums else trained
    assert first is not None
    if rank is not None and not pairs[0]:
        raise LoralabError(f"--rank {rank}: these runs have no adapters (tuning={manifests[0].tuning})")
    with torch.no_grad():
        for parameter, total in zip(_trained(first, manifests[0]), sums, strict=True):
            parameter.copy_(total / len(manifests))
        for layer, role in pairs[0]:
            _replace_adapter(first, layer, role, [each[layer, role] for each in pairs], rank)
    ranks = {len(adapter.a) for _, _, adapter in adapters(first)}
    lora = {**manifests[0].lora, **({"rank": max(ranks), "alpha": float(max(ranks)), "variant": "lora"} if ranks else {})}
    warmth = math.exp(statistics.mean(math.log(each.temperature) for each in manifests))
    return first, replace(manifests[0], lora=lora, temperature=warmth)


def _trained(network: EncoderClassifier, manifest: Manifest) -> Iterator[nn.Parameter]:
    """What is averaged number by number: all weights, or those of the head."""
    return network.parameters() if manifest.tuning == "full" else network.head.parameters()


def _check_alike(one: Manifest, other: Manifest, name: str, its: str) -> None:
    for field in _SAME:
        if (a := getattr(one, field)) != (b := getattr(other, field)):
            raise LoralabError(f"{name} and {its} cannot be averaged: {field} is {a!r} and {b!r}")


def _replace_adapter(network: EncoderClassifier, layer: int, role: str, members: Sequence[Adapter], rank: int | None) -> None:
    a = torch.cat([member.a for member in members])
    b = torch.cat([member.b * (member.scale / len(members)) for member in members], dim=1)
    if rank is not None:
        a, b = _cut(a, b, rank)
    adapter = Adapter(len(b), a.shape[1], len(a), scale=1.0)
    adapter.a.copy_(a)
    adapter.b.copy_(b)
    for projection in network.layer(layer).projections():
        if role in projection.roles:
            projection.adapters[role] = adapter


def _cut(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The nearest pair of a lower rank to b @ a (Eckart & Young 1936), or the pair itself."""
    if rank >= len(a):
        return a, b
    left, values, right = torch.linalg.svd(b.double() @ a.double(), full_matrices=False)
    root = values[:rank].sqrt()
    return (root[:, None] * right[:rank]).to(a), (left[:, :rank] * root).to(b)
