"""The public names are typed: a user's script passes `mypy --strict`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import loralab

SCRIPT = Path(__file__).with_name("user_script.py")


def test_the_script_uses_every_public_name() -> None:
    code = SCRIPT.read_text(encoding="utf-8")
    assert [name for name in loralab.__all__ if not re.search(rf"\b{name}\b", code)] == []


@pytest.mark.slow
def test_a_users_script_passes_mypy(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(script)]
    environment = {**os.environ, "MYPYPATH": str(Path(loralab.__file__).parents[1])}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    own = [line for line in result.stdout.splitlines() if line.startswith("script.py")]
    assert own == [], result.stdout
    assert "error" not in result.stderr
