"""Trials give the same results here and in processes; completed ones are skipped, killed ones resumed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest
import torch
from sealing import reseal

from loralab.config import Config
from loralab.errors import Interrupted, LoralabError, RunFailed
from loralab.experiments.execute import ExecutionOptions, choose_execution, run_trials
from loralab.experiments.plans import StaticPlan, make_plan
from loralab.experiments.run import run_experiment
from loralab.experiments.run_trial import Outcome, run_trial
from loralab.experiments.spec import find_kind
from loralab.pipeline import run_training
from loralab.storage import run_folder
from loralab.storage.experiment_folder import Trial, read_experiment, trial_folder
from loralab.training.callbacks import Event, StepEnd

HERE = ExecutionOptions("here")
SETTINGS = ["train.epochs=2", "train.eval_steps=2", "train.batch_size=8", "train.threads=1", "data.max_length=32", "data.clean="]


def planned(tiny: Path, data: Path, *settings: str, seeds: tuple[int, ...] = (1, 2)) -> StaticPlan:
    return make_plan(find_kind("seeds"), [str(data)], [f"model.base={tiny}", *SETTINGS, *settings], {}, seeds)


def weights(trials: Path) -> dict[str, str]:
    """Each complete trial's adapter."""
    found = [path.parent for path in sorted(trials.glob("trials/*/scores.json"))]
    return {run.name: hashlib.sha256((run / "model" / "adapter_model.safetensors").read_bytes()).hexdigest() for run in found}


