"""Run folders: the only file that knows the names inside one.

config.yaml              every setting
environment.json         versions, machine, device, data
log.jsonl                one event a line
model/                   the bundle that `Classifier.load` reads
checkpoint.safetensors   the state at the last evaluation, while the run is not complete
predictions.csv          every test row: its number, class, prediction, confidence, logits, text
scores.json              written last of what training writes: where it stands, the run is complete
diagnosis.json           what `loralab diagnose` found
exports/FORM/            what `loralab export` wrote, with export.json, its check
track/                   what `loralab train --track` kept for other tools
report.html, README.md, training_log.txt, model_description.txt and .json, metrics.csv, figures/
                         made from the files above by `loralab report`, and made again at any time
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import itertools
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Protocol

from loralab.config import Config, load_config
from loralab.errors import LoralabError, RunFailed

CONFIG, ENVIRONMENT, LOG, MODEL, SCORES = "config.yaml", "environment.json", "log.jsonl", "model", "scores.json"
CHECKPOINT, PREDICTIONS, DIAGNOSIS = "checkpoint.safetensors", "predictions.csv", "diagnosis.json"
REPORT, CARD, TRAINING_LOG, METRICS, FIGURES = "report.html", "README.md", "training_log.txt", "metrics.csv", "figures"
DESCRIPTION_TEXT, DESCRIPTION = "model_description.txt", "model_description.json"
TRACK, EXPORTS, EXPORT_CHECK = "track", "exports", "export.json"
_WRITTEN = (CONFIG, ENVIRONMENT, LOG, MODEL, SCORES, CHECKPOINT, PREDICTIONS, DIAGNOSIS, TRACK, EXPORTS)
_DERIVED = (REPORT, CARD, TRAINING_LOG, METRICS, FIGURES, DESCRIPTION_TEXT, DESCRIPTION)
NAMES = frozenset((*_WRITTEN, *_DERIVED))
"""Everything that may lie in a run folder: `--overwrite` deletes nothing else."""
_OF_SAFETENSORS = re.compile(r"\.tmp[A-Za-z0-9]{6}")
"""Names under which safetensors writes before it renames: a killed run leaves one behind."""
END = "...\n"
"""YAML's mark for the end of a document: settings without it were cut off."""


class Saved(Protocol):
    """Anything that writes itself into a file, whole or not at all."""

    def save(self, path: Path) -> None: ...


