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

import csv
import dataclasses
import itertools
import json
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from loralab.config import Config, load_config
from loralab.config.loading import END_OF_SETTINGS, OWN_ROWS, ROWS_FOLDER, RUN_SETTINGS
from loralab.errors import LoralabError
from loralab.storage.files import atomic_folder, atomic_write, csv_field_limit, read_json_object, write_errors, write_json
from loralab.tables import csv_writer

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
"""The longest text that is read back from predictions.csv."""


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
        """Write the scores and remove the checkpoint: the run is complete."""
        write_json(self.folder / SCORES, scores)
        with write_errors(self.checkpoint):
            self.checkpoint.unlink(missing_ok=True)

    def log(self, event: Any) -> None:
        """Append one event, a dataclass, to the log. It is on disk when this returns, so a killed run keeps its log."""
        entry = {"event": type(event).__name__, **dataclasses.asdict(event)}
        path = self.folder / LOG
        with write_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def rewind_log(self, step: int) -> None:
        """Drop the events after `step`, which a resumed run repeats, and an incomplete last line."""
        path = self.folder / LOG
        if not path.exists():
            return
        events = itertools.takewhile(lambda event: event["step"] <= step, read_log(self.folder))
        with write_errors(path), atomic_write(path) as file:
            file.writelines(json.dumps(event) + "\n" for event in events)


def check_available(folder: Path, overwrite: bool, resume: bool = False) -> None:
    """Raise LoralabError if `folder` holds a run that is not to be replaced or resumed, or something else than a run."""
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
    """Raise LoralabError unless the folder holds an incomplete run."""
    if not (folder / CONFIG).is_file():
        raise LoralabError(f"there is no run {folder} to resume: leave --resume out")
    if (folder / SCORES).is_file():
        raise LoralabError(f"the run {folder} is complete, so it cannot be resumed; `loralab describe {folder}` shows it")


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
        (temporary / CONFIG).write_text(stored.to_yaml() + END_OF_SETTINGS, encoding="utf-8")
        (temporary / DATA).write_text(json.dumps(data or {}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (temporary / ENVIRONMENT).write_text(json.dumps(environment, indent=2) + "\n", encoding="utf-8")
    return RunFolder(folder)


def is_own_rows(config: Config, folder: Path) -> bool:
    """Return whether the settings name the rows that the run in `folder` keeps."""
    return Path(config.data.source).absolute() == (folder / ROWS).absolute()


def model_folder(path: Path) -> Path:
    """Return the bundle of a run, or `path` itself if it is a bundle or a folder saved by peft."""
    if not path.is_dir():
        raise LoralabError(f"there is no run {path}: `loralab train` makes one")
    if (path / CONFIG).is_file() and not (path / MODEL).is_dir():
        raise LoralabError(f"the run {path} has no trained model yet: it was interrupted; resume it with --resume")
    return path / MODEL if (path / MODEL).is_dir() else path


def export_format(folder: Path) -> str | None:
    """Return the format of an export from its check, or None without one."""
    path = folder / EXPORT_CHECK
    return str(read_json_object(path, "it is damaged: export the run again").get("format")) if path.is_file() else None


def read_scores(folder: Path) -> dict[str, Any]:
    """Read a complete run's scores. Raises LoralabError if they are missing or damaged."""
    return read_json_object(folder / SCORES, "the run is not complete, or its scores are damaged: train it again")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read a run's events in order, up to an incomplete line. Without a log there are none."""
    events: list[dict[str, Any]] = []
    path = folder / LOG
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            break
        if not isinstance(event, dict) or not {"event", "step"} <= set(event):
            break
        events.append(event)
    return events


def read_test_texts(folder: Path, limit: int | None = None) -> tuple[list[str], list[str]]:
    """Return the first `limit` test texts of a complete run and their true classes. An incomplete run has none."""
    path = folder / PREDICTIONS
    if not path.is_file():
        return [], []
    with csv_field_limit(MAX_TEXT_CHARACTERS), path.open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["true"]) for row in itertools.islice(csv.DictReader(file), limit)]
    return [text for text, _ in rows], [true for _, true in rows]


def read_environment(folder: Path) -> dict[str, Any]:
    """Read a run's versions, machine and data. Raises LoralabError if the file is missing or damaged."""
    return read_json_object(folder / ENVIRONMENT, "it is damaged: start again with --overwrite")


def read_config(folder: Path) -> Config:
    """Read a run's settings. Raises LoralabError if the file is missing or damaged."""
    if not (folder / CONFIG).is_file():
        raise LoralabError(f"{folder} is not a run: it has no {CONFIG}")
    return load_config(folder)


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
