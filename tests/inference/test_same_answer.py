"""A text gets the same answer in any company, order, number of threads and backend, within the bound that the docs state."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import make_checkpoint, topics, write_csv

from loralab import Classifier, load_config
from loralab.inference.export import export_run
from loralab.model.encoder import EncoderClassifier
from loralab.pipeline import run_training

pytestmark = pytest.mark.slow
BOUND = 1e-4
"""By how much logits of fp32 models may differ, relative to the largest logit: `docs/explanation/security.md` states it."""
POOL = [text for text, _ in topics(20, seed=7)] + ["a", "", " ".join(["profit"] * 300), "goal " * 40, "ÀÉ ø 漢字 🙂", "x" * 500]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("same")
    base, data = make_checkpoint(folder / "bert"), write_csv(folder / "rows.csv", topics(20))
    overrides = [f"model.base={base}", "train.epochs=2", "train.learning_rate=0.01", "train.precision=fp32"]
    return run_training(load_config(data, overrides), folder=folder / "runs", name="r").folder


@pytest.fixture(scope="module")
def classifier(run: Path) -> Classifier:
    return Classifier.load(run, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def alone(classifier: Classifier) -> dict[str, np.ndarray]:
    """The logits of each text when it is the only one."""
    return {text: classifier.logits([text])[0] for text in POOL}


def check(logits: np.ndarray, texts: list[str], alone: dict[str, np.ndarray]) -> None:
    expected = np.stack([alone[text] for text in texts])
    bound = BOUND * max(np.abs(row).max() for row in alone.values())
    assert np.abs(logits - expected).max() <= bound
    ordered = np.sort(expected, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 2 * bound
    assert (logits.argmax(axis=1) == expected.argmax(axis=1))[clear].all()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.sampled_from(POOL), min_size=1, max_size=60), threads=st.sampled_from([1, 2]), kernels=st.booleans())
def test_company_order_threads_and_kernels_do_not_matter(
    texts: list[str], threads: int, kernels: bool, classifier: Classifier, alone: dict[str, np.ndarray]
) -> None:
    torch.set_num_threads(threads)
    with pytest.MonkeyPatch.context() as patch:
        if not kernels:
            patch.setattr(EncoderClassifier, "uses_kernels", False)
        check(classifier.logits(texts), texts, alone)


@pytest.mark.parametrize("format", ["merged", "onnx"])
def test_an_export_gives_the_same_answer(format: str, run: Path, alone: dict[str, np.ndarray]) -> None:
    export = export_run(run, format)
    if format == "merged":
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        tokenizer, model = (
            AutoTokenizer.from_pretrained(export.folder),
            AutoModelForSequenceClassification.from_pretrained(export.folder),
        )
        inputs = tokenizer(
            POOL, padding=True, truncation=True, max_length=model.config.max_position_embeddings, return_tensors="pt"
        )
        with torch.no_grad():
            logits = model.eval()(**inputs).logits.numpy()
        assert np.argmax(logits, axis=1).tolist() == [int(np.argmax(alone[text])) for text in POOL]
    else:
        texts = random.Random(0).sample(POOL, len(POOL))
        exported, own = Classifier.load(export.folder), Classifier.load(run, precision="fp32")
        check(exported.logits(texts), texts, {text: own.logits([text])[0] for text in POOL})
