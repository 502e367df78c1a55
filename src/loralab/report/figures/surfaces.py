"""Figures over two settings at once, and of the power law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from loralab.report.figures.ink import BLUE, GREEN, GRID, HEIGHT, INK, RIGHT_FILL, VERMILLION, WIDTH, ReportFigure, legend_below
from loralab.report.figures.points import Caption
from loralab.report.tables import shorten
from loralab.stats import HoldOut, Interval, PowerLaw

Grid = npt.NDArray[np.float64]
"""(ys, xs): the mean at each pair of points, nan where there is none."""
_CELL = 0.56


def heat(caption: Caption, xs: Sequence[str], ys: Sequence[str], grid: Grid, xlabel: str, ylabel: str) -> ReportFigure | None:
    """The mean at every pair of points, as a number on a shade; the highest is framed."""
    if not np.isfinite(grid).any() or len(xs) * len(ys) > 400:
        return None
    names = [shorten(y, 16) for y in ys]
    width = max(WIDTH, 0.075 * max(map(len, names)) + 0.8 + _CELL * len(xs))
    figure = Figure(figsize=(width, max(2.2, 1.0 + 0.46 * len(ys))), layout="constrained")
    axes = figure.subplots()
    low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
    for i, j in np.argwhere(np.isfinite(grid)):
        share = (grid[i, j] - low) / (high - low) if high > low else 0.5
        axes.add_patch(Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, facecolor=RIGHT_FILL, alpha=0.06 + 0.54 * share, linewidth=0))
        top = bool(grid[i, j] == high)
        axes.text(j, i, f"{100 * grid[i, j]:.1f}", ha="center", va="center", fontsize=8.5, fontweight="bold" if top else None)
        if top:
            axes.add_patch(Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, fill=False, edgecolor=INK, linewidth=1.2))
    axes.set_xticks(range(len(xs)), [shorten(x, 12) for x in xs], fontsize=8)
    axes.set_yticks(range(len(ys)), names, fontsize=8)
    axes.set(xlim=(-0.5, len(xs) - 0.5), ylim=(len(ys) - 0.5, -0.5), xlabel=xlabel, ylabel=ylabel)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return caption.under(figure)


def surface(caption: Caption, xs: Sequence[str], ys: Sequence[str], grid: Grid, xlabel: str, ylabel: str) -> ReportFigure | None:
    """The same as a surface over the plane of both; points evenly apart. None without at least two points on each side."""
    if len(xs) < 2 or len(ys) < 2 or not np.isfinite(grid).all():
        return None
    figure = Figure(figsize=(WIDTH, 3.7))
    axes: Any = figure.add_axes((-0.02, 0.04, 0.96, 1.0), projection="3d")
    x, y = np.meshgrid(range(len(xs)), range(len(ys)))
    axes.plot_surface(x, y, 100 * grid, color=RIGHT_FILL, alpha=0.45, shade=False, edgecolor=INK, linewidth=0.5)
    axes.plot(x.ravel(), y.ravel(), 100 * grid.ravel(), "o", color=BLUE, markersize=3)
    i, j = np.unravel_index(int(np.argmax(grid)), grid.shape)
    axes.plot([j], [i], [100 * grid[i, j]], "D", color=VERMILLION, markersize=6)
    axes.set_xticks(range(len(xs)), [shorten(name, 10) for name in xs], fontsize=7.5)
    axes.set_yticks(range(len(ys)), [shorten(name, 10) for name in ys], fontsize=7.5)
    axes.tick_params(pad=0)
    axes.tick_params(axis="z", labelsize=7.5)
    axes.zaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(xlabel, labelpad=4)
    axes.set_ylabel(ylabel, labelpad=4)
    axes.set_zlabel("%", labelpad=0)
    axes.view_init(elev=26, azim=-58)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.pane.set_visible(False)
        axis._axinfo["grid"]["color"] = GRID
    return caption.under(figure)


def law(
    caption: Caption,
    rows: Sequence[float],
    errors: Sequence[float],
    fitted: PowerLaw,
    *,
    beyond: float,
    band: tuple[Sequence[float], Sequence[Interval]] | None,
    checked: HoldOut | None,
    diminishing: float | None,
) -> ReportFigure:
    """Errors by rows on log scales, the power law through them and beyond, and the law that had not seen the last point."""
    figure = Figure(figsize=(WIDTH, HEIGHT + 0.3), layout="constrained")
    axes = figure.subplots()
    least, most = min(rows), max(rows)
    dense = np.geomspace(least, beyond, 120)
    if band:
        at, intervals = band
        axes.fill_between(
            at, [100 * i.low for i in intervals], [100 * i.high for i in intervals], color=BLUE, alpha=0.14, linewidth=0
        )
    axes.plot(rows, 100 * np.asarray(errors), "o", color=INK, markersize=3, alpha=0.45, label="one run")
    inside, outside = dense[dense <= most], dense[dense >= most]
    axes.plot(inside, 100 * fitted.predict(inside), color=BLUE, label="power law")
    axes.plot(outside, 100 * fitted.predict(outside), color=BLUE, linestyle=":", label="its prediction")
    if checked:
        x = dense[dense <= checked.rows]
        axes.plot(x, 100 * checked.law.predict(x), color=VERMILLION, linestyle="--", linewidth=1.2, label="without the last size")
        axes.plot([checked.rows], [100 * checked.predicted], "D", color=VERMILLION, markersize=5)
    if diminishing and least < diminishing < beyond:
        axes.axvline(diminishing, color=GREEN, linewidth=1.0, linestyle="-.", label="a doubling gains 1 point")
    axes.set_xscale("log")
    sizes = sorted({*map(float, rows), float(beyond)})
    axes.set_xticks(_apart(sizes), [f"{size:,.0f}" for size in _apart(sizes)], fontsize=8)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set(xlabel="training rows", ylabel="test error, %")
    axes.set_ylim(bottom=0)
    legend_below(axes)
    return caption.under(figure)


def _apart(sizes: Sequence[float]) -> list[float]:
    """The sizes whose labels do not run into one another on a log scale; the last always."""
    span = np.log(sizes[-1] / sizes[0]) or 1.0
    kept: list[float] = []
    for size in reversed(sizes):
        if not kept or np.log(kept[-1] / size) / span > 0.025 * (len(f"{size:,.0f}") + 1):
            kept.append(size)
    return kept[::-1]
