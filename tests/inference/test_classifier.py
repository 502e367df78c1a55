"""A trained run classifies: in order, as trained, anywhere, from every kind of file, into files that are whole or not there."""

from __future__ import annotations

import csv
import errno
import gzip
import json
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from sealing import reseal
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_recall_fscore_support
from tiny import CLASSES, make_checkpoint, topics, write_csv

from loralab import Classifier, LoralabError, Predictions, load_config
from loralab.config import DataConfig
from loralab.data import readers
from loralab.data.tokenize import encode, load_tokenizer
from loralab.data.types import Examples
from loralab.model.bundle import load_bundle
from loralab.model.encoder import EncoderClassifier
from loralab.pipeline import run_training
from loralab.training.scoring import logits_of

TEXTS = [
    "goal " * 300,
    "a",
    "",
    "The bank said on this week profit and dividend were large; shares near a merger.",
    'a "quoted" text,\nwith a line break',
    "telescope " * 60,
    "Ünïcode — 日本の天気 🙂",
    "border treaty embassy minister",
    "   ",
    "goal",
    "chip " * 7,
]
"""Lengths from none to more than the network reads, so that batches are sorted and padded."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="module")
def run(base: Path, topics_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = [f"model.base={base}", "train.learning_rate=0.01", "train.epochs=8", "train.precision=fp32"]
    settings += ["data.clean=escapes,html,urls,whitespace", "data.validation=24"]  # enough rows for a temperature
    return run_training(load_config(topics_csv, settings), folder=tmp_path_factory.mktemp("runs")).folder


@pytest.fixture(scope="module")
def classifier(run: Path) -> Classifier:
    return Classifier.load(run, precision="fp32")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Block sockets, and return the attempts, which a swallowed error would hide."""
    attempts: list[str] = []

    def blocked(*arguments: Any, **named: Any) -> Any:
        attempts.append(repr(arguments))
        raise OSError("sockets are blocked")

    class Blocked(socket.socket):  # a class, because ssl derives from it
        def __init__(self, *arguments: Any, **named: Any) -> None:
            blocked(*arguments)

    monkeypatch.setattr(socket, "socket", Blocked)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, blocked)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return attempts


# --- predict -------------------------------------------------------------------------------------------------------


def test_order_of_answers_is_order_of_texts(classifier: Classifier) -> None:
    alone = [classifier.predict([text]) for text in TEXTS]
    together = classifier.predict(TEXTS)
    assert together.labels == [found.labels[0] for found in alone]
    np.testing.assert_allclose(together.probabilities, np.concatenate([found.probabilities for found in alone]), atol=1e-5)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled = classifier.predict([TEXTS[i] for i in order])
    np.testing.assert_allclose(shuffled.probabilities, together.probabilities[order], atol=1e-5)
    logits = classifier.logits(TEXTS)
    np.testing.assert_allclose(classifier.logits([TEXTS[i] for i in order]), logits[order], atol=1e-4)
    assert len({tuple(row) for row in np.round(logits, 2).tolist()}) > 5  # else order could not be seen


def test_learnable_texts_get_their_class(classifier: Classifier) -> None:
    rows = topics(10, seed=77)
    found = classifier.predict([text for text, _ in rows])
    assert accuracy_score([label for _, label in rows], found.labels) > 0.7


def test_probabilities_sum_to_one_and_fit_the_labels(classifier: Classifier) -> None:
    found = classifier.predict(TEXTS)
    assert found.classes == classifier.classes == tuple(sorted(CLASSES))
    assert found.probabilities.shape == (len(TEXTS), 4)
    assert found.probabilities.dtype == np.float32
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-6)
    assert found.probabilities.min() >= 0
    assert found.labels == [found.classes[i] for i in found.indices]
    np.testing.assert_array_equal(found.confidence, found.probabilities[np.arange(len(TEXTS)), found.indices])
    assert len(found) == len(TEXTS)


def test_merged_equals_unmerged(run: Path, classifier: Classifier) -> None:
    network, manifest = load_bundle(run / "model")
    assert not network.layer(0).qkv.merged
    assert classifier.model.layer(0).qkv.merged
    tokenizer = load_tokenizer(run / "model", manifest.max_length)
    examples = Examples(TEXTS, None, np.arange(len(TEXTS)))
    logits = logits_of(network, encode(examples, tokenizer=tokenizer, clean=manifest.clean, pad_id=manifest.dims.pad_id))
    np.testing.assert_allclose(classifier.logits(TEXTS), logits, atol=1e-5)
    assert manifest.temperature != 1.0
    calibrated = softmax(logits / manifest.temperature, axis=1)
    np.testing.assert_allclose(classifier.predict(TEXTS).probabilities, calibrated, atol=1e-5)


