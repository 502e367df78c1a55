"""Output that cannot be written: the command finishes and prints one message, or none if the reader closed the pipe."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest

from loralab.cli.main import main
from loralab.cli.streams import SafeStream, safe_stdio
from loralab.storage.run_folder import read_scores

INCOMPLETE = "loralab: standard output: {}; the command succeeded, but its output is incomplete\n"


def full() -> TextIO:
    return Path("/dev/full").open("w")


def unread() -> TextIO:
    """A pipe whose reader is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def closed() -> None:
    """Python's value for a closed stream is None."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Run `loralab ARGUMENTS` with other streams; return its exit code and its standard error."""

    def run_with(arguments: str, out: TextIO | None, err: TextIO | None = None) -> tuple[int, str]:
        errors = io.StringIO()
        monkeypatch.setattr(sys, "argv", ["loralab", *arguments.split()])
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err or errors)
        with pytest.raises(SystemExit) as stop:
            main()
        for stream in (out, err):
            if stream is not None:
                stream.close()  # its buffer must be empty, or this fails
        monkeypatch.undo()
        return int(stop.value.code or 0), errors.getvalue()

    return run_with


@pytest.mark.parametrize(
    ("output", "code", "message"),
    [
        (full, 1, INCOMPLETE.format("No space left on device")),
        (closed, 1, INCOMPLETE.format("Bad file descriptor")),
        (unread, 0, ""),
    ],
)
@pytest.mark.parametrize("command", ["settings", "recipes --json", "train --help"])
def test_a_table_that_cannot_be_printed(
    run: Callable[..., tuple[int, str]], command: str, output: Callable[[], TextIO | None], code: int, message: str
) -> None:
    assert run(command, output()) == (code, message)


@pytest.mark.parametrize("output", [full, unread])
def test_an_error_that_cannot_be_printed_keeps_its_exit_code(
    run: Callable[..., tuple[int, str]], output: Callable[[], TextIO]
) -> None:
    assert run("describe nothing", output(), output())[0] == 2


def test_a_character_that_the_encoding_lacks_becomes_a_question_mark() -> None:
    written = io.BytesIO()
    with io.TextIOWrapper(written, encoding="latin-1") as terminal:
        print("Zürich → \ud83d", file=SafeStream(terminal), end="", flush=True)  # type: ignore[call-overload]
        assert written.getvalue().decode("latin-1") == "Zürich ? ?"


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which `"$@"` is loralab with `arguments`."""
    command = [sys.executable, "-m", "loralab", *map(str, arguments)]
    return subprocess.run(["bash", "-c", line, "bash", *command], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('"$@" > /dev/full', "No space left on device"),
        ('"$@" >&-', "Bad file descriptor"),
        ('set -o pipefail; "$@" | true', ""),
        ('"$@" 2> /dev/full', ""),
        ('"$@" 2>&-', ""),
    ],
)
def test_the_end_of_the_process_prints_nothing_more(line: str, problem: str) -> None:
    result = shell(line, "settings")
    assert (result.returncode, result.stderr) == ((1, INCOMPLETE.format(problem)) if problem else (0, ""))


@pytest.mark.slow
@pytest.mark.parametrize(("line", "code"), [('"$@" > /dev/full', 1), ('set -o pipefail; "$@" | head -1', 0)])
def test_a_run_completes_without_output(line: str, code: int, tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    settings = [f"model.base={tiny}", "train.max_steps=4", "--no-report", "--runs", tmp_path, "--name", "x"]
    result = shell(line, "train", topics_csv, *settings)
    assert (result.returncode, result.stderr) == (code, INCOMPLETE.format("No space left on device") if code else "")
    assert read_scores(tmp_path / "x")["steps"] == 4


def test_output_after_a_failure_is_discarded_and_streams_are_restored() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    stream = SafeStream(Full())
    assert stream.write_error() == ""
    print("a", file=stream, flush=True)  # type: ignore[call-overload]
    assert stream.write_error() == "No space left on device"
    before = sys.stdout, sys.stderr
    with safe_stdio() as output:
        assert sys.stdout is output
        assert output.encoding == before[0].encoding
    assert (sys.stdout, sys.stderr) == before
