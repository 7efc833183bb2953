"""Figures of the mechanics of shifts: top-k overlap, ranks and probabilities, shift classes."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from engine.arrays import Floats
from evaluators.figures import legend, ticks
from evaluators.figures.series import Series, finite_rows, floats, split
from evaluators.figures.style import POLICY_NAMES, WIDTH, draw_line, label_panel, panels, with_style
from evaluators.shifts.mechanics import RANK_BEYOND, SIDES

SHIFTS = {"unshifted": "#D5E3F0", "marginal": "#E69F00", "shifted": "#A03A00"}
_SHIFT_LABELS = {
    "unshifted": "unshifted (RL's top token is base's)",
    "marginal": "marginal (rank 2 or 3 under base)",
    "shifted": "shifted (beyond rank 3)",
}
WHERE = {"all": "all positions", "high": "high divergence"}


@with_style
def topk_overlap(table: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Share of the k most probable tokens that base and RL share, against k, at high divergence."""
    all_series = split(finite_rows(table, "k", "overlap"), runs)
    if not all_series:
        return None
    figure, grid = panels(1, 1, 2.9)
    axes = grid[0, 0]
    largest = int(max(series.floats("k").max() for series in all_series))
    is_short = largest <= 24  # else the markers would touch
    for series in all_series:
        marker = series.marker if is_short else ""
        draw_line(
            axes, series.floats("k"), 100 * series.floats("overlap"), marker=marker, **series.looks
        )
    ticks.labelled_axis(axes, {float(k): str(k) for k in range(1, largest + 1)}, WIDTH * 0.85)
    ticks.linear_axis(axes, "y", _ten_below(floats(table, "overlap")), 100)
    axes.set(xlabel="k (tokens)", ylabel="top-k overlap of base and RL (%)")
    legend.add(figure, legend.of_series(all_series, markers=is_short))
    return figure


@with_style
def top1_ranks(table: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Rank of one policy's top token under the other, at high divergence.

    Bars are shares; the panels below them are cumulative.
    """
    all_series = split(finite_rows(table, "rank", "share", "cumulative"), runs)
    if not all_series:
        return None
    figure, grid = panels(2, 2, 1.9, share_y="row")
    for (above, below), (of, under) in zip(grid.T, SIDES, strict=True):
        parts = [series.where(of=of, under=under) for series in all_series]
        _bars(above, parts)
        for series in parts:
            draw_line(
                below,
                series.floats("rank"),
                100 * series.floats("cumulative"),
                marker=series.marker,
                **series.looks,
            )
        label_panel(above, f"top token of {POLICY_NAMES[of]} under {POLICY_NAMES[under]}")
        below.set_xlabel("rank")
    last = int(max(float(series.floats("rank").max()) for series in all_series))
    grid[0, 0].set_xticks(
        range(1, last + 1),
        [str(rank) if rank < RANK_BEYOND else f"{rank}+" for rank in range(1, last + 1)],
    )
    grid[0, 0].set_xlim(0.4, last + 0.6)
    ticks.linear_axis(grid[0, 0], "y", 0, 105 * float(np.nanmax(floats(table, "share"))) or 1.0)
    ticks.linear_axis(grid[1, 0], "y", _ten_below(floats(table, "cumulative")), 101)
    grid[0, 0].set_ylabel("positions (%)")
    grid[1, 0].set_ylabel("cumulative (%)")
    legend.add(figure, legend.of_series(all_series, markers=True, bars=True))
    return figure


@with_style
def tail_probability(table: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Share of positions where a policy gives the other's top token less than p, against p.

    At high divergence.
    """
    table = finite_rows(table, "cutoff", "below")
    table = table.filter(pa.array(floats(table, "cutoff") > 0))
    all_series = split(table, runs)
    if not all_series:
        return None
    figure, grid = panels(1, 2, 2.7)
    for axes, (of, under) in zip(grid[0], SIDES, strict=True):
        for series in (series.where(of=of, under=under) for series in all_series):
            draw_line(
                axes,
                series.floats("cutoff"),
                100 * series.floats("below"),
                marker=series.marker,
                **series.looks,
            )
        label_panel(axes, f"top token of {POLICY_NAMES[of]} under {POLICY_NAMES[under]}")
        axes.set_xlabel(f"p, a probability under {POLICY_NAMES[under]}")
    ticks.log_axis(grid[0, 0], "x", *ticks.decades(floats(table, "cutoff")))
    ticks.linear_axis(grid[0, 0], "y", 0, max(1.0, 105 * float(np.nanmax(floats(table, "below")))))
    grid[0, 0].set_ylabel("positions below p (%)")
    legend.add(figure, legend.of_series(all_series, markers=True))
    return figure


@with_style
def shift_classes(table: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Stacked shares of unshifted, marginal and shifted positions: all, and at high divergence."""
    all_series = split(finite_rows(table, "share"), runs)
    if not all_series:
        return None
    present = [
        where
        for where in WHERE
        if any(series.where(where=where).rows.num_rows for series in all_series)
    ]
    figure, grid = panels(1, len(present), 0.5 + 0.27 * len(all_series))
    for axes, where in zip(grid[0], present, strict=True):
        for height, series in enumerate(all_series):
            _stack(axes, series.where(where=where), height)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("positions (%)")
        label_panel(axes, WHERE[where])
    first = grid[0, 0]
    first.set_yticks(range(len(all_series)), [series.label or "run" for series in all_series])
    first.set_ylim(len(all_series) - 0.5, -0.5)
    ticks.linear_axis(first, "x", 0, 100)
    legend.add(
        figure,
        [Patch(facecolor=colour, label=_SHIFT_LABELS[shift]) for shift, colour in SHIFTS.items()],
    )
    return figure


def _bars(axes: Axes, parts: Sequence[Series]) -> None:
    """Bars at each rank, one per series side by side; a direction is a hatch."""
    width = 0.84 / len(parts)
    for place, series in enumerate(parts):
        x = series.floats("rank") + (place - (len(parts) - 1) / 2) * width
        axes.bar(x, 100 * series.floats("share"), width, linewidth=0.5, **series.bar_looks)
    axes.grid(axis="x", visible=False)


def _ten_below(shares: Floats) -> float:
    """The start of a scale up to 100 %: the multiple of ten below the smallest share.

    So curves near the top stay apart.
    """
    smallest = float(np.nanmin(shares))
    return 10 * floor(min(9.0, 10 * smallest - 1e-9)) if smallest > 0 else 0.0


def _stack(axes: Axes, series: Series, height: int) -> None:
    """The classes of a series side by side, each with its share where that fits in."""
    left = 0.0
    shares = dict(
        zip(series.rows["shift"].to_pylist(), (100 * series.floats("share")).tolist(), strict=True)
    )
    for shift, colour in SHIFTS.items():
        share = shares.get(shift, 0.0)
        axes.barh(height, share, 0.74, left=left, color=colour)
        if share >= 12:
            ink = "white" if shift == "shifted" else "black"
            axes.text(
                left + share / 2,
                height,
                f"{share:.1f}",
                ha="center",
                va="center",
                color=ink,
                fontsize=7.5,
            )
        left += share
