"""Checks of a figure's texts: `from figure_checks import check_texts`."""

from __future__ import annotations

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from loralab.report.figures.style import ReportFigure, figure_style


def drawn_texts(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> tuple[FigureCanvasAgg, list[Text]]:
    """Draw a figure and return its visible texts; ticks beyond an axis's limits exist but are not drawn."""
    drawn: list[Text] = []
    plain = Text.draw
    with figure_style(), monkeypatch.context() as patch:
        patch.setattr(Text, "draw", lambda text, *args, **kwargs: (drawn.append(text), plain(text, *args, **kwargs))[1])
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return canvas, [text for text in dict.fromkeys(drawn) if text.get_visible() and text.get_text().strip()]


def check_texts(drawing: ReportFigure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail for a text that leaves the canvas or covers another; rotated texts may touch their neighbours' boxes."""
    canvas, texts = drawn_texts(drawing.figure, monkeypatch)
    width, height = canvas.get_width_height()
    boxes = [(text, text.get_window_extent(canvas.get_renderer())) for text in texts]
    assert len(boxes) > 4
    for text, box in boxes:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, (drawing.name, text, box)
    upright = [(text, box) for text, box in boxes if text.get_rotation() in (0, 90)]
    for (a, first), (b, second) in itertools.combinations(upright, 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        down = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert across < 1.5 or down < 1.5, (drawing.name, a, b)
