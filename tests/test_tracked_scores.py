"""`train.track` and `train.monitor`: at each evaluation, on the test rows, on the terminal, in metrics.csv."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command_line import invoke
from tiny import topics, write_csv

from loralab import LoralabError, load_config
from loralab.pipeline import run_training

AWKWARD = {"World": "World, Asia: [a]", "Sports": "Sports-Clubs/Fans", "Business": "Business", "Sci/Tech": "100%"}


@pytest.fixture
def settings(tiny: Path, tmp_path: Path) -> list[str]:
    rows = [(text, AWKWARD[name]) for text, name in topics(20)]
    data = write_csv(tmp_path / "awkward.csv", rows)
    return [str(data), f"model.base={tiny}", "train.precision=fp32", "train.max_steps=6", "train.eval_steps=1"]


def test_tracked_scores_are_computed_at_each_evaluation_and_on_the_test_rows(settings: list[str], tmp_path: Path) -> None:
    pair = "balance:World, Asia: [a]/Sports-Clubs/Fans"
    config = load_config(settings[0], [*settings[1:], f"train.track=f1:100%,{pair},balance,recall:World, Asia: [a]"])
    summary = run_training(config, folder=tmp_path)
    names = {"f1:100%", pair, "balance", "recall:World, Asia: [a]"}
    assert names <= {*summary.scores}
    assert names <= {*summary.validation}
    for scores in (summary.scores, summary.validation):
        low, high = sorted(scores[f"f1:{name}"] for name in ("World, Asia: [a]", "Sports-Clubs/Fans"))
        assert scores[pair] == (low / high if high else 1.0)
        every = [scores[f"f1:{name}"] for name in summary.classes]
        assert scores["balance"] == (min(every) / max(every) if max(every) else 1.0)
    evaluations = [json.loads(line) for line in (summary.folder / "log.jsonl").read_text().splitlines()]
    assert all(names <= {*event["scores"]} for event in evaluations if event["event"] == "EvalEnd")


@pytest.mark.parametrize("wrong", ["f1:Buisness", "f1:Business,balanced", "true:Business"])
def test_a_score_that_does_not_exist_is_refused_before_training(settings: list[str], tmp_path: Path, wrong: str) -> None:
    with pytest.raises(LoralabError, match=r"train\.track: there is no score .*; valid: loss"):
        run_training(load_config(settings[0], [*settings[1:], f"train.track={wrong}"]), folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_terminal_shows_tracked_scores_and_why_training_stopped(settings: list[str], tmp_path: Path) -> None:
    more = ("train.monitor=f1:Business", "train.track=balance,f1:World, Asia: [a]", "train.patience=1", "train.min_delta=1")
    answer = invoke("train", *settings, *more, "--runs", tmp_path, "--name", "run")
    assert answer.code == 0, answer.err
    lines = [line for line in answer.out.splitlines() if line.startswith("epoch ")]
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    evaluations = read(tmp_path / "run" / "metrics.csv")
    for line, row in zip(lines, evaluations, strict=True):
        for name in ("f1:Business", "balance", "f1:World, Asia: [a]"):
            assert f"{name} {float(row[f'validation_{name}']):.4f}" in line
    table = [line.split() for line in answer.out.splitlines()]
    test, validation = scores["scores"], scores["validation"]
    assert ["balance", f"{test['balance']:.4f}", f"{validation['balance']:.4f}"] in table
    assert ["f1:Business", "(monitored)", f"{test['f1:Business']:.4f}", f"{validation['f1:Business']:.4f}"] in table
    best = f"f1:Business was best at step 1 ({validation['f1:Business']:.4f}), and 1 evaluation brought no better one"
    assert f"Stopped early after step 2: {best}" in answer.out


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
