"""peft's methods: the linear maps that they adapt, their configuration, and AdaLoRA's rank allocation.

DoRA (Liu et al. 2024, arXiv 2402.09353), AdaLoRA (Zhang et al. 2023, arXiv 2303.10512), VeRA (Kopiczko et al. 2023, arXiv
2310.11454), IA3 (Liu et al. 2022, arXiv 2205.05638). Outside the BERT family also LoRA, rsLoRA and PiSSA (Meng et al. 2024, arXiv
2404.02948).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from loralab.config import LoraConfig
from loralab.errors import LoralabError, import_optional
from loralab.model.architectures import ROLES, Dimensions, Sizes, layer_paths, parse_layers

ADAPTER = "default"
"""peft's name for a single adapter."""
ADALORA_START = 1.5
"""AdaLoRA's initial rank over its final average: the paper's value, and peft's (12 for 8)."""


def choose_maps(linear: Sequence[str], dims: Dimensions | Sizes, targets: Sequence[str], layers: str | None) -> list[str]:
    """Select the names of an encoder's `linear` maps that match `targets` and `layers`, in their order.

    A target is a role, `all` (every map of every layer), or the end of a name in the architecture, such as `Wqkv`. Raises
    LoralabError for an unknown target, for a role whose map also computes roles that are not targets, and for `layers` of an
    encoder whose layers share their weights.
    """
    places = _places(linear if layers is None else in_layers(linear, dims, layers, "lora.layers"))
    paths = _all_paths(places) if "all" in targets else set().union(*(_paths(t, targets, places, dims) for t in targets))
    return [name for name, (_, path) in places.items() if path in paths]


def in_layers(names: Sequence[str], dims: Dimensions | Sizes, layers: str, setting: str) -> list[str]:
    """Return the names that belong to the chosen layers. Raises LoralabError if the layers share their weights."""
    places = _places(names)
    if {layer for layer, _ in places.values()} != set(range(dims.layers)):
        raise LoralabError(
            f"{setting}={layers}: the {dims.layers} layers of {dims.model_type} share their weights; leave {setting} out for all"
        )
    chosen = parse_layers(layers, dims.layers)
    return [name for name, (layer, _) in places.items() if layer in chosen]


def _places(names: Sequence[str]) -> dict[str, tuple[int, str]]:
    return {name: place for name in names if (place := _place(name)) is not None}


def _place(name: str) -> tuple[int, str] | None:
    """Split `deberta.encoder.layer.3.output.dense` into 3 and `output.dense`; None outside the layers."""
    match = re.match(r"(?:[^0-9.][^.]*\.)*(\d+)\.(.+)", name)
    return (int(match[1]), match[2]) if match else None


def _all_paths(places: Mapping[str, tuple[int, str]]) -> set[str]:
    return {path for _, path in places.values()}


def _paths(target: str, targets: Sequence[str], places: Mapping[str, tuple[int, str]], dims: Dimensions | Sizes) -> set[str]:
    """The paths below a layer that match one target."""
    roles, paths = layer_paths(dims.model_type), _all_paths(places)
    if target in roles:
        same_map = [role for role, path in roles.items() if path == roles[target]]
        if not set(same_map) <= set(targets):
            raise LoralabError(
                f"lora.targets: {dims.model_type} computes {', '.join(same_map)} in one map: "
                f"write lora.targets={','.join(same_map)} or {roles[target].rsplit('.', 1)[-1]}"
            )
        return {roles[target]}
    matches = {path for path in paths if path == target or path.endswith(f".{target}")}
    if not matches:
        known = f"{', '.join(roles)}, " if roles else ""
        raise LoralabError(
            f"lora.targets: {dims.model_type} has no {target!r}; valid: {known}all, or the names of its maps: "
            f"{', '.join(sorted(paths))}"
        )
    return matches


