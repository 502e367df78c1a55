"""Searches on a tiny encoder in this process: what is run, pruned, refused and written."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loralab import LoralabError, load_config
from loralab.errors import Interrupted, RunFailed
from loralab.experiments import search as search_module
from loralab.experiments.search import SearchPlan, SearchSummary, check_objectives, plan_search, run_search
from loralab.experiments.study import SearchTrial, Study
from loralab.report.write import write_report
from loralab.storage import run_folder
from loralab.storage.experiment_folder import read_experiment
from loralab.training.callbacks import EvalEnd, Event

OVER = ["lora.rank=2,4,8", "lora.alpha=1r,2r", "train.learning_rate=1e-3..1e-1:log"]
Make = Callable[..., SearchPlan]


@pytest.fixture
def make(tiny: Path, topics_csv: Path) -> Make:
    def made(*settings: str, over: list[str] = OVER, trials: int = 3, **more: Any) -> SearchPlan:
        plain = ("train.epochs=2", "train.max_steps=6", "train.eval_steps=2", "train.threads=1", "data.max_length=16")
        held = [f"model.base={tiny}", f"data.source={topics_csv}", *plain, *settings]
        return plan_search("quickstart", held, ranges=over, trials=trials, **more)

    return made


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def told(summary: SearchSummary) -> list[tuple[object, ...]]:
    return [(row.number, row.state, dict(row.points), row.values, dict(row.evaluations)) for row in summary.trials]


def test_a_search_writes_runs_a_table_and_the_best_settings(make: Make, tmp_path: Path) -> None:
    ended: list[SearchTrial] = []
    summary = run_search(make(), tmp_path / "s", on_trial_end=ended.append)
    assert [row.number for row in ended] == [0, 1, 2]
    lines = table(tmp_path / "s")
    assert [line["state"] for line in lines] == ["complete"] * 3
    entries = {entry.name: entry for entry in read_experiment(tmp_path / "s").records}
    for line in lines:
        run = tmp_path / "s" / "trials" / f"trial-{int(line['number']):04d}"
        scores, config = run_folder.read_scores(run), run_folder.read_config(run)
        assert float(line["accuracy"]) == pytest.approx(
            scores["validation"]["accuracy"]
        )  # of validation rows, not of the test rows
        assert (int(line["trainable"]), int(line["steps"])) == (scores["counts"]["trainable"], 6)
        assert config.lora.rank == int(line["lora.rank"])
        assert config.lora.alpha == config.lora.rank * int(line["lora.alpha"].removesuffix("r"))
        assert config.train.learning_rate == float(line["train.learning_rate"])
        assert entries[run.name].fingerprint == config.fingerprint() == scores["fingerprint"]
        assert not (run / run_folder.CHECKPOINT).exists()
    best = max(lines, key=lambda line: (float(line["accuracy"]), -int(line["number"])))
    chosen = load_config(tmp_path / "s" / "best.yaml", ["train.max_steps=6"])
    assert chosen.fingerprint() == entries[f"trial-{int(best['number']):04d}"].fingerprint
    assert summary.best == (int(best["number"]),)
    assert read_experiment(tmp_path / "s").spec.kind == "search"


def test_the_best_settings_leave_out_the_limits_of_the_search(make: Make, topics_csv: Path, tmp_path: Path) -> None:
    limits = ("data.max_train_samples=60", "data.max_test_samples=20", "train.max_steps=6")
    summary = run_search(make(*limits[:2], trials=2), tmp_path / "s")
    text = (tmp_path / "s" / "best.yaml").read_text(encoding="utf-8")
    best, quickstart = load_config(tmp_path / "s" / "best.yaml"), load_config("quickstart")
    for name in ("max_train_samples", "max_test_samples"):
        assert getattr(best.data, name) == getattr(quickstart.data, name)
    assert best.train.max_steps == quickstart.train.max_steps
    assert (best.data.source, best.data.max_length) == (str(topics_csv), 16)
    points = summary.trials[summary.best[0]].points
    assert str(best.lora.rank) == points["lora.rank"]
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert any(all(f"{name}={point}" in line for name, point in points.items()) for line in comments)
    assert all(any(limit in line for line in comments) for limit in limits)
    assert "test:" not in text  # what equals the defaults is not written
    trial = run_folder.read_config(tmp_path / "s" / "trials" / f"trial-{summary.best[0]:04d}")
    assert load_config(tmp_path / "s" / "best.yaml", limits).fingerprint() == trial.fingerprint()


def test_a_limit_that_is_searched_stays_in_the_best_settings(make: Make, tmp_path: Path) -> None:
    summary = run_search(make(over=["data.max_train_samples=60,80"], trials=1), tmp_path / "s")
    best = load_config(tmp_path / "s" / "best.yaml")
    assert str(best.data.max_train_samples) == summary.trials[0].points["data.max_train_samples"]


def test_an_interrupted_search_ends_like_an_uninterrupted_one(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(trials=3)
    whole = run_search(plan, tmp_path / "whole")

    class Cut(KeyboardInterrupt):
        pass

    heard = search_module._PruningListener.__call__
    left = 8  # evaluations: two trials take three each, so this is in the middle of the third

    def cut(self: Any, event: Event) -> None:
        nonlocal left
        heard(self, event)
        if isinstance(event, EvalEnd):
            left -= 1
            if not left:
                raise Cut

    monkeypatch.setattr(search_module._PruningListener, "__call__", cut)
    with pytest.raises(Interrupted, match="resume with the same command"):
        run_search(plan, tmp_path / "cut")
    assert [line["state"] for line in table(tmp_path / "cut")] == ["complete", "complete", "running"]
    written = [(tmp_path / "cut" / "trials" / f"trial-000{n}" / run_folder.SCORES).stat().st_mtime_ns for n in (0, 1)]
    again = run_search(plan, tmp_path / "cut")
    assert told(again) == told(whole)
    assert [(tmp_path / "cut" / "trials" / f"trial-000{n}" / run_folder.SCORES).stat().st_mtime_ns for n in (0, 1)] == written
    for n in range(3):
        logs = [[e["step"] for e in run_folder.read_log(tmp_path / name / "trials" / f"trial-000{n}")] for name in ("cut", "whole")]
        assert logs[0] == logs[1]


def test_an_unrecorded_result_is_recorded_without_running_again(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make(trials=1)

    def dies(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Study, "finish", dies)
        with pytest.raises(Interrupted):
            run_search(plan, tmp_path / "s")
    scores = tmp_path / "s" / "trials" / "trial-0000" / run_folder.SCORES
    written = scores.stat().st_mtime_ns
    summary = run_search(plan, tmp_path / "s")
    assert [row.state for row in summary.trials] == ["complete"]
    assert scores.stat().st_mtime_ns == written


def test_pruned_and_failed_trials_do_not_end_the_search(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Study.should_prune
    monkeypatch.setattr(
        Study, "should_prune", lambda self, n, e, value: seen(self, n, e, value) or (n, e) == (1, 2) or (n, e) == (0, 3)
    )
    trial = SearchPlan.trial
    monkeypatch.setattr(
        SearchPlan,
        "trial",
        lambda self, n, points: trial(self, n, {**points, **({"train.learning_rate": "1e30"} if n == 2 else {})}),
    )
    summary = run_search(make(trials=4), tmp_path / "s")
    assert [row.state for row in summary.trials] == ["complete", "pruned", "failed", "complete"]
    steps = [max(e["step"] for e in run_folder.read_log(tmp_path / "s" / "trials" / f"trial-000{n}")) for n in (0, 1, 3)]
    assert steps == [6, 4, 6]  # a trial at its last step is not pruned
    pruned = tmp_path / "s" / "trials" / "trial-0001"
    assert not (pruned / run_folder.CHECKPOINT).exists()
    assert not (pruned / run_folder.SCORES).exists()
    lines = table(tmp_path / "s")
    assert (lines[1]["steps"], lines[1]["accuracy"]) == ("4", "")
    assert lines[1]["reason"].startswith("pruned at evaluation 2, step 4: accuracy 0.")
    assert "train.learning_rate" in lines[2]["reason"]
    stopped, failed = read_experiment(tmp_path / "s").records[1:3]
    assert (stopped.failure, stopped.pruned) == (None, lines[1]["reason"])
    assert (failed.failure, failed.pruned) == (lines[2]["reason"], None)


def test_points_over_the_budget_are_not_run(make: Make, tmp_path: Path) -> None:
    plan = make("lora.max_trainable=4000", over=["lora.rank=2..16", "lora.dropout=0..0.5"], trials=2)
    summary = run_search(plan, tmp_path / "s")
    rejected = [row for row in summary.trials if row.state == "rejected"]
    assert rejected
    assert sum(row.state == "complete" for row in summary.trials) == 2
    for row in rejected:
        assert row.facts["trainable"] > 4000
        assert f"{row.facts['trainable']:,} of 4,000" in str(row.reason)
        assert not (tmp_path / "s" / "trials" / f"trial-{row.number:04d}").exists()
    for row in summary.trials:
        if row.state == "complete":
            run = tmp_path / "s" / "trials" / f"trial-{row.number:04d}"
            assert run_folder.read_scores(run)["counts"]["trainable"] == row.facts["trainable"] <= 4000


def test_two_objectives_give_a_pareto_front(make: Make, tmp_path: Path) -> None:
    plan = make(objectives=("loss", "trainable"), sampler="grid", over=["lora.rank=2,8", "train.learning_rate=1e-3,3e-2"], trials=9)
    summary = run_search(plan, tmp_path / "s")
    lines = {int(line["number"]): (float(line["loss"]), int(line["trainable"])) for line in table(tmp_path / "s")}
    assert len(lines) == 4  # the whole grid
    beaten = {n for n, a in lines.items() if any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in lines.values())}
    assert set(summary.best) == set(lines) - beaten
    assert [lines[n][0] for n in summary.best] == sorted(lines[n][0] for n in summary.best)
    with (tmp_path / "s" / "pareto.csv").open(newline="") as file:
        assert [int(line["number"]) for line in csv.DictReader(file)] == [*summary.best]
    before = (tmp_path / "s" / "trials.csv").read_bytes()
    assert "search_pareto" in write_report(tmp_path / "s").read_text()
    assert (tmp_path / "s" / "trials.csv").read_bytes() == before
    written = {path.name for path in (tmp_path / "s" / "figures").glob("search_*")}
    assert written - {"search_importance.png"} == {f"search_{kind}.png" for kind in ("history", "slices", "parallel", "pareto")}
    assert all((tmp_path / "s" / "figures" / name).stat().st_size > 5000 for name in written)
    found = json.loads((tmp_path / "s" / "search.json").read_text())
    assert set(found["importance"]) == {"loss", "trainable"}


@pytest.mark.parametrize(
    ("settings", "more", "message"),
    [
        (["data.validation=0"], {}, "validation"),
        (["data.source=none.csv"], {}, "none.csv"),
        (["model.base=none"], {}, "none"),
        ([], {"objectives": ("acuracy",)}, "f1:NAME with NAME one of Business, Sci/Tech"),
        ([], {"objectives": ("balance:World/Sports",)}, "train.monitor or train.track has it"),
        (["lora.rank=4"], {}, "both fixed"),
    ],
)
def test_errors_of_every_trial_are_raised_before_the_first(
    make: Make, settings: list[str], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(LoralabError, match=message):
        make(*settings, **more)


def test_a_fixed_setting_leaves_the_recipes_space() -> None:
    data = ["data.source=sample", "model.base=minilm"]
    assert "lora.rank" in plan_search("roberta-search", data).settings.space.to_text()
    assert "lora.rank" not in plan_search("roberta-search", [*data, "lora.rank=4"]).settings.space.to_text()


def test_a_space_from_a_file_or_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("lora.rank: [4, 8]\ntrain.epochs: 1..2\n")
    assert plan_search("quickstart", ranges=tmp_path / "space.yaml").settings.space.to_text() == {
        "lora.rank": "4,8",
        "train.epochs": "1..2",
    }
    (tmp_path / "recipe.yaml").write_text("lora: {rank: 4}\nsearch:\n  lora.dropout: 0..0.1\n")
    assert plan_search(str(tmp_path / "recipe.yaml")).settings.space.to_text() == {"lora.dropout": "0..0.1"}


def test_another_search_or_an_unrelated_folder_is_refused(make: Make, tmp_path: Path) -> None:
    run_search(make(trials=1), tmp_path / "s")
    with pytest.raises(LoralabError, match=r"holds another search, with --over .*\n"):
        run_search(make(trials=1, over=["lora.rank=2,4"]), tmp_path / "s")
    with pytest.raises(LoralabError, match=r"another experiment, with fixed settings none, not train.weight_decay=0\.1\n"):
        run_search(make("train.weight_decay=0.1", trials=1), tmp_path / "s")
    assert len(table(tmp_path / "s")) == 1
    summary = run_search(make(trials=1, over=["lora.rank=2,4"]), tmp_path / "s", overwrite=True)
    assert set(summary.trials[0].points) == {"lora.rank"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(LoralabError, match="not an experiment"):
        run_search(make(trials=1), tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize("settings", [["train.monitor=balance:World/Sports"], ["train.track=macro_f1,balance:World/Sports"]])
def test_a_balance_of_two_classes_is_an_objective_if_evaluations_have_it(settings: list[str]) -> None:
    base = load_config("quickstart", settings)
    assert check_objectives(base, ["balance:World/Sports"]) == 4


def test_a_damaged_trial_of_a_repeated_search_is_named(make: Make, tmp_path: Path) -> None:
    run_search(make(trials=1), tmp_path / "s")
    weights = tmp_path / "s" / "trials" / "trial-0000" / "model" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(LoralabError, match=r"adapter_model\.safetensors is damaged(.|\n)*replace the search with --overwrite"):
        run_search(make(trials=2), tmp_path / "s")
    assert len(table(tmp_path / "s")) == 1
    assert len(run_search(make(trials=1), tmp_path / "s", overwrite=True).trials) == 1


def test_a_search_stops_where_its_journal_cannot_be_written_and_resumes(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> bool:
        raise OSError(errno.EROFS, "Read-only file system", "study.journal.lock")

    with monkeypatch.context() as patch:
        patch.setattr(Study, "should_prune", refuse)
        with pytest.raises(RunFailed, match=r"stopped at trial-0000: .*Read-only(.|\n)*resumes it"):
            run_search(make(trials=1), tmp_path / "s")
    assert "Traceback" not in capfd.readouterr().err
    assert [trial.state for trial in run_search(make(trials=1), tmp_path / "s").trials] == ["complete"]
