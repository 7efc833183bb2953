"""Figures of sparsity: at how many positions the two policies differ, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluators.cutoffs import HIGH_DIVERGENCE, NEAR_ZERO
from evaluators.figures import legend, ticks
from evaluators.figures.series import Series, by_direction, finite_rows, floats, split
from evaluators.figures.style import draw_line, guide, label_panel, panels, with_style

MAX_OVERLAID = 4
MAX_JS = log(2)  # nats
LARGEST_TAIL, SMALLEST_TAIL = 20.0, 0.01  # % of positions
JS_LABEL = "JS divergence (nats)"


@with_style
def histogram(js_histogram: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Share of positions by JS divergence, both axes logarithmic; the left bar is JS = 0 exactly.

    One panel per direction if a single panel would hold more than MAX_OVERLAID lines.
    """
    table = finite_rows(js_histogram, "js_low", "js_high", "share")
    all_series = split(table, runs)
    if not all_series:
        return None
    groups = _groups(all_series)
    figure, axes = panels(len(groups), 2, 2.6, share_x=False, share_y=True, widths=[1, 9])
    bins = table.filter(pa.array(floats(table, "js_high") > 0))
    edges = [floats(bins, "js_low"), floats(bins, "js_high"), np.array([NEAR_ZERO / 10, MAX_JS])]
    x_limits = ticks.decades(np.concatenate(edges))
    shares = 100 * floats(table, "share")
    # The lower limit lies below the lowest bar, so that this too has a height.
    y_limits = (ticks.decades(0.7 * shares)[0], ticks.decades(shares)[1])
    for (direction, members), (zero, rest) in zip(groups, axes, strict=True):
        _zero_bars(zero, members, y_limits[0])
        _outlines(rest, members)
        ticks.log_axis(rest, "x", *x_limits)
        ticks.log_axis(zero, "y", *y_limits)
        zero.set_ylabel("positions (%)")
        rest.tick_params(left=False)
        rest.spines["left"].set_visible(False)
        _mark_cutoffs(rest)
        if len(groups) > 1:
            label_panel(rest, direction)
    axes[-1, 1].set_xlabel(JS_LABEL)
    legend.add(figure, legend.of_series(all_series, bars=True))
    return figure


@with_style
def percentiles(js_percentiles: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """JS divergence at each percentile of positions (left), and its tail stretched (right).

    The axis of the tail is the share of positions with a larger JS, logarithmic.
    """
    table = finite_rows(js_percentiles, "percentile", "js")
    all_series = split(table, runs)
    if not all_series:
        return None
    figure, axes = panels(1, 2, 3.0, share_x=False, share_y=True, widths=[3, 2])
    whole, tail = axes[0]
    for series in all_series:
        percentile, js = series.floats("percentile"), series.floats("js")
        draw_line(whole, percentile, js, **series.looks)
        above = 100 - percentile
        inside = (above >= SMALLEST_TAIL - 1e-9) & (above <= LARGEST_TAIL)
        draw_line(tail, above[inside], js[inside], **series.looks)
    ticks.js_axis(whole, "y", np.append(floats(table, "js"), [NEAR_ZERO, MAX_JS]))
    ticks.linear_axis(whole, "x", 0, 100)
    ticks.log_axis(tail, "x", SMALLEST_TAIL, 10)
    tail.set_xlim(LARGEST_TAIL, SMALLEST_TAIL)
    whole.set(xlabel="percentile of positions", ylabel=JS_LABEL)
    tail.set_xlabel("positions with a larger JS (%)")
    for cutoff, label in ((NEAR_ZERO, "near zero ≤ {}"), (HIGH_DIVERGENCE, "high > {}")):
        for panel in (whole, tail):
            guide(panel, y=cutoff)
        note, place = label.format(ticks.plain(cutoff)), (0, cutoff)
        whole.annotate(
            note, place, xytext=(4, 2), textcoords="offset points", va="bottom", fontsize=7.5
        )
    legend.add(figure, legend.of_series(all_series))
    return figure


def _groups(all_series: list[Series]) -> list[tuple[str, list[Series]]]:
    return by_direction(all_series) if len(all_series) > MAX_OVERLAID else [("", all_series)]


def _zero_bars(axes: Axes, members: list[Series], bottom: float) -> None:
    """One bar per series for JS = 0, side by side."""
    for place, series in enumerate(members):
        share = 100 * series.where(js_high=0.0).floats("share").sum()
        if share > 0:
            axes.bar(place, share - bottom, bottom=bottom, width=0.8, **series.bar_looks)
    axes.set(xlim=(-0.9, len(members) - 0.1), xticks=[(len(members) - 1) / 2], xticklabels=["0"])
    axes.grid(axis="x", visible=False)


def _outlines(axes: Axes, members: list[Series]) -> None:
    """One stepped line per series; a single one is filled."""
    for series in members:
        low, high, share = (
            series.floats("js_low"),
            series.floats("js_high"),
            100 * series.floats("share"),
        )
        bins = high > 0
        if not bins.any():
            continue
        edges = np.append(low[bins], high[bins][-1])
        axes.stairs(
            share[bins],
            edges,
            color=series.colour,
            linestyle=series.line,
            linewidth=1.4,
            baseline=None,
        )
        if len(members) == 1:
            axes.stairs(
                share[bins], edges, color=series.colour, alpha=0.25, fill=True, baseline=1e-15
            )


def _mark_cutoffs(axes: Axes) -> None:
    for cutoff, label, side in (
        (NEAR_ZERO, "near zero ≤ {}", "right"),
        (HIGH_DIVERGENCE, "high\n> {}", "left"),
    ):
        guide(axes, x=cutoff)
        axes.annotate(
            label.format(ticks.plain(cutoff)),
            (cutoff, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if side == "right" else 4, -2),
            textcoords="offset points",
            ha=side,
            va="top",
            fontsize=7.5,
        )
