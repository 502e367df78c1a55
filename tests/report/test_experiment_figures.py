"""An experiment's figures: every text is on the canvas and none covers another, for every kind and degenerate experiments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_experiment import Factors, make_experiment, over_seeds
from fake_run import HOSTILE
from figure_checks import check_texts

from loralab.report.experiments.dashboard import draw_dashboard, read_dashboard
from loralab.report.experiments.profiles import analyze_experiment, draw_experiment_figures
from loralab.report.figures.plots import Series, line_plot
from loralab.report.figures.style import Caption, figure_style, to_svg

THREE, FIVE = [0.8, 0.81, 0.83], [0.85, 0.86, 0.84, 0.87, 0.85]
RATES = (1e-5, 5e-5, 1e-4, 2e-4, 5e-4)
AUGMENTED: list[tuple[Factors, list[float]]] = [
    ({"data.augment": name, "data.augment_ratio": ratio}, [0.7 + ratio / 10, 0.72, 0.73])
    for name in ("synonym", "back_translation")
    for ratio in (0.25, 0.5, 1.0)
]
KINDS: dict[str, tuple[list[tuple[Factors, list[float]]], set[str]]] = {
    "seeds": (
        [({"recipe": name}, FIVE) for name in ("distilbert-study", "a-recipe-with-a-rather-long-name", "x")],
        {"points", "paired_seeds", "time", "radar", "differences"},
    ),
    "grid": (
        [({"train.learning_rate": r, "train.weight_decay": w}, [0.7 + r * 100, 0.71, 0.7]) for r in RATES for w in (0, 0.001, 0.1)],
        {"heat", "surface", "by_number", "by_step", "differences"},
    ),
    "ablation": (
        [({}, THREE), *(({"lora.rank": r}, THREE) for r in (2, 8)), ({"lora.targets": "query+value+ffn_in"}, FIVE[:3])],
        {"points", "by_step_lora_rank", "by_step_lora_targets", "differences"},
    ),
    "layers": ([({"lora.layers": name}, THREE) for name in ("top1", "top2", "all")], {"cost", "by_step", "differences"}),
    "augmentation": (
        [({"data.augment": "none", "data.augment_ratio": 0}, THREE), *AUGMENTED],
        {"by_number", "points", "differences"},
    ),
    "active": (
        [({"strategy": s, "labels": n}, [0.5 + n / 5000, 0.55, 0.6]) for s in ("random", "entropy") for n in (100, 500, 1000)],
        {"by_number", "differences"},
    ),
    "zero-shot": ([({"template": "This text is about {}."}, [0.7]), ({"template": "{}"}, [0.6])], {"points", "differences"}),
    "few-shot": (
        [({"data.shots_per_class": n}, [0.3 + n / 400, 0.32, 0.31]) for n in (1, 2, 5, 10, 20, 50, 100)],
        {"by_number", "differences"},
    ),
    "scaling": (
        [({"data.max_train_samples": n}, [0.9 - n**-0.4 - luck for luck in (0, 0.01, 0.02)]) for n in (10, 100, 500, 1000, 10_000)],
        {"law", "by_number", "differences"},
    ),
    "compare": ([({"run": "one"}, THREE), ({"run": "two"}, FIVE[:3])], {"cost", "paired_seeds", "radar", "differences"}),
    "search": ([({"lora.rank": r, "train.learning_rate": 0.001234567}, [0.8]) for r in (4, 8)], {"time", "differences"}),
    "unheard of": ([({"lora.rank": r}, THREE) for r in (4, 8)], {"by_number", "points", "differences"}),
}


@pytest.mark.parametrize(
    "kind", [kind if kind in ("layers", "active") else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_every_kind_has_its_figures_and_their_texts_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    points, expected = KINDS[kind]
    drawings = draw_experiment_figures(analyze_experiment(make_experiment(tmp_path / "x", kind, over_seeds(points))))
    assert {drawing.name for drawing in drawings} == expected
    for drawing in drawings:
        if drawing.name != "surface":  # its ticks lie along slanted axes: boxes say nothing
            check_texts(drawing, monkeypatch)


def test_each_recipes_defaults_are_in_every_settings_figure(tmp_path: Path) -> None:
    points: list[tuple[Factors, list[float]]] = [
        ({"recipe": recipe, **more}, THREE) for recipe in ("one", "two") for more in ({}, {"lora.rank": 2})
    ]
    with figure_style():
        drawings = {
            each.name: each
            for each in draw_experiment_figures(analyze_experiment(make_experiment(tmp_path / "x", "ablation", over_seeds(points))))
        }
    lines_ = drawings["by_step_lora_rank"].figure.axes[0].get_lines()
    assert [line.get_label() for line in lines_] == ["recipe one", "recipe two", "recipe one, rank 2", "recipe two, rank 2"]


DEGENERATE: dict[str, list[tuple[Factors, list[float]]]] = {
    "no factor": [({}, [0.5])],
    "one point": [({"lora.rank": 4}, [0.5])],
    "equal values": [({"lora.rank": rank, "lora.alpha": 8}, [0.5] * 5) for rank in (4, 8)],
    "0 and 1": [({"lora.rank": 0}, [1.0] * 3), ({"lora.rank": 9}, [0.0] * 3)],
}
FAST = [("unheard of", "no factor"), ("unheard of", "0 and 1"), ("grid", "one point")]
REST = [
    (kind, name) for kind in ("seeds", "grid", "ablation", "layers", "scaling") for name in DEGENERATE if (kind, name) not in FAST
]


@pytest.mark.parametrize(("kind", "name"), [*FAST, *(pytest.param(*each, marks=pytest.mark.slow) for each in REST)])
def test_degenerate_experiments_can_be_drawn(tmp_path: Path, kind: str, name: str) -> None:
    drawings = draw_experiment_figures(analyze_experiment(make_experiment(tmp_path / "x", kind, over_seeds(DEGENERATE[name]))))
    assert drawings or kind == "scaling"
    for drawing in drawings:
        assert "nan" not in to_svg(drawing).lower().replace("dominant", "")


def test_an_experiment_without_results_has_no_figures(tmp_path: Path) -> None:
    assert (
        draw_experiment_figures(
            analyze_experiment(make_experiment(tmp_path / "x", "grid", [], waiting=[{"lora.rank": 4, "seed": 1}]))
        )
        == []
    )


@pytest.mark.slow
def test_hostile_and_many_points_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points: list[tuple[Factors, list[float]]] = [
        ({"data.source": f"{name} {i}", "lora.rank": 4}, THREE) for i in range(12) for name in HOSTILE
    ]
    drawings = draw_experiment_figures(analyze_experiment(make_experiment(tmp_path / "x", "seeds", over_seeds(points))))
    for drawing in drawings:
        check_texts(drawing, monkeypatch)


def test_line_plots_choose_their_x_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A span of 8 or more is on a log scale; with a 0 the points are evenly apart; steps are as they are."""
    caption = Caption("a", "A", "rows", "text.")

    def drawn(*x: float) -> tuple[str, list[float]]:
        drawing = line_plot(caption, [Series("one", x, [1.0] * len(x))], "x", "y")
        assert drawing
        check_texts(drawing, monkeypatch)
        (axes,) = drawing.figure.axes
        return axes.get_xscale(), [float(value) for value in np.asarray(axes.get_lines()[0].get_xdata())]

    with figure_style():
        assert drawn(1, 2, 4) == ("linear", [1, 2, 4])
        assert drawn(10, 100, 10_000) == ("log", [10, 100, 10_000])
        assert drawn(0, 0.001, 0.1) == ("linear", [0, 1, 2])
        assert drawn(0, 1, 2) == ("linear", [0, 1, 2])
        assert drawn(5, 10, 11, 12, 1000) == ("log", [5, 10, 11, 12, 1000])