@pytest.fixture(scope="module")
def done(tiny: Path, topics_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, not interrupted."""
    folder = tmp_path_factory.mktemp("done") / "seeds"
    assert not run_experiment(planned(tiny, topics_csv), folder).failures
    return folder


# --- what is run ---------------------------------------------------------------------------------------------------


def test_every_trial_is_an_ordinary_run(tiny: Path, topics_csv: Path, done: Path, tmp_path: Path) -> None:
    trial = planned(tiny, topics_csv).trials[1]
    alone = run_training(trial.config, name="alone", folder=tmp_path)
    assert run_folder.read_scores(done / "trials" / trial.name)["scores"] == alone.scores
    assert run_folder.read_config(done / "trials" / trial.name) == trial.config


def test_completed_trials_are_skipped_and_new_points_added(tiny: Path, topics_csv: Path, done: Path) -> None:
    before = weights(done)
    with mock.patch("loralab.pipeline.run_training", wraps=run_training) as ran:
        summary = run_experiment(planned(tiny, topics_csv, seeds=(2, 3)), done)
    assert [(o.trial.name, o.skipped) for o in summary.outcomes] == [("seed-2", True), ("seed-3", False)]
    assert ran.call_count == 1
    found = read_experiment(done)
    assert [entry.name for entry in found.records] == ["seed-1", "seed-2", "seed-3"]
    assert found.spec.varied == {"seed": [1, 2, 3]}
    assert before.items() < weights(done).items()


def test_a_damaged_trial_is_named_and_trained_again_after_it_was_deleted(
    tiny: Path, topics_csv: Path, done: Path, tmp_path: Path
) -> None:
    shutil.copytree(done, folder := tmp_path / "grid")
    plan, before = planned(tiny, topics_csv), weights(folder)
    trial = trial_folder(folder, plan.trials[0])
    (trial / "model" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(LoralabError, match=rf"model\.safetensors is damaged(.|\n)*delete {re.escape(str(trial))} and repeat"):
        run_experiment(plan, folder)
    shutil.rmtree(trial)
    run_experiment(plan, folder)
    assert weights(folder) == before


def test_an_interrupted_trial_resumes_to_the_same_adapter(tiny: Path, topics_csv: Path, done: Path, tmp_path: Path) -> None:
    trial = planned(tiny, topics_csv).trials[0]

    def stop(event: Event) -> None:
        if isinstance(event, StepEnd) and event.step == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run_training(trial.config, name=trial.name, folder=tmp_path / "trials", listeners=[stop])
    with mock.patch("loralab.pipeline.run_training", wraps=run_training) as ran:
        assert run_trial(trial, tmp_path) == Outcome(trial)
    assert ran.call_args.kwargs["resume"]
    assert weights(tmp_path)[trial.name] == weights(done)[trial.name]


def test_a_trial_is_resumed_with_the_threads_it_was_started_with(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    trial = planned(tiny, topics_csv, "train.threads=null").trials[0]

    def stop(event: Event) -> None:
        if isinstance(event, StepEnd) and event.step == 5:
            raise InterruptedError

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)  # as with --jobs 1 on two cores
        assert run_trial(trial, tmp_path / "whole").failure is None
        with pytest.raises(InterruptedError):
            run_training(trial.config, name=trial.name, folder=tmp_path / "cut" / "trials", listeners=[stop])
        config = tmp_path / "cut" / "trials" / trial.name / run_folder.CONFIG
        started = config.stat().st_mtime_ns
        torch.set_num_threads(1)  # as with --jobs 2
        assert run_trial(trial, tmp_path / "cut") == Outcome(trial)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert config.stat().st_mtime_ns == started, "it was started anew"
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_a_failing_trial_does_not_stop_the_others(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    points = {"train.monitor": ("f1:Wrold", "accuracy")}
    plan = make_plan(find_kind("grid"), [str(topics_csv)], [f"model.base={tiny}", *SETTINGS], points, (1,))
    told: list[Outcome] = []
    summary = run_experiment(plan, tmp_path / "grid", on_outcome=told.append)
    wrong, right = plan.trials
    assert [o.failure is None for o in told] == [False, True]
    assert "Wrold" in summary.failures[wrong.name]
    entries = read_experiment(tmp_path / "grid").records
    assert [entry.failure for entry in entries] == [summary.failures[wrong.name], None]
    assert set(weights(tmp_path / "grid")) == {right.name}


def test_a_completed_trial_with_other_settings_is_refused(tiny: Path, topics_csv: Path, done: Path) -> None:
    before = weights(done)
    with pytest.raises(LoralabError, match="was run with other settings"):
        run_trials(planned(tiny, topics_csv, "lora.rank=2").trials, done, HERE)
    with pytest.raises(LoralabError, match="holds another experiment, with fixed settings"):
        run_experiment(planned(tiny, topics_csv, "lora.rank=2"), done)
    assert weights(done) == before


def test_a_completed_trial_without_a_newer_setting_is_skipped(tiny: Path, topics_csv: Path, done: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(done, tmp_path / "older"))
    for config in folder.glob("trials/*/config.yaml"):
        text = config.read_text()
        assert text.count("  gradient_checkpointing: false\n") == 1
        config.write_text(text.replace("  gradient_checkpointing: false\n", ""))
        scores = json.loads((config.parent / "scores.json").read_text())
        (config.parent / "scores.json").write_text(json.dumps({**scores, "fingerprint": "of fewer settings"}))
        reseal(config.parent)
    found = run_trials(planned(tiny, topics_csv).trials, folder, HERE)
    assert all(outcome.skipped for outcome in found)
    assert found


def test_trials_that_share_a_run_are_run_once(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    config = planned(tiny, topics_csv, "train.epochs=0").trials[0].config
    trials = [Trial(name, config, {"strategy": name}, "trials/start") for name in "ab"]
    told: list[Outcome] = []
    with mock.patch("loralab.pipeline.run_training", wraps=run_training) as ran:
        assert run_trials(trials, tmp_path, HERE, on_outcome=told.append) == [Outcome(trial) for trial in trials] == told
    assert ran.call_count == 1
    assert os.listdir(tmp_path / "trials") == ["start"]


def test_an_external_run_is_never_run(tiny: Path, topics_csv: Path, done: Path, tmp_path: Path) -> None:
    config = planned(tiny, topics_csv).trials[0].config.override("lora.rank=3")  # settings of an external run are not checked
    assert run_trials([Trial("x", config, {}, os.path.relpath(done / "trials" / "seed-1", tmp_path))], tmp_path, HERE)[0].skipped
    with (
        mock.patch("loralab.pipeline.run_training", side_effect=AssertionError),
        pytest.raises(LoralabError, match="not complete"),
    ):
        run_trials([Trial("x", config, {}, "../nothing")], tmp_path, HERE)


# --- how a trial ends, with a mock of the run ------------------------------------------------------------------


def mock_training(*ends: Exception | None) -> Any:
    """A mock of run_training that ends in turn as given."""
    return mock.patch("loralab.pipeline.run_training", side_effect=[end if end else mock.DEFAULT for end in ends])


@pytest.fixture
def trial() -> Trial:
    return Trial("t", Config(), {})


def started(folder: Path) -> Path:
    run_folder.create(folder / "trials" / "t", Config(), {}, overwrite=False)
    return folder


def test_only_an_interruption_is_raised(trial: Trial, tmp_path: Path) -> None:
    with mock_training(Interrupted("Ctrl-C")), pytest.raises(Interrupted):
        run_trial(trial, tmp_path)
    for error in (LoralabError("no such column"), RunFailed("disk full")):
        with mock_training(error):
            assert run_trial(trial, tmp_path).failure == str(error)


def test_a_bug_is_a_failure_with_its_traceback(trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mock_training(ZeroDivisionError("ours")):
        assert run_trial(trial, tmp_path).failure == "ZeroDivisionError('ours')"
    assert "Traceback" in capsys.readouterr().err


def test_a_trial_that_cannot_be_resumed_restarts_and_gives_the_reason(trial: Trial, tmp_path: Path) -> None:
    with mock_training(LoralabError("precision was bf16"), None) as ran:
        assert run_trial(trial, started(tmp_path)) == Outcome(trial, restarted="precision was bf16")
    assert [call.kwargs for call in ran.call_args_list] == [
        {"name": "t", "folder": tmp_path / "trials", "listeners": (), "resume": True},
        {"name": "t", "folder": tmp_path / "trials", "listeners": (), "overwrite": True},
    ]


def test_a_failed_resumption_does_not_restart(trial: Trial, tmp_path: Path) -> None:
    with mock_training(RunFailed("disk full")) as ran:
        assert run_trial(trial, started(tmp_path)).failure == "disk full"
    assert ran.call_count == 1


def test_where_is_one_of_three() -> None:
    assert choose_execution("here", 2) == ExecutionOptions("here", 2)
    with pytest.raises(LoralabError, match="choose one of here, processes, ray"):
        choose_execution("there")


# --- processes -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_give_the_same_adapters(tiny: Path, topics_csv: Path, done: Path, tmp_path: Path) -> None:
    outcomes = run_trials(planned(tiny, topics_csv).trials, tmp_path, ExecutionOptions("processes", 2))
    assert [(o.skipped, o.failure) for o in outcomes] == [(False, None)] * 2
    assert weights(tmp_path).items() <= weights(done).items()


def start(tiny: Path, data: Path, folder: Path) -> subprocess.Popen[str]:
    """Start an experiment of three long trials, two at a time, in its own session."""
    settings = [f"model.base={tiny}", *SETTINGS, "train.epochs=8", "train.schedule=constant"]
    command = [
        "-m",
        "loralab",
        "experiment",
        "seeds",
        str(data),
        *settings,
        "--seeds",
        "1,2,3",
        "--where",
        "processes",
        "--jobs",
        "2",
    ]
    command += ["--runs", str(folder), "--name", "e"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment,
    )


def end(process: subprocess.Popen[str]) -> None:
    """Kill all workers, however the test ends."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_until(happened: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def steps(folder: Path, trial: str) -> int:
    """The last step in a trial's log."""
    log = folder / "e" / "trials" / trial
    return max((event["step"] for event in run_folder.read_log(log)), default=0)


def finish(tiny: Path, data: Path, folder: Path) -> dict[str, str]:
    process = start(tiny, data, folder)
    try:
        out, _ = process.communicate(timeout=600)
    finally:
        end(process)
    assert process.returncode == 0, out
    return weights(folder / "e")


@pytest.fixture(scope="module")
def never_stopped(tiny: Path, topics_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return finish(tiny, topics_csv, tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
def test_a_killed_worker_costs_no_trial(tiny: Path, topics_csv: Path, tmp_path: Path, never_stopped: dict[str, str]) -> None:
    process = start(tiny, topics_csv, tmp_path / "killed")
    try:
        wait_until(lambda: steps(tmp_path / "killed", "seed-1") >= 2)
        workers = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
        assert len(workers) == 2
        workers[0].send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=600)
    finally:
        end(process)
    assert process.returncode == 0, out
    assert re.search("3 of 3 trials have a result", out)
    entries = json.loads((tmp_path / "killed" / "e" / "experiment.json").read_text())["trials"]
    assert [entry["failure"] for entry in entries] == [None] * 3
    assert weights(tmp_path / "killed" / "e") == never_stopped


@pytest.mark.slow
def test_an_experiment_resumes_after_ctrl_c(tiny: Path, topics_csv: Path, tmp_path: Path, never_stopped: dict[str, str]) -> None:
    process = start(tiny, topics_csv, tmp_path / "cut")
    try:
        wait_until(lambda: steps(tmp_path / "cut", "seed-1") >= 2)
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    finally:
        end(process)
    assert process.returncode == 1, out
    assert "Traceback" not in out
    assert "interrupted" in out
    assert len(weights(tmp_path / "cut" / "e")) < 3
    assert steps(tmp_path / "cut", "seed-1") >= 2
    assert finish(tiny, topics_csv, tmp_path / "cut") == never_stopped
