"""The kinds of experiment: question, varied settings, and default points that finish in minutes on two cores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from loralab.errors import LoralabError, suggest


@dataclass(frozen=True)
class ExperimentKind:
    """One kind of experiment.

    axes: varied setting → default points, as typed; the point `2r` of lora.alpha is twice the rank.
    design: every combination (grid); one setting at a time around the recipe's values (one-at-a-time); trials that choose the rows
    of the next trials (sequential); existing runs (runs).
    any_setting: --points may name other settings instead.
    resample: each seed also samples its own training rows (data.sample_seed); the test rows stay the same.
    fixed: settings of every trial unless the user sets them. `active` uses no validation rows, because they would need labels too;
    data.max_train_samples bounds its pool.
    """

    name: str
    question: str
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (42,)
    design: Literal["grid", "one-at-a-time", "sequential", "runs"] = "grid"
    any_setting: bool = False
    resample: bool = False
    fixed: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return the question, the default points and seeds, the fixed settings and the command, as a few lines of text."""
        lines = [f"{self.name}: {self.question}", *(f"--points {axis}={','.join(points)}" for axis, points in self.axes.items())]
        if self.any_setting:
            lines.append("--points can name any other settings instead")
        if self.seeds:
            lines.append(
                f"--seeds {','.join(map(str, self.seeds))}" + (", each with its own training rows" if self.resample else "")
            )
        if self.fixed:
            lines.append(f"{' '.join(self.fixed)}, unless set")
        arguments = "RUN RUN ..." if self.design == "runs" else "RECIPE[,RECIPE] [KEY=VALUE ...]"
        return "\n  ".join([*lines, f"loralab experiment {self.name} {arguments}"])


def find_kind(name: str) -> ExperimentKind:
    """Return a kind by name. Raises LoralabError for an unknown one."""
    if name not in KINDS:
        raise LoralabError(f"unknown experiment {name!r}{suggest(name, KINDS)}; kinds: {', '.join(KINDS)}")
    return KINDS[name]


KINDS: Mapping[str, ExperimentKind] = {
    kind.name: kind
    for kind in (
        ExperimentKind(
            "seeds", "How much do scores vary between seeds? Compares recipes over the same seeds.", seeds=(1, 2, 3, 4, 5)
        ),
        ExperimentKind(
            "grid",
            "Which combination is best, such as learning rate and weight decay? Runs every combination.",
            {"train.learning_rate": ("1e-4", "3e-4", "1e-3", "3e-3"), "train.weight_decay": ("0", "0.01", "0.1")},
            any_setting=True,
        ),
        ExperimentKind(
            "ablation",
            "What does each setting contribute? Varies one setting at a time around the recipe's values.",
            {
                "lora.targets": ("query", "value", "query+value", "all"),
                "lora.rank": ("2", "4", "8", "16"),
                "lora.alpha": ("0.5r", "1r", "2r"),
                "lora.dropout": ("0", "0.1", "0.2"),
                "train.learning_rate": ("3e-4", "1e-3", "3e-3"),
            },
            design="one-at-a-time",
            any_setting=True,
        ),
        ExperimentKind(
            "layers",
            "How many top layers need adapters?",
            {"lora.layers": ("top1", "top2", "top3", "top4", "all")},
            seeds=(1, 2, 3),
        ),
        ExperimentKind(
            "few-shot",
            "What accuracy do a few labelled rows per class give? Repeats over samples of the rows.",
            {"data.shots_per_class": ("1", "2", "5", "10", "20", "50")},
            seeds=(1, 2, 3),
            resample=True,
            fixed=("data.validation=0",),
        ),
        ExperimentKind(
            "scaling",
            "What would more training rows gain? Fits a power law to the error at each size.",
            {"data.max_train_samples": ("50", "100", "200", "400")},
            seeds=(1, 2, 3),
            resample=True,
        ),
        ExperimentKind(
            "augmentation",
            "Does data augmentation help? Compares each technique and their mix with none.",
            {
                "data.augment": ("synonym", "insertion", "deletion", "swap", "synonym+insertion+deletion+swap"),
                "data.augment_ratio": ("0", "0.5"),
            },
            seeds=(1, 2, 3),
        ),
        ExperimentKind(
            "zero-shot",
            "What accuracy do class names and class descriptions give without training?",
            {"data.descriptions": ("none", "recipe")},
            any_setting=True,
            fixed=("train.epochs=0", "train.head_init=descriptions", "data.validation=0"),
        ),
        ExperimentKind(
            "active",
            "Which rows should be labelled next? Compares strategies that start from the same rows.",
            {"strategy": ("random", "least-confidence", "margin", "entropy", "badge"), "labels": ("25", "50", "100", "200")},
            seeds=(1, 2, 3),
            design="sequential",
            fixed=("data.validation=0", "data.max_train_samples=10000"),
        ),
        ExperimentKind(
            "compare", "Which finished run is better? Compares runs on their shared test rows.", seeds=(), design="runs"
        ),
    )
}
