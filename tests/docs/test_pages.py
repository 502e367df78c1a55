"""Pages name commands, settings and files that exist; the site builds and loads nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
README = TOP[0].read_text(encoding="utf-8")


def _code(page: Path) -> str:
    """All code of a page: fenced blocks and inline code."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^ *```.*?\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))
    return "\n".join([*fenced, *inline])


def test_readme_is_short_and_leads_with_the_set_up() -> None:
    lines = README.splitlines()
    assert len(lines) <= 130
    first_screen = "\n".join(lines[:24])
    assert "make demo" in first_screen
    assert "make test" in first_screen
    assert "docs/tutorials/kaggle.md" in first_screen


def _commands() -> Iterator[tuple[str, ...]]:
    import typer

    from loralab.cli.main import app

    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        yield (name,)
        yield from ((name, inner) for inner in getattr(command, "commands", {}))


def test_commands_in_the_pages_exist() -> None:
    known = set(_commands())
    pattern = r"(?<!from )\bloralab ([a-z]+)(?: ([a-z]+))?"
    used = {(name, inner) for page in PAGES for name, inner in re.findall(pattern, _code(page))}
    groups = {command[0] for command in known if len(command) == 2}
    unknown = [f"{name} {inner}" for name, inner in used if (name,) not in known or (name in groups and (name, inner) not in known)]
    assert used
    assert unknown == []


def test_settings_in_the_pages_exist() -> None:
    from loralab.config.loading import setting_names

    known = set(setting_names())
    pattern = re.compile(r"(?<![\w./])((?:data|model|lora|train)\.[a-z_0-9]+)(?![\w/]|\.[a-z])(?!\()")
    files = {"data.py", "data.json", "model.py", "train.csv", "train.jsonl", "model.safetensors", "model.onnx"}
    unknown = {f"{page.name}: {name}" for page in PAGES for name in pattern.findall(_code(page)) if name not in known | files}
    assert unknown == set()


@pytest.mark.parametrize("page", TOP, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    """mkdocs checks the links inside docs; these are the pages outside."""
    targets = re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_source_file_says_what_it_is() -> None:
    """The tree in docs/explanation/architecture.md is made of these lines."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from hooks import _first_line
    finally:
        sys.path.pop(0)
    package = ROOT / "src" / "loralab"
    files = [path for suffix in ("py", "c", "h") for path in package.rglob(f"*.{suffix}")]
    assert [str(path.relative_to(package)) for path in files if not _first_line(path)] == []


def test_citation_names_the_version() -> None:
    import loralab

    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == loralab.__version__


def test_workflows_are_yaml() -> None:
    files = [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]
    assert files
    assert all(isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict) for path in files)


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    loaded = re.compile(
        r"<(?:script|img|iframe)[^>]*\ssrc=\"(https?://[^\"]+)|<link[^>]*rel=\"(?:stylesheet|preconnect|icon)\"[^>]*href=\"(https?://[^\"]+)"
    )
    foreign = {match.group() for page in tmp_path.rglob("*.html") for match in loaded.finditer(page.read_text(encoding="utf-8"))}
    assert foreign == set()
    assert "generated:" not in (tmp_path / "reference" / "settings" / "index.html").read_text(encoding="utf-8")
