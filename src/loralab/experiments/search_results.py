"""What a search found, as files: every trial as CSV, the best settings ready for `loralab train`, and the rows of the figures."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loralab.config import Config
from loralab.experiments.study import Row, Rules
from loralab.storage import run_folder
from loralab.storage.experiment_folder import BEST, FOUND, PARETO, TABLE

FACTS = ("trainable", "steps", "seconds")


def write_table(folder: Path, rules: Rules, rows: Sequence[Row]) -> None:
    """Write every trial, those that were pruned, failed or rejected too."""
    _write_csv(folder / TABLE, rules, rows)


def write_found(
    folder: Path,
    rules: Rules,
    rows: Sequence[Row],
    best: Sequence[int],
    importances: Mapping[str, Mapping[str, float]],
    configs: Mapping[int, Config],
) -> None:
    """Write trials.csv, search.json, and where a trial is complete best.yaml, with two objectives pareto.csv too.

    best: numbers of the best trials, the best by the first objective first; configs: their settings.
    """
    write_table(folder, rules, rows)
    run_folder.write_json(
        folder / FOUND, {**_facts(rules), "best": [*best], "importance": importances, "trials": [_as_dict(r) for r in rows]}
    )
    by_number = {row.number: row for row in rows}
    if len(rules.objectives) > 1:
        _write_csv(folder / PARETO, rules, [by_number[number] for number in best])
    if best:
        values = ", ".join(
            f"{name} {value:.6g}" for name, value in zip(rules.objectives, by_number[best[0]].values or (), strict=True)
        )
        with run_folder.says_disk(folder), run_folder.atomic(folder / BEST) as file:
            file.write(f"# trial {best[0]} of a search: {values} on the validation rows\n{configs[best[0]].to_yaml()}")


def _write_csv(path: Path, rules: Rules, rows: Sequence[Row]) -> None:
    axes = [axis.name for axis in rules.space.axes]
    with run_folder.says_disk(path), run_folder.atomic(path) as file:
        table = csv.writer(file, lineterminator="\n")
        facts = [name for name in FACTS if name not in rules.objectives]
        table.writerow(["number", "state", *axes, *rules.objectives, *facts, "reason"])
        for row in rows:
            values = [f"{value:.10g}" for value in row.values or ()] or [""] * len(rules.objectives)
            known = [row.facts.get(name, "") for name in facts]
            table.writerow([row.number, row.state, *(row.points.get(axis, "") for axis in axes), *values, *known, row.reason or ""])


def _facts(rules: Rules) -> dict[str, Any]:
    return {
        "objectives": [*rules.objectives],
        "minimised": [*rules.minimised],
        "sampler": rules.sampler,
        "pruner": rules.pruner if rules.prunes else "none",
        "asked": rules.trials,
        "axes": [{"name": axis.name, "log": axis.log, "choices": [*axis.choices]} for axis in rules.space.axes],
    }


def _as_dict(row: Row) -> dict[str, Any]:
    return {
        "number": row.number,
        "state": row.state,
        "points": dict(row.points),
        "values": None if row.values is None else [*row.values],
        "evaluations": [[evaluation, value] for evaluation, value in sorted(row.evaluations.items())],
        **{name: row.facts.get(name) for name in FACTS},
        "reason": row.reason,
    }
