"""What all figures share: colours, style, and a drawing as PNG and as SVG. No pyplot, no window, no global state left behind.

Colours are Okabe and Ito's (2008), told apart by the colour-blind; line styles and markers say the same again. Each figure is drawn
once: as PNG on white, and as SVG whose ink takes the colour of the page around it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN = "#0072b2", "#d55e00", "#009e73"
PURPLE, GOLD, GREY = "#a6518c", "#a87b00", "#6f7681"
"""Three more for figures of many lines: Okabe and Ito's purple and orange, darker, so that they stand out from white."""
RIGHT_FILL, WRONG_FILL = "#0072b3", "#d55e01"
"""The same blue and vermillion where they lie under text: these stay as they are on a dark page."""
INK, GRID = "#22252a", "#c9ccd1"
WIDTH, HEIGHT = 4.4, 3.0
"""Inches: narrow, so that its texts can be read on a phone."""

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.0,
    "text.parse_math": False,  # class names are data: $ is a dollar
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "loralab",
}


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its file's name, its title, the rows behind it, and a sentence on how to read it."""

    name: str
    title: str
    rows: str
    caption: str
    figure: Figure

    @property
    def wide(self) -> bool:
        """True when it needs more than a column of the page."""
        return self.figure.get_figwidth() > WIDTH + 0.1


@contextmanager
def style() -> Iterator[None]:
    """Our style while something is drawn. Letters that DejaVu lacks are boxes in a PNG, and right on the page: no warning."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from font")
        yield


def save_png(drawing: ReportFigure, path: Path) -> None:
    """Write the figure on white, with its title."""
    with style():
        title = drawing.figure.suptitle(f"{drawing.title}\n{drawing.rows}", fontsize=9, linespacing=1.4)
        drawing.figure.savefig(path, format="png", dpi=200, facecolor="white", metadata={"Software": None})
        title.set_visible(False)
        title.set_in_layout(False)


def to_svg(drawing: ReportFigure) -> str:
    """Return the figure as an SVG document with a transparent ground and texts as text."""
    with style():
        file = io.StringIO()
        drawing.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return file.getvalue()


def legend_below(axes: Axes) -> None:
    """Place the legend under the figure, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    assert figure
    longest = max(map(len, labels), default=0)
    columns = 3 if len("".join(labels)) < 36 else 2 if longest <= 24 else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
