"""An initialized head classifies before the first step. The encoder, and classes without rows or descriptions, do not change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from workbench import make_model, rows, weights

from loralab.data.types import Encoded, Ints
from loralab.model.encoder import EncoderClassifier
from loralab.training import head_init
from loralab.training.head_init import PROBE_C, PROBE_C_WITH_DESCRIPTIONS, SCALE, Reals, initialize_head, regression
from loralab.training.scoring import features_and_logits, logits_of


@pytest.mark.parametrize("head", ["default", "linear"])
def test_it_equals_scikit_learns_regression_and_changes_the_last_map_only(tiny: Path, head: str) -> None:
    model, data = make_model(tiny, head=head), rows(tiny, 25)
    before = weights(model)
    features = []
    model.head.out.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    logits_of(model, data, max_tokens_per_microbatch=10**9)  # one pass, longest texts first
    order = np.argsort(-data.lengths, kind="stable")
    pooled = torch.cat(features).numpy()
    initialize_head(model, model.head.out, data, None)
    assert data.labels is not None
    scale = np.linalg.norm(pooled, axis=1).mean()
    reference = LogisticRegression(C=PROBE_C, max_iter=500).fit(pooled / scale, data.labels[order])
    logits = logits_of(model, data)
    expected = reference.decision_function(pooled / scale)
    np.testing.assert_allclose(logits[order], expected, atol=0.05)  # scikit-learn stops earlier
    assert (logits.argmax(axis=1) == data.labels).mean() > 0.6  # of random features; chance is 0.25
    assert {name for name, weight in weights(model).items() if not torch.equal(weight, before[name])} == {
        "head.out.weight",
        "head.out.bias",
    }


def labelled(tiny: Path, *kept: int) -> tuple[EncoderClassifier, Ints]:
    """Fit the head to rows with the labels `kept` only. Return the model and the labels."""
    model, data = make_model(tiny), rows(tiny, 25)
    assert data.labels is not None
    labels = np.array(kept)[data.labels % len(kept)]
    initialize_head(model, model.head.out, replace(data, labels=labels), None)
    return model, labels


def test_two_of_four_classes_are_learned(tiny: Path) -> None:
    model, labels = labelled(tiny, 1, 3)
    logits = logits_of(model, rows(tiny, 25))
    assert (np.where(logits[:, 3] > logits[:, 1], 3, 1) == labels).mean() > 0.75


def test_a_class_without_rows_keeps_its_weights(tiny: Path) -> None:
    model, _ = labelled(tiny, 0, 1, 3)
    drawn = make_model(tiny)
    assert [torch.equal(model.head.out.weight[i], drawn.head.out.weight[i]) for i in range(4)] == [False, False, True, False]


def test_one_class_changes_nothing(tiny: Path) -> None:
    model, _ = labelled(tiny, 2)
    assert torch.equal(model.head.out.weight, make_model(tiny).head.out.weight)


def test_it_samples_a_large_set_evenly(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_init, "MAX_ROWS", 20)
    seen: list[Ints] = []

    def record(*arguments: Any) -> Any:
        seen.append(arguments[3])
        return features_and_logits(*arguments)

    monkeypatch.setattr(head_init, "features_and_logits", record)
    model, data = make_model(tiny), rows(tiny, 25)
    initialize_head(model, model.head.out, data, None)
    assert len(seen[0]) == 20
    assert (seen[0][0], seen[0][-1]) == (0, 99)


def pooled(model: EncoderClassifier, data: Encoded) -> Reals:
    """Return the inputs of the head's last map, computed text by text."""
    inputs: list[torch.Tensor] = []
    hook = model.head.out.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    for i in range(len(data)):
        logits_of(model, data, rows=np.array([i]))
    hook.remove()
    return torch.cat(inputs).double().numpy()


@pytest.mark.parametrize("head", ["default", "linear"])
def test_a_head_from_descriptions_computes_cosines(tiny: Path, head: str) -> None:
    model, data, descriptions = make_model(tiny, head=head), rows(tiny, 5), rows(tiny, 3, seed=1)
    assert descriptions.labels is not None
    described, texts = pooled(model, descriptions), pooled(model, data)
    initialize_head(model, model.head.out, None, descriptions)
    for label in range(4):
        units = [
            vector / np.linalg.norm(vector) for vector, own in zip(described, descriptions.labels, strict=True) if own == label
        ]
        mean = np.mean(units, axis=0)
        cosines = texts @ mean / np.linalg.norm(mean) / np.linalg.norm(texts, axis=1)
        ratio = np.linalg.norm(texts, axis=1) / np.linalg.norm(described, axis=1).mean()
        np.testing.assert_allclose(logits_of(model, data)[:, label], SCALE * cosines * ratio, rtol=1e-4, atol=1e-4)


