"""Suspected label errors by confident learning (Northcutt, Jiang and Chuang 2021). The predictions must be out of sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_SLACK = 1e-6
"""cleanlab's tolerance: a probability this close to its threshold reaches it."""


@dataclass(frozen=True)
class LabelErrors:
    """joint: (classes, classes) confident rows by label and suggested label; positions: suspected rows, most suspicious first;
    suggested: (len(positions),) their likely classes; margins: (len(positions),) p(label) - max p(other), lowest first.
    """

    joint: Ints
    positions: Ints
    suggested: Ints
    margins: Floats


def find_label_errors(probabilities: Floats, labels: Ints) -> LabelErrors:
    """Find rows that confidently belong to another class than their label.

    probabilities: (n, classes); labels: (n,). A row counts for class k when p(k) reaches the mean p(k) of the rows labelled k; of
    several such classes for the most probable. Suspects are off the diagonal of these counts (the confident joint), less those
    whose label is the most probable class: cleanlab's `find_label_issues(filter_by="confident_learning")`.
    """
    n, classes = probabilities.shape
    of_label = probabilities[np.arange(n), labels]
    sums, counts = np.bincount(labels, of_label, classes), np.bincount(labels, minlength=classes)
    thresholds = np.where(counts > 0, np.maximum(sums / np.maximum(counts, 1), _SLACK), np.inf)  # inf: a class without labels
    reached = probabilities >= thresholds - _SLACK
    guess = np.where(reached, probabilities, -1.0).argmax(axis=1)
    confident = reached.any(axis=1)
    joint = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(joint, (labels[confident], guess[confident]), 1)

    others = probabilities.copy()
    others[np.arange(n), labels] = -np.inf
    margin = of_label - others.max(axis=1)
    suspected = np.flatnonzero(confident & (guess != labels) & (margin < 0))
    order = suspected[np.argsort(margin[suspected], kind="stable")]
    return LabelErrors(joint, order, guess[order], margin[order])
