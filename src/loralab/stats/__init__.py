"""Confidence intervals, tests of differences, multiple comparisons and learning curves: pure functions of arrays and a seed."""

from loralab.stats.comparisons import FEWEST_SEEDS, McNemar, Paired, Unpaired, holm, mcnemar, paired, unpaired, verdict
from loralab.stats.intervals import (
    Interval,
    Summary,
    bonferroni_bound,
    difference_of_proportions,
    paired_bootstrap,
    summary,
    wilson,
)
from loralab.stats.power_law import HoldOut, LawIntervals, PowerLaw, diminishing, fit_power_law, hold_out_last, law_intervals

__all__ = [
    "FEWEST_SEEDS",
    "HoldOut",
    "Interval",
    "LawIntervals",
    "McNemar",
    "Paired",
    "PowerLaw",
    "Summary",
    "Unpaired",
    "bonferroni_bound",
    "difference_of_proportions",
    "diminishing",
    "fit_power_law",
    "hold_out_last",
    "holm",
    "law_intervals",
    "mcnemar",
    "paired",
    "paired_bootstrap",
    "summary",
    "unpaired",
    "verdict",
    "wilson",
]
