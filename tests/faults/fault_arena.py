"""A place to break things: a small disk, the states that commands start from, and the results they must end with."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_commands import COMMANDS, DERIVED, NEW_ROWS, ROWS, SETTINGS, TRAIN, Command, Parts, contents
from fault_injection import FILLER, append_row, remount
from fault_server import Ended, FaultServer
from tiny import make_checkpoint, topics, write_csv

DISK_MB = 24
DETAIL = int(os.environ.get("LORALAB_FAULT_DETAIL", "400"))
"""Characters of a traceback that a failure shows."""
_importing = threading.Lock()
"""Two threads must not import Transformers at the same time."""
FINISHED = ("train", "quickstart", "model.base={base}", *SETTINGS, "--name")
HALF_WAY = 60
"""The file operation at which the interrupted run was killed: after its second checkpoint."""


@dataclass(frozen=True)
class Reference:
    """An uninterrupted command. operations: its file operations, in order; seconds: how long it took."""

    result: Parts
    operations: tuple[str, ...]
    seconds: float


class Arena:
    """A fault server, a disk with a working folder, and the start states. `mounted` without root is False: no disk to fill."""

    def __init__(self, root: Path, commands: Iterable[str]) -> None:
        self.root = root
        self.states, self.box = root / "states", root / "disk" / "box"
        for folder in (self.states, self.box.parent):
            folder.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(self.box.parent)]
        self.mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
        root.chmod(0o755)  # another user may read
        with _importing:
            self.base = make_checkpoint(root / "base")
        self.server = FaultServer()
        self.references: dict[str, Reference] = {}
        try:
            self._make_states()
            for name in commands:
                self.references[name] = self._measure(COMMANDS[name])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the server, unmount the disk and delete everything."""
        self.server.close()
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.box.parent)], check=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def arguments(self, command: Command) -> list[str]:
        return command.with_base(self.base)

    def environment(self) -> dict[str, str]:
        return {"LORALAB_CACHE": str(self.box / "cache"), "HOME": str(self.box)}

    def run(self, arguments: Iterable[object], **options: Any) -> Ended:
        """Run a command in the box to its end."""
        return self.server.run([*arguments], self.box, **{"environment": self.environment(), **options})

    def reset(self, state: str) -> None:
        """Put the box into a start state."""
        self.repair()
        shutil.rmtree(self.box, ignore_errors=True)
        shutil.copytree(self.states / state, self.box)

    def repair(self) -> None:
        """Make the disk writable, and free what a fault has filled."""
        if self.mounted:
            remount(self.box.parent, read_only=False)
        with contextlib.suppress(FileNotFoundError):
            (self.box / FILLER).unlink()

    def save(self, state: str) -> None:
        """Keep the box as a start state."""
        shutil.rmtree(self.states / state, ignore_errors=True)
        shutil.copytree(self.box, self.states / state)

    def finished_bytes(self) -> Mapping[str, bytes]:
        """Return the files of the run that was finished before, but its report."""
        return contents(self.box / "runs" / "other", without=DERIVED)

    def result_on_changed_rows(self, command: Command) -> Parts:
        """Return the result of a command whose data was changed before it started. The box starts anew."""
        self.reset(command.start)
        append_row(self.box / ROWS)
        self._must(self.run(self.arguments(command)))
        return command.result(self.box)

    def _make_states(self) -> None:
        self.box.mkdir()
        write_csv(self.box / ROWS, topics(20))
        write_csv(self.box / NEW_ROWS, [(text, "") for text, _ in topics(100, seed=5)], header=("text", "x"))
        self._must(self.server.learn([*self._with_base(FINISHED), "other"], self.box, environment=self.environment()))
        (self.box / "out.csv").write_text("the old predictions")
        shutil.rmtree(self.box / "cache", ignore_errors=True)
        self.save("finished")
        self._must(self.run([*self._with_base(FINISHED), "cut", "--no-report", "seed=7"]))
        self.save("old")
        self.reset("finished")
        killed = self.run([*self._with_base(TRAIN), "train.feature_cache=off"], fault={"kind": "kill", "at": HALF_WAY})
        assert killed.code == -9, killed
        assert (self.box / "runs" / "cut" / "checkpoint.safetensors").is_file()
        self.save("half")

    def _measure(self, command: Command) -> Reference:
        """Run a command to its end, once to import what it needs, once with its file operations counted."""
        options: dict[str, Any] = {"environment": self.environment(), "call": command.call}
        self.reset(command.start)
        self._must(self.server.learn(self.arguments(command), self.box, **options))
        self.reset(command.start)
        trace = self.root / "trace"
        seconds = 9.0
        for _ in range(2):
            if seconds > 3.0:
                self.reset(command.start)
                start = time.monotonic()
                self._must(
                    self.run(self.arguments(command), call=command.call, fault={"kind": "count", "at": 0, "trace": str(trace)})
                )
                seconds = time.monotonic() - start
        self.save(f"after-{command.name}")
        return Reference(command.result(self.box), tuple(trace.read_text().splitlines()), seconds)

    def _with_base(self, arguments: Iterable[str]) -> list[str]:
        return [argument.format(base=self.base) for argument in arguments]

    @staticmethod
    def _must(ended: Ended) -> None:
        assert ended.code == 0, ended


@contextlib.contextmanager
def open_arena(commands: Iterable[str]) -> Iterator[Arena]:
    """Yield an arena in a temporary folder, which is deleted at the end."""
    arena = Arena(Path(tempfile.mkdtemp(prefix="loralab-faults-")), commands)
    try:
        yield arena
    finally:
        arena.close()


def problem_of(ended: Ended) -> str:
    """Return what is wrong with how a command ended, apart from its results: a traceback, no message, or a signal."""
    if re.search(r"Traceback|^\w+Error:|Exception ignored|terminate called", ended.err, re.MULTILINE):
        return f"traceback: {ended.err.strip()[-DETAIL:]}"
    messages = set(re.findall(r"^loralab: .*", ended.err, re.MULTILINE)) - {"loralab: interrupted"}
    if ended.code in (1, 2) and (len(messages) > 1 or "loralab: " not in ended.err):
        return f"exit code {ended.code} with other than one message: {ended.err.strip()!r}"
    if ended.code not in (0, 1, 2):
        return f"exit code {ended.code}"
    return ""
