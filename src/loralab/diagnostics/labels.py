"""Suspected label errors by confident learning (Northcutt, Jiang and Chuang 2021). The predictions must be out of sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_SLACK = 1e-6
"""As in cleanlab: a probability so near its threshold counts as reaching it."""


@dataclass(frozen=True)
class Suspects:
    """What confident learning finds. joint: (classes, classes) rows by (given label, likely label), confident ones only;
    positions: suspected rows, the most suspicious first; likely: (len(positions),) the class each seems to be;
    margins: (len(positions),) p(given) - p(likeliest other), the lowest first.
    """

    joint: Ints
    positions: Ints
    likely: Ints
    margins: Floats


def find_label_errors(probabilities: Floats, labels: Ints) -> Suspects:
    """Find rows that are confidently of another class than their label says.

    probabilities: (n, classes); labels: (n,). A row counts for class k when p(k) reaches the mean p(k) of the rows labelled k; of
    several such classes the likeliest. Off the diagonal of these counts (the confident joint) stand the suspects, less those
    whose label is the likeliest class: cleanlab's `find_label_issues(filter_by="confident_learning")`.
    """
    n, classes = probabilities.shape
    own = probabilities[np.arange(n), labels]
    sums, counts = np.bincount(labels, own, classes), np.bincount(labels, minlength=classes)
    thresholds = np.where(counts > 0, np.maximum(sums / np.maximum(counts, 1), _SLACK), np.inf)  # no label: nothing to go by
    reached = probabilities >= thresholds - _SLACK
    guess = np.where(reached, probabilities, -1.0).argmax(axis=1)
    confident = reached.any(axis=1)
    joint = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(joint, (labels[confident], guess[confident]), 1)

    others = probabilities.copy()
    others[np.arange(n), labels] = -np.inf
    margin = own - others.max(axis=1)
    suspected = np.flatnonzero(confident & (guess != labels) & (margin < 0))
    order = suspected[np.argsort(margin[suspected], kind="stable")]
    return Suspects(joint, order, guess[order], margin[order])
