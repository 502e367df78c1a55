"""Experiment folders: the only module that knows the names inside one, and the check of what is read from it.

experiment.json and search.json are sealed (see `loralab.storage.sealed`). experiment.json has the checksums of indices/ and the
identity of every complete trial; search.json has those of best.yaml and pareto.csv.

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

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from loralab.config import Config
from loralab.errors import LoralabError
from loralab.safe_files import check_folder, exists
from loralab.storage import run_folder
from loralab.storage.files import write_errors
from loralab.storage.sealed import Sealed, check_file_record, read_sealed, record_files, write_sealed

EXPERIMENT, TRIALS, INDICES, ROWS = "experiment.json", "trials", "indices", run_folder.ROWS
TABLE, TABLES, FIGURES, REPORT = "trials.csv", "tables", "figures", "report.html"
STUDY, STUDY_LOCK, CLAIM_LOCK = "study.journal", "study.journal.lock", "study.lock"
SEARCH_RESULTS, BEST, PARETO = "search.json", "best.yaml", "pareto.csv"
_DERIVED = (TABLE, TABLES, FIGURES, REPORT, SEARCH_RESULTS, BEST, PARETO)
NAMES = frozenset((EXPERIMENT, TRIALS, INDICES, ROWS, STUDY, STUDY_LOCK, CLAIM_LOCK, *_DERIVED))
"""Every name in an experiment folder. `--overwrite` deletes nothing else."""
_ADVICE = "run the experiment again; completed trials are skipped"
_SEARCH_ADVICE = "run the search again; completed trials are kept"
_BINDING = "experiment"
"""The key of search.json that names its experiment."""

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
    """A trial in experiment.json. run: as in Trial. failure, pruned: why the trial failed or was pruned.

    run_sha256: the identity of its complete run; empty for an incomplete run or one without checksums.
    """

    name: str
    factors: Mapping[str, Factor]
    fingerprint: str
    failure: str | None = None
    pruned: str | None = None
    run: str | None = None
    run_sha256: str = ""

    @classmethod
    def of(cls, trial: Trial, failure: str | None = None, pruned: str | None = None, run_sha256: str = "") -> TrialRecord:
        """Return the record of a trial."""
        return cls(trial.name, dict(trial.factors), trial.config.fingerprint(), failure, pruned, trial.run, run_sha256)


@dataclass(frozen=True)
class Experiment:
    """The contents of experiment.json."""

    spec: ExperimentSpec
    records: tuple[TrialRecord, ...]


_EXPERIMENT: TypeAdapter[Experiment] = TypeAdapter(Experiment)


def trial_folder(folder: Path, trial: Trial | TrialRecord) -> Path:
    """Return a trial's run folder, unchecked: see `recorded_run` for the trials of experiment.json."""
    return folder / (trial.run or f"{TRIALS}/{trial.name}")


def recorded_run(folder: Path, record: TrialRecord) -> Path:
    """Return the run folder of a trial of experiment.json. It may not exist yet.

    Raises LoralabError if it holds another run than the one that was recorded. Outside the folder that holds the experiment, a run
    needs a recorded identity: who makes an experiment to read other people's runs does not know it.
    """
    path = trial_folder(folder, record)
    root = Path(os.path.realpath(folder)).parent
    if not record.run_sha256:
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise LoralabError(
                f"{folder / EXPERIMENT}: the run of trial {record.name}, {path}, is outside {root}, and the experiment does not "
                f"record which run it is: make the experiment again, or move the run into {root}"
            )
    elif exists(path / run_folder.SCORES) and run_folder.run_identity(path) != record.run_sha256:
        raise LoralabError(
            f"{path} is not the run that {folder / EXPERIMENT} records for trial {record.name}: restore it from a copy, "
            f"or {_ADVICE}"
        )
    return path


def is_experiment(folder: Path) -> bool:
    """Return whether the folder holds an experiment, damaged or not."""
    return exists(folder / EXPERIMENT)


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
    """Write the question, every trial planned so far, and the checksums of indices/, atomically."""
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        indices = folder / INDICES
        names = sorted(path.name for path in check_folder(indices).iterdir()) if exists(indices) else []
        files = record_files(folder, [f"{INDICES}/{name}" for name in names if not name.startswith(".")])
    write_sealed(folder / EXPERIMENT, {**asdict(spec), "trials": [asdict(record) for record in records]}, files)


def read_experiment(folder: Path) -> Experiment:
    """Read an experiment. Raises LoralabError if there is none or its file is damaged."""
    return _parse_experiment(folder, _read_sealed_experiment(folder).content)


