"""The whole route on a tiny random encoder: what a run learns, writes, repeats, refuses, and saves when interrupted."""

from __future__ import annotations

import csv
import errno
import hashlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score, log_loss
from tiny import make_checkpoint, topics, write_csv

import loralab.pipeline
from loralab import Classifier, Config, LoralabError, load_config
from loralab.data.splits import load_splits
from loralab.errors import RunFailed
from loralab.info import count_parameters
from loralab.pipeline import run_training
from loralab.storage.files import atomic_folder
from loralab.training.callbacks import CacheProgress, EvalEnd, Event, StepEnd
from loralab.training.setup import RunPlan
from loralab.verify import check_complete_run

Configure = Callable[..., Config]
CLASSES = ("World", "Sports", "Business", "Sci/Tech")
FILES = {"config.yaml", "environment.json", "data.json", "log.jsonl", "model", "predictions.csv", "scores.json"}
ALWAYS = {"config.json", "loralab.json", "tokenizer.json", "tokenizer_config.json"}
BUNDLE = {"adapter_config.json", "adapter_model.safetensors", *ALWAYS}


@pytest.fixture
def configure(tiny: Path, topics_csv: Path) -> Configure:
    """Return settings that learn the topics in a quarter of a second, with overrides."""

    def configured(*overrides: str) -> Config:
        own = [f"model.base={tiny}", "train.learning_rate=0.01", "train.epochs=6", "train.precision=fp32"]
        return load_config(topics_csv, [*own, *overrides])

    return configured


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_learns_well_above_chance(configure: Configure, tmp_path: Path) -> None:
    summary = run_training(configure(), folder=tmp_path)
    assert summary.scores["accuracy"] > 0.7  # four classes of equal size: chance is 0.25
    assert summary.validation["accuracy"] > 0.7
    losses = [event["loss"] for event in log_of(summary.folder) if event["event"] == "StepEnd"]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


def test_untrained_stays_near_chance(configure: Configure, tmp_path: Path) -> None:
    summary = run_training(configure("train.epochs=0"), folder=tmp_path)
    assert summary.steps == 0
    assert summary.scores["accuracy"] < 0.6  # so the test above measures learning, not easy rows
    assert [event["event"] for event in log_of(summary.folder)] == ["EvalEnd"]


def test_zero_shot_reads_no_labels_and_predicts_the_same_when_loaded(configure: Configure, tmp_path: Path) -> None:
    """Other labels leave the model unchanged, bit for bit."""
    rows = topics(30)
    rotated = write_csv(tmp_path / "rotated.csv", [(text, CLASSES[(CLASSES.index(name) + 1) % 4]) for text, name in rows])
    zero = ("train.epochs=0", "data.validation=0", f"data.classes={','.join(CLASSES)}")
    words = "{World: [treaty, election], Sports: goal, Business: [shares, bank], Sci/Tech: [software, robot]}"
    named = configure(*zero, "train.head_init=descriptions", f"data.descriptions={words}")
    first = run_training(named, name="named", folder=tmp_path).folder
    for other in ("train.head_init=probe+descriptions", f"data.source={rotated}"):
        again = run_training(named.override(other), name="other", folder=tmp_path, overwrite=True).folder
        assert tree(again / "model") == tree(first / "model"), other
    drawn = run_training(configure(*zero), name="drawn", folder=tmp_path).folder
    assert tree(drawn / "model") != tree(first / "model")
    with (first / "predictions.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    predictions = Classifier.load(first, precision="fp32").predict([row["text"] for row in written])
    assert list(predictions.labels) == [row["predicted"] for row in written]
    assert len(set(predictions.labels)) > 1


def test_a_run_folder_has_the_documented_files_only(configure: Configure, tmp_path: Path) -> None:
    folder = run_training(configure(), name="mine", folder=tmp_path / "runs").folder
    assert folder == tmp_path / "runs" / "mine"
    assert {path.name for path in folder.iterdir()} == FILES
    assert {path.name for path in (folder / "model").iterdir()} == BUNDLE
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"mine"}


