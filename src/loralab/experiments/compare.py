"""Finished runs, however they came about, as the trials of one experiment: nothing is run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loralab.config import Config
from loralab.errors import LoralabError
from loralab.experiments.plans import choose_axes
from loralab.experiments.spec import Kind
from loralab.storage import run_folder
from loralab.storage.experiment_folder import TRIALS, ExperimentSpec, Factor, Trial, find_runs

_SEED = re.compile(r"(?:^|[-_])s(eed)?-?\d+$")
_SPEED = ("threads", "max_tokens_per_microbatch", "cuda_graphs", "cache", "feature_cache_gb")
"""Settings of `train` that change how fast a run is and not what comes out: runs that differ by these alone are one recipe."""


@dataclass(frozen=True)
class Comparison:
    """Runs by the names they get; `factors` of each: its recipe, the settings that set the recipes apart, its seed."""

    question: ExperimentSpec
    runs: Mapping[str, Path]
    configs: Mapping[str, Config]
    factors: Mapping[str, Mapping[str, Factor]]

    def inputs(self) -> Sequence[Config]:
        """None: nothing is read anew."""
        return []

    def rounds(self, folder: Path, say: Callable[[str], None] = lambda what: None) -> Iterator[Sequence[Trial]]:
        """Yield the runs, all complete, by their folders relative to the experiment's: both may be moved together."""
        here = folder.resolve()
        yield [
            Trial(name, self.configs[name], self.factors[name], os.path.relpath(run.resolve(), here))
            for name, run in self.runs.items()
        ]


def plan_comparison(
    kind: Kind,
    folders: Sequence[str],
    settings: Sequence[str] = (),
    points: Mapping[str, Sequence[str]] | None = None,
    seeds: Sequence[int] | None = None,
) -> Comparison:
    """Compare two runs or more: their folders, or experiments, which stand for their complete trials.

    Runs that differ by seed alone are one recipe, and are paired with the others' by seed. Raises LoralabError for a run that is
    not complete, for test rows that differ, for the same settings and seed twice, and for settings, points or seeds, which finished
    runs cannot take.
    """
    choose_axes(kind, points or {})
    if seeds is not None or settings:
        raise LoralabError(f"{kind.name} takes finished runs as they are: leave out settings and --seeds")
    found = short_names([run for folder in folders for run in find_runs(Path(folder))])
    if len(found) < 2:
        raise LoralabError(f"{kind.name} needs two runs or more: loralab experiment {kind.name} runs/A runs/B")
    check_test_rows(found)
    configs = {name: run_folder.read_config(run) for name, run in found.items()}
    factors = tell_apart(configs)
    varied: dict[str, dict[Factor, None]] = {}
    for each in factors.values():
        for name, value in each.items():
            varied.setdefault(name, {})[value] = None
    question = ExperimentSpec(kind.name, kind.asks, tuple(folders), (), {name: [*values] for name, values in varied.items()})
    return Comparison(question, found, configs, factors)


def short_names(folders: Sequence[Path]) -> dict[str, Path]:
    """Name each run by the last parts of its path, as few as set them all apart. Raises LoralabError for one given twice."""
    resolved = [folder.resolve() for folder in folders]
    if twice := [folder for i, folder in enumerate(resolved) if folder in resolved[:i]]:
        raise LoralabError(f"{twice[0]} is given twice")
    parts = [[part for part in folder.parts[1:] if part != TRIALS] for folder in resolved]
    names: list[str] = []
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["_".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            break
    else:  # x/a_b and x_a/b
        names = [f"{name}-{i}" for i, name in enumerate(names, 1)]
    return dict(zip(names, folders, strict=True))


def check_test_rows(found: Mapping[str, Path]) -> None:
    """Raise LoralabError unless all runs were tested on the same rows: other scores are not comparable."""
    tested: dict[str, str] = {}
    for name, run in found.items():
        try:
            tested.setdefault(run_folder.read_environment(run)["rows"]["test"]["fingerprint"], name)
        except (KeyError, TypeError) as error:
            raise LoralabError(f"{run} does not say which rows it was tested on: train it again") from error
    if len(tested) > 1:
        first, second, *_ = tested.values()
        raise LoralabError(
            f"{first} and {second} were tested on different rows: give them one data.test, data.split_seed and data.max_test_samples "
            "and train again, or compare them on a file with `loralab evaluate`"
        )


def tell_apart(configs: Mapping[str, Config]) -> dict[str, dict[str, Factor]]:
    """Return each run's recipe, the settings that are not the same in all recipes, and its seed.

    A recipe is named after its first run, less the seed. Raises LoralabError for the same settings and seed twice.
    """
    flat = {name: _flat(config) for name, config in configs.items()}
    first = next(iter(flat.values()))
    differing = [setting for setting in first if any(each[setting] != first[setting] for each in flat.values())]
    groups: dict[tuple[Factor, ...], str] = {}
    seen: dict[tuple[str, int], str] = {}
    told: dict[str, dict[str, Factor]] = {}
    for name, config in configs.items():
        key = tuple(flat[name][setting] for setting in differing)
        if key not in groups:
            stem = _SEED.sub("", name) or name
            free = (
                each for each in (stem, name, *(f"{name}-{i}" for i in range(2, len(configs) + 2))) if each not in groups.values()
            )
            groups[key] = next(free)
        recipe = groups[key]
        if earlier := seen.get((recipe, config.seed)):
            raise LoralabError(f"{earlier} and {name} have the same settings and seed: leave one of them out")
        seen[recipe, config.seed] = name
        told[name] = {"recipe": recipe, **dict(zip(differing, key, strict=True)), "seed": config.seed}
    return told


def _flat(config: Config) -> dict[str, Factor]:
    """Every setting that may set recipes apart, by its dotted name. Rows that the seed itself draws are the seed's part."""
    content: dict[str, Any] = config.model_dump(mode="json", exclude={"name": True, "seed": True, "train": set(_SPEED)})
    if content["data"]["sample_seed"] == config.seed:
        content["data"]["sample_seed"] = "seed"
    found: dict[str, Factor] = {}
    for name, value in content.items():
        for inner, each in value.items() if isinstance(value, dict) else [("", value)]:
            found[f"{name}.{inner}".rstrip(".")] = "+".join(map(str, each)) if isinstance(each, list) else _plain(each)
    return found


def _plain(value: Any) -> Factor:
    return value if isinstance(value, Factor) else str(value)
