"""Trials on a real Ray on this machine: the same results as here, also with killed workers and without shared files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from loralab.config import load_config
from loralab.errors import LoralabError, RunFailed
from loralab.experiments import on_ray
from loralab.experiments.execute import ExecutionOptions, choose_execution, run_trials
from loralab.experiments.on_ray import (
    RayTask,
    ResourceShare,
    check_address,
    choose_share,
    find_local_paths,
    read_run_files,
    run_task,
    write_run_files,
)
from loralab.experiments.run_trial import Outcome
from loralab.storage import run_folder
from loralab.storage.experiment_folder import Trial, trial_folder

SHORT = ("train.epochs=1", "train.threads=1", "data.max_length=32")
on_a_real_ray = [pytest.mark.slow, pytest.mark.ray, pytest.mark.filterwarnings("ignore:::ray")]


def trial(name: str, tiny: Path, data: Path | str, *settings: str) -> Trial:
    return Trial(name, load_config("quickstart", [f"model.base={tiny}", f"data.source={data}", *SHORT, *settings]), {})


def adapter(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "adapter_model.safetensors").read_bytes()).hexdigest()


def adapters(folder: Path, trials: Sequence[Trial]) -> list[str]:
    return [adapter(trial_folder(folder, each)) for each in trials]


def failures(outcomes: Sequence[Outcome]) -> dict[str, str]:
    return {outcome.trial.name: outcome.failure for outcome in outcomes if outcome.failure is not None}


@pytest.fixture(scope="module")
def a_ray() -> Iterator[None]:
    """A Ray as `--where ray` starts it, shared by the tests."""
    pytest.importorskip("ray")
    ray = on_ray.connect(None)
    yield
    ray.shutdown()


@contextlib.contextmanager
def killer(name: str, due: Callable[[], bool], most: int) -> Iterator[list[int]]:
    """Kill -9 a trial's worker when it is due, at most `most` times, and list the pids. Ray names a worker after its task."""
    killed: list[int] = []
    over = threading.Event()

    def look() -> None:
        while len(killed) < most and not over.wait(0.02):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if due() and process.cmdline()[:1] == [f"ray::{name}"] and process.pid not in killed:
                        os.kill(process.pid, signal.SIGKILL)
                        killed.append(process.pid)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


