"""`loralab verify`: check the files of runs against their checksums, and remove what killed commands left behind."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from loralab.cli.options import AsJson, print_json
from loralab.cli.streams import say


def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN|FOLDER", help="A run, a model, an experiment, or a folder that holds some.")
    ] = Path("runs"),
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove the temporary files of commands that were killed, and list them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check every file of runs against its checksum.

    One line for each run, model, export and experiment. Exit code 1 if something is damaged. Nothing is changed without --clean,
    which never touches the files of a command that is running.

    \b
    loralab verify runs/quickstart-s42
    loralab verify runs --clean
    """
    from loralab.verify import find_litter, remove_litter
    from loralab.verify import verify as verify_folder

    removed = remove_litter(folder) if clean else []
    results, litter = verify_folder(folder), find_litter(folder)
    damaged = [result for result in results if result.state == "damaged"]
    if as_json:
        print_json({"results": [asdict(result) for result in results], "removed": removed, "litter": litter})
    else:
        for result in results:
            about = result.problem or (f"{result.files} files" if result.files else "")
            say(f"{result.state:<11} {result.kind:<11} {result.folder}  {about}".rstrip())
        for path in removed:
            say(f"removed     {path}")
        for path in litter:
            say(f"temporary   {path}: of a command that is running" + ("" if clean else ", or was killed: --clean removes it then"))
        say(f"{len(results):,} checked, {len(damaged):,} damaged")
    if damaged:
        raise typer.Exit(1)
