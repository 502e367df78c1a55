"""What the functions of the Python API share: settings, data, folders and messages in Python's words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from loralab.config import Config, DataConfig, load_config
from loralab.config.paths import local_path
from loralab.data.folders import Parts
from loralab.data.in_memory import is_path, memory_parts, memory_table
from loralab.data.types import TablePlace
from loralab.errors import LoralabError
from loralab.results import Experiment, Run

Settings = Mapping[str, Any] | Sequence[str]
"""Settings by dotted name, such as {"lora.rank": 16}, or as on the command line, ["lora.rank=16"]."""
MEMORY = "data in memory"
"""`data.source` until the run's folder is known."""
P = ParamSpec("P")
T = TypeVar("T")
_FLAGS = {"overwrite": "overwrite=True", "resume": "resume=True", "accept": "accept=True"}
_OPTIONS = "name|runs|out|to|rank|seeds|points|over|space|objective|sampler|pruner|storage|where|jobs|ray-address|label|text"
_OPTION = re.compile(rf"--(?:({'|'.join(_FLAGS)})|({_OPTIONS}))\b")


def python_words(message: str) -> str:
    """Return a message with the options of the command line as arguments; the lines of commands stay as they are."""

    def argument(option: re.Match[str]) -> str:
        return _FLAGS[option[1]] if option[1] else option[2].replace("-", "_")

    return "\n".join(line if "loralab " in line else _OPTION.sub(argument, line) for line in message.split("\n"))


def in_python(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function raise errors in the words of Python."""

    @wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return function(*arguments, **named)
        except LoralabError as error:
            message = python_words(str(error))
            if message == str(error):
                raise
            raise type(error)(message) from error

    return call


def configure(data: object, settings: Settings, recipe: str | Config | None) -> tuple[Config, Parts | None, str]:
    """Return the settings of a run, its rows if they are in memory, and what it is named after."""
    if isinstance(data, Config):
        return data.override(*assignments(settings)), None, "run"
    given = assignments(settings)
    if is_path(data) and recipe is None:
        return load_config(str(data), given), None, str(data)
    source = str(data) if is_path(data) else MEMORY  # another than the recipe's: its class names are not these rows'
    given = [assignment("data.source", source), *given]
    rows = None if is_path(data) else memory_parts(data)
    base = recipe or "quickstart"
    config = base.override(*given) if isinstance(base, Config) else load_config(base, given)
    return config, rows, str(data) if rows is None else "data"


def experiment_sources(data: object, recipe: str | None) -> tuple[list[str], list[str], Parts | None]:
    """Return the recipes of an experiment, the setting of its data, and its rows if they are in memory."""
    recipes = recipe.split(",") if recipe else ["quickstart"]
    if not is_path(data):
        return recipes, [], memory_parts(data)
    return (recipes, [assignment("data.source", str(data))], None) if recipe else (str(data).split(","), [], None)


def assignments(settings: Settings) -> list[str]:
    """Return settings as on the command line."""
    if isinstance(settings, str):
        raise LoralabError(f"settings={settings!r}: give a dict such as {{'lora.rank': 16}}, or a list such as ['lora.rank=16']")
    return [assignment(*item) for item in settings.items()] if isinstance(settings, Mapping) else [*settings]


def assignment(name: str, value: Any) -> str:
    """Return a setting as on the command line: texts as they are, unless they would be read as YAML; other values as JSON."""
    if isinstance(value, str):
        return f"{name}={json.dumps(value, ensure_ascii=False) if value[:1] in QUOTED else value}"
    return f"{name}={'none' if value is None else json.dumps(value, ensure_ascii=False, default=_plain)}"


QUOTED = ("[", "'", '"', "{")
"""First characters of a text that an assignment would read as YAML."""


def _plain(value: Any) -> Any:
    """Return a number of NumPy, a path, or a sequence as JSON has them."""
    return value.item() if hasattr(value, "item") else str(value) if isinstance(value, Path) else list(value)


def point_text(value: Any) -> str:
    """Return a point of an experiment as on the command line."""
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def range_text(value: Any) -> str:
    """Return a range of a search as on the command line."""
    return value if isinstance(value, str) else ",".join(map(point_text, value))


def data_settings(settings: Settings) -> DataConfig:
    """Return settings of `data`, such as {"data.text": "title"}."""
    return load_config("quickstart", ["data.clean=none", *assignments(settings)]).data if settings else DataConfig()


def table_place(data: object) -> TablePlace:
    """Return a file, or one table in memory."""
    return local_path(str(data)) if is_path(data) else memory_table(data, "the rows")


def run_path(run: Run | Experiment | str | Path) -> Path:
    return run.folder if isinstance(run, (Run, Experiment)) else Path(run)


def is_shown(verbose: bool | None) -> bool:
    """Return whether to print progress: in notebooks and terminals unless told otherwise."""
    from loralab.cli.display import console

    return (console.is_jupyter or console.is_terminal) if verbose is None else verbose
