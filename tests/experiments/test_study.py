"""A study's bookkeeping without training: claims, counts, pruning, deaths; with several openings of one journal."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from loralab import Config, LoralabError
from loralab.experiments import study as study_module
from loralab.experiments import study_storage
from loralab.experiments.importance import setting_importance
from loralab.experiments.run_trial import MAX_DEATHS
from loralab.experiments.space import make_space
from loralab.experiments.study import SearchSettings, Study


def settings(trials: int = 6, over: Mapping[str, object] | None = None, **more: object) -> SearchSettings:
    return SearchSettings(make_space(Config(), over or {"lora.rank": "2..512", "lora.dropout": "0..0.5"}), trials=trials, **more)  # type: ignore[arg-type]


def fits(points: Mapping[str, str]) -> tuple[int, str | None]:
    return 7, None


def run_all(study: Study, check_budget: object = fits) -> None:
    while claimed := study.claim(check_budget):  # type: ignore[arg-type]
        values = [float(claimed.points["lora.rank"])] * len(study.settings.objectives)
        study.finish(claimed.number, "complete", values=values, steps=3)


def test_claims_end_at_the_requested_number_over_all_programs(tmp_path: Path) -> None:
    first, second = (Study(settings(4), tmp_path, "s") for _ in range(2))
    a, b = first.claim(fits), second.claim(fits)
    assert a is not None
    assert b is not None
    assert (a.number, b.number) == (0, 1)
    second.finish(1, "complete", values=[0.5])
    run_all(second)
    assert second.remaining == 0  # running ones of `first` count
    assert second.claim(fits) is None
    first.finish(0, "complete", values=[0.9], steps=5)
    states = [(trial.number, trial.state) for trial in Study(settings(4), tmp_path, "s").trials()]
    assert states == [(n, "complete") for n in range(4)]
    assert first.trials()[0].facts == {"trainable": 7, "steps": 5}
    run_all(Study(settings(6), tmp_path, "s"))
    assert len(first.trials()) == 6


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_reopened_study_samples_the_same_points(tmp_path: Path, sampler: str) -> None:
    over = {"lora.rank": "4,8,16,32", "lora.dropout": "0..0.3/0.1"} if sampler == "grid" else None
    points = []
    for name, opens in (("whole", 1), ("cut", 14)):
        folder = tmp_path / name
        folder.mkdir()
        for done in range(1, opens + 1):
            run_all(Study(settings(14 if opens == 1 else done, over, sampler=sampler), folder, "s"))
        points.append([trial.points for trial in Study(settings(14, over, sampler=sampler), folder, "s").trials()])
    assert points[0] == points[1]
    assert len({tuple(each.items()) for each in points[0]}) == 14


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_no_point_runs_twice_and_a_small_space_ends(tmp_path: Path, sampler: str) -> None:
    study = Study(settings(20, {"lora.rank": "2,4", "lora.dropout": "0..0.2/0.1"}, sampler=sampler), tmp_path, "s")
    run_all(study)
    assert sorted(tuple(trial.points.values()) for trial in study.trials()) == sorted(
        (r, d) for r in ("2", "4") for d in ("0", "0.1", "0.2")
    )


def test_a_range_narrower_than_its_digits_ends(tmp_path: Path) -> None:
    study = Study(settings(20, {"lora.dropout": "0.1..0.100001"}), tmp_path, "s")
    assert study.claim(fits)
    assert study.claim(fits) is None
    assert len(study.trials()) == 1


def test_points_over_the_budget_are_replaced(tmp_path: Path) -> None:
    def check_budget(points: Mapping[str, str]) -> tuple[int, str | None]:
        return int(points["lora.rank"]), "over budget" if int(points["lora.rank"]) > 100 else None

    study = Study(settings(8), tmp_path, "s")
    run_all(study, check_budget)
    trials = study.trials()
    assert sum(trial.state == "complete" for trial in trials) == 8
    rejected = [trial for trial in trials if trial.state == "rejected"]
    assert rejected
    assert all(
        int(trial.points["lora.rank"]) > 100 and trial.reason == "over budget" and trial.values is None for trial in rejected
    )
    assert all(trial.facts["trainable"] == int(trial.points["lora.rank"]) for trial in trials)


def test_a_search_without_points_in_the_budget_ends(tmp_path: Path) -> None:
    study = Study(settings(2), tmp_path, "s")
    assert study.claim(lambda points: (9, "over budget")) is None
    assert [trial.state for trial in study.trials()] == ["rejected"] * 20


def test_an_abandoned_trial_keeps_its_number(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_study import Study, fits, settings
study = Study(settings(3), Path({str(tmp_path)!r}), "s")
claimed = study.claim(fits)
study.should_prune(claimed.number, 1, 0.25)
print(claimed.points["lora.rank"], claimed.points["lora.dropout"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    died = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    rank, dropout = died.stdout.split()
    study = Study(settings(3), tmp_path, "s")
    assert study.trials()[0].state == "running"
    claimed = study.claim(fits)
    assert claimed is not None
    assert (claimed.number, dict(claimed.points)) == (0, {"lora.rank": rank, "lora.dropout": dropout})
    assert not study.should_prune(0, 1, 0.75)  # a repeated evaluation: the first value stays
    assert study.trials()[0].evaluations == {1: 0.25}
    other = study.claim(fits)
    assert other is not None
    assert other.number == 1  # this process's own trial is running


def test_another_machines_trial_is_taken_over_after_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(settings(2), tmp_path, "s")
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "elsewhere")
        assert study.claim(fits)
    second = study.claim(fits)
    assert second is not None
    assert second.number == 1
    assert study.claim(fits) is None
    monkeypatch.setattr(study_module, "SILENT_SECONDS", -1.0)
    taken = study.claim(fits)
    assert taken is not None
    assert taken.number == 0


def test_a_trial_that_kills_its_process_fails(tmp_path: Path) -> None:
    import os

    study = Study(settings(1), tmp_path, "s")
    assert study.claim(fits)
    for _ in range(MAX_DEATHS):
        assert study.trials()[0].state == "running"
        assert study.record_death(os.getpid())
    assert not study.record_death(os.getpid())
    (trial,) = study.trials()
    assert trial.state == "failed"
    assert "died 3 times" in str(trial.reason)


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_an_unpromising_trial_is_pruned_at_an_evaluation(tmp_path: Path, pruner: str) -> None:
    """Ten good trials over 9 evaluations, then a bad one: median prunes it at once, hyperband at a rung, none never."""
    study = Study(settings(30, pruner=pruner), tmp_path, "s")
    for _ in range(10):
        good = study.claim(fits)
        assert good is not None
        for evaluation in range(1, 10):
            study.should_prune(good.number, evaluation, 0.8 + 0.01 * evaluation)
        study.finish(good.number, "complete", values=[0.89])
    stops = []
    for _ in range(3):
        bad = study.claim(fits)
        assert bad is not None
        stops += [e for e in range(1, 10) if study.should_prune(bad.number, e, 0.1)][:1]
        study.finish(bad.number, "pruned", reason="pruned", steps=1)
    assert {"median": stops == [1, 1, 1], "hyperband": len(stops) >= 2, "none": stops == []}[pruner]
    assert study.trials()[-1].state == "pruned"
    assert study.trials()[-1].values is None
    assert study.best_numbers() == [*range(10)], "all ten tie"


def test_of_tied_trials_the_smallest_is_first(tmp_path: Path) -> None:
    study = Study(settings(4), tmp_path, "s")
    for value, trainable in ((0.9, 300), (0.9, 100), (0.8, 50), (0.9, 100)):
        claimed = study.claim(fits)
        assert claimed is not None
        study.finish(claimed.number, "complete", values=[value], trainable=trainable)
    assert study.best_numbers() == [1, 3, 0]


def test_the_pareto_front_of_two_objectives(tmp_path: Path) -> None:
    study = Study(settings(4, objectives=("accuracy", "trainable")), tmp_path, "s")
    for values in ((0.9, 300.0), (0.8, 100.0), (0.85, 400.0), (0.7, 100.0)):
        claimed = study.claim(fits)
        assert claimed is not None
        assert not study.should_prune(claimed.number, 1, 0.0)
        study.finish(claimed.number, "complete", values=values)
    assert study.best_numbers() == [0, 1]  # more accurate and fewer parameters: 2 and 3 are beaten


def test_importances(tmp_path: Path) -> None:
    study = Study(settings(30, sampler="random"), tmp_path, "s")
    run_all(study)  # the value is the rank
    importance = study.importances()["accuracy"]
    assert sum(importance.shares.values()) == pytest.approx(1)
    assert importance.shares["lora.rank"] > 0.8
    assert [*importance.clear] == ["lora.rank"]


def test_noise_is_not_important() -> None:
    """One setting has a share by chance in each of 20 searches; it may be called clear in one of them."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    distributions = {"rank": CategoricalDistribution(["2", "4", "8"]), "rate": FloatDistribution(0.0, 1.0)}
    clear = 0
    for seed in range(20):
        chance = random.Random(seed)
        points = [{"rank": chance.choice(["2", "4", "8"]), "rate": chance.random()} for _ in range(12)]
        importance = setting_importance(points, distributions, [chance.gauss(0, 1) for _ in points])
        assert importance
        clear += bool(importance.clear)
    assert clear <= 4
    assert setting_importance(points[:3], distributions, [1.0, 2.0, 3.0]) is None
    assert setting_importance(points, distributions, [1.0] * 12) is None


