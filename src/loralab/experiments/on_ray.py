"""Trials on Ray: a Ray of this machine, or a cluster that stands already. What a lost worker was doing is done again.

Where a worker sees this machine's files, at the same paths, a trial is trained in its own folder, and goes on from its last
checkpoint after a worker's death. Elsewhere it is trained in a temporary folder, and the finished run comes back through Ray. Data
and base that are local paths must then lie at the same path on every host; those with names of the hub need not.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from loralab.config import Config
from loralab.config.loading import NAMED_SOURCES
from loralab.errors import Interrupted, LoralabError, RunFailed, need
from loralab.experiments.run_trial import MOST_DEATHS, Outcome, Tell, run_trial
from loralab.storage import run_folder
from loralab.storage.experiment_folder import TRIALS, Trial, trial_folder

MOST_BYTES = 2 << 30
"""The largest run that travels. An adapter is a few MB; the whole of roberta-large is 1.4 GB."""

Files = Mapping[str, bytes]
"""The files of a run, by their paths inside its folder."""


@dataclass(frozen=True)
class Share:
    """What one trial takes of a cluster: whole processors, and GPUs or a fraction of one."""

    cpus: int
    gpus: float


@dataclass(frozen=True)
class Task:
    """A trial as a worker gets it.

    home: the caller's working folder, from which all relative paths are meant. mark: a file that the caller wrote, which a worker
    sees where the two share their files. needs: local paths among the settings, by the setting's name.
    """

    trial: Trial
    folder: Path
    home: Path
    mark: Path
    needs: Mapping[str, str]
    threads: int


def run_on_ray(trials: Sequence[Trial], folder: Path, jobs: int | None, address: str | None, ended: Tell) -> None:
    """Run trials on the Ray at `address`, else on this machine's, at most `jobs` at a time; `ended` hears of each.

    A Ray that this process is connected to already is used, and the connection stays, so that a further round finds its workers
    warm. A trial whose worker is lost is tried again, MOST_DEATHS times in all. Raises LoralabError where no Ray answers.
    """
    ray = connect(address)
    share = choose_share([node["Resources"] for node in ray.nodes() if node["Alive"]], jobs, len(trials))
    remote = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=0)(work)  # deaths are counted here, OOM kills too
    waiting, running, deaths = deque(trials), dict[Any, Trial](), Counter[str]()
    with marked(folder) as mark:
        try:
            while waiting or running:
                while waiting and len(running) < (jobs or len(trials)):
                    trial = waiting.popleft()
                    task = Task(trial, folder, Path.cwd(), mark, local_paths(trial.config), share.cpus)
                    running[remote.options(name=trial.name).remote(task)] = trial
                (done,), _ = ray.wait([*running])
                trial = running.pop(done)
                try:
                    outcome, files = ray.get(done)
                    ended(fetch(outcome, files, folder))
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, Interrupted):
                        raise error.cause from error
                    ended(Outcome(trial, failure=f"Ray could not run it: {_line(error.cause)}; every host needs this loralab"))
                except ray.exceptions.RayError as error:  # the worker, its host or what it returned is lost
                    deaths[trial.name] += 1
                    if deaths[trial.name] < MOST_DEATHS:
                        waiting.appendleft(trial)
                    else:
                        ended(Outcome(trial, failure=f"its worker died {MOST_DEATHS} times: {_line(error)}"))
        except BaseException:
            for reference in running:
                ray.cancel(reference, force=True)
            raise


def connect(address: str | None) -> Any:
    """Return the package ray, connected. A Ray of this machine's own ends with this process, and reports its use to nobody."""
    ray: Any = need("ray", "ray")
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        logging.getLogger("ray").setLevel(logging.ERROR)
        where = {"address": "local", "include_dashboard": False} if address is None else {"address": listening(address)}
        try:
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            asked = "is its Ray of the same version, and does it want a token (RAY_AUTH_MODE)?"
            raise LoralabError(f"no Ray at {address or 'this machine'}: {_line(error)}\n  {asked}") from error
    return ray


