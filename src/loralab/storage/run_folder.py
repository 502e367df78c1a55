"""Run folders: the only module that knows the names inside one.

config.yaml              every setting
environment.json         versions, machine, device, data
data.json                how the data was read: columns, format, classes and their values, rows per class, notices
log.jsonl                one event per line
rows/                    the rows of a run on data in memory: train.parquet, and validation and test if they were given
model/                   the bundle that `Classifier.load` reads
checkpoint.safetensors   the state at the last evaluation, until the run is complete
predictions.csv          every test row: number, class, prediction, confidence, logits, text; not with data.test=0
scores.json              written last by training: a run that has it is complete
diagnosis.json           the results of `loralab diagnose`
exports/FORMAT/          the files of `loralab export`, with export.json, their check
track/                   the files of `loralab train --track`
report.html, README.md, training_log.txt, model_description.txt and .json, metrics.csv, figures/
                         derived from the files above by `loralab report`, at any time
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from loralab.config import Config, load_config
from loralab.config.run_settings import OWN_ROWS, ROWS_FOLDER, RUN_SETTINGS, format_run_settings
from loralab.errors import LoralabError
from loralab.safe_files import check_folder, exists
from loralab.storage import run_log
from loralab.storage.files import atomic_folder, atomic_write, read_json_object, write_errors, write_json
from loralab.storage.sealed import Sealed, check_file_record, read_sealed, record_files, seal, write_sealed
from loralab.storage.temporaries import restore
from loralab.tables import csv_writer

_log = logging.getLogger(__name__)
CONFIG, ENVIRONMENT, LOG, MODEL, SCORES = RUN_SETTINGS, "environment.json", "log.jsonl", "model", "scores.json"
DATA, ROWS = "data.json", ROWS_FOLDER
CHECKPOINT, PREDICTIONS, DIAGNOSIS = "checkpoint.safetensors", "predictions.csv", "diagnosis.json"
REPORT, CARD, TRAINING_LOG, METRICS, FIGURES = "report.html", "README.md", "training_log.txt", "metrics.csv", "figures"
DESCRIPTION_TEXT, DESCRIPTION = "model_description.txt", "model_description.json"
TRACK, EXPORTS, EXPORT_CHECK = "track", "exports", "export.json"
SOUP = "soup.json"
"""What a model soup is made of, in the folder of its model."""
_WRITTEN = (CONFIG, ENVIRONMENT, DATA, ROWS, LOG, MODEL, SCORES, CHECKPOINT, PREDICTIONS, DIAGNOSIS, TRACK, EXPORTS)
_DERIVED = (REPORT, CARD, TRAINING_LOG, METRICS, FIGURES, DESCRIPTION_TEXT, DESCRIPTION)
NAMES = frozenset((*_WRITTEN, *_DERIVED))
"""Every name in a run folder. `--overwrite` deletes nothing else."""
_SAFETENSORS_TEMPORARY = re.compile(r"\.tmp[A-Za-z0-9]{6}")
"""safetensors writes under such a name first. A killed run leaves one behind."""
MAX_TEXT_CHARACTERS = 1 << 30
"""The longest text that is read back from a file of predictions that the user names."""
MANIFEST = "loralab.json"
"""The model's manifest, with the checksums of the model's files."""
_SEALED_AT_START = (CONFIG, DATA)
_SEALED_AT_END = (CONFIG, DATA, ENVIRONMENT, LOG, PREDICTIONS, f"{MODEL}/{MANIFEST}")
"""The files whose checksums environment.json and scores.json record, beside those of the rows."""
_RESTORE = "restore the run from a copy, or train it again"


class Savable(Protocol):
    """An object that writes itself to a file atomically."""

    def save(self, path: Path) -> None: ...


@dataclass(frozen=True)
class RunFolder:
    """The folder of an open run."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    def save_checkpoint(self, checkpoint: Savable) -> None:
        """Replace the checkpoint."""
        with write_errors(self.checkpoint):
            checkpoint.save(self.checkpoint)

    def write_predictions(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write one line per test row."""
        path = self.folder / PREDICTIONS
        with write_errors(path), atomic_write(path) as file:
            table = csv_writer(file)
            table.writerow(header)
            table.writerows(rows)

    def write_scores(self, scores: Mapping[str, Any]) -> None:
        """Write the scores, with the checksums of the run's files, and remove the checkpoint: the run is complete."""
        with write_errors(self.folder / SCORES):
            files = record_files(self.folder, [*_SEALED_AT_END, *_row_files(self.folder)])
        write_sealed(self.folder / SCORES, scores, files)
        with write_errors(self.checkpoint):
            self.checkpoint.unlink(missing_ok=True)

    def log(self, event: Any) -> None:
        """Append one event, a dataclass, to the log. It is on disk when this returns, so a killed run keeps its log."""
        entry = {"event": type(event).__name__, **dataclasses.asdict(event)}
        path = self.folder / LOG
        with write_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(run_log.format_event(entry))

    def rewind_log(self, step: int) -> None:
        """Drop the events after `step`, which a resumed run repeats, and an incomplete last line. Logs if earlier ones are gone."""
        path = self.folder / LOG
        read = run_log.read_events(path) if exists(path) else iter(())
        events = [*itertools.takewhile(lambda event: event["step"] <= step, read)]
        if lost := step - sum(event["event"] == "StepEnd" for event in events):
            _log.warning(
                "%s lacks %d of the %d steps before the checkpoint: reports of this run will lack them too", path, lost, step
            )
        if events or exists(path):
            with write_errors(path), atomic_write(path) as file:
                file.writelines(map(run_log.format_event, events))


def check_available(folder: Path, overwrite: bool, resume: bool = False) -> None:
    """Raise LoralabError if `folder` holds a run that is not to be replaced or resumed, or something else than a run."""
    restore(folder)
    if resume:
        check_resumable(folder)
        return
    if folder.exists() and not _is_run(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise LoralabError(f"{folder} exists and is not a run: choose another --name or --runs")
    if (folder / CONFIG).is_file() and not overwrite:
        complete = (folder / SCORES).is_file()
        state, resuming = ("complete", "") if complete else ("not complete", "resume it with --resume, ")
        raise LoralabError(f"the run {folder} exists ({state}): {resuming}choose another --name, or replace it with --overwrite")
    if folder.is_symlink():
        raise LoralabError(f"{folder} is a symbolic link: use the --name and --runs of its target")
    if not _writable(folder.parent):
        raise LoralabError(f"{folder.parent} is not writable: choose another --runs folder")


def check_resumable(folder: Path) -> None:
    """Raise LoralabError unless the folder holds an incomplete run, with the rows that it was started with if it keeps them."""
    if not (folder / CONFIG).is_file():
        raise LoralabError(f"there is no run {folder} to resume: leave --resume out")
    if (folder / SCORES).is_file():
        raise LoralabError(f"the run {folder} is complete, so it cannot be resumed; `loralab describe {folder}` shows it")
    if exists(folder / ENVIRONMENT):
        files = read_sealed(folder / ENVIRONMENT, _ENVIRONMENT_ADVICE).files
        for name in dict.fromkeys((*(name for name in files if name.startswith(f"{ROWS}/")), *_row_files(folder))):
            check_file_record(folder / name, name, files, folder / ENVIRONMENT, _RESTORE)


def reopen(folder: Path, config: Config, facts: Mapping[str, Any]) -> RunFolder:
    """Open an interrupted run. Raises LoralabError if its settings, or `facts` that decide its result, are different now."""
    check_resumable(folder)
    before, now = (c.model_dump(mode="json", exclude={"name"}) for c in (read_config(folder), config))
    if before != now:
        changed = [f"{key}: {before[key]} → {now[key]}" for key in now if before[key] != now[key]]
        raise LoralabError(
            f"the run {folder} was started with other settings; resume it with the same ones\n  " + "\n  ".join(changed)
        )
    environment = read_environment(folder)
    for name, value in facts.items():
        if name in environment and environment[name] != value:
            raise LoralabError(
                f"the run {folder} cannot be resumed to the same result: {name} was {environment[name]}, is {value};\n"
                "  resume it as it was started, or start again with --overwrite"
            )
    return RunFolder(folder)


def create(
    folder: Path,
    config: Config,
    facts: Mapping[str, Any],
    overwrite: bool,
    data: Mapping[str, Any] | None = None,
    write_rows: Callable[[Path], None] | None = None,
) -> RunFolder:
    """Create the folder with the settings, versions, machine, `facts` and `data`, the contents of data.json.

    write_rows: writes rows in memory into a new folder.

    An earlier run is replaced only with `overwrite`. The folder appears complete or not at all, so every run folder can be resumed.
    """
    check_available(folder, overwrite)
    versions = {package: metadata.version(package) for package in ("loralab", "torch", "tokenizers", "safetensors", "numpy")}
    machine = {"python": platform.python_version(), "platform": platform.platform(), "cores": os.cpu_count()}
    environment = {"versions": versions, "machine": machine, **facts}
    with atomic_folder(folder) as temporary:
        if write_rows is not None:
            write_rows(temporary / ROWS)
        stored = config
        if is_own_rows(config, folder):  # so that the folder can be moved
            stored = config.model_copy(update={"data": config.data.model_copy(update={"source": OWN_ROWS})})
        (temporary / CONFIG).write_text(format_run_settings(stored.to_yaml()), encoding="utf-8")
        (temporary / DATA).write_text(json.dumps(data or {}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        sealed = seal(environment, record_files(temporary, [*_SEALED_AT_START, *_row_files(temporary)]))
        (temporary / ENVIRONMENT).write_text(json.dumps(sealed, indent=2) + "\n", encoding="utf-8")
    return RunFolder(folder)


def is_own_rows(config: Config, folder: Path) -> bool:
    """Return whether the settings name the rows that the run in `folder` keeps."""
    return Path(config.data.source).absolute() == (folder / ROWS).absolute()


def model_folder(path: Path) -> Path:
    """Return the bundle of a run, or `path` itself if it is a bundle or a folder saved by peft.

    Raises LoralabError for a run without a model, and for a model of another run.
    """
    restore(path)
    if not path.is_dir():
        raise LoralabError(f"there is no run {path}: `loralab train` makes one")
    if not exists(path / MODEL):
        if exists(path / CONFIG):
            raise LoralabError(f"the run {path} has no trained model yet: it was interrupted; resume it with --resume")
        return path
    model = check_folder(path / MODEL)
    check_recorded(path, f"{MODEL}/{MANIFEST}")
    return model


def export_format(folder: Path) -> str | None:
    """Return the format of an export from its check, or None without one."""
    path = folder / EXPORT_CHECK
    return str(read_sealed(path, "export the run again").content.get("format")) if exists(path) else None


def check_recorded(folder: Path, *names: str) -> None:
    """Raise LoralabError unless files are those that a run wrote, by scores.json or, in an incomplete run, environment.json.

    names: of files in the folder. A run without checksums is not checked.
    """
    if exists(folder / SCORES):
        owner, advice, known = folder / SCORES, _SCORES_ADVICE, True
    elif exists(folder / ENVIRONMENT):
        owner, advice, known = folder / ENVIRONMENT, _ENVIRONMENT_ADVICE, False
    else:
        return
    files = read_sealed(owner, advice).files
    for name in names:
        if known or name in files:
            check_file_record(folder / name, name, files, owner, _RESTORE)


def run_identity(folder: Path) -> str:
    """Return the SHA-256 of a complete run, which its later files repeat; empty for a run without checksums, or another folder."""
    return read_sealed(folder / SCORES, _SCORES_ADVICE).sha256 if exists(folder / SCORES) else ""


def write_diagnosis(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the diagnosis of a complete run."""
    write_sealed(folder / DIAGNOSIS, {**content, "run": run_identity(folder)})


def read_diagnosis(folder: Path) -> dict[str, Any]:
    """Read a run's diagnosis, or an empty one without a file. Raises LoralabError if it is damaged or of another run."""
    path, advice = folder / DIAGNOSIS, "run `loralab diagnose` again, or delete it"
    if not exists(path):
        return {}
    sealed = read_sealed(path, advice)
    run = sealed.content.pop("run", "")
    if sealed.sha256 and run != run_identity(folder):
        raise LoralabError(f"{path} is the diagnosis of another run: {advice}")
    return sealed.content


def read_model_facts(folder: Path) -> dict[str, Any]:
    """Read the manifest of a run's model as plain values; empty without one. Raises LoralabError if it is damaged."""
    if not exists(folder / MODEL):
        check_recorded(folder, f"{MODEL}/{MANIFEST}")
        return {}
    path = model_folder(folder) / MANIFEST
    return read_sealed(path, _RESTORE, format_key="format").content if exists(path) else {}


def missing_model_files(folder: Path) -> list[str]:
    """Return the files that a run's model was saved with and lacks now. Raises LoralabError if its manifest is damaged."""
    path = folder / MODEL / MANIFEST
    sealed = read_sealed(path, _RESTORE, format_key="format") if exists(path) else Sealed({})
    return [name for name in sealed.files if not exists(path.with_name(name))]


def read_scores(folder: Path) -> dict[str, Any]:
    """Read a complete run's scores. Raises LoralabError if they are missing or damaged."""
    return read_sealed(folder / SCORES, _SCORES_ADVICE).content


def move_scores(folder: Path, target: Path) -> None:
    """Record that a complete run in `folder` will be at `target`."""
    scores = read_sealed(folder / SCORES, _SCORES_ADVICE)
    moved = {**scores.content, "folder": str(target)}
    write_json(folder / SCORES, seal(moved, scores.files) if scores.sha256 else moved)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read a run's events in order, up to a line that was cut off. Without a log there are none.

    Raises LoralabError for a damaged log.
    """
    if exists(folder / SCORES):
        check_recorded(folder, LOG)
    return [*run_log.read_events(folder / LOG)]


def read_environment(folder: Path) -> dict[str, Any]:
    """Read a run's versions, machine and data. Raises LoralabError if the file is missing, damaged or of another run."""
    if exists(folder / SCORES):
        check_recorded(folder, ENVIRONMENT)
    return read_sealed(folder / ENVIRONMENT, _ENVIRONMENT_ADVICE).content


def read_data(folder: Path) -> dict[str, Any]:
    """Read how a run's rows were read. Raises LoralabError if the file is missing, damaged or of another run."""
    check_recorded(folder, DATA)
    return read_json_object(folder / DATA, "it is damaged: train again")


def read_config(folder: Path) -> Config:
    """Read a run's settings. Raises LoralabError if the file is missing, damaged or of another run."""
    restore(folder)
    check_recorded(folder, CONFIG)
    if not exists(folder / CONFIG):
        raise LoralabError(f"{folder} is not a run: it has no {CONFIG}")
    return load_config(folder)


_SCORES_ADVICE = "the run is not complete, or its scores are damaged: train it again"
_ENVIRONMENT_ADVICE = "start again with --overwrite"


def _row_files(folder: Path) -> list[str]:
    """Return the names of the files of rows that a run keeps."""
    rows = folder / ROWS
    return [f"{ROWS}/{path.name}" for path in sorted(check_folder(rows).iterdir())] if exists(rows) else []


def _writable(folder: Path) -> bool:
    existing = next((parent for parent in (folder, *folder.parents) if parent.exists()), Path("/"))
    return existing.is_dir() and os.access(existing, os.W_OK)


def _is_run(folder: Path) -> bool:
    """Return whether the settings load and every name belongs to a run: `--overwrite` deletes the folder."""
    try:
        read_config(folder)
    except LoralabError:
        return False
    temporary = tuple(f".{name}." for name in NAMES)
    names = [path.name for path in folder.iterdir()]
    return all(name in NAMES or name.startswith(temporary) or _SAFETENSORS_TEMPORARY.fullmatch(name) for name in names)