def test_another_search_of_the_same_name_is_refused(tmp_path: Path) -> None:
    own, another = {"lora.rank": 4}, {"lora.rank": 8}
    Study(settings(), tmp_path, "s", identity=own)
    Study(settings(9, sampler="random"), tmp_path, "s", identity=own)  # more trials or another sampler are allowed
    for other, identity in (
        (settings(objectives=("loss",)), own),
        (settings(over={"lora.rank": "2,4"}), own),
        (settings(), another),
    ):
        with pytest.raises(LoralabError, match="holds another search"):
            Study(other, tmp_path, "s", identity=identity)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sampler": "annealing"}, "tpe, random, grid"),
        ({"pruner": "percentile"}, "none, median, hyperband"),
        ({"objectives": ("accuracy", "accuracy")}, "two different"),
        ({"objectives": ("accuracy", "loss", "seconds")}, "two different"),
        ({"objectives": ("trainable",)}, "score first"),
        ({"sampler": "grid"}, "is continuous"),
    ],
)
def test_invalid_search_settings(more: dict[str, object], message: str) -> None:
    with pytest.raises(LoralabError, match=message):
        settings(**more)  # type: ignore[arg-type]


def test_a_journal_with_an_incomplete_line_is_read(tmp_path: Path) -> None:
    run_all(Study(settings(2), tmp_path, "s"))
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code":4,"wor')
    study = Study(settings(3), tmp_path, "s")
    run_all(study)
    assert [trial.state for trial in study.trials()] == ["complete"] * 3


