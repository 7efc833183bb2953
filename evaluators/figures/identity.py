"""A token cloud: the tokens sampled at high and at low divergence, sized by their frequency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.text import Text

from evaluators.cutoffs import HIGH_DIVERGENCE, NEAR_ZERO
from evaluators.figures import text
from evaluators.figures.flow import Size, flow
from evaluators.figures.series import Series, finite_rows, split
from evaluators.figures.style import GUIDE_COLOUR, WIDTH, new_figure, renderer, with_style

LARGEST, SMALLEST = 30.0, 7.5  # points
# Blue over grey to red-brown: colour-blind readers can tell them apart, and all are dark enough on
# white.
SHARE_COLOURS = LinearSegmentedColormap.from_list("share_high", ["#0072B2", "#5F5F66", "#C24A00"])
SHARE_SCALE = PowerNorm(0.5, 0, 1)  # spreads small shares, which most tokens have
HEADINGS = {"high": f"JS > {HIGH_DIVERGENCE:g} nats", "low": f"JS ≤ {NEAR_ZERO:g} nats"}

# In inches: around the figure, between its halves, and between tokens.
_MARGIN, _GUTTER, _GAP = 0.12, 0.3, 0.09
_HALF = (WIDTH - 2 * _MARGIN - _GUTTER) / 2  # width of a half, in inches
_HEADING, _SCALE = 0.32, 0.62  # heights of a heading and of the scale of colours, in inches


@with_style
def token_cloud(frequent_tokens: pa.Table, runs: Sequence[str] = ()) -> Figure | None:
    """The most frequent tokens at high (left) and at low (right) JS divergence, by frequency.

    The area of a token (its size squared) is its share of the positions of its class, down to a
    smallest size and up to the width of a line. Its colour is the share of all its positions that
    are of high divergence. ␣ is a space, ⏎ a line end.
    """
    all_series = split(finite_rows(frequent_tokens, "rank", "share", "share_high"), runs)
    if not all_series:
        return None
    figure = new_figure(1)
    figure.set_layout_engine("none")
    placed: list[tuple[Text, float]] = []  # a text, and its depth below the top in inches
    depth = _MARGIN
    for series in all_series:
        halves = [
            _half(figure, series, divergence, place, depth, _limit(len(all_series)))
            for place, divergence in enumerate(HEADINGS)
        ]
        placed += [text_ for half, _ in halves for text_ in half]
        depth = max(bottom for _, bottom in halves)
    height = depth + _SCALE
    figure.set_size_inches(WIDTH, height)
    for text_, below in placed:
        text_.set_y(height - below)
    _scale(figure, height)
    return figure


def _limit(num_series: int) -> int:
    """Number of tokens drawn of each class; smaller for many series, which need much height."""
    if num_series <= 2:
        return 50
    return 30 if num_series <= 4 else 20


def _half(
    figure: Figure, series: Series, divergence: str, place: int, top: float, limit: int
) -> tuple[list[tuple[Text, float]], float]:
    """The heading of a class and its tokens below it.

    Returns:
        The texts with their depths, and the depth at which the half ends: in inches below the top.
    """
    left = _MARGIN + place * (_HALF + _GUTTER)
    rows = series.where(divergence=divergence).rows.sort_by("rank").slice(0, limit).to_pylist()
    parts = [
        series.label if not place else "",
        HEADINGS[divergence] + ("" if rows else ": no positions"),
    ]
    heading = _text(figure, " · ".join(part for part in parts if part), 8.5)
    heading.set(x=left, color=GUIDE_COLOUR)
    largest = max((row["share"] for row in rows), default=1.0) or 1.0
    words = [_word(figure, row, row["share"] / largest) for row in rows]
    paragraph = flow([_size(figure, word) for word in words], _HALF, _GAP)
    for word, (x, _) in zip(words, paragraph.places, strict=True):
        word.set_x(left + x)
    depths = [top + _HEADING + y for _, y in paragraph.places]
    return [
        (heading, top + 0.14),
        *zip(words, depths, strict=True),
    ], top + _HEADING + paragraph.height + 0.1


def _word(figure: Figure, row: dict[str, Any], share: float) -> Text:
    """Draw a token; `share` is its frequency relative to the most frequent token, 0 to 1."""
    word = _text(figure, text.token(row["text"], row["token"]), max(SMALLEST, LARGEST * share**0.5))
    word.set_color(SHARE_COLOURS(SHARE_SCALE(row["share_high"])))
    while (width := _size(figure, word).width) > _HALF:
        word.set_fontsize(float(word.get_fontsize()) * min(0.98, _HALF / width))
    return word


def _text(figure: Figure, content: str, size: float) -> Text:
    return figure.text(
        0, 0, content, fontsize=size, va="baseline", transform=figure.dpi_scale_trans
    )


def _size(figure: Figure, word: Text) -> Size:
    """The size of a text that stands at 0, in inches."""
    box = word.get_window_extent(renderer(figure))
    return Size(box.width / figure.dpi, box.y1 / figure.dpi, -box.y0 / figure.dpi)


def _scale(figure: Figure, height: float) -> None:
    """Draw the scale of colours, below the tokens at the left."""
    axes = figure.add_axes((_MARGIN / WIDTH + 0.01, 0.4 / height, 0.4, 0.1 / height))
    bar = figure.colorbar(
        ScalarMappable(norm=SHARE_SCALE, cmap=SHARE_COLOURS), cax=axes, orientation="horizontal"
    )
    bar.set_ticks([0, 0.05, 0.25, 0.5, 1], labels=["0", "5", "25", "50", "100"])
    label = figure.text(
        0.46, 0.45 / height, "of the token's positions are of high divergence (%)", va="center"
    )
    label.set_fontsize("medium")
