"""An export answers as the run does, opens where it is said to open, and is not kept where it does not."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sealing import reseal
from tiny import make_checkpoint

from loralab import Classifier, LoralabError, load_config
from loralab.config import LoraConfig
from loralab.errors import RunFailed
from loralab.inference import export as module
from loralab.inference import export_formats
from loralab.inference.export import check, export_run
from loralab.inference.onnx_model import OnnxClassifier
from loralab.inference.quantized import LabelledTexts, compare_accuracy
from loralab.model.architectures import Dimensions
from loralab.model.encoder import EncoderClassifier
from loralab.model.hub_files import base_reference
from loralab.model.manifest import Manifest, read_manifest
from loralab.pipeline import run_training
from loralab.storage.run_folder import EXPORT_CHECK
from loralab.training.scoring import logits_of

TEXTS = ["goal striker league", "profit shares bank " * 30, "", "telescope robot", "border treaty"]


def train(folder: Path, data: Path, base: Path, *more: str) -> Path:
    settings = [f"model.base={base}", "train.learning_rate=0.01", "train.epochs=6", "train.precision=fp32", *more]
    run = run_training(load_config(data, settings), folder=folder).folder
    manifest = read_manifest(run / "model")
    replace(manifest, temperature=0.7).write(run / "model")  # few rows may leave it at 1, where a test would see nothing
    reseal(run)
    return run


@pytest.fixture(autouse=True)
def only_slow_tests_open_exports_elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with Transformers takes seconds."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(module.outside, "missing_packages", lambda kind: ["transformers"])


@pytest.fixture(scope="module")
def run(tiny: Path, topics_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs"), topics_csv, tiny)


def logits(path: Path) -> np.ndarray:
    return Classifier.load(path, precision="fp32").logits(TEXTS)


def calibrated(run: Path) -> np.ndarray:
    """The run's logits, divided by its temperature."""
    classifier = Classifier.load(run, precision="fp32")
    assert classifier.manifest.temperature != 1
    return classifier.logits(TEXTS) / classifier.manifest.temperature


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether logits are equal up to the tolerance of an export."""
    return bool(np.abs(found - expected).max() <= 1e-4 * max(1.0, float(np.abs(expected).max()) / 20))


def run_readme(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the code of a README in its folder and return what it prints."""
    code = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(folder)
    capsys.readouterr()
    exec(code, {})
    return capsys.readouterr().out


README_TEXTS = ["a text", "another text, which is longer"]


def test_merged_opens_without_its_base_in_loralab_and_transformers(topics_csv: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = make_checkpoint(tmp_path / "base", "roberta")
    run = train(tmp_path / "runs", topics_csv, base)
    expected, stages = calibrated(run), list[str]()
    found = export_run(run, "merged", tmp_path / "merged", progress=stages.append)
    assert [stage.split()[0] for stage in stages] == ["loading", "predicting", "writing", "comparing"]
    (base / "model.safetensors").unlink()
    assert found.agreement == 1
    assert "transformers is not installed" in found.remark
    assert close(logits(found.folder), expected)
    assert Classifier.load(found.folder).manifest.temperature == 1  # not applied twice
    theirs = AutoModelForSequenceClassification.from_pretrained(found.folder)
    assert theirs.config.id2label == dict(enumerate(Classifier.load(found.folder).classes))
    batch = AutoTokenizer.from_pretrained(found.folder)(TEXTS, return_tensors="pt", padding=True, truncation=True)
    with torch.no_grad():
        assert close(theirs(**batch).logits.numpy(), expected)


@pytest.mark.parametrize(
    "kind", ["mean", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("bert", "distilbert", "albert"))]
)
def test_a_pipeline_cuts_long_texts_and_gives_the_runs_probabilities(topics_csv: Path, tmp_path: Path, kind: str) -> None:
    from transformers import pipeline

    mean = ("model.pooling=mean", "model.head=linear") if kind == "mean" else ()
    base = make_checkpoint(tmp_path / "base", "bert" if mean else kind)
    run = train(tmp_path / "runs", topics_csv, base, "data.max_length=40", "train.epochs=1", *mean)
    found = export_run(run, "merged")
    texts = ["goal " * 600, "the Goal", "a", "Profit, shares: 5!"]
    expected = Classifier.load(run, precision="fp32").predict(texts)
    answers = pipeline("text-classification", model=str(found.folder))(texts, truncation=True, batch_size=2)
    assert [answer["label"] for answer in answers] == expected.labels
    np.testing.assert_allclose([answer["score"] for answer in answers], expected.probabilities.max(axis=1), atol=1e-4)


@pytest.mark.parametrize("case", ["", pytest.param("own head", marks=pytest.mark.slow)])
def test_a_pipeline_never_opens_an_adapter_with_a_random_head(topics_csv: Path, run: Path, tmp_path: Path, case: str) -> None:
    """Transformers loads an adapter's base and drops the head without an error; a config.json in the folder stops it."""
    from transformers import pipeline

    if case:
        base = make_checkpoint(tmp_path / "base", "albert")
        run = train(tmp_path / "runs", topics_csv, base, "model.head=linear", "train.epochs=1")
    for folder in (run / "model", export_run(run, "peft", tmp_path / "peft").folder):
        with pytest.raises((OSError, ValueError), match=r"no file named model\.safetensors"):
            pipeline("text-classification", model=str(folder))


