"""Send a run to TensorBoard, Weights & Biases or MLflow, into the folder track/TRACKER of the run unless the user names a server.

Calls are synchronous: training waits for them. TensorBoard and wandb get every step. MLflow, which may be a remote server, gets its
values in batches, at evaluations and at the end. A tracker that fails is reported once and switched off; training continues.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from loralab.config import Config
from loralab.errors import LoralabError, import_optional, suggest, visible
from loralab.storage.files import atomic_write
from loralab.storage.run_folder import TRACK
from loralab.training.callbacks import EvalEnd, Event, Listener, StepEnd

if TYPE_CHECKING:
    from loralab.pipeline import RunSummary

_MAX_NAME = 70
"""Characters of a metric's name. MLflow turns names into file names, which are limited to 255 bytes."""
_PEAKS = ("process", "gpu")
"""What `RunSummary.memory` has as a peak; evaluations log its value at that time."""


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set the variables that the user has not set. Remove them afterwards, and WANDB_SERVICE, which wandb.init leaves behind."""
    added = [name for name in (*variables, "WANDB_SERVICE") if name not in os.environ]
    os.environ.update({name: variables[name] for name in added if name in variables})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


class Tracker:
    """One run in one tool. `folder` is the tracker's own; it has content if an earlier session of the run was tracked."""

    environment: ClassVar[Mapping[str, str]] = {}
    hint: str
    """How to view the run."""

    def __init__(self, folder: Path, config: Config, first_step: int) -> None:
        self.folder, self.name, self.config = folder, folder.parent.parent.name, config
        folder.mkdir(parents=True, exist_ok=True)
        self.open(first_step)

    def settings(self) -> dict[str, str | int | float]:
        """Return the settings by dotted name, lists and None as JSON."""
        settings = self.config.flatten().items()
        return {name: value if isinstance(value, str | int | float) else json.dumps(value) for name, value in settings}

    def run_id(self, create: Callable[[], str]) -> str:
        """Return the id that an earlier session stored, or create and store one."""
        path = self.folder / "id"
        if not path.is_file():
            with atomic_write(path) as file:
                file.write(create())
        return path.read_text(encoding="utf-8")

    def open(self, first_step: int) -> None: ...

    def log(self, values: Mapping[str, float], step: int, flush: bool) -> None: ...

    def close(self, complete: bool) -> None: ...


class TensorBoard(Tracker):
    """Event files, without SummaryWriter: its background thread prints a traceback on a full disk, which no caller can catch."""

    def open(self, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.hint = f"tensorboard --logdir {self.folder}"
        resumed = any(self.folder.iterdir())
        self.file = (self.folder / f"events.out.tfevents.{time.time():.6f}.loralab").open("xb")
        self.writer, self.event = RecordWriter(self.file), Event
        self._write(file_version="brain.Event:2")
        if resumed:  # readers drop the earlier values from this step on
            self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))
        else:
            self._write(summary=hparams_pb(self.settings(), trial_id=self.name))

    def _write(self, **content: Any) -> None:
        self.writer.write(self.event(wall_time=time.time(), **content).SerializeToString())
        self.file.flush()

    def log(self, values: Mapping[str, float], step: int, flush: bool) -> None:
        self._write(step=step, summary={"value": [{"tag": name, "simple_value": value} for name, value in values.items()]})

    def close(self, complete: bool) -> None:
        self.file.close()


class Wandb(Tracker):
    """A wandb run in the project WANDB_PROJECT or `loralab`. A resumed run keeps its id."""

    environment: ClassVar = {"WANDB_ERROR_REPORTING": "false"}

    def open(self, first_step: int) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE") or "offline"
        self.hint = f"wandb sync {self.folder}/offline-run-*" if mode == "offline" else f"wandb, WANDB_MODE={mode}"
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "loralab"),
            name=self.name,
            id=self.run_id(lambda: uuid.uuid4().hex),
            resume="allow",
            mode=mode,  # type: ignore[arg-type]
            dir=str(self.folder.parent),  # wandb appends `wandb`
            config=self.config.model_dump(mode="json"),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, values: Mapping[str, float], step: int, flush: bool) -> None:
        self.run.log(dict(values), step=step)

    def close(self, complete: bool) -> None:
        self.run.finish(exit_code=0 if complete else 1)


