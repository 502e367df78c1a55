"""Active learning on a tiny checkpoint: which rows are chosen, and that nothing is chosen or run twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from tiny import CLASSES, topics, write_csv

from loralab import Classifier
from loralab.data.splits import load_splits, read_indices
from loralab.data.types import Examples
from loralab.errors import Interrupted, LoralabError
from loralab.experiments.active import ActivePlan, Pool, first_rows, plan_active
from loralab.experiments.run import ExperimentSummary, run_experiment
from loralab.experiments.spec import find_kind
from loralab.experiments.strategies import entropy
from loralab.pipeline import run_training
from loralab.storage import run_folder
from loralab.storage.experiment_folder import read_experiment, trial_folder

SETTINGS = ["train.epochs=1", "train.batch_size=8", "train.threads=1", "train.precision=fp32", "data.max_length=32", "data.clean="]
STRATEGIES = ("random", "entropy", "badge")


def planned(
    tiny: Path,
    data: Path,
    *settings: str,
    labels: tuple[str, ...] = ("8", "14", "20"),
    strategies: tuple[str, ...] = STRATEGIES,
    seeds: tuple[int, ...] = (1, 2),
) -> ActivePlan:
    fixed = [f"model.base={tiny}", *SETTINGS, *settings]
    return plan_active(find_kind("active"), [str(data)], fixed, {"strategy": strategies, "labels": labels}, seeds)


@pytest.fixture(scope="module")
def experiment(tiny: Path, topics_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExperimentSummary, list[str]]:
    folder = tmp_path_factory.mktemp("active") / "e"
    messages: list[str] = []
    return folder, run_experiment(planned(tiny, topics_csv), folder, on_progress=messages.append), messages


def rows(summary: ExperimentSummary, strategy: str, labels: int, seed: int) -> set[int]:
    """The rows of a trial's index file."""
    factors = {"strategy": strategy, "labels": labels, "seed": seed}
    (path,) = {o.trial.config.data.train_indices for o in summary.outcomes if o.trial.factors == factors}
    return set(read_indices(Path(str(path))))


# --- end to end ----------------------------------------------------------------------------------------------------


def test_each_chain_grows_and_chains_of_a_seed_start_alike(experiment: tuple[Path, ExperimentSummary, list[str]]) -> None:
    folder, summary, _ = experiment
    assert len(summary.outcomes) == 3 * 2 * 3
    assert not summary.failures
    for seed in (1, 2):
        assert rows(summary, "random", 8, seed) == rows(summary, "entropy", 8, seed) == rows(summary, "badge", 8, seed)
        for strategy in STRATEGIES:
            chain = [rows(summary, strategy, count, seed) for count in (8, 14, 20)]
            assert [len(each) for each in chain] == [8, 14, 20]  # sets: no row is labelled twice
            assert chain[0] < chain[1] < chain[2]
        assert len({frozenset(rows(summary, strategy, 14, seed)) for strategy in STRATEGIES}) == 3
    assert rows(summary, "random", 8, 1) != rows(summary, "random", 8, 2)
    assert len(list((folder / "trials").iterdir())) == 2 + 3 * 2 * 2  # first trials are shared
    assert len(list((folder / "indices").glob("*.txt"))) == 14


def test_every_trial_trains_on_its_rows_and_shares_the_test_rows(experiment: tuple[Path, ExperimentSummary, list[str]]) -> None:
    folder, summary, _ = experiment
    facts = [run_folder.read_environment(trial_folder(folder, outcome.trial))["rows"] for outcome in summary.outcomes]
    assert [fact["train"]["count"] for fact in facts] == [o.trial.factors["labels"] for o in summary.outcomes]
    assert len({fact["test"]["fingerprint"] for fact in facts}) == 1
    assert not any("validation" in fact for fact in facts)


def test_chosen_rows_are_the_most_uncertain_for_the_last_classifier(
    experiment: tuple[Path, ExperimentSummary, list[str]],
) -> None:
    folder, summary, _ = experiment
    (last,) = [o.trial for o in summary.outcomes if o.trial.factors == {"strategy": "entropy", "labels": 14, "seed": 1}]
    unlimited = last.config.data.model_copy(update={"train_indices": None, "max_train_samples": None})
    training = load_splits(unlimited)[0].train
    unlabelled = [i for i in range(len(training)) if i not in rows(summary, "entropy", 14, 1)]
    loaded = Classifier.load(trial_folder(folder, last)).predict([training.texts[i] for i in unlabelled])
    unsure = np.argsort(-entropy(loaded.probabilities), kind="stable")[:6]
    assert rows(summary, "entropy", 20, 1) - rows(summary, "entropy", 14, 1) == {unlabelled[i] for i in unsure}


