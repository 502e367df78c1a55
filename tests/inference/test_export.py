"""An export answers as the run does, opens where it is said to open, and is not kept where it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_checkpoint

from loralab import Classifier, LoralabError, load_config, run_training
from loralab.errors import RunFailed
from loralab.inference import export as module
from loralab.inference.export import check, export_run
from loralab.inference.onnx_model import OnnxClassifier
from loralab.model.encoder import EncoderClassifier
from loralab.storage.run_folder import EXPORT_CHECK

TEXTS = ["goal striker league", "profit shares bank " * 30, "", "telescope robot", "border treaty"]


def train(folder: Path, data: Path, base: Path, *more: str) -> Path:
    settings = [f"model.base={base}", "train.learning_rate=0.01", "train.epochs=6", "train.precision=fp32", *more]
    return run_training(load_config(data, settings), folder=folder).folder


@pytest.fixture(scope="module")
def run(tiny: Path, topics_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs"), topics_csv, tiny)


def logits(path: Path) -> np.ndarray:
    return Classifier.load(path, precision="fp32").logits(TEXTS)


def test_merged_opens_in_loralab_without_its_base_and_in_transformers_with_its_class_names(
    topics_csv: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

    base = make_checkpoint(tmp_path / "base", "roberta")
    run = train(tmp_path / "runs", topics_csv, base)
    expected = logits(run)
    found = export_run(run, "merged", tmp_path / "merged")
    (base / "model.safetensors").unlink()
    assert found.largest_difference < 1e-5
    assert found.agreement == 1
    assert found.rows == len((run / "predictions.csv").read_text().splitlines()) - 1
    np.testing.assert_allclose(logits(found.folder), expected, atol=1e-5)
    theirs = AutoModelForSequenceClassification.from_pretrained(found.folder)
    assert theirs.config.id2label == dict(enumerate(Classifier.load(found.folder).classes))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(found.folder / "tokenizer.json"), pad_token="[PAD]")
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.no_grad():
        np.testing.assert_allclose(theirs(**batch).logits.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra", "roberta"])
def test_a_pipeline_cuts_long_texts_and_agrees_with_the_run(topics_csv: Path, tmp_path: Path, kind: str) -> None:
    from transformers import AutoTokenizer, pipeline

    run = train(tmp_path / "runs", topics_csv, make_checkpoint(tmp_path / "base", kind), "data.max_length=40", "train.epochs=1")
    found = export_run(run, "merged")
    assert found.remark == ""
    classifier = Classifier.load(run, precision="fp32")
    assert AutoTokenizer.from_pretrained(found.folder).model_max_length == 40
    texts = ["goal " * 600, "the Goal", "a", "Profit, shares: 5!"]
    answers = pipeline("text-classification", model=str(found.folder))(texts, truncation=True, batch_size=2)
    assert [answer["label"] for answer in answers] == classifier.predict(texts).labels
    powers = np.exp(classifier.logits(texts))
    np.testing.assert_allclose([answer["score"] for answer in answers], (powers / powers.sum(1, keepdims=True)).max(1), atol=1e-4)


def test_a_merged_folder_says_that_only_loralab_reads_it(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "runs", topics_csv, tiny, "model.pooling=mean", "model.head=linear", "train.epochs=1")
    found = export_run(run, "merged")
    assert found.remark.startswith(
        "only loralab reads this folder: Transformers has no classifier with pooling=mean and head=linear"
    )
    assert "Only loralab reads this folder" in (found.folder / "README.md").read_text()
    assert not (found.folder / "config.json").exists()


@pytest.mark.slow
def test_the_readme_of_an_onnx_export_works_as_it_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    folder = export_run(run, "onnx", tmp_path / "onnx").folder
    readme = (folder / "README.md").read_text()
    classifier = Classifier.load(run, precision="fp32")
    for part in ("int64", "token_type_ids", f"{classifier.manifest.temperature:.6g}", *classifier.classes):
        assert part in readme
    assert {*AutoTokenizer.from_pretrained(folder)("goal")} == {"input_ids", "attention_mask"}
    code = readme.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(folder)
    exec(code, {})
    printed = np.array([capsys.readouterr().out.strip("[] \n").split()], dtype=float)
    np.testing.assert_allclose(printed, classifier.predict(["a text"]).probabilities, atol=1e-4)


def test_a_fully_tuned_run_can_be_merged_and_has_no_adapter_to_export(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    run = train(
        tmp_path / "runs", topics_csv, tiny, "tuning=full", "train.learning_rate=1e-3", "model.pooling=mean", "model.head=linear"
    )
    np.testing.assert_allclose(logits(export_run(run, "merged").folder), logits(run), atol=1e-5)
    with pytest.raises(LoralabError, match=r"no adapter.*--to merged"):
        export_run(run, "peft")


def test_peft_opens_it(run: Path, tiny: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForSequenceClassification

    found = export_run(run, "peft", tmp_path / "peft")
    theirs = AutoPeftModelForSequenceClassification.from_pretrained(found.folder, num_labels=4).eval()
    tokens = torch.tensor([[2, 7, 9, 11, 3]])
    with torch.no_grad():
        ours = Classifier.load(run, precision="fp32").model(tokens, torch.ones_like(tokens, dtype=torch.bool))
        torch.testing.assert_close(theirs(input_ids=tokens).logits, ours, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_onnx_answers_at_any_batch_and_length_and_its_8_bits_nearly(run: Path) -> None:
    whole = export_run(run, "onnx")
    np.testing.assert_allclose(logits(whole.folder), logits(run), atol=1e-4)
    np.testing.assert_allclose(Classifier.load(run, backend="onnx").logits(TEXTS), logits(run), atol=1e-4)
    eight = export_run(run, "onnx-int8")
    assert eight.megabytes < whole.megabytes
    assert eight.agreement >= 0.99
    assert 0 < eight.largest_difference < 1
    assert Classifier.load(run, backend="onnx-int8").predict(TEXTS[:2]).labels == Classifier.load(run).predict(TEXTS[:2]).labels
    written = json.loads((eight.folder / EXPORT_CHECK).read_text())
    assert (written["format"], written["agreement"]) == ("onnx-int8", eight.agreement)


@pytest.mark.parametrize(("form", "shift"), [("merged", 2e-5), ("onnx", 2e-4), ("onnx-int8", 5.0), ("onnx", float("nan"))])
def test_an_export_that_answers_otherwise_is_refused(run: Path, form: str, shift: float) -> None:
    classifier = Classifier.load(run, precision="fp32")

    class Shifted:
        def __getattr__(self, name: str) -> Any:
            return getattr(classifier.model, name)

        def __call__(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return classifier.model(tokens, mask) + torch.tensor([shift, 0, 0, 0])

    encoded = classifier.encode(TEXTS * 20)
    assert check(classifier.model, classifier.model, encoded, form)[1] == 1
    with pytest.raises(RunFailed, match="the export was discarded"):
        check(classifier.model, Shifted(), encoded, form)


def test_nothing_is_left_of_a_refused_export(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.TOLERANCE, "merged", -1.0)
    with pytest.raises(RunFailed):
        export_run(run, "merged", tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_what_is_there_is_not_replaced_unasked(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_run(run, "merged", out)
    with pytest.raises(LoralabError, match="--overwrite"):
        export_run(run, "merged", out)
    export_run(run, "peft", out, overwrite=True)
    assert not (out / "model.safetensors").exists()
    (out / EXPORT_CHECK).unlink()
    with pytest.raises(LoralabError, match="not an export"):
        export_run(run, "merged", out, overwrite=True)
    with pytest.raises(LoralabError, match="did you mean 'onnx-int8'"):
        export_run(run, "onnx-int4")


def test_a_backend_that_was_not_exported_says_how(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    run = train(tmp_path, topics_csv, tiny, "train.max_steps=1")
    with pytest.raises(LoralabError, match=r"loralab export .* --to onnx-int8"):
        Classifier.load(run, backend="onnx-int8")
    with pytest.raises(LoralabError, match="no backend 'onxx'"):
        Classifier.load(run, backend="onxx")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_with_an_onnx_export_is_read_by_what_is_fastest_or_asked_for(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "exports", ignore_errors=True)
    export_run(folder, "onnx")
    assert isinstance(Classifier.load(folder).model, EncoderClassifier)
    assert isinstance(Classifier.load(folder, backend="onnx").model, OnnxClassifier)
    assert export_run(folder, "merged").largest_difference < 1e-5
    with pytest.raises(LoralabError, match="is an ONNX export"):
        Classifier.load(folder / "exports" / "onnx", backend="native")


@pytest.fixture
def onnx_folder(run: Path, tmp_path: Path) -> Path:
    """What an ONNX export of a run leaves but for the network itself, which is not to be read here."""
    folder = tmp_path / "onnx"
    shutil.copytree(run / "model", folder)
    (folder / "model.onnx").write_bytes(b"")
    (folder / EXPORT_CHECK).write_text('{"format": "onnx"}')
    return folder


def test_an_export_of_another_form_than_asked_for_is_refused(onnx_folder: Path) -> None:
    with pytest.raises(LoralabError, match=r"an onnx export, not onnx-int8: load it with backend='onnx'"):
        Classifier.load(onnx_folder, backend="onnx-int8")
    for plain in ("onnx", "auto"):
        with pytest.raises(LoralabError, match="cannot read"):  # the network is tried
            Classifier.load(onnx_folder, backend=plain)  # type: ignore[arg-type]
    (onnx_folder / EXPORT_CHECK).unlink()
    with pytest.raises(LoralabError, match="cannot read"):
        Classifier.load(onnx_folder, backend="onnx-int8")


def test_an_export_whose_cleaning_is_not_known_here_is_refused(onnx_folder: Path) -> None:
    manifest = json.loads((onnx_folder / "loralab.json").read_text())
    (onnx_folder / "loralab.json").write_text(json.dumps({**manifest, "clean": ["shout"]}))
    with pytest.raises(LoralabError, match=r"onnx: .*shout"):
        Classifier.load(onnx_folder)
