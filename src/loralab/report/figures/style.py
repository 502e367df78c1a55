"""Colours, fonts and sizes of all figures, and a figure as PNG and as SVG. It uses no pyplot and changes no global state.

Colours are Okabe and Ito's (2008), distinct for colour-blind readers; line styles and markers repeat the distinction. A PNG has a
white ground. An SVG takes its text colour from the page around it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from loralab.report.figures.fonts import readable_texts

BLUE, VERMILLION, GREEN = "#0072b2", "#d55e00", "#009e73"
PURPLE, GOLD, GREY = "#a6518c", "#a87b00", "#6f7681"
"""For figures with many lines: Okabe and Ito's purple and orange, darkened for contrast on white."""
CORRECT_FILL, WRONG_FILL = "#0072b3", "#d55e01"
"""Blue and vermillion behind text. They differ by one from the colours above, so that a dark page does not replace them."""
_STYLE = mpl.rc_params_from_file(Path(__file__).with_name("loralab.mplstyle"), use_default_template=False)
INK, GRID = _STYLE["text.color"], _STYLE["grid.color"]
WIDTH, HEIGHT = 3.6, 2.6
"""Inches: a phone shows this width without shrinking the labels."""
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, GOLD, GREY)
MARKERS, DASHES = ("o", "s", "^", "D", "v", "X"), ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))


class StyledFigure(Figure):
    """A figure that a notebook shows by itself, in the style of the reports and without pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        with figure_style():
            self.savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()


@dataclass(frozen=True)
class Caption:
    """The text of a figure: its file's name, its title, the rows behind it, and how to read it."""

    name: str
    title: str
    rows: str
    text: str


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its caption."""

    caption: Caption
    figure: Figure

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.caption.name

    @property
    def wide(self) -> bool:
        """True when the figure needs more than one column of the page."""
        return self.figure.get_figwidth() > WIDTH + 0.1

    @property
    def description(self) -> str:
        """The whole caption as plain text, for screen readers."""
        return f"{self.caption.title}, {self.caption.rows}. {self.caption.text}"


@contextmanager
def figure_style() -> Iterator[None]:
    """Apply the style while drawing. On the page a browser finds fonts for letters that matplotlib's font lacks: no warning."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from font")
        yield


def single_axes(height: float = HEIGHT, width: float = WIDTH) -> tuple[Figure, Axes]:
    """Return a new figure with one plot."""
    figure = StyledFigure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def save_png(drawing: ReportFigure, path: Path, numbers: dict[str, int]) -> None:
    """Write the figure with its title on a white ground. Words that no installed font has become numbers: see `readable_texts`."""
    with figure_style():
        title = _add_title(drawing)
        with readable_texts(drawing.figure, numbers):
            drawing.figure.savefig(path, format="png", dpi=200, facecolor="white", metadata={"Software": None})
        title.set_visible(False)
        title.set_in_layout(False)


def titled_figure(drawing: ReportFigure) -> Figure:
    """Return the figure with its title on a white ground, for a notebook."""
    with figure_style():
        _add_title(drawing)
    drawing.figure.set_facecolor("white")
    return drawing.figure


def _add_title(drawing: ReportFigure) -> Text:
    return drawing.figure.suptitle(f"{drawing.caption.title}\n{drawing.caption.rows}", fontsize=9, linespacing=1.4)


def to_svg(drawing: ReportFigure) -> str:
    """Return the figure as an SVG document with a transparent ground and its text as text."""
    with figure_style():
        file = io.StringIO()
        drawing.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return file.getvalue()


def legend_below(axes: Axes) -> None:
    """Place the legend below the figure, where it hides no data."""
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    assert figure
    columns = 3 if len("".join(labels)) < 32 else 2 if sum(sorted(map(len, labels))[-2:]) <= 43 else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def label_rows(axes: Axes, labels: list[str]) -> None:
    """Give a horizontal chart one label per row, first at the top, without ticks and row lines."""
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
