"""The whole diagnosis of a tiny run: its contents, reproducibility and errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sealing import reseal
from tiny import topics, write_csv

from loralab import Classifier, LoralabError, load_config
from loralab.config import DataConfig
from loralab.data.tokenize import load_tokenizer
from loralab.diagnostics.attribution import attribute
from loralab.diagnostics.diagnose import diagnose, read_run_splits
from loralab.diagnostics.perturb import KINDS, perturb
from loralab.pipeline import run_training
from loralab.storage.files import write_json
from loralab.storage.run_folder import CONFIG, read_config, read_diagnosis, read_scores

SECTIONS = ["Hypotheses", "Calibration", "Reliability", "Robustness", "Suspected label errors"]
ALWAYS = ["Near-duplicates of training rows", "Drift", "Distinctive words", "Token attributions (integrated gradients)"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 rows of which the last test row will be what it may."""
    return write_csv(tmp_path_factory.mktemp("source") / "topics.csv", topics(40))


@pytest.fixture(scope="module")
def run(tiny: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = [f"model.base={tiny}", "train.learning_rate=0.01", "train.epochs=4", "train.precision=fp32", "data.test=0.4"]
    settings.append("data.clean=escapes,html,urls,whitespace")
    return run_training(load_config(source, settings), folder=tmp_path_factory.mktemp("runs")).folder


def test_the_runs_own_rows(run: Path) -> None:
    stages: list[str] = []
    found = diagnose(run, inputs=["goal for the bank", ""], progress=stages.append)
    assert [section.title for section in found.sections] == SECTIONS + ALWAYS
    written = json.loads((run / "diagnosis.json").read_text(encoding="utf-8"))
    assert read_diagnosis(run) == json.loads(json.dumps(found.as_dict()))
    assert set(written) == {"sections", "attributions", "run", "format_version", "files", "sha256"}
    for section in written["sections"]:
        assert set(section) == {"title", "summary", "columns", "rows", "note"}
        assert all(len(row) == len(section["columns"]) for row in section["rows"])
    accuracy = read_scores(run)["scores"]["accuracy"]
    assert f"Accuracy {accuracy:.4f}" in found.sections[0].summary
    assert [row[0] for row in found.sections[3].rows] == list(KINDS)
    assert len(found.sections[0].rows) == 5
    assert sum("perturbing" in stage for stage in stages) == len(KINDS)
    assert diagnose(run, inputs=["goal for the bank", ""]).as_dict() == found.as_dict()


def test_each_perturbation_is_scored_with_its_own_rows_labels(run: Path) -> None:
    test, classifier = read_run_splits(run).test, Classifier.load(run, precision="fp32")
    found = {row[0]: row[1] for row in diagnose(run).sections[3].rows}
    for kind in KINDS:
        right = classifier.predict([perturb(text, kind) for text in test.texts]).indices == test.require_labels()
        assert found[kind] == pytest.approx(right.mean())


def test_attributions_are_of_the_predicted_class(run: Path) -> None:
    classifier, tokenizer = Classifier.load(run, precision="fp32"), load_tokenizer(run / "model", 128)
    explained = diagnose(run).attributions
    assert len({each.predicted for each in explained}) > 1
    for each in explained:
        encoding, target = tokenizer.encode(each.text), classifier.classes.index(each.predicted)
        special = [bool(flag) for flag in encoding.special_tokens_mask]
        expected = sum(attribute(classifier.model, encoding.ids, special, target).values)
        assert sum(value for _, value in each.tokens) == pytest.approx(expected, abs=1e-4)


def test_explained_texts_are_the_inputs_and_the_most_confident_errors(run: Path) -> None:
    found = diagnose(run, inputs=["goal for the   bank", ""]).attributions
    classifier = Classifier.load(run, precision="fp32")  # as it was trained
    assert [each.text for each in found[:2]] == ["goal for the bank", ""]
    assert (found[0].true, found[1].tokens) == (None, [])
    for each in found:
        assert "".join(word for word, _ in each.tokens) == each.text
        answer = classifier.predict([each.text])
        assert each.predicted == answer.labels[0]
        assert each.confidence == pytest.approx(float(answer.confidence[0]), abs=1e-5)
    mistakes = [each for each in found[2:] if each.true != each.predicted]
    right = [each for each in found[2:] if each.true == each.predicted]
    assert 1 <= len(mistakes) <= 6
    assert len(right) == 2
    assert [each.confidence for each in mistakes] == sorted((each.confidence for each in mistakes), reverse=True)
    strongest = max(right[0].tokens, key=lambda token: token[1])[0]
    assert strongest.strip(" .") != ""


def test_a_files_rows_are_compared_with_the_runs_own(run: Path, source: Path, tmp_path: Path) -> None:
    """A file with the classes of its rows exchanged, words of its own and a copy of a training row."""
    names = {"World": "Sports", "Sports": "World", "Business": "Business", "Sci/Tech": "Sci/Tech"}
    rows = [(f"{text} zeal zest <b>zoo</b>", names[label]) for text, label in topics(20, seed=9)]
    rows += [(text, label) for text, label in topics(40)[:30]]  # some of them training rows
    path = write_csv(tmp_path / "other.csv", rows, header=("words", "kind"))
    data = DataConfig(text=["words"], label="kind")
    found = {section.title: section for section in diagnose(run, file=path, data=data, rows=50).sections}
    assert list(found) == SECTIONS + ALWAYS
    assert "On the run's 64 test rows" in found[SECTIONS[0]].summary
    assert "50 texts: " in found["Robustness"].summary
    assert {row[0] for row in found["Distinctive words"].rows} == {"zeal", "zest", "zoo"}
    copies = found["Near-duplicates of training rows"]
    assert len(copies.rows) == 10
    assert all(int(row[0]) >= 80 and row[2] == 1.0 for row in copies.rows)
    verdicts = {str(row[0]).split(":")[0]: row[1] for row in found[SECTIONS[0]].rows}
    assert verdicts["drift"] == "yes"
    assert verdicts["label errors"] == "review"


def test_a_file_without_labels(run: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "other.csv", [(text, str(i)) for i, (text, _) in enumerate(topics(6))], header=("text", "id"))
    found = diagnose(run, file=path)
    assert [section.title for section in found.sections] == [SECTIONS[0], "Robustness", *ALWAYS]
    assert "no labels" in found.sections[0].summary
    assert all(each.true is None for each in found.attributions)


def test_the_runs_temperature_is_used(run: Path) -> None:
    scores = read_scores(run)
    try:
        write_json(run / "scores.json", {**scores, "temperature": 1.75})
        calibration = diagnose(run).sections[1]
    finally:
        write_json(run / "scores.json", scores)
    assert calibration.columns == ("measure", "without temperature", "with temperature 1.750")
    assert calibration.rows[0][1] != calibration.rows[0][2]


def test_changed_rows_are_an_error(run: Path, source: Path) -> None:
    before = source.read_text(encoding="utf-8")
    try:
        source.write_text(before.replace("goal", "gaol"), encoding="utf-8")
        with pytest.raises(LoralabError, match=r"not those that .* was trained and tested on"):
            diagnose(run)
    finally:
        source.write_text(before, encoding="utf-8")


def test_an_incomplete_run_is_an_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match=r"scores\.json"):
        diagnose(tmp_path)
    with pytest.raises(LoralabError, match="no column 'kind'"):
        diagnose(run, file=write_csv(tmp_path / "x.csv", topics(2)), data=DataConfig(label="kind"))


def test_logits_are_those_of_the_predictions(run: Path) -> None:
    classifier = Classifier.load(run)
    texts = [text for text, _ in topics(3)]
    logits = classifier.logits(texts) / classifier.manifest.temperature
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(classifier.predict(texts).probabilities, exponent / exponent.sum(axis=1, keepdims=True), atol=1e-6)
    assert classifier.logits([]).shape == (0, 4)


def test_a_run_of_a_relative_path_says_where_to_diagnose_it(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    text = (copy / CONFIG).read_text(encoding="utf-8")
    source = read_config(copy).data.source
    (copy / CONFIG).write_text(text.replace(source, "rows.csv"), encoding="utf-8")
    reseal(copy)
    with pytest.raises(LoralabError, match=r"rows\.csv(.|\n)*was trained on rows\.csv, a path from the folder of that command"):
        diagnose(copy)
