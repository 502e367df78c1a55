"""Show a run in TensorBoard, Weights & Biases or MLflow as well, offline unless their own settings say where to.

track/tensorboard    event files: `tensorboard --logdir runs` shows every run
track/wandb          an offline run (WANDB_MODE=online sends it at once)
track/mlflow         a local store (MLFLOW_TRACKING_URI names another)

Each tracker works in a thread of its own, so that training never waits for it; one that fails is told once and switched off.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from loralab.errors import LoralabError, nearest, need
from loralab.storage.files import atomic_write
from loralab.storage.run_folder import TRACK

if TYPE_CHECKING:
    from types import TracebackType

    from loralab.config.loading import Config
    from loralab.pipeline import RunSummary
    from loralab.training.callbacks import Event, Listener

Values = Mapping[str, float]
_SECONDS_TO_END = 30.0
"""How long the end of a run waits for a tracker that is behind."""
_SECONDS_BETWEEN_BATCHES = 5.0
_LONGEST_NAME = 70
"""Of a score, in characters: MLflow makes file names of them, which end at 255 bytes."""


@dataclass(frozen=True)
class Session:
    """What a tracker is opened with: a folder of its own, the run's name and settings, the first step it will be sent."""

    folder: Path
    name: str
    settings: Mapping[str, Any]
    first_step: int

    def flat_settings(self) -> dict[str, str | int | float | bool]:
        """The settings by their dotted names; what is no single value as JSON."""
        found: dict[str, Any] = {}
        for section, content in self.settings.items():
            found |= (
                {f"{section}.{key}": value for key, value in content.items()} if isinstance(content, dict) else {section: content}
            )
        return {key: value if isinstance(value, str | int | float) else json.dumps(value) for key, value in found.items()}


class Tracker(Protocol):
    """One tool: opened when the first values come, in the thread that uses it."""

    def __init__(self, session: Session) -> None: ...

    def send(self, values: Values, step: int) -> None: ...

    def close(self, complete: bool) -> None: ...

    @staticmethod
    def look(folder: Path) -> str:
        """How to see what was kept."""
        ...


class TensorBoard:
    """Event files. Written here, because TensorBoard's own writer ends with a traceback on a full disk."""

    def __init__(self, session: Session) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        session.folder.mkdir(parents=True, exist_ok=True)
        resumed = any(session.folder.iterdir())
        self.file = (session.folder / f"events.out.tfevents.{time.time():.6f}.loralab").open("xb")
        self.writer, self.event = RecordWriter(self.file), Event
        self._write(file_version="brain.Event:2")
        if resumed:  # what an earlier session sent from here on was not kept: the reader drops it
            self._write(step=session.first_step, session_log=SessionLog(status=SessionLog.START))
        else:
            self._write(summary=hparams_pb(session.flat_settings(), trial_id=session.name))

    def send(self, values: Values, step: int) -> None:
        self._write(step=step, summary={"value": [{"tag": name, "simple_value": value} for name, value in values.items()]})
        self.file.flush()

    def close(self, complete: bool) -> None:
        self.file.close()

    @staticmethod
    def look(folder: Path) -> str:
        return f"tensorboard --logdir {folder}"

    def _write(self, **content: Any) -> None:
        self.writer.write(self.event(wall_time=time.time(), **content).SerializeToString())


class Wandb:
    """A run of Weights & Biases, in the project WANDB_PROJECT or `loralab`; sessions of one run share its id."""

    def __init__(self, session: Session) -> None:
        import wandb

        session.folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "loralab"),
            name=session.name,
            id=_kept(session.folder / "id", lambda: uuid.uuid4().hex),
            resume="allow",
            mode=os.environ["WANDB_MODE"],  # type: ignore[arg-type]  # said again: wandb reads its variables once a process
            dir=str(session.folder.parent),  # which it fills from `wandb` on
            config=dict(session.settings),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def send(self, values: Values, step: int) -> None:
        self.run.log(dict(values), step=step)

    def close(self, complete: bool) -> None:
        self.run.finish(exit_code=0 if complete else 1)

    @staticmethod
    def look(folder: Path) -> str:
        mode = os.environ["WANDB_MODE"]
        return f"wandb sync {folder}/offline-run-*" if mode == "offline" else f"wandb, WANDB_MODE={mode}"


