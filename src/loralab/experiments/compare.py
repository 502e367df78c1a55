"""Finished runs as the trials of an experiment. Nothing is run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loralab.config import Config
from loralab.errors import LoralabError
from loralab.experiments.plans import choose_axes, points_of_factors, to_factor
from loralab.experiments.spec import ExperimentKind
from loralab.metrics import NO_TEST_ROWS
from loralab.storage import run_folder
from loralab.storage.experiment_folder import TRIALS, ExperimentSpec, Factor, Trial, find_runs

_SEED_SUFFIX = re.compile(r"(?:^|[-_])s(eed)?-?\d+$")
_SPEED_SETTINGS = {"threads", "max_tokens_per_microbatch", "feature_cache", "feature_cache_gb"}
"""Settings of `train` that affect speed, not results: runs that differ in these alone belong to one recipe."""


@dataclass(frozen=True)
class ComparisonPlan:
    """Runs by name. factors: of each run, its recipe, the settings that differ between recipes, and its seed."""

    spec: ExperimentSpec
    runs: Mapping[str, Path]
    configs: Mapping[str, Config]
    factors: Mapping[str, Mapping[str, Factor]]

    def inputs(self) -> Sequence[Config]:
        """Return no configs: nothing is trained."""
        return []

    def rounds(self, folder: Path, on_progress: Callable[[str], None] = lambda message: None) -> Iterator[Sequence[Trial]]:
        """Yield the complete runs, with paths relative to the experiment's folder, so that both can be moved together."""
        base = folder.resolve()
        yield [
            Trial(name, self.configs[name], self.factors[name], os.path.relpath(run.resolve(), base))
            for name, run in self.runs.items()
        ]


def plan_comparison(
    kind: ExperimentKind,
    folders: Sequence[str],
    settings: Sequence[str] = (),
    points: Mapping[str, Sequence[str]] | None = None,
    seeds: Sequence[int] | None = None,
) -> ComparisonPlan:
    """Compare two or more runs, given as run folders or as experiments, which stand for their complete trials.

    Runs that differ in their seed alone are one recipe; recipes are paired by seed. Raises LoralabError for an incomplete run, for
    different test rows, for two runs of the same settings and seed, and for settings, points or seeds.
    """
    choose_axes(kind, points or {})
    if seeds is not None or settings:
        raise LoralabError(f"{kind.name} takes finished runs: leave out settings and --seeds")
    runs = short_names([run for folder in folders for run in find_runs(Path(folder))])
    if len(runs) < 2:
        raise LoralabError(f"{kind.name} needs at least two runs: loralab experiment {kind.name} runs/A runs/B")
    check_test_rows(runs)
    configs = {name: run_folder.read_config(run) for name, run in runs.items()}
    factors = find_factors(configs)
    spec = ExperimentSpec(kind.name, kind.question, tuple(folders), (), points_of_factors(factors.values()))
    return ComparisonPlan(spec, runs, configs, factors)


def short_names(folders: Sequence[Path]) -> dict[str, Path]:
    """Name each run by the fewest last parts of its path that make all names unique and say more than the seed.

    Raises LoralabError for a duplicate.
    """
    resolved = [folder.resolve() for folder in folders]
    if duplicates := [folder for i, folder in enumerate(resolved) if folder in resolved[:i]]:
        raise LoralabError(f"{duplicates[0]} is given twice")
    parts = [[part for part in folder.parts[1:] if part != TRIALS] for folder in resolved]
    names: list[str] = []
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["_".join(path_parts[-depth:]) for path_parts in parts]
        if depth == 1:  # a trial named by its seed alone: its experiment says what it is
            names = [
                "_".join(parts[i][-2:]) if _SEED_SUFFIX.fullmatch(name) and resolved[i].parent.name == TRIALS else name
                for i, name in enumerate(names)
            ]
        if len(set(names)) == len(names):
            break
    else:  # x/a_b and x_a/b
        names = [f"{name}-{i}" for i, name in enumerate(names, 1)]
    return dict(zip(names, folders, strict=True))


def check_test_rows(runs: Mapping[str, Path]) -> None:
    """Raise LoralabError unless all runs have the same test rows, without which their scores are not comparable."""
    names: dict[str, str] = {}
    for name, run in runs.items():
        if run_folder.read_config(run).data.test == 0:
            raise LoralabError(
                f"{run} has {NO_TEST_ROWS}: train it with data.test=0.2, or score each run on a file with `loralab evaluate`"
            )
        try:
            names.setdefault(run_folder.read_environment(run)["rows"]["test"]["fingerprint"], name)
        except (KeyError, TypeError) as error:
            raise LoralabError(f"{run} has no record of its test rows: train it again") from error
    if len(names) > 1:
        first, second, *_ = names.values()
        raise LoralabError(
            f"{first} and {second} were tested on different rows: train them with the same data.test, data.split_seed and "
            "data.max_test_samples, or compare them on a file with `loralab evaluate`"
        )


def find_factors(configs: Mapping[str, Config]) -> dict[str, dict[str, Factor]]:
    """Return each run's recipe, the settings that differ between recipes, and its seed.

    A recipe is named after its first run, without the seed. Raises LoralabError for two runs of the same settings and seed.
    """
    flat = {name: _flatten(config) for name, config in configs.items()}
    first = next(iter(flat.values()))
    differing = [name for name in first if any(settings[name] != first[name] for settings in flat.values())]
    recipes: dict[tuple[Factor, ...], str] = {}
    seen: dict[tuple[str, int], str] = {}
    factors: dict[str, dict[str, Factor]] = {}
    for name, config in configs.items():
        values = tuple(flat[name][setting] for setting in differing)
        if values not in recipes:
            candidates = (
                _SEED_SUFFIX.sub("", name).removeprefix("recipe-") or name,
                name,
                *(f"{name}-{i}" for i in range(2, len(configs) + 2)),
            )
            recipes[values] = next(candidate for candidate in candidates if candidate not in recipes.values())
        recipe = recipes[values]
        if earlier := seen.get((recipe, config.seed)):
            raise LoralabError(f"{earlier} and {name} have the same settings and seed: leave one of them out")
        seen[recipe, config.seed] = name
        factors[name] = {"recipe": recipe, **dict(zip(differing, values, strict=True)), "seed": config.seed}
    return factors


def _flatten(config: Config) -> dict[str, Factor]:
    """Return the settings that may distinguish recipes, by dotted name. A sample_seed equal to the seed belongs to the seed."""
    content: dict[str, Any] = config.model_dump(mode="json", exclude={"name": True, "seed": True, "train": _SPEED_SETTINGS})
    if content["data"]["sample_seed"] == config.seed:
        content["data"]["sample_seed"] = "seed"
    flat: dict[str, Factor] = {}
    for name, value in content.items():
        for inner, setting in value.items() if isinstance(value, dict) else [("", value)]:
            flat[f"{name}.{inner}".rstrip(".")] = to_factor(setting)
    return flat
