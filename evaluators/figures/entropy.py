"""Figures of the entropy of both policies, at low and at high divergence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from engine.arrays import Floats
from engine.core import POLICIES
from evaluators.cutoffs import HIGH_DIVERGENCE, NEAR_ZERO
from evaluators.figures import legend, ticks
from evaluators.figures.series import Series, by_direction, finite_rows, floats, split
from evaluators.figures.style import (
    GUIDE_COLOUR,
    POLICY_COLOURS,
    POLICY_NAMES,
    colour_bar,
    draw_line,
    label_axes,
    label_panel,
    panels,
    small_multiples,
    with_style,
)

CLASSES = {"low": f"JS ≤ {NEAR_ZERO:g} nats", "high": f"JS > {HIGH_DIVERGENCE:g} nats"}
ENTROPY_BIN = 0.1  # nats
JOINT_LABELS = ("entropy of base (nats)", "entropy of RL (nats)")
LOWEST_SHARE = 0.01  # %
_POINTS: dict[str, Any] = {"markersize": 3.2, "markeredgewidth": 0, "rasterized": True}
_ZERO = 1e-15  # stands for 0 on a logarithmic scale


@with_style
def distributions(entropy_histogram: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Entropy of base and RL at low (left) and high (right) JS divergence.

    One row per run and direction; the axis of shares is logarithmic. Bins are 0.1 nats wide; those
    with less than 0.01 % of the positions of their class are below the scale.
    """
    table = finite_rows(entropy_histogram, "entropy_low", "entropy_high", "share")
    all_series = [
        series
        for series in split(table, runs)
        if any(series.where(divergence=name).rows.num_rows for name in CLASSES)
    ]
    if not all_series:
        return None
    figure, grid = panels(len(all_series), 2, 2.6 if len(all_series) == 1 else 1.4)
    right = _end(all_series)
    low, high = ticks.decades(
        np.concatenate([100 * series.floats("share") for series in all_series])
    )
    for row, series in zip(grid, all_series, strict=True):
        for axes, divergence in zip(row, CLASSES, strict=True):
            ticks.log_axis(axes, "y", max(low, LOWEST_SHARE), high)
            ticks.linear_axis(axes, "x", 0, right)
            _note(
                axes,
                CLASSES[divergence]
                + ("" if series.where(divergence=divergence).rows.num_rows else ": none"),
            )
            for policy in POLICY_COLOURS:
                _draw_policy(axes, series.where(divergence=divergence, policy=policy), policy)
        if len(all_series) > 1:
            label_panel(row[0], series.label, series.colour)
    label_axes(figure, "entropy (nats)", "positions of the class (%)")
    base, rl = (POLICY_COLOURS[policy] for policy in POLICIES)
    legend.add(
        figure,
        [Patch(facecolor=base, alpha=0.45, label="base"), Line2D([], [], color=rl, label="RL")],
    )
    return figure


