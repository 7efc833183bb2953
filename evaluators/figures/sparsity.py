"""Sparsity of the shifts: at how many positions the two policies are apart, and how far."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluators.cutoffs import HIGH_DIVERGENCE, NEAR_ZERO
from evaluators.figures import legend, ticks
from evaluators.figures.series import Series, by_direction, floats, known, split
from evaluators.figures.style import draw_line, guide, label_panel, panels, with_style

MAX_OVERLAID = 4
MAX_JS = log(2)  # nats
LARGEST_TAIL, SMALLEST_TAIL = 20.0, 0.01  # % of positions
JS_LABEL = "JS divergence (nats)"


@with_style
def histogram(js_histogram: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """Share of positions by JS divergence, both axes logarithmic; the bar at the left is JS of
    exactly 0.

    A panel a direction where there would be more than four lines in one.
    """
    table = known(js_histogram, "js_low", "js_high", "share")
    series = split(table, runs)
    if not series:
        return None
    groups = _groups(series)
    figure, axes = panels(len(groups), 2, 2.6, share_x=False, share_y=True, widths=[1, 9])
    bins = table.filter(pa.array(floats(table, "js_high") > 0))
    shown = [floats(bins, "js_low"), floats(bins, "js_high"), np.array([NEAR_ZERO / 10, MAX_JS])]
    x_limits = ticks.decades(np.concatenate(shown))
    shares = 100 * floats(table, "share")
    y_limits = (
        ticks.decades(0.7 * shares)[0],
        ticks.decades(shares)[1],
    )  # the lowest bar has a height, too
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
    legend.add(figure, legend.of_series(series, bars=True))
    return figure


@with_style
def percentiles(js_percentiles: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """JS divergence at each percentile of positions; at the right the same tail, stretched: the
    share above, log.
    """
    table = known(js_percentiles, "percentile", "js")
    series = split(table, runs)
    if not series:
        return None
    figure, axes = panels(1, 2, 3.0, share_x=False, share_y=True, widths=[3, 2])
    whole, tail = axes[0]
    for one in series:
        percentile, js = one.floats("percentile"), one.floats("js")
        draw_line(whole, percentile, js, **one.looks)
        above = 100 - percentile
        inside = (above >= SMALLEST_TAIL - 1e-9) & (above <= LARGEST_TAIL)
        draw_line(tail, above[inside], js[inside], **one.looks)
    ticks.js_axis(whole, "y", np.append(floats(table, "js"), [NEAR_ZERO, MAX_JS]))
    ticks.linear_axis(whole, "x", 0, 100)
    ticks.log_axis(tail, "x", SMALLEST_TAIL, 10)
    tail.set_xlim(LARGEST_TAIL, SMALLEST_TAIL)
    whole.set(xlabel="percentile of positions", ylabel=JS_LABEL)
    tail.set_xlabel("positions with a larger JS (%)")
    for cutoff, label in ((NEAR_ZERO, "near zero ≤ {}"), (HIGH_DIVERGENCE, "high > {}")):
        for one_axes in (whole, tail):
            guide(one_axes, y=cutoff)
        shown, place = label.format(ticks.plain(cutoff)), (0, cutoff)
        whole.annotate(
            shown, place, xytext=(4, 2), textcoords="offset points", va="bottom", fontsize=7.5
        )
    legend.add(figure, legend.of_series(series))
    return figure


def _groups(series: list[Series]) -> list[tuple[str, list[Series]]]:
    return by_direction(series) if len(series) > MAX_OVERLAID else [("", series)]


def _zero_bars(axes: Axes, members: list[Series], bottom: float) -> None:
    """A bar a series for JS = 0, side by side."""
    for place, one in enumerate(members):
        share = 100 * one.where(js_high=0.0).floats("share").sum()
        if share > 0:
            axes.bar(place, share - bottom, bottom=bottom, width=0.8, **one.bar_looks)
    axes.set(xlim=(-0.9, len(members) - 0.1), xticks=[(len(members) - 1) / 2], xticklabels=["0"])
    axes.grid(axis="x", visible=False)


def _outlines(axes: Axes, members: list[Series]) -> None:
    """A line of steps a series; filled where it is alone."""
    for one in members:
        low, high, share = one.floats("js_low"), one.floats("js_high"), 100 * one.floats("share")
        bins = high > 0
        if not bins.any():
            continue
        edges = np.append(low[bins], high[bins][-1])
        axes.stairs(
            share[bins], edges, color=one.colour, linestyle=one.line, linewidth=1.4, baseline=None
        )
        if len(members) == 1:
            axes.stairs(share[bins], edges, color=one.colour, alpha=0.25, fill=True, baseline=1e-15)


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
