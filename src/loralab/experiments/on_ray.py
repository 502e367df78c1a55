"""Trials on Ray, on this machine or a running cluster. The trial of a lost worker is run again.

A worker that sees this machine's files under the same paths trains in the trial's own folder and resumes from its last checkpoint
after another worker's death. Any other worker trains in a temporary folder and returns the run through Ray; data and a base given
as local paths must then exist under the same path on every host.
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
from loralab.config.paths import split_path
from loralab.errors import Interrupted, LoralabError, RunFailed, import_optional
from loralab.experiments.run_trial import MAX_DEATHS, Outcome, OutcomeCallback, run_trial
from loralab.storage import run_folder
from loralab.storage.experiment_folder import TRIALS, Trial, trial_folder
from loralab.storage.files import atomic_folder, write_errors

MAX_RUN_BYTES = 2 << 30
"""The largest run that is returned through Ray. An adapter has a few MB, roberta-large 1.4 GB."""

RunFiles = Mapping[str, bytes]
"""A run's files by their paths inside its folder."""


@dataclass(frozen=True)
class ResourceShare:
    """What one trial reserves: whole CPUs, and GPUs or a fraction of one."""

    cpus: int
    gpus: float


@dataclass(frozen=True)
class RayTask:
    """A trial for a worker.

    home: the caller's working folder, which relative paths refer to. marker: a file written by the caller, visible to workers that
    share its files. local_paths: settings that are local paths, by name.
    """

    trial: Trial
    folder: Path
    home: Path
    marker: Path
    local_paths: Mapping[str, str]
    threads: int


def run_on_ray(trials: Sequence[Trial], folder: Path, jobs: int | None, address: str | None, record: OutcomeCallback) -> None:
    """Run trials on the Ray at `address`, else on this machine's, at most `jobs` at a time; `record` receives each outcome.

    An existing connection is used, and stays open so that the next round finds warm workers. A trial whose worker is lost is run
    again, up to MAX_DEATHS times. Raises LoralabError if no Ray answers.
    """
    ray = connect(address)
    share = choose_share([node["Resources"] for node in ray.nodes() if node["Alive"]], jobs, len(trials))
    # no retries: deaths, OOM kills too, are counted here
    remote = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=0)(run_task)
    waiting, running, deaths = deque(trials), dict[Any, Trial](), Counter[str]()
    with shared_marker(folder) as marker:
        try:
            while waiting or running:
                while waiting and len(running) < (jobs or len(trials)):
                    trial = waiting.popleft()
                    task = RayTask(trial, folder, Path.cwd(), marker, find_local_paths(trial.config), share.cpus)
                    running[remote.options(name=trial.name).remote(task)] = trial
                (done,), _ = ray.wait([*running])
                trial = running.pop(done)
                try:
                    outcome, files = ray.get(done)
                    record(store_result(outcome, files, folder))
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, Interrupted):
                        raise error.cause from error
                    failure = f"Ray could not run it: {_first_line(error.cause)}; install the same loralab on every host"
                    record(Outcome(trial, failure=failure))
                except ray.exceptions.RayError as error:  # the worker, its host or its result is lost
                    deaths[trial.name] += 1
                    if deaths[trial.name] < MAX_DEATHS:
                        waiting.appendleft(trial)
                    else:
                        record(Outcome(trial, failure=f"its worker died {MAX_DEATHS} times: {_first_line(error)}"))
        except BaseException:
            for reference in running:
                ray.cancel(reference, force=True)
            raise


def connect(address: str | None) -> Any:
    """Import ray and connect. A Ray started on this machine ends with this process and sends no usage statistics."""
    ray: Any = import_optional("ray", "ray")
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        logging.getLogger("ray").setLevel(logging.ERROR)
        where = {"address": "local", "include_dashboard": False} if address is None else {"address": check_address(address)}
        try:
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            hint = "check that it runs the same Ray version and whether it needs a token (RAY_AUTH_MODE)"
            raise LoralabError(f"no Ray at {address or 'this machine'}: {_first_line(error)}\n  {hint}") from error
    return ray


