"""Runs without test rows (data.test=0): what they have, what they show, and what refuses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import invoke
from tiny import topics, write_csv

from loralab import Classifier, LoralabError, load_config
from loralab.diagnostics.diagnose import diagnose
from loralab.experiments.compare import check_test_rows
from loralab.experiments.run import plan_experiment
from loralab.experiments.search import plan_search, run_search
from loralab.experiments.spec import find_kind
from loralab.inference.model_soup import make_soup
from loralab.metrics import NO_TEST_ROWS
from loralab.pipeline import RunSummary, run_training
from loralab.report.write import write_report

COUNT = 120


def settings(tiny: Path, *more: str) -> list[str]:
    return [f"model.base={tiny}", "train.learning_rate=0.01", "train.epochs=3", "train.precision=fp32", "data.test=0", *more]


@pytest.fixture(scope="module")
def run(tiny: Path, topics_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    return run_training(load_config(topics_csv, settings(tiny)), folder=tmp_path_factory.mktemp("runs"))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_all_rows_but_the_validation_rows_are_trained_on(run: RunSummary) -> None:
    rows = read(run.folder / "environment.json")["rows"]
    assert {part: facts["count"] for part, facts in rows.items()} == {"train": COUNT - 12, "validation": 12}
    assert (run.scores, run.calibrated) == ({}, None)
    assert run.validation["accuracy"] > 0.9
    assert not (run.folder / "predictions.csv").exists()
    assert read(run.folder / "scores.json")["scores"] == {}
    assert any(NO_TEST_ROWS in remark for remark in read(run.folder / "data.json")["remarks"])


def test_neither_test_nor_validation_rows(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    summary = run_training(load_config(topics_csv, settings(tiny, "data.validation=0")), folder=tmp_path)
    assert (summary.scores, summary.validation, summary.temperature) == ({}, {}, None)
    assert read(summary.folder / "environment.json")["rows"]["train"]["count"] == COUNT
    card = (write_report(summary.folder).parent / "README.md").read_text(encoding="utf-8")
    assert "There were no validation rows, so the last weights were kept." in card
    assert "## Scores" not in card
    log = (summary.folder / "training_log.txt").read_text(encoding="utf-8")
    assert "the last: there are no validation rows" in log


def test_the_model_classifies_and_is_scored_on_a_file(run: RunSummary, topics_csv: Path) -> None:
    classifier = Classifier.load(run.folder)
    assert len(classifier.predict(["a goal in the stadium"]).labels) == 1
    assert classifier.evaluate(topics_csv)["accuracy"] > 0.9


def test_reports_show_the_validation_scores_as_such(run: RunSummary) -> None:
    page = write_report(run.folder).read_text(encoding="utf-8")
    card = (run.folder / "README.md").read_text(encoding="utf-8")
    log = (run.folder / "training_log.txt").read_text(encoding="utf-8")
    for text in (page, card, log):
        assert NO_TEST_ROWS in text
        assert "0 test rows" not in text
    assert "not complete" not in page
    assert '<th scope="col" class="n">Validation</th>' in page
    assert '<th scope="col" class="n">Test</th>' not in page
    assert "| Accuracy |" in card
    assert "Test accuracy" not in card
    assert "validation rows: " in log
    dashboard = write_report(run.folder.parent).read_text(encoding="utf-8")
    assert f"42, {NO_TEST_ROWS}" in dashboard


def test_commands_show_the_validation_scores_as_such(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    trained = invoke("train", topics_csv, *settings(tiny), "--name", "plain", "--runs", tmp_path, "--track", "tensorboard")
    assert (trained.code, trained.err) == (0, "")
    assert NO_TEST_ROWS in trained.out
    assert "Scores on the validation rows, which chose the weights" in trained.out
    assert "Scores on the test rows" not in trained.out
    described = invoke("describe", tmp_path / "plain")
    assert (described.code, described.err) == (0, "")
    assert NO_TEST_ROWS in described.out
    assert "validation scores" in described.out
    exported = invoke("export", tmp_path / "plain", "--to", "merged")
    assert exported.code == 0, exported.err


def test_a_resumed_run_gives_the_same_result(run: RunSummary, tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    def interrupt(event: object) -> None:
        if getattr(event, "step", 0) == 10:
            raise KeyboardInterrupt

    config = load_config(topics_csv, settings(tiny))
    with pytest.raises(LoralabError, match="--resume"):
        run_training(config, folder=tmp_path, listeners=[interrupt])
    run_training(config, folder=tmp_path, resume=True)
    adapters = [folder / "model" / "adapter_model.safetensors" for folder in (run.folder, tmp_path / "run")]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


def test_a_diagnosis_needs_a_file(run: RunSummary, topics_csv: Path) -> None:
    with pytest.raises(LoralabError, match=r"has no test rows \(data\.test=0\): give a labelled file with --file FILE"):
        diagnose(run.folder)
    titles = [section.title for section in diagnose(run.folder, file=topics_csv).sections]
    assert "Suspected label errors" in titles


def test_experiments_refuse_before_the_first_step(run: RunSummary, tiny: Path) -> None:
    for kind, points in (("seeds", {}), ("active", {}), ("grid", {"data.test": ["0.2", "0"]})):
        fixed = [setting for setting in settings(tiny) if not points or not setting.startswith("data.test")]
        with pytest.raises(LoralabError, match=rf"{kind} compares scores on test rows, and data\.test=0 leaves none"):
            plan_experiment(find_kind(kind), ["quickstart"], fixed, points)
    with pytest.raises(LoralabError, match=r"has no test rows \(data\.test=0\): train it with data\.test=0\.2"):
        check_test_rows({"run": run.folder})


def test_a_search_chooses_on_the_validation_rows(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    fixed = [f"data.source={topics_csv}", *settings(tiny, "train.epochs=1")]
    plan = plan_search("quickstart", fixed, ranges=["lora.rank=2,4,8"], trials=3)
    summary = run_search(plan, tmp_path / "search")
    assert len(summary.best) > 0
    assert {trial.state for trial in summary.trials} == {"complete"}
    assert write_report(tmp_path / "search").is_file()
    assert write_report(tmp_path).is_file()


def test_a_soup_of_untested_runs(run: RunSummary, tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    other = run_training(load_config(topics_csv, settings(tiny, "seed=7")), folder=tmp_path)
    soup = make_soup([run.folder, other.folder], tmp_path / "soup")
    assert (soup.accuracies, soup.accuracy) == ((), None)
    averaged = invoke("soup", run.folder, other.folder, "--out", tmp_path / "again")
    assert (averaged.code, averaged.err) == (0, "")
    assert NO_TEST_ROWS in averaged.out


def test_a_files_own_test_part_is_left_out(tiny: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", topics(10))
    write_csv(tmp_path / "test.csv", topics(5))
    config = load_config(tmp_path, settings(tiny, "train.max_steps=1"))
    summary = run_training(config, folder=tmp_path / "runs")
    assert summary.scores == {}
    notices = read(summary.folder / "data.json")["notices"]["test"]
    assert any("test.csv is not used: data.test=0" in notice["message"] for notice in notices)
