"""Runs with model.head=prompt: zero-shot, trained, cached, saved, exported, described, and compared with other heads."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny import CLASSES, make_checkpoint, topics, write_csv
from typer.testing import CliRunner

from loralab import Classifier, Config, LoralabError, load_config
from loralab.cli.main import app
from loralab.diagnostics.diagnose import diagnose
from loralab.inference.export import export_run
from loralab.pipeline import run_training
from loralab.report.run_data import read_run
from loralab.report.text_files import model_description

Train = Callable[..., Path]
WORDS = "data.descriptions={World: [border, treaty], Sports: goal, Business: profit, Sci/Tech: [software, robot]}"
TEXTS = ["goal striker league", "profit shares bank " * 60, "", "a [MASK] of telescope", "border treaty"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("base") / "bert", masked=True)


@pytest.fixture
def train(base: Path, topics_csv: Path, tmp_path: Path) -> Train:
    """Train with a prompt, in a folder named by the settings."""

    def trained(*settings: str, data: Path = topics_csv) -> Path:
        own = [
            "model.head=prompt",
            "data.template=This is of {}.",
            WORDS,
            "train.head_init=descriptions",
            "train.learning_rate=0.01",
            "train.precision=fp32",
        ]
        config = load_config(data, [f"model.base={base}", *own, *settings])
        return run_training(config, name=config.fingerprint(), folder=tmp_path / "runs").folder

    return trained


def predictions(run: Path) -> tuple[list[str], np.ndarray]:
    """Return the texts and the logits of predictions.csv, the classes in order of name."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], np.array([[float(row[f"logit:{name}"]) for name in sorted(CLASSES)] for row in rows])


def test_a_saved_run_puts_every_text_into_its_prompt(train: Train, tmp_path: Path) -> None:
    run = train("train.epochs=8", "lora.layers=top1", "data.max_length=24", "train.feature_cache=memory")
    assert yaml.safe_load((run / "scores.json").read_text())["scores"]["accuracy"] > 0.7
    texts, logits = predictions(run)
    classifier = Classifier.load(run, precision="fp32")
    np.testing.assert_allclose(classifier.logits(texts), logits, atol=2e-4)  # written with four digits
    assert np.abs(classifier.logits(TEXTS) - classifier.logits([text[:114] for text in TEXTS])).max() < 1e-5  # 24 tokens of each
    (tmp_path / "texts.csv").write_text("\n".join(["text", *(f'"{text}"' for text in texts)]))
    classifier.predict_file(tmp_path / "texts.csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    assert labels == [sorted(CLASSES)[i] for i in logits.argmax(axis=1)]
    assert model_description(read_run(run))["pooling"] == "mask token at position -3"


def test_a_diagnosis_explains_the_text_and_not_the_prompt(train: Train) -> None:
    explained = diagnose(train("train.epochs=1"), inputs=["goal, said the bank"], rows=8).attributions
    assert ["".join(piece for piece, _ in text.tokens) for text in explained if text.text.startswith("goal, ")] == [
        "goal, said the bank"
    ]


def test_the_feature_cache_changes_nothing(train: Train) -> None:
    settings = ["train.epochs=1", "tuning=head"]
    (texts, cached), (_, computed) = (predictions(train(*settings, f"train.feature_cache={cache}")) for cache in ("memory", "off"))
    assert len(texts) == 24
    np.testing.assert_allclose(cached, computed, atol=2e-4)


def test_zero_shot_reads_no_labels(train: Train, tmp_path: Path) -> None:
    rows = topics(20)
    rotated = [(text, CLASSES[(CLASSES.index(name) + 1) % 4]) for text, name in rows]
    data = write_csv(tmp_path / "rows.csv", rows), write_csv(tmp_path / "rotated.csv", rotated)
    logits, other = (Classifier.load(train("train.epochs=0", "data.validation=0", data=path)).logits(TEXTS) for path in data)
    assert logits.std(axis=0).min() > 0.01
    np.testing.assert_array_equal(logits, other)


@pytest.mark.slow
def test_an_onnx_export_uses_the_prompt(train: Train) -> None:
    run = train("train.epochs=1")
    export = export_run(run, "onnx")
    classifier = Classifier.load(run, precision="fp32", backend="native")
    expected = classifier.predict(TEXTS).probabilities
    np.testing.assert_allclose(Classifier.load(export.folder, precision="fp32").predict(TEXTS).probabilities, expected, atol=1e-4)


@pytest.mark.parametrize("form", ["merged", "peft", "sentence-transformers"])
def test_forms_without_a_prompt_are_refused(train: Train, form: str) -> None:
    run = train("train.epochs=1")
    with pytest.raises(LoralabError, match=rf"--to {form}: .*head=prompt.*--to onnx"):
        export_run(run, form)
    assert not (run / "exports" / form).exists()


def test_the_zero_shot_experiment_compares_heads(base: Path, topics_csv: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        yaml.safe_dump({"data": {"source": str(topics_csv)}, "model": {"base": str(base)}, "train": {"precision": "fp32"}})
    )
    command = ["experiment", "zero-shot", str(path), "data.template=This is of {}.", "data.descriptions={World: [border], Sports: "]
    command[-1] += "[goal], Business: [profit], Sci/Tech: [software]}"
    result = CliRunner().invoke(app, [*command, "--points", "model.head=linear,prompt", "--runs", str(tmp_path / "x")])
    assert result.exit_code == 0, result.output
    assert result.output.count("prompt") > 1


REFUSED = [
    (["data.template={text} and {}"], "no effect without a prompt: add model.head=prompt"),
    (["model.head=prompt", "model.pooling=mean"], "model.pooling=mean has no effect with model.head=prompt"),
    (["model.head=prompt", "train.head_init=probe+descriptions"], "train.head_init=probe+descriptions would replace the words"),
    (["model.head=prompt", "data.template={}: {}"], "takes one {}"),
    (["model.head=prompt", "data.template={text}: {text} {}"], "takes one {}"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_settings_that_do_not_go_together_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(LoralabError) as caught:
        Config().override(*settings)
    assert message in str(caught.value)


def test_a_bare_mask_gets_a_remark() -> None:
    plain = Config().override("model.head=prompt")
    assert "the prompt is the bare mask" in plain.remarks()[0]
    described = plain.override("data.template=Of {}.", "data.descriptions={a: [b], c: [d]}", "train.head_init=descriptions")
    assert described.remarks() == []