def test_what_transformers_has_no_class_for_is_refused_before_anything_is_written(topics_csv: Path, tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", "albert")
    run = train(tmp_path / "runs", topics_csv, base, "model.pooling=mean", "model.head=linear", "train.epochs=1")
    with pytest.raises(LoralabError, match=r"no albert classifier with pooling=mean and head=linear; use --to onnx, --to s"):
        export_run(run, "merged", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "albert"])
def test_sentence_transformers_gives_the_probabilities(
    topics_csv: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_checkpoint(tmp_path / "base", kind)
    run = train(tmp_path / "runs", topics_csv, base, "model.pooling=mean", "model.head=linear")
    found = export_run(run, "sentence-transformers")
    assert found.outside == "sentence_transformers"
    printed = run_readme(found.folder, monkeypatch, capsys)
    shown = np.array(re.findall(r"[\d.]+(?:e-\d+)?", printed.partition("tensor(")[2].partition("])")[0]), dtype=float)
    expected = Classifier.load(run, precision="fp32").predict(README_TEXTS).probabilities
    np.testing.assert_allclose(shown.reshape(2, 4), expected, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["merged", "peft", "onnx"])
@pytest.mark.parametrize("head", ["default", "linear"])
def test_the_readme_works_as_it_is_written(
    topics_csv: Path, tmp_path: Path, format: str, head: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a padded batch, with the probabilities of loralab."""
    base = make_checkpoint(tmp_path / "base", "bert")
    settings = ("model.pooling=mean", "model.head=linear") if head == "linear" else ()
    run = train(tmp_path / "runs", topics_csv, base, *settings)
    folder = export_run(run, format, tmp_path / "out").folder
    classifier = Classifier.load(run, precision="fp32")
    readme = (folder / "README.md").read_text()
    for part in (f"{classifier.manifest.temperature:.6g}", *classifier.classes):
        assert part in readme
    printed = run_readme(folder, monkeypatch, capsys)
    numbers = re.findall(r"(?<![\w.])\d\.\d+(?:e-\d+)?", printed)
    expected = classifier.predict(README_TEXTS).probabilities
    if format == "merged":  # a pipeline sorts the classes of each text
        expected = -np.sort(-expected, axis=1)
    np.testing.assert_allclose(np.array(numbers, dtype=float).reshape(2, 4), expected, atol=1e-3)


def test_a_fully_tuned_run_can_be_merged_and_has_no_adapter_to_export(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    run = train(
        tmp_path / "runs", topics_csv, tiny, "tuning=full", "train.learning_rate=1e-3", "model.pooling=mean", "model.head=linear"
    )
    assert close(logits(export_run(run, "merged").folder), calibrated(run))
    with pytest.raises(LoralabError, match=r"no adapter.*--to merged"):
        export_run(run, "peft")


def test_peft_opens_it(run: Path, tiny: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForSequenceClassification

    found = export_run(run, "peft", tmp_path / "peft")
    assert json.loads((found.folder / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"
    theirs = AutoPeftModelForSequenceClassification.from_pretrained(found.folder, num_labels=4).eval()
    tokens = torch.tensor([[2, 7, 9, 11, 3]])
    classifier = Classifier.load(run, precision="fp32")
    with torch.no_grad():
        ours = classifier.model(tokens, torch.ones_like(tokens, dtype=torch.bool)) / classifier.manifest.temperature
        assert close(theirs(input_ids=tokens).logits.numpy(), ours.numpy())


def test_a_base_is_named_for_others(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    manifest = read_manifest(make_manifest(tmp_path))
    for base, revision, expected in (
        ("minilm", None, ("sentence-transformers/all-MiniLM-L6-v2", None)),
        ("me/encoder", commit, ("me/encoder", commit)),
        ("me/encoder", None, ("me/encoder", None)),
        (str(tmp_path), None, (str(tmp_path), None)),
    ):
        assert base_reference(replace(manifest, base=base, base_folder=str(tmp_path), base_revision=revision)) == expected


def make_manifest(folder: Path) -> Path:
    """Write any manifest."""
    dims = Dimensions("bert", 1, 32, 4, 64, 100, 64, 2, 32)
    lora = LoraConfig()
    settings: dict[str, Any] = {"base": "b", "base_folder": "b", "base_sha256": "", "dims": dims, "classes": ("a", "b")}
    settings |= {"pooling": "cls", "head": "default", "tuning": "lora", "clean": (), "max_length": 8, "lora": lora}
    Manifest(**settings).write(folder)
    return folder


@pytest.mark.slow
def test_onnx_answers_at_any_batch_and_length_and_its_8_bits_nearly(run: Path) -> None:
    whole = export_run(run, "onnx")
    assert close(logits(whole.folder), calibrated(run))
    assert close(Classifier.load(run, backend="onnx").logits(TEXTS), calibrated(run))
    eight = export_run(run, "onnx-int8")
    assert eight.megabytes < whole.megabytes
    assert eight.accuracy is not None
    assert eight.accuracy.split == "validation"
    assert 0 < eight.largest_difference < 0.1 * float(np.abs(calibrated(run)).max())
    assert Classifier.load(run, backend="onnx-int8").predict(TEXTS[:2]).labels == Classifier.load(run).predict(TEXTS[:2]).labels
    written = json.loads((eight.folder / EXPORT_CHECK).read_text())
    assert (written["format"], written["agreement"]) == ("onnx-int8", eight.agreement)


@pytest.mark.slow
def test_the_graph_takes_token_types_and_names_its_classes(run: Path, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    path = export_run(run, "onnx", tmp_path / "onnx").folder / "model.onnx"
    facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(facts["classes"]) == [*Classifier.load(run).classes]
    assert json.loads(facts["max_length"]) == 128
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    tokens = np.array([[2, 7, 9, 11, 3], [2, 8, 3, 0, 0]])
    batch = {"input_ids": tokens, "attention_mask": (tokens > 0).astype(np.int64)}
    (plain,) = session.run(["logits"], batch)
    (typed,) = session.run(["logits"], {**batch, "token_type_ids": np.zeros_like(tokens)})
    np.testing.assert_array_equal(plain, typed)


@pytest.mark.parametrize(("form", "shift"), [("merged", 2e-4), ("onnx", 2e-4), ("onnx", float("nan"))])
def test_an_export_that_answers_otherwise_is_refused(run: Path, form: str, shift: float) -> None:
    classifier = Classifier.load(run, precision="fp32")
    encoded = classifier.encode(TEXTS * 20)
    expected = logits_of(classifier.model, encoded)
    assert float(np.abs(expected).max()) < 20
    assert check(expected, classifier.model, encoded, form)[1] == 1
    with pytest.raises(RunFailed, match="the export was discarded"):
        check(expected + np.float32(shift) * np.array([1, 0, 0, 0]), classifier.model, encoded, form)


@pytest.mark.slow
def test_8_bits_that_cost_accuracy_are_refused_unless_accepted(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the wrong answers are McNemar's business; one row is not."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "exports", ignore_errors=True)
    write = export_formats.write_onnx

    def spoil(source: Any, to: Path) -> Any:
        return Spoiled(write(source, to))

    monkeypatch.setitem(export_formats.WRITERS, "onnx-int8", spoil)  # type: ignore[arg-type]
    with pytest.raises(RunFailed, match=r"accuracy .* in 8 bits against .* McNemar p = 0\.0\d+, \d+ lost.*--accept"):
        export_run(folder, "onnx-int8")
    assert not (folder / "exports" / "onnx-int8").exists()
    kept = export_run(folder, "onnx-int8", accept=True)
    assert kept.accuracy is not None
    assert kept.accuracy.worse


class Spoiled:
    """A model that always answers the last class."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model(tokens, mask) + torch.tensor([0, 0, 0, 1e4])


def test_mcnemar_decides_on_rows_of_only_one_model() -> None:
    """Against statsmodels, which the statistics are tested with: 9 rows lost and 1 gained are too many, 3 and 1 are not."""
    labels = np.zeros(100, dtype=np.int64)
    right, wrong = np.array([1.0, 0.0], dtype=np.float32), np.array([0.0, 1.0], dtype=np.float32)
    for lost, gained, p, worse in ((9, 1, 2 * (1 + 10) / 1024 - 10 / 1024, True), (3, 1, 2 * (1 + 4) / 16 - 4 / 16, False)):
        before, after = np.tile(right, (100, 1)), np.tile(right, (100, 1))
        after[:lost], before[lost : lost + gained] = wrong, wrong
        found = compare_accuracy(LabelledTexts([""] * 100, labels, "validation"), before, after)
        assert (found.lost, found.gained, found.worse) == (lost, gained, worse)
        assert found.p == pytest.approx(p)
        assert found.difference.estimate == pytest.approx((gained - lost) / 100)
    same = compare_accuracy(LabelledTexts([""] * 100, labels, "validation"), before, before)
    assert same.caution == "100 rows cannot exclude a loss of accuracy of 3.0 points"  # 0.97 ** 100 = 0.048


def test_nothing_is_left_of_a_refused_export(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOLERANCE", -1.0)
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
    assert export_run(folder, "merged").agreement == 1
    with pytest.raises(LoralabError, match="is an ONNX export"):
        Classifier.load(folder / "exports" / "onnx", backend="native")


@pytest.fixture
def onnx_folder(run: Path, tmp_path: Path) -> Path:
    """What an ONNX export of a run leaves but for the network itself, which is not to be read here."""
    folder = tmp_path / "onnx"
    shutil.copytree(run / "model", folder)
    (folder / "model.onnx").write_bytes(b"")
    (folder / EXPORT_CHECK).write_text('{"format": "onnx"}')
    reseal(folder)
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
    reseal(onnx_folder)
    with pytest.raises(LoralabError, match=r"onnx: .*shout"):
        Classifier.load(onnx_folder)