def test_probe_and_descriptions_minimize_the_formula(tiny: Path) -> None:
    """At the minimum the gradient of the rows' loss and that of the regularization cancel out."""
    model, data, descriptions = make_model(tiny), rows(tiny, 5), rows(tiny, 3, seed=1)
    initialize_head(model, model.head.out, None, descriptions)
    texts, before = pooled(model, data), model.head.out.weight.detach().double().numpy().copy()
    described, scale = np.linalg.norm(pooled(model, descriptions), axis=1).mean(), np.linalg.norm(texts, axis=1).mean()
    initialize_head(model, model.head.out, data, descriptions)
    weight, bias = (parameter.detach().double().numpy() for parameter in (model.head.out.weight, model.head.out.bias))
    wrong = softmax(texts @ weight.T + bias, axis=1) - np.eye(4)[data.labels]
    np.testing.assert_allclose(weight * scale - before * described, -PROBE_C_WITH_DESCRIPTIONS * wrong.T @ texts / scale, atol=1e-3)
    np.testing.assert_allclose(wrong.sum(axis=0), 0, atol=1e-3)
    assert np.abs(weight * scale - before * described).max() > 0.1  # the rows did change the weights


def test_a_larger_c_moves_the_weights_further_from_the_prior() -> None:
    random = np.random.default_rng(0)
    features, labels, prior = random.normal(size=(20, 6)), np.arange(20) % 3, random.normal(size=(3, 6))
    distances = [np.linalg.norm(regression(features, labels, prior, strength)[0] - prior) for strength in (1e-9, 0.1, 1.0, 10.0)]
    assert distances[0] < 1e-6
    assert distances == sorted(distances)


def test_a_class_with_descriptions_and_without_rows_keeps_its_weights(tiny: Path) -> None:
    model, descriptions, data = make_model(tiny), rows(tiny, 3, seed=1), rows(tiny, 5)
    assert data.labels is not None
    initialize_head(model, model.head.out, None, descriptions)
    named, described = model.head.out.weight[2].detach().clone(), np.linalg.norm(pooled(model, descriptions), axis=1).mean()
    labels = np.where(data.labels == 2, 1, data.labels)
    initialize_head(model, model.head.out, replace(data, labels=labels), descriptions)
    scale = np.linalg.norm(pooled(model, data), axis=1).mean()
    torch.testing.assert_close(model.head.out.weight[2].detach(), named * described / scale)
    assert model.head.out.bias[2] == 0  # without regularization the bias would decrease without limit


def test_a_head_without_bias_is_fitted_without_one() -> None:
    """Heads of Qwen, Llama and other decoders."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = random.normal(size=(60, 5)) + 2 * np.eye(5)[labels]
    weights, biases = regression(features, labels, np.zeros((3, 5)), 1.0, bias=False)
    assert (biases == 0).all()
    assert ((features @ weights.T).argmax(axis=1) == labels).mean() > 0.8
    free, free_biases = regression(features, labels, np.zeros((3, 5)), 1.0)
    assert np.abs(free_biases).max() > 0
    assert not np.allclose(weights, free)


def test_the_probe_takes_a_row_of_weight_two_as_the_row_twice(tiny: Path) -> None:
    data, counts = rows(tiny, 5), np.ones(20)
    counts[[0, 3, 9]] = 2, 3, 0
    copies = np.repeat(np.arange(20), counts.astype(int))
    spans = [data.tokens[data.starts[i] : data.starts[i + 1]] for i in copies]
    assert data.labels is not None
    starts = np.concatenate([[0], np.cumsum([len(span) for span in spans])])
    repeated = replace(data, tokens=np.concatenate(spans), starts=starts, labels=data.labels[copies])
    one, other, plain = make_model(tiny), make_model(tiny), make_model(tiny)
    # C multiplies the sum of the weights, so their mean is not 1 here: it is that of the copies
    initialize_head(one, one.head.out, replace(data, weights=counts), None)
    initialize_head(other, other.head.out, repeated, None)
    initialize_head(plain, plain.head.out, data, None)
    torch.testing.assert_close(one.head.out.weight, other.head.out.weight, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(one.head.out.weight, plain.head.out.weight, rtol=1e-2, atol=1e-3)
