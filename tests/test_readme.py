"""The README's tree and the repository's agree, and its commands exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _listed() -> set[str]:
    """Paths of the annotated tree: indentation is folders, the first word of a line is the name."""
    block = re.search(r"```tree\n(.*?)```", README, re.DOTALL)
    assert block, "the README has no ```tree block"
    folders: list[str] = []
    found = set()
    for line in block[1].splitlines():
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
            if len(line.split()) > 1 and name not in ("src/loralab/",):
                found.add("".join(folders))
        else:
            found.add("".join([*folders, name]))
    return found


def _tracked() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_every_source_file_has_its_line_in_the_tree() -> None:
    listed = _listed()
    missing = [
        path
        for path in _tracked()
        if path.startswith("src/")
        and path not in listed
        and not path.endswith("__init__.py")
        and not any(path.startswith(entry) for entry in listed if entry.endswith("/"))
        and (ROOT / path).exists()
    ]
    assert missing == []


def test_every_line_of_the_tree_is_there() -> None:
    assert [path for path in _listed() if not (ROOT / path).exists()] == []


def test_commands_in_the_readme_exist() -> None:
    from loralab.cli.main import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    used = set(re.findall(r"^(?:\$ )?loralab ([a-z]+)", README, re.MULTILINE))
    assert used, "the README shows no command"
    assert used <= known
