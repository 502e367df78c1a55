"""How a report treats each kind of experiment: the score that decides, the baseline of comparisons, the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loralab.report.experiments import experiment_figures as figures
from loralab.report.experiments.analysis import (
    ExperimentAnalysis,
    PairSelector,
    compare_points,
    pairs_with_best,
    pairs_with_defaults,
    pairs_with_first,
    pairs_with_largest,
    pairs_with_value,
)
from loralab.report.experiments.experiment_data import Score, read_experiment_data
from loralab.report.figures.style import ReportFigure, figure_style


@dataclass(frozen=True)
class Profile:
    """score_part: whose accuracy ranks: settings are chosen on validation rows, effects are measured on test rows.

    baseline: which pairs are compared, always on test rows; figures: in order.
    """

    score_part: Literal["test", "validation"]
    baseline: PairSelector
    figures: tuple[Callable[[ExperimentAnalysis], figures.Drawings], ...]


DEFAULT_PROFILE = Profile("test", pairs_with_first, (figures.number_figure, figures.score_figure))
PROFILES: Mapping[str, Profile] = {
    "seeds": Profile(
        "test", pairs_with_first, (figures.score_figure, figures.seed_figure, figures.time_figure, figures.radar_figure)
    ),
    "grid": Profile("validation", pairs_with_best, (figures.factor_pair_figures, figures.number_figure, figures.step_figure)),
    "ablation": Profile("validation", pairs_with_defaults, (figures.score_figure, figures.step_figures_by_factor)),
    "layers": Profile("test", pairs_with_value("all"), (figures.cost_figure, figures.step_figure)),
    "augmentation": Profile("test", pairs_with_value(None, "none", "", 0), (figures.number_figure, figures.score_figure)),
    "active": Profile("test", pairs_with_value("random"), (figures.number_figure,)),
    "zero-shot": Profile("test", pairs_with_first, (figures.score_figure,)),
    "few-shot": Profile("test", pairs_with_largest, (figures.number_figure,)),
    "scaling": Profile("test", pairs_with_largest, (figures.scaling_figure, figures.number_figure)),
    "compare": Profile("test", pairs_with_first, (figures.cost_figure, figures.seed_figure, figures.radar_figure)),
    "search": Profile("validation", pairs_with_best, (figures.search_figures, figures.time_figure)),
}


def analyze_experiment(folder: Path) -> ExperimentAnalysis:
    """Read an experiment and compare its configurations. Raises LoralabError for a folder without one and for damaged files."""
    data = read_experiment_data(folder)
    profile = PROFILES.get(data.spec.kind, DEFAULT_PROFILE)
    # without validation rows the test rows decide
    score = Score("validation" if profile.score_part == "validation" and data.has_validation else "test")
    planned = profile.baseline is not pairs_with_best
    comparisons = compare_points(profile.baseline(data, score), None if planned else len(data.points))
    return ExperimentAnalysis(data, score, tuple(comparisons), planned)


def draw_experiment_figures(analysis: ExperimentAnalysis) -> list[ReportFigure]:
    """Draw every figure that the experiment has data for."""
    profile = PROFILES.get(analysis.data.spec.kind, DEFAULT_PROFILE)
    with figure_style():
        return [drawing for draw in (*profile.figures, figures.difference_figure) for drawing in draw(analysis) if drawing]
