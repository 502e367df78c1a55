"""The settings file that `loralab init` writes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from loralab.cli.display import list_names
from loralab.config import Config
from loralab.config.yaml_core import parse_yaml
from loralab.data.validate import DataReport

MAX_CLASSES = 20


def settings_file(source: str, test: str | None, reports: Sequence[DataReport], config: Config, target: Path) -> str:
    """Return commented YAML for a data source. `config` holds the settings that are used without the file."""
    environment = Environment(  # noqa: S701 - YAML
        loader=PackageLoader("loralab.cli"), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"quote": shlex.quote, "scalar": _scalar, "list_of_scalars": _list}
    classes = reports[0].classes
    return environment.get_template("settings.yaml.jinja").render(
        source=source,
        test=test,
        reports=reports,
        config=config,
        target=target,
        rows_per_class=list_names([f"{name} {rows:,}" for name, rows in classes.items()], MAX_CLASSES),
        numbered=[f"name of {name}" for name in classes] if all(map(str.isdecimal, classes)) else [],
    )


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(map(_scalar, values))}]"


def _scalar(value: str) -> str:
    """Return text as a YAML scalar, quoted unless it is plain text in a flow list too."""
    plain = re.fullmatch(r"[A-Za-z0-9_./\\-]+( [A-Za-z0-9_./\\-]+)*", value) and not value.startswith("-")
    return value if plain and parse_yaml(value) == value else json.dumps(value, ensure_ascii=False)