def check_address(address: str) -> str:
    """Return the address. Raises LoralabError if nothing listens there; Ray itself would try for three minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            hint = "start one with `ray start --head`, which prints its address"
            raise LoralabError(f"no Ray at {address}: {error}\n  {hint}") from error
    return address


def choose_share(nodes: Sequence[Mapping[str, float]], jobs: int | None, trials: int) -> ResourceShare:
    """Divide a cluster among concurrent trials: by default one per GPU, or one per CPU without GPUs.

    nodes: each host's resources, as Ray reports them. A trial never spans hosts. Trials share a GPU only if `jobs` exceeds the
    GPUs.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    concurrent = max(1, min(jobs or gpus or sum(cpus), trials))
    per_trial = max(1, min(sum(cpus) // concurrent, max(cpus, default=1)))
    per_gpu = math.ceil(concurrent / gpus) if gpus else 1
    return ResourceShare(per_trial, 0.0 if not gpus else math.floor(10_000 / per_gpu) / 10_000)  # Ray counts ten-thousandths


def find_local_paths(config: Config) -> dict[str, str]:
    """Return the settings that are paths of this machine, by name."""
    values = {f"data.{name}": getattr(config.data, name) for name in ("source", "test", "validation", "train_indices")}
    values["model.base"] = config.model.base
    names = (*NAMED_SOURCES, "minilm")
    paths = {name: path for name, path in values.items() if isinstance(path, str) and path not in names}
    return {name: path for name, path in paths.items() if split_path(Path(path))[0].exists()}


@contextlib.contextmanager
def shared_marker(folder: Path) -> Iterator[Path]:
    """Write a file beside the trials that shows a worker whether it sees the same folder."""
    with write_errors(folder):
        (folder / TRIALS).mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder / TRIALS, prefix=".shared-")
        os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def run_task(task: RayTask) -> tuple[Outcome, RunFiles]:
    """Run a trial in its folder or, if the worker does not see it, in a temporary one; then return the run's files, too."""
    import torch

    torch.set_num_threads(task.threads)
    for setting, path in task.local_paths.items():
        if not split_path(task.home / path)[0].exists():
            advice = f"copy it to {task.home / path} there, or use a shared disk"
            return Outcome(task.trial, failure=f"{setting}={path} is not on {socket.gethostname()}: {advice}"), {}
    if task.home.is_dir():
        os.chdir(task.home)
    if task.marker.is_file() and (task.home.is_dir() or task.folder.is_absolute()):
        return run_trial(task.trial, task.folder), {}
    with tempfile.TemporaryDirectory(prefix="loralab-") as temporary:
        outcome = run_trial(task.trial, Path(temporary))
        if outcome.failure is not None:
            return outcome, {}
        try:
            return outcome, read_run_files(trial_folder(Path(temporary), task.trial))
        except RunFailed as error:
            return Outcome(task.trial, failure=str(error)), {}


def store_result(outcome: Outcome, files: RunFiles, folder: Path) -> Outcome:
    """Write the files that a worker returned, and return the outcome."""
    if files:
        try:
            write_run_files(files, trial_folder(folder, outcome.trial))
        except RunFailed as error:
            return Outcome(outcome.trial, failure=str(error))
    return outcome


def read_run_files(folder: Path) -> RunFiles:
    """Read a run's files. Raises RunFailed for more than MAX_RUN_BYTES."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if (size := sum(path.stat().st_size for path in paths)) > MAX_RUN_BYTES:
        raise RunFailed(f"the run is {size / 1e9:.1f} GB, too large to return through Ray: use a --runs folder on a shared disk")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_run_files(files: RunFiles, target: Path) -> None:
    """Write a run's files atomically as `target`, replacing an incomplete run. Raises RunFailed for names that no run has."""
    for name in files:
        parts = PurePosixPath(name).parts
        if not parts or parts[0] not in run_folder.NAMES or ".." in parts:
            raise RunFailed(f"a worker returned a file {name!r}, which no run has")
    with atomic_folder(target) as new:
        for name, content in files.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        run_folder.move_scores(new, target)


def _first_line(error: object) -> str:
    """Return the first line of an error's message; Ray appends tracebacks."""
    return (str(error).strip() or repr(error)).splitlines()[0]