def test_the_dashboard_draws_what_has_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(4):
        make_experiment(tmp_path / f"grid-{'x' * 10 * i}", "grid", over_seeds([({"lora.rank": 4}, FIVE[: i + 1])]))
    make_experiment(tmp_path / "nothing", "grid", [], waiting=[{"lora.rank": 4}])
    (drawing,) = draw_dashboard(read_dashboard(tmp_path))
    assert drawing.caption.rows == "4 with a result"
    check_texts(drawing, monkeypatch)


@pytest.mark.slow
def test_an_experiments_report_loads_neither_torch_nor_pyplot(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "x", "scaling", over_seeds(KINDS["scaling"][0]))
    program = f"""
import sys
from pathlib import Path
from loralab.report.write import write_report
write_report(Path({str(folder)!r}))
print([name for name in ("torch", "matplotlib.pyplot", "sklearn", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_number_with_one_value_per_line_has_no_line_figure(tmp_path: Path) -> None:
    points: list[tuple[Factors, list[float]]] = [({"data.augment": "none", "data.augment_ratio": 0}, THREE)]
    points += [({"data.augment": name, "data.augment_ratio": 0.5}, THREE) for name in ("synonym", "swap")]
    analysis = analyze_experiment(make_experiment(tmp_path / "x", "augmentation", over_seeds(points)))
    assert analysis.data.numeric_factor == "data.augment_ratio"
    assert "by_number" not in {drawing.name for drawing in draw_experiment_figures(analysis)}
