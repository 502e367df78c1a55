"""The kinds of experiment: question, varied settings, and default points that finish in minutes on two cores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
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
    axes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seeds: Sequence[int] = (42,)
    design: Literal["grid", "one-at-a-time", "sequential", "runs"] = "grid"
    any_setting: bool = False
    resample: bool = False
    fixed: Sequence[str] = ()

    def describe(self) -> str:
        """Return the question, the default points and seeds, the fixed settings and the command, as a few lines of text."""
        lines = [f"{self.name}: {self.question}", *(f"--points {axis}={','.join(points)}" for axis, points in self.axes.items())]
        if self.any_setting:
            lines.append("--points can name any other settings instead")
        if self.seeds:
            rows = ", each with its own training rows" if self.resample else ""
            lines.append(f"--seeds {','.join(map(str, self.seeds))}{rows}")
        if self.fixed:
            lines.append(f"{' '.join(self.fixed)}, unless set")
        arguments = "RUN RUN ..." if self.design == "runs" else "RECIPE[,RECIPE] [KEY=VALUE ...]"
        return "\n  ".join([*lines, f"loralab experiment {self.name} {arguments}"])


_ENTRIES = json.loads((resources.files("loralab.experiments") / "kinds.json").read_text(encoding="utf-8"))
KINDS: Mapping[str, ExperimentKind] = {entry["name"]: ExperimentKind(**entry) for entry in _ENTRIES}


def find_kind(name: str) -> ExperimentKind:
    """Return a kind by name. Raises LoralabError for an unknown one."""
    if name not in KINDS:
        raise LoralabError(f"unknown experiment {name!r}{suggest(name, KINDS)}; kinds: {', '.join(KINDS)}")
    return KINDS[name]
