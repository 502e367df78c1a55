"""McNemar's test: two models on the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loralab.stats.intervals import RESAMPLES, Interval, paired_bootstrap


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same rows: rows that only one of them classifies correctly, p, and the difference in accuracy."""

    only_a: int
    only_b: int
    p: float
    interval: Interval


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> McNemar:
    """Compare two classifiers by the rows (n,) each classifies correctly: McNemar's mid-p test and the paired bootstrap over rows.

    The mid-p test is close to its nominal level for few and many discordant rows; the exact test is conservative and the
    chi-squared test needs many rows (Fagerland, Lydersen and Laake 2013). The result is about these two trained models; use
    `crossed.difference` for a claim over seeds. Raises ValueError for no rows or unequal lengths.
    """
    from scipy.special import bdtr

    interval = paired_bootstrap(correct_a, correct_b, resamples=resamples, seed=seed)
    first, second = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    only_a, only_b = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    fewer, discordant = min(only_a, only_b), only_a + only_b
    p = float(bdtr(fewer, discordant, 0.5) + (bdtr(fewer - 1, discordant, 0.5) if fewer else 0))
    return McNemar(only_a, only_b, p, interval)
