"""Classify a user's file in the background, beside all other requests."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from loralab.errors import LoralabError
from loralab.inference.prediction_files import CsvWriter, InputRows, OutputFormat, PredictionInput, Predictions, read_input
from loralab.serve.engine import Engine, QueueFull
from loralab.serve.models import ServedModel
from loralab.serve.page.uploads import SECONDS_KEPT, Upload
from loralab.storage.files import TemporaryFolder, csv_field_limit
from loralab.storage.run_folder import MAX_TEXT_CHARACTERS

_log = logging.getLogger(__name__)
CHUNK = 32
"""Texts that a job has in the queue: few, so that other requests wait for at most one such chunk."""
MAX_JOBS = 16
RETRY_SECONDS = 0.1


class FileJob:
    """The classification of one file. Rows below `abstain_below` get no label, and come first in the result."""

    def __init__(self, upload: Upload, text: list[str], model: ServedModel, abstain_below: float, folder: Path) -> None:
        self.id = secrets.token_hex(8)
        self.model, self.abstain_below = model, abstain_below
        self.source: PredictionInput = read_input(upload.path, upload.read_as(text), model.classifier.manifest.data)
        self.total, self.done = upload.rows, 0
        self.labels: Counter[str] = Counter(dict.fromkeys(model.classes, 0))
        self.abstained = 0
        self.notices: list[str] = []
        self.problem = ""
        self.finished = False
        self.result = folder / f"{self.id}.csv"
        self.created = self._start = time.monotonic()
        self._end: float | None = None
        self.task: asyncio.Task[None] | None = None

    def state(self) -> dict[str, Any]:
        """Return the progress, or the result in numbers."""
        seconds = (self._end or time.monotonic()) - self._start
        left = seconds / self.done * (self.total - self.done) if self.done else None
        return {
            "id": self.id,
            "model": self.model.name,
            "status": "failed" if self.problem else "finished" if self.finished else "running",
            "done": self.done,
            "total": self.total,
            "seconds": seconds,
            "seconds_left": left,
            "problem": self.problem,
            "abstained": self.abstained,
            "labels": self.labels,
            "notices": self.notices,
        }

    async def run(self, engine: Engine) -> None:
        """Classify all rows and write the result."""
        try:
            await self._classify(engine)
            self.finished = True
        except asyncio.CancelledError:
            self.result.unlink(missing_ok=True)
            raise
        except LoralabError as error:
            self.problem = str(error)
        except Exception as error:  # the page would wait forever
            _log.exception("a file could not be classified")
            self.problem = f"{type(error).__name__}: {error}"
        finally:
            self._end = time.monotonic()

    async def _classify(self, engine: Engine) -> None:
        rest_path = self.result.with_suffix(".rest")
        format = OutputFormat("csv", keep_columns=True)
        try:
            with (
                csv_field_limit(MAX_TEXT_CHARACTERS),
                self.result.open("w", encoding="utf-8", newline="") as first,
                rest_path.open("w+", encoding="utf-8", newline="") as rest,
            ):
                writers = CsvWriter(first, self.source, format), CsvWriter(rest, self.source, format)
                chunks = _chunks(self.source)
                while (rows := await asyncio.to_thread(next, chunks, None)) is not None:
                    predictions = await self._predict(engine, rows.texts)
                    self._write(writers, rest, rows, predictions)
                    self.done += len(rows.texts)
                await asyncio.to_thread(_append, rest, first)
                self.notices = [*dict.fromkeys(notice.message for writer in writers for notice in writer.finish())]
        finally:
            rest_path.unlink(missing_ok=True)

    async def _predict(self, engine: Engine, texts: Any) -> Predictions:
        while True:
            try:
                return (await self.model.classify(engine, texts)).predictions
            except QueueFull:
                await asyncio.sleep(RETRY_SECONDS)

    def _write(self, writers: tuple[CsvWriter, CsvWriter], rest: IO[str], rows: InputRows, predictions: Predictions) -> None:
        """Write uncertain rows without a label to the first file and the others to the second, which gets no header."""
        if self.done == 0:
            nothing = Predictions([], np.zeros((0, len(predictions.classes)), np.float32), predictions.classes)
            for writer in writers:
                writer.write(_take(rows, np.zeros(0, np.int64)), nothing)
            rest.seek(0)
            rest.truncate()
        uncertain = predictions.confidence < self.abstain_below
        for writer, chosen in zip(writers, (uncertain, ~uncertain), strict=True):
            positions = np.flatnonzero(chosen)
            labels = ["" if writer is writers[0] else predictions.labels[i] for i in positions.tolist()]
            if len(positions):
                writer.write(_take(rows, positions), Predictions(labels, predictions.probabilities[positions], predictions.classes))
        self.abstained += int(uncertain.sum())
        self.labels.update(predictions.labels[i] for i in np.flatnonzero(~uncertain).tolist())


class FileJobs:
    """The jobs of all users, at most MAX_JOBS, each for an hour."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._folder = TemporaryFolder()
        self._jobs: dict[str, FileJob] = {}

    def start(self, upload: Upload, text: list[str], model: ServedModel, abstain_below: float) -> FileJob:
        """Start to classify a file. Raises LoralabError when there are too many jobs. Call it in the event loop."""
        for job in [*self._jobs.values()]:
            if time.monotonic() - job.created > SECONDS_KEPT:
                self.remove(job.id)
        if len(self._jobs) >= MAX_JOBS:
            raise LoralabError(
                f"the server keeps at most {MAX_JOBS} classified files: remove one, or wait until an hour has passed"
            )
        job = FileJob(upload, text, model, abstain_below, self._folder.path)
        self._jobs[job.id] = job
        job.task = asyncio.create_task(job.run(self.engine))
        return job

    def get(self, name: str) -> FileJob | None:
        """Return a job by its id; None for an unknown one."""
        return self._jobs.get(name)

    def remove(self, name: str) -> None:
        """Stop a job and delete its result, if it is there."""
        job = self._jobs.pop(name, None)
        if job is not None:
            if job.task is not None:
                job.task.cancel()
            job.result.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop all jobs and delete their results. Call it in the event loop."""
        for name in [*self._jobs]:
            self.remove(name)
        shutil.rmtree(self._folder.path, ignore_errors=True)


def _chunks(source: PredictionInput) -> Iterator[InputRows]:
    for rows in source.rows:
        for start in range(0, len(rows.texts), CHUNK):
            yield _take(rows, np.arange(start, min(start + CHUNK, len(rows.texts))))


def _take(rows: InputRows, positions: Any) -> InputRows:
    """Return the rows at some positions, with their columns."""
    chosen = positions.tolist()
    ids = None if rows.ids is None else [rows.ids[i] for i in chosen]
    columns = {name: [values[i] for i in chosen] for name, values in rows.columns.items()}
    first = rows.first + (chosen[0] if chosen else 0)
    return InputRows(first, [rows.texts[i] for i in chosen], ids, columns)


def _append(rest: IO[str], first: IO[str]) -> None:
    rest.seek(0)
    shutil.copyfileobj(rest, first)
