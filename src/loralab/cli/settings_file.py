"""The settings file that `loralab init` writes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from loralab.cli.display import list_names
from loralab.config import Config
from loralab.config.yaml_core import parse_yaml
from loralab.data.data_report import DataReport

MAX_CLASSES = 20


_SHOWN = {
    "data": ("source", "text", "label", "classes", "test", "validation", "max_length", "clean"),
    "model": ("base",),
    "lora": ("rank", "alpha", "dropout", "targets"),
    "train": ("epochs", "batch_size", "learning_rate", "label_smoothing", "head_init", "monitor"),
    "": ("data", "model", "lora", "train", "name"),
}
"""Settings that the template writes, by section."""


def settings_file(config: Config, reports: Sequence[DataReport], target: Path) -> str:
    """Return commented YAML for a data source. config: the settings that are used without the file."""
    environment = Environment(  # noqa: S701 - YAML
        loader=PackageLoader("loralab.cli"), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"quote": shlex.quote, "scalar": _scalar, "list_of_scalars": _list}
    classes = reports[0].classes
    others = {section: _others(config, section) for section in _SHOWN}
    others["data"] = {**others["data"], **reports[0].reading_settings()}
    return environment.get_template("settings.yaml.jinja").render(
        source=config.data.source,
        files={report.part: report for report in reports},
        lengths=reports[0].lengths.summary(),
        others={section: {name: _value(value) for name, value in own.items()} for section, own in others.items()},
        config=config,
        value=_value,
        target=target,
        rows_per_class=list_names([f"{name} {rows:,}" for name, rows in classes.items()], MAX_CLASSES),
        numbered=[f"name of {name}" for name in classes] if all(map(str.isdecimal, classes)) and not config.data.classes else [],
    )


def _others(config: Config, section: str) -> dict[str, Any]:
    """Return the settings of a section that the template does not write, of those that differ from the defaults."""
    own, defaults = (getattr(settings, section) if section else settings for settings in (config, Config()))
    values, usual = own.model_dump(mode="json"), defaults.model_dump(mode="json")
    return {name: value for name, value in values.items() if name not in _SHOWN[section] and value != usual[name]}


def _value(value: Any) -> str:
    """Return a setting's value as YAML in one line."""
    return _scalar(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(map(_scalar, values))}]"


def _scalar(value: str) -> str:
    """Return text as a YAML scalar, quoted unless it is plain text in a flow list too."""
    plain = re.fullmatch(r"[A-Za-z0-9_./\\-]+( [A-Za-z0-9_./\\-]+)*", value) and not value.startswith("-")
    return value if plain and parse_yaml(value) == value else json.dumps(value, ensure_ascii=False)