class Mlflow(Tracker):
    """An MLflow run in the experiment MLFLOW_EXPERIMENT_NAME or `loralab`. A resumed run logs only the steps that are missing."""

    environment: ClassVar = {
        "MLFLOW_ALLOW_FILE_STORE": "true",  # MLflow refuses its file store otherwise; SQLite is not in mlflow-skinny
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # an unreachable server delays training by 5 s; by MLflow's defaults by 4 minutes
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    }

    def open(self, first_step: int) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        uri, store = os.environ.get("MLFLOW_TRACKING_URI"), self.folder / "store"
        self.hint = f"MLflow at {uri}" if uri else f"MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {store}"
        self.client = MlflowClient(uri or store.resolve().as_uri())
        self.metric, self.pending, self.last_steps = Metric, list[Any](), dict[str, int]()
        resumed = (self.folder / "id").is_file()
        self.id = self.run_id(self._create)
        if resumed:
            self.client.update_run(self.id, status="RUNNING")
            for key in self.client.get_run(self.id).data.metrics:
                self.last_steps[key] = max(metric.step for metric in self.client.get_metric_history(self.id, key))
        else:
            self.client.log_batch(self.id, params=[Param(key, str(value)) for key, value in self.settings().items()])

    def _create(self) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "loralab")
        existing = self.client.get_experiment_by_name(experiment)
        experiment_id = existing.experiment_id if existing else self.client.create_experiment(experiment)
        return str(self.client.create_run(experiment_id, run_name=self.name).info.run_id)

    def log(self, values: Mapping[str, float], step: int, flush: bool) -> None:
        now = int(time.time() * 1000)
        self.pending += [self.metric(key, value, now, step) for key, value in values.items() if step > self.last_steps.get(key, -1)]
        if flush or len(self.pending) >= 1000:
            self._flush()

    @_environment(environment)
    def _flush(self) -> None:
        while self.pending:
            self.client.log_batch(self.id, metrics=self.pending[:1000])  # the most that MLflow accepts in one call
            del self.pending[:1000]

    @_environment(environment)
    def close(self, complete: bool) -> None:
        self._flush()
        self.client.set_terminated(self.id, "FINISHED" if complete else "FAILED")


KINDS: Mapping[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": Mlflow}
"""Trackers by name, which is also the name of their package."""


class Trackers(contextlib.AbstractContextManager["Trackers"]):
    """The trackers of one run. They are closed when the context ends, also after an error.

    Give `listeners` to `run_training`, and its result to `finish`. Nothing is written before the first event.
    Raises LoralabError for an unknown name or a package that is not installed.
    """

    def __init__(self, names: Iterable[str], config: Config, run_folder: Path) -> None:
        self._folders = {name: run_folder / TRACK / name for name in names}
        for name in self._folders:
            if name not in KINDS:
                raise LoralabError(f"there is no tracker {name!r}{suggest(name, KINDS)}; valid: {', '.join(KINDS)}")
            with _environment(KINDS[name].environment):
                import_optional(name, "track")
        self._config = config
        self._opened: dict[str, Tracker] = {}
        self._keys: dict[str, str] = {}  # by the metric's name
        self._complete = False
        self.listeners: list[Listener] = [self.listen] if self._folders else []

    def listen(self, event: Event) -> None:
        """Log an event of training. Errors of a tracker are reported, not raised."""
        if isinstance(event, StepEnd):
            train = {name: getattr(event, name) for name in ("loss", "learning_rate", "gradient_norm")}
            train["samples_per_second"] = event.samples / max(event.seconds, 1e-9)
            self._log(event.step, train=train, memory={"gpu_mb": event.gpu_mb})
        elif isinstance(event, EvalEnd):
            self._log(event.step, validation={**event.scores, "temperature": event.temperature}, memory=event.memory, flush=True)

    def finish(self, summary: RunSummary) -> None:
        """Log the test scores, parameter counts, durations and memory of a complete run."""
        run = {name: getattr(summary, name) for name in ("best_step", "seconds", "samples_per_second")}
        memory = {f"{name}_peak_mb" if name in _PEAKS else f"{name}_mb": value for name, value in summary.memory.items()}
        timing, counts = summary.timing, asdict(summary.counts)
        self._log(summary.steps, test=summary.scores, parameters=counts, run=run, timing=timing, memory=memory)
        self._complete = True

    def hints(self) -> list[str]:
        """Return how to view the run, one line for each tracker that has worked."""
        return [tracker.hint for tracker in self._opened.values()]

    def __exit__(self, *error: object) -> None:
        self._try_each(self._opened, lambda name: self._opened[name].close(self._complete))

    def _log(self, step: int, flush: bool = False, **groups: Mapping[str, float | None]) -> None:
        items = [(self._metric_name(group, key), value) for group, content in groups.items() for key, value in content.items()]
        values = {name: float(value) for name, value in items if value is not None}

        def log(name: str) -> None:
            if name not in self._opened:
                with _environment(KINDS[name].environment):
                    self._opened[name] = KINDS[name](self._folders[name], self._config, step)
            self._opened[name].log(values, step, flush)

        self._try_each(self._folders, log)

    def _try_each(self, names: Iterable[str], call: Callable[[str], None]) -> None:
        """Call for each tracker. One that raises is reported, closed and removed."""
        for name in tuple(names):
            try:
                call(name)
            except Exception as error:  # whatever the tool or its server raises, training continues
                reason = next(iter(str(error).strip().splitlines()), "")[:200]
                message = f"{name} failed and is switched off; training continues ({type(error).__name__}: {reason})"
                print(visible(f"loralab: {message}"), file=sys.stderr)
                del self._folders[name]
                with contextlib.suppress(Exception):
                    self._opened.pop(name).close(complete=False)

    def _metric_name(self, group: str, key: str) -> str:
        """Return a name that every tool accepts and no other metric has, such as `validation/f1_Sci-Tech` for `f1:Sci/Tech`."""
        name = f"{group}/" + re.sub(r"[^\w-]", "_", key.replace("/", "-"))[:_MAX_NAME]
        candidates = chain([name], (f"{name}_{number}" for number in count(2)))
        return next(candidate for candidate in candidates if self._keys.setdefault(candidate, key) == key)
