"""Identity in detail: how the JS divergence of each of the most frequent tokens is distributed."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log2, log10

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from engine.arrays import Floats
from evaluators.cutoffs import HIGH_DIVERGENCE, NEAR_ZERO
from evaluators.figures import text, ticks
from evaluators.figures.series import Series, floats, known, split
from evaluators.figures.style import (
    colour_bar,
    guide,
    label_axes,
    label_panel,
    small_multiples,
    with_style,
)

MAX_TOKENS = 20
LOWEST_DRAWN = 1e-6  # nats: below is rounding, and drawn with zero
PER_OCTAVE = 2  # bins, which are [2^(n/2), 2^((n+1)/2))
_ZERO = (-3.0, -0.8)  # where the column of zero is, in bins
_SCALE = (0, 1, 5, 10, 20, 40, 60, 80, 100)
_ROW, _FEWEST_ROWS = 0.165, 8  # inches a row; room for the labels of the scales


@with_style
def heat_rows(table: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """JS divergence of the tokens most frequent at high divergence: a row a token, its positions
    spread over JS.

    Rows are in the order of frequency at high divergence; shade is the share of the token's
    positions in a bin. The column at the left is JS of exactly 0, or below 1e-6.
    """
    table = known(table, "rank", "js_low", "js_high", "positions")
    series = split(table, runs)
    if not series:
        return None
    first, last = _bins(table)
    shares = [_shares(one, first, last) for one in series]
    most_rows = max(_FEWEST_ROWS, *map(len, shares))
    figure, places = small_multiples(
        len(series), (0.6 if len(series) > 1 else 0.35) + _ROW * most_rows, share_y=False
    )
    most = max(10.0, 100 * max(float(found.max()) for found in shares))
    norm = PowerNorm(0.5, 0, most)
    for axes, one, found in zip(places, series, shares, strict=True):
        percent, rows = np.where(found > 0, 100 * found, np.nan), np.arange(len(found) + 1) - 0.5
        axes.pcolormesh(_ZERO, rows, percent[:, :1], norm=norm, cmap="Blues", rasterized=True)
        mesh = axes.pcolormesh(
            np.arange(last - first + 1),
            rows,
            percent[:, 1:],
            norm=norm,
            cmap="Blues",
            rasterized=True,
        )
        _tokens_axis(axes, one, most_rows)
        _js_axis(axes, first, last)
        if len(series) > 1:
            label_panel(axes, one.stacked_label, one.colour)
    label_axes(figure, "JS divergence (nats)", "token, by its frequency at high JS")
    colour_bar(figure, mesh, places, "positions of the token (%)", [t for t in _SCALE if t <= most])
    return figure


def _bins(table: pa.Table) -> tuple[int, int]:
    """Number n of the first bin that is drawn, and of the first that is not."""
    ends = np.maximum(np.append(floats(table, "js_high"), NEAR_ZERO), LOWEST_DRAWN)
    numbers = np.rint(PER_OCTAVE * np.log2(ends)).astype(int)
    return int(numbers.min()) - 1, max(
        int(numbers.max()), ceil(PER_OCTAVE * log2(HIGH_DIVERGENCE)) + 1
    )


def _shares(one: Series, first: int, last: int) -> Floats:
    """Shares of each token's positions [tokens, 1 + bins]: at zero and what is not drawn, then in
    each bin.
    """
    ranks = sorted(set(one.floats("rank").tolist()))[:MAX_TOKENS]
    counts = np.zeros((len(ranks), 1 + last - first))
    for rank, low, positions in zip(
        one.floats("rank"), one.floats("js_low"), one.floats("positions"), strict=True
    ):
        if rank in ranks:
            number = round(PER_OCTAVE * log2(low)) - first if low > 0 else -1
            counts[ranks.index(rank), 1 + min(max(number, -1), last - first - 1)] += positions
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _tokens_axis(axes: Axes, one: Series, num_rows: int) -> None:
    shown = {row["rank"]: text.token(row["text"], row["token"]) for row in one.rows.to_pylist()}
    tokens = [shown[rank] for rank in sorted(shown)[:MAX_TOKENS]]
    axes.set_yticks(range(len(tokens)), tokens)
    axes.set_ylim(num_rows - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)


def _js_axis(axes: Axes, first: int, last: int) -> None:
    """Ticks at zero and at powers of ten, and lines at the cut-offs, where bins are numbered from
    `first`.
    """
    low, high = 2 ** (first / PER_OCTAVE), 2 ** (last / PER_OCTAVE)
    exponents = range(ceil(log10(low)), floor(log10(high)) + 1)
    places = {
        _place(10.0**n, first): ticks.power_of_ten(n) if n < -2 else ticks.plain(10.0**n)
        for n in exponents
    }
    shown = {place: label for place, label in places.items() if place >= 3}  # not on that of zero
    axes.set_xticks([sum(_ZERO) / 2, *shown], ["≈ 0", *shown.values()])
    axes.set_xlim(_ZERO[0], last - first)
    for cutoff in (NEAR_ZERO, HIGH_DIVERGENCE):
        guide(axes, x=_place(cutoff, first))


def _place(js: float, first: int) -> float:
    return PER_OCTAVE * log2(js) - first
