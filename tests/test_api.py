"""The functions of `import loralab` on files and on data in memory, and what they return."""

from __future__ import annotations

import inspect
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.figure
import matplotlib.image
import pandas as pd
import polars as pl
import pytest
from command_line import done
from tiny import topics, write_csv

import loralab
from loralab import Experiment, LoralabError, Run, Scores
from loralab.api.arguments import python_words
from loralab.info import count_parameters
from loralab.storage import run_folder

ROWS = topics(15)
FRAME = pd.DataFrame(ROWS, columns=["text", "label"])


@pytest.fixture
def fast(tiny: Path) -> dict[str, Any]:
    return {"model.base": str(tiny), "train.epochs": 1, "lora.rank": 2}


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {"model.base": str(tiny), "train.epochs": 2, "lora.rank": 2, "train.track": ["balance:World/Sports"]}
    return loralab.train(FRAME, settings, name="frame", runs=tmp_path_factory.mktemp("runs"))


def test_a_run_on_data_in_memory_is_that_on_a_file(run: Run, tiny: Path, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "rows.csv", ROWS)
    settings = ["lora.rank=2", f"model.base={tiny}", "train.epochs=2", "train.track=balance:World/Sports"]

    other = loralab.train(file, settings, runs=tmp_path, name="file")

    weights = (run_folder.MODEL, "adapter_model.safetensors")
    assert run.folder.joinpath(*weights).read_bytes() == other.folder.joinpath(*weights).read_bytes()
    assert run.scores is not None
    assert other.scores is not None
    assert run.scores.per_class == other.scores.per_class
    assert run.config.data.source == str(run.folder / "rows")


def test_a_run_says_what_it_did(run: Run) -> None:
    assert run.complete
    assert run.scores is not None
    assert run.validation is not None
    assert run.scores.rows == 12
    assert run.scores.accuracy == run.result["scores"]["accuracy"]
    assert [*run.scores.others] == ["balance:World/Sports"]
    assert run.classes == ("Business", "Sci/Tech", "Sports", "World")
    assert len(run.log) == run.result["steps"]
    assert run.log["validation accuracy"].iloc[-1] == pytest.approx(run.result["validation"]["accuracy"], abs=0.3)
    assert all(isinstance(figure, matplotlib.figure.Figure) for figure in run.figures.values())
    assert {"confusion", "learning_curve", "f1_by_class"} <= {*run.figures}
    assert f"{run.result['counts']['trainable']:,} parameters" in repr(run)
    assert "<table><tbody>" in run._repr_html_()  # no empty head
    page = run.report()
    assert Path(page).is_file()
    assert page._repr_html_().startswith("<iframe srcdoc=")


def test_predictions_of_the_test_rows(run: Run) -> None:
    assert run.scores is not None
    frame = run.predictions
    assert len(frame) == run.scores.rows
    assert (frame["true"] == frame["predicted"]).mean() == pytest.approx(run.scores.accuracy)
    assert {*frame["text"]} <= {text for text, _ in ROWS}


def test_a_notebook_shows_figures_on_a_white_ground(run: Run) -> None:
    figure = run.figures["confusion"]
    image = matplotlib.image.imread(io.BytesIO(figure._repr_png_()), format="png")  # type: ignore[attr-defined]
    assert (image[0, 0] == 1).all()
    assert figure.get_suptitle().startswith("Confusion matrix")


def test_a_budget_as_frame(tiny: Path) -> None:
    frame = loralab.budget(settings={"model.base": str(tiny)}, max_trainable=3_000)
    best = frame.query("targets == 'query+value' and layers == 'all'").iloc[0]
    fits, over = (
        loralab.Config().override(f"model.base={tiny}", "lora.targets=query,value", f"lora.rank={rank}")
        for rank in (best["rank"], best["rank"] + 1)
    )
    assert count_parameters(fits)[1].trainable == best["trainable"] == 3_000 - best["left"]
    assert count_parameters(over)[1].trainable > 3_000
    with pytest.raises(LoralabError, match="1,000"):
        loralab.budget(max_trainable=1000)