def test_a_linear_head_is_saved_beside_the_adapter(configure: Configure, tmp_path: Path) -> None:
    folder = run_training(configure("model.head=linear", "train.max_steps=1"), folder=tmp_path).folder
    assert {path.name for path in (folder / "model").iterdir()} == BUNDLE | {"head.safetensors"}


def test_files_have_the_permissions_of_the_umask(configure: Configure, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = run_training(configure("model.head=linear", "train.max_steps=1"), folder=tmp_path).folder
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.rglob("*")}
    assert modes == {path.name: "0o755" if path.is_dir() else "0o644" for path in folder.rglob("*")}


def test_config_file_holds_every_setting_as_used(configure: Configure, tmp_path: Path) -> None:
    config = configure(
        "train.max_steps=1", "lora.layers=1-2", "train.class_weights={World: 2.0, Sports: 1, Business: 1, Sci/Tech: 1}"
    )
    folder = run_training(config, folder=tmp_path).folder
    assert load_config(folder / "config.yaml") == config
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert written["lora"]["layers"] == "1-2"
    assert written["train"]["weight_decay"] == 0.01  # a default, written all the same
    assert json.loads((folder / "scores.json").read_text())["fingerprint"] == config.fingerprint()


def test_environment_names_versions_device_base_and_rows(configure: Configure, tiny: Path, tmp_path: Path) -> None:
    config = configure("train.max_steps=1")
    folder = run_training(config, folder=tmp_path).folder
    written = json.loads((folder / "environment.json").read_text())
    assert written["versions"]["torch"] == importlib.metadata.version("torch")
    assert written["versions"]["loralab"] == importlib.metadata.version("loralab")
    assert (written["precision"], written["device"]) == ("fp32", "cuda" if torch.cuda.is_available() else "cpu")
    assert written["threads"] == torch.get_num_threads()
    assert written["machine"]["cores"] == os.cpu_count()
    assert written["base"] == {"name": str(tiny), "revision": None, "sha256": sha(tiny / "model.safetensors")}
    splits, _ = load_splits(config.data)
    assert {part: facts["count"] for part, facts in written["rows"].items()} == {"train": 86, "validation": 10, "test": 24}
    assert written["rows"]["test"]["fingerprint"] == splits.test.fingerprint()


def test_log_has_every_step_and_evaluation_in_order(configure: Configure, tmp_path: Path) -> None:
    received: list[Event] = []
    summary = run_training(configure("train.max_steps=7", "train.eval_steps=2"), folder=tmp_path, listeners=[received.append])
    events = log_of(summary.folder)
    steps = [(type(e).__name__, e.step) for e in received if not isinstance(e, CacheProgress)]
    assert [(e["event"], e["step"]) for e in events] == steps
    assert [e.step for e in received if isinstance(e, StepEnd)] == [1, 2, 3, 4, 5, 6, 7]
    assert [e.step for e in received if isinstance(e, EvalEnd)] == [2, 4, 6, 7]
    assert summary.steps == 7


def test_scores_are_those_of_the_saved_weights_on_the_test_rows(configure: Configure, tmp_path: Path) -> None:
    config = configure()
    summary = run_training(config, folder=tmp_path)
    splits, _ = load_splits(config.data)
    classifier = Classifier.load(summary.folder, precision="fp32")
    predictions = classifier.predict(splits.test.texts)
    plain = softmax(classifier.logits(splits.test.texts), axis=1)
    true = splits.test.require_labels()
    assert summary.scores["accuracy"] == pytest.approx(accuracy_score(true, predictions.indices))
    assert summary.scores["macro_f1"] == pytest.approx(f1_score(true, predictions.indices, average="macro"))
    assert summary.scores["loss"] == pytest.approx(log_loss(true, plain, labels=range(4)), abs=1e-5)
    written = json.loads((summary.folder / "scores.json").read_text())
    assert written["scores"] == dict(summary.scores)
    assert written["validation"] == dict(summary.validation)
    assert written["counts"]["trainable"] == summary.counts.trainable
    assert written["classes"] == sorted(CLASSES)


