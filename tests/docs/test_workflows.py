"""The workflows have the least permissions that they need, and pin what they install and run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

GITHUB = Path(__file__).parents[2] / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
WRITING = {
    ("ci", "publish-docs"): {"pages", "id-token"},
    ("release", "publish"): {"id-token"},
    ("release", "github"): {"contents"},
    ("security", "codeql"): {"security-events"},
}
"""The permissions to write of each job that has any."""


def content(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_permissions_are_the_least(path: Path) -> None:
    workflow = content(path)
    assert set(workflow["permissions"].items()) <= {("contents", "read")}, "the default of its jobs"
    for name, job in workflow["jobs"].items():
        writing = {scope for scope, access in job.get("permissions", {}).items() if access != "read"}
        assert writing == WRITING.get((path.stem, name), set()), name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_have_a_version_and_no_event_text_reaches_a_shell(path: Path) -> None:
    triggers = content(path)[True]  # YAML 1.1 reads `on` as true
    assert "pull_request_target" not in triggers
    for job in content(path)["jobs"].values():
        for step in job["steps"]:
            assert "uses" not in step or re.fullmatch(r"[\w.-]+(/[\w.-]+)+@(v\d+|release/v\d+|[0-9a-f]{40})", step["uses"]), step
            assert not re.search(r"\$\{\{\s*(github\.(event|head_ref)|inputs)", step.get("run", "")), step


def test_every_tool_of_a_release_has_a_hash() -> None:
    text = (GITHUB / "release-tools.txt").read_text(encoding="utf-8")
    entries = [entry for entry in re.split(r"\n(?=\w)", text) if "==" in entry and not entry.startswith("#")]
    names = {entry.split("==")[0] for entry in entries}
    assert names >= {"build", "twine", "cyclonedx-bom", "pip-audit", "hatchling"}
    assert not [entry for entry in entries if "--hash=sha256:" not in entry]
    release = (GITHUB / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert "pip install --require-hashes -r .github/release-tools.txt" in release
    assert "sbom.cdx.json" in release
