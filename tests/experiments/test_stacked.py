"""Trials in one pass leave the folders that they leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from loralab import runs
from loralab.classifier import Classifier
from loralab.errors import Interrupted
from loralab.experiments import stacked
from loralab.experiments.execute import Outcome, run_all
from loralab.experiments.kinds import find_kind
from loralab.experiments.plans import make_plan
from loralab.training import engine
from loralab.training.engine import Loop
from loralab.trials import Trial

SETTINGS = ["train.epochs=2", "train.eval_every=2", "train.batch_size=8", "train.threads=1", "data.max_length=32", "data.clean="]


def planned(tiny: Path, data: Path, *settings: str, points: dict[str, tuple[str, ...]] | None = None) -> Sequence[Trial]:
    kind = find_kind("grid" if points else "seeds")
    return make_plan(kind, [str(data)], [f"model.base={tiny}", *SETTINGS, *settings], points or {}, (1, 2)).trials


def model(folder: Path, trial: Trial) -> dict[str, torch.Tensor]:
    return load_file(folder / "trials" / trial.name / "model" / "adapter_model.safetensors")


def test_a_stack_leaves_what_its_trials_leave_alone(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    trials = planned(tiny, topics_csv, "train.precision=fp32", points={"train.learning_rate": ("1e-3", "4e-3")})
    trials = [trials[0], trials[-1]]  # another seed and another rate
    alone, together = tmp_path / "alone", tmp_path / "together"
    run_all(trials, alone, where="here")
    with mock.patch("loralab.experiments.stacked.attempt", side_effect=AssertionError):
        assert run_all(trials, together, where="together") == [Outcome(trial) for trial in trials]
    for trial in trials:
        mine, its = (folder / "trials" / trial.name for folder in (together, alone))
        assert sorted(p.relative_to(mine) for p in mine.rglob("*")) == sorted(p.relative_to(its) for p in its.rglob("*"))
        for name, weight in model(together, trial).items():
            torch.testing.assert_close(weight, model(alone, trial)[name], rtol=0, atol=1e-5)
        ours, theirs = runs.read_scores(mine), runs.read_scores(its)
        assert ours["scores"] == pytest.approx(theirs["scores"], abs=1e-4)
        assert ours["fingerprint"] == theirs["fingerprint"]
        log = [[(e["event"], e["step"], e.get("loss")) for e in runs.read_log(folder)] for folder in (mine, its)]
        assert [e[:2] for e in log[0]] == [e[:2] for e in log[1]]
        assert [e[2] for e in log[0] if e[2]] == pytest.approx([e[2] for e in log[1] if e[2]], abs=1e-4)
        assert Classifier.load(mine).predict(["goal"]).labels == Classifier.load(its).predict(["goal"]).labels


def test_only_trials_of_one_shape_share_a_stack(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    trials = planned(tiny, topics_csv, points={"lora.rank": ("2", "4")})
    with mock.patch.object(stacked, "_run_stack") as ran:
        stacked.run_together(trials, tmp_path, 8, lambda outcome: None)
    assert [[trial.name for trial in call.args[0]] for call in ran.call_args_list] == [
        ["rank-2_seed-1", "rank-2_seed-2"],
        ["rank-4_seed-1", "rank-4_seed-2"],
    ]


def test_at_most_so_many_share_a_stack_and_a_last_one_runs_alone(tmp_path: Path) -> None:
    trials = make_plan(find_kind("seeds"), ["quickstart"], [], {}, (1, 2, 3, 4, 5)).trials
    with mock.patch.object(stacked, "_run_stack") as ran, mock.patch.object(stacked, "attempt") as alone:
        stacked.run_together(trials, tmp_path, 2, lambda outcome: None)
    assert [len(call.args[0]) for call in ran.call_args_list] == [2, 2]
    assert [call.args[0].name for call in alone.call_args_list] == ["seed-5"]


def test_what_cannot_share_a_pass_fails_with_what_to_do(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    found = run_all(planned(tiny, topics_csv, "tuning=full"), tmp_path, where="together")
    assert all("use tuning=lora or tuning=head" in (outcome.failure or "") for outcome in found)


@pytest.mark.slow
def test_an_interrupted_stack_goes_on_to_the_same_result(
    tiny: Path, topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = planned(tiny, topics_csv, "train.precision=fp32", "lora.dropout=0.1")
    run_all(trials, tmp_path / "whole", where="together")
    take = Loop.take

    def stop(self: Loop, *arguments: object) -> None:
        if self.step == 5:
            raise KeyboardInterrupt
        take(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.Loop, "take", stop)
    with pytest.raises(Interrupted):
        run_all(trials, tmp_path / "cut", where="together")
    monkeypatch.undo()
    assert [runs.read_log(tmp_path / "cut" / "trials" / trial.name)[-1]["step"] for trial in trials] == [5, 5]
    run_all(trials, tmp_path / "cut", where="together")
    for trial in trials:
        for name, weight in model(tmp_path / "cut", trial).items():
            torch.testing.assert_close(weight, model(tmp_path / "whole", trial)[name], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_trial_that_fails_leaves_the_others_to_go_on(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    trials = planned(tiny, topics_csv, points={"train.stop_on": ("f1:Wrold", "accuracy")})
    found = run_all(trials, tmp_path, where="together")
    assert ["Wrold" in (outcome.failure or "") for outcome in found] == [True, True, False, False]
