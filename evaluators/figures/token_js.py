"""A figure of the distribution of JS divergence of each of the most frequent tokens."""

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
from evaluators.figures.series import Series, finite_rows, floats, split
from evaluators.figures.style import (
    colour_bar,
    guide,
    label_axes,
    label_panel,
    small_multiples,
    with_style,
)

MAX_TOKENS = 20
LOWEST_DRAWN = 1e-6  # nats: smaller values are drawn as zero
PER_OCTAVE = 2  # bins [2^(n/2), 2^((n+1)/2))
_ZERO = (-3.0, -0.8)  # left and right edge of the column of zero, in bins
_SCALE = (0, 1, 5, 10, 20, 40, 60, 80, 100)
_ROW = 0.165  # inches
_MIN_ROWS = 8  # leave room for the labels of the scales


@with_style
def heat_rows(table: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """JS divergence of the tokens that are most frequent at high divergence, one row per token.

    Rows are in the order of that frequency; shade is the share of the token's positions in a bin of
    JS. The column at the left is JS below LOWEST_DRAWN.
    """
    table = finite_rows(table, "rank", "js_low", "js_high", "positions")
    all_series = split(table, runs)
    if not all_series:
        return None
    first, last = _bins(table)
    shares = [_shares(series, first, last) for series in all_series]
    most_rows = max(_MIN_ROWS, *map(len, shares))
    figure, places = small_multiples(
        len(all_series), (0.6 if len(all_series) > 1 else 0.35) + _ROW * most_rows, share_y=False
    )
    largest = max(10.0, 100 * max(float(token_shares.max()) for token_shares in shares))
    norm = PowerNorm(0.5, 0, largest)
    for axes, series, token_shares in zip(places, all_series, shares, strict=True):
        percent = np.where(token_shares > 0, 100 * token_shares, np.nan)
        rows = np.arange(len(token_shares) + 1) - 0.5
        axes.pcolormesh(_ZERO, rows, percent[:, :1], norm=norm, cmap="Blues", rasterized=True)
        mesh = axes.pcolormesh(
            np.arange(last - first + 1),
            rows,
            percent[:, 1:],
            norm=norm,
            cmap="Blues",
            rasterized=True,
        )
        _tokens_axis(axes, series, most_rows)
        _js_axis(axes, first, last)
        if len(all_series) > 1:
            label_panel(axes, series.stacked_label, series.colour)
    label_axes(figure, "JS divergence (nats)", "token, by its frequency at high JS")
    colour_bar(
        figure, mesh, places, "positions of the token (%)", [t for t in _SCALE if t <= largest]
    )
    return figure


def _bins(table: pa.Table) -> tuple[int, int]:
    """Index n of the first bin that is drawn, and of the first beyond the drawn ones."""
    ends = np.maximum(np.append(floats(table, "js_high"), NEAR_ZERO), LOWEST_DRAWN)
    numbers = np.rint(PER_OCTAVE * np.log2(ends)).astype(int)
    return int(numbers.min()) - 1, max(
        int(numbers.max()), ceil(PER_OCTAVE * log2(HIGH_DIVERGENCE)) + 1
    )


def _shares(series: Series, first: int, last: int) -> Floats:
    """Shares of each token's positions [tokens, 1 + bins].

    The first column is of zero and all below the first bin, the others are of the bins.
    """
    ranks = sorted(set(series.floats("rank").tolist()))[:MAX_TOKENS]
    counts = np.zeros((len(ranks), 1 + last - first))
    for rank, low, positions in zip(
        series.floats("rank"), series.floats("js_low"), series.floats("positions"), strict=True
    ):
        if rank in ranks:
            number = round(PER_OCTAVE * log2(low)) - first if low > 0 else -1
            counts[ranks.index(rank), 1 + min(max(number, -1), last - first - 1)] += positions
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _tokens_axis(axes: Axes, series: Series, num_rows: int) -> None:
    names = {row["rank"]: text.token(row["text"], row["token"]) for row in series.rows.to_pylist()}
    tokens = [names[rank] for rank in sorted(names)[:MAX_TOKENS]]
    axes.set_yticks(range(len(tokens)), tokens)
    axes.set_ylim(num_rows - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)


def _js_axis(axes: Axes, first: int, last: int) -> None:
    """Set ticks at zero and powers of ten, and lines at the cutoffs, for bins from `first` on."""
    low, high = 2 ** (first / PER_OCTAVE), 2 ** (last / PER_OCTAVE)
    exponents = range(ceil(log10(low)), floor(log10(high)) + 1)
    places = {
        _place(10.0**n, first): ticks.power_of_ten(n) if n < -2 else ticks.plain(10.0**n)
        for n in exponents
    }
    # A label further left would overlap that of zero.
    labels = {place: label for place, label in places.items() if place >= 3}
    axes.set_xticks([sum(_ZERO) / 2, *labels], ["≈ 0", *labels.values()])
    axes.set_xlim(_ZERO[0], last - first)
    for cutoff in (NEAR_ZERO, HIGH_DIVERGENCE):
        guide(axes, x=_place(cutoff, first))


def _place(js: float, first: int) -> float:
    return PER_OCTAVE * log2(js) - first
