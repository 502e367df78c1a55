"""peft's methods: which linear maps they adapt, how they are set up, and what AdaLoRA does between the steps.

DoRA (Liu et al. 2024, arXiv 2402.09353), AdaLoRA (Zhang et al. 2023, arXiv 2303.10512), VeRA (Kopiczko et al. 2023, arXiv
2310.11454), IA3 (Liu et al. 2022, arXiv 2205.05638); outside the BERT family also LoRA, rsLoRA and PiSSA (Meng et al. 2024, arXiv
2404.02948).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loralab.errors import LoralabError, need
from loralab.model.architectures import ROLES, Dimensions, Sizes, layer_paths, parse_layers

if TYPE_CHECKING:
    from loralab.model.build import Lora

ADAPTER = "default"
"""peft's name of the only adapter there is."""
ADALORA_START = 1.5
"""AdaLoRA begins with this many times the rank that it ends with on average: the paper's, and peft's 12 for 8."""


def choose_maps(linear: Sequence[str], dims: Dimensions | Sizes, targets: Sequence[str], layers: str | None) -> list[str]:
    """Return the names, of an encoder's `linear` maps, that `targets` and `layers` mean, in their order.

    A target is a role, `all` (every map of every layer), or the end of a name as the architecture has it, such as `Wqkv`.
    Raises LoralabError for a target that is not there, a role that is computed together with others which are not named, and
    a choice among layers that share their weights.
    """
    places = _places(linear if layers is None else in_layers(linear, dims, layers, "lora.layers"))
    wanted = _all_paths(places) if "all" in targets else set().union(*(_paths(t, targets, places, dims) for t in targets))
    return [name for name, (_, path) in places.items() if path in wanted]


def in_layers(names: Sequence[str], dims: Dimensions | Sizes, layers: str, setting: str) -> list[str]:
    """Return those names that lie in the layers chosen. Raises LoralabError where the layers share their weights."""
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
    """The paths below a layer that one target means."""
    roles, there = layer_paths(dims.model_type), _all_paths(places)
    if target in roles:
        together = [role for role, path in roles.items() if path == roles[target]]
        if not set(together) <= set(targets):
            raise LoralabError(
                f"lora.targets: {dims.model_type} computes {', '.join(together)} in one map: "
                f"write lora.targets={','.join(together)} or {roles[target].rsplit('.', 1)[-1]}"
            )
        return {roles[target]}
    found = {path for path in there if path == target or path.endswith(f".{target}")}
    if not found:
        words = f"{', '.join(roles)}, " if roles else ""
        raise LoralabError(
            f"lora.targets: {target!r} is not in {dims.model_type}; valid: {words}all, or its own names: {', '.join(sorted(there))}"
        )
    return found


def method_config(lora: Lora, maps: Sequence[str], dims: Dimensions | Sizes, seed: int) -> Any:
    """Return peft's configuration of a variant on the given maps. `seed` draws VeRA's shared matrices.

    Raises LoralabError for LoRA+ and for settings that the variant does not have.
    """
    peft = need("peft", "generic")
    if lora.variant == "loraplus":
        raise LoralabError(f"lora.variant=loraplus is for the BERT family, not {dims.model_type}: use lora, rslora, pissa or dora")
    if lora.variant == "ia3":
        if lora.dropout:
            raise LoralabError(f"lora.variant=ia3 has no dropout: write lora.dropout=0, not {lora.dropout:g}")
        inner = layer_paths(dims.model_type).get(ROLES[-1])
        # The paper rescales keys, values, and what goes into the feed-forward's second map.
        inputs = [name for name in maps if (place := _place(name)) and place[1] == inner]
        return peft.IA3Config(target_modules=[*maps], feedforward_modules=inputs)
    if lora.variant == "vera":
        key = seed % (1 << 31)
        return peft.VeraConfig(target_modules=[*maps], r=lora.rank, vera_dropout=lora.dropout, projection_prng_key=key)
    shared = {"target_modules": [*maps], "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    if lora.variant == "adalora":
        # The schedule is set when the number of steps is known: `Allocation.after_step`.
        start = math.ceil(ADALORA_START * lora.rank)
        return peft.AdaLoraConfig(**shared, target_r=lora.rank, init_r=start, total_step=2, tfinal=1)
    start_from: Any = "pissa" if lora.variant == "pissa" else True
    return peft.LoraConfig(
        **shared,
        r=lora.rank,
        use_rslora=lora.variant == "rslora",
        use_dora=lora.variant == "dora",
        init_lora_weights=start_from,
    )


class Allocation:
    """AdaLoRA's part in training: the penalty on A and B, and the ranks, taken from where they matter least.

    Ranks fall from `init_r` to `target_r` on average, by a cubic schedule, between an eighth and a half of the steps, as in the
    paper's runs on GLUE; from then on they stay.
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
        """Raise LoralabError for a training too short to move ranks in; none at all is not."""
        if 0 < steps < 4:
            raise LoralabError(f"lora.variant=adalora moves ranks between steps and needs at least 4 of them: there are {steps}")

    def after_step(self, step: int, steps: int) -> None:
        """Reallocate after step `step` of `steps`, counted from 1, while the gradients are still there."""
        self.config.total_step, self.config.tinit, self.config.tfinal = steps, steps // 8, steps // 2
        self.tuner.update_and_allocate(step - 1)

    def ranks(self) -> dict[str, int]:
        """The rank that each map has now."""
        return {name: int(kept.sum()) for name, kept in self._kept().items()}

    def state(self) -> dict[str, Tensor]:
        """What must be kept to go on: the averages of importance, and who has been left out."""
        state: dict[str, Tensor] = {}
        for kind in ("exp_avg_ipt", "exp_avg_unc"):
            state |= {f"{kind}/{name}": tensor for name, tensor in getattr(self.allocator, kind).items()}
        pattern = self.config.rank_pattern or {}
        return state | {f"pattern/{name}": torch.tensor(kept, dtype=torch.uint8) for name, kept in pattern.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`."""
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

    def settle(self) -> None:
        """Tell peft which ranks the present weights have, so that it saves those alone: what is left out is exactly 0.

        A map that has lost all keeps one, which is 0: peft takes an empty tensor for a damaged one.
        """
        kept = self._kept()
        for mask in kept.values():
            mask[0] |= not mask.any()
        self.config.rank_pattern = {name: mask.tolist() for name, mask in kept.items()}

    def _kept(self) -> dict[str, Tensor]:
        return {n: (p != 0).view(-1) for n, p in self.tuner.model.named_parameters() if "lora_E" in n}
