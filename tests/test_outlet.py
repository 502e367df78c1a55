"""Output that cannot be written: the work is done all the same, one message says so, and where the reader has gone none does."""

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

SAID = "loralab: standard output: {}; all was done, and not all could be said\n"


def full() -> TextIO:
    return Path("/dev/full").open("w")


def unread() -> TextIO:
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def closed() -> None:
    """As Python has it."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Run `loralab ARGUMENTS` with streams of its own; return its exit code and what it said on standard error."""

    def run_with(arguments: str, out: TextIO | None, err: TextIO | None = None) -> tuple[int, str]:
        heard = io.StringIO()
        monkeypatch.setattr(sys, "argv", ["loralab", *arguments.split()])
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err or heard)
        with pytest.raises(SystemExit) as stop:
            main()
        for stream in (out, err):
            if stream is not None:
                stream.close()  # what is left in its buffer is no error now
        monkeypatch.undo()
        return int(stop.value.code or 0), heard.getvalue()

    return run_with


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [(full, 1, SAID.format("No space left on device")), (closed, 1, SAID.format("Bad file descriptor")), (unread, 0, "")],
)
@pytest.mark.parametrize("command", ["settings", "recipes --json", "train --help"])
def test_a_table_that_cannot_be_printed(
    run: Callable[..., tuple[int, str]], command: str, where: Callable[[], TextIO | None], code: int, said: str
) -> None:
    assert run(command, where()) == (code, said)


@pytest.mark.parametrize("where", [full, unread])
def test_an_error_that_cannot_be_told_keeps_its_exit_code(run: Callable[..., tuple[int, str]], where: Callable[[], TextIO]) -> None:
    assert run("describe nothing", where(), where())[0] == 2


def test_a_character_that_the_terminal_does_not_have_is_a_question_mark() -> None:
    written = io.BytesIO()
    with io.TextIOWrapper(written, encoding="latin-1") as terminal:
        print("Zürich → \ud83d", file=SafeStream(terminal), end="", flush=True)  # type: ignore[call-overload]
        assert written.getvalue().decode("latin-1") == "Zürich ? ?"


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell in which `"$@"` is loralab with `arguments`."""
    command = [sys.executable, "-m", "loralab", *map(str, arguments)]
    return subprocess.run(["bash", "-c", line, "bash", *command], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ('"$@" > /dev/full', "No space left on device"),
        ('"$@" >&-', "Bad file descriptor"),
        ('set -o pipefail; "$@" | true', ""),
        ('"$@" 2> /dev/full', ""),
        ('"$@" 2>&-', ""),
    ],
)
def test_nothing_more_is_said_as_the_process_ends(line: str, lost: str) -> None:
    found = shell(line, "settings")
    assert (found.returncode, found.stderr) == ((1, SAID.format(lost)) if lost else (0, ""))


@pytest.mark.slow
@pytest.mark.parametrize(("line", "code"), [('"$@" > /dev/full', 1), ('set -o pipefail; "$@" | head -1', 0)])
def test_a_run_goes_on_to_its_end(line: str, code: int, tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    settings = [f"model.base={tiny}", "train.max_steps=4", "--no-report", "--runs", tmp_path, "--name", "x"]
    found = shell(line, "train", topics_csv, *settings)
    assert (found.returncode, found.stderr) == (code, SAID.format("No space left on device") if code else "")
    assert read_scores(tmp_path / "x")["steps"] == 4


def test_what_is_written_after_a_failure_goes_nowhere_and_streams_are_given_back() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    outlet = SafeStream(Full())
    assert outlet.lost() == ""
    print("a", file=outlet, flush=True)  # type: ignore[call-overload]
    assert outlet.lost() == "No space left on device"
    before = sys.stdout, sys.stderr
    with safe_stdio() as output:
        assert sys.stdout is output
        assert output.encoding == before[0].encoding
    assert (sys.stdout, sys.stderr) == before