def test_the_sample_as_frames() -> None:
    train, test = loralab.load_sample()
    assert (len(train), len(test)) == (800, 400)
    assert [*train.columns] == ["title", "description", "label", "border"]
    assert train["label"].value_counts().to_dict() == dict.fromkeys(("World", "Sports", "Business", "Sci/Tech"), 200)


def test_scores_as_table_and_frame(run: Run) -> None:
    scores = loralab.evaluate(run, FRAME)

    assert isinstance(scores, Scores)
    assert scores.to_frame().loc["World", "true"] == 15
    assert scores.per_class["World"].true == 15
    assert "accuracy 0." in repr(scores) or "accuracy 1." in repr(scores)
    assert "Sci/Tech" in scores._repr_html_()
    polars = loralab.evaluate(str(run.folder), pl.DataFrame(FRAME.to_dict("list")))
    assert polars == scores
    assert loralab.evaluate(loralab.load(run.folder), (FRAME["text"], FRAME["label"])) == scores


def test_labels_of_other_rows_must_be_classes(run: Run) -> None:
    with pytest.raises(LoralabError, match="the rows, column 'label': label 'Wrld' in row 0 is not a class; did you mean 'World'"):
        loralab.evaluate(run, {"text": ["a"], "label": ["Wrld"]})


def test_a_run_with_its_rows_can_be_moved_diagnosed_and_trained_again(run: Run, fast: dict[str, Any], tmp_path: Path) -> None:
    first = loralab.train(FRAME, fast, name="first", runs=tmp_path)
    folder = first.folder.rename(tmp_path / "moved")
    moved = Run(folder)

    diagnosis = loralab.diagnose(moved, texts=["a text"], rows=10)
    page = moved.report().path.read_text(encoding="utf-8")
    again = loralab.train(moved.folder, name="moved", runs=tmp_path, overwrite=True)

    assert diagnosis.attributions
    assert "Near-duplicates of training rows" in page
    assert again.result["scores"] == moved.result["scores"]
    assert (again.folder / "rows" / "train.parquet").is_file()
    assert loralab.diagnose(again, FRAME.head(10), rows=10).sections


def test_without_its_rows_a_run_says_so(fast: dict[str, Any], tmp_path: Path) -> None:
    run = loralab.train(FRAME, fast, name="kept", runs=tmp_path, keep_data=False)

    assert not (run.folder / "rows").exists()
    with pytest.raises(LoralabError, match=r"rows in memory, which it does not keep \(keep_data=False\): give the rows again"):
        loralab.diagnose(run)


def test_an_interrupted_run_resumes_with_rows_given_again_or_kept(fast: dict[str, Any], tmp_path: Path) -> None:
    class Interrupt(loralab.Callback):
        def on_step_end(self, event: Any) -> None:
            if event.step == 3:
                raise KeyboardInterrupt

    settings = {**fast, "train.epochs": 3, "train.eval_steps": 1}
    whole = loralab.train(FRAME, settings, name="whole", runs=tmp_path)
    for name in ("given", "kept"):
        with pytest.raises(LoralabError, match="with resume=True"):
            loralab.train(FRAME, settings, name=name, runs=tmp_path, callbacks=[Interrupt()])

    given = loralab.train(FRAME, settings, name="given", runs=tmp_path, resume=True)
    kept = loralab.train(tmp_path / "kept", name="kept", runs=tmp_path, resume=True)

    expected = (whole.folder / "model" / "adapter_model.safetensors").read_bytes()
    assert (given.folder / "model" / "adapter_model.safetensors").read_bytes() == expected
    assert (kept.folder / "model" / "adapter_model.safetensors").read_bytes() == expected
    with pytest.raises(LoralabError, match="interrupted after step 3"):
        loralab.train(FRAME, settings, name="other", runs=tmp_path, callbacks=[Interrupt()])
    with pytest.raises(LoralabError, match="cannot be resumed to the same result"):
        loralab.train(FRAME.iloc[::-1], settings, name="other", runs=tmp_path, resume=True)