def test_the_pool_is_scored_once_per_run_and_never_for_random(experiment: tuple[Path, ExperimentSummary, list[str]]) -> None:
    _, _, messages = experiment
    assert len(messages) == 2 * (1 + 2)  # per seed: the shared first run, then entropy's and badge's own
    assert sum("scoring 88 unlabelled rows" in line for line in messages) == 2  # 120 rows less 24 test rows and 8 labelled ones
    assert not any("random" in line for line in messages)


def test_experiment_json_has_every_trial(experiment: tuple[Path, ExperimentSummary, list[str]]) -> None:
    folder, summary, _ = experiment
    found = read_experiment(folder)
    assert found.spec.varied == {"strategy": [*STRATEGIES], "labels": [8, 14, 20], "seed": [1, 2]}
    assert {entry.name: trial_folder(folder, entry) for entry in found.records} == {
        o.trial.name: trial_folder(folder, o.trial) for o in summary.outcomes
    }
    assert {entry.run for entry in found.records if entry.factors["labels"] == 8} == {f"trials/labels-8_seed-{s}" for s in (1, 2)}


def test_a_second_call_skips_everything_and_more_labels_continue(
    tiny: Path, topics_csv: Path, experiment: tuple[Path, ExperimentSummary, list[str]]
) -> None:
    folder, _, _ = experiment
    before = {path: path.read_bytes() for path in (folder / "indices").iterdir()}
    with mock.patch("loralab.pipeline.run_training", side_effect=AssertionError), mock.patch.object(Classifier, "load") as load:
        again = run_experiment(planned(tiny, topics_csv), folder)
    assert all(outcome.skipped for outcome in again.outcomes)
    assert not load.called
    assert {path: path.read_bytes() for path in (folder / "indices").iterdir()} == before
    with mock.patch("loralab.pipeline.run_training", wraps=run_training) as ran:
        more = run_experiment(
            planned(tiny, topics_csv, labels=("8", "14", "20", "22"), strategies=("entropy",), seeds=(2,)), folder
        )
    assert ran.call_count == 1
    assert rows(more, "entropy", 20, 2) < rows(more, "entropy", 22, 2)


def test_a_killed_experiment_chooses_the_same_rows_again(
    tiny: Path, topics_csv: Path, tmp_path: Path, experiment: tuple[Path, ExperimentSummary, list[str]]
) -> None:
    _, summary, _ = experiment
    folder = tmp_path / "e"
    plan = planned(tiny, topics_csv, strategies=("badge",), seeds=(1,))

    def stop_at_twenty(config: object, *, name: str, folder: Path, **more: object) -> object:
        if "20" in name:
            raise Interrupted("killed")
        return run_training(config, name=name, folder=folder)  # type: ignore[arg-type]

    with mock.patch("loralab.pipeline.run_training", side_effect=stop_at_twenty), pytest.raises(Interrupted):
        run_experiment(plan, folder)
    chosen = folder / "indices" / "strategy-badge_labels-14_seed-1.txt"
    before = chosen.read_bytes()
    resumed = run_experiment(planned(tiny, topics_csv, strategies=("badge",), seeds=(1,)), folder)
    assert [outcome.skipped for outcome in resumed.outcomes] == [True, True, False]
    assert chosen.read_bytes() == before
    assert rows(resumed, "badge", 20, 1) == rows(summary, "badge", 20, 1)


