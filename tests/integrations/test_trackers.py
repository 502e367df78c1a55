"""Trackers write what TensorBoard, Weights & Biases and MLflow read, and their failures do not end a run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from loralab import LoralabError, load_config
from loralab.cli.main import app
from loralab.config import Config
from loralab.integrations import trackers as module
from loralab.integrations.trackers import KINDS, Tracker, Trackers
from loralab.pipeline import RunSummary, run_training
from loralab.storage import run_folder
from loralab.training.callbacks import EvalEnd, Event, StepEnd

ALL = ("tensorboard", "wandb", "mlflow")
STEP = StepEnd(1, 10, 0.1, 1.5, 1e-3, 2.0, 16, 0.5)
EVALUATION = EvalEnd(4, 1.0, {"accuracy": 0.5}, True, 1.0)
SETTINGS = ["train.epochs=1", "train.eval_steps=3", "train.batch_size=8", "train.threads=1", "train.monitor=f1:Sci/Tech"]
VARIABLES = ("WANDB_MODE", "MLFLOW_TRACKING_URI", *(variable for tracker in KINDS.values() for variable in tracker.environment))
Kept = dict[str, dict[int, float]]


class Cut(Exception):
    """Any error that ends a run before its end."""


@pytest.fixture(autouse=True, scope="module")
def unset_variables() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for variable in VARIABLES:
            patch.setenv(variable, "")  # records its value, which is restored at the end
            patch.delenv(variable)
        yield


# --- reading back --------------------------------------------------------------------------------------------------


def read_tensorboard(folder: Path) -> Kept:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    kept: Kept = {}
    for tag in accumulator.Tags()["scalars"]:
        events = accumulator.Scalars(tag)
        kept[tag] = {event.step: event.value for event in events}
        assert len(kept[tag]) == len(events), f"{tag} has a step twice"
    return kept


def wandb_records(path: Path) -> list[Any]:
    """The records of an offline run that has ended; wandb's own process may write the last of them a moment after that."""
    for _ in range(50):
        records = list(parse_wandb(path.read_bytes()))
        if records and records[-1].WhichOneof("record_type") in ("exit", "footer"):
            break
        time.sleep(0.1)
    return records