def listening(address: str) -> str:
    """Return the address. Raises LoralabError where nothing listens there: Ray itself tries for three minutes, and says little."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise LoralabError(f"no Ray at {address}: {error}\n  `ray start --head` starts one and tells its address") from error
    return address


def choose_share(nodes: Sequence[Mapping[str, float]], jobs: int | None, trials: int) -> Share:
    """Divide a cluster among the trials that run at a time: by default one per GPU, without GPUs one per processor.

    nodes: each host's resources, as Ray tells them. A trial never spans hosts; several share a GPU only where `jobs` says so.
    """
    processors = [int(node.get("CPU", 0)) for node in nodes]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    at_once = max(1, min(jobs or gpus or sum(processors), trials))
    cpus = max(1, min(sum(processors) // at_once, max(processors, default=1)))
    each = math.ceil(at_once / gpus) if gpus else 1
    return Share(cpus, 0.0 if not gpus else math.floor(10_000 / each) / 10_000)  # Ray counts ten-thousandths


def local_paths(config: Config) -> dict[str, str]:
    """The settings that are paths of this machine, by name."""
    data = config.data
    given = {
        "data.source": data.source,
        "data.test": data.test,
        "data.validation": data.validation,
        "data.train_indices": data.train_indices,
    }
    found = {**given, "model.base": config.model.base}
    named = (*NAMED_SOURCES, "minilm")
    return {name: path for name, path in found.items() if isinstance(path, str) and path not in named and Path(path).exists()}


@contextlib.contextmanager
def marked(folder: Path) -> Iterator[Path]:
    """Write a file beside the trials by which a worker knows that it sees the same folder."""
    with run_folder.says_disk(folder):
        (folder / TRIALS).mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder / TRIALS, prefix=".shared-")
        os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def work(task: Task) -> tuple[Outcome, Files]:
    """What a worker does: run the trial in its folder; where that is not seen, elsewhere, and return the finished run's files."""
    import torch

    torch.set_num_threads(task.threads)
    for setting, path in task.needs.items():
        if not (task.home / path).exists():
            failure = f"{setting}={path} is not on {socket.gethostname()}: put it at {task.home / path} there, or on a disk all see"
            return Outcome(task.trial, failure=failure), {}
    if task.home.is_dir():
        os.chdir(task.home)
    if task.mark.is_file() and (task.home.is_dir() or task.folder.is_absolute()):
        return run_trial(task.trial, task.folder), {}
    with tempfile.TemporaryDirectory(prefix="loralab-") as own:
        outcome = run_trial(task.trial, Path(own))
        if outcome.failure is not None:
            return outcome, {}
        try:
            return outcome, pack(trial_folder(Path(own), task.trial))
        except RunFailed as error:
            return Outcome(task.trial, failure=str(error)), {}


def fetch(outcome: Outcome, files: Files, folder: Path) -> Outcome:
    """Write down what came back with a trial's outcome."""
    if files:
        try:
            unpack(files, trial_folder(folder, outcome.trial))
        except RunFailed as error:
            return Outcome(outcome.trial, failure=str(error))
    return outcome


def pack(folder: Path) -> Files:
    """Read a finished run's files. Raises RunFailed where they are more than should travel."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if (size := sum(path.stat().st_size for path in paths)) > MOST_BYTES:
        raise RunFailed(f"the run is {size / 1e9:.1f} GB, more than travels through Ray: use a --runs folder that every host sees")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def unpack(files: Files, target: Path) -> None:
    """Write a run's files as `target`, whole or not at all, over what was begun there. Raises RunFailed for odd names."""
    for name in files:
        parts = PurePosixPath(name).parts
        if not parts or parts[0] not in run_folder.NAMES or ".." in parts:
            raise RunFailed(f"a run came back with a file {name!r}, which no run has")
    with run_folder.atomic_folder(target) as new:
        for name, content in files.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        run_folder.write_json(new / run_folder.SCORES, {**run_folder.read_scores(new), "folder": str(target)})


def _line(error: object) -> str:
    """The first line of what an error says: Ray's go on with traces."""
    return (str(error).strip() or repr(error)).splitlines()[0]