def test_a_failed_trial_ends_its_chain_except_random(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    def fail(config: object, *, name: str, folder: Path, **more: object) -> object:
        if "14" in name:
            raise LoralabError("no luck")
        return run_training(config, name=name, folder=folder)  # type: ignore[arg-type]

    with mock.patch("loralab.pipeline.run_training", side_effect=fail):
        summary = run_experiment(planned(tiny, topics_csv, seeds=(1,), strategies=("entropy", "random")), tmp_path / "e")
    ended = {(o.trial.factors["strategy"], o.trial.factors["labels"]): o.failure for o in summary.outcomes}
    assert ended == {
        ("entropy", 8): None,
        ("random", 8): None,
        ("entropy", 14): "no luck",
        ("random", 14): "no luck",
        ("random", 20): None,
    }


# --- the pool and the first rows -----------------------------------------------------------------------------------


def pool(counts: tuple[int, ...], positions: npt.NDArray[np.int64] | None = None) -> Pool:
    labels = np.repeat(np.arange(len(counts)), counts)
    examples = Examples([str(i) for i in range(len(labels))], labels, np.arange(len(labels)), tuple("abcd"[: len(counts)]))
    return Pool(np.arange(len(labels)) if positions is None else positions, examples, "")


def test_the_first_rows_are_random_if_every_class_has_one() -> None:
    even = pool((50, 50))
    found = first_rows(even, 20, np.random.default_rng(3))
    assert found.tolist() == sorted(np.random.default_rng(3).permutation(100)[:20].tolist())
    drawn = [int((first_rows(even, 20, np.random.default_rng(seed)) < 50).sum()) for seed in range(200)]
    assert len(set(drawn)) > 5  # not stratified
    assert 9.5 < np.mean(drawn) < 10.5


def test_a_class_without_a_sampled_row_gets_one() -> None:
    rare = pool((98, 1, 1))
    order = np.random.default_rng(3).permutation(100)
    found = first_rows(rare, 10, np.random.default_rng(3))
    assert len(found) == len(set(found.tolist())) == 10
    assert {98, 99} < set(found.tolist())
    assert len(set(found.tolist()) & set(order[:10].tolist())) == 8
    assert set(first_rows(rare, 3, np.random.default_rng(0)).tolist()) > {98, 99}


def test_positions_match_the_index_file() -> None:
    assert first_rows(pool((2, 2), np.array([10, 20, 30, 40])), 4, np.random.default_rng(0)).tolist() == [10, 20, 30, 40]
    positions, texts = pool((2, 2), np.array([10, 20, 30, 40])).without(np.array([20, 40]))
    assert (positions.tolist(), texts) == ([10, 30], ["0", "2"])


def test_a_bounded_pool_keeps_its_row_numbers(tiny: Path, topics_csv: Path) -> None:
    (base,) = planned(tiny, topics_csv).bases
    whole, few = Pool.load(base.config), Pool.load(base.config.override("data.max_train_samples=40"))
    assert (len(whole.positions), len(few.positions)) == (96, 40)
    assert whole.fingerprint == few.fingerprint
    assert [whole.examples.texts[i] for i in few.positions] == [*few.examples.texts]
    limited = base.config.override("data.max_train_samples=40", "data.train_indices=null").data
    assert np.bincount(few.examples.require_labels()).tolist() == [10] * 4
    assert limited.validation == 0


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("labels", "fits"), [(("3", "8"), False), (("4", "96"), True), (("4", "97"), False)])
def test_numbers_of_labels_fit_classes_and_pool(
    tiny: Path, topics_csv: Path, tmp_path: Path, labels: tuple[str, ...], fits: bool
) -> None:
    rounds = planned(tiny, topics_csv, labels=labels).rounds(tmp_path / "e", lambda what: None)
    if fits:
        next(rounds)
        return
    with pytest.raises(LoralabError, match=r"96 rows to choose from and 4 classes.*from 4 to 96"):
        next(rounds)
    assert not (tmp_path / "e").exists()


def test_other_steps_and_changed_rows_are_refused(tiny: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "rows.csv", topics(20))
    folder = tmp_path / "e"
    plan = planned(tiny, data, labels=("8",), strategies=("random",), seeds=(1,))
    run_experiment(plan, folder)
    with pytest.raises(LoralabError, match="was run with labels=8, and each number builds on the one before"):
        run_experiment(replace(plan, labels=[4, 8]), folder)
    write_csv(data, topics(20, seed=1))
    with pytest.raises(LoralabError, match="training rows have changed"):
        run_experiment(plan, folder)


@pytest.mark.parametrize("damage", ["1\n2\n", "0\n0\n1\n2\n3\n4\n5\n6\n", "one"])
def test_a_damaged_index_file_is_reported(tiny: Path, topics_csv: Path, tmp_path: Path, damage: str) -> None:
    plan = planned(tiny, topics_csv, labels=("8",), strategies=("random",), seeds=(1,))
    next(plan.rounds(tmp_path / "e", lambda what: None))
    (tmp_path / "e" / "indices" / "labels-8_seed-1.txt").write_text(damage, encoding="utf-8")
    with pytest.raises(LoralabError, match=r"labels-8_seed-1\.txt"):
        next(plan.rounds(tmp_path / "e", lambda what: None))


def test_each_recipe_has_its_own_pool_and_chains(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    other = shutil.copy(topics_csv, tmp_path / "other.csv")
    points = {"strategy": ("random",), "labels": ("8",)}
    plan = plan_active(find_kind("active"), [str(topics_csv), str(other)], [f"model.base={tiny}", *SETTINGS], points, (1,))
    trials = next(plan.rounds(tmp_path / "e", lambda what: None))
    assert [trial.factors["recipe"] for trial in trials] == [str(topics_csv), str(other)]
    assert len({trial.config.data.train_indices for trial in trials}) == 2
    assert len(CLASSES) == 4
