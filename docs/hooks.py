"""Generates the reference pages while mkdocs builds: `<!-- generated: NAME -->` in a page becomes what `NAME` returns here.

Everything comes from the package itself, so that no generated file is kept in the repository.
"""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "loralab"
_MARKER = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)
_COMMON = {"--help", "--quiet", "--verbose"}
"""Options of every command: the page mentions them once."""
_CODE_SUFFIXES = {".py", ".c", ".h", ".jinja", ".css"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the generated parts of a page. mkdocs calls this for every page."""
    return _MARKER.sub(lambda match: GENERATORS[match[1]](), markdown)


def settings() -> str:
    """Every setting as tables, one section each, from the schema."""
    from loralab.config import Config
    from loralab.config.loading import setting_table

    parts = []
    rows = [(name, dot, row) for row in setting_table() for name, dot, _ in [row.name.partition(".")]]
    for section in dict.fromkeys(name if dot else "" for name, dot, _ in rows):
        about = type(getattr(Config(), section)).__doc__ or "" if section else ""
        table = [
            (
                f"`{row.name}`",
                row.type.replace(", ", "<br>") + (f", {row.limits}" if row.limits else ""),
                f"`{row.default_text}`",
                row.description,
            )
            for name, dot, row in rows
            if (name if dot else "") == section
        ]
        heads = ("setting", "type and limits", "default", "meaning")
        parts.append(f"## {section or 'Top level'}\n\n{about.strip()}\n\n{_table(heads, table)}")
    return "\n\n".join(parts)


def cli() -> str:
    """Every command with its help, arguments and options, from the Typer application."""
    import typer

    from loralab.cli.main import app

    group: Any = typer.main.get_command(app)
    return "\n\n".join(_command(group.commands[name], f"loralab {name}", 2) for name in sorted(group.commands))


def _command(command: Any, name: str, level: int) -> str:
    """One command, and below it its subcommands."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden and not _COMMON & {*p.opts}]
    usage = " ".join([name, *("[OPTIONS]" for _ in options[:1]), *(_metavar(p) for p in arguments)])
    summary, _, details = (command.help or "").partition("\n\n")
    parts = [f"{'#' * level} {name}", _prose(summary), f"```text\n{usage}\n```"]
    if rows := [(f"`{_metavar(p)}`", _prose(p.help)) for p in arguments if getattr(p, "help", None)]:
        parts.append(_table(("argument", "meaning"), rows))
    if options:
        details_of = [(_flags(p), _value(p), _shown_default(p), _prose(p.help)) for p in options]
        parts.append(_table(("option", "type", "default", "meaning"), details_of))
    if details.strip():
        parts.append(_help(details))
    inner = getattr(command, "commands", {})
    return "\n\n".join(parts + [_command(inner[key], f"{name} {key}", level + 1) for key in sorted(inner)])


def _help(text: str) -> str:
    """A command's help: paragraphs as prose; those after `\\b`, which keep their lines, as code."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", text.replace("\f", "")):
        lines = [line.rstrip() for line in paragraph.strip("\n").splitlines()]
        kept = bool(lines) and "\b" in lines[0]
        body = [line for line in lines if line.strip("\b ")]
        if not body:
            continue
        chunks = re.split(r"^\s*\x08\s*$", "\n".join(lines), flags=re.MULTILINE) if kept else [" ".join(map(str.strip, body))]
        parts += [f"```text\n{chunk.strip(chr(10))}\n```" if kept else _prose(chunk) for chunk in chunks if chunk.strip()]
    return "\n\n".join(parts)


def _metavar(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name.upper().replace("_", "-")).strip("[].")
    name = f"{name}..." if parameter.nargs == -1 else name
    return name if parameter.required else f"[{name}]"


def _flags(option: Any) -> str:
    return ", ".join(f"`{flag}`" for flag in [*option.opts, *option.secondary_opts])


def _value(option: Any) -> str:
    """What an option takes: its metavar, its choices, or its type in words."""
    annotation = option.type_descriptor.annotation
    if get_origin(annotation) is list:
        annotation = get_args(annotation)[0]
    if option.is_flag or annotation is bool:
        return ""
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        choices = tuple(member.value for member in annotation)
    names = {int: "whole number", float: "number", Path: "path"}
    kind = ", ".join(f"`{choice}`" for choice in choices) or option.metavar or names.get(annotation, "text")
    return f"{kind}, repeatable" if option.multiple else str(kind)


def _shown_default(option: Any) -> str:
    value = option.default
    if callable(value) or value is None or value is False or value in ((), [], "") or option.is_flag:
        return ""
    return f"`{getattr(value, 'value', value)}`"


def _prose(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip().replace("<", "&lt;")


def api() -> str:
    """A mkdocstrings entry for every public name."""
    import loralab

    entries = []
    for name in sorted(loralab.__all__, key=str.lower):
        home = importlib.import_module("loralab").__getattr__(name) if name not in vars(loralab) else getattr(loralab, name)
        module = getattr(home, "__module__", "loralab")
        members = "" if isinstance(home, type) else "\n    options: {members: false}"
        entries.append(f"::: {module}.{name}{members}")
    return "\n\n".join(entries)


def recipes() -> str:
    """Every shipped recipe: summary, source, claim and settings."""
    import yaml

    from loralab.config.loading import list_recipes

    parts = []
    for recipe in list_recipes():
        settings = yaml.safe_dump(dict(recipe.settings), sort_keys=False, default_flow_style=None, width=110).strip()
        facts = f"{_sentence(recipe.summary)}\n\nSource: {_sentence(recipe.source)} Claim: {_sentence(recipe.claim, capital=False)}"
        parts.append(
            f'### {recipe.name}\n\n{facts}\n\n??? note "Settings"\n\n{_indented(f"```yaml{chr(10)}{settings}{chr(10)}```")}'
        )
    return "\n\n".join(parts)


def _sentence(text: str, capital: bool = True) -> str:
    text = text.strip()
    return (text[:1].upper() + text[1:] if capital else text) + ("" if text.endswith(".") else ".")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else line for line in text.splitlines())


def run_folder() -> str:
    """The names inside a run folder, as its module documents them."""
    return _layout("storage/run_folder.py")


def experiment_folder() -> str:
    """The names inside an experiment's folder, as its module documents them."""
    return _layout("storage/experiment_folder.py")


def _layout(path: str) -> str:
    """The listing in a module's docstring, without its first sentence."""
    docstring = ast.get_docstring(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))) or ""
    _, _, listing = docstring.partition("\n\n")
    return f"```text\n{listing.strip()}\n```"