@with_style
def joint(entropy_joint: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Joint density of the entropies of base and RL, one panel per run and direction.

    Colour is the number of positions in a cell of 0.1 x 0.1 nats. The scales end where at most
    0.1 % of the positions of each panel lie beyond them.
    """
    table = finite_rows(entropy_joint, "entropy_base_low", "entropy_rl_low", "positions")
    all_series = split(table.filter(pa.array(floats(table, "positions") > 0)), runs)
    if not all_series:
        return None
    columns = 4 if len(all_series) > 4 else len(all_series)
    figure, places = small_multiples(
        len(all_series), {1: 3.8, 2: 2.9, 3: 2.1}.get(columns, 1.8), columns
    )
    figure.set_layout_engine("compressed")  # squares leave room beside them
    largest = max(10.0, *(float(series.floats("positions").max()) for series in all_series))
    edges = np.arange(max(map(_last_bin, all_series)) + 2) * ENTROPY_BIN
    for axes, series in zip(places, all_series, strict=True):
        mesh = axes.pcolormesh(
            edges,
            edges,
            _density(series, len(edges) - 1),
            norm=LogNorm(1, largest),
            rasterized=True,
        )
        axes.axline((0, 0), slope=1, color=GUIDE_COLOUR, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.set_aspect("equal")
        for which in ("x", "y"):
            ticks.linear_axis(axes, which, 0, edges[-1])
        if len(all_series) > 1:
            label_panel(axes, series.stacked_label if columns > 2 else series.label, series.colour)
    if len(all_series) == 1:
        places[0].set(xlabel=JOINT_LABELS[0], ylabel=JOINT_LABELS[1])
    else:
        label_axes(figure, *JOINT_LABELS)
    decades = [
        power
        for power in ticks.powers(1, ticks.decades(np.array([largest]))[1])
        if power <= largest
    ]
    colour_bar(figure, mesh, places, "positions in a cell", decades)
    return figure


@with_style
def sequences(table: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Mean JS divergence against mean entropy under base and under RL, one point per response."""
    means = {policy: f"entropy_{policy}_mean" for policy in POLICY_NAMES}
    all_series = split(finite_rows(table, "js_mean", *means.values()), runs)
    if not all_series:
        return None
    groups = by_direction(all_series)
    figure, grid = panels(len(groups), 2, 2.5, share_x=False)
    top = max(float(series.floats("js_mean").max()) for series in all_series)
    for row, (direction, members) in zip(grid, groups, strict=True):
        for axes, (policy, column) in zip(row, means.items(), strict=True):
            for series in members:
                looks: dict[str, Any] = {
                    "color": series.colour,
                    "marker": series.marker,
                    "alpha": _opacity(series),
                }
                draw_line(
                    axes,
                    series.floats(column),
                    series.floats("js_mean"),
                    linestyle="",
                    **_POINTS,
                    **looks,
                )
            right = max(float(series.floats(column).max()) for series in all_series)
            ticks.linear_axis(axes, "x", 0, 1.04 * right or 0.1)
            ticks.linear_axis(axes, "y", 0, 1.04 * top or 0.1)
            axes.set_xlabel(f"mean entropy of {POLICY_NAMES[policy]} (nats)")
        row[0].set_ylabel("mean JS divergence (nats)")
        if len(groups) > 1:
            label_panel(row[0], direction)
    colour = {series.run: series.colour for series in all_series}
    legend.add(figure, legend.of_runs(colour) if len(colour) > 1 else [])
    return figure


def _opacity(series: Series) -> float:
    """Lower for more points, so that dense regions stay darker than sparse ones."""
    return float(np.clip(15 / np.sqrt(series.rows.num_rows + 1), 0.2, 0.8))


def _draw_policy(axes: Axes, series: Series, policy: str) -> None:
    """Draw base as an area, RL as a line over it."""
    share = 100 * series.floats("share")
    if not share.size:
        return
    # Bins without positions may have no row, but all from 0 to the last one are drawn.
    numbers = np.rint(series.floats("entropy_low") / ENTROPY_BIN).astype(int)
    filled = np.full(numbers.max() + 1, _ZERO)
    filled[numbers] = np.maximum(share, _ZERO)
    edges = np.arange(len(filled) + 1) * ENTROPY_BIN
    looks: dict[str, Any] = (
        {"fill": True, "alpha": 0.45, "linewidth": 0} if policy == "base" else {"linewidth": 1.3}
    )
    axes.stairs(filled, edges, color=POLICY_COLOURS[policy], baseline=_ZERO, **looks)


def _end(all_series: Sequence[Series]) -> float:
    """The upper edge of the last bin that reaches the scale."""
    tops = [
        series.floats("entropy_high")[100 * series.floats("share") >= LOWEST_SHARE]
        for series in all_series
    ]
    return float(max((top.max() for top in tops if top.size), default=ENTROPY_BIN))


def _last_bin(series: Series) -> int:
    """Index of the last bin, of either policy, that is needed to show 99.9 % of the positions."""
    bins = np.maximum(
        *(
            np.rint(series.floats(name) / ENTROPY_BIN)
            for name in ("entropy_base_low", "entropy_rl_low")
        )
    )
    counts = np.bincount(bins.astype(int), series.floats("positions"))
    return int(np.searchsorted(np.cumsum(counts), 0.999 * counts.sum()))


def _density(series: Series, num_bins: int) -> Floats:
    """Counts [RL bin, base bin]; a cell without positions is NaN and stays white."""
    counts = np.zeros((num_bins, num_bins))
    base, rl = (
        np.rint(series.floats(name) / ENTROPY_BIN).astype(int)
        for name in ("entropy_base_low", "entropy_rl_low")
    )
    inside = np.maximum(base, rl) < num_bins
    np.add.at(counts, (rl[inside], base[inside]), series.floats("positions")[inside])
    return np.asarray(np.where(counts > 0, counts, np.nan))


def _note(axes: Axes, note: str) -> None:
    axes.annotate(
        note,
        (1, 1),
        xycoords="axes fraction",
        xytext=(-2, -2),
        textcoords="offset points",
        ha="right",
        va="top",
    )