def method_config(lora: LoraConfig, maps: Sequence[str], dims: Dimensions | Sizes, seed: int) -> Any:
    """Return peft's configuration of a variant on the given maps. `seed`: of VeRA's shared random matrices.

    Raises LoralabError for LoRA+ and for settings that the variant does not support.
    """
    peft = import_optional("peft", "hf")
    if lora.variant == "loraplus":
        raise LoralabError(f"lora.variant=loraplus needs the BERT family, not {dims.model_type}: use lora, rslora, pissa or dora")
    if lora.variant == "ia3":
        if lora.dropout:
            raise LoralabError(f"lora.variant=ia3 has no dropout: write lora.dropout=0, not {lora.dropout:g}")
        inner = layer_paths(dims.model_type).get(ROLES[-1])
        # The paper rescales keys, values, and the input of the second feed-forward map.
        second_maps = [name for name in maps if (place := _place(name)) and place[1] == inner]
        return peft.IA3Config(target_modules=[*maps], feedforward_modules=second_maps)
    if lora.variant == "vera":
        key = seed % (1 << 31)
        return peft.VeraConfig(target_modules=[*maps], r=lora.rank, vera_dropout=lora.dropout, projection_prng_key=key)
    shared = {"target_modules": [*maps], "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    if lora.variant == "adalora":
        # `AdaLoraAllocation.after_step` sets the schedule, once the number of steps is known.
        start = math.ceil(ADALORA_START * lora.rank)
        return peft.AdaLoraConfig(**shared, target_r=lora.rank, init_r=start, total_step=2, tfinal=1)
    init: Any = "pissa" if lora.variant == "pissa" else True
    return peft.LoraConfig(
        **shared,
        r=lora.rank,
        use_rslora=lora.variant == "rslora",
        use_dora=lora.variant == "dora",
        init_lora_weights=init,
    )


class AdaLoraAllocation:
    """AdaLoRA's part in training: a penalty on A and B, and ranks that are removed from the least important maps.

    Ranks fall from `init_r` to `target_r` on average by a cubic schedule, between an eighth and a half of the steps, as in the
    paper's runs on GLUE. After that they stay.
    """

    def __init__(self, tuner: Any) -> None:
        self.tuner = tuner
        self.config = tuner.peft_config[ADAPTER]
        self.allocator = tuner.rankallocator

    def penalty(self) -> Tensor:
        """The mean of ‖PᵀP - I‖ over all A and B, weighted: equation 4 of the paper."""
        sides = [p if "lora_A" in n else p.T for n, p in self.tuner.model.named_parameters() if "lora_A" in n or "lora_B" in n]
        norms = [torch.linalg.norm(side @ side.T - torch.eye(len(side), device=side.device)) for side in sides]
        penalty: Tensor = self.config.orth_reg_weight * torch.stack(norms).mean()
        return penalty

    def check_steps(self, steps: int) -> None:
        """Raise LoralabError if the training is too short to move ranks. Zero steps are allowed."""
        if 0 < steps < 4:
            raise LoralabError(f"lora.variant=adalora moves ranks between steps and needs at least 4 of them: there are {steps}")

    def after_step(self, step: int, steps: int) -> None:
        """Reallocate ranks after step `step` of `steps`, counted from 1, before the gradients are cleared."""
        self.config.total_step, self.config.tinit, self.config.tfinal = steps, steps // 8, steps // 2
        self.tuner.update_and_allocate(step - 1)

    def ranks(self) -> dict[str, int]:
        """The present rank of each map."""
        return {name: int(mask.sum()) for name, mask in self._rank_masks().items()}

    def state(self) -> dict[str, Tensor]:
        """The state of a checkpoint: averages of importance, and the ranks that were removed."""
        state: dict[str, Tensor] = {}
        for kind in ("exp_avg_ipt", "exp_avg_unc"):
            state |= {f"{kind}/{name}": tensor for name, tensor in getattr(self.allocator, kind).items()}
        pattern = self.config.rank_pattern or {}
        return state | {f"pattern/{name}": torch.tensor(kept, dtype=torch.uint8) for name, kept in pattern.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state`."""
        self.allocator.reset_ipt()
        pattern = {}
        device = next(self.tuner.model.parameters()).device
        for key, tensor in state.items():
            kind, _, name = key.partition("/")
            if kind == "pattern":
                pattern[name] = tensor.bool().tolist()
            else:
                getattr(self.allocator, kind)[name] = tensor.to(device)
                self.allocator.ipt[name] = torch.zeros_like(tensor, device=device)
        self.config.rank_pattern = pattern or None

    def store_ranks(self) -> None:
        """Store the present ranks in peft's configuration, so that peft saves only these. Removed ranks are exactly 0.

        A map that has lost all ranks keeps one, which is 0: peft considers an empty tensor damaged.
        """
        masks = self._rank_masks()
        for mask in masks.values():
            mask[0] |= not mask.any()
        self.config.rank_pattern = {name: mask.tolist() for name, mask in masks.items()}

    def _rank_masks(self) -> dict[str, Tensor]:
        return {n: (p != 0).view(-1) for n, p in self.tuner.model.named_parameters() if "lora_E" in n}