class TestOnRay:
    """The same trials here and on Ray."""

    pytestmark = on_a_real_ray

    def test_results_equal_those_without_ray(
        self, a_ray: None, tiny: Path, topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)  # not where Ray was started: relative paths refer to this folder
        (tmp_path / "rows.csv").write_bytes(topics_csv.read_bytes())
        trials = [trial(f"seed-{seed}", tiny, "rows.csv", f"seed={seed}") for seed in (1, 2, 3)]
        run_trials(trials, Path("here"), ExecutionOptions())
        told: list[str] = []
        outcomes = run_trials(
            trials, Path("ray"), ExecutionOptions("ray", 2), on_outcome=lambda outcome: told.append(outcome.trial.name)
        )
        assert failures(outcomes) == {}
        assert sorted(told) == [outcome.trial.name for outcome in outcomes] == ["seed-1", "seed-2", "seed-3"]
        assert adapters(Path("ray"), trials) == adapters(Path("here"), trials)
        assert run_folder.read_scores(Path("ray/trials/seed-1"))["folder"] == "ray/trials/seed-1"
        assert sorted(path.name for path in Path("ray/trials").iterdir()) == ["seed-1", "seed-2", "seed-3"]
        assert all(outcome.skipped for outcome in run_trials(trials, Path("ray"), ExecutionOptions("ray")))

    def test_a_trial_resumes_after_its_worker_is_killed(self, a_ray: None, tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
        long = trial("long", tiny, topics_csv, "train.epochs=30", "train.eval_steps=4")
        trials = [long, trial("short", tiny, topics_csv)]
        started: list[int] = []

        def in_the_middle() -> bool:
            folder = tmp_path / "ray" / "trials" / "long"
            if (folder / run_folder.CHECKPOINT).is_file() and not started:
                started.append((folder / run_folder.CONFIG).stat().st_ino)
            return bool(started)

        with killer("long", in_the_middle, most=1) as killed:
            outcomes = run_trials(trials, tmp_path / "ray", ExecutionOptions("ray", 2))
        assert len(killed) == 1
        assert failures(outcomes) == {}
        assert (tmp_path / "ray" / "trials" / "long" / run_folder.CONFIG).stat().st_ino == started[0], "it was started anew"
        run_trials([long], tmp_path / "here", ExecutionOptions())
        assert adapters(tmp_path / "ray", [long]) == adapters(tmp_path / "here", [long])

    def test_a_trial_that_kills_its_workers_fails_and_the_others_continue(
        self, a_ray: None, tiny: Path, topics_csv: Path, tmp_path: Path
    ) -> None:
        trials = [trial("deadly", tiny, topics_csv), trial("good", tiny, topics_csv)]
        with killer("deadly", lambda: True, most=9) as killed:
            outcomes = run_trials(trials, tmp_path, ExecutionOptions("ray", 2))
        assert len(killed) == 3
        assert [*failures(outcomes)] == ["deadly"]
        assert failures(outcomes)["deadly"].startswith("its worker died 3 times")

    def test_runs_return_from_a_worker_without_shared_files(
        self, a_ray: None, tiny: Path, topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(on_ray, "shared_marker", lambda folder: contextlib.nullcontext(tmp_path / "no such mark"))
        trials = [trial("a", tiny, topics_csv), trial("b", tiny, topics_csv, "data.text=body")]
        (tmp_path / "ray" / "trials").mkdir(parents=True)
        outcomes = run_trials(trials, tmp_path / "ray", ExecutionOptions("ray", 1))
        assert "no column 'body'" in failures(outcomes)["b"]
        assert [path.name for path in (tmp_path / "ray" / "trials").iterdir()] == ["a"]
        run_trials(trials[:1], tmp_path / "here", ExecutionOptions())
        assert adapters(tmp_path / "ray", trials[:1]) == adapters(tmp_path / "here", trials[:1])
        here, there = (tmp_path / where / "trials" / "a" for where in ("here", "ray"))
        assert sorted(p.relative_to(there) for p in there.rglob("*")) == sorted(p.relative_to(here) for p in here.rglob("*"))
        assert run_folder.read_scores(there)["folder"] == str(there)
        assert all(outcome.skipped for outcome in run_trials(trials[:1], tmp_path / "ray", ExecutionOptions("ray")))


@pytest.mark.parametrize(
    ("nodes", "jobs", "trials", "share"),
    [
        ([(2, 0)], None, 10, ResourceShare(1, 0)),
        ([(16, 0)], 3, 10, ResourceShare(5, 0)),
        ([(16, 0)], None, 2, ResourceShare(8, 0)),  # half for each of two trials
        ([(2, 0)], 8, 10, ResourceShare(1, 0)),
        ([(4, 0), (2, 0)], 1, 10, ResourceShare(4, 0)),  # no trial spans hosts
        ([(16, 2)], None, 10, ResourceShare(8, 1)),
        ([(16, 2)], 4, 10, ResourceShare(4, 0.5)),
        ([(16, 2)], 3, 10, ResourceShare(5, 0.5)),
        ([(16, 1)], 3, 10, ResourceShare(5, 0.3333)),  # three of them fit
        ([(16, 4)], 1, 10, ResourceShare(16, 1)),
        ([(0, 0)], None, 10, ResourceShare(1, 0)),  # a cluster without nodes yet
    ],
)
def test_a_cluster_is_divided(nodes: list[tuple[int, int]], jobs: int | None, trials: int, share: ResourceShare) -> None:
    assert choose_share([{"CPU": cpus, **({"GPU": gpus} if gpus else {})} for cpus, gpus in nodes], jobs, trials) == share


def test_only_existing_paths_must_be_on_a_worker(tiny: Path, topics_csv: Path) -> None:
    assert find_local_paths(load_config("quickstart")) == {}
    config = load_config("quickstart", [f"model.base={tiny}", f"data.validation={topics_csv}", "data.test=0.5"])
    assert find_local_paths(config) == {"data.validation": str(topics_csv), "model.base": str(tiny)}
    assert find_local_paths(load_config("roberta-search")) == {}  # hub ids


def test_a_missing_file_on_a_worker_is_named(tiny: Path, tmp_path: Path) -> None:
    task = RayTask(
        trial("a", tiny, "rows.csv"), Path("runs/x"), tmp_path / "gone", tmp_path / "mark", {"data.source": "rows.csv"}, 1
    )
    outcome, files = run_task(task)
    assert files == {}
    assert outcome.failure is not None
    assert outcome.failure.startswith(f"data.source=rows.csv is not on {socket.gethostname()}: copy it to {tmp_path}/gone/rows.csv")


def a_run(folder: Path) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "loralab.json").write_bytes(b"\x00\xff")
    (folder / run_folder.SCORES).write_text('{"folder": "/tmp/elsewhere", "scores": {"accuracy": 1.0}}')
    return folder


def test_returned_files_replace_an_incomplete_run(tmp_path: Path) -> None:
    source = a_run(tmp_path / "worker" / "a")
    (source / "track").symlink_to("/etc")
    begun = tmp_path / "trials" / "a"
    begun.mkdir(parents=True)
    (begun / run_folder.CONFIG).write_text("begun")
    files = read_run_files(source)
    assert sorted(files) == ["model/loralab.json", "scores.json"]
    write_run_files(files, begun)
    assert sorted(path.name for path in begun.iterdir()) == ["model", "scores.json"]
    assert (begun / "model" / "loralab.json").read_bytes() == b"\x00\xff"
    assert json.loads((begun / run_folder.SCORES).read_text()) == {"folder": str(begun), "scores": {"accuracy": 1.0}}
    assert [path.name for path in begun.parent.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../other/scores.json", "model/../../x", "notes.txt", ".", ""])
def test_a_file_name_that_no_run_has_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunFailed, match="which no run has"):
        write_run_files({run_folder.SCORES: b"{}", name: b"x"}, tmp_path / "trials" / "a")
    assert [*tmp_path.iterdir()] == []


def test_a_run_that_is_too_large_is_not_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "MAX_RUN_BYTES", 10)
    with pytest.raises(RunFailed, match="use a --runs folder on a shared disk"):
        read_run_files(a_run(tmp_path / "a"))


def test_an_address_needs_ray() -> None:
    assert choose_execution("ray", 2, "10.0.0.1:6379") == ExecutionOptions("ray", 2, "10.0.0.1:6379")
    for where in (None, "here", "processes"):
        with pytest.raises(LoralabError, match=r"--ray-address 10\.0\.0\.1:6379 needs --where ray"):
            choose_execution(where, None, "10.0.0.1:6379")


def test_a_dead_address_is_reported_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert check_address(address) == address
        assert check_address(f"ray://{address}") == f"ray://{address}"
    assert check_address("auto") == "auto"
    for dead in (address, "127.0.0.1:99999"):
        with pytest.raises(LoralabError, match=f"no Ray at {dead}: .*\n  start one with `ray start --head`"):
            check_address(dead)
