"""The head that training begins with classifies before the first step; the encoder and what no row speaks of are left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
def test_it_classifies_as_the_regression_does_and_changes_the_last_map_only(tiny: Path, head: str) -> None:
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
    found = logits_of(model, data)
    expected = reference.decision_function(pooled / scale)
    np.testing.assert_allclose(found[order], expected, atol=0.05)  # scikit-learn stops earlier
    assert (found.argmax(axis=1) == data.labels).mean() > 0.6  # of random features, where chance gives 0.25
    assert {name for name, weight in weights(model).items() if not torch.equal(weight, before[name])} == {
        "head.out.weight",
        "head.out.bias",
    }


def labelled(tiny: Path, *kept: int) -> tuple[torch.nn.Module, Ints]:
    """Fit the head to rows whose labels are folded into `kept`; return the network and the labels."""
    model, data = make_model(tiny), rows(tiny, 25)
    assert data.labels is not None
    labels = np.array(kept)[data.labels % len(kept)]
    initialize_head(model, model.head.out, replace(data, labels=labels), None)
    return model, labels


def test_two_classes_are_two_rows(tiny: Path) -> None:
    model, labels = labelled(tiny, 1, 3)
    logits = logits_of(model, rows(tiny, 25))
    assert (np.where(logits[:, 3] > logits[:, 1], 3, 1) == labels).mean() > 0.75


def test_a_class_without_rows_keeps_its_weights(tiny: Path) -> None:
    model, _ = labelled(tiny, 0, 1, 3)
    drawn = make_model(tiny)
    assert [torch.equal(model.head.out.weight[i], drawn.head.out.weight[i]) for i in range(4)] == [False, False, True, False]


def test_one_class_is_nothing_to_fit(tiny: Path) -> None:
    model, _ = labelled(tiny, 2)
    assert torch.equal(model.head.out.weight, make_model(tiny).head.out.weight)


def test_it_sees_rows_from_all_of_a_large_set(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_init, "MAX_ROWS", 20)
    seen: list[Ints] = []
    monkeypatch.setattr(head_init, "features_and_logits", lambda *given: seen.append(given[3]) or features_and_logits(*given))
    model, data = make_model(tiny), rows(tiny, 25)
    initialize_head(model, model.head.out, data, None)
    assert len(seen[0]) == 20
    assert (seen[0][0], seen[0][-1]) == (0, 99)


def pooled(model: EncoderClassifier, data: Encoded) -> Reals:
    """What the head's last map receives, text by text, in order."""
    inputs: list[torch.Tensor] = []
    hook = model.head.out.register_forward_pre_hook(lambda module, found: inputs.append(found[0]))
    for i in range(len(data)):
        logits_of(model, data, rows=np.array([i]))
    hook.remove()
    return torch.cat(inputs).double().numpy()


@pytest.mark.parametrize("head", ["default", "linear"])
def test_a_head_from_names_tells_cosines(tiny: Path, head: str) -> None:
    model, data, names = make_model(tiny, head=head), rows(tiny, 5), rows(tiny, 3, seed=1)
    assert names.labels is not None
    said, texts = pooled(model, names), pooled(model, data)
    initialize_head(model, model.head.out, None, names)
    for label in range(4):
        units = [vector / np.linalg.norm(vector) for vector, own in zip(said, names.labels, strict=True) if own == label]
        mean = np.mean(units, axis=0)
        cosines = texts @ mean / np.linalg.norm(mean) / np.linalg.norm(texts, axis=1)
        ratio = np.linalg.norm(texts, axis=1) / np.linalg.norm(said, axis=1).mean()
        np.testing.assert_allclose(logits_of(model, data)[:, label], SCALE * cosines * ratio, rtol=1e-4, atol=1e-4)


def test_both_is_the_minimum_of_what_the_formula_says(tiny: Path) -> None:
    """At the minimum the gradient of the rows' loss and the pull to the names cancel out."""
    model, data, names = make_model(tiny), rows(tiny, 5), rows(tiny, 3, seed=1)
    initialize_head(model, model.head.out, None, names)
    texts, before = pooled(model, data), model.head.out.weight.detach().double().numpy().copy()
    said, scale = np.linalg.norm(pooled(model, names), axis=1).mean(), np.linalg.norm(texts, axis=1).mean()
    initialize_head(model, model.head.out, data, names)
    weight, bias = (parameter.detach().double().numpy() for parameter in (model.head.out.weight, model.head.out.bias))
    wrong = softmax(texts @ weight.T + bias, axis=1) - np.eye(4)[data.labels]
    np.testing.assert_allclose(weight * scale - before * said, -PROBE_C_WITH_DESCRIPTIONS * wrong.T @ texts / scale, atol=1e-3)
    np.testing.assert_allclose(wrong.sum(axis=0), 0, atol=1e-3)
    assert np.abs(weight * scale - before * said).max() > 0.1  # the rows did have a say


def test_the_more_rows_weigh_the_further_they_pull_from_the_prior() -> None:
    random = np.random.default_rng(0)
    features, labels, prior = random.normal(size=(20, 6)), np.arange(20) % 3, random.normal(size=(3, 6))
    distances = [np.linalg.norm(regression(features, labels, prior, strength)[0] - prior) for strength in (1e-9, 0.1, 1.0, 10.0)]
    assert distances[0] < 1e-6
    assert distances == sorted(distances)


def test_a_class_with_a_name_and_no_rows_keeps_its_name(tiny: Path) -> None:
    model, names, data = make_model(tiny), rows(tiny, 3, seed=1), rows(tiny, 5)
    assert data.labels is not None
    initialize_head(model, model.head.out, None, names)
    named, said = model.head.out.weight[2].detach().clone(), np.linalg.norm(pooled(model, names), axis=1).mean()
    labels = np.where(data.labels == 2, 1, data.labels)
    initialize_head(model, model.head.out, replace(data, labels=labels), names)
    scale = np.linalg.norm(pooled(model, data), axis=1).mean()
    torch.testing.assert_close(model.head.out.weight[2].detach(), named * said / scale)
    assert model.head.out.bias[2] == 0  # else its bias, which nothing pulls back, falls without end
