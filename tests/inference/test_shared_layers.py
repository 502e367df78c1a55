"""Classifiers that share an encoder: the same logits as alone, less memory, and the common layers run once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_checkpoint, topics, write_csv

from loralab import Classifier, load_config
from loralab.inference import shared_layers
from loralab.inference.shared_layers import SharedModel, StateCache, TextOfModel, logits_of_texts, share_weights, shared_depth
from loralab.model.encoder import EncoderClassifier
from loralab.pipeline import run_training

RECIPES = {
    "top2": ("lora.layers=top2", "lora.targets=all"),
    "top1": ("lora.layers=top1",),
    "second top1": ("lora.layers=top1", "seed=7"),
    "all": ("lora.layers=0-2",),
    "head": ("tuning=head",),
    "full": ("tuning=full",),
}


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs on one random BERT; in bf16 the C kernels compute it where the CPU has them."""
    folder = tmp_path_factory.mktemp(request.param)
    base = make_checkpoint(folder / "bert", hidden_size=64, intermediate_size=128)
    data = write_csv(folder / "topics.csv", topics(20))
    common = (f"model.base={base}", f"train.precision={request.param}", "train.epochs=2", "train.learning_rate=0.02", "data.test=0")
    return {
        name: run_training(load_config(data, [*common, *settings]), folder=folder / "runs", name=name).folder
        for name, settings in RECIPES.items()
    }


def load(runs: dict[str, Path], *names: str) -> list[Classifier]:
    """Load runs as a server does: each shares the weights of those before it."""
    classifiers: list[Classifier] = []
    for name in names:
        classifier = Classifier.load(runs[name])
        share_weights(classifier.model, [other.model for other in classifiers])
        classifier.model.eval()
        classifiers.append(classifier)
    return classifiers


def mixed(classifiers: list[Classifier], texts: list[str]) -> list[tuple[int, str]]:
    """Return (number of the classifier, text) for all of both, in no order."""
    pairs = [(i, text) for i in range(len(classifiers)) for text in texts]
    return [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]


def as_texts(classifiers: list[Classifier], pairs: list[tuple[int, str]]) -> list[TextOfModel]:
    alone = [SharedModel(classifier.model, classifier.manifest.dims.pad_id) for classifier in classifiers]
    shared = [model.among(alone) for model in alone]
    return [TextOfModel(shared[i], classifiers[i].encode([text]).tokens) for i, text in pairs]


@pytest.mark.parametrize("names", [tuple(RECIPES), ("top1", "second top1"), ("head", "head"), ("top2",)])
def test_a_mixed_batch_gives_the_logits_of_every_model_alone(runs: dict[str, Path], names: tuple[str, ...]) -> None:
    classifiers = load(runs, *names)
    texts = [*(text for text, _ in topics(4, 3)), "", "goal " * 40]
    pairs = mixed(classifiers, texts)
    alone = [dict(zip(texts, Classifier.load(runs[name]).logits(texts), strict=True)) for name in names]
    for (i, text), logits in zip(pairs, logits_of_texts(as_texts(classifiers, pairs), StateCache(1 << 20)), strict=True):
        np.testing.assert_allclose(logits, alone[i][text], atol=2e-5)


def test_models_of_one_encoder_store_its_weights_once(runs: dict[str, Path]) -> None:
    first, second = load(runs, "top1", "second top1")
    assert all(
        one is other
        for part in ("embeddings", "layers.0", "layers.1")
        for one, other in zip(
            first.model.get_submodule(part).parameters(), second.model.get_submodule(part).parameters(), strict=True
        )
    )
    assert first.model.layer(2).qkv.weight is not second.model.layer(2).qkv.weight
    assert share_weights(second.model, [first.model]) == 0, "nothing is left to share"


def test_common_layers_run_once_per_text(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    classifiers = load(runs, "top1", "second top1", "top2")
    calls: list[tuple[int, int, int]] = []
    encode = EncoderClassifier.encode

    def counted(self: Any, hidden: Any, mask: Any, start: int = 0, stop: int | None = None, **rest: Any) -> Any:
        calls.append((start, 3 if stop is None else stop, len(hidden)))
        return encode(self, hidden, mask, start, stop, **rest)

    monkeypatch.setattr(EncoderClassifier, "encode", counted)
    cache = StateCache(1 << 20)
    texts = as_texts(classifiers, [(i, text) for i in range(3) for text in ("goal", "bank rate")])
    logits_of_texts(texts, cache)
    assert sorted(calls) == [(0, 1, 2), (0, 2, 2), (1, 3, 2), (2, 3, 2), (2, 3, 2)]
    calls.clear()
    first = logits_of_texts(texts[:2], cache)
    assert calls == [(2, 3, 2)], "the states of both texts are known"
    calls.clear()
    np.testing.assert_allclose(logits_of_texts(texts[:2], StateCache(0)), first, atol=2e-5)
    assert calls == [(0, 2, 2), (2, 3, 2)]


def test_the_cache_forgets_what_was_used_longest_ago() -> None:
    cache = StateCache(100)
    for name in ("a", "b", "c"):
        cache.put((name, b""), torch.zeros(10))
        cache.get(("a", b""))
    assert cache.get(("b", b"")) is None
    assert cache.get(("a", b"")) is not None
    assert cache.bytes == 80
    cache.put(("large", b""), torch.zeros(1000))
    assert cache.bytes == 0


def test_models_of_different_encoders_share_nothing(runs: dict[str, Path], tmp_path: Path) -> None:
    other_base = make_checkpoint(tmp_path / "bert", hidden_size=64, intermediate_size=128, seed=5)
    data = write_csv(tmp_path / "topics.csv", topics(20))
    config = load_config(data, [f"model.base={other_base}", "train.epochs=1", "data.test=0", "train.precision=fp32"])
    other = Classifier.load(run_training(config, folder=tmp_path, name="other").folder)
    (first,) = load(runs, "top1")
    share_weights(other.model, [first.model])
    a, b = (SharedModel(classifier.model, 0) for classifier in (first, other))
    assert shared_depth(a, b) == 0
    a, b = a.among([a, b]), b.among([a, b])
    pairs = [(0, "goal"), (1, "goal")]
    results = logits_of_texts([TextOfModel(m, c.encode(["goal"]).tokens) for m, c in ((a, first), (b, other))], StateCache(1 << 20))
    for (i, text), logits in zip(pairs, results, strict=True):
        np.testing.assert_allclose(logits, [first, other][i].logits([text])[0], atol=2e-5)


def test_models_of_another_library_are_computed_alone(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = load(runs, "head", "top1")
    monkeypatch.setattr(shared_layers, "EncoderClassifier", type("Other", (), {}))
    texts = as_texts([first, second], [(0, "goal"), (1, "goal"), (0, "bank rate")])
    expected = [first.logits(["goal"])[0], second.logits(["goal"])[0], first.logits(["bank rate"])[0]]
    np.testing.assert_allclose(logits_of_texts(texts, StateCache(1 << 20)), expected, atol=2e-5)
