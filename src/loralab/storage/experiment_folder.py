"""Experiment folders: the only file that knows the names inside one.

experiment.json   the question: kind, recipes, what is varied and held, every trial with its factors
trials/NAME/      one ordinary run folder a trial
study.journal    a search's study: every trial as Optuna keeps it, unless it lies in a database; *.lock beside it
search.json, best.yaml, pareto.csv
                 what a search found: every trial with its values, the best settings, the best compromises
indices/          the rows that an experiment chose for its trials: NAME.txt, and pool.json, what they were chosen from
trials.csv, tables/, figures/, report.html
                  made from the files above by `loralab report`, and made again at any time
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

EXPERIMENT, TRIALS, INDICES = "experiment.json", "trials", "indices"
TABLE, TABLES, FIGURES, REPORT = "trials.csv", "tables", "figures", "report.html"
STUDY, STUDY_LOCK, CLAIM_LOCK = "study.journal", "study.journal.lock", "study.lock"
SEARCH_RESULTS, BEST, PARETO = "search.json", "best.yaml", "pareto.csv"
_MADE = (TABLE, TABLES, FIGURES, REPORT, SEARCH_RESULTS, BEST, PARETO)
NAMES = frozenset((EXPERIMENT, TRIALS, INDICES, STUDY, STUDY_LOCK, CLAIM_LOCK, *_MADE))
"""Everything that may lie in an experiment's folder: `--overwrite` deletes nothing else."""

Factor = str | int | float | bool | None
"""A value that sets trials apart, as it is told to people."""


@dataclass(frozen=True)
class Trial:
    """One run of an experiment: its name, its settings, and what sets it apart, such as {"lora.rank": 4, "seed": 1}.

    run: its folder, relative to the experiment's, where that is not trials/NAME: trials may share a run, or be runs made before.
    """

    name: str
    config: Config
    factors: Mapping[str, Factor]
    run: str | None = None

    @property
    def external(self) -> bool:
        """True for a run that no experiment made: it is read, never run."""
        return self.run is not None and not self.run.startswith(f"{TRIALS}/")


@dataclass(frozen=True)
class ExperimentSpec:
    """What an experiment studies. varied: each factor with its points. fixed: `key=value` settings of all trials."""

    kind: str
    question: str
    recipes: tuple[str, ...]
    fixed: tuple[str, ...]
    varied: Mapping[str, Sequence[Factor]]


@dataclass(frozen=True)
class TrialRecord:
    """A trial in experiment.json; `run` as in Trial.

    failure: why the trial failed. pruned: why the trial was pruned.
    """

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
    """True where an experiment lies."""
    return (folder / EXPERIMENT).is_file()


def remove_experiment(folder: Path) -> None:
    """Delete an experiment with its trials. Raises LoralabError where something lies there that no experiment made."""
    if not is_experiment(folder):
        return
    if strange := sorted(path.name for path in folder.iterdir() if path.name not in NAMES):
        raise LoralabError(f"{folder} holds {strange[0]}, which no experiment made: move it, or choose another --name")
    for path in folder.glob(f"{TRIALS}/[!.]*"):  # what a killed process leaves half written has a dot before its name
        if not (path / run_folder.CONFIG).is_file():
            raise LoralabError(f"{path} is not a run: move it, or choose another --name")
    shutil.rmtree(folder)


def write_experiment(folder: Path, spec: ExperimentSpec, records: Iterable[TrialRecord]) -> None:
    """Write down the question and every trial planned so far, whole or not at all."""
    content = {
        "kind": spec.kind,
        "question": spec.question,
        "recipes": [*spec.recipes],
        "fixed": [*spec.fixed],
        "varied": {name: [*points] for name, points in spec.varied.items()},
        "trials": [asdict(record) for record in records],
    }
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / EXPERIMENT, content)


def read_experiment(folder: Path) -> Experiment:
    """Read an experiment. Raises LoralabError when there is none or its file is damaged."""
    path = folder / EXPERIMENT
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        spec = ExperimentSpec(
            content["kind"], content["question"], tuple(content["recipes"]), tuple(content["fixed"]), dict(content["varied"])
        )
        records = tuple(
            TrialRecord(t["name"], dict(t["factors"]), t["fingerprint"], t["failure"], t["pruned"], t["run"])
            for t in content["trials"]
        )
    except FileNotFoundError as error:
        raise LoralabError(f"{folder} is not an experiment: it has no {EXPERIMENT}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoralabError(f"{path} is damaged ({error!r}): run the experiment again, its finished trials are kept") from error
    return Experiment(spec, records)


def find_runs(folder: Path) -> list[Path]:
    """A run's folder itself; of an experiment its complete trials' folders. Raises LoralabError where there is no result."""
    if is_experiment(folder):
        trials = dict.fromkeys(trial_folder(folder, record) for record in read_experiment(folder).records if record.failure is None)
        complete = [run for run in trials if (run / run_folder.SCORES).is_file()]
        if not complete:
            raise LoralabError(f"no trial of {folder} is complete: run the experiment first")
        return complete
    run_folder.read_config(folder)
    run_folder.read_scores(folder)
    return [folder]
