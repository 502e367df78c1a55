"""A search's results as files: every trial as CSV, the best settings for `loralab train`, the data of the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loralab.config import Config
from loralab.config.yaml_core import dump_yaml
from loralab.experiments.importance import Importance
from loralab.experiments.study import SearchSettings, SearchTrial
from loralab.storage.experiment_folder import BEST, PARETO, TABLE, ExperimentSpec, write_search
from loralab.storage.files import atomic_write, write_errors
from loralab.tables import csv_writer

FACTS = ("trainable", "steps", "seconds")


def write_search_results(
    folder: Path,
    spec: ExperimentSpec,
    settings: SearchSettings,
    trials: Sequence[SearchTrial],
    best: Sequence[int],
    importances: Mapping[str, Importance],
) -> None:
    """Write trials.csv, for two objectives pareto.csv, and search.json, which has the checksums of pareto.csv and best.yaml.

    best: the numbers of the best trials, ties included.
    """
    write_trial_table(folder / TABLE, settings, trials)
    results = {
        "objectives": [*settings.objectives],
        "minimised": [*settings.minimised],
        "sampler": settings.sampler,
        "pruner": settings.pruner if settings.prunes else "none",
        "requested_trials": settings.trials,
        "axes": [{"name": axis.name, "log": axis.log, "choices": [*axis.choices]} for axis in settings.space.axes],
        "best": [*best],
        "importance": {name: asdict(importance) for name, importance in importances.items()},
        "trials": [_trial_facts(trial) for trial in trials],
    }
    if len(settings.objectives) > 1:
        by_number = {trial.number: trial for trial in trials}
        write_trial_table(folder / PARETO, settings, [by_number[number] for number in best])
    write_search(folder, spec, results)


def write_best_settings(folder: Path, header: Sequence[str], config: Config) -> None:
    """Write best.yaml: the settings that differ from loralab's defaults, below `header` as comments."""
    changed = config.model_dump(mode="json", exclude_defaults=True)
    with write_errors(folder), atomic_write(folder / BEST) as file:
        file.writelines(f"# {' '.join(line.split())}\n" for line in header)
        file.write(dump_yaml(changed))


def write_trial_table(path: Path, settings: SearchSettings, trials: Sequence[SearchTrial]) -> None:
    """Write trials as CSV, whatever their state."""
    axes = [axis.name for axis in settings.space.axes]
    with write_errors(path), atomic_write(path) as file:
        table = csv_writer(file)
        facts = [name for name in FACTS if name not in settings.objectives]
        table.writerow(["number", "state", *axes, *settings.objectives, *facts, "reason"])
        for trial in trials:
            values = [f"{value:.10g}" for value in trial.values or ()] or [""] * len(settings.objectives)
            cells = [*(trial.points.get(axis, "") for axis in axes), *values, *(trial.facts.get(name, "") for name in facts)]
            table.writerow([trial.number, trial.state, *cells, trial.reason or ""])


def _trial_facts(trial: SearchTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "points": dict(trial.points),
        "values": None if trial.values is None else [*trial.values],
        "evaluations": [[evaluation, value] for evaluation, value in sorted(trial.evaluations.items())],
        **{name: trial.facts.get(name) for name in FACTS},
        "reason": trial.reason,
    }
