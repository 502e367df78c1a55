"""How sure a measured number is, whether two differ, and where a curve goes. Pure functions of arrays and a seed."""

from loralab.stats.comparisons import FEWEST_SEEDS, McNemar, Paired, Unpaired, holm, mcnemar, paired, unpaired, verdict
from loralab.stats.intervals import (
    ROUNDS,
    Interval,
    Summary,
    beyond_chance,
    difference_of_shares,
    paired_bootstrap,
    summary,
    wilson,
)
from loralab.stats.power_law import HoldOut, LawIntervals, PowerLaw, diminishing, fit_power_law, hold_out_last, law_intervals

__all__ = [
    "FEWEST_SEEDS",
    "ROUNDS",
    "HoldOut",
    "Interval",
    "LawIntervals",
    "McNemar",
    "Paired",
    "PowerLaw",
    "Summary",
    "Unpaired",
    "beyond_chance",
    "difference_of_shares",
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
