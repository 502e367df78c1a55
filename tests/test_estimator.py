"""LoraTextClassifier among scikit-learn's tools: labels as given, the same model as the command line, nothing left behind."""

from __future__ import annotations

import enum
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from command_line import done
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction.text import strip_accents_ascii
from sklearn.model_selection import GridSearchCV, cross_val_score, permutation_test_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tiny import topics, write_csv

from loralab import Callback, LoralabError, LoraTextClassifier, Run
from loralab.training.callbacks import EvalEnd, StepEnd

ROWS = topics(15)
TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]


class Colour(enum.Enum):
    """Labels that neither sort nor fit in JSON."""

    RED, BLUE = 1, 2


@pytest.fixture
def clf(tiny: Path) -> LoraTextClassifier:
    return LoraTextClassifier(base=str(tiny), epochs=2, rank=2, random_state=1)


@pytest.fixture(scope="module")
def fitted(tiny: Path) -> LoraTextClassifier:
    return LoraTextClassifier(base=str(tiny), epochs=4, rank=2, random_state=1).fit(TEXTS, LABELS)


def test_it_learns_and_says_how_sure_it_is(fitted: LoraTextClassifier) -> None:
    probabilities = fitted.predict_proba(TEXTS)

    assert fitted.classes_.tolist() == sorted({*LABELS})
    assert probabilities.shape == (60, 4)
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (fitted.classes_[probabilities.argmax(axis=1)] == fitted.predict(TEXTS)).all()
    assert fitted.score(TEXTS, LABELS) > 0.9


@pytest.mark.parametrize(
    "labels",
    [
        [10, 9, 2, 30],
        [-1, 1, 0, 2],
        [True, False],
        [5.0, -2.0],
        ["b", "a", "B", " a"],
        ["yes", "Yes", "1", "true"],
        ["", "nan", "None"],
        [(1, 2), (0, 5), (1,)],
        [1, "1", "one"],
        [Colour.RED, Colour.BLUE],
        np.array(["x", "yy"]),
        np.array([3, 1], dtype=np.int8),
        pd.Series(["x", "y"], dtype="category"),
        pl.Series(["x", "y"]),
    ],
    ids=str,
)
def test_labels_come_back_as_they_were_given(clf: LoraTextClassifier, labels: Any) -> None:
    kinds = list(labels)
    y = [kinds[i % len(kinds)] for i in range(len(TEXTS))]
    given = np.array(y, dtype=labels.dtype) if isinstance(labels, np.ndarray) else pd.Series(y) if hasattr(labels, "cat") else y

    predicted = clf.set_params(epochs=1).fit(TEXTS, given).predict(TEXTS).tolist()

    assert {*predicted} <= {*kinds}
    assert {*map(type, predicted)} <= {*map(type, np.array(kinds).tolist() if isinstance(labels, np.ndarray) else kinds)}
    assert len(clf.classes_) == len({*kinds})
    if isinstance(labels, np.ndarray):
        assert clf.classes_.dtype == labels.dtype


@pytest.mark.parametrize("labels", [["World", "Sports", "Business", "Sci/Tech"], [30, 4, 2, 10], ["B", "a", "item 10", "item 2"]])
def test_the_command_line_gives_the_same_adapter(tiny: Path, tmp_path: Path, labels: list[Any]) -> None:
    y = [labels[sorted({*LABELS}).index(label)] for label in LABELS]
    file = write_csv(tmp_path / "rows.csv", [(text, str(label)) for text, label in zip(TEXTS, y, strict=True)])
    settings = [f"model.base={tiny}", "train.epochs=2", "lora.rank=2", "seed=5", "data.test=0", "data.text=text"]

    done("train", file, *settings, "--runs", tmp_path, "--name", "cli", "--no-report")
    clf = LoraTextClassifier(base=str(tiny), epochs=2, rank=2, random_state=5, runs=tmp_path / "python").fit(TEXTS, y)

    files = sorted(path.name for path in (tmp_path / "cli" / "model").glob("*.safetensors"))
    assert files
    for name in files:
        assert (clf.run_.folder / "model" / name).read_bytes() == (tmp_path / "cli" / "model" / name).read_bytes()
    assert clf.classifier_.classes == Run(tmp_path / "cli").classes


def test_cross_validation_and_grid_search(clf: LoraTextClassifier) -> None:
    assert cross_val_score(clf, TEXTS, LABELS, cv=3).mean() > 0.5
    search = GridSearchCV(clf, {"rank": [1, 2]}, n_jobs=1, cv=2).fit(pd.Series(TEXTS), pd.Series(LABELS))

    assert search.best_params_["rank"] in (1, 2)
    assert search.predict(TEXTS[:2]).shape == (2,)