def test_bf16_agrees_with_fp32(run: Path, classifier: Classifier) -> None:
    texts = [text for text, _ in topics(25, seed=5)]
    loaded = Classifier.load(run, precision="bf16").predict(texts)
    exact = classifier.predict(texts)
    assert np.mean([a == b for a, b in zip(loaded.labels, exact.labels, strict=True)]) > 0.95
    np.testing.assert_allclose(loaded.probabilities, exact.probabilities, atol=0.15)


def test_weights_that_were_trained_whole_are_cast_when_they_are_loaded(base: Path, topics_csv: Path, tmp_path: Path) -> None:
    settings = [f"model.base={base}", "tuning=full", "train.max_steps=1"]
    full = run_training(load_config(topics_csv, settings), folder=tmp_path).folder
    network = Classifier.load(full, precision="bf16").model
    assert isinstance(network, EncoderClassifier)
    assert {projection.weight.dtype for i in range(3) for projection in network.layer(i).projections()} == {torch.bfloat16}


def test_features_are_what_the_last_linear_map_reads(classifier: Classifier) -> None:
    texts = ["The striker of the league.", "a bank merger", "A telescope and a robot"]
    found, features = classifier.predict_with_features(texts)
    np.testing.assert_array_equal(found.probabilities, classifier.predict(texts).probabilities)
    out = classifier.model.head.out
    logits = features @ out.weight.detach().numpy().T + out.bias.detach().numpy()
    np.testing.assert_allclose(logits, classifier.logits(texts), atol=1e-5)


def test_cleaning_of_training_is_applied(classifier: Classifier) -> None:
    found = classifier.predict(["A <b>goal</b> in the   league", "A goal in the league", "A #39;goal", "A 'goal"])
    np.testing.assert_array_equal(found.probabilities[0], found.probabilities[1])
    np.testing.assert_array_equal(found.probabilities[2], found.probabilities[3])


def test_no_texts_give_no_answers(classifier: Classifier) -> None:
    found = classifier.predict([])
    assert (len(found), found.labels, found.probabilities.shape) == (0, [], (0, 4))
    assert found.classes == classifier.classes
    assert found.indices.shape == found.confidence.shape == (0,)


def test_one_string_is_refused(classifier: Classifier) -> None:
    with pytest.raises(LoralabError, match=r"predict\(\[text\]\)"):
        classifier.predict("a goal")


@pytest.mark.parametrize("odd", [3, 2.5, b"bytes", ["a"], None, 0, 0.0, [], b""], ids=repr)
def test_value_that_is_no_text_is_refused(classifier: Classifier, odd: Any) -> None:
    with pytest.raises(LoralabError, match=type(odd).__name__):
        classifier.predict(["a goal", odd])


# --- load ----------------------------------------------------------------------------------------------------------


def test_moved_run_works_with_sockets_blocked(run: Path, classifier: Classifier, tmp_path: Path, no_network: list[str]) -> None:
    moved = shutil.copytree(run, tmp_path / "elsewhere" / "renamed")
    with pytest.raises(OSError, match="blocked"):
        socket.create_connection(("localhost", 1))
    no_network.clear()
    loaded = Classifier.load(moved, precision="fp32").predict(TEXTS)
    np.testing.assert_array_equal(loaded.probabilities, classifier.predict(TEXTS).probabilities)
    assert no_network == []


def test_bundle_alone_is_enough(run: Path, classifier: Classifier, tmp_path: Path) -> None:
    bundle = shutil.copytree(run / "model", tmp_path / "bundle")
    loaded = Classifier.load(bundle, precision="fp32")
    assert loaded.classes == classifier.classes
    np.testing.assert_array_equal(loaded.predict(TEXTS).probabilities, classifier.predict(TEXTS).probabilities)


def test_loading_depends_on_no_ambient_seed(run: Path, classifier: Classifier) -> None:
    torch.manual_seed(99)
    loaded = Classifier.load(run, precision="fp32").predict(TEXTS)
    np.testing.assert_array_equal(loaded.probabilities, classifier.predict(TEXTS).probabilities)


def test_a_series_or_an_array_of_texts_is_a_list_of_texts(classifier: Classifier) -> None:
    expected = classifier.predict(TEXTS)
    for texts in (pandas.Series(TEXTS, index=range(7, 7 + len(TEXTS))), np.array(TEXTS), tuple(TEXTS)):
        predictions = classifier.predict(texts)
        np.testing.assert_array_equal(predictions.probabilities, expected.probabilities)
        assert predictions.to_frame()["text"].tolist() == [*TEXTS]