@pytest.mark.parametrize("score", ["loss", pytest.param("f1:World", marks=pytest.mark.slow)])
def test_saved_weights_are_the_best_evaluations(configure: Configure, tmp_path: Path, score: str) -> None:
    config = configure(f"train.monitor={score}", "train.eval_steps=2", "train.learning_rate=0.05", "train.epochs=8")
    summary = run_training(config, folder=tmp_path)
    evaluations = [event for event in log_of(summary.folder) if event["event"] == "EvalEnd"]
    sign = 1 if score == "loss" else -1
    best = min(evaluations, key=lambda event: (sign * event["scores"][score], event["step"]))
    assert summary.best_step == best["step"]
    assert summary.best_step < summary.steps  # else the last weights would do as well
    assert summary.validation == pytest.approx(best["scores"], abs=1e-5)  # of the saved model, whose adapters are merged
    splits, _ = load_splits(config.data)
    assert splits.validation is not None
    classifier = Classifier.load(summary.folder, precision="fp32")
    plain = softmax(classifier.logits(splits.validation.texts), axis=1)
    true = splits.validation.require_labels()
    assert log_loss(true, plain, labels=range(4)) == pytest.approx(best["scores"]["loss"], abs=1e-5)


def test_the_temperature_is_no_score(configure: Configure, tmp_path: Path) -> None:
    received: list[Event] = []
    settings = ("train.max_steps=4", "data.validation=24")  # enough rows for a temperature
    summary = run_training(configure(*settings), folder=tmp_path, listeners=[received.append])
    (evaluation,) = [event for event in received if isinstance(event, EvalEnd) and event.step == summary.best_step]
    assert summary.temperature == pytest.approx(evaluation.temperature, rel=1e-4) != 1.0
    assert "temperature" not in {**summary.scores, **summary.validation, **evaluation.scores}
    written = [event for event in log_of(summary.folder) if event["event"] == "EvalEnd" and event["step"] == summary.best_step]
    assert written[0]["temperature"] == evaluation.temperature
    assert Classifier.load(summary.folder).manifest.temperature == summary.temperature


def test_patience_stops_early(configure: Configure, tmp_path: Path) -> None:
    config = configure("train.monitor=loss", "train.patience=2", "train.min_delta=100", "train.eval_steps=1")
    summary = run_training(config, folder=tmp_path)
    assert (summary.steps, summary.best_step, summary.stopped_early) == (3, 1, True)