def test_parts_in_memory(fast: dict[str, Any], tmp_path: Path) -> None:
    run = loralab.train({"train": FRAME[:40], "test": FRAME[40:]}, fast, runs=tmp_path, name="parts")

    assert run.scores is not None
    assert run.scores.rows == 20
    assert sorted(path.name for path in (run.folder / "rows").iterdir()) == ["test.parquet", "train.parquet"]


def test_the_class_names_of_a_recipe_are_not_those_of_other_rows(fast: dict[str, Any]) -> None:
    rows = {"text": [*FRAME["text"][:40]], "label": [0, 1] * 20}

    check = loralab.check_data(rows, fast)

    assert [*check.reports[0].classes] == ["0", "1"]


def test_checking_data_before_training(fast: dict[str, Any], tmp_path: Path) -> None:
    frame = FRAME.copy()
    frame.loc[3, "label"] = None

    check = loralab.check_data(frame, fast)

    assert not check.refused
    assert (check.to_frame()["message"].str.contains("1 of 60 rows has no label")).any()
    assert "rows        60" in repr(check)
    assert "--" not in repr(check)
    assert "<table>" in check._repr_html_()
    assert check.report(tmp_path / "page.html").path.is_file()
    assert loralab.check_data({"text": ["a", "b"], "label": ["x", "x"]}, fast).refused


def test_an_experiment_on_data_in_memory(fast: dict[str, Any], tmp_path: Path) -> None:
    made = loralab.experiment("seeds", FRAME, fast, seeds=[1, 2], runs=tmp_path, name="seeds")

    assert isinstance(made, Experiment)
    assert len(made.runs) == len(made.to_frame()) == 2
    assert made.summary()["seeds"].tolist() == [2]
    assert made.findings
    assert made.question in repr(made)
    assert all(isinstance(figure, matplotlib.figure.Figure) for figure in made.figures.values())
    assert made.report().path.is_file()
    again = loralab.experiment("seeds", FRAME, fast, seeds=[1, 2, 3], runs=tmp_path, name="seeds")
    assert len(again.runs) == 3
    with pytest.raises(LoralabError, match="holds an experiment on other rows"):
        loralab.experiment("seeds", FRAME[:40], fast, seeds=[1, 2], runs=tmp_path, name="seeds")
    new = loralab.experiment("seeds", FRAME[:40], fast, seeds=[1], runs=tmp_path, name="seeds", overwrite=True)
    assert len(new.runs) == 1
    with pytest.raises(LoralabError, match="seeds compares; a search chooses"):
        _ = new.best


def test_points_are_python_values(fast: dict[str, Any], tmp_path: Path) -> None:
    points = {"lora.targets": [["query"], ["query", "value"]], "lora.layers": [None, "top1"]}

    made = loralab.experiment("grid", FRAME, fast, points=points, seeds=[1], runs=tmp_path)

    assert {run.config.lora.targets for run in made.runs} == {("query",), ("query", "value")}
    assert {run.config.lora.layers for run in made.runs} == {None, "top1"}


def test_comparing_runs_and_a_soup(fast: dict[str, Any], tmp_path: Path) -> None:
    runs = [loralab.train(FRAME, [*(f"{k}={v}" for k, v in fast.items()), f"seed={seed}"], runs=tmp_path) for seed in (1, 2)]

    compared = loralab.compare(runs, folder=tmp_path)
    soup = loralab.model_soup(runs, tmp_path / "soup")

    assert [run.name for run in runs] == ["data-s1", "data-s2"]
    assert compared.kind == "compare"
    assert loralab.load(tmp_path / "soup").predict(["a text"]).labels
    assert soup.folder == tmp_path / "soup"


