"""The `loralab` command: its options, its commands, its exit codes. Heavy packages are imported by the commands that need them."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from loralab import __version__
from loralab.cli import (
    data_commands,
    experiment_commands,
    run_commands,
    serve_command,
    settings_commands,
    train_command,
    verify_command,
)
from loralab.cli.options import OUTPUT, Quiet, Verbose, print_json, register
from loralab.cli.streams import safe_stdio
from loralab.errors import LoralabError, is_out_of_memory, visible

INTERRUPTED = 130
"""Exit code of the command line parser after Ctrl-C."""
DISK_ERRORS = (errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC))
"""Full, read-only, a file over its limit, damaged, over the quota; Windows has no quota's."""

app = typer.Typer(
    name="loralab",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line. A LoralabError becomes a message and its exit code; other exceptions keep their traceback."""
    with safe_stdio() as stdout:
        try:
            app()
        except LoralabError as error:
            from loralab.training.distributed import exit_with, report_error

            if OUTPUT.verbose:
                traceback.print_exc()
            report_error(visible(f"loralab: {error}"))
            if OUTPUT.json and os.environ.get("RANK", "0") == "0":
                print_json({"error": str(error)})  # a program that reads the output gets one document in any case
            exit_with(error.exit_code)
        except Exception as error:
            if OUTPUT.verbose or not (reason := system_problem(error)):
                raise
            print(visible(f"loralab: {reason}"), file=sys.stderr)
            sys.exit(1)
        except SystemExit as end:
            if end.code == INTERRUPTED:
                print("loralab: interrupted", file=sys.stderr)
                sys.exit(1)
            if not end.code and (problem := stdout.write_error()):
                print(f"loralab: standard output: {problem}; the command succeeded, but its output is incomplete", file=sys.stderr)
                sys.exit(1)
            raise


def system_problem(error: Exception) -> str:
    """Return what the machine refused, memory or a file, for an exception that nothing explained before; empty for a bug."""
    if is_out_of_memory(error):
        return "out of memory: close other programs, or process fewer or shorter texts at once"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:  # of a write, which does not know its file
        return f"the disk refused to write: {error.strerror}"
    return ""


def _print_version(value: bool) -> None:
    if value:
        print(f"loralab {__version__}")
        raise typer.Exit


@app.callback(epilog="Start with: loralab train quickstart    or with your own rows: loralab train reviews.csv")
def set_options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fine-tune text classifiers with LoRA: fast on a CPU, within a parameter budget, with statistics you can defend.

    `loralab COMMAND --help` shows a command's examples and options. -q and -v may follow the command.
    """
    OUTPUT.quiet, OUTPUT.verbose, OUTPUT.json = quiet, verbose, False


_COMMANDS: Sequence[Callable[..., None]] = (
    data_commands.check,
    data_commands.init,
    train_command.train,
    run_commands.predict,
    run_commands.evaluate,
    run_commands.diagnose,
    run_commands.report,
    run_commands.export,
    run_commands.push,
    serve_command.serve,
    serve_command.ui,
    experiment_commands.experiment,
    experiment_commands.search,
    run_commands.soup,
    settings_commands.recipes,
    settings_commands.settings,
    settings_commands.describe,
    settings_commands.budget,
    data_commands.clean,
    data_commands.augment,
    verify_command.verify,
    settings_commands.doctor,
)
for _command in _COMMANDS:
    register(app, _command)
app.add_typer(settings_commands.config_app, name="config")