class Mlflow:
    """A run of MLflow, in the experiment MLFLOW_EXPERIMENT_NAME or `loralab`; values go in batches, a server being far."""

    def __init__(self, session: Session) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        session.folder.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or (session.folder.resolve() / "store").as_uri())
        self.metric, self.waiting, self.sent_at = Metric, list[Any](), time.monotonic()
        self.resumed = (session.folder / "id").is_file()
        self.run = _kept(session.folder / "id", lambda: self._create(session.name))
        self.last_steps: dict[str, int] = {}
        if self.resumed:
            self.client.update_run(self.run, status="RUNNING")
        else:
            self.client.log_batch(self.run, params=[Param(key, str(value)) for key, value in session.flat_settings().items()])

    def send(self, values: Values, step: int) -> None:
        now = int(time.time() * 1000)
        self.waiting += [self.metric(name, value, now, step) for name, value in values.items() if step > self._last_step(name)]
        if time.monotonic() - self.sent_at > _SECONDS_BETWEEN_BATCHES:
            self._send_waiting()

    def close(self, complete: bool) -> None:
        self._send_waiting()
        self.client.set_terminated(self.run, "FINISHED" if complete else "FAILED")

    @staticmethod
    def look(folder: Path) -> str:
        if where := os.environ.get("MLFLOW_TRACKING_URI"):
            return f"MLflow at {where}"
        return f"MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {folder / 'store'}"

    def _create(self, name: str) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "loralab")
        known = self.client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else self.client.create_experiment(experiment)
        return str(self.client.create_run(number, run_name=name).info.run_id)

    def _last_step(self, name: str) -> int:
        """The last step an earlier session sent: MLflow forgets nothing, so a resumed run must not repeat itself."""
        if name not in self.last_steps:
            history = self.client.get_metric_history(self.run, name) if self.resumed else []
            self.last_steps[name] = max((metric.step for metric in history), default=-1)
        return self.last_steps[name]

    def _send_waiting(self) -> None:
        for first in range(0, len(self.waiting), 1000):  # the most that MLflow takes at once
            self.client.log_batch(self.run, metrics=self.waiting[first : first + 1000])
        self.waiting, self.sent_at = [], time.monotonic()


KINDS: Mapping[str, tuple[type[Tracker], Mapping[str, str]]] = {
    "tensorboard": (TensorBoard, {}),
    "wandb": (Wandb, {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}),
    # MLflow calls its file store finished and asks for this word; its successor, SQLite, is not in mlflow-skinny.
    "mlflow": (Mlflow, {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}),
}
"""By name, which is the package's too: the tracker, and environment variables where the user has set none."""


def open_trackers(names: Iterable[str], config: Config, run_folder: Path) -> Trackers:
    """Return trackers for one run: a context that gives `listeners` to train with and takes the result with `finish`.

    Raises LoralabError for an unknown name and a package that is not installed. Nothing is written before the first event.
    """
    workers = []
    for name in dict.fromkeys(names):
        if name not in KINDS:
            raise LoralabError(f"there is no tracker {name!r}{nearest(name, KINDS)}; valid: {', '.join(KINDS)}")
        tracker, environment = KINDS[name]
        for variable, value in environment.items():
            os.environ.setdefault(variable, value)  # before the import, which may read it
        need(name, "track")
        workers.append(_Worker(name, tracker, run_folder, config.model_dump(mode="json")))
    return Trackers(workers)


