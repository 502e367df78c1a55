"""Run folder → values: sums and shares against SciPy, scikit-learn and hand-computed numbers."""

from __future__ import annotations

import csv
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from fake_run import CLASSES, TEMPERATURE, ece_by_hand, edit, make_run, read_rows, softmax
from sklearn.metrics import confusion_matrix

from loralab.errors import LoralabError
from loralab.metrics import CalibrationBin
from loralab.report import predictions
from loralab.report.formatting import shorten
from loralab.report.predictions import PredictionSummary, read_predictions
from loralab.report.run_data import Step, parse_events, read_run, thin_steps
from loralab.storage import run_folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def gaps(bins: tuple[CalibrationBin, ...]) -> float:
    return sum(b.rows * abs(b.accuracy - b.confidence) for b in bins) / sum(b.rows for b in bins)


def test_an_evaluation_has_the_mean_training_loss_since_the_previous_one() -> None:
    def step(number: int, loss: float) -> dict[str, object]:
        return {"event": "StepEnd", "step": number, "epoch": 0.1, "learning_rate": 0.1 * number, "loss": loss}

    def evaluation(number: int) -> dict[str, object]:
        return {"event": "EvalEnd", "step": number, "epoch": 0.1, "scores": {}, "improved": True, "seconds": 1.0}

    steps, evaluations = parse_events([evaluation(0), step(1, 1.0), step(2, 3.0), evaluation(2), step(3, 5.0), evaluation(3)])
    assert [step.loss for step in steps] == [1.0, 3.0, 5.0]
    assert [(row.step, row.train_loss, row.learning_rate) for row in evaluations] == [
        (0, None, None),
        (2, 2.0, pytest.approx(0.2)),
        (3, 5.0, pytest.approx(0.3)),
    ]
    assert evaluations[0].process_mb is None


def test_thinned_steps_are_means_of_neighbours() -> None:
    steps = [Step(i, i / 7, 1e-3 * i, float(i)) for i in range(1, 8)]
    assert [(s.step, s.loss) for s in thin_steps(steps, 3)] == [(3, 2.0), (6, 5.0), (7, 7.0)]
    assert thin_steps(steps, 7) == steps
    assert thin_steps([], 3) == []


def test_shortened_names_keep_their_ends_and_drop_control_characters() -> None:
    assert shorten("card_payment_not_recognised_7", 12) == "card_p…sed_7"
    assert shorten("a\n b\x07\u202ec", 12) == "a b c"
    assert all(len(shorten("x" * 50, most)) == most for most in range(4, 30))


def test_predictions_equal_sklearn_and_the_formula(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, logits = read_rows(run)
    found = read_predictions(run, CLASSES)
    assert found
    np.testing.assert_array_equal(found.confusion, confusion_matrix(labels, logits.argmax(axis=1)))
    assert found.errors == (labels != logits.argmax(axis=1)).sum() > 2 * predictions.MAX_ERRORS
    assert all(b.low < b.confidence <= b.high for b in (*found.uncalibrated, *found.calibrated))
    assert gaps(found.uncalibrated) == pytest.approx(ece_by_hand(softmax(logits), labels), abs=1e-9)
    assert gaps(found.calibrated) == pytest.approx(ece_by_hand(softmax(logits / TEMPERATURE), labels), abs=1e-4)
    sure = softmax(logits / TEMPERATURE).max(axis=1)
    wrong = sorted(np.flatnonzero(labels != logits.argmax(axis=1)), key=lambda i: -sure[i])
    assert [int(each.row) for each in found.top_errors] == wrong[: predictions.MAX_ERRORS]
    assert found.top_errors[0].text == f"some text {wrong[0]}"
    monkeypatch.setattr(predictions, "CHUNK_ROWS", 7)
    in_pieces = read_predictions(run, CLASSES)
    assert in_pieces
    np.testing.assert_array_equal(in_pieces.confusion, found.confusion)
    assert (in_pieces.top_errors, in_pieces.rows) == (found.top_errors, found.rows)
    assert gaps(in_pieces.uncalibrated) == pytest.approx(gaps(found.uncalibrated))


def test_a_text_may_be_longer_than_pythons_csv_expects(run: Path) -> None:
    (run / run_folder.PREDICTIONS).write_text("row,true,predicted,confidence,text\n0,World,Sports,0.5," + "x" * 200_000 + "\n")
    found = read_predictions(run, CLASSES)
    assert found
    assert len(found.top_errors[0].text) == 200_000


def test_pairs_come_by_rows_with_the_share_of_their_class() -> None:
    confusion = np.array([[6, 1, 3], [0, 5, 0], [4, 0, 4]])
    found = PredictionSummary(23, ("a", "b", "c"), confusion, (), (), ())
    assert [(p.true, p.predicted, p.rows, p.share) for p in found.class_pairs()] == [
        ("c", "a", 4, 0.5),
        ("a", "c", 3, 0.3),
        ("a", "b", 1, 0.1),
    ]
    assert [p.rows for p in found.class_pairs(1)] == [4]


def test_run_data_agrees_with_the_files(run: Path) -> None:
    run_data = read_run(run)
    labels, logits = read_rows(run)
    assert run_data.correct() == (labels == logits.argmax(axis=1)).sum()
    assert (run_data.test_rows, run_data.validation_rows, run_data.row_count("train"), run_data.row_count("validation")) == (
        200,
        200,
        640,
        None,
    )
    assert run_data.majority_class() == ("World", 0.25)
    assert run_data.parameters() == {"base": 1000, "adapter": 60, "head": 40, "trainable": 100, "total": 1100, "share": 100 / 1100}
    assert [row.name for row in run_data.settings() if row.changed] == []
    assert len(run_data.steps) == 40
    assert [row.step for row in run_data.evaluations] == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (run_folder.PREDICTIONS, "row,true,predicted,confidence,text\n0,World,Nowhere,0.5,x\n", "predictions.csv"),
        (run_folder.PREDICTIONS, "row,true\n0,World\n", "predictions.csv"),
        (run_folder.PREDICTIONS, 'row,true,predicted,confidence,text\n0,World,World,0.5,"cut off', "predictions.csv"),
        (run_folder.SCORES, '{"scores": {}}', "damaged"),
        (run_folder.DIAGNOSIS, "[]", "diagnosis.json"),
        (run_folder.CONFIG, "seed: 1\n", "cut off"),
    ],
)
def test_damaged_files_are_named(run: Path, file: str, content: str, said: str) -> None:
    (run / file).write_text(content)
    with pytest.raises(LoralabError, match=said):
        read_run(run)


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match="not a run"):
        read_run(tmp_path)


def test_a_run_may_have_no_temperature(run: Path) -> None:
    edit(run / run_folder.SCORES, temperature=None, calibrated=None)
    run_data = read_run(run)
    assert run_data.result
    assert (run_data.result.temperature, run_data.result.calibrated) == (None, {})


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(run: Path) -> None:
    with (run / run_folder.PREDICTIONS).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["row", "true", "predicted", "confidence", "text"])
        table.writerows([i, "World", CLASSES[i % 2], "0.5", "x" * 1000] for i in range(60_000))
    tracemalloc.start()
    found = read_predictions(run, CLASSES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found
    assert (found.rows, found.errors, found.uncalibrated) == (60_000, 30_000, ())
    assert peak < 20e6 < (run / run_folder.PREDICTIONS).stat().st_size
