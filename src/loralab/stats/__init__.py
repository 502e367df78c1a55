"""Confidence intervals, tests of differences and learning curves: pure functions of arrays and a seed."""

from loralab.stats.crossed import FEWEST_SEEDS, Difference, difference, mean_interval, moderate, resampled_means
from loralab.stats.intervals import Interval, bonferroni_bound, difference_of_proportions, paired_bootstrap, wilson
from loralab.stats.mcnemar import McNemar, mcnemar
from loralab.stats.power_law import HoldOut, LawIntervals, PowerLaw, diminishing, fit_power_law, hold_out_last, law_intervals
from loralab.stats.selection import chosen_interval

__all__ = [
    "FEWEST_SEEDS",
    "Difference",
    "HoldOut",
    "Interval",
    "LawIntervals",
    "McNemar",
    "PowerLaw",
    "bonferroni_bound",
    "chosen_interval",
    "difference",
    "difference_of_proportions",
    "diminishing",
    "fit_power_law",
    "hold_out_last",
    "law_intervals",
    "mcnemar",
    "mean_interval",
    "moderate",
    "paired_bootstrap",
    "resampled_means",
    "wilson",
]
