"""One network from several runs: the mean of their weights, a model soup (Wortsman et al. 2022).

Runs that began with the same pretrained weights and differ in their seed end near each other, and the mean of their weights
classifies about as well as all of them asked together, at the price of one. The mean of K adapters of rank r is one adapter of
rank K·r: s₁B₁A₁ + ... is a product of the stacked pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from loralab.errors import LoralabError
from loralab.model.bundle import Manifest
from loralab.model.generic import GenericNetwork
from loralab.model.lora import Adapter, adapters
from loralab.model.network import Network

_SAME = ("base_sha256", "classes", "pooling", "head", "tuning", "clean", "max_length", "quantize")


def average(
    members: Sequence[tuple[Network | GenericNetwork, Manifest]], names: Sequence[str], rank: int | None = None
) -> tuple[Network, Manifest]:
    """Return the mean of several networks as loaded, in the place of the first, and what its bundle says of itself.

    rank: cut the mean adapter down to its so many largest singular directions. The temperature is the members' geometric mean.
    Raises LoralabError, by their names, for members that are not of one kind.
    """
    for (network, manifest), name in zip(members, names, strict=True):
        _check_alike(members[0][1], manifest, names[0], name)
        if not isinstance(network, Network):
            raise LoralabError(f"{name} runs through Transformers and peft: only runs of the native network can be averaged")
    networks: list[Any] = [network for network, _ in members]
    first: Network = networks[0]
    manifest = members[0][1]
    places = [[(layer, role) for layer, role, _ in adapters(network)] for network in networks]
    for name, other in zip(names, places, strict=True):
        if other != places[0]:
            raise LoralabError(
                f"{names[0]} and {name} do not adapt the same maps: average runs of the same lora.targets and lora.layers"
            )
    if rank is not None and not places[0]:
        raise LoralabError(f"--rank {rank}: these runs have no adapters (tuning={manifest.tuning})")
    with torch.no_grad():
        trained = first.parameters() if manifest.tuning == "full" else first.head.parameters()
        others = [network.parameters() if manifest.tuning == "full" else network.head.parameters() for network in networks]
        for parameter, *each in zip(trained, *others, strict=True):
            parameter.copy_(torch.stack(each).mean(dim=0))
        for layer, role in places[0]:
            _replace_adapter(first, layer, role, [_adapter(network, layer, role) for network in networks], rank)
    ranks = {len(adapter.a) for _, _, adapter in adapters(first)}
    lora = {**manifest.lora, **({"rank": max(ranks), "alpha": float(max(ranks)), "variant": "lora"} if ranks else {})}
    warmth = torch.tensor([each.temperature for _, each in members], dtype=torch.float64).log().mean().exp()
    return first, replace(manifest, lora=lora, temperature=float(warmth))


def _check_alike(one: Manifest, other: Manifest, name: str, its: str) -> None:
    for field in _SAME:
        if (a := getattr(one, field)) != (b := getattr(other, field)):
            raise LoralabError(f"{name} and {its} cannot be averaged: {field} is {a!r} and {b!r}")


def _adapter(network: Network, layer: int, role: str) -> Adapter:
    return next(adapter for i, r, adapter in adapters(network) if (i, r) == (layer, role))


def _replace_adapter(network: Network, layer: int, role: str, members: Sequence[Adapter], rank: int | None) -> None:
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