def tree() -> str:
    """Every source file with the first sentence of its docstring."""
    return "```text\nsrc/loralab/\n" + "\n".join(_tree(PACKAGE, 1)) + "\n```"


def _tree(folder: Path, depth: int) -> Iterator[str]:
    entries = [p for p in folder.iterdir() if p.is_dir() or p.suffix in _CODE_SUFFIXES]
    for path in sorted(entries, key=lambda p: (p.is_dir(), p.name)):
        if path.is_dir() and any(p.suffix in _CODE_SUFFIXES for p in path.rglob("*")) and path.name != "__pycache__":
            yield f"{'  ' * depth}{path.name + '/':<{28 - 2 * depth}} {_first_line(path / '__init__.py')}".rstrip()
            yield from _tree(path, depth + 1)
        elif path.is_file() and path.name != "__init__.py":
            yield f"{'  ' * depth}{path.name:<{28 - 2 * depth}} {_first_line(path)}".rstrip()


def _first_line(path: Path) -> str:
    """What a file is, in one line."""
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        lines = (ast.get_docstring(ast.parse(text)) or "").splitlines()
    else:
        comment = re.match(r"\s*(?:/\*|\{#-?)\s*(.+?)(?:\*/|-?#\}|\n)", text)
        lines = [comment[1].strip()] if comment else []
    return lines[0] if lines else ""


def contracts() -> str:
    """The import contracts of pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    parts = []
    for contract in settings["contracts"]:
        parts.append(f"**{contract['name']}** (`{contract['type']}`)")
        if layers := contract.get("layers"):
            parts.append("```text\n" + "\n".join(layers) + "\n```")
        for key in ("source_modules", "forbidden_modules"):
            if values := contract.get(key):
                parts.append(f"{key.replace('_', ' ')}: " + ", ".join(f"`{value}`" for value in values))
    return "\n\n".join(parts)


def experiment_kinds() -> str:
    """Every kind of experiment: what it asks, what it varies, its seeds."""
    from loralab.experiments.spec import KINDS

    rows = []
    for kind in KINDS.values():
        axes = "<br>".join(f"`{axis}={','.join(points)}`" for axis, points in kind.axes.items())
        question = kind.question
        rows.append((f"`{kind.name}`", question, axes, ", ".join(map(str, kind.seeds))))
    return _table(("kind", "question", "default points", "default seeds"), rows)


def records() -> str:
    """The benchmark records, without their title."""
    text = (ROOT / "benchmarks" / "RECORDS.md").read_text(encoding="utf-8")
    return text.partition("\n")[2].strip()


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


GENERATORS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "cli": cli,
    "api": api,
    "recipes": recipes,
    "run-folder": run_folder,
    "experiment-folder": experiment_folder,
    "tree": tree,
    "contracts": contracts,
    "experiment-kinds": experiment_kinds,
    "records": records,
}