def test_loading_twice_merges_once(run: Path) -> None:
    a, b = Classifier.load(run, precision="fp32"), Classifier.load(run, precision="fp32")
    np.testing.assert_array_equal(a.model.layer(0).qkv.weight.detach().numpy(), b.model.layer(0).qkv.weight.detach().numpy())


def test_moved_base_is_found_by_its_new_name_and_another_is_refused(
    run: Path, base: Path, classifier: Classifier, tmp_path: Path, no_network: list[str]
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    manifest = json.loads((copy / "model" / "loralab.json").read_text())
    gone = str(tmp_path / "gone" / "bert")
    (copy / "model" / "loralab.json").write_text(json.dumps({**manifest, "base": gone, "base_folder": gone}))
    reseal(copy)
    with pytest.raises(LoralabError, match="gone"):
        Classifier.load(copy)
    moved = shutil.copytree(base, tmp_path / "moved")
    loaded = Classifier.load(copy, base=str(moved), precision="fp32").predict(TEXTS)
    np.testing.assert_array_equal(loaded.probabilities, classifier.predict(TEXTS).probabilities)
    other = make_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(LoralabError, match=r"trained on .* with weights .* but .*other has weights"):
        Classifier.load(copy, base=str(other))


def test_base_that_changed_in_its_place_is_refused(topics_csv: Path, tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base")
    config = load_config(topics_csv, [f"model.base={base}", "train.max_steps=1"])
    run = run_training(config, folder=tmp_path / "runs").folder
    make_checkpoint(base, seed=5)
    with pytest.raises(LoralabError, match="was trained on"):
        Classifier.load(run)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_run_gives_what_peft_and_transformers_give_with_it(run: Path, base: Path, classifier: Classifier) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
    model = PeftModel.from_pretrained(model, run / "model").eval()
    for text, row in zip(TEXTS[3:5], classifier.logits(TEXTS[3:5]), strict=True):
        ids = classifier.tokenizer.encode(" ".join(text.split())).ids
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits
        np.testing.assert_allclose(row, logits[0].numpy(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert"])
def test_folder_that_peft_saved_loads_and_gives_its_probabilities(model_type: str, tmp_path: Path) -> None:
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = make_checkpoint(tmp_path / "base", model_type)
    targets = ["q_lin", "v_lin"] if model_type == "distilbert" else ["query", "value"]
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
    model = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, r=4, lora_alpha=8, target_modules=targets)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    model.save_pretrained(tmp_path / "adapter")
    loaded = Classifier.load(tmp_path / "adapter", precision="fp32")
    assert loaded.classes == ("0", "1", "2", "3")
    for text in TEXTS[1:5]:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([loaded.tokenizer.encode(text).ids])).logits
        np.testing.assert_allclose(loaded.predict([text]).probabilities, torch.softmax(logits, dim=1).numpy(), atol=1e-5)


# --- evaluate ------------------------------------------------------------------------------------------------------


def test_evaluate_equals_the_metrics_of_predict(classifier: Classifier, tmp_path: Path) -> None:
    rows = [*topics(6, seed=21), ("a goal by the bank", "Business"), ("", "World")]
    scores = classifier.evaluate(write_csv(tmp_path / "held.csv", rows))
    found = classifier.predict([text for text, _ in rows])
    true = np.array([classifier.classes.index(label) for _, label in rows])
    precision, recall, f1, _ = precision_recall_fscore_support(true, found.indices, labels=range(4), zero_division=0)
    assert scores["accuracy"] == pytest.approx(accuracy_score(true, found.indices))
    assert scores["macro_f1"] == pytest.approx(f1_score(true, found.indices, average="macro"))
    assert scores["loss"] == pytest.approx(
        log_loss(true, softmax(classifier.logits([text for text, _ in rows]), axis=1), labels=range(4)), abs=1e-5
    )
    for i, name in enumerate(classifier.classes):
        assert scores[f"precision:{name}"] == pytest.approx(precision[i])
        assert scores[f"recall:{name}"] == pytest.approx(recall[i])
        assert scores[f"f1:{name}"] == pytest.approx(f1[i])
        assert scores[f"true:{name}"] == (true == i).sum()
        assert scores[f"predicted:{name}"] == (found.indices == i).sum()


def test_numbers_are_read_by_the_names_a_file_brings_along(classifier: Classifier, tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    rows = topics(6, seed=21)
    order = ["Sports", "World", "Sci/Tech", "Business"]  # not the run's
    columns = {"text": [text for text, _ in rows], "label": [order.index(label) for _, label in rows]}
    features = Features({"text": Value("string"), "label": ClassLabel(names=order)})
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "numbered.parquet")
    assert classifier.evaluate(tmp_path / "numbered.parquet") == classifier.evaluate(write_csv(tmp_path / "named.csv", rows))


def test_columns_can_be_told(classifier: Classifier, tmp_path: Path) -> None:
    rows = topics(3, seed=2)
    plain = write_csv(tmp_path / "plain.csv", rows)
    odd = write_csv(tmp_path / "odd.csv", [("junk", *row) for row in rows], header=("text", "words", "kind"))  # type: ignore[misc]
    assert classifier.evaluate(odd, DataConfig(text=["words"], label="kind")) == classifier.evaluate(plain)


# --- files ---------------------------------------------------------------------------------------------------------


def _csv(path: Path) -> Path:
    return write_csv(path, [(text,) for text in TEXTS], header=("text",))  # type: ignore[misc]


def _tsv(path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(("id", "text"))
        table.writerows(enumerate(TEXTS))
    return path


def _jsonl(path: Path) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return path


def _gzip(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def written(path: Path) -> Path:
        plain = write(path.with_suffix(".plain"))
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
        return path

    return written


def _parquet(path: Path) -> Path:
    pd.DataFrame({"text": TEXTS}).to_parquet(path)
    return path


def _frame(path: Path) -> Path:
    pd.DataFrame({"text": TEXTS}).to_pickle(path)
    return path


def _pickled(make: Callable[[], Any]) -> Callable[[Path], Path]:
    def written(path: Path) -> Path:
        path.write_bytes(pickle.dumps(make()))
        return path

    return written


def _saved_dataset(path: Path) -> Path:
    from datasets import Dataset

    Dataset.from_dict({"text": TEXTS}).save_to_disk(path)
    return path


def _dataset_pickle(path: Path) -> Path:
    from datasets import Dataset

    path.write_bytes(pickle.dumps(Dataset.from_dict({"text": TEXTS})))
    return path


KINDS: dict[str, Callable[[Path], Path]] = {
    "rows.csv": _csv,
    "rows.tsv": _tsv,
    "rows.jsonl": _jsonl,
    "rows.parquet": _parquet,
    "frame.pkl": _frame,
    "dict.pkl": _pickled(lambda: {"text": TEXTS}),
    "list.pkl": _pickled(lambda: [{"text": text} for text in TEXTS]),
    "rows.csv.gz": _gzip(_csv),
    "rows.tsv.gz": _gzip(_tsv),
    "rows.jsonl.gz": _gzip(_jsonl),
    "dict.pkl.gz": _gzip(_pickled(lambda: {"text": TEXTS})),
}


def assert_is_csv_of(out: Path, expected: Predictions, texts: list[str]) -> None:
    with out.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["id", "text", "label", "confidence", *(f"p({name})" for name in expected.classes)]
    assert [line[0] for line in lines] == [str(i) for i in range(len(texts))]
    assert [line[1] for line in lines] == texts
    assert [line[2] for line in lines] == expected.labels
    values = np.array([line[3:] for line in lines], dtype=float)
    np.testing.assert_allclose(values[:, 1:], expected.probabilities, atol=1e-5)
    np.testing.assert_allclose(values[:, 0], values[:, 1:].max(axis=1))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_classified_in_order(
    classifier: Classifier, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CHUNK", 4)
    monkeypatch.setattr("loralab.data.arrow_files.CHUNK", 4)
    counted: list[int] = []
    rows = classifier.predict_file(KINDS[kind](tmp_path / kind), tmp_path / "out.csv", progress=counted.append).rows
    assert rows == len(TEXTS)
    assert counted[-1] == rows
    if "pkl" not in kind:  # a pickle is one object
        assert counted == [4, 8, 11]
    assert_is_csv_of(tmp_path / "out.csv", classifier.predict(TEXTS), TEXTS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("kind", "write"), [("saved", _saved_dataset), ("dataset.pkl", _dataset_pickle)])
def test_datasets_of_the_datasets_library_are_classified(
    classifier: Classifier, tmp_path: Path, kind: str, write: Callable[[Path], Path]
) -> None:
    assert classifier.predict_file(write(tmp_path / kind), tmp_path / "out.csv").rows == len(TEXTS)
    assert_is_csv_of(tmp_path / "out.csv", classifier.predict(TEXTS), TEXTS)


@pytest.mark.parametrize("chunk", [1, 3, len(TEXTS) - 1, len(TEXTS), len(TEXTS) + 1])
@pytest.mark.parametrize("kind", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_chunk_boundaries_lose_and_repeat_nothing(
    classifier: Classifier, tmp_path: Path, kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CHUNK", chunk)
    out = tmp_path / "submission.csv"
    assert classifier.predict_file(KINDS[kind](tmp_path / kind), out, format="submission").rows == len(TEXTS)
    expected = ["ID,Label", *(f"{i},{index}" for i, index in enumerate(classifier.predict(TEXTS).indices))]
    assert out.read_text() == "\n".join(expected) + "\n"


def test_jsonl_holds_one_object_a_line(classifier: Classifier, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    classifier.predict_file(_csv(tmp_path / "in.csv"), out, format="jsonl")
    expected = classifier.predict(TEXTS)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [line["id"] for line in lines] == list(range(len(TEXTS)))
    assert [line["text"] for line in lines] == TEXTS
    assert [line["label"] for line in lines] == expected.labels
    for line, row in zip(lines, expected.probabilities, strict=True):
        assert list(line["probabilities"]) == list(expected.classes)
        np.testing.assert_allclose(list(line["probabilities"].values()), row, atol=1e-5)
        assert line["confidence"] == max(line["probabilities"].values())


def test_several_text_columns_are_joined(classifier: Classifier, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "in.csv", [("a goal", "in the league"), ("shares", "")], header=("headline", "story"))
    classifier.predict_file(path, tmp_path / "out.csv", DataConfig(text=["headline", "story"]))
    texts = ["a goal in the league", "shares"]
    assert_is_csv_of(tmp_path / "out.csv", classifier.predict(texts), texts)


def test_labels_in_the_file_are_left_alone(classifier: Classifier, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "in.csv", [("a goal", "Nonsense"), ("shares", "")])
    assert classifier.predict_file(path, tmp_path / "out.csv").rows == 2


def test_out_has_the_rights_the_umask_allows(classifier: Classifier, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        classifier.predict_file(_csv(tmp_path / "in.csv"), tmp_path / "out.csv")
    finally:
        os.umask(before)
    assert oct((tmp_path / "out.csv").stat().st_mode & 0o777) == "0o640"


def _bad_last_row(path: Path) -> Path:
    path.write_text('text,label\n"a","b"\n"c","d"\n"e","f","one field too many"\n', encoding="utf-8")
    return path


@pytest.mark.parametrize("existing", [None, "predictions of yesterday"])
def test_failing_file_leaves_what_was_there(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: str | None
) -> None:
    monkeypatch.setattr(readers, "CHUNK", 1)  # so that rows are written before the bad one is read
    source, out = _bad_last_row(tmp_path / "in.csv"), tmp_path / "out.csv"
    if existing:
        out.write_text(existing)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(LoralabError, match=r"row 2 \(line 4\) has 3 fields, not 2"):
        classifier.predict_file(source, out)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_stop_in_the_middle_leaves_nothing(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def stop(rows: int) -> None:
        if rows > 4:
            raise error

    monkeypatch.setattr(readers, "CHUNK", 4)
    monkeypatch.setattr("loralab.data.arrow_files.CHUNK", 4)
    source = _csv(tmp_path / "in.csv")
    with pytest.raises(error):
        classifier.predict_file(source, tmp_path / "out.csv", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_full_disk_is_told_in_one_message_and_leaves_nothing(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = _csv(tmp_path / "in.csv")
    monkeypatch.setattr(os, "fsync", full)
    try:
        classifier.predict_file(source, tmp_path / "out.csv")
    except (LoralabError, OSError) as error:
        caught = error
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    assert isinstance(caught, LoralabError), "a full disk ends in a traceback"
    assert caught.exit_code == 1
    assert "No space left" in str(caught)


def test_file_without_rows_is_refused_and_leaves_nothing(classifier: Classifier, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [])
    with pytest.raises(LoralabError, match="has no rows"):
        classifier.predict_file(source, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_an_unknown_format_is_refused_and_a_missing_folder_made(classifier: Classifier, tmp_path: Path) -> None:
    source = _csv(tmp_path / "in.csv")
    with pytest.raises(LoralabError, match=r"'xlsx'.*csv, jsonl, submission"):
        classifier.predict_file(source, tmp_path / "out.xlsx", format="xlsx")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    report = classifier.predict_file(source, tmp_path / "missing" / "deep" / "out.csv")
    assert (tmp_path / "missing" / "deep" / "out.csv").is_file()
    assert sum(report.predicted.values()) == report.rows
    assert [*report.predicted] == [*classifier.classes]