def parse_wandb(content: bytes) -> Iterator[Any]:
    """Yield the records of wandb's file: LevelDB's log format (blocks of 32 KiB, fragments) after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    place, whole = 7, b""
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last fragment
            yield Record.FromString(whole)
            whole = b""


def wandb_files(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime)


def read_wandb(folder: Path) -> Kept:
    kept: Kept = {}
    for path in wandb_files(folder):
        for record in wandb_records(path):
            if record.WhichOneof("record_type") == "history":
                row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                for name, value in row.items():
                    if not name.startswith("_"):
                        kept.setdefault(name, {})[row["_step"]] = value
    return kept


def mlflow_run(folder: Path) -> tuple[Any, Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient((folder / "mlflow" / "store").as_uri())
    experiment = client.get_experiment_by_name("loralab")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def read_mlflow(folder: Path) -> Kept:
    client, run = mlflow_run(folder)
    kept: Kept = {}
    for name in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, name)
        kept[name] = {metric.step: metric.value for metric in history}
        assert len(kept[name]) == len(history), f"{name} has a step twice"
    return kept


READERS = {"tensorboard": read_tensorboard, "wandb": read_wandb, "mlflow": read_mlflow}


# --- complete and resumed runs --------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Tracked:
    """A run that was cut at step 5, after the checkpoint of step 3, and resumed; all three tools on."""

    config: Config
    folder: Path
    summary: RunSummary
    status_after_cut: str

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tracked(tiny: Path, topics_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    config = load_config("quickstart", [f"model.base={tiny}", f"data.source={topics_csv}", *SETTINGS])
    folder = tmp_path_factory.mktemp("runs")

    def stop(event: Event) -> None:
        if isinstance(event, StepEnd) and event.step == 5:
            raise Cut

    with pytest.raises(Cut), Trackers(ALL, config, folder / "a") as trackers:
        run_training(config, name="a", folder=folder, listeners=[*trackers.listeners, stop])
    status = mlflow_run(folder / "a" / "track")[1].info.status
    with Trackers(ALL, config, folder / "a") as trackers:
        summary = run_training(config, name="a", folder=folder, resume=True, listeners=trackers.listeners)
        trackers.finish(summary)
    return Tracked(config, folder / "a", summary, status)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_resumed_run_has_every_step_and_score_once(tracked: Tracked, name: str) -> None:
    kept = READERS[name](tracked.folder / "track")
    steps = {entry["step"]: entry for entry in tracked.log if entry["event"] == "StepEnd"}
    evaluations = {entry["step"]: entry for entry in tracked.log if entry["event"] == "EvalEnd"}
    assert len(steps) == 11
    for score in ("loss", "learning_rate", "gradient_norm"):
        assert kept[f"train/{score}"] == pytest.approx({step: entry[score] for step, entry in steps.items()})
    assert kept["train/samples_per_second"].keys() == steps.keys()
    assert all(0 < rate < 1e6 for rate in kept["train/samples_per_second"].values())
    for score, shown in {"accuracy": "accuracy", "f1:Sci/Tech": "f1_Sci-Tech", "recall:World": "recall_World"}.items():
        assert kept[f"validation/{shown}"] == pytest.approx({step: entry["scores"][score] for step, entry in evaluations.items()})
        assert kept[f"test/{shown}"] == pytest.approx({11: tracked.summary.scores[score]})
    assert kept["validation/temperature"] == pytest.approx({step: entry["temperature"] for step, entry in evaluations.items()})
    assert len([key for key in kept if key.startswith("validation/")]) == len(evaluations[3]["scores"]) + 1
    assert len([key for key in kept if key.startswith("test/")]) == len(tracked.summary.scores)
    assert kept["memory/process_mb"].keys() == evaluations.keys()
    assert kept["parameters/trainable"] == {11: tracked.summary.counts.trainable}
    assert kept["run/best_step"] == {11: tracked.summary.best_step}
    for phase, seconds in tracked.summary.timing.items():
        assert kept.get(f"timing/{phase}") == (None if seconds is None else pytest.approx({11: seconds}))
    assert kept["memory/process_peak_mb"] == pytest.approx({11: tracked.summary.memory["process"]})
    assert kept["memory/optimizer_mb"] == pytest.approx({11: tracked.summary.memory["optimizer"]})


@pytest.mark.slow
def test_mlflow_has_the_settings_and_the_status(tracked: Tracked) -> None:
    _, run = mlflow_run(tracked.folder / "track")
    assert (run.info.run_name, run.info.status, tracked.status_after_cut) == ("a", "FINISHED", "FAILED")
    assert run.data.params["lora.rank"] == str(tracked.config.lora.rank)
    assert run.data.params["lora.targets"] == json.dumps(list(tracked.config.lora.targets))
    assert run.data.params["seed"] == "42"


@pytest.mark.slow
def test_tensorboard_has_the_settings(tracked: Tracked) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    accumulator = EventAccumulator(str(tracked.folder / "track" / "tensorboard"))
    accumulator.Reload()
    content = accumulator.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["lora.rank"].number_value == tracked.config.lora.rank
    assert settings["train.monitor"].string_value == "f1:Sci/Tech"


@pytest.mark.slow
def test_wandb_has_the_settings_and_one_id(tracked: Tracked) -> None:
    first, second = wandb_files(tracked.folder / "track")
    assert first.name == second.name  # run-ID.wandb
    records = [wandb_records(path) for path in (first, second)]
    (run,) = [record.run for record in records[0] if record.WhichOneof("record_type") == "run"]
    settings = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (run.project, run.display_name) == ("loralab", "a")
    assert (settings["seed"], settings["lora"]["rank"]) == (42, tracked.config.lora.rank)
    ended = [record.exit.exit_code for file in records for record in file if record.WhichOneof("record_type") == "exit"]
    assert ended == [1, 0]


@pytest.mark.slow
def test_a_tracked_run_can_be_replaced(tracked: Tracked) -> None:
    assert {path.name for path in (tracked.folder / "track").iterdir()} == set(ALL)
    with pytest.raises(LoralabError, match="replace it with --overwrite"):
        run_folder.check_available(tracked.folder, overwrite=False)
    run_folder.check_available(tracked.folder, overwrite=True)


ODD = ("f1:C++", "f1:C--", "f1:C__", "f1:../../x", "f1:" + "é" * 300, "f1:" + "界" * 300, "f1:", "f1: a", "f1:a:b/c\\d\n", "f1://")


@pytest.mark.parametrize("name", ALL)
def test_any_class_name_becomes_a_valid_and_unique_metric_name(tmp_path: Path, name: str) -> None:
    with Trackers([name], Config(), tmp_path / "a") as trackers:
        trackers.listen(EvalEnd(4, 1.0, {key: float(i) for i, key in enumerate(ODD)}, True, 1.0, {"gpu_mb": None}))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    kept = READERS[name](tmp_path / "a" / "track")
    assert sorted(value for steps in kept.values() for value in steps.values()) == list(range(len(ODD)))
    assert all(key.isprintable() and key.count("/") == 1 and ":" not in key for key in kept)


def test_mlflow_uses_the_tracking_uri_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "all" / "mlflow" / "store").as_uri())
    with Trackers(["mlflow"], Config(), tmp_path / "a") as trackers:
        trackers.listen(STEP)
    assert trackers.hints() == [f"MLflow at {os.environ['MLFLOW_TRACKING_URI']}"]
    assert read_mlflow(tmp_path / "all")["train/loss"] == {1: 1.5}


def test_wandb_uses_the_mode_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with Trackers(["wandb"], Config(), tmp_path / "a") as trackers:
        trackers.listen(STEP)
    assert trackers.hints() == ["wandb, WANDB_MODE=disabled"]
    assert wandb_files(tmp_path / "a" / "track") == []


def test_the_environment_is_restored(tmp_path: Path) -> None:
    before = dict(os.environ)
    with Trackers(ALL, Config(), tmp_path / "a") as trackers:
        trackers.listen(STEP)
        trackers.listen(EVALUATION)
        assert dict(os.environ) == before
    assert len(trackers.hints()) == 3
    assert dict(os.environ) == before


def test_mlflow_is_called_at_evaluations_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    sizes, log_batch = [], MlflowClient.log_batch

    def count(client: MlflowClient, run_id: str, metrics: Sequence[Any] = (), **rest: Any) -> None:
        if metrics:
            sizes.append(len(metrics))
        log_batch(client, run_id, metrics, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", count)
    with Trackers(["mlflow"], Config(), tmp_path / "a") as trackers:
        for step in range(1, 4):
            trackers.listen(dataclasses.replace(STEP, step=step))
        assert sizes == []
        trackers.listen(EVALUATION)
        assert sizes == [13]
        for step in range(5, 256):
            trackers.listen(dataclasses.replace(STEP, step=step))
        assert sizes == [13, 1000]
    assert sizes == [13, 1000, 4]
    assert len(read_mlflow(tmp_path / "a" / "track")["train/loss"]) == 254


# --- refused before training ---------------------------------------------------------------------------------------


def test_an_unknown_tracker_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(
        LoralabError, match=r"no tracker 'tensorbord'; did you mean 'tensorboard'\?; valid: tensorboard, wandb, mlflow"
    ):
        Trackers(["mlflow", "tensorbord"], Config(), tmp_path / "a")


@pytest.mark.parametrize("name", ALL)
def test_a_missing_package_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LoralabError, match=rf"needs the package '{name}': run pip install 'loralab\[track\]'"):
        Trackers([name], Config(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_the_command_checks_trackers_first(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "quickstart", "--runs", str(tmp_path / "runs"), "--track", "wandbd"])
    assert isinstance(result.exception, LoralabError)
    assert "did you mean 'wandb'?" in str(result.exception)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_command_prints_how_to_view_the_run(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    settings = [f"model.base={tiny}", f"data.source={topics_csv}", "train.max_steps=2", "name=a"]
    options = ["--runs", str(tmp_path), *(word for name in ALL for word in ("--track", name))]
    result = CliRunner().invoke(app, ["train", "quickstart", *settings, *options], catch_exceptions=False)
    kept = tmp_path / "a" / "track"
    assert [line for line in result.output.splitlines() if line.startswith("tracked")] == [
        f"tracked     tensorboard --logdir {kept}/tensorboard",
        f"tracked     wandb sync {kept}/wandb/offline-run-*",
        f"tracked     MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {kept}/mlflow/store",
    ]
    for name in ALL:
        assert READERS[name](kept)["train/loss"].keys() == {1, 2}
        assert "test/accuracy" in READERS[name](kept)


# --- trackers that fail --------------------------------------------------------------------------------------------


class Recorder(Tracker):
    """A tracker in memory. It fails at `fails_at`: open, a number of logged steps, or close."""

    fails_at: ClassVar[object] = None
    opened: ClassVar[list[Recorder]]

    def open(self, first_step: int) -> None:
        self.hint = "json"
        self.logged: list[tuple[Mapping[str, float], int]] = []
        self.ended: bool | None = None
        self.opened.append(self)
        self._fail_if("open")

    def log(self, values: Mapping[str, float], step: int, flush: bool) -> None:
        self._fail_if(len(self.logged))
        self.logged.append((values, step))

    def close(self, complete: bool) -> None:
        self.ended = complete
        self._fail_if("close")

    def _fail_if(self, moment: object) -> None:
        if self.fails_at == moment:
            raise RuntimeError(f"no {moment}\nand more")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    kind = type("Fresh", (Recorder,), {"opened": []})
    monkeypatch.setattr(module, "KINDS", {**KINDS, "json": kind})  # by the name of an installed package
    return kind


@pytest.mark.parametrize("moment", ["open", 2, "close"])
def test_a_failing_tracker_is_reported_once_and_does_not_change_the_model(
    tiny: Path, topics_csv: Path, tmp_path: Path, recorder: Any, capsys: pytest.CaptureFixture[str], moment: object
) -> None:
    config = load_config("quickstart", [f"model.base={tiny}", f"data.source={topics_csv}", *SETTINGS, "train.max_steps=6"])
    recorder.fails_at = moment
    with Trackers(["json"], config, tmp_path / "a") as trackers:
        trackers.finish(run_training(config, name="a", folder=tmp_path, listeners=trackers.listeners))
    assert capsys.readouterr().err == f"loralab: json failed and is switched off; training continues (RuntimeError: no {moment})\n"
    assert len(recorder.opened) == 1
    assert recorder.opened[0].ended == {"open": None, 2: False, "close": False}[moment]
    run_training(config, name="b", folder=tmp_path)
    a, b = ((tmp_path / name / "model" / "adapter_model.safetensors").read_bytes() for name in "ab")
    assert a == b


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_tracker_is_closed_when_the_run_fails(tmp_path: Path, recorder: Any, error: type[BaseException]) -> None:
    trackers = Trackers(["json"], Config(), tmp_path / "a")

    def run() -> None:
        with trackers:
            trackers.listen(STEP)
            raise error

    with pytest.raises(error):
        run()
    assert recorder.opened[0].ended is False


def test_nothing_is_opened_before_the_first_event(tmp_path: Path, recorder: Any) -> None:
    with Trackers(["json", "json"], Config(), tmp_path / "a"):
        pass
    assert recorder.opened == []
    assert Trackers([], Config(), tmp_path / "a").listeners == []


def test_a_folder_that_cannot_be_made_switches_the_trackers_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "track").write_text("a file in place of the folder")
    with Trackers(ALL, Config(), tmp_path / "a") as trackers:
        trackers.listen(STEP)
        trackers.listen(STEP)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert trackers.hints() == []
    assert all(" failed and is switched off" in line for line in lines)


FULL_DISK = """
import resource, sys
from pathlib import Path
from loralab.config import Config
from loralab.integrations.trackers import Trackers
from loralab.training.callbacks import EvalEnd, StepEnd

with Trackers([sys.argv[1]], Config(), Path(sys.argv[2])) as trackers:
    for step in range(1, 200):
        trackers.listen(StepEnd(step, 200, 0.1, 1.5, 1e-3, 2.0, 16, 0.5))
        if step == 100:
            trackers.listen(EvalEnd(100, 0.5, {"accuracy": 0.5}, True, 1.0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
print(trackers.hints())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="files have no size limit here")
@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_full_disk_switches_the_tracker_off_in_one_line(tmp_path: Path, name: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, name, str(tmp_path / "a")], capture_output=True, text=True, check=True
    )
    assert process.stderr.count("\n") == 1
    assert process.stderr.startswith(f"loralab: {name} failed and is switched off; training continues (")
    assert "File too large" in process.stderr
    assert process.stdout == "[]\n"