@pytest.mark.parametrize(
    "content", [b"seed: 1\n", b"[]\n", b'{"trial_id": 1}\n', b'{"op_code": 99, "worker_id": "a"}\n', b"\xff\n", b"{}\n" * 3]
)
def test_a_damaged_journal_is_named(tmp_path: Path, content: bytes) -> None:
    run_all(Study(settings(1), tmp_path, "s"))
    journal = tmp_path / "study.journal"
    for damaged in (content, content + journal.read_bytes(), journal.read_bytes() + content):
        journal.write_bytes(damaged)
        with pytest.raises(LoralabError, match=r"study.journal is damaged \(.*restore it"):
            Study(settings(2), tmp_path, "s")


def test_the_journals_lock_excludes_threads_too(tmp_path: Path) -> None:
    lock, inside = study_storage.JournalLock(tmp_path / "lock"), list[str]()

    def enter(name: str) -> None:
        lock.acquire()
        inside.append(name)
        time.sleep(0.05)
        inside.append(name)
        lock.release()

    threads = [threading.Thread(target=enter, args=(name,), daemon=True) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=5)
    assert inside[::2] == inside[1::2]
    assert sorted(inside) == [*"aabbcc"]


@pytest.mark.parametrize(
    "url", ["mysql://secret@host/db", "sqlite:///a.db", "postgresql://u:secret@127.0.0.1:1/db", "postgresql://u:secret[@host/db"]
)
def test_an_unusable_storage_is_reported_without_its_password(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(LoralabError, match=r"PostgreSQL|cannot be used|is not a URL") as told:
        Study(settings(), tmp_path, "s", url)
    assert "secret" not in str(told.value)
