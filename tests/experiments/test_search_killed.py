"""Searches as programs: killed, and on two machines with one PostgreSQL server."""

from __future__ import annotations

import csv
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from loralab.storage import run_folder

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
TRIALS = 20


def command(tiny: Path, data: Path, folder: Path, *more: str) -> list[str]:
    settings = [f"model.base={tiny}", f"data.source={data}", "train.epochs=2", "train.eval_steps=3", "train.batch_size=8"]
    settings += ["train.threads=1", "data.max_length=16"]
    over = ["--over", "lora.rank=2,4,8", "--over", "train.learning_rate=1e-4..1e-1:log"]
    return [sys.executable, "-m", "loralab", "search", "quickstart", *settings, *over, "--runs", str(folder), *more]


def table(folder: Path) -> dict[int, dict[str, str]]:
    path = folder / "trials.csv"
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {int(line["number"]): line for line in csv.DictReader(file)}


def ended(folder: Path) -> dict[int, dict[str, str]]:
    return {number: line for number, line in table(folder).items() if line["state"] in ("complete", "pruned")}


def runs_of(folder: Path) -> dict[str, int]:
    """Each complete trial with the time of its scores."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob(f"trials/*/{run_folder.SCORES}")}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_trials_survive_two_kills_and_none_runs_twice(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    """With two processes; tests/faults kills searches that run one trial at a time."""
    folder, jobs = tmp_path / "s", 2
    arguments = command(tiny, topics_csv, tmp_path, "--name", "s", "--trials", str(TRIALS), "--jobs", str(jobs))
    kept: dict[int, dict[str, str]] = {}
    written: dict[str, int] = {}
    cut_off = 0
    for goal in (4, 11):
        with (
            (tmp_path / "out").open("ab") as out,
            subprocess.Popen(arguments, stdout=out, stderr=out, start_new_session=True) as program,
        ):
            until = time.monotonic() + 300
            while len(ended(folder)) < goal or "running" not in {line["state"] for line in table(folder).values()}:
                assert program.poll() is None, (tmp_path / "out").read_text()
                assert time.monotonic() < until
                time.sleep(0.02)
            children = psutil.Process(program.pid).children(recursive=True)
            if goal == 4:
                os.killpg(program.pid, signal.SIGKILL)  # the whole program
            else:
                program.kill()  # the parent alone: its workers must end with it
            program.wait()
            _, alive = psutil.wait_procs(children, timeout=30)
            assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
        now = table(folder)
        cut_off += sum(line["state"] == "running" for line in now.values())
        assert {number: now[number] for number in kept} == kept
        kept = ended(folder)
        assert {name: time for name, time in runs_of(folder).items() if name in written} == written
        written = runs_of(folder)
        assert len(kept) < TRIALS
    assert cut_off
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = table(folder)
    assert sorted(lines) == list(range(TRIALS))
    assert {line["state"] for line in lines.values()} <= {"complete", "pruned"}
    assert {number: lines[number] for number in kept} == kept
    assert {name: time for name, time in runs_of(folder).items() if name in written} == written
    assert len({(line["lora.rank"], line["train.learning_rate"]) for line in lines.values()}) == TRIALS
    created = [json.loads(line) for line in (folder / "study.journal").read_text().splitlines()]
    assert sum(entry["op_code"] == 4 for entry in created) == TRIALS  # Optuna's code for a new trial
    for number in lines:
        steps = [e["step"] for e in run_folder.read_log(folder / "trials" / f"trial-{number:04d}") if e["event"] == "StepEnd"]
        assert steps == list(range(1, len(steps) + 1))
    again = subprocess.run(arguments, capture_output=True, text=True)
    assert again.returncode == 0
    assert table(folder) == lines
    assert f"{TRIALS} trials have ended in earlier calls" in again.stdout


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a database on a PostgreSQL server that runs during these tests."""
    if not PROGRAMS:
        pytest.skip("there are no PostgreSQL programs in /usr/lib/postgresql")
    folder = Path(tempfile.mkdtemp(prefix="loralab-postgres-"))  # not below pytest's folders, which another user may not enter
    user: dict[str, object] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        entry = pwd.getpwnam("postgres")
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs = PROGRAMS[-1].parent
    quiet: dict[str, object] = {"check": True, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    init = [str(programs / "initdb"), "-D", str(folder / "data"), "-U", "loralab", "-A", "trust", "-N"]
    subprocess.run(init, **quiet, **user)  # type: ignore[call-overload]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    control = [str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w"]
    subprocess.run([*control, "-o", options, "-l", str(folder / "log"), "start"], **quiet, **user)  # type: ignore[call-overload]
    yield f"postgresql://loralab@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "-m", "immediate", "stop"], **quiet, **user)  # type: ignore[call-overload]
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_two_machines_share_a_search_over_postgresql(server: str, tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    """Two programs with their own folders, started at the same time on an empty database."""
    folders = [tmp_path / "here", tmp_path / "there"]
    more = ["--name", "shared", "--trials", "8", "--storage", server]
    programs = [
        subprocess.Popen(command(tiny, topics_csv, folder, *more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for folder in folders
    ]
    said = [program.communicate(timeout=500)[0] for program in programs]
    assert [program.returncode for program in programs] == [0, 0], said
    here, there = ({path.name for path in (folder / "shared" / "trials").iterdir()} for folder in folders)
    assert not here & there
    assert here | there == {f"trial-{n:04d}" for n in range(8)}
    assert here
    assert there
    again = [subprocess.run(command(tiny, topics_csv, folder, *more), capture_output=True, text=True) for folder in folders]
    assert [done.returncode for done in again] == [0, 0], again
    lines = [table(folder / "shared") for folder in folders]
    assert lines[0] == lines[1]
    assert sorted(ended(folders[0] / "shared")) == list(range(8))
    assert (folders[0] / "shared" / "best.yaml").read_text() == (folders[1] / "shared" / "best.yaml").read_text()


@pytest.mark.slow
@pytest.mark.postgres
def test_processes_of_one_program_share_postgresql_and_overwrite_forgets(
    server: str, tiny: Path, topics_csv: Path, tmp_path: Path
) -> None:
    arguments = command(tiny, topics_csv, tmp_path, "--name", "two", "--trials", "4", "--storage", server, "--jobs", "2")
    for more in ([], ["--overwrite"]):
        done = subprocess.run([*arguments, *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert sorted(ended(tmp_path / "two")) == list(range(4))
        assert "have ended in earlier calls" not in done.stdout
