"""A process that has imported loralab and forks a child for each command, which then starts in milliseconds instead of seconds.

    server = FaultServer()
    process = server.start(["train", "quickstart"], folder, fault={"kind": "kill", "at": 7})
    ended = server.wait(process)

The server runs one thread and computes nothing, so a forked child is what a new process would be. It runs `loralab ARGUMENTS` as
`python -m loralab` does, with its own output files, folder, environment and limits. A child can break something at its k-th file
operation (see fault_injection.py).
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
IMPORTS = [
    *("loralab.__main__", "loralab.pipeline", "loralab.cli.main", "loralab.cli.training_display", "loralab.cli.experiment_display"),
    *("loralab.report.write", "loralab.experiments.run", "loralab.experiments.search", "loralab.inference.classifier"),
    *("loralab.serve.run", "matplotlib.pyplot", "optuna", "sklearn.linear_model"),
]
"""What most commands import; `learn` adds the rest."""


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: the exit code, -N for signal N; hit: its fault happened while it ran."""

    code: int
    out: str
    err: str
    hit: bool

    @property
    def finished(self) -> bool:
        return self.code == 0


@dataclass(frozen=True)
class Running:
    """A command that runs."""

    pid: int


class FaultServer:
    """Starts, signals and awaits commands. Its process ends with this object's `close`, or with its caller."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        paths = os.pathsep.join([str(FOLDER), str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, **THREADS, "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, str(FOLDER / "fault_server.py"), str(theirs.fileno())]
        self.process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()
        self.lines = ours.makefile("rw")
        ours.close()  # in effect when the file is closed

    def start(
        self,
        arguments: Sequence[object],
        folder: Path,
        *,
        fault: Mapping[str, Any] | None = None,
        call: str | None = None,
        environment: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
        user: int | None = None,
    ) -> Running:
        """Start `loralab ARGUMENTS`, or the function `call` of fault_actions.py, in `folder`.

        fault: as in fault_injection.py. limits: name of a resource without RLIMIT_ → bytes; AS is above what the child starts
        with. user: the user id to run as.
        """
        answer = self._ask(
            start=[str(argument) for argument in arguments],
            call=call,
            folder=str(folder),
            fault=fault and dict(fault),
            environment=dict(environment or {}),
            limits=dict(limits or {}),
            user=user,
        )
        return Running(answer["pid"])

    def wait(self, running: Running, timeout: float | None = 60.0) -> Ended | None:
        """Wait for a command, `timeout` seconds at most; None if it still runs then. Without a limit for None."""
        answer = self._ask(wait=running.pid, timeout=timeout)
        if answer["code"] is None:
            return None
        return Ended(**answer)

    def run(self, arguments: Sequence[object], folder: Path, timeout: float = 120.0, **options: Any) -> Ended:
        """Run a command to its end. Raises TimeoutError, after killing it, when it takes longer than `timeout` seconds."""
        running = self.start(arguments, folder, **options)
        ended = self.wait(running, timeout)
        if ended is None:
            os.kill(running.pid, signal.SIGKILL)
            ended = self.wait(running)
            raise TimeoutError(f"loralab {' '.join(map(str, arguments))} ran longer than {timeout:g} s: {ended}")
        return ended

    def learn(self, arguments: Sequence[object], folder: Path, **options: Any) -> Ended:
        """Run a command, and import what it imported into the server, so that later children need not."""
        ended = self.run(arguments, folder, **options)
        self._ask(learn=True)
        return ended

    def close(self) -> None:
        """End the server."""
        with contextlib.suppress(OSError):
            self.lines.close()
        self.process.wait()

    def _ask(self, **request: Any) -> dict[str, Any]:
        self.lines.write(json.dumps(request) + "\n")
        self.lines.flush()
        line = self.lines.readline()
        if not line:
            raise RuntimeError("the fault server has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve(connection: socket.socket) -> None:
    """Answer requests until the other side closes. Runs in the server's process."""
    for name in IMPORTS:
        importlib.import_module(name)
    import matplotlib.font_manager  # noqa: F401 - reads the list of fonts, once

    lines = connection.makefile("rw")
    outputs: dict[int, list[int]] = {}
    imported_read, imported_write = open_pipe()
    for line in lines:
        request = json.loads(line)
        if "start" in request:
            assert not extra_threads(), f"a forked child would not have the threads {extra_threads()}"
            pipes = [open_pipe() for _ in range(3)]  # not files: their size has a limit, and their disk may be full
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            pid = os.fork()
            if pid == 0:
                connection.detach()
                run_child(request, [write for _, write in pipes], imported_write)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            for _, write in pipes:
                os.close(write)
            outputs[pid] = [read for read, _ in pipes]
            answer: dict[str, Any] = {"pid": pid}
        elif "wait" in request:
            code = wait_for(request["wait"], request["timeout"])
            answer = {"code": code}
            if code is not None:
                out, err, hit = (read_pipe(pipe) for pipe in outputs[request["wait"]])
                answer |= {"out": out, "err": err, "hit": bool(hit)}
                for pipe in outputs.pop(request["wait"]):
                    os.close(pipe)
        else:
            answer = {"imported": import_modules(imported_read)}
        lines.write(json.dumps(answer) + "\n")
        lines.flush()


