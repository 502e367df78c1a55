"""Check every file of runs, models, exports and experiments against its checksum, and find what killed commands left behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from loralab.errors import LoralabError
from loralab.safe_files import check_folder, exists
from loralab.storage import experiment_folder, run_folder
from loralab.storage.sealed import Sealed, check_file_record, read_sealed
from loralab.storage.temporaries import is_temporary, remove_if_dead

_RESTORE = "restore it from a copy, or make it again"
MAX_DEPTH = 8
"""Folders below the one that is verified."""


@dataclass(frozen=True)
class Verified:
    """A run, model, export or experiment. files: checked by checksum.

    state: intact, incomplete (intact, but interrupted), unchecked (written without checksums) or damaged; problem: why.
    """

    folder: Path
    kind: str
    state: str
    files: int
    problem: str = ""


def verify(folder: Path) -> list[Verified]:
    """Check everything in a folder: a run, a model, an experiment, or a folder that holds some.

    Reads every file once and changes nothing. Raises LoralabError if there is nothing to check.
    """
    results = [*_verify_below(folder, MAX_DEPTH)]
    if not results:
        raise LoralabError(f"{folder} holds no run, model or experiment: give a run, or the folder that holds runs")
    return results


def check_complete_run(folder: Path) -> None:
    """Raise LoralabError unless the files of a complete run, and of its model, are those that it wrote."""
    scores = folder / run_folder.SCORES
    _check_files(folder, scores, read_sealed(scores, _RESTORE))
    if exists(folder / run_folder.MODEL):
        _check_model(run_folder.model_folder(folder))


def remove_litter(folder: Path) -> list[Path]:
    """Remove the temporary files and folders below `folder` whose process has died, and return their paths."""
    return [path for path in find_litter(folder) if remove_if_dead(path)]


def find_litter(folder: Path) -> list[Path]:
    """Return the temporary files and folders below `folder`. Those of live processes are among them."""
    litter: list[Path] = []
    for parent, folders, files in os.walk(folder):
        temporaries = [name for name in (*folders, *files) if is_temporary(Path(name))]
        litter += [Path(parent, name) for name in temporaries]
        folders[:] = sorted(set(folders) - set(temporaries))
    return sorted(litter)


def _verify_below(folder: Path, depth: int) -> Iterator[Verified]:
    if experiment_folder.is_experiment(folder):
        yield _outcome(folder, "experiment", experiment_folder.verify_experiment)
        folder = folder / experiment_folder.TRIALS
    elif exists(folder / run_folder.CONFIG) or exists(folder / run_folder.SCORES):
        yield _outcome(folder, "run", _check_run)
        folder = folder / run_folder.EXPORTS
    elif exists(folder / run_folder.EXPORT_CHECK):
        yield _outcome(folder, "export", _check_export)
        return
    elif exists(folder / run_folder.MANIFEST):
        yield _outcome(folder, "model", _check_model)
        return
    if depth and folder.is_dir() and not folder.is_symlink():
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                yield from _verify_below(path, depth - 1)


def _outcome(folder: Path, kind: str, check: Callable[[Path], tuple[str, int]]) -> Verified:
    try:
        state, files = check(folder)
    except LoralabError as error:
        return Verified(folder, kind, "damaged", 0, str(error))
    return Verified(folder, kind, state, files)


def _check_run(folder: Path) -> tuple[str, int]:
    run_folder.read_config(folder)
    run_folder.read_environment(folder)
    run_folder.read_data(folder)
    run_folder.read_log(folder)
    if exists(folder / run_folder.EXPORTS):
        check_folder(folder / run_folder.EXPORTS)
    complete = exists(folder / run_folder.SCORES)
    owner = folder / (run_folder.SCORES if complete else run_folder.ENVIRONMENT)
    sealed = read_sealed(owner, _RESTORE)
    files = _check_files(folder, owner, sealed)
    run_folder.read_diagnosis(folder)
    if exists(folder / run_folder.MODEL):
        files += _check_model(run_folder.model_folder(folder))[1]
    if exists(folder / run_folder.CHECKPOINT):
        from loralab.training.checkpoint import Checkpoint  # imports torch

        Checkpoint.load(folder / run_folder.CHECKPOINT)
    return ("intact" if complete else "incomplete") if sealed.sha256 else "unchecked", files


def _check_model(folder: Path) -> tuple[str, int]:
    sealed = read_sealed(folder / run_folder.MANIFEST, _RESTORE, format_key="format")
    return "intact" if sealed.sha256 else "unchecked", _check_files(folder, folder / run_folder.MANIFEST, sealed)


def _check_export(folder: Path) -> tuple[str, int]:
    sealed = read_sealed(folder / run_folder.EXPORT_CHECK, "export the run again with --overwrite")
    return "intact" if sealed.sha256 else "unchecked", _check_files(folder, folder / run_folder.EXPORT_CHECK, sealed)


def _check_files(folder: Path, owner: Path, sealed: Sealed) -> int:
    """Check the files that `owner` lists, and return their number with itself."""
    for name in sealed.files:
        check_file_record(folder / name, name, sealed.files, owner, _RESTORE)
    return len(sealed.files) + 1 if sealed.sha256 else 0
