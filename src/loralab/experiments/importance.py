"""Which settings of a search matter: shares of the variance, compared with those of shuffled scores."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST_TRIALS = 4
_TREES = 16
_SHUFFLES = 19
"""The chance that no share of 19 shuffles reaches a share that means nothing is 1 in 20."""


@dataclass(frozen=True)
class Importance:
    """Setting → its share of the variance of one objective. noise: the largest share that any setting has in shuffled scores."""

    shares: Mapping[str, float]
    noise: float

    @property
    def clear(self) -> dict[str, float]:
        """The settings whose share noise does not explain, the largest first."""
        ordered = sorted(self.shares.items(), key=lambda item: -item[1])
        return {name: share for name, share in ordered if share > self.noise}


def setting_importance(
    points: Sequence[Mapping[str, object]], distributions: Mapping[str, BaseDistribution], values: Sequence[float]
) -> Importance | None:
    """Return the importance of each setting by fANOVA (Hutter et al. 2014); None for too few trials or equal values.

    points, values: the sampled values and one objective of each complete trial. The shares always sum to 1, also for pure noise, so
    they are compared with the largest share in `_SHUFFLES` shuffles of the values (a permutation test over all settings at once).
    """
    if len(values) < FEWEST_TRIALS or len(set(values)) == 1 or len(distributions) < 2:
        return None
    order, shuffled = random.Random(0), [*values]  # noqa: S311
    noise = 0.0
    for _ in range(_SHUFFLES):
        order.shuffle(shuffled)
        noise = max(noise, *_shares(points, distributions, shuffled).values())
    return Importance(_shares(points, distributions, values), noise)


def _shares(
    points: Sequence[Mapping[str, object]], distributions: Mapping[str, BaseDistribution], values: Sequence[float]
) -> dict[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    study = optuna.create_study()
    for point, value in zip(points, values, strict=True):
        study.add_trial(optuna.create_trial(params=dict(point), distributions=dict(distributions), value=value))
    with warnings.catch_warnings(action="ignore"):
        return {
            name: float(share)
            for name, share in get_param_importances(study, evaluator=FanovaImportanceEvaluator(n_trees=_TREES, seed=0)).items()
        }
