"""YAML by the core schema of YAML 1.2: `yes`, `no`, `on`, `off`, `12:30` and dates are text, `1e-4` is a number."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from loralab.errors import LoralabError

MAX_YAML_BYTES = 1 << 20
_CORE = {
    "null": (r"~|null|Null|NULL|", [*"~nN", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", [*"-+.0123456789"]),
}
"""Tag → the plain scalars that have it, and the characters they may start with."""


class _Loader(yaml.SafeLoader):
    """Loads plain values only. Aliases are refused, because ten lines of them can expand to a terabyte; so are repeated keys."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - as in the base class

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
            raise yaml.YAMLError(f"the key {repeated[0]!r} occurs more than once")
        return super().construct_mapping(node, deep)

    def construct_core_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        return int(text, 0 if text.startswith(("0o", "0x")) else 10)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as another type."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        breaks = any(character in data for character in "\x85\u2028\u2029")  # YAML 1.1 folds them unless they are escaped
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if breaks else None)


_Dumper.add_representer(str, _Dumper.represent_str)
for _tag, (_pattern, _first) in _CORE.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_core_int)


def parse_yaml(text: str) -> Any:
    """Parse one document. Raises yaml.YAMLError, ValueError or RecursionError."""
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


def yaml_problem(error: Exception) -> str:
    """Return what is wrong with a document and where, in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"{getattr(error, 'problem', '')} in line {mark.line + 1}, column {mark.column + 1}"


def dump_yaml(content: Any) -> str:
    """Return YAML that `parse_yaml` reads back."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a settings file without validation. Raises LoralabError for a file that is not a YAML mapping."""
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise LoralabError(f"{path} is over {MAX_YAML_BYTES} bytes: that is not a settings file")
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise LoralabError(f"cannot read the settings file {path}: {yaml_problem(error)}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise LoralabError(f"{path} holds a {type(content).__name__}, not settings such as `lora: {{rank: 8}}`")
    return content