@dataclass(frozen=True)
class RunFolder:
    """An open run folder."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    def keep_checkpoint(self, checkpoint: Saved) -> None:
        """Replace the checkpoint."""
        with says_disk(self.checkpoint):
            checkpoint.save(self.checkpoint)

    def write_predictions(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write one line a test row."""
        path = self.folder / PREDICTIONS
        with says_disk(path), atomic(path) as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(header)
            table.writerows(rows)

    def write_scores(self, scores: Mapping[str, Any]) -> None:
        """Complete the run."""
        write_json(self.folder / SCORES, scores)
        with says_disk(self.checkpoint):
            self.checkpoint.unlink(missing_ok=True)

    def log(self, event: Any) -> None:
        """Append one event, a dataclass; each is written when this returns, so a killed run keeps its log."""
        entry = {"event": type(event).__name__, **dataclasses.asdict(event)}
        path = self.folder / LOG
        with says_disk(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def rewind_log(self, step: int) -> None:
        """Drop the events after `step`, which a resumed run will take again, and a line that was cut off."""
        path = self.folder / LOG
        if not path.exists():
            return
        kept = itertools.takewhile(lambda event: event["step"] <= step, read_log(self.folder))
        with says_disk(path), atomic(path) as file:
            file.writelines(json.dumps(event) + "\n" for event in kept)


def check_free(folder: Path, overwrite: bool, resume: bool = False) -> None:
    """Raise LoralabError when a run of this name exists and is not to be replaced or resumed, or is no run at all."""
    if resume:
        check_resumable(folder)
        return
    if folder.exists() and not _is_run(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise LoralabError(f"{folder} exists and is not a run: choose another --name or --runs")
    if (folder / CONFIG).is_file() and not overwrite:
        state = "complete" if (folder / SCORES).is_file() else "not complete"
        hint = "" if state == "complete" else "go on with --resume, "
        raise LoralabError(f"the run {folder} exists ({state}): {hint}choose another --name, or replace it with --overwrite")
    if folder.is_symlink():
        raise LoralabError(f"{folder} is a link: give the --name and --runs of the folder that it leads to")
    if not _writable(folder.parent):
        raise LoralabError(f"{folder.parent} cannot be written to: choose another --runs folder")


def check_resumable(folder: Path) -> None:
    """Raise LoralabError unless there is a run here that has not ended."""
    if not (folder / CONFIG).is_file():
        raise LoralabError(f"there is no run {folder} to resume: leave --resume out")
    if (folder / SCORES).is_file():
        raise LoralabError(f"the run {folder} is complete: there is nothing to resume; `loralab describe {folder}` shows it")


def reopen(folder: Path, config: Config, facts: Mapping[str, Any]) -> RunFolder:
    """Open a run that was stopped. Raises LoralabError when its settings were others, or what decides its result has changed."""
    check_resumable(folder)
    before, now = (c.model_dump(mode="json", exclude={"name"}) for c in (read_config(folder), config))
    if before != now:
        changed = [f"{key}: {before[key]} → {now[key]}" for key in now if before[key] != now[key]]
        raise LoralabError(
            f"the run {folder} was started with other settings; resume it with the same ones\n  " + "\n  ".join(changed)
        )
    environment = read_environment(folder)
    for name, now_is in facts.items():
        if name in environment and environment[name] != now_is:
            raise LoralabError(
                f"the run {folder} cannot be resumed to the same result: {name} was {environment[name]}, is {now_is};\n"
                "  resume it as it was started, or start again with --overwrite"
            )
    return RunFolder(folder)


def create(folder: Path, config: Config, facts: Mapping[str, Any], overwrite: bool) -> RunFolder:
    """Make the folder, replacing an earlier run only when told to, and write down settings, versions, machine and `facts`.

    It appears with all of these in it or not at all, so that whatever is there can be resumed.
    """
    check_free(folder, overwrite)
    versions = {package: metadata.version(package) for package in ("loralab", "torch", "tokenizers", "safetensors", "numpy")}
    machine = {"python": platform.python_version(), "platform": platform.platform(), "cores": os.cpu_count()}
    environment = {"versions": versions, "machine": machine, **facts}
    with says_disk(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as new:
        (new / CONFIG).write_text(config.to_yaml() + END, encoding="utf-8")
        (new / ENVIRONMENT).write_text(json.dumps(environment, indent=2) + "\n", encoding="utf-8")
    return RunFolder(folder)


def model_folder(path: Path) -> Path:
    """Return the bundle of a run, or the path itself when it is a bundle or a peft folder."""
    if not path.is_dir():
        raise LoralabError(f"there is no run {path}: `loralab train` makes one")
    if (path / CONFIG).is_file() and not (path / MODEL).is_dir():
        raise LoralabError(f"the run {path} holds no trained model yet: it was stopped before it ended; go on with --resume")
    return path / MODEL if (path / MODEL).is_dir() else path


def export_form(folder: Path) -> str | None:
    """The form of an export, as it was checked; None where it came without the note."""
    path = folder / EXPORT_CHECK
    return str(_read_object(path, "it is damaged: export the run again").get("form")) if path.is_file() else None


def read_scores(folder: Path) -> dict[str, Any]:
    """Read a complete run's scores. Raises LoralabError when there are none or they are damaged."""
    return _read_object(folder / SCORES, "the run is not complete, or its scores are damaged: train it again")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read a run's events in order, up to a line that was cut off; none where there is no log."""
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


def read_tested(folder: Path, most: int | None = None) -> tuple[list[str], list[str]]:
    """Return the texts that a run was tested on, or the first of them, and their classes; none where it is not complete."""
    path = folder / PREDICTIONS
    if not path.is_file():
        return [], []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["true"]) for row in itertools.islice(csv.DictReader(file), most)]
    return [text for text, _ in rows], [true for _, true in rows]


def read_environment(folder: Path) -> dict[str, Any]:
    """Read what a run wrote down of its data and machine. Raises LoralabError when it is missing or damaged."""
    return _read_object(folder / ENVIRONMENT, "it is damaged: start again with --overwrite")


def read_config(folder: Path) -> Config:
    """Read a run's settings. Raises LoralabError when the file is missing or damaged."""
    path = folder / CONFIG
    if not path.is_file():
        raise LoralabError(f"{folder} is not a run: it has no {CONFIG}")
    try:
        whole = path.read_text(encoding="utf-8").endswith(END)
    except (OSError, UnicodeDecodeError) as error:
        raise LoralabError(f"{path} is damaged: {error}") from error
    if not whole:
        raise LoralabError(f"{path} is cut off: its last line is not {END.strip()!r}; restore it from a copy or train again")
    return load_config(path)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[str]]:
    """Open a text file that appears under `path` whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.close(handle)
        with open(name, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it takes the place of `folder` when everything in it was written."""
    with says_disk(folder):
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        old = temporary.with_name(f"{temporary.name}.old")
        try:
            yield temporary
            os.chmod(temporary, 0o777 & ~_umask())
            for path in (path for path in temporary.rglob("*") if not path.is_dir()):
                os.chmod(path, 0o666 & ~_umask())  # safetensors writes files that nobody else may read
                with path.open("rb") as file:
                    os.fsync(file.fileno())  # a network's disk may say only now that it is full
            if folder.exists():
                os.replace(folder, old)
            os.replace(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if old.exists() and not folder.exists():
                os.replace(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    with says_disk(path), atomic(path) as file:
        json.dump(content, file, indent=2)
        file.write("\n")


@contextlib.contextmanager
def says_disk(path: Path) -> Iterator[None]:
    """A full or read-only disk is the run's failure, told in one line."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error.strerror or error}; what was saved before is intact") from error


def _read_object(path: Path, what_now: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except (OSError, ValueError) as error:
        raise LoralabError(f"cannot read {path} ({error}): {what_now}") from error
    return content


def _writable(folder: Path) -> bool:
    existing = next((parent for parent in (folder, *folder.parents) if parent.exists()), Path("/"))
    return existing.is_dir() and os.access(existing, os.W_OK)


def _is_run(folder: Path) -> bool:
    """True when there are settings that load, and nothing that no run writes: `--overwrite` deletes the folder."""
    try:
        read_config(folder)
    except LoralabError:
        return False
    half_written = tuple(f".{name}." for name in NAMES)
    names = [path.name for path in folder.iterdir()]
    return all(name in NAMES or name.startswith(half_written) or _OF_SAFETENSORS.fullmatch(name) for name in names)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
