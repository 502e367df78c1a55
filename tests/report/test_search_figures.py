"""A search's figures from made-up trials: contents, texts on the canvas, searches with almost no trials."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from figure_checks import drawn_texts

from loralab import LoralabError
from loralab.report.figures.search_figures import best_so_far, draw_search_figures, read_search_results, setting_positions
from loralab.report.figures.style import ReportFigure, to_svg

AXES: list[dict[str, Any]] = [
    {"name": "lora.rank", "log": False, "choices": ["16", "4", "8"]},
    {"name": "lora.targets", "log": False, "choices": ["query+value", "query+key+value+output", "all"]},
    {"name": "lora.alpha", "log": True, "choices": []},
    {"name": "train.class_weights", "log": False, "choices": []},
    {"name": "train.learning_rate", "log": True, "choices": []},
]


def invent(
    trials: int, objectives: tuple[str, ...] = ("accuracy",), states: tuple[str, ...] = ("complete",), noise: float = 0.1
) -> dict[str, Any]:
    chance = random.Random(trials)
    rows = []
    for number in range(trials):
        state = states[number % len(states)]
        points = {axis["name"]: chance.choice(axis["choices"] or ["0.001", "0.01", "0.5"]) for axis in AXES}
        points["lora.alpha"] = f"{chance.uniform(1, 4):.4g}r"
        values = [chance.uniform(0.5, 0.9), *([chance.randint(9000, 999_999)] if len(objectives) > 1 else [])]
        rows.append(
            {
                "number": number,
                "state": state,
                "points": points,
                "values": values if state == "complete" else None,
                "evaluations": [[1, 0.4]] if state == "pruned" else [],
            }
        )
    complete = [row for row in rows if row["values"]]
    shares = {axis["name"]: 0.2 for axis in AXES}
    return {
        "objectives": [*objectives],
        "minimised": [name in ("loss", "trainable") for name in objectives],
        "axes": AXES,
        "best": [row["number"] for row in complete[: len(objectives)]],
        "importance": {key: {"shares": shares, "noise": noise} for key in objectives} if len(complete) > 3 else {},
        "trials": rows,
    }


def named(found: dict[str, Any]) -> dict[str, ReportFigure]:
    return {drawing.name.removeprefix("search_"): drawing for drawing in draw_search_figures(found)}


@pytest.mark.parametrize("trials", [1, 2, 20])
@pytest.mark.parametrize("objectives", [("accuracy",), ("f1:a class with a very long name", "trainable")])
def test_no_text_leaves_the_canvas(trials: int, objectives: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    drawings = named(invent(trials, objectives))
    wanted = {"history", "slices"} | ({"parallel"} if trials > 1 else set()) | ({"importance"} if trials > 3 else set())
    assert set(drawings) == wanted | ({"pareto"} if len(objectives) > 1 else set())
    for drawing in drawings.values():
        canvas, texts = drawn_texts(drawing.figure, monkeypatch)
        width, height = canvas.get_width_height()
        for text in texts:
            box = text.get_window_extent(canvas.get_renderer())
            assert box.x0 >= -1, (drawing.name, text)
            assert box.y0 >= -1, (drawing.name, text)
            assert box.x1 <= width + 1, (drawing.name, text)
            assert box.y1 <= height + 1, (drawing.name, text)


def test_the_line_is_the_best_so_far_whichever_way_is_better() -> None:
    assert best_so_far([0.5, 0.4, 0.7], lower_is_better=False) == [0.5, 0.5, 0.7]
    assert best_so_far([0.5, 0.4, 0.7], lower_is_better=True) == [0.5, 0.4, 0.4]
    for objective, value in (("accuracy", max), ("loss", min)):
        found = invent(9, (objective,))
        line = next(line for line in named(found)["history"].figure.axes[0].lines if line.get_label() == "best so far")
        assert line.get_ydata()[-1] == value(row["values"][0] for row in found["trials"])


def test_positions_of_choices_and_numbers() -> None:
    assert setting_positions(AXES[0], ["16", "4"]) == ([2.0, 0.0], ["4", "8", "16"])
    assert setting_positions(AXES[1], ["all"]) == ([2.0], AXES[1]["choices"])
    assert setting_positions(AXES[2], ["1.5r", "0.5r"]) == ([1.5, 0.5], [])


def test_importance_is_silent_about_noise_and_pales_what_may_be() -> None:
    assert "importance" not in named(invent(9, noise=0.2))
    results = invent(9)
    results["importance"]["accuracy"] = {"shares": {"a": 0.6, "b": 0.3, "c": 0.1}, "noise": 0.4}
    bars = named(results)["importance"].figure.axes[0].patches
    assert [bar.get_alpha() for bar in bars] == [0.9, 0.25, 0.25]


def test_all_figures_have_the_same_best_trial_and_count_ties() -> None:
    results = invent(9)
    for row in results["trials"]:
        row["values"] = [0.8 if row["number"] in (2, 5) else 0.5]
    results["best"] = [5, 2]
    drawings = named(results)
    panel = drawings["slices"].figure.axes[2]
    diamond = next(line for line in panel.lines if line.get_marker() == "D")
    assert float(diamond.get_xdata()[0]) == float(results["trials"][5]["points"]["lora.alpha"].rstrip("r"))
    assert "2 trials tie." in drawings["slices"].caption.text
    assert "orange is the best (2 tie)." in drawings["parallel"].caption.text


def test_every_figure_counts_trials_by_state() -> None:
    found = invent(8, states=("complete", "pruned", "failed", "rejected"))
    assert {drawing.caption.rows for drawing in named(found).values()} == {"2 complete, 2 pruned, 2 failed, 2 over budget trials"}


def test_a_search_without_a_result_has_no_figures(tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text(json.dumps(invent(3, states=("failed",))))
    assert draw_search_figures(read_search_results(tmp_path)) == []


def test_log_scales_have_plain_tick_labels() -> None:
    assert "mathdefault" not in to_svg(named(invent(9))["slices"])


@pytest.mark.parametrize("content", [None, "[]", "{", '{"trials": []}'])
def test_a_damaged_search_is_an_error(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "search.json").write_text(content)
    with pytest.raises(LoralabError, match="run the search again"):
        read_search_results(tmp_path)
