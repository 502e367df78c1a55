"""The kinds of experiment, each a question with the settings it varies and points that end in minutes on two cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from loralab.errors import LoralabError, nearest

THREE = (1, 2, 3)


@dataclass(frozen=True)
class Kind:
    """One kind of study.

    axes: each setting that varies, with its points as they are typed; a point `2r` of lora.alpha is twice the rank.
    design: every combination (grid); one axis at a time around the recipe's own values (around); trials each of which decides the
    rows of the next (chains); or runs that are there already (runs).
    free: other settings than these may be varied instead, by --points.
    draws: each seed also draws other training rows (data.sample_seed); the test rows stay.
    always: settings of every trial, which the user's own override. `active` has no validation rows, whose labels would be no less
    work, and data.max_train_samples bounds the rows that it chooses from.
    """

    name: str
    asks: str
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (42,)
    design: Literal["grid", "around", "chains", "runs"] = "grid"
    free: bool = False
    draws: bool = False
    always: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return the question with what is varied, its points and seeds, and what is held, in a few lines of text."""
        lines = [f"{self.name}: {self.asks}", *(f"--points {axis}={','.join(points)}" for axis, points in self.axes.items())]
        if self.free:
            lines.append("--points may name any other settings in their place")
        if self.seeds:
            lines.append(f"--seeds {','.join(map(str, self.seeds))}" + (", each with other training rows" if self.draws else ""))
        if self.always:
            lines.append(f"{' '.join(self.always)}, unless given")
        takes = "RUN RUN ..." if self.design == "runs" else "RECIPE[,RECIPE] [KEY=VALUE ...]"
        return "\n  ".join([*lines, f"loralab experiment {self.name} {takes}"])


def find_kind(name: str) -> Kind:
    """Return a kind by its name. Raises LoralabError with the names there are."""
    if name not in KINDS:
        raise LoralabError(f"there is no experiment {name!r}{nearest(name, KINDS)}; kinds: {', '.join(KINDS)}")
    return KINDS[name]


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("seeds", "How much of a score is luck? Recipes compared over the same seeds.", seeds=(1, 2, 3, 4, 5)),
        Kind(
            "grid",
            "Which learning rate and weight decay? Every combination of the points.",
            {"train.learning_rate": ("1e-4", "3e-4", "1e-3", "3e-3"), "train.weight_decay": ("0", "0.01", "0.1")},
            free=True,
        ),
        Kind(
            "ablation",
            "What does each choice contribute? One setting at a time around the recipe's own.",
            {
                "lora.targets": ("query", "value", "query+value", "all"),
                "lora.rank": ("2", "4", "8", "16"),
                "lora.alpha": ("0.5r", "1r", "2r"),
                "lora.dropout": ("0", "0.1", "0.2"),
                "train.learning_rate": ("3e-4", "1e-3", "3e-3"),
            },
            design="around",
            free=True,
        ),
        Kind(
            "layers",
            "Which top layers suffice?",
            {"lora.layers": ("top1", "top2", "top3", "top4", "all")},
            seeds=THREE,
        ),
        Kind(
            "few-shot",
            "What do a few labelled rows of each class buy? Several draws of the rows.",
            {"data.shots_per_class": ("1", "2", "5", "10", "20", "50")},
            seeds=THREE,
            draws=True,
            always=("data.validation=0",),
        ),
        Kind(
            "scaling",
            "What would more rows buy? A power law through the error at each size.",
            {"data.max_train_samples": ("50", "100", "200", "400")},
            seeds=THREE,
            draws=True,
        ),
        Kind(
            "augmentation",
            "Do more rows made of the same rows help? Each technique apart, and mixed, against none.",
            {
                "data.augment": ("synonym", "insertion", "deletion", "swap", "synonym+insertion+deletion+swap"),
                "data.augment_ratio": ("0", "0.5"),
            },
            seeds=THREE,
        ),
        Kind(
            "zero-shot",
            "What do the names of the classes tell, and what their descriptions? Nothing is trained.",
            {"data.descriptions": ("none", "own")},
            free=True,
            always=("train.epochs=0", "train.head_init=descriptions", "data.validation=0"),
        ),
        Kind(
            "active",
            "Which rows are worth labelling? Strategies that begin with the same rows.",
            {"strategy": ("random", "least-confidence", "margin", "entropy", "badge"), "labels": ("25", "50", "100", "200")},
            seeds=THREE,
            design="chains",
            always=("data.validation=0", "data.max_train_samples=10000"),
        ),
        Kind("compare", "Which of these runs is better? Finished runs, on the test rows that they share.", seeds=(), design="runs"),
    )
}
