"""Every setting as a table row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from loralab.config.schema import SettingsSection

_TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "array": "list", "object": "mapping"}
_ARTICLES = {"whole number": "a whole number", "number": "a number", "list": "a list of names", "mapping": "a mapping"}
_SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class Setting:
    """One setting. type: in words, choices separated by commas; limits: such as `≥ 0, < 1`, or empty; default: as in Python."""

    name: str
    type: str
    limits: str
    default: Any
    description: str
    choices: tuple[str, ...] = ()

    @property
    def default_text(self) -> str:
        """The default as it is written in an override."""
        value = self.default
        if value is None or value == ():
            return "none"
        if isinstance(value, tuple):
            return ",".join(map(str, value))
        return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)

    @property
    def requirement(self) -> str:
        """What a value must be, in words."""
        if self.choices and self.type == ", ".join(self.choices):
            return f"one of {self.type}"
        kinds = [_ARTICLES.get(kind, kind) for kind in self.type.split(" or ")]
        return f"{' or '.join(kinds)} {self.limits}".rstrip()


@cache
def setting_table(config: type[SettingsSection]) -> tuple[Setting, ...]:
    """Return every setting of a config class by its dotted name, in order."""
    schema, settings = config.model_json_schema(mode="serialization"), list[Setting]()
    for name, field in config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, SettingsSection):
            entries = schema["$defs"][section.__name__]["properties"]
            settings += [_setting(f"{name}.{key}", entries[key], inner.default) for key, inner in section.model_fields.items()]
        else:
            settings.append(_setting(name, schema["properties"][name], field.default))
    return tuple(settings)


def _setting(name: str, entry: Mapping[str, Any], default: Any) -> Setting:
    options = [*_options(entry)]
    choices = tuple(
        str(value) for option in options for value in option.get("enum", [option["const"]] if "const" in option else [])
    )
    kinds = [_TYPES.get(option.get("type", ""), "text") for option in options if not {"enum", "const"} & option.keys()]
    limits = dict.fromkeys(f"{sign} {option[key]:g}" for option in options for key, sign in _SIGNS.items() if key in option)
    kind = entry.get("form") or " or ".join(dict.fromkeys(filter(None, [", ".join(choices), *kinds])))
    return Setting(name, kind, ", ".join(limits), default, entry.get("description", ""), choices)


def _options(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the alternatives of one setting, nested ones included, null excluded."""
    if "anyOf" in entry:
        limits = {key: value for key, value in entry.items() if key in _SIGNS}
        for part in entry["anyOf"]:
            yield from _options({**limits, **part})
    elif entry.get("type") != "null":
        yield entry
