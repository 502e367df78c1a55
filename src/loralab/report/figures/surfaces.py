"""Plots over two settings at once, and of the power law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from loralab.report.figures import style
from loralab.report.figures.style import (
    BLUE,
    CORRECT_FILL,
    INK,
    VERMILLION,
    WIDTH,
    Caption,
    ReportFigure,
    StyledFigure,
    single_axes,
)
from loralab.report.formatting import shorten
from loralab.report.scaling_law import ScalingLaw

Grid = npt.NDArray[np.float64]
"""(ys, xs): the mean of each pair of settings, nan for a pair without trials."""


def heat_map(caption: Caption, xs: Sequence[str], ys: Sequence[str], grid: Grid, xlabel: str, ylabel: str) -> ReportFigure | None:
    """Draw the mean of each pair of settings as a number on a shade, with a frame around the highest."""
    if not np.isfinite(grid).any() or len(xs) * len(ys) > 400:
        return None
    names = [shorten(y, 16) for y in ys]
    width = max(WIDTH, 0.075 * max(map(len, names)) + 0.8 + 0.56 * len(xs))
    figure, axes = single_axes(max(2.2, 1.0 + 0.46 * len(ys)), width)
    low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
    for i, j in np.argwhere(np.isfinite(grid)):
        share = (grid[i, j] - low) / (high - low) if high > low else 0.5
        axes.add_patch(Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, facecolor=CORRECT_FILL, alpha=0.06 + 0.54 * share, linewidth=0))
        best = bool(grid[i, j] == high)
        axes.text(j, i, f"{100 * grid[i, j]:.1f}", ha="center", va="center", fontsize=8.5, fontweight="bold" if best else None)
        if best:
            axes.add_patch(Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, fill=False, edgecolor=INK, linewidth=1.2))
    axes.set_xticks(range(len(xs)), [shorten(x, 12) for x in xs], fontsize=8)
    axes.set_yticks(range(len(ys)), names, fontsize=8)
    axes.set(xlim=(-0.5, len(xs) - 0.5), ylim=(len(ys) - 0.5, -0.5), xlabel=xlabel, ylabel=ylabel)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return ReportFigure(caption, figure)


def surface_plot(
    caption: Caption, xs: Sequence[str], ys: Sequence[str], grid: Grid, xlabel: str, ylabel: str
) -> ReportFigure | None:
    """Draw the mean as a surface over two settings, their values evenly spaced. None for fewer than two values on a side."""
    if len(xs) < 2 or len(ys) < 2 or not np.isfinite(grid).all():
        return None
    figure = StyledFigure(figsize=(WIDTH, 3.7))
    axes: Any = figure.add_axes((-0.02, 0.04, 0.96, 1.0), projection="3d")
    x, y = np.meshgrid(range(len(xs)), range(len(ys)))
    axes.plot_surface(x, y, 100 * grid, color=CORRECT_FILL, alpha=0.45, shade=False, edgecolor=INK, linewidth=0.5)
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
        axis._axinfo["grid"]["color"] = style.GRID
    return ReportFigure(caption, figure)


def power_law_plot(caption: Caption, scaling: ScalingLaw) -> ReportFigure:
    """Draw errors by training rows on a log scale, the law fitted to them, and the law without the last size."""
    figure, axes = single_axes(style.HEIGHT + 0.3)
    law, hold_out, max_rows = scaling.law, scaling.checked, scaling.at[1]
    smallest, largest = min(scaling.rows), max(scaling.rows)
    dense = np.geomspace(smallest, max_rows, 120)
    if scaling.intervals:
        band = scaling.intervals.predictions[2:]
        low, high = [100 * i.low for i in band], [100 * i.high for i in band]
        axes.fill_between(scaling.at[2:], low, high, color=BLUE, alpha=0.14, linewidth=0)
    axes.plot(scaling.rows, 100 * np.asarray(scaling.errors), "o", color=INK, markersize=3, alpha=0.45, label="one run")
    inside, outside = dense[dense <= largest], dense[dense >= largest]
    axes.plot(inside, 100 * law.predict(inside), color=BLUE, label="power law")
    axes.plot(outside, 100 * law.predict(outside), color=BLUE, linestyle=":", label="extrapolation")
    if hold_out:
        x = dense[dense <= hold_out.rows]
        axes.plot(x, 100 * hold_out.law.predict(x), "--", color=VERMILLION, linewidth=1.2, label="without the last size")
        axes.plot([hold_out.rows], [100 * hold_out.predicted], "D", color=VERMILLION, markersize=5)
    if smallest < scaling.diminishing < max_rows:
        axes.axvline(scaling.diminishing, color=style.GREEN, linewidth=1.0, linestyle="-.", label="doubling gains 1 point")
    axes.set_xscale("log")
    ticks = _readable_ticks(sorted({*scaling.rows, max_rows}))
    axes.set_xticks(ticks, [f"{size:,.0f}" for size in ticks], fontsize=8)
    axes.minorticks_off()
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set(xlabel="training rows", ylabel="test error, %")
    axes.set_ylim(bottom=0)
    style.legend_below(axes)
    return ReportFigure(caption, figure)


def _readable_ticks(sizes: Sequence[float]) -> list[float]:
    """Return the sizes whose labels do not overlap on a log scale; the last is always among them."""
    span = np.log(sizes[-1] / sizes[0]) or 1.0
    kept: list[float] = []
    for size in reversed(sizes):
        if not kept or np.log(kept[-1] / size) / span > 0.025 * (len(f"{size:,.0f}") + 1):
            kept.append(size)
    return kept[::-1]
