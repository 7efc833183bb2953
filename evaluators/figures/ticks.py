"""Axes of JS, shares and counts: whole decades, zero set apart, and numbers that need no formula to
be written.
"""

from __future__ import annotations

from math import ceil, floor, log10
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from engine.arrays import Floats

MAX_TICKS = 7
SMALLEST = 1e-12  # no decade is below
LOWEST_JS = 1e-8  # nats: what is below is rounding, and drawn with zero
Which = Literal["x", "y"]
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain(value: float, _place: int | None = None) -> str:
    """A number as text: 0.01 as it is, 1e-7 as 10⁻⁷."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")
    exponent = floor(log10(abs(value)) + 1e-9)
    mantissa = f"{value / 10.0**exponent:.3g}"
    return power_of_ten(exponent) if mantissa == "1" else f"{mantissa}·{power_of_ten(exponent)}"


def power_of_ten(exponent: int) -> str:
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def decades(values: Floats) -> tuple[float, float]:
    """The whole decades around the positive values, at least one."""
    positive = values[np.isfinite(values) & (values > 0)]
    if not positive.size:
        return 0.1, 1.0
    low = floor(log10(max(float(positive.min()), SMALLEST)) + 1e-9)
    high = ceil(log10(max(float(positive.max()), SMALLEST)) - 1e-9)
    return 10.0 ** min(low, high - 1), 10.0**high


def js_axis(axes: Axes, which: Which, values: Floats) -> None:
    """A logarithmic axis of JS in nats for these values, with zero where one of them is zero or
    only rounding.
    """
    low, high = decades(values)
    if np.nanmin(values) < LOWEST_JS:
        log_axis_with_zero(axes, which, max(low, LOWEST_JS), high)
    else:
        log_axis(axes, which, low, high)


def log_axis(axes: Axes, which: Which, low: float, high: float) -> None:
    """A logarithmic axis from `low` to `high`, both powers of ten."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    _fix(axes, which, powers(low, high), low, high)


def log_axis_with_zero(axes: Axes, which: Which, low: float, high: float) -> None:
    """The same with zero before it: linear from 0 to `low`, logarithmic above."""
    room = max(0.4, log10(high / low) / 9)  # decades from 0 to `low`
    (axes.set_xscale if which == "x" else axes.set_yscale)("symlog", linthresh=low, linscale=room)
    _fix(axes, which, [0.0, *powers(low, high)], 0.0, high)


def linear_axis(axes: Axes, which: Which, low: float, high: float, *, whole: bool = False) -> None:
    """A linear axis; `whole`: its ticks are whole numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(nbins=6, integer=whole, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(plain))
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)


def labelled_axis(axes: Axes, labels: dict[float, str], inches: float) -> None:
    """An x axis of `inches` with a tick at the first and the last place, and between them where
    there is room.
    """
    left, right = min(labels), max(labels)
    room = (max(map(len, labels.values())) + 1.2) * 0.075 * (right - left) / inches
    shown = dict.fromkeys((left, right))
    for place in sorted(labels):
        if all(abs(place - other) >= room for other in shown):
            shown[place] = None
    axes.set_xticks(list(shown), [labels[place] for place in shown])
    margin = 0.04 * (right - left) or 0.5
    axes.set_xlim(left - margin, right + margin)


def _fix(axes: Axes, which: Which, places: list[float], low: float, high: float) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)


def powers(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high`, every n-th of them where they are many; `high` is one."""
    first, last = round(log10(low)), round(log10(high))
    step = max(1, ceil((last - first) / MAX_TICKS))
    return [10.0**power for power in range(last, first - 1, -step)][::-1]