@pytest.mark.slow
def test_a_search_on_data_in_memory(fast: dict[str, Any], tmp_path: Path) -> None:
    made = loralab.search(
        FRAME, fast, over={"train.learning_rate": "1e-4..1e-2:log", "lora.alpha": [2, 4]}, trials=2, runs=tmp_path
    )

    assert made.best.lora.alpha in (2, 4)
    assert loralab.train(FRAME, recipe=made.best, runs=tmp_path, name="best").complete


def test_messages_speak_python() -> None:
    message = "x exists: choose another --name, or replace it with --overwrite\n  loralab export x --overwrite"

    assert (
        python_words(message) == "x exists: choose another name, or replace it with overwrite=True\n  loralab export x --overwrite"
    )


def test_settings_are_a_mapping_or_a_list(fast: dict[str, Any]) -> None:
    with pytest.raises(LoralabError, match=r"settings='lora\.rank=4': give a dict such as"):
        loralab.train(FRAME, "lora.rank=4")
    with pytest.raises(LoralabError, match=r"unknown setting 'lora\.rnk'; did you mean 'lora\.rank'"):
        loralab.train(FRAME, {"lora.rnk": 4})
    assert loralab.check_data(FRAME, {**fast, "data.text": ["text"], "data.clean": [], "train.class_weights": {"World": 2}}).reports


def test_predictions_as_table_and_frame(run: Run) -> None:
    predictions = loralab.load(run.folder).predict(["<b>one</b> text", "another"] * 8)

    frame = predictions.to_frame()

    assert frame.columns.tolist()[:3] == ["text", "label", "confidence"]
    assert frame["label"].tolist() == predictions.labels
    assert "Predictions of 16 texts, the first 10" in repr(predictions)
    assert "&lt;b&gt;one" in predictions._repr_html_()


def test_scores_of_predictions_are_those_of_evaluate(run: Run) -> None:
    predictions = loralab.load(run.folder).predict(FRAME["text"].tolist())

    scores = Scores.from_predictions(predictions, FRAME["label"].tolist())

    assert scores.per_class == loralab.evaluate(run, FRAME).per_class
    with pytest.raises(LoralabError, match="label 'Wrld' is not a class; did you mean 'World'"):
        Scores.from_predictions(predictions, ["Wrld"] * 60)
    with pytest.raises(LoralabError, match="1 labels do not fit 60 predictions"):
        Scores.from_predictions(predictions, ["World"])


def test_texts_are_rewritten_as_on_the_command_line() -> None:
    text = "Oil prices fall to the lowest level of the year"

    rewritten = loralab.augment([text, "one two three four"], ["swap", "deletion"], strength=0.2)

    shown = json.loads(done("augment", text, "--technique", "swap", "--technique", "deletion", "--strength", "0.2", "--json"))
    assert {item["technique"]: item["text"] for item in shown[1:]} == {name: texts[0] for name, texts in rewritten.items()}
    assert sorted(rewritten["swap"][1].split()) == ["four", "one", "three", "two"]
    with pytest.raises(LoralabError, match="'swop' is not a technique; did you mean 'swap'"):
        loralab.augment([text], ["swop"])
    with pytest.raises(LoralabError, match="texts is one text"):
        loralab.augment(text)


def test_no_progress_where_nobody_looks(run: Run, fast: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loralab.train(FRAME, fast, runs=tmp_path, name="quiet")
    assert capsys.readouterr() == ("", "")

    loralab.train(FRAME, fast, runs=tmp_path, name="loud", verbose=True)
    shown = capsys.readouterr()
    assert "parameters" in shown.out + shown.err


@pytest.mark.parametrize("name", loralab.__all__)
def test_public_names_are_documented(name: str) -> None:
    member = getattr(loralab, name)

    documentation = inspect.getdoc(member) or ""
    assert len(documentation) > 40
    if inspect.isfunction(member):
        for parameter in inspect.signature(member).parameters:
            assert parameter in documentation, parameter


def test_importing_loralab_is_light() -> None:
    modules = "[name for name in ('torch', 'sklearn', 'pandas') if name in sys.modules]"
    code = f"import sys, loralab; loralab.list_recipes(); loralab.LoralabError; print({modules})"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
