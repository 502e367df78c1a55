"""`loralab verify`: one line a run, exit code 1 for damage, and litter removed only with --clean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loralab.cli.main import app
from loralab.config import Config
from loralab.errors import LoralabError
from loralab.storage import run_folder
from loralab.storage.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = run_folder.create(tmp_path / "runs" / "news", Config(), {}, overwrite=False)
    run.write_scores({"scores": {}})
    run_folder.create(tmp_path / "runs" / "cut", Config(), {}, overwrite=False)
    return run


def test_intact_runs_are_listed(run: RunFolder) -> None:
    result = CliRunner().invoke(app, ["verify", str(run.folder.parent)])
    assert result.exit_code == 0
    cut, news, summary = result.output.splitlines()
    assert cut.split() == ["incomplete", "run", str(run.folder.with_name("cut")), "3", "files"]
    assert news.split() == ["intact", "run", str(run.folder), "4", "files"]
    assert summary == "2 checked, 0 damaged"


def test_damage_is_named_with_exit_code_1(run: RunFolder) -> None:
    (run.folder / "data.json").write_text('{"a": 1}\n')
    result = CliRunner().invoke(app, ["verify", str(run.folder.parent), "--json"])
    assert result.exit_code == 1
    by_name = {Path(own["folder"]).name: own for own in json.loads(result.output)["results"]}
    assert by_name["cut"]["state"] == "incomplete"
    assert by_name["news"]["state"] == "damaged"
    assert "data.json is damaged" in by_name["news"]["problem"]


def test_only_clean_removes_litter_and_lists_it(run: RunFolder) -> None:
    litter = run.folder / ".scores.json.abcd1234.unfinished"
    litter.write_text("half")
    result = CliRunner().invoke(app, ["verify", str(run.folder)])
    assert f"temporary   {litter}" in result.output
    assert litter.exists()
    result = CliRunner().invoke(app, ["verify", str(run.folder), "--clean"])
    assert f"removed     {litter}" in result.output
    assert not litter.exists()


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert isinstance(result.exception, LoralabError)
    assert "holds no run, model or experiment" in str(result.exception)
