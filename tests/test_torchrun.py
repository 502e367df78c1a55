"""`loralab train` under torchrun: one run folder, one output, and the same result as one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file
from tiny import make_checkpoint

from loralab import LoralabError, load_config
from loralab.pipeline import run_training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
EXACT = ["train.precision=fp32", "train.threads=1", "model.dropout=0", "lora.dropout=0", "train.learning_rate=0.005"]
WEIGHTED = ["train.class_weights=balanced", "train.label_smoothing=0.1", "train.focal_gamma=1"]
STOPPED = ["train.patience=2", "train.min_delta=100"]
CASES = {
    # several micro-batches per step; training stops early, and the best weights are not the last
    "accumulated": [*WEIGHTED, "train.batch_size=12", "train.max_tokens_per_microbatch=48", "train.eval_steps=2", *STOPPED],
    # 86 rows: five batches of 17 and one of 1, of which one process gets nothing
    "one_left": ["train.batch_size=17", "train.eval_steps=2", "train.epochs=2"],
    "cached": ["lora.layers=top1", "train.feature_cache=disk", "train.head_init=probe", "train.max_steps=6"],
    "adalora": ["lora.variant=adalora", "train.max_steps=8", "train.eval_steps=4"],
}


def command(*arguments: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "loralab",
        "train",
        *arguments,
    ]


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def weights(run: Path) -> dict[str, Any]:
    return load_file(run / "model" / "adapter_model.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_run_of_one(
    tiny: Path, topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setenv("LORALAB_CACHE", str(tmp_path / "cache"))
    base = make_checkpoint(tmp_path / "base", "deberta-v2") if case == "adalora" else tiny
    settings = [f"model.base={base}", *EXACT, *CASES[case]]
    done = torchrun(str(topics_csv), *settings, "--name", "two", "--runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fp32 on cpu, 2 processes x 1 thread") == 1
    assert done.stdout.count("macro F1") == done.stdout.count("loralab predict") == 1
    cached = len(list((tmp_path / "cache").glob("*"))) if case == "cached" else 0

    one = run_training(load_config(topics_csv, settings), name="one", folder=tmp_path)
    assert len(list((tmp_path / "cache").glob("*"))) == cached == (3 if case == "cached" else 0)  # both use the same files
    logs = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    assert len(logs[0]) == len(logs[1])
    for ours, theirs in zip(*logs, strict=True):
        assert (ours["event"], ours["step"]) == (theirs["event"], theirs["step"])
        if ours["event"] == "StepEnd":
            assert theirs["loss"] == pytest.approx(ours["loss"], abs=1e-5)
            assert (theirs["samples"], theirs["learning_rate"]) == (ours["samples"], ours["learning_rate"])
        else:
            assert theirs["scores"] == pytest.approx(ours["scores"], abs=1e-4)
            assert theirs["scores"]["loss"] == pytest.approx(ours["scores"]["loss"], abs=1e-5)
            assert theirs["improved"] == ours["improved"]
    adapter = weights(tmp_path / "two")
    for name, tensor in weights(tmp_path / "one").items():
        assert (tensor - adapter[name]).abs().max() < 1e-3, name
    written = json.loads((tmp_path / "two" / "scores.json").read_text())
    assert written["scores"] == pytest.approx(dict(one.scores), abs=1e-4)
    assert (written["steps"], written["best_step"], written["stopped_early"]) == (one.steps, one.best_step, one.stopped_early)
    if case == "accumulated":
        assert one.stopped_early
        assert one.best_step < one.steps
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["processes"] == 2
    assert {path.name for path in (tmp_path / "one").iterdir()} <= {path.name for path in (tmp_path / "two").iterdir()}
    assert (tmp_path / "two" / "report.html").is_file()


def test_killed_processes_resume_to_the_same_adapter(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    settings = [f"model.base={tiny}", "train.threads=1", "lora.dropout=0.2", "train.epochs=40", "train.eval_steps=2"]
    arguments = [str(topics_csv), *settings, "--no-report", "--runs", str(tmp_path)]
    assert torchrun(*arguments, "--name", "whole").returncode == 0

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = tmp_path / "cut" / "log.jsonl"
    with subprocess.Popen(command(*arguments, "--name", "cut"), env=environment, stdout=subprocess.DEVNULL, stderr=-3) as process:
        while not log.is_file() or log.read_text().count("EvalEnd") < 5:
            assert process.poll() is None
            time.sleep(0.02)
        for running in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            running.kill()
    assert (tmp_path / "cut" / "checkpoint.safetensors").is_file()

    config = load_config(topics_csv, settings)
    with pytest.raises(LoralabError, match=r"processes was 2, is 1;\n.*resume it as it was started"):
        run_training(config, name="cut", folder=tmp_path, resume=True)
    done = torchrun(*arguments, "--name", "cut", "--resume")
    assert done.returncode == 0, done.stderr
    for name, tensor in weights(tmp_path / "whole").items():
        assert tensor.equal(weights(tmp_path / "cut")[name]), name
    losses = [[e["loss"] for e in log_of(tmp_path / name) if e["event"] == "StepEnd"] for name in ("whole", "cut")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("wrong", ["setting", "data", "tracker", "run that exists", "diverged"])
def test_an_error_is_printed_once_and_ends_all_processes(tiny: Path, topics_csv: Path, tmp_path: Path, wrong: str) -> None:
    runs = tmp_path / "runs"
    settings = [str(topics_csv), f"model.base={tiny}", *EXACT, "--runs", str(runs), "--name", "run"]
    if wrong == "run that exists":
        run_training(load_config(topics_csv, [*settings[1:7], "train.max_steps=1"]), name="run", folder=runs)
    more, message, code = {
        "setting": (["lora.rnk=3"], "unknown setting 'lora.rnk'; did you mean 'lora.rank'?", 2),
        "data": (["data.text=body"], "has no column 'body' (data.text); columns: text, label", 2),
        "tracker": (["--track", "tensorbord"], "there is no tracker 'tensorbord'; did you mean 'tensorboard'?", 2),
        "run that exists": ([], "exists (complete): choose another --name", 2),
        "diverged": (["train.learning_rate=1e30", "train.warmup=0"], "lower train.learning_rate", 1),
    }[wrong]
    done = torchrun(*settings, *more)
    assert done.returncode == 1  # torchrun's exit code, whatever its processes' are
    errors = [line for line in done.stderr.splitlines() if line.startswith("loralab: ")]
    assert len(errors) == 1
    assert message in errors[0]
    report = done.stderr.rpartition("Root Cause")[2]
    assert f"exitcode  : {code} " in report
    assert errors[0] in report
    assert "Traceback" not in done.stderr.partition("torch/distributed")[0]
    assert (runs / "run" / "scores.json").exists() == (wrong == "run that exists")
    assert (runs / "run").exists() == (wrong in ("run that exists", "diverged"))
