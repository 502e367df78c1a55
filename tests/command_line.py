"""Run the `loralab` command in tests: `from command_line import done, invoke`."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any
from unittest import mock

from loralab.cli.main import app, main


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


def invoke(*arguments: object, stdin: str = "") -> Answer:
    """Run `loralab ARGUMENTS` in this process. What is not a SystemExit passes through, as a traceback would."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    argv = mock.patch.object(sys, "argv", ["loralab", *map(str, arguments)])
    texts = mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), argv, texts:
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Answer(code, out.getvalue(), err.getvalue())


def done(*arguments: object, stdin: str = "") -> str:
    """Run a command that must succeed; return what it printed."""
    answer = invoke(*arguments, stdin=stdin)
    assert (answer.code, answer.err) == (0, ""), answer.err
    return answer.out


def process(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `loralab ARGUMENTS` in a process of its own."""
    command = [sys.executable, "-m", "loralab", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}  # type: ignore[dict-item]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, **options)  # type: ignore[call-overload, no-any-return]


def all_commands() -> dict[str, Any]:
    """Return every command of the app by its full name, such as `config show`."""
    import typer

    commands: dict[str, Any] = {}

    def collect(group: Any, prefix: str) -> None:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                collect(command, f"{prefix}{name} ")
            else:
                commands[f"{prefix}{name}"] = command

    collect(typer.main.get_command(app), "")
    return commands
