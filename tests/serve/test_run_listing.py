"""The list of runs, their test rows, and the comparison of two."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from sealing import reseal

from loralab.errors import LoralabError
from loralab.serve.page.run_listing import RunListing, compare_runs, progress_of, read_rows, rows_to_check
from loralab.stats.mcnemar import mcnemar
from loralab.storage import run_folder
from loralab.storage.experiment_folder import ExperimentSpec, TrialRecord, write_experiment


@pytest.fixture
def folder(served_runs: Path, tmp_path: Path) -> Path:
    for name in ("news", "tone", "pairs"):
        shutil.copytree(served_runs / name, tmp_path / name)
    return tmp_path


def by_name(folder: Path) -> dict[str, dict[str, Any]]:
    return {line["name"]: line for line in RunListing(folder).rows({})}


def test_complete_runs_have_their_scores(folder: Path) -> None:
    lines = by_name(folder)
    assert set(lines) == {"news", "tone", "pairs"}
    scores = run_folder.read_scores(folder / "news")["scores"]
    assert lines["news"]["accuracy"] == scores["accuracy"]
    assert lines["news"]["low"] <= scores["accuracy"] <= lines["news"]["high"]
    assert lines["news"]["status"] == "complete"


def test_a_running_run_shows_its_progress_and_a_quiet_one_has_stopped(folder: Path) -> None:
    (folder / "news" / run_folder.SCORES).unlink()
    log = folder / "news" / run_folder.LOG
    log.touch()
    line = by_name(folder)["news"]
    assert line["status"] == "running"
    assert 0 < line["step"] <= line["steps"]
    assert line["evaluations"][-1]["accuracy"] is not None
    for name in (run_folder.LOG, run_folder.CONFIG):
        os.utime(folder / "news" / name, (time.time() - 1000,) * 2)
    assert by_name(folder)["news"]["status"] == "stopped"


def test_damaged_runs_are_listed_with_their_problem(folder: Path) -> None:
    (folder / "tone" / run_folder.SCORES).write_text("{", encoding="utf-8")
    (folder / "pairs" / run_folder.CONFIG).write_text("lora: [", encoding="utf-8")
    lines = by_name(folder)
    assert lines["news"]["status"] == "complete"
    assert {lines["tone"]["status"], lines["pairs"]["status"]} == {"damaged"}
    assert lines["tone"]["problem"]


def test_a_changed_run_is_read_again(folder: Path) -> None:
    listing = RunListing(folder)
    before = {line["name"]: line for line in listing.rows({})}
    path = folder / "news" / run_folder.SCORES
    scores = json.loads(path.read_text(encoding="utf-8"))
    scores["scores"]["accuracy"] = 0.25
    path.write_text(json.dumps(scores), encoding="utf-8")
    reseal(path.parent)
    os.utime(path, (time.time() + 5,) * 2)
    after = {line["name"]: line for line in listing.rows({})}
    assert after["news"]["accuracy"] == 0.25
    assert after["tone"] == before["tone"]


def test_other_runs_are_added_once(folder: Path, served_runs: Path) -> None:
    listing = RunListing(folder)
    assert set(listing.paths({"served": served_runs / "news", "same": folder / "news"})) == {"news", "tone", "pairs", "served"}
    assert set(RunListing(None).paths({"served": served_runs / "news"})) == {"served"}
    assert RunListing(folder / "none").rows({}) == []


def test_reports_have_links_that_cannot_be_guessed(folder: Path) -> None:
    (folder / "news" / run_folder.REPORT).write_text("<p>report</p>", encoding="utf-8")
    listing = RunListing(folder)
    links = {line["name"]: line["report"] for line in listing.rows({})}
    assert links["tone"] is None
    assert len(links["news"]) > 20
    assert listing.report(links["news"]) == folder / "news" / run_folder.REPORT
    assert listing.report("../news/report.html") is None
    assert {line["name"]: line["report"] for line in listing.rows({})} == links


def test_errors_come_first_by_confidence(folder: Path) -> None:
    rewrite(folder / "news", {0: "Sports", 3: "World", 5: "Sports"})
    content = rows_to_check(folder / "news")
    errors = [row for row in content["rows"] if row[1] != row[2]]
    assert content["errors"] == len(errors) >= 2
    assert content["rows"][: len(errors)] == errors
    confidences = [row[3] for row in content["rows"]]
    assert confidences[: len(errors)] == sorted(confidences[: len(errors)], reverse=True)
    assert confidences[len(errors) :] == sorted(confidences[len(errors) :])
    assert content["total"] == len(content["rows"])


def test_runs_without_test_rows_and_damaged_rows_are_refused(folder: Path) -> None:
    path = folder / "news" / run_folder.PREDICTIONS
    path.write_text("row,true\n0,World\n", encoding="utf-8")
    with pytest.raises(LoralabError, match=r"predictions\.csv is damaged"):
        read_rows(folder / "news")
    path.unlink()
    with pytest.raises(LoralabError, match=r"predictions\.csv is missing"):
        read_rows(path.parent)
    reseal(path.parent)
    with pytest.raises(LoralabError, match="no test rows"):
        read_rows(folder / "news")


def test_two_runs_on_the_same_rows_are_compared(folder: Path) -> None:
    rewrite(folder / "tone", {0: "Sports", 3: "World", 5: "Business", 7: "Business"})
    first, second = read_rows(folder / "news"), read_rows(folder / "tone")
    result = compare_runs(folder / "news", folder / "tone")
    expected = mcnemar([row.correct for row in first], [row.correct for row in second])
    assert result["same_rows"]
    assert (result["only_a"], result["only_b"], result["p"]) == (expected.only_a, expected.only_b, expected.p)
    differing = [a.row for a, b in zip(first, second, strict=True) if a.predicted != b.predicted]
    assert result["differing"] == len(differing) > 0
    assert {line[0] for line in result["differences"]} == set(differing)


def test_other_rows_are_not_compared(folder: Path) -> None:
    with (folder / "tone" / run_folder.PREDICTIONS).open("a", encoding="utf-8") as file:
        line = ["99", "World", "World", "0.9", "1", "0", "0", "0", "one more text"]
        csv.writer(file).writerow(line)
    reseal(folder / "tone")
    result = compare_runs(folder / "news", folder / "tone")
    assert not result["same_rows"]
    assert result["rows"][1] == result["rows"][0] + 1
    assert result["common"] == result["rows"][0]


def test_no_log_is_no_progress(tmp_path: Path) -> None:
    assert progress_of(tmp_path)["step"] == 0


def rewrite(folder: Path, predicted: dict[int, str]) -> None:
    """Change the predictions of some rows."""
    path = folder / run_folder.PREDICTIONS
    with path.open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    for number, name in predicted.items():
        rows[number]["predicted"] = name
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [*rows[0]])
        table.writeheader()
        table.writerows(rows)
    reseal(path.parent)


def test_an_experiment_counts_its_trials(folder: Path) -> None:
    spec = ExperimentSpec("seeds", "does the seed matter?", ("quickstart",), (), {"seed": (1, 2, 3)})
    records = [TrialRecord(f"seed-{n}", {"seed": n}, "x", failure="no memory" if n == 3 else None) for n in (1, 2, 3)]
    write_experiment(folder / "seeds", spec, records)
    shutil.copytree(folder / "news", folder / "seeds" / "trials" / "seed-1")
    line = by_name(folder)["seeds"]
    assert (line["kind"], line["status"], line["trials"]) == ("seeds", "incomplete", [1, 3, 1])
    assert line["accuracy"] == by_name(folder)["news"]["accuracy"]
    shutil.copytree(folder / "tone", folder / "seeds" / "trials" / "seed-2")
    assert by_name(folder)["seeds"]["status"] == "complete"
