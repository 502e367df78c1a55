"""The text files of a report: log, description, metrics and model card, against the run's numbers and huggingface_hub."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import CLASSES, HOSTILE, edit, make_run, softmax
from huggingface_hub import ModelCard
from sealing import reseal
from tiny import make_checkpoint, topics, write_csv

from loralab import Classifier, load_config
from loralab.config.paths import hub_id
from loralab.errors import LoralabError
from loralab.pipeline import run_training
from loralab.report.figures.run_figures import draw_run_figures
from loralab.report.html import render_run
from loralab.report.model_card import export_forms, model_card
from loralab.report.run_data import read_run
from loralab.report.text_files import model_description, training_log, write_metrics
from loralab.report.write import write_report
from loralab.storage import run_folder

TEXTS = (
    run_folder.REPORT,
    run_folder.CARD,
    run_folder.TRAINING_LOG,
    run_folder.METRICS,
    run_folder.DESCRIPTION_TEXT,
    run_folder.DESCRIPTION,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts") / "mine"
    source = folder.parent / "private" / "reviews.csv"
    made = make_run(folder, lora__rank="4", data__source=str(source), train__label_smoothing="0.1")
    write_report(made)
    return made


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def page_of(folder: Path) -> str:
    """The page without figures, which take a second to draw; that they can be laid out is seen."""
    tables = read_run(folder)
    draw_run_figures(tables)
    return render_run(tables, [])


def test_metrics_have_a_row_per_step_and_scores_at_evaluations(run: Path) -> None:
    rows = read_csv((run / run_folder.METRICS).read_text(encoding="utf-8"))
    assert [int(row["step"]) for row in rows] == [*range(1, 41)]
    assert float(rows[9]["train_loss"]) == pytest.approx(2.0 - 10 / 40)
    assert float(rows[9]["learning_rate"]) == pytest.approx(0.001 * 0.75)
    events = [event for event in run_folder.read_log(run) if event["event"] == "EvalEnd"]
    measured = [row for row in rows if row["validation_loss"]]
    assert [int(row["step"]) for row in measured] == [10, 20, 30, 40]
    for row, event in zip(measured, events, strict=True):
        assert {name: float(row[f"validation_{name}"]) for name in event["scores"]} == event["scores"]
        assert float(row["process_mb"]) == 1234.5


def test_a_run_without_training_has_one_evaluation_in_its_metrics(tmp_path: Path) -> None:
    made = make_run(tmp_path / "zero")
    first = next(event for event in run_folder.read_log(made) if event["event"] == "EvalEnd")
    (made / run_folder.LOG).write_text(json.dumps({**first, "step": 0, "epoch": 0.0}) + "\n")
    file = io.StringIO()
    write_metrics(read_run(made), file)
    rows = read_csv(file.getvalue())
    assert [(row["step"], row["train_loss"], float(row["validation_loss"])) for row in rows] == [("0", "", first["scores"]["loss"])]


def test_the_log_has_settings_steps_evaluations_and_results(run: Path) -> None:
    log = (run / run_folder.TRAINING_LOG).read_text(encoding="utf-8")
    lines = [line.split() for line in log.splitlines()]
    assert ["*", "lora.rank", "4"] in lines
    assert ["lora.alpha", "16"] in lines
    assert ["7", "0.35", "8.250e-04", "1.8250"] in lines
    scores = run_folder.read_scores(run)["scores"]
    assert sum("evaluation at step" in line for line in log.splitlines()) == 4
    assert f"accuracy {scores['accuracy']:.4f}" in log
    assert "memory 1,234 MB" in log
    assert ["Accuracy", f"{scores['accuracy']:.4f}"] in lines
    assert ["trainable", "100"] in lines


def test_the_description_separates_parameter_counts(run: Path) -> None:
    found = json.loads((run / run_folder.DESCRIPTION).read_text(encoding="utf-8"))
    parameters = {"base": 1000, "adapter": 60, "head": 40, "trainable": 100, "total": 1100, "share": 100 / 1100}
    assert found["parameters"] == parameters
    assert found["lora"]["rank"] == 4
    assert (found["classes"], found["pooling"], found["head"]) == ([*CLASSES], "mean", "linear")
    assert (found["precision"], found["device"], found["sizes"]["layers"]) == ("fp32", "cpu", 6)
    text = (run / run_folder.DESCRIPTION_TEXT).read_text(encoding="utf-8")
    assert "9.0909%" in text
    assert "World, Sports, Business, Sci/Tech" in text


def test_the_hub_reads_the_card_and_its_scores(run: Path) -> None:
    card = ModelCard((run / run_folder.CARD).read_text(encoding="utf-8"))
    scores = run_folder.read_scores(run)["scores"]
    assert card.data.library_name == "loralab"
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data.eval_results
    measured = {(result.metric_type, result.metric_value) for result in card.data.eval_results}
    assert measured == {("accuracy", round(scores["accuracy"], 4)), ("f1", round(scores["macro_f1"], 4))}
    assert {(result.dataset_name, result.dataset_split) for result in card.data.eval_results} == {("reviews.csv", "test")}
    assert (card.data.license, card.data.language) == (None, None), "what is not known is left out"
    assert all(result.metric_name.startswith("Test ") for result in card.data.eval_results)
    assert "| lora.rank | 4 |" in card.text
    assert 'PeftModel.from_pretrained(base, "model")' in card.text


def test_the_card_has_the_license_of_the_base(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run")
    edit(made / run_folder.MODEL / "loralab.json", base_license="apache-2.0")
    card = ModelCard(model_card(read_run(made), frozenset()))
    assert card.data.license == "apache-2.0"
    assert "check `license` at its top, which is the base's" in card.text


def test_a_card_has_the_scores_of_the_calibrated_probabilities(run: Path) -> None:
    scores = run_folder.read_scores(run)
    card = (run / run_folder.CARD).read_text(encoding="utf-8")
    loss = f"{scores['scores']['loss']:.4f} | {scores['calibrated']['loss']:.4f} | {scores['validation']['loss']:.4f}"
    assert "| score | test | test, calibrated | validation |" in card
    assert f"| Loss (cross entropy) | {loss} |" in card


def test_the_card_holds_no_path(run: Path) -> None:
    card = (run / run_folder.CARD).read_text(encoding="utf-8")
    assert "reviews.csv" in card
    assert str(run.parent) not in card
    assert "private" not in card
    assert "/secret/place" not in "".join((run / name).read_text(encoding="utf-8") for name in TEXTS)


def test_only_hub_ids_are_named_as_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    found = {base: hub_id(base) for base in ("minilm", "roberta-base", "a/b-c.d", "mine", "./x", "/a/b", "~/x", "a/b/c")}
    known = {"minilm": "sentence-transformers/all-MiniLM-L6-v2", "roberta-base": "roberta-base", "a/b-c.d": "a/b-c.d"}
    assert {base: name for base, name in found.items() if name} == known


def test_the_card_names_translation_models_without_their_folders(tmp_path: Path) -> None:
    settings = {"data__augment": "back_translation", "data__back_translation": f"{tmp_path}/en-fr,Helsinki-NLP/opus-mt-fr-en"}
    card = model_card(read_run(make_run(tmp_path / "x", **settings)), frozenset())
    assert str(tmp_path).replace("_", "\\_") not in card
    assert "en-fr, Helsinki-NLP/opus-mt-fr-en" in card or "en-fr,Helsinki-NLP/opus-mt-fr-en" in card


def test_the_base_s_commit_is_in_the_description_and_the_card(tmp_path: Path) -> None:
    made = make_run(tmp_path / "x", model__base="acme/tiny")
    edit(made / run_folder.ENVIRONMENT, base={"name": "acme/tiny", "sha256": "53aa", "revision": "0123abcd"})
    assert model_description(read_run(made))["base"]["revision"] == "0123abcd"
    card = ModelCard(model_card(read_run(made), frozenset({"adapter_config.json", "head.safetensors"})))
    assert (card.data.base_model, card.data.base_model_relation) == ("acme/tiny", "adapter")
    assert card.text.count("0123abcd") == 2


@pytest.mark.parametrize(
    ("changes", "forms"),
    [
        ({}, ["onnx", "merged", "sentence-transformers"]),
        ({"pooling": 2}, ["onnx"]),
        ({"lora": {"variant": "dora"}}, ["onnx", "sentence-transformers"]),
        ({"classes": 200}, ["onnx", "sentence-transformers"]),
        ({"quantize": "8bit"}, []),
    ],
)
def test_the_card_names_the_exports_that_the_model_has(changes: dict[str, Any], forms: list[str]) -> None:
    manifest = {"pooling": "mean", "head": "linear", "dims": {"width": 384, "activation": "gelu"}, **changes}
    assert (
        re.findall(r"`([a-z-]+)`", " ".join(export_forms(manifest, manifest.get("classes", 4))).replace("`pipeline`", "")) == forms
    )


def test_hostile_names_break_neither_card_nor_table(tmp_path: Path) -> None:
    made = make_run(tmp_path / "x", HOSTILE, data__source='"a: b\\n---\\n|<i>"')
    card = ModelCard(model_card(read_run(made), frozenset()))
    assert card.data.pipeline_tag == "text-classification"
    assert "<script" not in card.text
    assert "<img" not in card.text
    table = [line for line in card.text.splitlines() if line.endswith(" | 50 |")]
    assert len(table) == 4
    assert {line.replace("\\|", "").count("|") for line in table} == {6}


def test_a_report_is_reproducible(run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert write_report(run) == run / run_folder.REPORT
    after = {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert before == after
    assert {*TEXTS, "confusion.png", "reliability.png", "all_metrics.png"} <= set(after)
    assert {path.name for path in run.iterdir()} <= run_folder.NAMES
    run_folder.check_available(run, overwrite=True)


@pytest.mark.parametrize(
    "missing",
    [
        (run_folder.PREDICTIONS,),
        (run_folder.DIAGNOSIS,),
        (run_folder.SCORES, run_folder.PREDICTIONS, run_folder.DIAGNOSIS),
        (run_folder.LOG,),
        (
            run_folder.SCORES,
            run_folder.PREDICTIONS,
            run_folder.DIAGNOSIS,
            run_folder.LOG,
            "model/loralab.json",
        ),
    ],
)
def test_a_report_of_missing_files(tmp_path: Path, missing: tuple[str, ...]) -> None:
    made = make_run(tmp_path / "part")
    for name in missing:
        (made / name).unlink()
    page = page_of(made)
    tables = read_run(made)
    assert training_log(tables)
    assert model_description(tables)
    assert ModelCard(model_card(tables, frozenset())).data.library_name == "loralab"
    assert ("This run is not complete" in page) == (run_folder.SCORES in missing)
    assert ('id="errors"' in page) == (run_folder.PREDICTIONS not in missing)
    assert ('id="diagnosis"' in page) == (run_folder.DIAGNOSIS not in missing)


def test_a_report_says_which_files_of_the_model_are_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = make_run(tmp_path / "part")
    weights = made / "model" / "adapter_model.safetensors"
    weights.write_bytes(b"weights")
    reseal(made)
    write_report(made)
    assert caplog.messages == []
    weights.unlink()
    write_report(made)
    assert caplog.messages == [
        f"{made / 'model'} lacks adapter_model.safetensors: the report is complete, and the model cannot be loaded"
    ]


def test_an_incomplete_run_has_a_report(tmp_path: Path) -> None:
    made = make_run(tmp_path / "part")
    for name in (run_folder.SCORES, run_folder.PREDICTIONS, run_folder.DIAGNOSIS):
        (made / name).unlink()
    write_report(made)
    assert all((made / name).is_file() for name in TEXTS)
    training = {"learning_curve", "loss", "accuracy", "f1_by_step", "all_metrics"}
    assert {path.stem for path in (made / run_folder.FIGURES).iterdir()} == training
    assert "not complete" in (made / run_folder.TRAINING_LOG).read_text(encoding="utf-8")


def test_a_run_may_lack_some_scores(tmp_path: Path) -> None:
    made = make_run(tmp_path / "old")
    found = run_folder.read_scores(made)
    new = ("mcc", "kappa", "ece", "brier")
    kept = {name: value for name, value in found["scores"].items() if name not in new}
    edit(made / run_folder.SCORES, scores=kept, validation=kept, temperature=None, calibrated=None)
    events = [
        {k: v for k, v in event.items() if k != "memory"} | ({"scores": kept} if "scores" in event else {})
        for event in run_folder.read_log(made)
    ]
    (made / run_folder.LOG).write_text("".join(json.dumps(event) + "\n" for event in events))
    page = page_of(made)
    assert "Matthews" not in page
    assert "temperature" not in page.split('id="training"')[0]


def test_an_error_leaves_the_earlier_report_alone(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run")
    (made / run_folder.REPORT).write_text("earlier")
    (made / run_folder.PREDICTIONS).write_text("row\n1\n")
    with pytest.raises(LoralabError, match=r"predictions\.csv"):
        write_report(made)
    assert (made / run_folder.REPORT).read_text() == "earlier"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "head"), [("roberta", "default"), ("bert", "linear")])
def test_the_cards_peft_example_reproduces_the_runs_predictions(tmp_path: Path, kind: str, head: str) -> None:
    base = make_checkpoint(tmp_path / "base", kind)
    source = write_csv(tmp_path / "topics.csv", topics(15))
    mean = ["model.pooling=mean"] if head == "linear" else []
    settings = [f"model.base={base}", f"model.head={head}", *mean, "train.max_steps=3", "train.learning_rate=0.01"]
    folder = run_training(load_config(source, [*settings, "train.precision=fp32"]), folder=tmp_path).folder
    temperature = 0.7  # few rows may leave it at 1, where a test would see nothing
    edit(folder / run_folder.SCORES, temperature=temperature)
    edit(folder / "model" / "loralab.json", temperature=temperature)
    reseal(folder)
    write_report(folder)
    card = (folder / run_folder.CARD).read_text(encoding="utf-8")
    _, program = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    texts = ["the coach and a telescope", "a goal"]  # of different lengths: the second is padded
    program = program.replace("PATH/OF/THE/BASE", str(base)).replace('["a text", "another text, which is longer"]', repr(texts))
    script = f"import transformers; transformers.logging.set_verbosity_error()\n{program}\nprint(logits.tolist())"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    logits = np.array(json.loads(lines[-1]))
    loaded = Classifier.load(folder, precision="fp32").predict(texts)
    assert f"Temperature {temperature:.3f}, fitted on the validation rows, calibrates the probabilities" in card
    np.testing.assert_allclose(softmax(logits / temperature), loaded.probabilities, atol=2e-5)
    shown = np.array(re.findall(r"\d\.\d+(?:e-\d+)?", "".join(lines[:-1])), dtype=float).reshape(2, -1)
    np.testing.assert_allclose(shown, loaded.probabilities, atol=2e-4)


def test_a_disk_that_refuses_a_figure_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_run(tmp_path / "run")

    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("loralab.report.write.save_png", refuse)
    with pytest.raises(LoralabError, match=r"cannot write .*figures: No space left on device"):
        write_report(made)
