"""Run folders: the only file that knows the names inside one.

NAME/config.yaml        every setting            log.jsonl       one event a line
NAME/environment.json   versions, device, data   model/          the bundle that `Classifier.load` reads
NAME/scores.json        written last: if it is there, the run is complete
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from loralab.config import Config
from loralab.errors import LoralabError, RunFailed

CONFIG, ENVIRONMENT, LOG, MODEL, SCORES = "config.yaml", "environment.json", "log.jsonl", "model", "scores.json"


@dataclass(frozen=True)
class Run:
    """An open run folder."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    def write_environment(self, **facts: Any) -> None:
        """Write what a repetition would have to share: versions and machine, and the facts given."""
        versions = {package: metadata.version(package) for package in ("loralab", "torch", "tokenizers", "safetensors", "numpy")}
        machine = {"python": platform.python_version(), "platform": platform.platform(), "cores": os.cpu_count()}
        write_json(self.folder / ENVIRONMENT, {"versions": versions, "machine": machine, **facts})

    def write_scores(self, scores: Mapping[str, Any]) -> None:
        """Complete the run."""
        write_json(self.folder / SCORES, scores)

    def log(self, entry: Mapping[str, Any]) -> None:
        """Append one event; each is on the disk when this returns, so a killed run keeps its log."""
        with _says_disk(self.folder), (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def check_free(folder: Path, overwrite: bool) -> None:
    """Raise LoralabError when a run of this name exists and is not to be replaced, or is no run at all."""
    if folder.exists() and not (folder / CONFIG).is_file():
        raise LoralabError(f"{folder} exists and is not a run: choose another --name or --runs")
    if folder.exists() and not overwrite:
        state = "complete" if (folder / SCORES).is_file() else "not complete"
        raise LoralabError(f"the run {folder} exists ({state}): choose another --name, or replace it with --overwrite")
    if not _writable(folder.parent):
        raise LoralabError(f"{folder.parent} cannot be written to: choose another --runs folder")


def create(folder: Path, config: Config, overwrite: bool) -> Run:
    """Make the folder, replacing an earlier run only when told to."""
    check_free(folder, overwrite)
    with _says_disk(folder):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        with atomic(folder / CONFIG) as file:
            file.write(config.to_yaml())
    return Run(folder)


def model_folder(path: Path) -> Path:
    """Return the bundle of a run, or the path itself when it is a bundle or a peft folder."""
    if not path.is_dir():
        raise LoralabError(f"there is no run {path}: `loralab train` makes one")
    if (path / CONFIG).is_file() and not (path / MODEL).is_dir():
        raise LoralabError(f"the run {path} holds no trained model yet: it was stopped before its first evaluation; train it again")
    return path / MODEL if (path / MODEL).is_dir() else path


def read_scores(folder: Path) -> dict[str, Any]:
    """Read a complete run's scores. Raises LoralabError when there are none or they are damaged."""
    try:
        content = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoralabError(f"{folder} has no readable {SCORES}: the run is not complete") from error
    if not isinstance(content, dict):
        raise LoralabError(f"{folder / SCORES} is damaged: it holds a {type(content).__name__}")
    return content


def read_config(folder: Path) -> Config:
    """Read a run's settings. Raises LoralabError when the file is missing or damaged."""
    from loralab.config import load_config

    if not (folder / CONFIG).is_file():
        raise LoralabError(f"{folder} is not a run: it has no {CONFIG}")
    return load_config(folder / CONFIG)


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
    with _says_disk(folder):
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            yield temporary
            os.chmod(temporary, 0o777 & ~_umask())
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    with _says_disk(path), atomic(path) as file:
        json.dump(content, file, indent=2)
        file.write("\n")


@contextlib.contextmanager
def _says_disk(path: Path) -> Iterator[None]:
    """A full or read-only disk is the run's failure, told in one line."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error.strerror or error}; what was saved before is intact") from error


def _writable(folder: Path) -> bool:
    existing = next((parent for parent in (folder, *folder.parents) if parent.exists()), Path("/"))
    return existing.is_dir() and os.access(existing, os.W_OK)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