class Trackers:
    """The trackers of one run, closed when the context ends, however it ends."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self._workers = workers
        self._names: dict[str, str] = {}
        self._complete = False

    @property
    def listeners(self) -> list[Listener]:
        """What to pass on to run_training."""
        return [self.listen] if self._workers else []

    def listen(self, event: Event) -> None:
        """Send one event of the engine: never waits, never raises."""
        from loralab.training.callbacks import EvalEnd, StepEnd

        if isinstance(event, StepEnd):
            train = {name: getattr(event, name) for name in ("loss", "learning_rate", "gradient_norm")}
            train["samples_per_second"] = event.samples / max(event.seconds, 1e-9)
            self._send(event.step, train=train, memory={"gpu_mb": event.gpu_mb})
        elif isinstance(event, EvalEnd):
            self._send(event.step, validation={**event.scores, "temperature": event.temperature}, memory=event.memory)

    def finish(self, summary: RunSummary) -> None:
        """Send test scores, counts and durations of a run that is complete."""
        kept = {name: getattr(summary, name) for name in ("best_step", "seconds", "samples_per_second")}
        self._send(summary.steps, test=summary.scores, parameters=asdict(summary.counts), run=kept)
        self._complete = True

    def look(self) -> list[str]:
        """How to see what each tracker kept, a line each; those that failed have said so."""
        return [worker.tracker.look(worker.folder) for worker in self._workers if worker.thread and not worker.failed]

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers:
            worker.end(self._complete)

    def _send(self, step: int, **groups: Mapping[str, float | None]) -> None:
        values = {
            self._name(group, key): float(value)
            for group, content in groups.items()
            for key, value in content.items()
            if value is not None
        }
        for worker in self._workers:
            worker.put(values, step)

    def _name(self, group: str, key: str) -> str:
        """`validation`, `f1:Sci/Tech` → `validation/f1_Sci-Tech`, one name for all three tools; no two keys share one."""
        raw = f"{group}/{key}"
        if raw not in self._names:
            name = first = f"{group}/" + re.sub(r"[^\w-]", "_", key.replace("/", "-"))[:_LONGEST_NAME]
            number = 1
            while name in self._names.values():
                number += 1
                name = f"{first}_{number}"
            self._names[raw] = name
        return self._names[raw]


class _Worker:
    """The thread of one tracker. It starts with the first values, when the run's folder is there."""

    def __init__(self, name: str, tracker: type[Tracker], run_folder: Path, settings: Mapping[str, Any]) -> None:
        self.name, self.tracker, self.run_name, self.settings = name, tracker, run_folder.name, settings
        self.folder = run_folder / TRACK / name
        self.queue: SimpleQueue[tuple[Values, int] | bool] = SimpleQueue()
        self.thread: threading.Thread | None = None
        self.failed = False

    def put(self, values: Values, step: int) -> None:
        if self.thread is None:
            self.thread = threading.Thread(target=self._work, args=(step,), name=f"track {self.name}", daemon=True)
            self.thread.start()
        if not self.failed:
            self.queue.put((values, step))

    def end(self, complete: bool) -> None:
        if self.thread is None:
            return
        self.queue.put(complete)
        self.thread.join(_SECONDS_TO_END)
        if self.thread.is_alive():
            _say(f"{self.name} is still busy after {_SECONDS_TO_END:.0f} s: its last values may be missing")

    def _work(self, first_step: int) -> None:
        tracker = None
        try:
            tracker = self.tracker(Session(self.folder, self.run_name, self.settings, first_step))
            while not isinstance(item := self.queue.get(), bool):
                tracker.send(*item)
            tracker.close(item)
        except Exception as error:  # of three tools and their servers: whatever it is, the run goes on
            self.failed = True
            _say(f"{self.name} failed and is switched off, the run goes on ({type(error).__name__}: {_first_line(error)})")
            if tracker is not None:
                with contextlib.suppress(Exception):
                    tracker.close(complete=False)


def _kept(path: Path, make: Callable[[], str]) -> str:
    """Return the run's id that an earlier session kept in a file, or make one and keep it."""
    if not path.is_file():
        with atomic_write(path) as file:
            file.write(make())
    return path.read_text(encoding="utf-8")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:200]


def _say(what: str) -> None:
    print(f"loralab: {what}", file=sys.stderr)