def check_indices(folder: Path) -> None:
    """Raise LoralabError if an index file that experiment.json lists is damaged or missing."""
    sealed = _read_sealed_experiment(folder)
    for name in sealed.files:
        check_file_record(folder / name, name, sealed.files, folder / EXPERIMENT, "replace the experiment with --overwrite")


def write_search(folder: Path, spec: ExperimentSpec, results: Mapping[str, Any]) -> None:
    """Write search.json with the checksums of best.yaml and pareto.csv, which are written before it."""
    with write_errors(folder):
        files = record_files(folder, (BEST, PARETO))
    write_sealed(folder / SEARCH_RESULTS, {**results, _BINDING: _binding(spec)}, files)


def read_search(folder: Path) -> dict[str, Any]:
    """Read search.json. Raises LoralabError if it, best.yaml or pareto.csv is missing, damaged or of another search."""
    return _read_sealed_search(folder).content


def verify_experiment(folder: Path) -> tuple[str, int]:
    """Check every file of an experiment but its runs' own, and return intact, incomplete or unchecked, and the number of files.

    Raises LoralabError for damage.
    """
    sealed = _read_sealed_experiment(folder)
    experiment = _parse_experiment(folder, sealed.content)
    check_indices(folder)
    files = [len(sealed.files) + 1]
    if exists(folder / SEARCH_RESULTS):
        files.append(len(_read_sealed_search(folder).files) + 1)
    complete = True
    for record in experiment.records:
        ended = exists(recorded_run(folder, record) / run_folder.SCORES)
        if record.run_sha256 and not ended:
            raise LoralabError(f"{trial_folder(folder, record)} is missing: {EXPERIMENT} lists it as complete; {_ADVICE}")
        complete &= ended or record.failure is not None or record.pruned is not None
    return ("intact" if complete else "incomplete", sum(files)) if sealed.sha256 else ("unchecked", 0)


def _read_sealed_experiment(folder: Path) -> Sealed:
    if not is_experiment(folder):
        raise LoralabError(f"{folder} is not an experiment: it has no {EXPERIMENT}")
    return read_sealed(folder / EXPERIMENT, _ADVICE)


def _parse_experiment(folder: Path, content: Mapping[str, Any]) -> Experiment:
    path = folder / EXPERIMENT
    try:
        spec = ExperimentSpec(**{key: value for key, value in content.items() if key != "trials"})
        records = tuple(TrialRecord(**record) for record in content["trials"])
        values = {"spec": asdict(spec), "records": [asdict(record) for record in records]}
        experiment = _EXPERIMENT.validate_python(values)
        for record in experiment.records:
            _check_paths(record)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LoralabError(f"{path} is damaged ({error!r}): {_ADVICE}") from error
    return experiment


def _check_paths(record: TrialRecord) -> None:
    """Raise ValueError unless the name is that of one folder, and the run a relative path."""
    if record.name in ("", ".", "..") or not {"/", "\\", "\0"}.isdisjoint(record.name):
        raise ValueError(f"the trial name {record.name!r} is not the name of a folder")
    run = record.run
    if run is not None and (not run or "\0" in run or Path(run).is_absolute() or Path(run).drive or Path(run).root):
        raise ValueError(f"the run {run!r} of trial {record.name} is not a path relative to the experiment")


def _read_sealed_search(folder: Path) -> Sealed:
    path = folder / SEARCH_RESULTS
    sealed = read_sealed(path, _SEARCH_ADVICE)
    binding = sealed.content.pop(_BINDING, None)
    if sealed.sha256:
        if binding != _binding(read_experiment(folder).spec):
            raise LoralabError(f"{path} is the result of another search than {EXPERIMENT}: {_SEARCH_ADVICE}")
        for name in (BEST, PARETO):
            check_file_record(folder / name, name, sealed.files, path, _SEARCH_ADVICE)
    return sealed


def _binding(spec: ExperimentSpec) -> str:
    """SHA-256 of what stays the same in an experiment that is resumed, with more points or trials."""
    return hashlib.sha256(json.dumps([spec.kind, spec.recipes, spec.fixed]).encode()).hexdigest()


def find_runs(folder: Path) -> list[Path]:
    """Return the folders of an experiment's complete trials, or a run's own folder. Raises LoralabError if nothing is complete."""
    if is_experiment(folder):
        trials = dict.fromkeys(recorded_run(folder, record) for record in read_experiment(folder).records if record.failure is None)
        complete = [run for run in trials if (run / run_folder.SCORES).is_file()]
        if not complete:
            raise LoralabError(f"no trial of {folder} is complete: run the experiment first")
        return complete
    run_folder.read_config(folder)
    run_folder.read_scores(folder)
    return [folder]