def test_scores_are_written_last_and_by_rename(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed: list[str] = []
    replace = os.replace

    def recording(source: str, target: str) -> None:
        renamed.append(Path(target).name)
        if Path(target).name == "scores.json":
            left = {path.name for path in Path(target).parent.iterdir() if not path.name.startswith((".scores.json", ".log.jsonl"))}
            assert left == FILES - {"scores.json"} | {"checkpoint.safetensors"}
            assert {path.name for path in (Path(target).parent / "model").iterdir()} == BUNDLE
        replace(source, target)

    monkeypatch.setattr(os, "replace", recording)
    run_training(configure("train.max_steps=2"), folder=tmp_path)
    model = ["loralab.json", "model", "loralab.json"]  # in the new folder; the folder; with the saved model's temperature
    assert renamed == ["run", "checkpoint.safetensors", *model, "predictions.csv", "scores.json"]


def test_a_run_that_fails_in_the_test_is_not_complete(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(loralab.pipeline, "saved_logits", broken)
    with pytest.raises(ZeroDivisionError):
        run_training(configure("train.max_steps=2"), folder=tmp_path)
    assert not (tmp_path / "run" / "scores.json").exists()
    assert len(Classifier.load(tmp_path / "run").predict(["a", "b"])) == 2  # its weights are there all the same


def test_a_full_disk_fails_the_run_and_leaves_no_partial_model(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loralab.pipeline, "save_bundle", full)
    with pytest.raises(RunFailed, match="No space left"):
        run_training(configure("train.max_steps=2"), folder=tmp_path)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"config.yaml", "environment.json", "data.json", "log.jsonl", "checkpoint.safetensors"}


def test_atomic_folder_replaces_completely_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with atomic_folder(folder) as inside:
        (inside / "first").write_text("1")

    def fail_half_way() -> None:
        with atomic_folder(folder) as inside:
            (inside / "second").write_text("2")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert tree(tmp_path) == {"model/first": hashlib.sha256(b"1").hexdigest()}
    with atomic_folder(folder) as inside:
        (inside / "third").write_text("3")
    assert list(tree(tmp_path)) == ["model/third"]


def test_diverged_loss_fails_the_run(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"loss is (nan|inf).*train.learning_rate"):
        run_training(configure("train.learning_rate=1e30", "train.warmup=0"), folder=tmp_path)
    assert not (tmp_path / "run" / "scores.json").exists()


# --- repeating -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_fresh_processes_write_the_same_adapter_bit_for_bit(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    settings = [f"model.base={tiny}", "model.head=linear", "lora.targets=query", "lora.dropout=0.1", "train.max_steps=8"]
    processes = []
    for name, hash_seed in (("one", "1"), ("two", "2")):
        arguments = ["train", str(topics_csv), *settings, "--runs", str(tmp_path), "--name", name]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
        processes.append(
            subprocess.Popen([sys.executable, "-m", "loralab", *arguments], env=environment, stdout=subprocess.DEVNULL)
        )
    assert [process.wait(120) for process in processes] == [0, 0]
    assert tree(tmp_path / "one" / "model") == tree(tmp_path / "two" / "model")
    assert {"adapter_model.safetensors", "head.safetensors"} <= set(tree(tmp_path / "one" / "model"))
    scores = [json.loads((tmp_path / name / "scores.json").read_text())["scores"] for name in ("one", "two")]
    assert scores[0] == scores[1]


def test_config_file_reproduces_the_run(configure: Configure, tmp_path: Path) -> None:
    config = configure(
        "seed=7",
        "lora.rank=3",
        "lora.targets=query",
        "lora.dropout=0.2",
        "train.schedule=linear",
        "train.batch_size=9",
        "train.max_steps=12",
    )
    first = run_training(config, name="first", folder=tmp_path)
    torch.manual_seed(123)  # the global state must not matter
    np.random.seed(123)
    second = run_training(load_config(first.folder / "config.yaml"), name="second", folder=tmp_path)
    files = [tree(run.folder / "model") for run in (first, second)]
    assert files[0] == files[1]
    assert first.scores == second.scores
    third = run_training(config.override("seed=8"), name="third", folder=tmp_path)
    assert tree(third.folder / "model")["adapter_model.safetensors"] != files[0]["adapter_model.safetensors"]


def test_split_seed_changes_the_test_rows_and_seed_does_not(configure: Configure, tmp_path: Path) -> None:
    prints = {}
    for overrides in ("seed=1", "seed=2", "data.split_seed=5"):
        run_training(configure("train.max_steps=1", overrides), name=overrides, folder=tmp_path)
        prints[overrides] = json.loads((tmp_path / overrides / "environment.json").read_text())["rows"]["test"]["fingerprint"]
    assert prints["seed=1"] == prints["seed=2"]
    assert prints["seed=1"] != prints["data.split_seed=5"]


@pytest.mark.slow
def test_the_size_of_micro_batches_only_changes_speed(configure: Configure, tmp_path: Path) -> None:
    runs = [  # dropout draws its masks by pass, so it is off here
        run_training(
            configure("model.dropout=0", "lora.dropout=0", "train.max_steps=6", f"train.max_tokens_per_microbatch={tokens}"),
            name=f"t{tokens}",
            folder=tmp_path,
        )
        for tokens in (64, 100_000)
    ]
    assert runs[0].scores["loss"] == pytest.approx(runs[1].scores["loss"], abs=1e-4)


# --- the budget ----------------------------------------------------------------------------------------------------


def offers(message: str) -> list[list[str]]:
    """Return the settings of each offer: `What fits: lora.rank=1 lora.targets=value (1,234); or ...`."""
    listed = message.split("What fits:")[1].split("; or ")
    return [re.findall(r"[\w.]+=\S+", offer) for offer in listed]


@pytest.mark.parametrize(
    ("settings", "budget"),
    [
        (["lora.rank=16", "lora.targets=query,value"], 2_000),
        (["lora.rank=64", "lora.targets=query,value"], 5_000),
        (["lora.rank=16", "lora.targets=value", "lora.layers=1-2"], 1_500),
        (["lora.rank=8", "lora.targets=all"], 1_700),
        (["tuning=full"], 3_000),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_over_budget_aborts_before_writing_and_its_offers_fit(
    configure: Configure, tmp_path: Path, settings: list[str], budget: int
) -> None:
    config = configure(*settings, f"lora.max_trainable={budget}")
    announced: list[RunPlan] = []
    with pytest.raises(LoralabError) as caught:
        run_training(config, folder=tmp_path / "runs", announce=announced.append)
    assert list(tmp_path.iterdir()) == []
    assert announced == []
    message = str(caught.value)
    assert f"{count_parameters(config)[1].trainable:,}" in message
    assert f"lora.max_trainable={budget:,}" in message
    choices = offers(message)
    assert choices
    for offer in choices:
        offered = config.override(*offer)
        assert count_parameters(offered)[1].trainable <= budget, f"{' '.join(offer)} was offered and does not fit"
    summary = run_training(config.override(*choices[0], "train.max_steps=1"), folder=tmp_path / "runs")
    assert summary.counts.trainable <= budget


def test_exactly_the_budget_is_allowed_and_one_less_is_not(configure: Configure, tmp_path: Path) -> None:
    counts = count_parameters(configure())[1]
    run_training(configure("train.max_steps=1", f"lora.max_trainable={counts.trainable}"), folder=tmp_path)
    with pytest.raises(LoralabError, match="are over"):
        run_training(configure(f"lora.max_trainable={counts.trainable - 1}"), name="less", folder=tmp_path)


def test_a_budget_below_the_head_is_refused_with_the_minimum(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(LoralabError) as caught:
        run_training(configure("model.head=linear", "lora.max_trainable=100"), folder=tmp_path / "runs")
    assert "the head alone has 132" in str(caught.value)  # (32 + 1) x 4
    needed = int(re.search(r"to ([\d,]+) or more", str(caught.value))[1].replace(",", ""))  # type: ignore[index]
    settings = ["model.head=linear", f"lora.max_trainable={needed}", "lora.rank=1", "lora.targets=value", "train.max_steps=1"]
    assert run_training(configure(*settings), folder=tmp_path / "runs").counts.trainable == needed
    assert "use model.head=linear" not in str(caught.value)  # it is linear already


# --- free names and refusals ---------------------------------------------------------------------------------------


def test_an_existing_run_is_refused_with_both_alternatives(configure: Configure, tmp_path: Path) -> None:
    run_training(configure("train.max_steps=1"), folder=tmp_path)
    before = tree(tmp_path)
    with pytest.raises(LoralabError, match=r"\(complete\).*--name.*--overwrite"):
        run_training(configure("train.max_steps=1"), folder=tmp_path)
    (tmp_path / "run" / "scores.json").unlink()
    del before["run/scores.json"]
    with pytest.raises(LoralabError, match=r"\(not complete\).*--name.*--overwrite"):
        run_training(configure("train.max_steps=1"), folder=tmp_path)
    assert tree(tmp_path) == before


def test_overwrite_replaces_the_whole_run(configure: Configure, tmp_path: Path) -> None:
    run_training(configure("train.max_steps=1", "model.head=linear"), folder=tmp_path)
    run_training(configure("train.max_steps=2"), folder=tmp_path, overwrite=True)
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["steps"] == 2
    assert not (tmp_path / "run" / "model" / "head.safetensors").exists()


def test_a_run_with_other_files_is_not_overwritten(configure: Configure, tmp_path: Path) -> None:
    run_training(configure("train.max_steps=1"), folder=tmp_path)
    (tmp_path / "run" / "notes.txt").write_text("what I thought of it")
    before = tree(tmp_path)
    with pytest.raises(LoralabError, match="exists and is not a run"):
        run_training(configure("train.max_steps=2"), folder=tmp_path, overwrite=True)
    assert tree(tmp_path) == before


def test_folder_that_is_no_run_is_never_overwritten(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(LoralabError, match="thesis exists and is not a run"):
        run_training(configure("train.max_steps=1"), name="thesis", folder=tmp_path, overwrite=True)
    assert list(tree(tmp_path)) == ["thesis/chapter.txt"]


@pytest.mark.parametrize("mistake", ["train.monitor=f1:Wrold", "lora.max_trainable=10"])
def test_a_mistake_with_overwrite_keeps_the_earlier_run(configure: Configure, tmp_path: Path, mistake: str) -> None:
    run_training(configure("train.max_steps=1"), folder=tmp_path)
    before = tree(tmp_path)
    with pytest.raises(LoralabError):
        run_training(configure(mistake), folder=tmp_path, overwrite=True)
    assert tree(tmp_path) == before


def test_name_in_the_settings_wins(configure: Configure, tmp_path: Path) -> None:
    summary = run_training(configure("train.max_steps=1", "name=chosen"), name="given", folder=tmp_path)
    assert summary.name == "chosen"
    assert [path.name for path in tmp_path.iterdir()] == ["chosen"]


# --- the plan ------------------------------------------------------------------------------------------------------


def test_plan_is_announced_before_anything_is_written(configure: Configure, tmp_path: Path, topics_csv: Path) -> None:
    config = configure("train.max_steps=1", "train.learning_rate=5e-5")
    plans: list[RunPlan] = []

    def announce(plan: RunPlan) -> None:
        assert list(tmp_path.iterdir()) == []
        plans.append(plan)

    summary = run_training(config, folder=tmp_path / "runs", announce=announce)
    (plan,) = plans
    assert plan.folder == summary.folder
    assert plan.counts == summary.counts == count_parameters(config)[1]
    assert (plan.source.columns.text, plan.source.columns.label) == (("text",), "label")
    assert (plan.device.precision, plan.device.threads) == ("fp32", torch.get_num_threads())
    assert {name: len(part) for name, part in plan.splits.parts().items()} == {"train": 86, "validation": 10, "test": 24}
    numbers = np.concatenate([part.rows for part in plan.splits.parts().values()])
    assert sorted(numbers.tolist()) == list(range(120))  # every row of the file in exactly one part
    assert any("5e-05" in remark for remark in plan.remarks)


def test_plan_remarks_on_empty_texts_and_on_test_texts_that_are_trained_on(
    configure: Configure, tmp_path: Path, topics_csv: Path
) -> None:
    rows = topics(10)
    train = write_csv(tmp_path / "train.csv", [("", "World"), *rows])
    test = write_csv(tmp_path / "test.csv", rows[:3])
    plans: list[RunPlan] = []
    config = configure(f"data.source={train}", f"data.test={test}", "data.validation=0", "train.max_steps=1")
    run_training(config, folder=tmp_path / "runs", announce=plans.append)
    remarks = " ".join(plans[0].remarks)
    assert "1 training rows have no text, such as row 0" in remarks
    assert "3 of 3 test texts are also training texts" in remarks


# --- parts of their own --------------------------------------------------------------------------------------------


def test_test_and_validation_files_are_used_whole(configure: Configure, tmp_path: Path) -> None:
    test = write_csv(tmp_path / "test.csv", [*topics(5, seed=8), ("a goal and a league", "Sports")])
    validation = write_csv(tmp_path / "validation.csv", topics(4, seed=9))
    plans: list[RunPlan] = []
    config = configure(f"data.test={test}", f"data.validation={validation}")
    summary = run_training(config, folder=tmp_path / "runs", announce=plans.append)
    assert {name: len(part) for name, part in plans[0].splits.parts().items()} == {"train": 120, "validation": 16, "test": 21}
    assert {name: summary.scores[f"true:{name}"] for name in CLASSES} == {"World": 5, "Sports": 6, "Business": 5, "Sci/Tech": 5}
    assert {name: summary.validation[f"true:{name}"] for name in CLASSES} == dict.fromkeys(CLASSES, 4)
    assert summary.scores["accuracy"] > 0.6
    evaluated = Classifier.load(summary.folder, precision="fp32").evaluate(test)
    assert evaluated["accuracy"] == summary.scores["accuracy"]


def test_sample_sizes_apply_to_the_run(configure: Configure, tmp_path: Path) -> None:
    config = configure("data.shots_per_class=3", "data.max_test_samples=8", "data.validation=12", "train.max_steps=1")
    run_training(config, folder=tmp_path)
    rows = json.loads((tmp_path / "run" / "environment.json").read_text())["rows"]
    assert {part: facts["count"] for part, facts in rows.items()} == {"train": 12, "validation": 12, "test": 8}


def test_without_validation_rows_the_last_weights_are_kept(configure: Configure, tmp_path: Path) -> None:
    summary = run_training(configure("data.validation=0", "train.max_steps=5"), folder=tmp_path)
    assert (summary.steps, summary.best_step, dict(summary.validation)) == (5, 5, {})
    assert "validation" not in json.loads((tmp_path / "run" / "environment.json").read_text())["rows"]


# --- other ways to tune --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tuning", "files"),
    [
        ("full", {"model.safetensors", *ALWAYS}),
        ("head", {"head.safetensors", *ALWAYS}),
    ],
)
def test_full_and_head_tuning_save_what_they_trained(configure: Configure, tmp_path: Path, tuning: str, files: set[str]) -> None:
    summary = run_training(configure(f"tuning={tuning}", "train.learning_rate=0.003"), folder=tmp_path)
    assert {path.name for path in (summary.folder / "model").iterdir()} == files
    trainable = {"full": summary.counts.base + summary.counts.head, "head": summary.counts.head}
    assert (summary.counts.adapter, summary.counts.trainable) == (0, trainable[tuning])
    config = load_config(summary.folder / "config.yaml")
    splits, _ = load_splits(config.data)
    classifier = Classifier.load(summary.folder, precision="fp32")
    plain = softmax(classifier.logits(splits.test.texts), axis=1)
    assert log_loss(splits.test.require_labels(), plain, labels=range(4)) == pytest.approx(summary.scores["loss"], abs=1e-5)


def test_a_custom_class_order_is_kept(configure: Configure, tmp_path: Path) -> None:
    config = configure("data.classes=Sci/Tech,World,Business,Sports", "train.max_steps=1")
    summary = run_training(config, folder=tmp_path)
    assert summary.classes == ("Sci/Tech", "World", "Business", "Sports")
    assert Classifier.load(summary.folder).classes == summary.classes


# --- interruption --------------------------------------------------------------------------------------------------


def test_interruption_saves_the_best_weights_and_fails_the_run(configure: Configure, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, StepEnd) and event.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(RunFailed, match=r"after step 7: the weights of step 4, the best so far, are saved") as caught:
        run_training(configure("train.eval_steps=4"), name="cut", folder=tmp_path, listeners=[interrupt])
    assert caught.value.exit_code == 1
    assert not (tmp_path / "cut" / "scores.json").exists()
    step_4 = next(event["scores"] for event in log_of(tmp_path / "cut") if (event["event"], event["step"]) == ("EvalEnd", 4))
    splits, _ = load_splits(configure().data)
    assert splits.validation is not None
    classifier = Classifier.load(tmp_path / "cut", precision="fp32")
    plain = softmax(classifier.logits(splits.validation.texts), axis=1)
    true = splits.validation.require_labels()
    assert log_loss(true, plain, labels=range(4)) == pytest.approx(step_4["loss"], abs=1e-5)


def test_interruption_before_the_first_evaluation_saves_the_current_weights(configure: Configure, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(RunFailed, match="interrupted after step 1"):
        run_training(configure(), folder=tmp_path, listeners=[interrupt])
    assert len(Classifier.load(tmp_path / "run").predict(["a"])) == 1
    assert not (tmp_path / "run" / "scores.json").exists()


@pytest.mark.slow
def test_ctrl_c_on_a_real_process_saves_the_model_with_a_message(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    arguments = [
        f"model.base={tiny}",
        "train.learning_rate=0.01",
        "train.epochs=1000000",
        "train.precision=fp32",
        "train.eval_steps=5",
    ]
    command = [sys.executable, "-m", "loralab", "train", str(topics_csv), *arguments, "--runs", str(tmp_path), "--name", "cut"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it, and so would ours
    )
    log = tmp_path / "cut" / "log.jsonl"
    limit = time.monotonic() + 90
    while not (log.exists() and "EvalEnd" in log.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("loralab: interrupted after step ")
    assert "Traceback" not in errors
    assert "best so far, are saved" in errors
    assert not (tmp_path / "cut" / "scores.json").exists()
    predictions = Classifier.load(tmp_path / "cut", precision="fp32").predict([text for text, _ in topics(3)])
    assert set(predictions.labels) <= set(CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["roberta", "distilbert", "electra"])
def test_learns_on_every_architecture(model_type: str, topics_csv: Path, tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", model_type)
    settings = [f"model.base={base}", "train.learning_rate=0.01", "train.epochs=15", "train.precision=fp32"]
    summary = run_training(load_config(topics_csv, settings), folder=tmp_path / "runs")
    assert summary.scores["accuracy"] > 0.55


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_another_process_made_meanwhile_is_kept(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    """The other starts or resumes it, and ends, while this one prepares, after it has checked the folder."""
    config, build = configure("train.epochs=1", "train.eval_steps=2"), loralab.pipeline.build_run

    def stop(event: Event) -> None:
        if isinstance(event, StepEnd) and event.step == 3:
            raise KeyError

    def other_first(*arguments: Any) -> Any:
        monkeypatch.setattr(loralab.pipeline, "build_run", build)
        run_training(config, name="run", folder=tmp_path, resume=resume)
        return build(*arguments)

    if resume:
        with pytest.raises(KeyError):
            run_training(config, name="run", folder=tmp_path, listeners=[stop])
    monkeypatch.setattr(loralab.pipeline, "build_run", other_first)
    with pytest.raises(LoralabError, match=r"the run .*complete"):
        run_training(config, name="run", folder=tmp_path, resume=resume)
    check_complete_run(tmp_path / "run")


@pytest.mark.parametrize("damage", ["cut", "deleted"])
def test_a_resumed_run_says_that_its_log_lacks_steps(
    configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    config, log = configure("train.epochs=3", "train.eval_steps=2"), tmp_path / "run" / "log.jsonl"

    def stop(event: Event) -> None:
        if isinstance(event, StepEnd) and event.step == 5:
            raise KeyError

    with pytest.raises(KeyError):
        run_training(config, name="run", folder=tmp_path, listeners=[stop])
    if damage == "cut":
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:1]))
    else:
        log.unlink()
    run_training(config, name="run", folder=tmp_path, resume=True)
    lost = 3 if damage == "cut" else 4
    assert caplog.messages == [f"{log} lacks {lost} of the 4 steps before the checkpoint: reports of this run will lack them too"]
