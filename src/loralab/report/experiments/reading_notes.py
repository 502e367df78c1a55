"""How to read the statistics of a page, for readers who do not know them."""

from __future__ import annotations

from loralab.report.experiments.analysis import ExperimentAnalysis


def reading_notes(analysis: ExperimentAnalysis) -> list[str]:
    """Return what the terms of the findings mean, as sentences."""
    notes = []
    if any(point.interval for point in analysis.data.points):
        notes.append("95 % CI: confidence interval; such intervals contain the true value in 95 % of experiments.")
    if analysis.comparisons:
        notes += [
            "Points are percentage points.",
            "p: how often chance alone makes a difference at least this large. Below 0.05 a difference is significant. "
            "A difference that is not significant may still exist, too small for this experiment to show.",
        ]
        if (family := analysis.comparisons[0].family) > 1:
            notes.append(f"Adjusted: stricter, so that chance makes any of {family} comparisons significant in 5 % of experiments.")
            if not analysis.planned:
                notes.append("All pairs of configurations count, since any of them could have been the best.")
    return notes