def extra_threads() -> list[str]:
    """Return the names of this process's threads but the first and Arrow's allocator's, which a forked child does without."""
    threads = (
        Path(f"/proc/self/task/{name}/comm").read_text().strip() for name in sorted(os.listdir("/proc/self/task"), key=int)[1:]
    )
    return [name for name in threads if not name.startswith("jemalloc")]


def wait_for(pid: int, timeout: float | None) -> int | None:
    """Return a child's exit code, or None after `timeout` seconds."""
    if timeout is None:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    import time

    end = time.monotonic() + timeout
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        left = end - time.monotonic()
        if left <= 0:
            return None
        signal.sigtimedwait([signal.SIGCHLD], min(left, 0.2))


def open_pipe() -> tuple[int, int]:
    """Return a pipe that has room for a megabyte, and is read without waiting."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.set_blocking(read, False)
    return read, write


def read_pipe(pipe: int) -> str:
    """Return what is in a pipe now."""
    content = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(pipe, 1 << 16):
            content += part
    return content.decode("utf-8", "replace")


def import_modules(pipe: int) -> int:
    """Import the modules whose names children have written to `pipe`."""
    count = 0
    for name in read_pipe(pipe).split():
        with contextlib.suppress(Exception):
            importlib.import_module(name)
            count += 1
    return count


def run_child(request: Mapping[str, Any], pipes: Sequence[int], imported: int) -> None:
    """Become the command of a request, and end with its exit code. pipes: output, errors, and a byte if the fault happens."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # before the command starts Ctrl-C ends the process, as before Python starts
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD, signal.SIGINT])
    known = set(sys.modules)
    code = 70
    try:
        for number, handle in enumerate((os.open(os.devnull, os.O_RDONLY), *pipes[:2])):
            os.dup2(handle, number)
            os.close(handle)
        os.chdir(request["folder"])
        os.environ.update(request["environment"])
        if request["user"] is not None:
            os.setgroups([])
            os.setgid(request["user"])
            os.setuid(request["user"])
        for name, size in request["limits"].items():
            if name == "AS":
                size += address_space()
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (size, size))
        if request["fault"]:
            import fault_injection

            fault_injection.install(request["fault"], Path(request["folder"]), pipes[2])
        code = exit_code(request)
    except BaseException:
        traceback.print_exc()
    finally:
        if not request["fault"]:
            os.set_blocking(imported, False)
            with contextlib.suppress(BlockingIOError):
                os.write(imported, (" ".join(sorted(set(sys.modules) - known)) + " ").encode())
        os._exit(code)


def exit_code(request: Mapping[str, Any]) -> int:
    """Run a request's command as the interpreter would: exit handlers, tracebacks and exit code included."""
    from loralab.errors import LoralabError

    code = 0
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if request["call"]:
            import fault_actions

            getattr(fault_actions, request["call"])(*request["start"])
        else:
            from loralab.__main__ import main

            sys.argv = ["loralab", *request["start"]]
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = -signal.SIGINT
    except LoralabError as error:  # of an action
        print(f"loralab: {error}", file=sys.stderr)
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    if code == -signal.SIGINT:  # as Python ends after an unhandled KeyboardInterrupt
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return code


def address_space() -> int:
    """Return the size of this process's address space in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
