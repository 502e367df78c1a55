"""A run's figures: every text is on the canvas and none covers another, for any number and length of class names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fake_run import HOSTILE, make_run
from figure_checks import check_texts

from loralab.report.figures.radar import radar_center, radar_scores
from loralab.report.figures.run_figures import draw_run_figures
from loralab.report.figures.style import save_png, to_svg
from loralab.report.run_data import read_run
from loralab.storage import run_folder

NAMES = ("confusion", "f1_by_class", "reliability", "learning_curve", "loss", "accuracy", "f1_by_step", "all_metrics")


def class_names(n: int) -> list[str]:
    return [f"card_payment_not_recognised_{i}" if i % 2 else f"World {i}" for i in range(n)]


@pytest.mark.parametrize("n", [2, 4, 12, 33, pytest.param(60, marks=pytest.mark.slow), 0])
def test_no_text_leaves_the_canvas_or_covers_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """0 classes stand for a run of 4 that was stopped."""
    complete, n = bool(n), n or 4
    run = make_run(tmp_path / "run", class_names(n), rows=20 * n)
    if not complete:
        (run / run_folder.SCORES).unlink()
        (run / run_folder.PREDICTIONS).unlink()
    drawings = draw_run_figures(read_run(run))
    assert [drawing.name for drawing in drawings] == [*(NAMES if complete else NAMES[3:])]
    for drawing in drawings:
        check_texts(drawing, monkeypatch)


@pytest.mark.parametrize("track", ["none", "f1:World,balance,macro_f1,balance:Sports/Sci-Tech", "loss,mcc"])
def test_monitored_and_tracked_scores_have_a_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, track: str) -> None:
    run = read_run(make_run(tmp_path / "run", train__monitor="f1:Business", train__track=track))
    (drawing,) = [drawing for drawing in draw_run_figures(run) if drawing.name == "tracked"]
    panels = {axes.get_title("left"): axes for axes in drawing.figure.axes if axes.get_visible()}
    assert next(iter(panels)) == "f1:Business (monitored)"
    assert len(panels) == 1 + {"none": 0, "loss,mcc": 2}.get(track, 3)  # the run has not computed the balance of two classes
    (curve, *_) = panels["f1:Business (monitored)"].get_lines()
    assert [*curve.get_xdata()] == [10, 20, 30, 40]
    assert [*curve.get_ydata()] == [row.scores["f1:Business"] for row in run.evaluations]
    check_texts(drawing, monkeypatch)


def test_of_many_classes_the_curves_of_the_weakest_are_shown(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", class_names(12), rows=240))
    (drawing,) = [drawing for drawing in draw_run_figures(run) if drawing.name == "f1_by_step"]
    curves = {line.get_label(): line for line in drawing.figure.axes[0].get_lines() if len(line.get_xdata()) == 4}
    last = run.evaluations[-1].scores
    weakest = sorted(run.classes, key=lambda name: last[f"f1:{name}"])[:6]
    assert {line.get_ydata()[-1] for line in curves.values()} == {last[f"f1:{name}"] for name in weakest}
    assert "the 6 of 12 classes with the lowest F1" in drawing.caption.rows


def test_every_figure_states_its_number_of_rows(tmp_path: Path) -> None:
    for drawing in draw_run_figures(read_run(make_run(tmp_path / "run"))):
        assert re.match(r"(200 test rows|40 steps|4 evaluations on 200 validation rows)", drawing.caption.rows), drawing


def test_names_are_drawn_unchanged(tmp_path: Path) -> None:
    names = ["$x_{$", "_hidden", "a<b>&c", "日本語", 'q"q']
    drawings = {drawing.name: drawing for drawing in draw_run_figures(read_run(make_run(tmp_path / "run", names)))}
    for kind in ("confusion", "f1_by_class"):
        save_png(drawings[kind], tmp_path / f"{kind}.png", {})
        svg = ElementTree.fromstring(to_svg(drawings[kind]))
        texts = {text.text.removesuffix(" (40)") for text in svg.iter("{http://www.w3.org/2000/svg}text") if text.text}
        assert set(names) <= texts


def test_hostile_names_can_be_drawn(tmp_path: Path) -> None:
    for drawing in draw_run_figures(read_run(make_run(tmp_path / "run", HOSTILE)))[:2]:
        ElementTree.fromstring(to_svg(drawing))


def test_of_many_classes_those_with_most_errors_are_shown(tmp_path: Path) -> None:
    drawings = {d.name: d for d in draw_run_figures(read_run(make_run(tmp_path / "run", class_names(60), rows=600)))}
    assert "the 40 of 60 classes with the most errors" in drawings["confusion"].caption.rows
    assert "the 40 of 60 classes with the lowest F1" in drawings["f1_by_class"].caption.rows


def test_every_spoke_of_the_radar_is_better_outward() -> None:
    good = {"accuracy": 1.0, "macro_f1": 1.0, "mcc": 1.0, "kappa": 1.0, "ece": 0.0, "brier": 0.0}
    bad = {"accuracy": 0.0, "macro_f1": 0.0, "mcc": -0.5, "kappa": -0.5, "ece": 1.0, "brier": 2.0}
    assert set(radar_scores(good | {"precision:a": 1.0, "recall:a": 1.0}).values()) == {1.0}
    assert set(radar_scores(bad | {"precision:a": 0.0, "recall:a": 0.0}).values()) == {0.0}


def test_a_radar_begins_just_below_its_lowest_score() -> None:
    assert radar_center({"a": {"x": 0.86, "y": 0.93}, "b": {"x": 0.81, "y": 0.99}}) == pytest.approx(0.75)
    assert radar_center({"a": {"x": 0.02}}) == 0


def test_the_same_run_gives_the_same_svg(tmp_path: Path) -> None:
    tables = read_run(make_run(tmp_path / "run"))
    assert to_svg(draw_run_figures(tables)[2]) == to_svg(draw_run_figures(tables)[2])


def test_a_report_loads_neither_torch_nor_pyplot_and_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    program = f"""
import sys, matplotlib
settings = lambda: {{k: v for k, v in matplotlib.rcParams.copy().items() if k != "backend"}}  # asking for the backend loads it
before = settings()
from loralab.report.write import write_report
from pathlib import Path
write_report(Path({str(run)!r}))
assert settings() == before
print([name for name in ("torch", "matplotlib.pyplot", "sklearn", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert (run / run_folder.REPORT).is_file()
