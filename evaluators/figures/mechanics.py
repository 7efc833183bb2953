"""What happens at high divergence: overlap of the top-k lists, ranks and probabilities of the top
token, shifts.
"""

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
from evaluators.figures.series import Series, floats, known, split
from evaluators.figures.style import POLICY_NAMES, WIDTH, draw_line, label_panel, panels, with_style

PAIRS = (
    ("rl", "base"),
    ("base", "rl"),
)  # (of, under): the first one's top token, looked up in the second one
SHIFTS = {"unshifted": "#D5E3F0", "marginal": "#E69F00", "shifted": "#A03A00"}
_SHIFT_LABELS = {
    "unshifted": "unshifted (RL's top token is base's)",
    "marginal": "marginal (rank 2 or 3 under base)",
    "shifted": "shifted (beyond rank 3)",
}
BEYOND = 11  # the rank that stands for more than 10
WHERE = {"all": "all positions", "high": "high divergence"}


@with_style
def topk_overlap(table: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Share of the k likeliest tokens that base and RL have in common, against k, at high
    divergence.
    """
    series = split(known(table, "k", "overlap"), runs)
    if not series:
        return None
    figure, grid = panels(1, 1, 2.9)
    axes = grid[0, 0]
    largest = int(max(one.floats("k").max() for one in series))
    is_short = largest <= 24  # marks are apart
    for one in series:
        marker = one.marker if is_short else ""
        draw_line(axes, one.floats("k"), 100 * one.floats("overlap"), marker=marker, **one.looks)
    ticks.labelled_axis(axes, {float(k): str(k) for k in range(1, largest + 1)}, WIDTH * 0.85)
    ticks.linear_axis(axes, "y", _ten_below(floats(table, "overlap")), 100)
    axes.set(xlabel="k (tokens)", ylabel="top-k overlap of base and RL (%)")
    legend.add(figure, legend.of_series(series, markers=is_short))
    return figure


@with_style
def top1_ranks(table: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Rank of one policy's top token under the other at high divergence: bars: shares, below:
    cumulative.
    """
    series = split(known(table, "rank", "share", "cumulative"), runs)
    if not series:
        return None
    figure, grid = panels(2, 2, 1.9, share_y="row")
    for (above, below), (of, under) in zip(grid.T, PAIRS, strict=True):
        parts = [one.where(of=of, under=under) for one in series]
        _bars(above, parts)
        for one in parts:
            draw_line(
                below,
                one.floats("rank"),
                100 * one.floats("cumulative"),
                marker=one.marker,
                **one.looks,
            )
        label_panel(above, f"top token of {POLICY_NAMES[of]} under {POLICY_NAMES[under]}")
        below.set_xlabel("rank")
    last = int(max(float(one.floats("rank").max()) for one in series))
    grid[0, 0].set_xticks(
        range(1, last + 1),
        [str(rank) if rank < BEYOND else f"{rank}+" for rank in range(1, last + 1)],
    )
    grid[0, 0].set_xlim(0.4, last + 0.6)
    ticks.linear_axis(grid[0, 0], "y", 0, 105 * float(np.nanmax(floats(table, "share"))) or 1.0)
    ticks.linear_axis(grid[1, 0], "y", _ten_below(floats(table, "cumulative")), 101)
    grid[0, 0].set_ylabel("positions (%)")
    grid[1, 0].set_ylabel("cumulative (%)")
    legend.add(figure, legend.of_series(series, markers=True, bars=True))
    return figure


@with_style
def tail_probability(table: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Share of high-divergence positions where one policy gives the other's top token less than p,
    against p.
    """
    table = known(table, "cutoff", "below")
    table = table.filter(pa.array(floats(table, "cutoff") > 0))
    series = split(table, runs)
    if not series:
        return None
    figure, grid = panels(1, 2, 2.7)
    for axes, (of, under) in zip(grid[0], PAIRS, strict=True):
        for one in (one.where(of=of, under=under) for one in series):
            draw_line(
                axes,
                one.floats("cutoff"),
                100 * one.floats("below"),
                marker=one.marker,
                **one.looks,
            )
        label_panel(axes, f"top token of {POLICY_NAMES[of]} under {POLICY_NAMES[under]}")
        axes.set_xlabel(f"p, a probability under {POLICY_NAMES[under]}")
    ticks.log_axis(grid[0, 0], "x", *ticks.decades(floats(table, "cutoff")))
    ticks.linear_axis(grid[0, 0], "y", 0, max(1.0, 105 * float(np.nanmax(floats(table, "below")))))
    grid[0, 0].set_ylabel("positions below p (%)")
    legend.add(figure, legend.of_series(series, markers=True))
    return figure


@with_style
def shift_classes(table: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Shares of unshifted, marginal and shifted positions, of all and of those at high divergence,
    stacked.
    """
    series = split(known(table, "share"), runs)
    if not series:
        return None
    shown = [
        where for where in WHERE if any(one.where(where=where).rows.num_rows for one in series)
    ]
    figure, grid = panels(1, len(shown), 0.5 + 0.27 * len(series))
    for axes, where in zip(grid[0], shown, strict=True):
        for height, one in enumerate(series):
            _stack(axes, one.where(where=where), height)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("positions (%)")
        label_panel(axes, WHERE[where])
    first = grid[0, 0]
    first.set_yticks(range(len(series)), [one.label or "run" for one in series])
    first.set_ylim(len(series) - 0.5, -0.5)
    ticks.linear_axis(first, "x", 0, 100)
    legend.add(
        figure,
        [Patch(facecolor=colour, label=_SHIFT_LABELS[shift]) for shift, colour in SHIFTS.items()],
    )
    return figure


def _bars(axes: Axes, parts: Sequence[Series]) -> None:
    """Bars a rank, one a series side by side; a direction is a hatch."""
    width = 0.84 / len(parts)
    for place, one in enumerate(parts):
        x = one.floats("rank") + (place - (len(parts) - 1) / 2) * width
        axes.bar(x, 100 * one.floats("share"), width, linewidth=0.5, **one.bar_looks)
    axes.grid(axis="x", visible=False)


def _ten_below(shares: Floats) -> float:
    """Where a scale up to 100 % starts: at the ten below the smallest share, so that curves near
    the top stay apart.
    """
    return (
        10 * floor(min(9.0, 10 * float(np.nanmin(shares)) - 1e-9)) if np.nanmin(shares) > 0 else 0.0
    )


def _stack(axes: Axes, one: Series, height: int) -> None:
    """The classes beside one another, each with its share where it fits in."""
    left = 0.0
    shares = dict(
        zip(one.rows["shift"].to_pylist(), (100 * one.floats("share")).tolist(), strict=True)
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
