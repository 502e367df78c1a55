"""Several scores of several configurations at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from loralab.report.figures import style
from loralab.report.figures.style import COLORS, WIDTH, Caption, ReportFigure, StyledFigure
from loralab.report.formatting import shorten

MAX_SERIES, MAX_LABEL = 5, 28
_LINES = ("o-", "s--", "^-.", "D:", "v-")


def radar_plot(caption: Caption, series: Mapping[str, Mapping[str, float]]) -> ReportFigure:
    """Draw one closed line for each configuration. series: label → score → value from 0 to 1, outward is better.

    The axes begin at `radar_center`.
    """
    names, center = list(next(iter(series.values()))), radar_center(series)
    figure = StyledFigure(figsize=(WIDTH, 4.0), layout="constrained")
    axes = figure.add_subplot(projection="polar", theta_offset=np.pi / 2, theta_direction=-1)
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    for (label, values), color, line in zip(series.items(), COLORS, _LINES, strict=False):
        radii = [values[name] for name in names]
        axes.plot([*angles, angles[0]], [*radii, radii[0]], line, color=color, markersize=3.5, label=shorten(label, MAX_LABEL))
    axes.set_xticks(angles, names, fontsize=8)
    axes.set_ylim(center, 1)
    ticks = np.linspace(center, 1, 4)
    axes.set_yticks(ticks, [f"{tick:.2f}" for tick in ticks], fontsize=7)
    for text, angle in zip(axes.get_xticklabels(), angles, strict=True):
        side = round(float(np.sin(angle)), 3)
        text.set_horizontalalignment("center" if side == 0 else "left" if side > 0 else "right")
    axes.tick_params(axis="x", pad=3)
    axes.spines["polar"].set_color(style.GRID)
    figure.legend(loc="outside lower center", ncols=2)
    return ReportFigure(caption, figure)


def radar_center(series: Mapping[str, Mapping[str, float]]) -> float:
    """Return a number just below the lowest value, at least 0: scores of good classifiers differ in their last digits only."""
    return max(0.0, math.floor(20 * min(min(values.values()) for values in series.values()) - 0.5) / 20)


def radar_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the scores of a radar: 1 is the best possible value, 0 the worst, or no better than chance."""
    means = {
        kind: float(np.mean([value for name, value in scores.items() if name.startswith(f"{kind}:")]))
        for kind in ("recall", "precision")
    }
    values = {"accuracy": scores["accuracy"], "macro F1": scores["macro_f1"], **means}
    values |= {label: max(0.0, scores[name]) for label, name in (("MCC", "mcc"), ("kappa", "kappa")) if name in scores}
    errors = (("1 − ECE", "ece", 1.0), ("1 − Brier/2", "brier", 2.0))
    return values | {label: 1 - scores[name] / worst for label, name, worst in errors if name in scores}
