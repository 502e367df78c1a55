"""The fitted head classifies before the first step; the encoder and what no row speaks of are left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from workbench import network, rows, weights

from loralab.data.values import Ints
from loralab.training import warm_start as module
from loralab.training.scoring import features_and_logits, logits_of
from loralab.training.warm_start import STRENGTH, warm_start


@pytest.mark.parametrize("head", ["own", "linear"])
def test_it_classifies_as_the_regression_does_and_changes_the_last_map_only(tiny: Path, head: str) -> None:
    net, data = network(tiny, head=head), rows(tiny, 25)
    before = weights(net)
    features = []
    net.head.out.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    logits_of(net, data, tokens_per_pass=10**9)  # one pass, longest texts first
    order = np.argsort(-data.lengths, kind="stable")
    pooled = torch.cat(features).numpy()
    warm_start(net, data, net.head.out)
    assert data.labels is not None
    scale = np.linalg.norm(pooled, axis=1).mean()
    reference = LogisticRegression(C=STRENGTH, max_iter=500).fit(pooled / scale, data.labels[order])
    found = logits_of(net, data)
    expected = reference.decision_function(pooled / scale)
    np.testing.assert_allclose(found[order], expected, atol=0.05)
    assert (found.argmax(axis=1) == data.labels).mean() > 0.6  # of random features, where chance gives 0.25
    assert {name for name, weight in weights(net).items() if not torch.equal(weight, before[name])} == {
        "head.out.weight",
        "head.out.bias",
    }


def labelled(tiny: Path, *kept: int) -> tuple[torch.nn.Module, Ints]:
    """Fit the head to rows whose labels are folded into `kept`; return the network and the labels."""
    net, data = network(tiny), rows(tiny, 25)
    assert data.labels is not None
    labels = np.array(kept)[data.labels % len(kept)]
    warm_start(net, replace(data, labels=labels), net.head.out)
    return net, labels


def test_two_classes_are_two_rows(tiny: Path) -> None:
    net, labels = labelled(tiny, 1, 3)
    logits = logits_of(net, rows(tiny, 25))
    assert (np.where(logits[:, 3] > logits[:, 1], 3, 1) == labels).mean() > 0.75


def test_a_class_without_rows_keeps_its_weights(tiny: Path) -> None:
    net, _ = labelled(tiny, 0, 1, 3)
    drawn = network(tiny)
    assert [torch.equal(net.head.out.weight[i], drawn.head.out.weight[i]) for i in range(4)] == [False, False, True, False]


def test_one_class_is_nothing_to_fit(tiny: Path) -> None:
    net, _ = labelled(tiny, 2)
    assert torch.equal(net.head.out.weight, network(tiny).head.out.weight)


def test_it_sees_rows_from_all_of_a_large_set(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 20)
    seen: list[Ints] = []
    monkeypatch.setattr(module, "features_and_logits", lambda *given: seen.append(given[3]) or features_and_logits(*given))
    net, data = network(tiny), rows(tiny, 25)
    warm_start(net, data, net.head.out)
    assert len(seen[0]) == 20
    assert (seen[0][0], seen[0][-1]) == (0, 99)