@pytest.mark.slow
def test_the_other_tools_of_scikit_learn(clf: LoraTextClassifier) -> None:
    pipeline = make_pipeline(FunctionTransformer(lambda texts: [strip_accents_ascii(text) for text in texts]), clf)
    assert pipeline.fit(TEXTS, LABELS).predict(TEXTS[:3]).shape == (3,)
    calibrated = CalibratedClassifierCV(clf, cv=2).fit(TEXTS, LABELS)
    assert calibrated.predict_proba(TEXTS[:3]).shape == (3, 4)
    score, others, p = permutation_test_score(clf, TEXTS, LABELS, cv=2, n_permutations=3)
    assert (len(others), 0 < p <= 1, 0 <= score <= 1) == (3, True, True)


def test_cloning_and_parameters(clf: LoraTextClassifier) -> None:
    copy = clone(clf.set_params(layers="top1", settings={"train.head_init": "random"}))

    assert copy.get_params() == clf.get_params()
    assert not hasattr(copy, "classes_")
    with pytest.raises(TypeError, match="unexpected keyword argument 'rnk'"):
        LoraTextClassifier(rnk=4)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="Invalid parameter 'rnk'"):
        clf.set_params(rnk=4)


def test_every_parameter_is_documented() -> None:
    documented = LoraTextClassifier.__doc__ or ""

    for name in LoraTextClassifier().get_params():
        assert f"\n    {name} : " in documented, name


def test_the_documented_defaults_are_those_of_quickstart() -> None:
    from loralab import load_config
    from loralab.api.estimator_settings import SETTINGS

    values = load_config("quickstart").flatten()
    documented = (LoraTextClassifier.__doc__ or "").split("\n    ----------\n")[1]
    for name in ("rank", "alpha", "dropout", "epochs", "batch_size", "label_smoothing", "max_length"):
        section = documented.split(f"\n    {name} : ")[1].split(" : ")[0]
        assert f"None: {values[SETTINGS[name]]:g}" in section, name


