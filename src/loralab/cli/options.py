"""Options that commands share: how much to print, JSON output, common arguments."""

from __future__ import annotations

import functools
import inspect
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loralab.errors import LoralabError

if TYPE_CHECKING:
    from loralab.config import DataConfig


@dataclass
class Output:
    """What the current command prints. quiet: results only; verbose: more notes, and tracebacks of errors; json: JSON on stdout."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False

    def enable(self, name: str, value: bool) -> bool:
        """Switch an option on. `loralab -q train` and `loralab train -q` are equivalent, so False changes nothing."""
        if value:
            setattr(self, name, True)
        return value


OUTPUT = Output()


def complete_source(incomplete: str) -> list[str]:
    """Complete a recipe's name or a path."""
    from loralab.config.loading import list_recipes

    pattern = Path(incomplete + "*")
    paths = (f"{path}/" if path.is_dir() else str(path) for path in sorted(pattern.parent.glob(pattern.name)))
    return [name for name in (*(recipe.name for recipe in list_recipes()), *paths) if name.startswith(incomplete)]


def complete_setting(incomplete: str) -> list[str]:
    """Complete a setting's name, with its equals sign."""
    from loralab.config.loading import setting_names

    return [f"{name}=" for name in setting_names() if name.startswith(incomplete)]


def source_argument(metavar: str, help_text: str) -> Any:
    """Return an argument that is completed with recipes and paths."""
    return typer.Argument(metavar=metavar, help=help_text, autocompletion=complete_source, show_default=False)


def setting_argument(metavar: str, help_text: str) -> Any:
    """Return an argument that is completed with settings."""
    return typer.Argument(metavar=metavar, help=help_text, autocompletion=complete_setting, show_default=False)


def _switch(name: str, help_text: str, *flags: str) -> Any:
    """Return an option that switches a field of OUTPUT on."""
    return typer.Option(*flags, help=help_text, callback=lambda value: OUTPUT.enable(name, value))


Source = Annotated[str, source_argument("RECIPE|YAML|DATA", "A recipe, a settings file or a data file.")]
Settings = Annotated[list[str] | None, setting_argument("KEY=VALUE", "Settings, such as lora.rank=16 seed=1.")]
ReadingSettings = Annotated[
    list[str] | None, setting_argument("data.KEY=VALUE", "How to read the file, such as data.delimiter=tab.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/quickstart-s42.", show_default=False)]
Model = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, or the id USER/NAME of a model on the hub.", show_default=False)
]
ModelRevision = Annotated[
    str | None, typer.Option("--revision", help="Branch, tag or commit of a model on the hub. Default: main.")
]
Runs = Annotated[Path, typer.Option(help="Folder of all runs.")]
Base = Annotated[str | None, typer.Option(metavar="FOLDER", help="The base encoder's folder, if it has moved.")]
TextColumns = Annotated[
    str | None, typer.Option("--text", metavar="COLUMN,...", help="Text columns, joined. Default: the run's, else detected.")
]
LabelColumn = Annotated[
    str | None, typer.Option("--label", metavar="COLUMN", help="Label column. Default: the run's, else detected.")
]
AsJson = Annotated[bool, _switch("json", "Print JSON.", "--json")]
Quiet = Annotated[bool, _switch("quiet", "Print results only.", "-q", "--quiet")]
Verbose = Annotated[bool, _switch("verbose", "Print more notes, and tracebacks of errors.", "-v", "--verbose")]


def register(app: typer.Typer, function: Callable[..., None], **options: Any) -> None:
    """Add a command to an app, with the options -q and -v."""

    @functools.wraps(function)
    def command(quiet: bool, verbose: bool, **named: Any) -> None:
        function(**{name: _expand(value) for name, value in named.items()})

    signature = inspect.signature(function, eval_str=True)
    switches = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("quiet", Quiet), ("verbose", Verbose))
    ]
    command.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *switches])  # type: ignore[attr-defined]
    app.command(**options)(command)


def _expand(value: Any) -> Any:
    """Replace ~ in a path, or in each path of a list: the shell leaves it in `--out=~/file`."""
    if isinstance(value, list):
        return [_expand(item) for item in value]
    return value.expanduser() if isinstance(value, Path) else value


def reading_settings(text: str | None, label: str | None, settings: list[str] | None) -> DataConfig:
    """Return the settings that say how to read a file. Raises LoralabError for settings of other sections."""
    from loralab.config import Config

    assignments = [*(settings or ()), *(f"data.{key}={name}" for key, name in (("text", text), ("label", label)) if name)]
    if other := next((setting for setting in assignments if not setting.startswith("data.")), None):
        raise LoralabError(f"{other!r}: only settings of data apply here, such as data.text=COLUMN or data.delimiter=tab")
    return Config().override(*assignments).data


def check_name(name: str) -> str:
    """Return the name of a run or an experiment. Raises LoralabError for a path, which could be outside the folder of all runs,
    and for control characters, which a terminal obeys.
    """
    if not name.isprintable():
        raise LoralabError(f"the name {name!r} has characters that cannot be printed: choose one without them")
    if name in (".", "..") or {*name} & {"/", "\\"}:
        path = Path(name)
        instead = (
            f", such as --runs {shlex.quote(str(path.parent))} --name {shlex.quote(path.name)}"
            if path.name not in ("", "..")
            else ""
        )
        raise LoralabError(f"the name {name!r} is a path: a name is one folder, and --runs the folder that holds it{instead}")
    return name


_NOT_SHOWN = re.compile(r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys and JSON does not escape."""


def print_json(content: Any) -> None:
    """Print a value as JSON. Paths and other objects become text."""
    text = json.dumps(content, indent=2, default=str, ensure_ascii=False)
    print(_NOT_SHOWN.sub(lambda match: f"\\u{ord(match[0]):04x}", text))
