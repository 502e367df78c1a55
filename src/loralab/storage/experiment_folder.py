"""Experiment folders: the only module that knows the names inside one.

experiment.json  the question: kind, recipes, varied and fixed settings, and every trial with its factors
trials/NAME/     one run folder for each trial
rows/            the rows of all trials, if they were in memory
study.journal    the Optuna study of a search, unless it is in a database; *.lock next to it
search.json, best.yaml, pareto.csv
                 the results of a search: every trial with its values, the best settings, the Pareto front
indices/         the rows selected for the trials: NAME.txt, and pool.json, the rows they were selected from
trials.csv, tables/, figures/, report.html
                 written from the files above by `loralab report`
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loralab.config import Config
from loralab.errors import LoralabError
from loralab.storage import run_folder
from loralab.storage.files import write_errors, write_json

EXPERIMENT, TRIALS, INDICES, ROWS = "experiment.json", "trials", "indices", run_folder.ROWS
TABLE, TABLES, FIGURES, REPORT = "trials.csv", "tables", "figures", "report.html"
STUDY, STUDY_LOCK, CLAIM_LOCK = "study.journal", "study.journal.lock", "study.lock"
SEARCH_RESULTS, BEST, PARETO = "search.json", "best.yaml", "pareto.csv"
_DERIVED = (TABLE, TABLES, FIGURES, REPORT, SEARCH_RESULTS, BEST, PARETO)
NAMES = frozenset((EXPERIMENT, TRIALS, INDICES, ROWS, STUDY, STUDY_LOCK, CLAIM_LOCK, *_DERIVED))
"""Every name in an experiment folder. `--overwrite` deletes nothing else."""

Factor = str | int | float | bool | None
"""A value that differs between trials, as it is displayed."""


@dataclass(frozen=True)
class Trial:
    """One run of an experiment. factors: what differs between trials, such as {"lora.rank": 4, "seed": 1}.

    run: the run folder relative to the experiment folder, if it is not trials/NAME. Trials can share a run or use an earlier one.
    """

    name: str
    config: Config
    factors: Mapping[str, Factor]
    run: str | None = None

    @property
    def external(self) -> bool:
        """True for a run outside the experiment folder. It is read, never trained."""
        return self.run is not None and not self.run.startswith(f"{TRIALS}/")


@dataclass(frozen=True)
class ExperimentSpec:
    """The question of an experiment. varied: each factor with its values. fixed: `key=value` settings of all trials."""

    kind: str
    question: str
    recipes: tuple[str, ...]
    fixed: tuple[str, ...]
    varied: Mapping[str, Sequence[Factor]]


@dataclass(frozen=True)
class TrialRecord:
    """A trial in experiment.json. run: as in Trial. failure, pruned: why the trial failed or was pruned."""

    name: str
    factors: Mapping[str, Factor]
    fingerprint: str
    failure: str | None = None
    pruned: str | None = None
    run: str | None = None

    @classmethod
    def of(cls, trial: Trial, failure: str | None = None, pruned: str | None = None) -> TrialRecord:
        """Return the record of a trial."""
        return cls(trial.name, dict(trial.factors), trial.config.fingerprint(), failure, pruned, trial.run)


@dataclass(frozen=True)
class Experiment:
    """The contents of experiment.json."""

    spec: ExperimentSpec
    records: tuple[TrialRecord, ...]


def trial_folder(folder: Path, trial: Trial | TrialRecord) -> Path:
    """Return a trial's run folder."""
    return folder / (trial.run or f"{TRIALS}/{trial.name}")


def is_experiment(folder: Path) -> bool:
    """Return whether the folder holds an experiment."""
    return (folder / EXPERIMENT).is_file()


def remove_experiment(folder: Path) -> None:
    """Delete an experiment with its trials. Raises LoralabError if the folder has a file that no experiment writes."""
    if not is_experiment(folder):
        return
    if unknown := sorted(path.name for path in folder.iterdir() if path.name not in NAMES):
        raise LoralabError(f"{folder} contains {unknown[0]}, which is not part of an experiment: move it, or choose another --name")
    for path in folder.glob(f"{TRIALS}/[!.]*"):  # incomplete folders of a killed process start with a dot
        if not (path / run_folder.CONFIG).is_file():
            raise LoralabError(f"{path} is not a run: move it, or choose another --name")
    shutil.rmtree(folder)


def write_experiment(folder: Path, spec: ExperimentSpec, records: Iterable[TrialRecord]) -> None:
    """Write the question and every trial planned so far, atomically."""
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / EXPERIMENT, {**asdict(spec), "trials": [asdict(record) for record in records]})


def read_experiment(folder: Path) -> Experiment:
    """Read an experiment. Raises LoralabError if there is none or its file is damaged."""
    path = folder / EXPERIMENT
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        records = tuple(TrialRecord(**{**record, "factors": dict(record["factors"])}) for record in content.pop("trials"))
        lists = {name: tuple(content[name]) for name in ("recipes", "fixed")}
        spec = ExperimentSpec(**{**content, **lists, "varied": dict(content["varied"])})
    except FileNotFoundError as error:
        raise LoralabError(f"{folder} is not an experiment: it has no {EXPERIMENT}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoralabError(f"{path} is damaged ({error!r}): run the experiment again; completed trials are skipped") from error
    return Experiment(spec, records)


def find_runs(folder: Path) -> list[Path]:
    """Return the folders of an experiment's complete trials, or a run's own folder. Raises LoralabError if nothing is complete."""
    if is_experiment(folder):
        trials = dict.fromkeys(trial_folder(folder, record) for record in read_experiment(folder).records if record.failure is None)
        complete = [run for run in trials if (run / run_folder.SCORES).is_file()]
        if not complete:
            raise LoralabError(f"no trial of {folder} is complete: run the experiment first")
        return complete
    run_folder.read_config(folder)
    run_folder.read_scores(folder)
    return [folder]