def test_pickles_by_value_in_a_new_process(fitted: LoraTextClassifier, tiny: Path, tmp_path: Path) -> None:
    clf = LoraTextClassifier(base=str(tiny), epochs=1, rank=2).fit(TEXTS, LABELS)
    expected = clf.predict_proba(TEXTS[:5])
    (tmp_path / "clf.pickle").write_bytes(pickle.dumps(clf))
    folder = clf.run_.folder
    del clf
    assert not folder.exists()  # the temporary run goes with its estimator

    code = f"""
import pickle, numpy as np, torch
torch.set_num_threads(1)
clf = pickle.load(open({str(tmp_path / "clf.pickle")!r}, "rb"))
np.save({str(tmp_path / "again.npy")!r}, clf.predict_proba({TEXTS[:5]!r}))
assert pickle.loads(pickle.dumps(clf)).predict({TEXTS[:5]!r}).tolist() == clf.predict({TEXTS[:5]!r}).tolist()
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    assert (np.load(tmp_path / "again.npy") == expected).all()


@pytest.mark.parametrize("labels", [["a", "b"], [2, 10], [(1, "x"), (2, "y")]], ids=str)
def test_saved_and_loaded_it_is_the_same(clf: LoraTextClassifier, tmp_path: Path, labels: list[Any]) -> None:
    clf.fit(TEXTS, [labels[i % 2] for i in range(len(TEXTS))])

    again = LoraTextClassifier.load(clf.save(tmp_path / "model"))

    assert (again.predict_proba(TEXTS) == clf.predict_proba(TEXTS)).all()
    assert again.classes_.tolist() == clf.classes_.tolist()
    assert again.get_params() == clf.get_params()
    assert "label" in done("predict", tmp_path / "model", "--input", "a text", "--json")
    with pytest.raises(LoralabError, match="exists: choose another folder"):
        clf.save(tmp_path / "model")
    clf.save(tmp_path / "model", overwrite=True)


def test_labels_that_no_file_holds_are_refused_when_saving(clf: LoraTextClassifier, tmp_path: Path) -> None:
    clf.fit(TEXTS, [list(Colour)[i % 2] for i in range(len(TEXTS))])

    with pytest.raises(LoralabError, match="labels of type Colour"):
        clf.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert pickle.loads(pickle.dumps(clf)).predict(TEXTS[:2]).tolist() == clf.predict(TEXTS[:2]).tolist()


def test_runs_are_kept_where_they_should_be(clf: LoraTextClassifier, tmp_path: Path) -> None:
    clf.set_params(runs=tmp_path / "runs", epochs=1)

    first = clf.fit(TEXTS, LABELS).run_
    second = clf.fit(TEXTS, LABELS).run_

    assert [path.name for path in sorted((tmp_path / "runs").iterdir())] == ["fit-0001", "fit-0002"]
    assert first.folder != second.folder
    assert second.report().path.is_file()


def test_a_failed_fit_leaves_nothing_behind(clf: LoraTextClassifier, tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match="rank=-1"):
        clf.set_params(runs=tmp_path, rank=-1).fit(TEXTS, LABELS)

    assert not [*tmp_path.iterdir()]


def test_a_run_outlives_its_estimator(tiny: Path) -> None:
    run = LoraTextClassifier(base=str(tiny), epochs=0).fit(TEXTS, LABELS).run_

    assert run.classifier().predict(TEXTS[:1]).labels


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_data_frames_with_named_columns(clf: LoraTextClassifier, frame: Any) -> None:
    rows = frame({"title": TEXTS, "body": ["more text"] * len(TEXTS), "topic": LABELS, "n": range(len(TEXTS))})

    clf.set_params(text=["title", "body"], epochs=1).fit(rows, "topic")

    assert clf.predict(rows).shape == (60,)
    assert clf.run_.config.data.text == ("title", "body")
    assert clf.run_.config.data.label == "topic"
    joined = clf.predict_proba([f"{text} more text" for text in TEXTS[:3]])
    assert (joined == clf.predict_proba(rows[:3])).all()


def test_validation_data_chooses_the_weights(clf: LoraTextClassifier) -> None:
    clf.fit(TEXTS[:40], LABELS[:40], validation_data=(TEXTS[40:], LABELS[40:]))

    assert clf.run_.validation is not None
    assert clf.run_.validation.rows == 20
    with pytest.raises(ValueError, match="validation_data has the label 'other'"):
        clf.fit(TEXTS, LABELS, validation_data=(["a"], ["other"]))


def test_weights_of_rows_and_classes_matter(clf: LoraTextClassifier) -> None:
    clf.set_params(epochs=1, validation_fraction=0)
    plain = clf.fit(TEXTS, LABELS).predict_proba(TEXTS)
    equal = clf.fit(TEXTS, LABELS, sample_weight=[3.0] * len(TEXTS)).predict_proba(TEXTS)
    weighted = clf.fit(TEXTS, LABELS, sample_weight=[10.0 if own == "World" else 0.1 for own in LABELS]).predict_proba(TEXTS)
    by_class = clf.set_params(class_weight={"World": 10, "Sports": 0.1}).fit(TEXTS, LABELS).predict_proba(TEXTS)
    world = clf.classes_.tolist().index("World")

    assert (plain == equal).all()
    assert weighted[:, world].mean() > plain[:, world].mean()
    assert by_class[:, world].mean() > plain[:, world].mean()
    with pytest.raises(ValueError, match="class_weight has the label 'Wrld'"):
        clf.set_params(class_weight={"Wrld": 1}).fit(TEXTS, LABELS)


def test_a_run_in_a_temporary_folder_shows_no_path(fitted: LoraTextClassifier) -> None:
    assert repr(fitted.run_).startswith("run         in a temporary folder\n")


def test_callbacks_see_the_run_and_may_stop_it(clf: LoraTextClassifier) -> None:
    class Stop(Callback):
        steps = evaluations = 0
        folder: Path | None = None

        def on_step_end(self, event: StepEnd) -> bool:
            self.steps += 1
            return event.step == 2

        def on_evaluate(self, event: EvalEnd) -> None:
            self.evaluations += 1

        def on_train_end(self, folder: Path) -> None:
            self.folder = folder

    stop = Stop()
    clf.fit(TEXTS, LABELS, callbacks=[stop])

    assert (stop.steps, stop.evaluations, stop.folder) == (2, 1, clf.run_.folder)
    assert clf.run_.result["stopped_by_callback"]
    assert "Stopped by a callback after step 2" in clf.run_.report().path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ("one text", ["a"], "X is one text"),
        ([], [], "X has 0 rows"),
        (["a", "b"], ["x"], "inconsistent numbers of samples"),
        (["a", 3.5], ["x", "y"], "row 1 is a float, 3.5"),
        ([["a", "b"], ["c", "d"]], ["x", "y"], "row 0 is a list"),
        (["a", "b"], ["x", None], "y has no label in row 1"),
        (["a", "b"], [1.0, float("nan")], "y has no label in row 1"),
        (["a", "b"], [["x", "y"], ["z", "w"]], "row 0 is a list"),
        (["a", "b"], [3.5, 1.0], "Unknown label type: 3.5 in row 0"),
        (["a", "b"], None, "requires y to be passed"),
    ],
)
def test_unusable_input_is_named(clf: LoraTextClassifier, X: Any, y: Any, message: str) -> None:  # noqa: N803
    with pytest.raises((ValueError, TypeError), match=message):
        clf.fit(X, y)


def test_one_class_is_refused(clf: LoraTextClassifier) -> None:
    with pytest.raises(ValueError, match="y has one class, 'x'"):
        clf.fit(["a", "b"], ["x", "x"])


def test_messages_name_parameters(clf: LoraTextClassifier) -> None:
    with pytest.raises(LoralabError, match="rank='four': must be a whole number"):
        clf.set_params(rank="four").fit(TEXTS, LABELS)
    with pytest.raises(LoralabError, match="train\\.eval_steps=-1"):
        clf.set_params(rank=4, settings={"train.eval_steps": -1}).fit(TEXTS, LABELS)


def test_missing_texts_are_empty_texts(fitted: LoraTextClassifier) -> None:
    assert (fitted.predict_proba([None, float("nan"), ""]) == fitted.predict_proba(["", "", ""])).all()
