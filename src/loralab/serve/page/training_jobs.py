"""Training runs that the page starts, as processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loralab.errors import LoralabError
from loralab.serve.page.run_listing import progress_of, run_line
from loralab.storage.files import write_errors

OUTPUT_LINES = 12
STOP_SECONDS = 5.0
"""A process that has not ended by then is killed."""


class TrainingJob:
    """A run on a copy of a labelled CSV. The copy stays, because the run is later diagnosed on the same rows.

    on_finish: called with the run's folder and name when it is complete.
    """

    def __init__(self, csv: Path, runs: Path, name: str, on_finish: Callable[[Path, str], object]) -> None:
        """Start the process. Raises RunFailed if the disk refuses the copy."""
        self.name, self.folder, self.on_finish = name, runs / name, on_finish
        self.rows, self._output = csv.with_name(f"{name}.csv"), csv.with_name(f"{name}.txt")
        self.loaded, self.problem, self._stopped = False, "", False
        command = [sys.executable, "-m", "loralab", "train", str(self.rows.absolute()), "data.text=text", "data.label=label"]
        command += ["data.id=row", "--name", name, "--runs", str(runs.absolute()), "--quiet"]
        with write_errors(self.rows):
            shutil.copyfile(csv, self.rows)
            with self._output.open("wb") as output:
                self.process = subprocess.Popen(  # noqa: S603 - no value of a client is among the arguments
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "NO_COLOR": "1"}
                )
        threading.Thread(target=self._wait, name="loralab-training", daemon=True).start()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def state(self) -> dict[str, Any]:
        """Return the progress: steps and evaluations so far."""
        code = self.process.poll()
        ended = "finished" if code == 0 else "stopped" if self._stopped else "failed"
        status = "running" if code is None else ended
        line = run_line(self.folder) if status == "finished" else progress_of(self.folder)
        return {**line, "name": self.name, "status": status, "loaded": self.loaded, "problem": self.problem}

    def stop(self) -> None:
        """End the process, and wait for it. Its run can be resumed on the command line."""
        if self.running:
            self._stopped = True
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def _wait(self) -> None:
        if self.process.wait() == 0:
            try:
                self.on_finish(self.folder, self.name)
                self.loaded = True
            except LoralabError as error:
                self.problem = str(error)
        else:
            lines = self._output.read_text(encoding="utf-8", errors="replace").splitlines()
            self.problem = "\n".join(lines[-OUTPUT_LINES:]) or f"the process ended with code {self.process.returncode}"
