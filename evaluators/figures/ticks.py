"""Axes of JS, shares and counts: whole decades, a separate zero, and ticks in plain Unicode.

No tick label is set as a formula.
"""

from __future__ import annotations

from math import ceil, floor, log10
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from engine.arrays import Floats

MAX_TICKS = 7
SMALLEST = 1e-12  # no decade lies below
LOWEST_JS = 1e-8  # nats: smaller values are rounding errors, and drawn as zero
Which = Literal["x", "y"]
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain(value: float, _place: int | None = None) -> str:
    """A number as text, such as 0.01 or 10⁻⁷."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")
    exponent = floor(log10(abs(value)) + 1e-9)
    mantissa = f"{value / 10.0**exponent:.3g}"
    return power_of_ten(exponent) if mantissa == "1" else f"{mantissa}·{power_of_ten(exponent)}"


def power_of_ten(exponent: int) -> str:
    """A power of ten as text, such as 10⁻⁷."""
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def decades(values: Floats) -> tuple[float, float]:
    """The powers of ten around the positive values, at least a decade apart."""
    positive = values[np.isfinite(values) & (values > 0)]
    if not positive.size:
        return 0.1, 1.0
    low = floor(log10(max(float(positive.min()), SMALLEST)) + 1e-9)
    high = ceil(log10(max(float(positive.max()), SMALLEST)) - 1e-9)
    return 10.0 ** min(low, high - 1), 10.0**high


def js_axis(axes: Axes, which: Which, values: Floats) -> None:
    """Set a logarithmic axis of JS in nats for these values.

    It includes zero where one of the values is below LOWEST_JS.
    """
    low, high = decades(values)
    if np.nanmin(values) < LOWEST_JS:
        log_axis_with_zero(axes, which, max(low, LOWEST_JS), high)
    else:
        log_axis(axes, which, low, high)


def log_axis(axes: Axes, which: Which, low: float, high: float) -> None:
    """Set a logarithmic axis from `low` to `high`, both powers of ten."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    _fix(axes, which, powers(low, high), low, high)


def log_axis_with_zero(axes: Axes, which: Which, low: float, high: float) -> None:
    """Set an axis that is linear from 0 to `low` and logarithmic from there to `high`."""
    room = max(0.4, log10(high / low) / 9)  # decades from 0 to `low`
    (axes.set_xscale if which == "x" else axes.set_yscale)("symlog", linthresh=low, linscale=room)
    _fix(axes, which, [0.0, *powers(low, high)], 0.0, high)


def linear_axis(axes: Axes, which: Which, low: float, high: float, *, whole: bool = False) -> None:
    """Set a linear axis from `low` to `high`; with `whole`, its ticks are whole numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(nbins=6, integer=whole, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(plain))
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)


def labelled_axis(axes: Axes, labels: dict[float, str], inches: float) -> None:
    """Set an x axis with labelled ticks: the first, the last, and as many between as fit.

    Args:
        axes: The panel.
        labels: Positions along the axis and their labels.
        inches: The length of the axis.
    """
    left, right = min(labels), max(labels)
    room = (max(map(len, labels.values())) + 1.2) * 0.075 * (right - left) / inches
    ticks = dict.fromkeys((left, right))
    for place in sorted(labels):
        if all(abs(place - other) >= room for other in ticks):
            ticks[place] = None
    axes.set_xticks(list(ticks), [labels[place] for place in ticks])
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
    """Powers of ten from `low` to `high`, at most MAX_TICKS of them; `high` is one of them."""
    first, last = round(log10(low)), round(log10(high))
    step = max(1, ceil((last - first) / MAX_TICKS))
    return [10.0**power for power in range(last, first - 1, -step)][::-1]
